//! What every other part uses (journal, KMS, time), and starting it.

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use key_broker_core::clock::Clock;
use key_broker_proto::admin::v1::admin_server::AdminServer;
use key_broker_trail::delivery::{Trail, TrailConfig, TrailParts};
use key_broker_trail::journal::{Journal, JournalThread};
use key_broker_trail::record::AwsCaller;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tower::util::BoxCloneSyncService;

use super::observed::{Circuit, MetricSources};
use super::pages::PagesServer;
use super::sessions::SessionWatch;
use super::{Parts, StartError};
use crate::admin::{Admin, TrailLinks};
use crate::attestation::Trust;
use crate::audit::Audit;
use crate::audit::refusals::Refusals;
use crate::cache::Cache;
use crate::cache::rules::Rules;
use crate::fair_queue::FairQueue;
use crate::kms::aliases::Aliases;
use crate::kms::aws::AskedRegion;
use crate::kms::aws::sessions::Sessions;
use crate::kms::guard::Guard;
use crate::kms::policy_aliases::PolicyAliases;
use crate::kms::recorded::{KmsRegion, RecordedKms, Recorder};
use crate::limits::{CallLimits, Shares};
use crate::method::LARGEST_REQUEST_BYTES;
use crate::policy::bindings::Bindings;
use crate::policy::file::Policies;
use crate::readiness::{Readiness, Ready};
use crate::redaction::Redaction;
use crate::reload::Reload;
use crate::service::Service;
use crate::telemetry::http::Pages;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::Traces;
use crate::transport::layers::Layers;
use crate::transport::opening;
use crate::transport::reflection::Reflection;
use crate::transport::standard::MAX_STANDARD_BYTES;
use crate::transport::tls::Tls;

/// What all other parts need.
pub(super) struct Foundation {
    /// The journal.
    pub journal: Journal,
    /// The journal's directory.
    pub journal_dir: PathBuf,
    /// The broker as the caller of KMS.
    pub caller: Arc<AwsCaller>,
    /// The metrics; none if nobody reads them.
    /// They count what records do not show.
    pub redaction: Option<Arc<Redaction>>,
    pub metrics: Option<Metrics>,
    /// Bounds calls to KMS, in each region.
    pub guards: Vec<Guard>,
    /// KMS, with a record of every answer.
    pub kms: RecordedKms,
    /// The calls to KMS in flight.
    pub kms_calls: TaskTracker,
    /// Whether the trail is open in its store, if there is to be one.
    pub trail_is_open: watch::Sender<bool>,
    /// Cancelled when the broker is to stop.
    pub drain: CancellationToken,
    /// Counts refusals that come in a flood.
    pub refusals: Arc<Refusals>,
    /// SHA-256 of the configuration file, in hex.
    pub configuration_sha256: Option<String>,
    /// What the journal held when it was opened.
    pub recovered_bytes: u64,
    /// The instance id for the trail of a new journal, if the broker already has one.
    pub new_trail: Option<String>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl Foundation {
    /// Opens the journal, and the way to KMS in `home` and in `others`.
    pub(super) fn lay(
        home: AskedRegion,
        others: Vec<AskedRegion>,
        parts: &mut Parts,
        drain: CancellationToken,
    ) -> Result<(Self, JournalThread), StartError> {
        let clock = Arc::clone(&parts.clock);
        let (journal, thread) = Journal::open(&parts.audit.journal, Arc::clone(&clock))
            .map_err(|error| StartError::Journal { dir: parts.audit.journal.dir.clone(), error })?;
        let recovered_bytes = journal.totals().undelivered_bytes;
        let metrics = Metrics::new(parts.telemetry.http.is_some(), parts.telemetry.push.take());
        if let Some(metrics) = &metrics {
            let commits = metrics.commits();
            journal.time_commits(Arc::new(move |took| commits.record(took)));
        }
        let caller = Arc::new(parts.caller.clone());
        let kms_calls = TaskTracker::new();
        let redaction = parts.audit.redaction.take();
        let mut guards = Vec::new();
        let mut region = |asked: AskedRegion| {
            let AskedRegion { kms, once, caller } = asked;
            let guard = Guard::new(parts.guard, &caller.region, Arc::clone(&clock));
            guards.push(guard.clone());
            let recorder =
                Recorder { journal: journal.clone(), caller: Arc::new(caller), redaction: redaction.clone() };
            KmsRegion { kms, once, guard, recorder }
        };
        let (home, others) = (region(home), others.into_iter().map(&mut region).collect());
        let kms = RecordedKms::new(home, others, Arc::clone(&clock), kms_calls.clone())
            .timed(metrics.as_ref().map(|metrics| metrics.kms_calls(Arc::clone(&clock))));
        let journal_dir = parts.audit.journal.dir.clone();
        let refusals = Refusals::new(journal.clone(), Arc::clone(&caller));
        Ok((
            Self {
                journal,
                journal_dir,
                caller,
                redaction,
                metrics,
                guards,
                kms,
                kms_calls,
                trail_is_open: watch::Sender::new(parts.audit.trail.is_none()),
                drain,
                refusals,
                configuration_sha256: parts.configuration_sha256.take(),
                recovered_bytes,
                new_trail: parts.telemetry.instance.take(),
                clock,
            },
            thread,
        ))
    }

    /// Until when each region's circuit is open.
    pub(super) fn circuits(&self) -> Vec<Circuit> {
        let circuit =
            |guard: &Guard| Circuit { region: guard.region().to_string(), open_until: guard.open_until() };
        self.guards.iter().map(circuit).collect()
    }

    /// What the trail works with.
    pub(super) fn trail_parts(&self) -> TrailParts {
        TrailParts {
            caller: Arc::clone(&self.caller),
            keys: Arc::new(self.kms.clone()),
            journal: self.journal.clone(),
            journal_dir: self.journal_dir.clone(),
            identity: None,
            configuration_sha256: self.configuration_sha256.clone(),
            policy_version: None,
            reuse: None,
            recovered_bytes: self.recovered_bytes,
            new_trail: self.new_trail.clone(),
            clock: Arc::clone(&self.clock),
        }
    }

    /// The trail, once its store and keys answer.
    pub(super) async fn start_trail(
        &self,
        config: Option<&TrailConfig>,
        parts: &TrailParts,
    ) -> Result<Option<Trail>, StartError> {
        let Some(config) = config else { return Ok(None) };
        let trail = Box::pin(Trail::start_when_possible(config, parts, &self.drain)).await;
        trail.map_err(StartError::Trail)?.ok_or(StartError::Stopped).map(Some)
    }

    /// The cache, with the task that removes expired data keys.
    pub(super) fn start_cache(&self, rules: Rules) -> Cache {
        let cache = Cache::new(rules, self.kms.clone(), Arc::clone(&self.clock));
        tokio::spawn(cache.clone().sweep(SWEEP));
        cache
    }

    /// The task that reports the owners of access keys, and stops the broker if they are of another account.
    pub(super) fn watch_sessions(&self, sessions: &Arc<Sessions>) {
        let watch = SessionWatch {
            sessions: Arc::clone(sessions),
            journal: self.journal.clone(),
            caller: Arc::clone(&self.caller),
            clock: Arc::clone(&self.clock),
            drain: self.drain.clone(),
        };
        tokio::spawn(watch.run());
    }

    /// Reloads policies and certificates.
    pub(super) fn start_reload(&self, policies: &Arc<Policies>, tls: Option<Tls>) {
        let reload = Reload {
            policies: Arc::clone(policies),
            tls,
            journal: self.journal.clone(),
            clock: Arc::clone(&self.clock),
        };
        tokio::spawn(reload.run(self.drain.clone()));
    }

    /// Who tells health watchers and `/readyz` whether the broker is ready.
    pub(super) fn start_readiness(&self) -> (HealthReporter, watch::Receiver<Ready>) {
        let health = HealthReporter::new();
        let (ready, is_ready) = watch::channel(Ready::TrailNotOpen);
        let readiness = Readiness {
            trail_is_open: self.trail_is_open.subscribe(),
            journal: self.journal.health(),
            kms: self.guards.iter().map(Guard::open_until).collect(),
            drain: self.drain.clone(),
            clock: Arc::clone(&self.clock),
        };
        tokio::spawn(readiness.report(health.clone(), ready));
        (health, is_ready)
    }

    /// The RPCs of operators.
    pub(super) fn admin(
        &self,
        cache: &Cache,
        limits: &CallLimits,
        trail: Option<Arc<OnceLock<TrailLinks>>>,
    ) -> AdminServer<Admin> {
        let admin = Admin {
            cache: cache.clone(),
            limits: limits.clone(),
            journal: self.journal.clone(),
            caller: Arc::clone(&self.caller),
            clock: Arc::clone(&self.clock),
            trail,
            drain: self.drain.clone(),
            started_at: self.clock.now(),
            uid: rustix::process::geteuid().as_raw(),
        };
        AdminServer::new(admin).max_decoding_message_size(LARGEST_REQUEST_BYTES)
    }

    /// The RPCs of workloads.
    pub(super) fn service(
        &self,
        policies: Arc<Policies>,
        bindings: Bindings,
        trust: Trust,
        cache: Cache,
        most_aliases: usize,
    ) -> Service {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Service {
            policies,
            bindings,
            trust: Arc::new(trust),
            verifications: FairQueue::new(u32::try_from(processors).unwrap_or(u32::MAX)),
            aliases: Aliases::new(self.kms.clone(), Arc::clone(&self.caller), most_aliases),
            policy_aliases: PolicyAliases::new(self.kms.clone()),
            cache,
            suites_without_commitment: false,
            kms: self.kms.clone(),
        }
    }

    /// The layers around every call.
    pub(super) fn layers(
        &self,
        traces: Traces,
        limits: CallLimits,
        shares: Shares,
        service: Service,
        admin: AdminServer<Admin>,
        health: HealthReporter,
    ) -> Layers {
        let audit = Audit {
            journal: self.journal.clone(),
            caller: Arc::clone(&self.caller),
            redaction: self.redaction.clone(),
            refusals: Arc::clone(&self.refusals),
            clock: Arc::clone(&self.clock),
        };
        let health = HealthServer::new(HealthService::from_health_reporter(health))
            .max_decoding_message_size(MAX_STANDARD_BYTES);
        Layers {
            calls: self.metrics.as_ref().map(|metrics| metrics.calls(Arc::clone(&self.clock))),
            limits,
            shares,
            audit: Arc::new(audit),
            traces,
            is_open: self.trail_is_open.subscribe(),
            drain: self.drain.clone(),
            service: Arc::new(service),
            admin,
            health: BoxCloneSyncService::new(health),
            reflection: Reflection::new(),
        }
    }

    /// Serves probes and metrics from now on, if an address is configured.
    pub(super) async fn start_pages(
        &self,
        address: Option<SocketAddr>,
        is_ready: watch::Receiver<Ready>,
    ) -> Result<Option<PagesServer>, StartError> {
        let text = self.metrics.as_ref().and_then(Metrics::text);
        let Some((address, text)) = address.zip(text) else { return Ok(None) };
        let listener = opening::http(address).await.map_err(StartError::Listen)?;
        Ok(Some(PagesServer::start(listener, Pages::new(text, is_ready))))
    }

    /// Lets `sources` be read as metrics.
    pub(super) fn publish(&self, sources: MetricSources) {
        if let Some(metrics) = &self.metrics {
            sources.register(&metrics.meter());
        }
    }
}

/// How long an expired data key may stay in memory.
const SWEEP: Duration = Duration::from_secs(1);
