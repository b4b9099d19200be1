//! What is looked at whenever metrics are read: nothing of this costs a call anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};
use tokio::sync::watch;

use super::names;
use crate::audit::journal::Journal;
use crate::audit::trail::NewestDigest;
use crate::cache::Cache;
use crate::clock::Clock;
use crate::readiness::Ready;
use crate::transport::connections::{Connections, Transport};
use crate::transport::limits::CallLimits;
use crate::transport::tls::Tls;

/// What is looked at.
pub struct Observed {
    /// What is kept.
    pub cache: Cache,
    /// The calls of workloads.
    pub limits: CallLimits,
    /// Where records go.
    pub journal: Journal,
    /// What was delivered last; none without a trail.
    pub newest_digest: Option<watch::Receiver<Option<NewestDigest>>>,
    /// The broker's certificate, if it has one.
    pub tls: Option<Tls>,
    /// Who is connected.
    pub connections: Arc<Connections>,
    /// Whether callers should come.
    pub ready: watch::Receiver<Ready>,
    /// Until when KMS is not asked.
    pub breaker: watch::Receiver<Option<Instant>>,
    /// Spans that were not exported.
    pub spans_dropped: Arc<AtomicU64>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

type Look<T> = Box<dyn Fn(&dyn AsyncInstrument<T>) + Send + Sync>;

impl Observed {
    pub(super) fn register(self, meter: &Meter) {
        let Self {
            cache,
            limits,
            journal,
            newest_digest,
            tls,
            connections,
            ready,
            breaker,
            spans_dropped,
            clock,
        } = self;
        observe_cache(meter, &cache);
        observe_journal(meter, &journal);
        if let Some(newest) = newest_digest {
            observe_digest(meter, newest);
        }
        if let Some(tls) = tls {
            let (later, now) = (tls.clone(), Arc::clone(&clock));
            let overdue = plain(move || later.is_overdue(now.now()).into());
            gauge(
                meter,
                names::CERTIFICATE_OVERDUE,
                "1 while less than a tenth of its time is left",
                "",
                overdue,
            );
            let look = move || tls.expires_at().unix_timestamp();
            timestamp(meter, names::CERTIFICATE_EXPIRY, "When the broker's certificate expires", plain(look));
        }
        gauge(
            meter,
            names::CONNECTIONS,
            "Connections that are open",
            "{connection}",
            Box::new(move |open| {
                for transport in Transport::ALL {
                    let label = KeyValue::new(names::TRANSPORT, transport.name());
                    open.observe(connections.open(transport), &[label]);
                }
            }),
        );
        let in_flight = plain(move || limits.now().into());
        gauge(meter, names::CALLS_IN_FLIGHT, "Calls of workloads in flight", "{call}", in_flight);
        let serving = plain(move || (*ready.borrow() == Ready::Yes).into());
        gauge(meter, names::SERVING, "1 while callers should come", "", serving);
        let open = plain(move || breaker.borrow().is_some_and(|until| until > clock.instant()).into());
        gauge(
            meter,
            names::BREAKER_OPEN,
            "1 while KMS is not asked, since it has not answered lately",
            "",
            open,
        );
        gauge(
            meter,
            names::BUILD,
            "Which build this is",
            "",
            Box::new(|build| {
                build.observe(1, &[KeyValue::new(names::VERSION, env!("CARGO_PKG_VERSION"))]);
            }),
        );
        let dropped = plain(move || spans_dropped.load(Ordering::Relaxed));
        counter(meter, names::SPANS_DROPPED, "Spans that were not exported", "{span}", dropped);
    }
}

fn observe_cache(meter: &Meter, cache: &Cache) {
    let of = |look: fn(&Cache) -> u64| {
        let cache = cache.clone();
        plain(move || look(&cache))
    };
    gauge(meter, names::CACHE_ENTRIES, "Keys that are kept", "{key}", of(|cache| cache.size().entries));
    gauge(
        meter,
        names::CACHE_BYTES,
        "Key material and ciphertext that are kept",
        "By",
        of(|cache| cache.size().bytes),
    );
    let saved = of(|cache| cache.totals().uses_from_cache);
    counter(meter, names::REQUESTS_SAVED, "Draws that no call to KMS was made for", "{request}", saved);
    let evictions = of(|cache| cache.totals().evictions);
    counter(
        meter,
        names::CACHE_EVICTIONS,
        "Keys that were dropped before they came to their bounds",
        "{key}",
        evictions,
    );
    let cache = cache.clone();
    counter(
        meter,
        names::CACHE_USES,
        "Draws that were answered",
        "{use}",
        Box::new(move |uses| {
            let totals = cache.totals();
            uses.observe(totals.uses_from_cache, &[KeyValue::new(names::SERVED_FROM, "cache")]);
            uses.observe(totals.uses_from_kms, &[KeyValue::new(names::SERVED_FROM, "kms")]);
        }),
    );
}

fn observe_journal(meter: &Meter, journal: &Journal) {
    let of = |look: fn(&Journal) -> u64| {
        let journal = journal.clone();
        plain(move || look(&journal))
    };
    let waiting = of(Journal::waiting);
    gauge(meter, names::QUEUE_DEPTH, "Calls whose records wait to be written", "{call}", waiting);
    let undelivered = of(|journal| journal.undelivered().bytes());
    gauge(meter, names::UNDELIVERED, "Bytes of the journal that are not delivered", "By", undelivered);
    let written = journal.clone();
    counter(
        meter,
        names::RECORDS,
        "Records in the journal",
        "{record}",
        Box::new(move |records| {
            let totals = written.totals();
            records.observe(totals.activity_records, &[KeyValue::new(names::PROFILE, "activity")]);
            records.observe(totals.kms_records, &[KeyValue::new(names::PROFILE, "kms")]);
        }),
    );
    let failing = journal.clone();
    counter(
        meter,
        names::AUDIT_FAILURES,
        "What the trail could not do",
        "{failure}",
        Box::new(move |failures| {
            let totals = failing.totals();
            failures.observe(totals.failed_commits, &[KeyValue::new(names::WHAT, "commit")]);
            failures.observe(totals.refused_calls, &[KeyValue::new(names::WHAT, "call")]);
            failures.observe(totals.failed_deliveries, &[KeyValue::new(names::WHAT, "delivery")]);
        }),
    );
}

fn observe_digest(meter: &Meter, newest: watch::Receiver<Option<NewestDigest>>) {
    let signed = newest.clone();
    timestamp(
        meter,
        names::DIGEST_TIMESTAMP,
        "Where the newest digest ends",
        Box::new(move |end| {
            if let Some(digest) = &*newest.borrow() {
                end.observe(digest.end.unix_timestamp(), &[]);
            }
        }),
    );
    let description =
        "The newest digest's signature: `key-broker audit verify` takes it as --newest-signature";
    gauge(
        meter,
        names::DIGEST_INFO,
        description,
        "",
        Box::new(move |info| {
            if let Some(digest) = &*signed.borrow() {
                info.observe(1, &[KeyValue::new(names::SIGNATURE, digest.signature.clone())]);
            }
        }),
    );
}

/// One number without labels.
fn plain<T: 'static>(look: impl Fn() -> T + Send + Sync + 'static) -> Look<T> {
    Box::new(move |instrument| instrument.observe(look(), &[]))
}

fn gauge(meter: &Meter, name: &'static str, description: &'static str, unit: &'static str, look: Look<u64>) {
    let gauge = meter.u64_observable_gauge(name).with_description(description).with_unit(unit);
    gauge.with_callback(move |instrument| look(instrument)).build();
}

fn counter(
    meter: &Meter,
    name: &'static str,
    description: &'static str,
    unit: &'static str,
    look: Look<u64>,
) {
    let counter = meter.u64_observable_counter(name).with_description(description).with_unit(unit);
    counter.with_callback(move |instrument| look(instrument)).build();
}

fn timestamp(meter: &Meter, name: &'static str, description: &'static str, look: Look<i64>) {
    let gauge = meter.i64_observable_gauge(name).with_description(description).with_unit("s");
    gauge.with_callback(move |instrument| look(instrument)).build();
}
