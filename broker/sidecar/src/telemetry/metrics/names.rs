//! Every instrument and label, by OpenTelemetry's names. Prometheus's follow from them by the standard translation: dots become
//! underscores, the unit a suffix, and a counter ends in `_total`
//! (<https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/>).

/// An instrument: its name, what it tells, and its unit in UCUM (<https://ucum.org/ucum>). The registry in `telemetry/registry`
/// declares them all.
#[derive(Clone, Copy)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) words: &'static str,
    pub(crate) unit: &'static str,
}

const fn metric(name: &'static str, words: &'static str, unit: &'static str) -> Metric {
    Metric { name, words, unit }
}

/// Of the semantic conventions: "RPC metrics".
pub(crate) const CALL_DURATION: Metric = metric(
    "rpc.server.call.duration",
    "Calls of workloads, from their arrival to their reply, with the commit of their record",
    "s",
);
pub(crate) const KMS_REQUEST_DURATION: Metric =
    metric("keybroker.kms.request.duration", "Calls to KMS, with their retries", "s");
pub(crate) const COMMIT_DURATION: Metric =
    metric("keybroker.audit.commit.duration", "Commits, each of all records that waited", "s");

pub(crate) const REQUESTS_SAVED: Metric =
    metric("keybroker.kms.requests_saved", "Draws that no call to KMS was made for", "{request}");
pub(crate) const BREAKER_OPEN: Metric =
    metric("keybroker.kms.breaker.open", "1 while KMS is not asked, since it has not answered lately", "");
pub(crate) const CACHE_ENTRIES: Metric = metric("keybroker.cache.entries", "Keys that are kept", "{key}");
pub(crate) const CACHE_SIZE: Metric =
    metric("keybroker.cache.size", "Plaintexts and ciphertexts that are kept", "By");
pub(crate) const CACHE_USES: Metric = metric("keybroker.cache.uses", "Draws that were answered", "{use}");
pub(crate) const CACHE_EVICTIONS: Metric =
    metric("keybroker.cache.evictions", "Keys dropped before they came to their bounds", "{key}");
pub(crate) const REVOCATION_CHECKS: Metric = metric(
    "keybroker.cache.revocation_checks",
    "Times that KMS was to be asked whether kept keys may still be used",
    "{check}",
);
pub(crate) const RECORDS: Metric =
    metric("keybroker.audit.records", "Records written to the journal", "{record}");
pub(crate) const QUEUE_DEPTH: Metric =
    metric("keybroker.audit.queue.depth", "Calls whose records wait for a commit", "{call}");
pub(crate) const UNDELIVERED: Metric =
    metric("keybroker.audit.undelivered", "What the journal holds, which is not delivered yet", "By");
pub(crate) const AUDIT_FAILURES: Metric =
    metric("keybroker.audit.failures", "What the trail could not do", "{failure}");
pub(crate) const DIGEST_TIMESTAMP: Metric =
    metric("keybroker.audit.newest_digest.timestamp", "Where the newest digest ends", "s");
pub(crate) const DIGEST_INFO: Metric = metric(
    "keybroker.audit.newest_digest.info",
    "The newest digest's signature: key-broker audit verify takes it as --newest-signature",
    "",
);
pub(crate) const CERTIFICATE_EXPIRY: Metric =
    metric("keybroker.tls.certificate.expiry.timestamp", "When the broker's certificate expires", "s");
pub(crate) const CERTIFICATE_OVERDUE: Metric =
    metric("keybroker.tls.certificate.overdue", "1 while less than a tenth of its time is left", "");
pub(crate) const CONNECTIONS: Metric =
    metric("keybroker.connections", "Connections that are open", "{connection}");
pub(crate) const HANDSHAKES_REFUSED: Metric =
    metric("keybroker.tls.handshakes_refused", "TLS handshakes that brought no connection", "{handshake}");
pub(crate) const CALLS_IN_FLIGHT: Metric =
    metric("keybroker.calls.in_flight", "Calls of workloads in flight", "{call}");
pub(crate) const SERVING: Metric = metric("keybroker.serving", "1 while callers should come", "");
pub(crate) const BUILD: Metric = metric("keybroker.build.info", "Which build this is", "");
pub(crate) const SPANS_DROPPED: Metric =
    metric("keybroker.telemetry.spans.dropped", "Spans that were not exported", "{span}");

/// Of `audit watch`, which is no broker.
pub(crate) const WATCH_KEYS: Metric =
    metric("keybroker.audit.watch.keys", "KMS keys, by whose their last use is", "{key}");
/// Likewise.
pub(crate) const WATCH_ALARM: Metric = metric(
    "keybroker.audit.watch.alarm.timestamp",
    "When a KMS key was used of which no broker has a record",
    "s",
);

/// Whose the last use of a key is.
pub(crate) const WATCH_STANDING: &str = "keybroker.audit.watch.standing";
/// AWS CloudTrail's id of a use.
pub(crate) const WATCH_EVENT: &str = "keybroker.audit.watch.cloudtrail_event_id";
/// The KMS operation.
pub(crate) const KMS_OPERATION: &str = "keybroker.kms.operation";
/// What came of it.
pub(crate) const KMS_OUTCOME: &str = "keybroker.kms.outcome";
/// What came of a revocation check.
pub(crate) const CHECK_OUTCOME: &str = "keybroker.cache.revocation_check.outcome";
/// `activity` or `kms`.
pub(crate) const PROFILE: &str = "keybroker.audit.profile";
/// What failed.
pub(crate) const FAILURE: &str = "keybroker.audit.failure";
/// Why there is no connection.
pub(crate) const REFUSAL: &str = "keybroker.tls.refusal";
