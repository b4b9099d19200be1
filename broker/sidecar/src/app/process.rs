//! The process around a broker: its AWS identity, what an operator needs to know at start, and the last log line.

use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::provider::SharedCredentialsProvider;
use key_broker_core::clock::{Clock, SystemClock};
use key_broker_trail::JournalTrail;
use key_broker_trail::Remainder;
use key_broker_trail::record::AwsCaller;
use tokio_util::sync::CancellationToken;

use super::{Addresses, Broker, Parts, StartError};
use crate::attestation::Trust;
use crate::audit::records_nothing;
use crate::config::{Config, is_unlikely_region};
use crate::kms::aws::AwsKms;
use crate::telemetry::Telemetry;
use crate::transport::opening::Listen;
use crate::transport::unix::UnixAddress;

/// Runs the sidecar: credentials first, since no record is complete before the broker knows its AWS identity.
/// Calls `ready` once callers can connect. Returns what is left behind at the end.
pub(crate) async fn serve(
    mut config: Config,
    credentials: Option<SharedCredentialsProvider>,
    telemetry: Telemetry,
    drain: CancellationToken,
    ready: impl FnOnce(),
) -> Result<Remainder, StartError> {
    if records_nothing() {
        tracing::warn!("NO CALL IS RECORDED: this program is for benches only");
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let kms = AwsKms::new(config.kms.clone(), credentials, Arc::clone(&clock)).await;
    let noted = noted_account(&config).await;
    let Some(caller) = caller_of(&kms, noted, &drain).await else { return Ok(Remainder::default()) };
    tracing::info!(account = caller.account_id, region = caller.region, "authenticated to AWS");
    kms.check_session_name().await.map_err(StartError::SessionName)?;
    warn_of(&config);
    let listen = config.listen.clone();
    if let Some(trail) = &mut config.audit.trail {
        kms.give_credentials_to(&mut trail.store);
    }
    let sessions = Arc::clone(kms.sessions());
    let parts = Parts {
        listen: config.listen,
        identities: config.identities,
        policies: config.policies,
        bindings: config.bindings,
        trust: config.trust,
        audit: config.audit,
        reuse: config.reuse,
        suites_without_commitment: config.suites_without_commitment,
        limits: config.limits,
        kms: Arc::new(kms),
        guard: config.guard,
        caller,
        telemetry,
        configuration_sha256: Some(config.sha256),
        clock,
    };
    let broker = match Broker::start(parts, drain).await {
        Err(StartError::Stopped) => return Ok(Remainder::default()),
        started => started?,
    };
    say_where(listen, &broker);
    ready();
    let remainder = broker.serve().await;
    // The last line.
    if remainder.is_nothing() {
        tracing::info!("stopped");
    } else {
        tracing::error!("stopped, and something is left: {remainder}");
    }
    if let Some(words) = sessions.found_other_account() {
        return Err(StartError::OtherAccount(words));
    }
    Ok(remainder)
}

/// Warns of settings that are allowed but seldom intended.
fn warn_of(config: &Config) {
    if config.policies.current().is_empty() {
        tracing::warn!("the policy file has no policies: every call is denied");
    }
    if config.kms.endpoint_url.is_none() && is_unlikely_region(&config.kms.region) {
        tracing::warn!(
            region = config.kms.region,
            "kms.region does not look like an AWS region: is it a typo, such as us-wset-2?"
        );
    }
    if config.audit.trail.is_none() {
        tracing::warn!("no audit.store: records stay in the journal, and calls are refused once it is full");
    }
    if config.trust.allow_debug {
        tracing::warn!(
            "insecure_allow_debug: enclaves in debug mode are accepted, whose memory and console the parent can read"
        );
    }
    if config.trust.roots != Trust::aws().roots {
        tracing::warn!("attestation.roots: attestation documents under other roots than AWS's are accepted");
    }
    if let Some(address) = config.listen.insecure_tcp {
        tracing::warn!(%address, "insecure_tcp: every caller on this port is the principal \"unknown\", in plaintext");
    }
}

/// Logs where callers can connect.
fn say_where(listen: Listen, broker: &Broker) {
    let Addresses { tls, insecure_tcp, telemetry } = broker.addresses();
    let path = |address: UnixAddress| address.path.display().to_string();
    tracing::info!(
        unix = listen.unix.map(path),
        admin = listen.admin.map(path),
        tls = tls.map(|address| address.to_string()),
        vsock = listen.vsock.map(|address| address.port),
        insecure_tcp = insecure_tcp.map(|address| address.to_string()),
        telemetry = telemetry.map(|address| address.to_string()),
        "serving"
    );
}

/// Account and region of the journal's trail, if the store has it already: then the broker starts even if STS does not answer.
async fn noted_account(config: &Config) -> Option<JournalTrail> {
    config.audit.trail.as_ref()?;
    let dir = config.audit.journal.dir.clone();
    // The start reports what cannot be read.
    let noted = tokio::task::spawn_blocking(move || JournalTrail::try_from(&*dir).ok()).await.ok()??;
    Some(noted).filter(|noted| noted.has_begun && noted.region == config.kms.region)
}

/// Asks STS until it answers; `None` if the broker is stopped meanwhile.
async fn caller_of(
    kms: &AwsKms,
    noted: Option<JournalTrail>,
    drain: &CancellationToken,
) -> Option<AwsCaller> {
    let mut pause = FIRST_PAUSE;
    loop {
        let asked = tokio::select! {
            asked = kms.caller() => asked,
            () = drain.cancelled() => return None,
        };
        match asked {
            Ok(caller) => return Some(caller),
            Err(error) => {
                if let Some(noted) = &noted
                    && let Some(caller) = kms.caller_in(&noted.account_id, &noted.partition).await
                {
                    tracing::warn!(
                        error,
                        account = caller.account_id,
                        "the account is taken from the journal"
                    );
                    return Some(caller);
                }
                tracing::warn!(
                    error,
                    retry_seconds = pause.as_secs(),
                    "not serving yet: the broker's AWS identity is unknown; check its AWS credentials and its access to STS"
                );
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            () = drain.cancelled() => return None,
        }
    }
}

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
