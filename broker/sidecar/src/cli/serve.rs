//! `key-broker serve`: the sidecar.

use std::path::Path;
use std::process::ExitCode;

use key_broker_core::secret;

use super::hardening::harden;
use super::{block_on, drain_on_signal, fail, wrong_configuration};
use crate::app;
use crate::config::Config;
use crate::telemetry;

pub(super) fn run(config: &Path) -> ExitCode {
    let hardening = harden();
    let config = match Config::load(config) {
        Ok(config) => config,
        Err(error) => return wrong_configuration(error),
    };
    telemetry::init_log();
    hardening.report();
    secret::prepare();
    block_on(config.worker_threads, async {
        let drain = match drain_on_signal() {
            Ok(drain) => drain,
            Err(error) => return fail(format!("cannot listen to signals: {error}")),
        };
        match Box::pin(app::serve(config, None, drain, || {})).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(error),
        }
    })
}
