//! The emulator of a `key-broker dev` that is not running: its keys are in its folder, so its trail can be read before and
//! after Ctrl-C.

use std::path::Path;
use std::time::Duration;

use kms_emulator::{Emulator, EmulatorConfig, EmulatorError};
use tokio::net::TcpStream;

use super::Failure;
use crate::kms::aws::AwsSettings;

/// Starts the emulator of the folder, unless `dev` has it running, and points `aws` to it.
pub(super) async fn start_if_stopped(dir: &Path, aws: &mut AwsSettings) -> Result<Option<Emulator>, Failure> {
    let state = dir.join("kms/state.json");
    if !state.exists() {
        return Err(Failure::Unavailable(format!(
            "{}: not there: the keys of this `key-broker dev` are gone, and what they encrypted and signed cannot be checked",
            state.display()
        )));
    }
    let config =
        EmulatorConfig { region: aws.region.clone(), state_file: Some(state), ..EmulatorConfig::default() };
    match Emulator::start(config).await {
        Ok(emulator) => {
            aws.endpoint_url = Some(emulator.endpoint_url());
            aws.sts_endpoint_url = Some(emulator.endpoint_url());
            Ok(Some(emulator))
        }
        // The emulator of a running `dev` has locked the file.
        Err(EmulatorError::State(_)) if answers(aws.endpoint_url.as_deref()).await => Ok(None),
        Err(error) => Err(Failure::Unavailable(format!("the KMS emulator of {}: {error}", dir.display()))),
    }
}

async fn answers(url: Option<&str>) -> bool {
    let Some(address) = url.and_then(|url| url.strip_prefix("http://")) else { return false };
    matches!(tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await, Ok(Ok(_)))
}

const PATIENCE: Duration = Duration::from_secs(1);
