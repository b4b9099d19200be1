//! The span of a call to KMS.

use key_broker_trail::record::AwsCaller;
use opentelemetry::KeyValue;

use super::RecordedReply;
use crate::error::BrokerError;
use crate::kms::Attempt;
use crate::operation::KmsRequest;
use crate::policy::{Permitted, Requester};
use crate::telemetry::trace::{Parent, Span, Tracer};
use crate::telemetry::vocabulary;

/// The span of a call to KMS, named and described as the AWS SDKs do. What nobody's call waits for, the broker asks for itself.
pub(super) fn begin(
    tracer: &Tracer,
    caller: &AwsCaller,
    permitted: &Permitted<KmsRequest>,
    parent: &Parent,
) -> Span {
    let operation = permitted.subject().operation().name();
    let name = || format!("KMS.{operation}");
    let mut span = if parent.is_traced() {
        parent.client(name())
    } else if permitted.requester() == Requester::Broker && tracer.is_on() {
        tracer.root_client(name())
    } else {
        return Span::default();
    };
    if span.is_recorded() {
        span.set(vocabulary::RPC_SYSTEM, "aws-api");
        span.set(vocabulary::RPC_SERVICE, "KMS");
        span.set(vocabulary::RPC_METHOD, operation);
        span.set(vocabulary::CLOUD_REGION, caller.region.clone());
        span.set(vocabulary::SERVER_ADDRESS, caller.kms_host.clone());
    }
    span
}

/// What KMS answered, on its span.
pub(super) fn describe<T>(span: &mut Span, attempts: &[Attempt], reply: &RecordedReply<T>) {
    if !span.is_recorded() {
        return;
    }
    if attempts.len() > 1 {
        for attempt in attempts {
            let id = KeyValue::new(vocabulary::AWS_REQUEST_ID, attempt.request_id.clone());
            let error =
                attempt.error.as_ref().map(|(code, _)| KeyValue::new(vocabulary::ERROR_TYPE, code.clone()));
            span.event(vocabulary::ATTEMPT, std::iter::once(id).chain(error).collect());
        }
        span.set(vocabulary::RESEND_COUNT, i64::try_from(attempts.len() - 1).unwrap_or(i64::MAX));
    }
    if let Some(source) = &reply.source {
        span.set(vocabulary::AWS_REQUEST_ID, source.request_id.to_string());
        span.set(vocabulary::EVENT_ID, source.event_id.to_string());
    }
    match &reply.result {
        Ok(_) => {}
        Err(BrokerError::Kms(error)) => span.fail(error.code.clone()),
        Err(BrokerError::DeadlineExceeded) => span.fail("timeout"),
        Err(_) => span.fail("_OTHER"),
    }
}
