//! The broker without records, for benches: what it is faster by is what records cost. Its place among the built programs is not
//! that of the broker.

use std::alloc::System;
use std::process::ExitCode;

use zeroizing_alloc::ZeroAlloc;

/// The broker's.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    key_broker::run_unrecorded()
}
