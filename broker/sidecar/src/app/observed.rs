//! Metrics that are computed only when they are read, so that they add nothing to the cost of calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use key_broker_core::clock::Clock;
use key_broker_trail::delivery::NewestDigest;
use key_broker_trail::journal::Journal;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::cache::Cache;
use crate::limits::CallLimits;
use crate::readiness::Ready;
use crate::telemetry::metrics::names::{self, Metric};
use crate::telemetry::vocabulary;
use crate::transport::connections::{Connections, Listener};
use crate::transport::handshakes::{Handshakes, Refused};
use crate::transport::tls::Tls;

/// Where observed metrics come from.
pub(super) struct MetricSources {
    /// The cache of data keys.
    pub cache: Cache,
    /// The calls of workloads.
    pub limits: CallLimits,
    /// The journal.
    pub journal: Journal,
    /// The newest delivery; none without a trail.
    pub newest_digest: Option<watch::Receiver<Option<NewestDigest>>>,
    /// The broker's certificate, if it has one.
    pub tls: Option<Tls>,
    /// The open connections.
    pub connections: Arc<Connections>,
    /// The failed TLS handshakes, by cause.
    pub handshakes: Arc<Handshakes>,
    /// Whether the broker is ready for callers.
    pub ready: watch::Receiver<Ready>,
    /// The circuit breakers of KMS, one for each region.
    pub circuits: Vec<Circuit>,
    /// Spans that were not exported.
    pub spans_dropped: Arc<AtomicU64>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

/// The circuit breaker of KMS in one region.
pub(super) struct Circuit {
    /// The region.
    pub region: String,
    /// When the open circuit lets a probe through.
    pub open_until: watch::Receiver<Option<Instant>>,
}

impl MetricSources {
    /// Registers an observer for each of them.
    pub(super) fn register(self, meter: &Meter) {
        let registrar = Registrar(meter);
        registrar.cache(&self.cache);
        registrar.journal(&self.journal);
        if let Some(newest) = self.newest_digest {
            registrar.digest(newest);
        }
        if let Some(tls) = self.tls {
            registrar.certificate(tls, Arc::clone(&self.clock));
        }
        let Self { limits, connections, handshakes, ready, circuits, spans_dropped, clock, .. } = self;
        registrar.gauges(names::CONNECTIONS, vocabulary::TRANSPORT, move || {
            Listener::ALL.map(|listener| (listener.name(), connections.open(listener)))
        });
        registrar.counters(names::HANDSHAKES_REFUSED, names::REFUSAL, move || {
            Refused::ALL.map(|why| (why.name(), handshakes.refused(why)))
        });
        registrar.gauge(names::CALLS_IN_FLIGHT, move || limits.now().into());
        registrar.gauge(names::SERVING, move || (*ready.borrow() == Ready::Yes).into());
        registrar.circuits(circuits, clock);
        registrar.gauges(names::BUILD, vocabulary::SERVICE_VERSION, || [(env!("CARGO_PKG_VERSION"), 1)]);
        registrar.counter(names::SPANS_DROPPED, move || spans_dropped.load(Ordering::Relaxed));
    }
}

/// Registers observers with a meter.
struct Registrar<'a>(&'a Meter);

impl Registrar<'_> {
    fn cache(&self, cache: &Cache) {
        let of = |number: fn(&Cache) -> u64| {
            let cache = cache.clone();
            move || number(&cache)
        };
        self.gauge(names::CACHE_ENTRIES, of(|cache| cache.size().entries));
        self.gauge(names::CACHE_SIZE, of(|cache| cache.size().bytes));
        self.counter(names::REQUESTS_SAVED, of(|cache| cache.totals().uses_from_cache));
        self.counter(names::CACHE_EVICTIONS, of(|cache| cache.totals().evictions));
        let checked = cache.clone();
        self.counters(names::REVOCATION_CHECKS, names::CHECK_OUTCOME, move || {
            let checks = checked.totals().checks;
            [
                ("allowed", checks.allowed),
                ("refused", checks.refused),
                ("failed", checks.failed),
                ("unasked", checks.unasked),
            ]
        });
        let cache = cache.clone();
        self.counters(names::CACHE_USES, vocabulary::SERVED_FROM, move || {
            let totals = cache.totals();
            [("CACHE", totals.uses_from_cache), ("KMS", totals.uses_from_kms)]
        });
    }

    fn journal(&self, journal: &Journal) {
        let (queue, files) = (journal.clone(), journal.clone());
        self.gauge(names::QUEUE_DEPTH, move || queue.totals().waiting);
        self.gauge(names::UNDELIVERED, move || files.totals().undelivered_bytes);
        let written = journal.clone();
        self.counters(names::RECORDS, names::PROFILE, move || {
            let totals = written.totals();
            [("activity", totals.activity_records), ("kms", totals.kms_records)]
        });
        let failing = journal.clone();
        self.counters(names::AUDIT_FAILURES, names::FAILURE, move || {
            let totals = failing.totals();
            [
                ("commit", totals.failed_commits),
                ("call", totals.refused_calls),
                ("delivery", totals.failed_deliveries),
                ("kms_answer", totals.unrecorded_kms_answers),
            ]
        });
    }

    fn digest(&self, newest: watch::Receiver<Option<NewestDigest>>) {
        let ended = newest.clone();
        self.time(names::DIGEST_TIMESTAMP, move || Some(ended.borrow().as_ref()?.end));
        let Metric { name, words, unit } = names::DIGEST_INFO;
        let gauge = self.0.u64_observable_gauge(name).with_description(words).with_unit(unit);
        let signed = move |gauge: &dyn AsyncInstrument<u64>| {
            if let Some(digest) = &*newest.borrow() {
                gauge.observe(1, &[KeyValue::new(vocabulary::DIGEST_SIGNATURE, digest.signature.clone())]);
            }
        };
        gauge.with_callback(signed).build();
    }

    fn certificate(&self, tls: Tls, clock: Arc<dyn Clock>) {
        let expires = tls.clone();
        self.time(names::CERTIFICATE_EXPIRY, move || Some(expires.expires_at()));
        self.gauge(names::CERTIFICATE_OVERDUE, move || tls.is_overdue(clock.now()).into());
    }

    fn circuits(&self, circuits: Vec<Circuit>, clock: Arc<dyn Clock>) {
        let Metric { name, words, unit } = names::BREAKER_OPEN;
        let gauge = self.0.u64_observable_gauge(name).with_description(words).with_unit(unit);
        let open = move |gauge: &dyn AsyncInstrument<u64>| {
            for Circuit { region, open_until } in &circuits {
                let is_open = open_until.borrow().is_some_and(|until| until > clock.instant());
                gauge.observe(is_open.into(), &[KeyValue::new(vocabulary::CLOUD_REGION, region.clone())]);
            }
        };
        gauge.with_callback(open).build();
    }

    fn gauge(&self, metric: Metric, number: impl Fn() -> u64 + Send + Sync + 'static) {
        let Metric { name, words, unit } = metric;
        let gauge = self.0.u64_observable_gauge(name).with_description(words).with_unit(unit);
        gauge.with_callback(move |gauge| gauge.observe(number(), &[])).build();
    }

    /// One number for each value of a label.
    fn gauges<const N: usize>(
        &self,
        metric: Metric,
        label: &'static str,
        numbers: impl Fn() -> [(&'static str, u64); N] + Send + Sync + 'static,
    ) {
        let Metric { name, words, unit } = metric;
        let gauge = self.0.u64_observable_gauge(name).with_description(words).with_unit(unit);
        gauge.with_callback(move |gauge| observe(gauge, label, numbers())).build();
    }

    fn counter(&self, metric: Metric, number: impl Fn() -> u64 + Send + Sync + 'static) {
        let Metric { name, words, unit } = metric;
        let counter = self.0.u64_observable_counter(name).with_description(words).with_unit(unit);
        counter.with_callback(move |counter| counter.observe(number(), &[])).build();
    }

    /// One number for each value of a label.
    fn counters<const N: usize>(
        &self,
        metric: Metric,
        label: &'static str,
        numbers: impl Fn() -> [(&'static str, u64); N] + Send + Sync + 'static,
    ) {
        let Metric { name, words, unit } = metric;
        let counter = self.0.u64_observable_counter(name).with_description(words).with_unit(unit);
        counter.with_callback(move |counter| observe(counter, label, numbers())).build();
    }

    /// Seconds since 1970, once there is such a time.
    fn time(&self, metric: Metric, at: impl Fn() -> Option<OffsetDateTime> + Send + Sync + 'static) {
        let Metric { name, words, unit } = metric;
        let gauge = self.0.i64_observable_gauge(name).with_description(words).with_unit(unit);
        let seconds = move |gauge: &dyn AsyncInstrument<i64>| {
            if let Some(at) = at() {
                gauge.observe(at.unix_timestamp(), &[]);
            }
        };
        gauge.with_callback(seconds).build();
    }
}

fn observe<const N: usize>(
    instrument: &dyn AsyncInstrument<u64>,
    label: &'static str,
    numbers: [(&'static str, u64); N],
) {
    for (value, number) in numbers {
        instrument.observe(number, &[KeyValue::new(label, value)]);
    }
}
