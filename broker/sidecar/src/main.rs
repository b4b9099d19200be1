//! The process: arguments, runtime, signals and exit codes.

use std::alloc::System;
use std::process::ExitCode;

use zeroizing_alloc::ZeroAlloc;

/// Wipes what is freed: buffers of HTTP, TLS, JSON and protobuf that held key material, over which the broker has no hand.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    key_broker::run()
}
