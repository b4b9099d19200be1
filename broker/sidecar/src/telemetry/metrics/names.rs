//! Every metric and label. OpenTelemetry's names are Prometheus's, but for the one that semantic conventions (1.37) name.

/// A metric: its name, what it tells, and its unit in UCUM (<https://ucum.org/ucum>); docs/telemetry.md has them all.
#[derive(Clone, Copy)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) words: &'static str,
    pub(crate) unit: &'static str,
}

const fn metric(name: &'static str, words: &'static str, unit: &'static str) -> Metric {
    Metric { name, words, unit }
}

/// Semantic conventions 1.37, "RPC metrics".
pub(crate) const CALL_DURATION: Metric = metric(
    "rpc.server.duration",
    "Calls of workloads, from their arrival to their reply, with the commit of their record",
    "ms",
);
/// The same in Prometheus's words, in which the unit is a suffix (OpenTelemetry specification, "Prometheus").
pub(crate) const CALL_DURATION_TEXT: &str = "rpc_server_duration_milliseconds";
pub(crate) const KMS_REQUEST_DURATION: Metric =
    metric("keybroker_kms_request_duration_seconds", "Calls to KMS, with their retries", "s");
pub(crate) const COMMIT_DURATION: Metric =
    metric("keybroker_audit_commit_duration_seconds", "Commits, each of all records that waited", "s");

pub(crate) const REQUESTS_SAVED: Metric =
    metric("keybroker_kms_requests_saved_total", "Draws that no call to KMS was made for", "{request}");
pub(crate) const BREAKER_OPEN: Metric =
    metric("keybroker_kms_breaker_open", "1 while KMS is not asked, since it has not answered lately", "");
pub(crate) const CACHE_ENTRIES: Metric = metric("keybroker_cache_entries", "Keys that are kept", "{key}");
pub(crate) const CACHE_BYTES: Metric =
    metric("keybroker_cache_bytes", "Plaintexts and ciphertexts that are kept", "By");
pub(crate) const CACHE_USES: Metric =
    metric("keybroker_cache_uses_total", "Draws that were answered", "{use}");
pub(crate) const CACHE_EVICTIONS: Metric =
    metric("keybroker_cache_evictions_total", "Keys dropped before they came to their bounds", "{key}");
pub(crate) const RECORDS: Metric =
    metric("keybroker_audit_records_total", "Records written to the journal", "{record}");
pub(crate) const QUEUE_DEPTH: Metric =
    metric("keybroker_audit_queue_depth", "Calls whose records wait for a commit", "{call}");
pub(crate) const UNDELIVERED: Metric =
    metric("keybroker_audit_undelivered_bytes", "Bytes of the journal, which are not delivered yet", "By");
pub(crate) const AUDIT_FAILURES: Metric =
    metric("keybroker_audit_failures_total", "What the trail could not do", "{failure}");
pub(crate) const DIGEST_TIMESTAMP: Metric =
    metric("keybroker_audit_newest_digest_timestamp_seconds", "Where the newest digest ends", "s");
pub(crate) const DIGEST_INFO: Metric = metric(
    "keybroker_audit_newest_digest_info",
    "The newest digest's signature: key-broker audit verify takes it as --newest-signature",
    "",
);
pub(crate) const CERTIFICATE_EXPIRY: Metric = metric(
    "keybroker_tls_certificate_expiry_timestamp_seconds",
    "When the broker's certificate expires",
    "s",
);
pub(crate) const CERTIFICATE_OVERDUE: Metric =
    metric("keybroker_tls_certificate_overdue", "1 while less than a tenth of its time is left", "");
pub(crate) const CONNECTIONS: Metric =
    metric("keybroker_connections", "Connections that are open", "{connection}");
pub(crate) const HANDSHAKES_REFUSED: Metric = metric(
    "keybroker_tls_handshakes_refused_total",
    "TLS handshakes that brought no connection",
    "{handshake}",
);
pub(crate) const CALLS_IN_FLIGHT: Metric =
    metric("keybroker_calls_in_flight", "Calls of workloads in flight", "{call}");
pub(crate) const SERVING: Metric = metric("keybroker_serving", "1 while callers should come", "");
pub(crate) const BUILD: Metric = metric("keybroker_build_info", "Which build this is", "");
pub(crate) const SPANS_DROPPED: Metric =
    metric("keybroker_telemetry_spans_dropped_total", "Spans that were not exported", "{span}");

/// Labels of [`CALL_DURATION`] (semantic conventions 1.37).
pub(crate) const RPC_SYSTEM: &str = "rpc.system";
pub(crate) const RPC_SERVICE: &str = "rpc.service";
pub(crate) const RPC_METHOD: &str = "rpc.method";
pub(crate) const RPC_STATUS: &str = "rpc.grpc.status_code";
/// The KMS operation.
pub(crate) const OPERATION: &str = "operation";
/// What came of it.
pub(crate) const OUTCOME: &str = "outcome";
/// `cache` or `kms`.
pub(crate) const SERVED_FROM: &str = "served_from";
/// `activity` or `kms`.
pub(crate) const PROFILE: &str = "profile";
/// What failed.
pub(crate) const WHAT: &str = "what";
/// How a connection came in.
pub(crate) const TRANSPORT: &str = "transport";
/// Why.
pub(crate) const REASON: &str = "reason";
/// In hex.
pub(crate) const SIGNATURE: &str = "signature";
/// Of KMS.
pub(crate) const REGION: &str = "region";
/// Of the broker.
pub(crate) const VERSION: &str = "version";
