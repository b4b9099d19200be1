//! `key-broker serve`: the sidecar.

use std::path::Path;
use std::process::ExitCode;

use key_broker_core::secret;

use super::hardening::harden;
use super::{block_on, drain_on_signal, fail, process_limits, stopped, wrong_configuration};
use crate::app::{self, StartError};
use crate::config::Config;
use crate::telemetry;
use crate::telemetry::export::Export;

pub(super) fn run(config: &Path) -> ExitCode {
    let hardening = harden();
    let mut config = match Config::load(config) {
        Ok(config) => config,
        Err(error) => return wrong_configuration(error),
    };
    let mut export = match Export::from_environment() {
        Ok(export) => export,
        Err(error) => return fail(error),
    };
    telemetry::init(export.traces());
    hardening.report();
    if let Err(error) = process_limits::fit(&mut config) {
        return fail(error);
    }
    secret::prepare();
    let told = export.telemetry(config.http);
    let code = block_on(config.worker_threads, async {
        let signals = process_limits::survive_file_size_limit().and_then(|()| drain_on_signal());
        let drain = match signals {
            Ok(drain) => drain,
            Err(error) => return fail(format!("cannot listen to signals: {error}")),
        };
        match Box::pin(app::serve(config, None, told, drain, || {})).await {
            Ok(remainder) => stopped(&remainder),
            Err(error @ (StartError::Policy(_) | StartError::SessionName(_))) => wrong_configuration(error),
            Err(error) => fail(error),
        }
    });
    export.finish();
    code
}
