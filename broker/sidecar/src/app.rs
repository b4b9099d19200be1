//! All wiring, once, in the order in which things start; they stop in the reverse order.

mod observed;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::provider::SharedCredentialsProvider;
use key_broker_core::clock::{Clock, SystemClock};
use key_broker_proto as proto;
use key_broker_proto::admin::v1::admin_server::AdminServer;
use key_broker_trail::announcer::Announcer;
use key_broker_trail::delivery::{SetupError, Surroundings, Trail};
use key_broker_trail::ending::{Delivery, Ending};
use key_broker_trail::journal::Journal;
use key_broker_trail::record::AwsCaller;
use key_broker_trail::remainder::Remainder;
use key_broker_trail::stdout::StdoutCopy;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tower::util::BoxCloneSyncService;

use crate::admin::Admin;
use crate::attestation::Trust;
use crate::audit::{Audit, UNRECORDED};
use crate::cache::Cache;
use crate::cache::rules::Rules;
use crate::config::audit::Audit as AuditConfig;
use crate::config::{Config, Listen};
use crate::identity::Identities;
use crate::kms::Kms;
use crate::kms::aliases::Aliases;
use crate::kms::aws::AwsKms;
use crate::kms::guard::{Guard, GuardSettings};
use crate::kms::policy_aliases::PolicyAliases;
use crate::kms::recorded::{RecordedKms, Recorder};
use crate::limits::{CallLimits, Limits, Shares};
use crate::policy::bindings::Bindings;
use crate::policy::file::Policies;
use crate::readiness::{Readiness, Ready};
use crate::reload::Reload;
use crate::service::Service;
use crate::telemetry::Telemetry;
use crate::telemetry::http::Pages;
use crate::telemetry::metrics::Metrics;
use crate::transport::connections::Connections;
use crate::transport::layers::{Layers, StandardService};
use crate::transport::unix::{UnixAddress, UnixSocket};
use crate::transport::vsock::VsockSocket;
use crate::transport::{Listeners, Server};
use observed::MetricSources;

/// What a broker is made of.
pub struct Parts {
    /// Where to listen.
    pub listen: Listen,
    /// Which connections are which workloads.
    pub identities: Identities,
    /// Who may do what.
    pub policies: Policies,
    /// What principals' encryption contexts must have.
    pub bindings: Bindings,
    /// Which attestation documents count.
    pub trust: Trust,
    /// Where records go.
    pub audit: AuditConfig,
    /// How far data keys are reused.
    pub reuse: Rules,
    /// Bounds.
    pub limits: Limits,
    /// KMS.
    pub kms: Arc<dyn Kms>,
    /// How much to ask of KMS, and when to stop asking.
    pub guard: GuardSettings,
    /// Whom KMS takes the broker for.
    pub caller: AwsCaller,
    /// Who is told of its work.
    pub telemetry: Telemetry,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// A broker that listens.
pub struct Broker {
    server: Server,
    listeners: Listeners,
    drain: CancellationToken,
    grace: Duration,
    kms_calls: TaskTracker,
    stdout: Option<StdoutCopy>,
    metrics: Option<Metrics>,
    pages: Option<(TcpListener, Arc<Pages>)>,
    audit: Ending,
    clock: Arc<dyn Clock>,
}

/// Why a broker cannot start.
#[derive(Debug)]
pub enum StartError {
    /// The policies cannot hold for whom AWS takes the broker for.
    Policy(String),
    /// The journal cannot be opened.
    Journal(io::Error),
    /// The trail cannot be as it is configured.
    Trail(SetupError),
    /// The broker was told to stop before it served.
    Stopped,
    /// A socket cannot be opened.
    Listen(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(mistake) => write!(f, "policy.file: {mistake}"),
            Self::Journal(error) => write!(f, "cannot open the journal: {error}"),
            Self::Listen(error) => write!(f, "cannot listen: {error}"),
            Self::Trail(error) => write!(f, "{error}"),
            Self::Stopped => f.write_str("told to stop before it served"),
        }
    }
}

impl std::error::Error for StartError {}

impl Broker {
    /// Opens the journal, then the trail, then the sockets: a caller that can connect can be answered. Cancel `drain` to stop.
    #[expect(clippy::too_many_lines, reason = "all wiring, once, in the order in which things start")]
    pub async fn start(parts: Parts, drain: CancellationToken) -> Result<Self, StartError> {
        parts.policies.settle(&parts.caller.region, &parts.caller.account_id).map_err(StartError::Policy)?;
        let (journal, journal_thread) =
            Journal::open(&parts.audit.journal, Arc::clone(&parts.clock)).map_err(StartError::Journal)?;
        let journal_dir = parts.audit.journal.dir.clone();
        let metrics = Metrics::new(parts.telemetry.http.is_some(), parts.telemetry.push);
        if let Some(metrics) = &metrics {
            let commits = metrics.commits();
            journal.time_commits(Arc::new(move |took| commits.record(took)));
        }
        let caller = Arc::new(parts.caller);
        let kms_calls = TaskTracker::new();

        let recorder = Recorder { journal: journal.clone(), caller: Arc::clone(&caller) };
        let guard = Guard::new(parts.guard, Arc::clone(&parts.clock));
        let kms =
            RecordedKms::new(parts.kms, guard.clone(), recorder, Arc::clone(&parts.clock), kms_calls.clone())
                .timed(metrics.as_ref().map(|metrics| metrics.kms_calls(Arc::clone(&parts.clock))));
        let trail = match &parts.audit.trail {
            None => None,
            Some(config) => {
                let surroundings = Surroundings {
                    caller: Arc::clone(&caller),
                    keys: Arc::new(kms.clone()),
                    journal: journal.clone(),
                    journal_dir: journal_dir.clone(),
                    clock: Arc::clone(&parts.clock),
                };
                let trail = Box::pin(Trail::start_when_possible(config, &surroundings, &drain)).await;
                Some(trail.map_err(StartError::Trail)?.ok_or(StartError::Stopped)?)
            }
        };
        let announcer = Announcer {
            journal: journal.clone(),
            journal_dir: journal_dir.clone(),
            caller: Arc::clone(&caller),
            clock: Arc::clone(&parts.clock),
        };
        tokio::spawn(announcer.clone().run(drain.clone()));
        let stdout = if parts.audit.stdout {
            Some(StdoutCopy::start(&journal_dir).map_err(StartError::Journal)?)
        } else {
            None
        };
        let revocation_check = parts.reuse.revocation_check;
        let cache = Cache::new(parts.reuse, kms.clone(), Arc::clone(&parts.clock));
        tokio::spawn(cache.clone().sweep(SWEEP));
        if let Some(every) = revocation_check {
            tokio::spawn(drain.clone().run_until_cancelled_owned(cache.clone().check_revocation(every)));
        }
        let limits = CallLimits::new(&parts.limits);
        let admin = Admin {
            cache: cache.clone(),
            limits: limits.clone(),
            journal: journal.health(),
            undelivered: journal.undelivered(),
            newest_digest: trail.as_ref().map(Trail::newest_digest),
            drain: drain.clone(),
            started_at: parts.clock.now(),
            uid: rustix::process::geteuid().as_raw(),
        };
        let admin = AdminServer::new(admin).max_decoding_message_size(MAX_REQUEST_BYTES);
        let policies = Arc::new(parts.policies);
        let reload = Reload {
            policies: Arc::clone(&policies),
            tls: parts.listen.tls.as_ref().map(|(_, tls)| tls.clone()),
            told: Arc::clone(journal.notices()),
            clock: Arc::clone(&parts.clock),
        };
        tokio::spawn(reload.run(drain.clone()));
        let aliases = Aliases::new(kms.clone(), Arc::clone(&caller));
        let policy_aliases = PolicyAliases::new(kms.clone());
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let verifications = Arc::new(Semaphore::new(processors));
        let trust = Arc::new(parts.trust);
        let bindings = parts.bindings;
        let service =
            Service { policies, bindings, trust, verifications, aliases, policy_aliases, cache, kms };

        let health = HealthReporter::new();
        let (ready, is_ready) = watch::channel(Ready::Yes);
        let readiness = Readiness {
            journal: journal.health(),
            kms: guard.open_until(),
            drain: drain.clone(),
            clock: Arc::clone(&parts.clock),
        };
        tokio::spawn(readiness.report(health.clone(), ready));
        let (reflection, reflection_v1alpha) = reflection();
        let connections = Arc::<Connections>::default();
        let observed = MetricSources {
            cache: service.cache.clone(),
            limits: limits.clone(),
            journal: journal.clone(),
            newest_digest: trail.as_ref().map(Trail::newest_digest),
            tls: parts.listen.tls.as_ref().map(|(_, tls)| tls.clone()),
            connections: Arc::clone(&connections),
            ready: is_ready.clone(),
            breaker: guard.open_until(),
            spans_dropped: parts.telemetry.spans_dropped,
            clock: Arc::clone(&parts.clock),
        };
        let calls = metrics.as_ref().map(|metrics| metrics.calls(Arc::clone(&parts.clock)));
        let layers = Layers {
            calls,
            limits,
            shares: Shares::new(parts.limits.share, Arc::clone(&parts.clock)),
            audit: Arc::new(Audit { journal, caller, clock: Arc::clone(&parts.clock) }),
            traces: parts.telemetry.traces,
            drain: drain.clone(),
            service: Arc::new(service),
            max_request_bytes: MAX_REQUEST_BYTES,
            admin,
            health: BoxCloneSyncService::new(HealthServer::new(HealthService::from_health_reporter(health))),
            reflection,
            reflection_v1alpha,
        };

        let listeners = listen(&parts.listen).await.map_err(StartError::Listen)?;
        let server = Server::new(layers, parts.identities, parts.limits.connections, connections);
        let mut pages = None;
        if let Some(metrics) = &metrics {
            observed.register(&metrics.meter());
            if let Some((address, text)) = parts.telemetry.http.zip(metrics.text()) {
                let listener = Listeners::bind_tcp(address).await.map_err(StartError::Listen)?;
                pages = Some((listener, Pages::new(text, is_ready)));
            }
        }
        let delivery = trail.map(Delivery::start);
        Ok(Self {
            server,
            listeners,
            drain,
            grace: parts.limits.drain,
            kms_calls,
            stdout,
            metrics,
            pages,
            audit: Ending { announcer, journal: journal_thread, delivery },
            clock: parts.clock,
        })
    }

    /// Where the TLS port is, if there is one.
    #[must_use]
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.listeners.tls.as_ref()?.0.local_addr().ok()
    }

    /// Where the plaintext TCP port is, if there is one.
    #[must_use]
    pub fn insecure_tcp_address(&self) -> Option<SocketAddr> {
        self.listeners.insecure_tcp.as_ref()?.local_addr().ok()
    }

    /// Where `/metrics`, `/healthz` and `/readyz` are, if anywhere.
    #[must_use]
    pub fn telemetry_address(&self) -> Option<SocketAddr> {
        self.pages.as_ref()?.0.local_addr().ok()
    }

    /// Serves until the drain: then no call in flight is lost, and every record is written and delivered. Returns what could not be
    /// in the drain's time.
    #[must_use = "records that are left behind are not to go unnoticed"]
    pub async fn serve(self) -> Remainder {
        // Until the end: who watches sees the drain, too.
        let stop_pages = CancellationToken::new();
        let pages =
            self.pages.map(|(listener, pages)| tokio::spawn(pages.serve(listener, stop_pages.clone())));
        let stop_pages = stop_pages.drop_guard();
        let (drain, clock, grace) = (self.drain.clone(), Arc::clone(&self.clock), self.grace);
        let drained = async {
            drain.cancelled().await;
            clock.instant()
        };
        let ((), began) = tokio::join!(self.server.serve(self.listeners, self.drain, grace), drained);
        let rest = || {
            let passed = self.clock.instant().saturating_duration_since(began);
            grace.saturating_sub(passed).max(LEAST_FINISH)
        };
        // Calls to KMS whose callers are gone end within their own deadline.
        self.kms_calls.close();
        if tokio::time::timeout(rest(), self.kms_calls.wait()).await.is_err() {
            tracing::warn!(
                "calls to KMS are still in flight at the end of the drain: their records are lost"
            );
        }
        if let Some(stdout) = self.stdout {
            stdout.finish().await;
        }
        let calls_under_way = self.kms_calls.len();
        let remainder = Remainder { calls_under_way, ..self.audit.finish(rest).await };
        if let Some(metrics) = self.metrics {
            // It waits for the collector.
            let _ = tokio::task::spawn_blocking(|| metrics.shutdown()).await;
        }
        drop(stop_pages);
        if let Some(pages) = pages {
            let _ = pages.await;
        }
        remainder
    }
}

/// Runs the sidecar: credentials first, since no record is complete before the broker knows whom AWS takes it for.
/// `ready` is called once callers can connect. Returns what is left behind at the end.
pub(crate) async fn serve(
    config: Config,
    credentials: Option<SharedCredentialsProvider>,
    telemetry: Telemetry,
    drain: CancellationToken,
    ready: impl FnOnce(),
) -> Result<Remainder, StartError> {
    if UNRECORDED {
        tracing::warn!("built with bench-unrecorded: NO CALL IS RECORDED; never run this but for benches");
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let kms = AwsKms::new(config.kms, credentials, Arc::clone(&clock)).await;
    let Some(caller) = caller_of(&kms, &drain).await else { return Ok(Remainder::default()) };
    tracing::info!(arn = caller.arn, region = caller.region, "AWS knows the broker");
    if config.policies.current().is_empty() {
        tracing::warn!("the policy file has no policies: every call is denied");
    }
    if config.audit.trail.is_none() {
        tracing::warn!("no audit.store: records stay in the journal, and calls are refused once it is full");
    }
    if config.trust.allow_debug {
        tracing::warn!(
            "insecure_allow_debug: enclaves in debug mode count, whose memory and console the parent reads"
        );
    }
    if config.trust.roots != Trust::aws().roots {
        tracing::warn!("attestation.roots: documents count that AWS's own root does not vouch for");
    }
    if let Some(address) = config.listen.insecure_tcp {
        tracing::warn!(%address, "insecure_tcp: whoever reaches this port is the principal \"unknown\", in plaintext");
    }
    let parts = Parts {
        listen: config.listen.clone(),
        identities: config.identities,
        policies: config.policies,
        bindings: config.bindings,
        trust: config.trust,
        audit: config.audit,
        reuse: config.reuse,
        limits: config.limits,
        kms: Arc::new(kms),
        guard: config.guard,
        caller,
        telemetry,
        clock,
    };
    let broker = match Broker::start(parts, drain).await {
        Err(StartError::Stopped) => return Ok(Remainder::default()),
        started => started?,
    };
    let path = |address: UnixAddress| address.path.display().to_string();
    let (unix, admin) = (config.listen.unix.map(path), config.listen.admin.map(path));
    tracing::info!(
        unix,
        admin,
        tls = broker.tls_address().map(|address| address.to_string()),
        vsock = config.listen.vsock.as_ref().map(|address| address.port),
        insecure_tcp = broker.insecure_tcp_address().map(|address| address.to_string()),
        telemetry = broker.telemetry_address().map(|address| address.to_string()),
        "serving"
    );
    ready();
    let remainder = broker.serve().await;
    // The last line.
    if remainder.is_nothing() {
        tracing::info!("stopped");
    } else {
        tracing::error!("stopped, and something is left: {remainder}");
    }
    Ok(remainder)
}

/// Asks STS until it answers; `None` when the broker is told to stop meanwhile.
async fn caller_of(kms: &AwsKms, drain: &CancellationToken) -> Option<AwsCaller> {
    let mut pause = FIRST_PAUSE;
    loop {
        let asked = tokio::select! {
            asked = kms.caller() => asked,
            () = drain.cancelled() => return None,
        };
        match asked {
            Ok(caller) => return Some(caller),
            Err(error) => {
                tracing::warn!(
                    error,
                    retry_seconds = pause.as_secs(),
                    "not serving yet: sts:GetCallerIdentity fails; check the broker's AWS credentials and its way to STS"
                );
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            () = drain.cancelled() => return None,
        }
    }
}

async fn listen(listen: &Listen) -> io::Result<Listeners> {
    let unix = listen.unix.as_ref().map(UnixSocket::bind).transpose()?;
    let admin = listen.admin.as_ref().map(UnixSocket::bind).transpose()?;
    let tls = match &listen.tls {
        Some((address, tls)) => Some((Listeners::bind_tcp(*address).await?, tls.clone())),
        None => None,
    };
    let vsock = listen.vsock.as_ref().map(VsockSocket::bind).transpose()?;
    let insecure_tcp = match listen.insecure_tcp {
        Some(address) => Some(Listeners::bind_tcp(address).await?),
        None => None,
    };
    Ok(Listeners { unix, tls, vsock, insecure_tcp, admin })
}

/// Reflection as v1, and as v1alpha, which most packaged tools still ask for.
fn reflection() -> (StandardService, StandardService) {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let decodes = "the descriptors of this build decode";
    let v1 = BoxCloneSyncService::new(builder().build_v1().expect(decodes));
    let v1alpha = BoxCloneSyncService::new(builder().build_v1alpha().expect(decodes));
    (v1, v1alpha)
}

/// See LIMITS in `key_broker.proto`.
const MAX_REQUEST_BYTES: usize = 524_288;
/// How long a data key past its age may stay in memory.
const SWEEP: Duration = Duration::from_secs(1);
/// The last delivery needs some time even where calls are given none to end.
const LEAST_FINISH: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
