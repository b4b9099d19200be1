//! `key-broker health`: one question, answered by the exit code.

use std::process::ExitCode;
use std::time::Duration;

use super::target::Target;
use super::{block_on, fail};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Give up after this many milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    timeout_ms: u64,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    block_on(1, async {
        let timeout = Duration::from_millis(arguments.timeout_ms);
        match tokio::time::timeout(timeout, ask(&arguments.target)).await {
            Ok(Ok(true)) => {
                println!("SERVING");
                ExitCode::SUCCESS
            }
            Ok(Ok(false)) => fail("NOT_SERVING: the broker drains or its journal cannot commit: see its log"),
            Ok(Err(error)) => fail(error),
            Err(_) => fail(format!("no answer within {} ms", arguments.timeout_ms)),
        }
    })
}

async fn ask(target: &Target) -> Result<bool, String> {
    target.connect().await?.is_serving().await.map_err(|error| error.to_string())
}
