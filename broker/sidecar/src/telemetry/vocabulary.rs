//! The names of spans and their attributes. Those that OpenTelemetry has names for have its own, of the version of
//! [`SCHEMA_URL`]; docs/telemetry.md has them all in a table. The trail
//! names its own.

use opentelemetry::InstrumentationScope;

/// The semantic conventions that names are of (<https://opentelemetry.io/docs/specs/semconv/>). No
/// crate has that version yet; its names are stated here.
pub(crate) const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.45.0";
/// The name of the instrumentation scope, and of the service unless the environment has another.
pub(crate) const SCOPE: &str = "key-broker";

/// The instrumentation scope of all spans and metrics.
#[must_use]
pub(crate) fn scope() -> InstrumentationScope {
    let scope = InstrumentationScope::builder(SCOPE).with_version(env!("CARGO_PKG_VERSION"));
    scope.with_schema_url(SCHEMA_URL).build()
}

/// Attributes of the resource.
pub(crate) const SERVICE_NAME: &str = "service.name";
pub(crate) const SERVICE_VERSION: &str = "service.version";
pub(crate) const SERVICE_INSTANCE_ID: &str = "service.instance.id";
pub(crate) const HOST_NAME: &str = "host.name";
pub(crate) const CONTAINER_ID: &str = "container.id";
pub(crate) const POD_NAME: &str = "k8s.pod.name";
pub(crate) const NAMESPACE_NAME: &str = "k8s.namespace.name";
pub(crate) const NODE_NAME: &str = "k8s.node.name";

/// A call to KMS: the client span, exported under its operation's name.
pub(crate) const KMS: &str = "KMS";
/// Policy was asked.
pub(crate) const AUTHORIZE: &str = "authorize";
/// A draw: from a kept key, or after a wait for KMS.
pub(crate) const CACHE: &str = "cache";
/// An attestation document was verified.
pub(crate) const ATTESTATION_VERIFY: &str = "attestation.verify";
/// The record was made durable.
pub(crate) const AUDIT_COMMIT: &str = "audit.commit";
/// A data key is replaced before it comes to its bounds: a root span.
pub(crate) const CACHE_REFRESH: &str = "cache.refresh";

pub(crate) const RPC_SYSTEM: &str = "rpc.system.name";
/// With its service, as in the path of a gRPC request.
pub(crate) const RPC_METHOD: &str = "rpc.method";
/// Stands for a method that does not exist, since its name is the caller's choice.
pub(crate) const OTHER_METHOD: &str = "_OTHER";
/// The name of such a method, as the caller gave it.
pub(crate) const RPC_METHOD_ORIGINAL: &str = "rpc.method_original";
/// The name of the gRPC status code ([`super::status::name`]).
pub(crate) const RPC_STATUS_CODE: &str = "rpc.status_code";
/// How the call came in: `unix`, `tls`, `insecure_tcp`, `vsock`; on connections, `admin` too.
pub(crate) const TRANSPORT: &str = "keybroker.transport";
/// Of a server's span: the name of the status code, where it is one of a server's errors. Of a KMS span: KMS's own.
pub(crate) const ERROR_TYPE: &str = "error.type";
pub(crate) const CLOUD_REGION: &str = "cloud.region";
pub(crate) const SERVER_ADDRESS: &str = "server.address";
pub(crate) const RESEND_COUNT: &str = "http.request.resend_count";
/// The requestID of KMS's answer: on the KMS span of the last attempt, on its events of each.
pub(crate) const AWS_REQUEST_ID: &str = "aws.request_id";
/// The broker's own request id, `x-request-id`.
pub(crate) const REQUEST_ID: &str = "keybroker.request_id";
/// The eventID of the record: of the activity record on a server span, of the KMS record on a KMS span.
pub(crate) const EVENT_ID: &str = "keybroker.event_id";
pub(crate) const OUTCOME: &str = "keybroker.outcome";
pub(crate) const SERVED_FROM: &str = "keybroker.served_from";
/// The requestID behind an answer, whether or not KMS was called for this one.
pub(crate) const KMS_REQUEST_ID: &str = "keybroker.kms.request_id";
pub(crate) const CACHE_RESULT: &str = "keybroker.cache.result";
pub(crate) const DECISION: &str = "keybroker.policy.decision";
pub(crate) const POLICY_VERSION: &str = "keybroker.policy.version";
/// An event of a KMS span: an answer of KMS, of which a retried call has several.
pub(crate) const ATTEMPT: &str = "attempt";
/// The signature of a digest, in hex.
pub(crate) const DIGEST_SIGNATURE: &str = "keybroker.audit.digest_signature";
/// Of the AWS SDK's spans: which attempt it is, from 1.
pub(crate) const SDK_ATTEMPT: &str = "keybroker.sdk.attempt";
/// Of the AWS SDK's spans: the id that it gives a call with all its attempts.
pub(crate) const SDK_INVOCATION_ID: &str = "keybroker.sdk.invocation_id";
