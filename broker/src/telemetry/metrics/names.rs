//! Every metric and label. OpenTelemetry's names are Prometheus's, but for the one that semantic conventions (1.37) name.

/// A call of a workload, from its arrival to its reply, in milliseconds (semantic conventions 1.37, "RPC metrics").
pub const CALL_DURATION: &str = "rpc.server.duration";
/// The same in Prometheus's words, in which the unit is a suffix (OpenTelemetry specification, "Prometheus").
pub const CALL_DURATION_TEXT: &str = "rpc_server_duration_milliseconds";
/// A call to KMS with all its attempts, in seconds.
pub const KMS_REQUEST_DURATION: &str = "keybroker_kms_request_duration_seconds";
/// A group commit of the journal, in seconds.
pub const COMMIT_DURATION: &str = "keybroker_audit_commit_duration_seconds";

/// Draws that no call to KMS was made for.
pub const REQUESTS_SAVED: &str = "keybroker_kms_requests_saved_total";
/// Whether KMS is not asked, since it has not answered lately.
pub const BREAKER_OPEN: &str = "keybroker_kms_breaker_open";
/// Keys that are kept.
pub const CACHE_ENTRIES: &str = "keybroker_cache_entries";
/// What is kept, in bytes.
pub const CACHE_BYTES: &str = "keybroker_cache_bytes";
/// Draws that were answered.
pub const CACHE_USES: &str = "keybroker_cache_uses_total";
/// Keys that were dropped before they came to their bounds.
pub const CACHE_EVICTIONS: &str = "keybroker_cache_evictions_total";
/// Records in the journal.
pub const RECORDS: &str = "keybroker_audit_records_total";
/// Calls whose records wait to be written.
pub const QUEUE_DEPTH: &str = "keybroker_audit_queue_depth";
/// Bytes of the journal.
pub const UNDELIVERED: &str = "keybroker_audit_undelivered_bytes";
/// What the trail could not do.
pub const AUDIT_FAILURES: &str = "keybroker_audit_failures_total";
/// Where the newest digest ends.
pub const DIGEST_TIMESTAMP: &str = "keybroker_audit_newest_digest_timestamp_seconds";
/// The newest digest's signature.
pub const DIGEST_INFO: &str = "keybroker_audit_newest_digest_info";
/// When the broker's certificate expires.
pub const CERTIFICATE_EXPIRY: &str = "keybroker_tls_certificate_expiry_timestamp_seconds";
/// Whether that is soon, and nobody has renewed it.
pub const CERTIFICATE_OVERDUE: &str = "keybroker_tls_certificate_overdue";
/// Connections that are open.
pub const CONNECTIONS: &str = "keybroker_connections";
/// Calls in flight.
pub const CALLS_IN_FLIGHT: &str = "keybroker_calls_in_flight";
/// Whether callers should come.
pub const SERVING: &str = "keybroker_serving";
/// Which build this is.
pub const BUILD: &str = "keybroker_build_info";
/// Spans that were not exported.
pub const SPANS_DROPPED: &str = "keybroker_telemetry_spans_dropped_total";

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
