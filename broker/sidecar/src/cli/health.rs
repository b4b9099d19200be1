//! `key-broker health`: liveness or readiness, by exit code.

use std::process::ExitCode;
use std::time::Duration;

use super::block_on;
use super::exit::{Exit, fail};
use super::target::{CallFailure, Target};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Only ask whether the process answers: for liveness probes, since a restart repairs neither KMS nor a full disk
    #[arg(long)]
    live: bool,
    /// Give up after this many milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    timeout_ms: u64,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    block_on(1, async {
        let timeout = Duration::from_millis(arguments.timeout_ms);
        match tokio::time::timeout(timeout, ask(arguments)).await {
            Ok(Ok(true)) => {
                println!("SERVING");
                Exit::Done.into()
            }
            Ok(Ok(false)) => fail(
                "NOT_SERVING: the broker drains, its trail is not open yet, its journal cannot commit, or KMS does not answer: see its log",
            ),
            Ok(Err(failure)) => failure.end(),
            Err(_) => fail(format!("no answer within {} ms (--timeout-ms)", arguments.timeout_ms)),
        }
    })
}

async fn ask(arguments: &Arguments) -> Result<bool, CallFailure> {
    let client = arguments.target.connect().await?;
    let answer = if arguments.live { client.is_alive().await } else { client.is_serving().await };
    answer.map_err(|error| CallFailure::of(&error, arguments.timeout_ms))
}
