//! `key-broker serve`: the sidecar.

use std::path::Path;
use std::process::ExitCode;

use key_broker_core::secret;

use super::allocator;
use super::exit::{fail, mistake};
use super::hardening::harden;
use super::{block_on, drain_on_signal, not_started, process_limits, stopped};
use crate::app;
use crate::config::Config;
use crate::telemetry;
use crate::telemetry::export::Export;

pub(super) fn run(config: &Path) -> ExitCode {
    allocator::tune();
    let hardening = harden();
    let mut config = match Config::load(config) {
        Ok(config) => config,
        Err(error) => return mistake(error),
    };
    let audit = &config.audit;
    let trail = audit.trail.as_ref().map(|trail| trail.name.as_str());
    let mut export = Export::from_environment(|| telemetry::instance::of_journal(&audit.journal.dir, trail));
    telemetry::init(export.traces(), export.logs(), telemetry::USUAL_LINES);
    export.tell();
    hardening.report();
    if let Err(error) = process_limits::fit(&mut config) {
        return mistake(error);
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
            Err(error) => not_started(&error),
        }
    });
    export.finish();
    code
}
