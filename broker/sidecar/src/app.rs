//! All wiring, in the order of the start; the stop is in reverse order.

mod deliver;
mod foundation;
mod memory;
mod observed;
mod pages;
mod process;
mod sessions;
mod start_error;
#[cfg(test)]
mod tests;
mod waiting;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use key_broker_core::clock::Clock;
use key_broker_trail::record::AwsCaller;
use key_broker_trail::{Ending, Remainder, StdoutCopy};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::admin::TrailLinks;
use crate::attestation::Trust;
use crate::audit::refusals::Refusals;
use crate::cache::rules::Rules;
use crate::config::audit::Audit as AuditConfig;
use crate::identity::Identities;
use crate::kms::aws::{AskedRegion, AwsKms};
use crate::kms::guard::GuardSettings;
use crate::limits::{CallLimits, Limits, Shares};
use crate::policy::bindings::Bindings;
use crate::policy::file::Policies;
use crate::service::Service;
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::Metrics;
use crate::transport::connections::Connections;
use crate::transport::handshakes::Handshakes;
use crate::transport::opening::Listen;
use crate::transport::{Listeners, Server};
pub(crate) use deliver::deliver;
use foundation::Foundation;
use observed::MetricSources;
use pages::PagesServer;
pub(crate) use process::serve;
pub use start_error::StartError;
use waiting::Waiting;

/// Everything from which a broker is built.
pub struct Parts {
    /// Where to listen.
    pub listen: Listen,
    /// Rules that map connections to workloads.
    pub identities: Identities,
    /// The policies.
    pub policies: Policies,
    /// The pairs that principals' encryption contexts must contain.
    pub bindings: Bindings,
    /// Which attestation documents are accepted.
    pub trust: Trust,
    /// The journal and the trail.
    pub audit: AuditConfig,
    /// The bounds of reuse of data keys.
    pub reuse: Rules,
    /// Whether messages of suites without key commitment are decrypted.
    pub suites_without_commitment: bool,
    /// The limits of calls and principals.
    pub limits: Limits,
    /// KMS.
    pub kms: Arc<AwsKms>,
    /// The limits of calls to KMS, and the circuit breaker.
    pub guard: GuardSettings,
    /// The broker as the caller of KMS: account, partition and region.
    pub caller: AwsCaller,
    /// Where spans, metrics and logs go.
    pub telemetry: Telemetry,
    /// SHA-256, in hex, of its configuration file.
    pub configuration_sha256: Option<String>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

/// A broker that listens.
pub struct Broker {
    /// Answers callers.
    serving: AbortOnDropHandle<()>,
    addresses: Addresses,
    drain: CancellationToken,
    grace: Duration,
    kms_calls: TaskTracker,
    stdout: Option<StdoutCopy>,
    metrics: Option<Metrics>,
    pages: Option<PagesServer>,
    refusals: Arc<Refusals>,
    audit: Ending,
    clock: Arc<dyn Clock>,
}

/// The addresses on which a broker listens on TCP, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The TLS port.
    pub tls: Option<SocketAddr>,
    /// The plaintext port.
    pub insecure_tcp: Option<SocketAddr>,
    /// `/metrics`, `/healthz` and `/readyz`.
    pub telemetry: Option<SocketAddr>,
}

impl Addresses {
    fn of(listeners: &Listeners, pages: Option<&PagesServer>) -> Self {
        let of = |listener: &TcpListener| listener.local_addr().ok();
        Self {
            tls: listeners.tls.as_ref().and_then(|(listener, _)| of(listener)),
            insecure_tcp: listeners.insecure_tcp.as_ref().and_then(of),
            telemetry: pages.and_then(PagesServer::address),
        }
    }
}

impl Broker {
    /// Opens the journal, then the sockets, then the trail. Until the trail is open, health answers `NOT_SERVING` and calls wait.
    /// Cancel `drain` to stop.
    pub async fn start(parts: Parts, drain: CancellationToken) -> Result<Self, StartError> {
        parts.policies.settle(&parts.caller.region, &parts.caller.account_id).map_err(StartError::Policy)?;
        let (home, others) = parts.kms.regions(&parts.caller).await;
        Self::start_before(home, others, parts, drain).await
    }

    /// Starts a broker before any KMS; that of `parts` is not asked.
    async fn start_before(
        home: AskedRegion,
        others: Vec<AskedRegion>,
        mut parts: Parts,
        drain: CancellationToken,
    ) -> Result<Self, StartError> {
        let (base, journal) = Foundation::lay(home, others, &mut parts, drain)?;
        base.watch_sessions(parts.kms.sessions());
        let (health, is_ready) = base.start_readiness();
        // Probes are answered while the trail waits for its store.
        let pages = base.start_pages(parts.telemetry.http, is_ready.clone()).await?;
        // Data keys cached under an alias can be used only while it is known which key the alias names.
        let most_aliases = usize::try_from(parts.reuse.max_entries).unwrap_or(usize::MAX).max(LEAST_ALIASES);
        let promise = parts.reuse.promise();
        let cache = base.start_cache(parts.reuse);
        let limits = CallLimits::new(&parts.limits);
        let links = Arc::<OnceLock<TrailLinks>>::default();
        let admin = base.admin(&cache, &limits, parts.audit.trail.as_ref().map(|_| Arc::clone(&links)));
        let policies = Arc::new(parts.policies);
        let tls = parts.listen.tls.as_ref().map(|(_, tls)| tls.clone());
        base.start_reload(&policies, tls.clone());
        let service = Service {
            suites_without_commitment: parts.suites_without_commitment,
            ..base.service(Arc::clone(&policies), parts.bindings, parts.trust, cache.clone(), most_aliases)
        };
        let (connections, handshakes) = (Arc::<Connections>::default(), Arc::<Handshakes>::default());
        let sources = MetricSources {
            cache,
            limits: limits.clone(),
            journal: base.journal.clone(),
            newest_digest: None,
            tls,
            connections: Arc::clone(&connections),
            handshakes: Arc::clone(&handshakes),
            ready: is_ready,
            circuits: base.circuits(),
            spans_dropped: parts.telemetry.spans_dropped,
            clock: Arc::clone(&base.clock),
        };
        let shares = Shares::new(&parts.limits, Arc::clone(&base.clock));
        let traces = parts.telemetry.traces;
        let layers = base.layers(traces, limits, shares, service, admin, health);
        let listeners = Listeners::open(&parts.listen).await.map_err(StartError::Listen)?;
        let addresses = Addresses::of(&listeners, pages.as_ref());
        let server = Server::new(layers, parts.identities, &parts.limits, connections, handshakes);
        let grace = parts.limits.drain;
        // One deadline for the whole drain, with a part set aside for the end of the trail, however long calls take.
        let serving = tokio::spawn(server.serve(listeners, base.drain.clone(), grace * 4 / 5));
        let serving = AbortOnDropHandle::new(serving);
        let waiting = Waiting { base, journal, links, sources, pages, serving, addresses, grace, promise };
        waiting.open(parts.audit, &parts.kms, &policies).await
    }

    /// The addresses on which it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until the drain: then no call in flight is lost, and every record is written and delivered. Returns what could not be
    /// in the drain's time.
    #[must_use = "records that are left behind are not to go unnoticed"]
    pub async fn serve(self) -> Remainder {
        let stop_refusals = CancellationToken::new();
        let refusals = tokio::spawn(self.refusals.run(stop_refusals.clone()));
        tokio::spawn(self.drain.clone().run_until_cancelled_owned(memory::give_back_after_peaks()));
        let (drain, clock, grace) = (self.drain, Arc::clone(&self.clock), self.grace);
        let drained = async {
            drain.cancelled().await;
            clock.instant()
        };
        let served = async {
            if let Err(error) = self.serving.await
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        };
        let ((), began) = tokio::join!(served, drained);
        let until = (began + grace).max(self.clock.instant() + LEAST_FINISH);
        let rest = || until.saturating_duration_since(self.clock.instant());
        // Calls to KMS whose callers are gone end within their own deadline.
        self.kms_calls.close();
        if tokio::time::timeout(rest() / 2, self.kms_calls.wait()).await.is_err() {
            tracing::warn!(
                "calls to KMS are still in flight at the end of the drain: their records are lost"
            );
        }
        stop_refusals.cancel();
        let _ = refusals.await;
        let calls_under_way = self.kms_calls.len();
        let mut remainder = self.audit.finish(rest).await;
        remainder.calls_under_way = calls_under_way;
        // Waits until the trail's last records are copied, too.
        if let Some(stdout) = self.stdout {
            let _ = tokio::time::timeout(rest(), stdout.finish()).await;
        }
        if let Some(metrics) = self.metrics {
            // Blocks until the collector has answered.
            let last = tokio::task::spawn_blocking(|| metrics.shutdown());
            let _ = tokio::time::timeout(LAST_METRICS, last).await;
        }
        // Served until the end, so that whoever watches sees the drain, too.
        if let Some(pages) = self.pages {
            pages.stop().await;
        }
        remainder
    }
}

/// About 4 MiB, with names of 256 characters.
const LEAST_ALIASES: usize = 10_000;
/// The end of the trail needs some time even where calls are given none to end.
const LEAST_FINISH: Duration = Duration::from_secs(5);
/// Long enough for a collector that answers.
const LAST_METRICS: Duration = Duration::from_secs(1);
