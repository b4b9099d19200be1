//! The process: arguments, runtime, signals and exit codes.

use std::alloc::System;
use std::process::ExitCode;

use zeroizing_alloc::ZeroAlloc;

/// Wipes freed memory: buffers of HTTP, TLS, JSON and protobuf libraries that may have held key material.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    key_broker::run()
}
