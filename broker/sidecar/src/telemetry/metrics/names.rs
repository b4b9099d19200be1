//! Every metric and label. OpenTelemetry's names are Prometheus's, but for the one that semantic conventions (1.37) name.

/// A metric: its name, what it tells, and its unit in UCUM (<https://ucum.org/ucum>); docs/telemetry.md has them all.
#[derive(Clone, Copy)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) words: &'static str,
    pub(super) unit: &'static str,
}

const fn metric(name: &'static str, words: &'static str, unit: &'static str) -> Metric {
    Metric { name, words, unit }
}

/// Semantic conventions 1.37, "RPC metrics".
pub(super) const CALL_DURATION: Metric = metric(
    "rpc.server.duration",
    "Calls of workloads, from their arrival to their reply, with the commit of their record",
    "ms",
);
/// The same in Prometheus's words, in which the unit is a suffix (OpenTelemetry specification, "Prometheus").
pub(super) const CALL_DURATION_TEXT: &str = "rpc_server_duration_milliseconds";
pub(super) const KMS_REQUEST_DURATION: Metric =
    metric("keybroker_kms_request_duration_seconds", "Calls to KMS, with their retries", "s");
pub(super) const COMMIT_DURATION: Metric =
    metric("keybroker_audit_commit_duration_seconds", "Commits, each of all records that waited", "s");

pub(super) const REQUESTS_SAVED: Metric =
    metric("keybroker_kms_requests_saved_total", "Draws that no call to KMS was made for", "{request}");
pub(super) const BREAKER_OPEN: Metric =
    metric("keybroker_kms_breaker_open", "1 while KMS is not asked, since it has not answered lately", "");
pub(super) const CACHE_ENTRIES: Metric = metric("keybroker_cache_entries", "Keys that are kept", "{key}");
pub(super) const CACHE_BYTES: Metric =
    metric("keybroker_cache_bytes", "Plaintexts and ciphertexts that are kept", "By");
pub(super) const CACHE_USES: Metric =
    metric("keybroker_cache_uses_total", "Draws that were answered", "{use}");
pub(super) const CACHE_EVICTIONS: Metric =
    metric("keybroker_cache_evictions_total", "Keys dropped before they came to their bounds", "{key}");
pub(super) const RECORDS: Metric =
    metric("keybroker_audit_records_total", "Records written to the journal", "{record}");
pub(super) const QUEUE_DEPTH: Metric =
    metric("keybroker_audit_queue_depth", "Calls whose records wait for a commit", "{call}");
pub(super) const UNDELIVERED: Metric =
    metric("keybroker_audit_undelivered_bytes", "Bytes of the journal, which are not delivered yet", "By");
pub(super) const AUDIT_FAILURES: Metric =
    metric("keybroker_audit_failures_total", "What the trail could not do", "{failure}");
pub(super) const DIGEST_TIMESTAMP: Metric =
    metric("keybroker_audit_newest_digest_timestamp_seconds", "Where the newest digest ends", "s");
pub(super) const DIGEST_INFO: Metric = metric(
    "keybroker_audit_newest_digest_info",
    "The newest digest's signature: key-broker audit verify takes it as --newest-signature",
    "",
);
pub(super) const CERTIFICATE_EXPIRY: Metric = metric(
    "keybroker_tls_certificate_expiry_timestamp_seconds",
    "When the broker's certificate expires",
    "s",
);
pub(super) const CERTIFICATE_OVERDUE: Metric =
    metric("keybroker_tls_certificate_overdue", "1 while less than a tenth of its time is left", "");
pub(super) const CONNECTIONS: Metric =
    metric("keybroker_connections", "Connections that are open", "{connection}");
pub(super) const CALLS_IN_FLIGHT: Metric =
    metric("keybroker_calls_in_flight", "Calls of workloads in flight", "{call}");
pub(super) const SERVING: Metric = metric("keybroker_serving", "1 while callers should come", "");
pub(super) const BUILD: Metric = metric("keybroker_build_info", "Which build this is", "");
pub(super) const SPANS_DROPPED: Metric =
    metric("keybroker_telemetry_spans_dropped_total", "Spans that were not exported", "{span}");

/// Labels of [`CALL_DURATION`] (semantic conventions 1.37).
pub(super) const RPC_SYSTEM: &str = "rpc.system";
pub(super) const RPC_SERVICE: &str = "rpc.service";
pub(super) const RPC_METHOD: &str = "rpc.method";
pub(super) const RPC_STATUS: &str = "rpc.grpc.status_code";
/// The KMS operation.
pub(super) const OPERATION: &str = "operation";
/// What came of it.
pub(super) const OUTCOME: &str = "outcome";
/// `cache` or `kms`.
pub(super) const SERVED_FROM: &str = "served_from";
/// `activity` or `kms`.
pub(super) const PROFILE: &str = "profile";
/// What failed.
pub(super) const WHAT: &str = "what";
/// How a connection came in.
pub(super) const TRANSPORT: &str = "transport";
/// In hex.
pub(super) const SIGNATURE: &str = "signature";
/// Of the broker.
pub(super) const VERSION: &str = "version";
