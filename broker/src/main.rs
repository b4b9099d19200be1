//! The process: arguments, runtime, signals and exit codes.

use std::process::ExitCode;

use clap::Parser;
use key_broker::cli::Cli;

fn main() -> ExitCode {
    key_broker::cli::run(Cli::parse())
}
