//! The process: arguments, runtime, signals and exit codes.

use std::process::ExitCode;

use clap::Parser;
use key_broker::cli::Cli;
use mimalloc::MiMalloc;
use zeroizing_alloc::ZeroAlloc;

/// Wipes what is freed: buffers of HTTP, TLS, JSON and protobuf that held key material, over which the broker has no hand.
///
/// mimalloc below, since calls come in bursts: of each size the C library has only a few pieces at hand (docs/adr/0015).
#[global_allocator]
static ALLOCATOR: ZeroAlloc<MiMalloc> = ZeroAlloc(MiMalloc);

fn main() -> ExitCode {
    key_broker::cli::run(Cli::parse())
}
