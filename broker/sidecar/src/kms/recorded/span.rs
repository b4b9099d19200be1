//! The span of a call to KMS.

use key_broker_trail::record::AwsCaller;
use opentelemetry::KeyValue;
use tracing::field::Empty;
use tracing::{Span, info_span, record_all};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::RecordedReply;
use crate::error::BrokerError;
use crate::kms::Attempt;
use crate::operation::KmsRequest;
use crate::policy::{Permitted, Requester};
use crate::telemetry::{trace, vocabulary};

/// Begins the span of a call to KMS, with name and attributes as the AWS SDKs have them. The broker's own calls begin a trace; in a
/// workload's call that is not traced, the span is disabled.
pub(super) fn begin(caller: &AwsCaller, permitted: &Permitted<KmsRequest>) -> Span {
    if permitted.requester() == Requester::Workload && !trace::is_traced() {
        return Span::none();
    }
    info_span!(
        vocabulary::KMS,
        otel.name = %format_args!("KMS.{}", permitted.subject().operation().name()),
        otel.kind = "client",
        otel.status_code = Empty,
        { vocabulary::RPC_SYSTEM } = "aws-api",
        { vocabulary::RPC_METHOD } = %format_args!("KMS/{}", permitted.subject().operation().name()),
        { vocabulary::CLOUD_REGION } = caller.region,
        { vocabulary::SERVER_ADDRESS } = caller.kms_host,
        { vocabulary::RESEND_COUNT } = Empty,
        { vocabulary::AWS_REQUEST_ID } = Empty,
        { vocabulary::EVENT_ID } = Empty,
        { vocabulary::ERROR_TYPE } = Empty,
    )
}

/// Adds KMS's answer to the span.
pub(super) fn describe<T>(span: &Span, attempts: &[Attempt], reply: &RecordedReply<T>) {
    if span.is_disabled() {
        return;
    }
    if attempts.len() > 1 {
        for attempt in attempts {
            let id = KeyValue::new(vocabulary::AWS_REQUEST_ID, attempt.request_id.clone());
            let error =
                attempt.error.as_ref().map(|(code, _)| KeyValue::new(vocabulary::ERROR_TYPE, code.clone()));
            span.add_event(vocabulary::ATTEMPT, std::iter::once(id).chain(error).collect());
        }
        span.record(vocabulary::RESEND_COUNT, i64::try_from(attempts.len() - 1).unwrap_or(i64::MAX));
    }
    let source = reply.source.as_ref();
    let error = match &reply.result {
        Ok(_) => None,
        Err(BrokerError::Kms(error)) => Some(error.code.as_str()),
        Err(BrokerError::DeadlineExceeded) => Some("timeout"),
        Err(_) => Some("_OTHER"),
    };
    record_all!(
        span,
        { vocabulary::AWS_REQUEST_ID } = source.map(|source| &*source.request_id),
        { vocabulary::EVENT_ID } = source.map(|source| tracing::field::display(source.event_id)),
        { vocabulary::ERROR_TYPE } = error,
        otel.status_code = error.map(|_| "ERROR"),
    );
}
