//! Delivers the journal of a dead broker under its own name, as that broker would have at its end.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use key_broker_core::clock::{Clock, SystemClock};
use key_broker_trail::{Ending, JournalTrail, Remainder};
use tokio_util::sync::CancellationToken;

use super::foundation::Foundation;
use super::{Parts, StartError};
use crate::config::Config;
use crate::kms::aws::AwsKms;
use crate::telemetry::Telemetry;

/// Delivers the journal in `dir`, with the store, keys and credentials of `config`, for at most `within` once its keys answer. Returns
/// what is left.
pub(crate) async fn deliver(mut config: Config, dir: &Path, within: Duration) -> Result<Remainder, String> {
    let noted = match JournalTrail::try_from(dir) {
        Ok(noted) => Some(noted),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(format!("{}: {error}", dir.display())),
    };
    config.audit.journal.dir = dir.to_owned();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let kms = AwsKms::new(config.kms.clone(), None, Arc::clone(&clock)).await;
    let caller = match (kms.caller().await, &noted) {
        (Ok(caller), _) => caller,
        (Err(error), Some(noted)) => kms.caller_in(&noted.account_id, &noted.partition).await.ok_or(error)?,
        (Err(error), None) => return Err(error),
    };
    let Some(trail) = &mut config.audit.trail else {
        return Err("no audit.store in the configuration: nothing says where to deliver".into());
    };
    if let Some(noted) = &noted {
        // Whatever the configuration calls it by now.
        trail.name.clone_from(&noted.configured);
    }
    kms.give_credentials_to(&mut trail.store);
    let kms = Arc::new(kms);
    let mut parts = Parts {
        listen: config.listen,
        identities: config.identities,
        policies: config.policies,
        bindings: config.bindings,
        trust: config.trust,
        audit: config.audit,
        reuse: config.reuse,
        suites_without_commitment: config.suites_without_commitment,
        limits: config.limits,
        kms: Arc::clone(&kms),
        guard: config.guard,
        caller,
        telemetry: Telemetry::default(),
        configuration_sha256: None,
        clock: Arc::clone(&clock),
    };
    let explain = |error: StartError| error.to_string();
    let drain = CancellationToken::new();
    let (home, others) = kms.regions(&parts.caller).await;
    let (base, journal) = Foundation::lay(home, others, &mut parts, drain).map_err(explain)?;
    let trail_parts = base.trail_parts();
    let trail = base.start_trail(parts.audit.trail.as_ref(), &trail_parts).await.map_err(explain)?;
    let mut ending = Ending::begin(&trail_parts, journal, base.drain.clone());
    if let Some(trail) = trail {
        ending.deliver(trail);
    }
    let until = clock.instant() + within;
    Ok(ending.finish(|| until.saturating_duration_since(clock.instant())).await)
}
