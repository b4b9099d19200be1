//! The broker without records, for benches: the difference is what records cost. An example, so that it is never built in place of
//! the broker.

use std::alloc::System;
use std::process::ExitCode;

use zeroizing_alloc::ZeroAlloc;

/// The broker's.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    key_broker::run_unrecorded()
}
