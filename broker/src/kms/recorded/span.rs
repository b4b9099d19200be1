//! The span of a call to KMS.

use opentelemetry::KeyValue;
use tracing::field::Empty;
use tracing::{Span, info_span, record_all};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::Recorded;
use crate::error::BrokerError;
use crate::kms::caller::AwsCaller;
use crate::kms::{Answer, Asked};
use crate::telemetry::{trace, vocabulary};

/// The span of a call to KMS, named and described as the AWS SDKs do. It begins a trace where the broker asks for itself; a
/// workload's call that is not traced has none.
pub(super) fn begin(caller: &AwsCaller, operation: &'static str, asked: &Asked) -> Span {
    if asked.invoked_by().is_none() && !trace::is_traced() {
        return Span::none();
    }
    info_span!(
        vocabulary::KMS,
        otel.name = %format_args!("KMS.{operation}"),
        otel.kind = "client",
        otel.status_code = Empty,
        { vocabulary::RPC_SYSTEM } = "aws-api",
        { vocabulary::RPC_SERVICE } = "KMS",
        { vocabulary::RPC_METHOD } = operation,
        { vocabulary::CLOUD_REGION } = caller.region,
        { vocabulary::SERVER_ADDRESS } = caller.kms_host,
        { vocabulary::RESEND_COUNT } = Empty,
        { vocabulary::AWS_REQUEST_ID } = Empty,
        { vocabulary::EVENT_ID } = Empty,
        { vocabulary::ERROR_TYPE } = Empty,
    )
}

/// What KMS answered, on its span.
pub(super) fn tell<T>(span: &Span, answers: &[Answer], recorded: &Recorded<T>) {
    if span.is_disabled() {
        return;
    }
    if answers.len() > 1 {
        for answer in answers {
            let id = KeyValue::new(vocabulary::AWS_REQUEST_ID, answer.request_id.clone());
            let error =
                answer.error.as_ref().map(|(code, _)| KeyValue::new(vocabulary::ERROR_TYPE, code.clone()));
            span.add_event(vocabulary::ATTEMPT, std::iter::once(id).chain(error).collect());
        }
        span.record(vocabulary::RESEND_COUNT, i64::try_from(answers.len() - 1).unwrap_or(i64::MAX));
    }
    let source = recorded.source.as_ref();
    let error = match &recorded.result {
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
