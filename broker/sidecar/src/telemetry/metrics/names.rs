//! Every instrument and label, by OpenTelemetry's names. Prometheus's follow from them by the standard translation: dots become
//! underscores, the unit a suffix, and a counter ends in `_total`
//! (<https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/>).

/// An instrument: its name, description, and unit in UCUM (<https://ucum.org/ucum>). The registry in `telemetry/registry`
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
    "Workloads' calls, from arrival to reply, the commit of their record included",
    "s",
);
pub(crate) const KMS_REQUEST_DURATION: Metric =
    metric("keybroker.kms.request.duration", "Calls to KMS, retries included", "s");
pub(crate) const COMMIT_DURATION: Metric =
    metric("keybroker.audit.commit.duration", "Commits to the journal, each for all waiting records", "s");

pub(crate) const REQUESTS_SAVED: Metric =
    metric("keybroker.kms.requests_saved", "Uses that needed no call to KMS", "{request}");
pub(crate) const BREAKER_OPEN: Metric = metric(
    "keybroker.kms.breaker.open",
    "1 while the circuit to KMS is open: calls to it are refused at once",
    "",
);
pub(crate) const CACHE_ENTRIES: Metric =
    metric("keybroker.cache.entries", "Cached data keys and decrypts", "{key}");
pub(crate) const CACHE_SIZE: Metric =
    metric("keybroker.cache.size", "Bytes of cached plaintexts and ciphertexts", "By");
pub(crate) const CACHE_USES: Metric =
    metric("keybroker.cache.uses", "Data keys and decrypts given out", "{use}");
pub(crate) const CACHE_EVICTIONS: Metric =
    metric("keybroker.cache.evictions", "Cached keys dropped before they reached a limit", "{key}");
pub(crate) const REVOCATION_CHECKS: Metric = metric(
    "keybroker.cache.revocation_checks",
    "Checks with KMS whether cached keys may still be used",
    "{check}",
);
pub(crate) const RECORDS: Metric =
    metric("keybroker.audit.records", "Records written to the journal", "{record}");
pub(crate) const QUEUE_DEPTH: Metric =
    metric("keybroker.audit.queue.depth", "Calls whose records wait for a commit", "{call}");
pub(crate) const UNDELIVERED: Metric =
    metric("keybroker.audit.undelivered", "Bytes in the journal that are not delivered yet", "By");
pub(crate) const AUDIT_FAILURES: Metric =
    metric("keybroker.audit.failures", "Failures of the trail", "{failure}");
pub(crate) const DIGEST_TIMESTAMP: Metric =
    metric("keybroker.audit.newest_digest.timestamp", "End time of the newest digest", "s");
pub(crate) const DIGEST_INFO: Metric = metric(
    "keybroker.audit.newest_digest.info",
    "The newest digest's signature: key-broker audit verify takes it as --newest-signature",
    "",
);
pub(crate) const CERTIFICATE_EXPIRY: Metric =
    metric("keybroker.tls.certificate.expiry.timestamp", "When the broker's certificate expires", "s");
pub(crate) const CERTIFICATE_OVERDUE: Metric = metric(
    "keybroker.tls.certificate.overdue",
    "1 while less than a tenth of the certificate's lifetime is left",
    "",
);
pub(crate) const CONNECTIONS: Metric = metric("keybroker.connections", "Open connections", "{connection}");
pub(crate) const HANDSHAKES_REFUSED: Metric =
    metric("keybroker.tls.handshakes_refused", "Failed TLS handshakes", "{handshake}");
pub(crate) const CALLS_IN_FLIGHT: Metric =
    metric("keybroker.calls.in_flight", "Workloads' calls in flight", "{call}");
pub(crate) const SERVING: Metric = metric("keybroker.serving", "1 while the broker is ready for callers", "");
pub(crate) const BUILD: Metric = metric("keybroker.build.info", "The build, as a label", "");
pub(crate) const SPANS_DROPPED: Metric =
    metric("keybroker.telemetry.spans.dropped", "Spans that were not exported", "{span}");

/// Of `audit watch`, which is no broker.
pub(crate) const WATCH_KEYS: Metric =
    metric("keybroker.audit.watch.keys", "KMS keys, by who used them last", "{key}");
/// Likewise.
pub(crate) const WATCH_ALARM: Metric = metric(
    "keybroker.audit.watch.alarm.timestamp",
    "Time of a key's last use that no broker has a record of",
    "s",
);

/// Whose the last use of a key is.
pub(crate) const WATCH_STANDING: &str = "keybroker.audit.watch.standing";
/// AWS CloudTrail's id of a use.
pub(crate) const WATCH_EVENT: &str = "keybroker.audit.watch.cloudtrail_event_id";
/// The KMS operation.
pub(crate) const KMS_OPERATION: &str = "keybroker.kms.operation";
/// The outcome.
pub(crate) const KMS_OUTCOME: &str = "keybroker.kms.outcome";
/// The outcome of a revocation check.
pub(crate) const CHECK_OUTCOME: &str = "keybroker.cache.revocation_check.outcome";
/// `activity` or `kms`.
pub(crate) const PROFILE: &str = "keybroker.audit.profile";
/// What failed.
pub(crate) const FAILURE: &str = "keybroker.audit.failure";
/// Why there is no connection.
pub(crate) const REFUSAL: &str = "keybroker.tls.refusal";
