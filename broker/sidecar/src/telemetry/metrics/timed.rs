//! What is timed as it happens: calls, calls to KMS, commits. Nothing here allocates once all labels have been seen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Response};
use key_broker_core::clock::Clock;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, Meter};
use tonic::Code;

use super::Metrics;
use super::names::{self, Metric};
use crate::error::{BrokerError, KmsErrorKind};
use crate::method::Method;
use crate::telemetry::{status, vocabulary};

impl Metrics {
    /// Times calls of workloads.
    #[must_use]
    pub(crate) fn calls(&self, clock: Arc<dyn Clock>) -> Arc<Calls> {
        let duration = histogram(&self.meter(), names::CALL_DURATION, &BOUNDARIES);
        let labels = Method::ALL.map(|method| std::array::from_fn(|code| call_labels(method, code)));
        let other = labels_of(vocabulary::OTHER_METHOD, Code::Unimplemented);
        Arc::new(Calls { duration, labels: Box::new(labels), other, clock })
    }

    /// Times calls to KMS.
    #[must_use]
    pub(crate) fn kms_calls(&self, clock: Arc<dyn Clock>) -> KmsCalls {
        let duration = histogram(&self.meter(), names::KMS_REQUEST_DURATION, &BOUNDARIES);
        KmsCalls { duration, clock }
    }

    /// Times the journal's commits.
    #[must_use]
    pub(crate) fn commits(&self) -> Commits {
        Commits(histogram(&self.meter(), names::COMMIT_DURATION, &BOUNDARIES))
    }
}

/// Times calls of workloads.
pub(crate) struct Calls {
    duration: Histogram<f64>,
    /// For each action and gRPC code.
    labels: Box<[[Vec<KeyValue>; CODES]; Method::ALL.len()]>,
    /// Of a method that is not there.
    other: Vec<KeyValue>,
    clock: Arc<dyn Clock>,
}

/// A call that is being timed. Dropped, it counts as one whose caller has gone.
pub(crate) struct CallTimer {
    calls: Arc<Calls>,
    method: Method,
    began: Instant,
    until: Option<Instant>,
    code: Option<Code>,
}

impl Calls {
    /// A call has arrived.
    #[must_use]
    pub(crate) fn begin(self: &Arc<Self>, method: Method) -> CallTimer {
        CallTimer { calls: Arc::clone(self), method, began: self.clock.instant(), until: None, code: None }
    }

    /// A call for a method that is not there is refused: that takes no time.
    pub(crate) fn refuse_unknown(&self) {
        self.duration.record(0.0, &self.other);
    }
}

impl CallTimer {
    /// Tells when the caller stops waiting.
    pub(crate) fn set_deadline(&mut self, until: Option<Instant>) {
        self.until = until;
    }

    /// The reply is about to leave.
    pub(crate) fn end<B>(mut self, reply: &Response<B>) {
        self.code = Some(code_in(reply.headers()));
    }

    /// The last part of an answer in parts is about to leave.
    pub(crate) fn end_with(mut self, code: Code) {
        self.code = Some(code);
    }
}

impl Drop for CallTimer {
    fn drop(&mut self) {
        let now = self.calls.clock.instant();
        let code = self.code.unwrap_or_else(|| BrokerError::abandoned(self.until, now).refusal().code);
        let labels = &self.calls.labels[self.method as usize][code as usize];
        let took = now.saturating_duration_since(self.began);
        self.calls.duration.record(took.as_secs_f64(), labels);
    }
}

/// What fails has its code in the headers, as tonic sends it; what succeeds has it in the trailers.
fn code_in(headers: &HeaderMap) -> Code {
    headers.get("grpc-status").map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()))
}

fn call_labels(method: Method, code: usize) -> Vec<KeyValue> {
    let code = i32::try_from(code).map_or(Code::Unknown, Code::from_i32);
    labels_of(method.full_name(), code)
}

fn labels_of(method: &'static str, code: Code) -> Vec<KeyValue> {
    let mut labels = vec![
        KeyValue::new(vocabulary::RPC_SYSTEM, "grpc"),
        KeyValue::new(vocabulary::RPC_METHOD, method),
        KeyValue::new(vocabulary::RPC_STATUS_CODE, status::name(code)),
    ];
    labels.extend(status::server_error(code).map(|error| KeyValue::new(vocabulary::ERROR_TYPE, error)));
    labels
}

/// Times calls to KMS.
#[derive(Clone)]
pub(crate) struct KmsCalls {
    duration: Histogram<f64>,
    clock: Arc<dyn Clock>,
}

/// A call to KMS that is being timed.
pub(crate) struct KmsCall {
    calls: KmsCalls,
    operation: &'static str,
    began: Instant,
}

impl KmsCalls {
    /// KMS is about to be asked.
    #[must_use]
    pub(crate) fn begin(&self, operation: &'static str) -> KmsCall {
        KmsCall { calls: self.clone(), operation, began: self.clock.instant() }
    }
}

impl KmsCall {
    /// Sets the outcome.
    pub(crate) fn end<T>(self, result: &Result<T, BrokerError>) {
        let Self { calls, operation, began } = self;
        let took = calls.clock.instant().saturating_duration_since(began);
        let labels = [
            KeyValue::new(names::KMS_OPERATION, operation),
            KeyValue::new(names::KMS_OUTCOME, outcome(result)),
        ];
        calls.duration.record(took.as_secs_f64(), &labels);
    }
}

fn outcome<T>(result: &Result<T, BrokerError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(BrokerError::Kms(error)) => match error.kind {
            KmsErrorKind::Credentials | KmsErrorKind::AccountCredentials => "credentials",
            KmsErrorKind::AccessDenied => "denied",
            KmsErrorKind::Throttled => "throttled",
            KmsErrorKind::Unavailable | KmsErrorKind::OtherKey => "unavailable",
            _ => "rejected",
        },
        Err(BrokerError::DeadlineExceeded) => "timeout",
        Err(_) => "error",
    }
}

/// Times the journal's commits.
pub(crate) struct Commits(Histogram<f64>);

impl Commits {
    /// One took so long.
    pub(crate) fn record(&self, took: Duration) {
        self.0.record(took.as_secs_f64(), &[]);
    }
}

fn histogram(meter: &Meter, metric: Metric, boundaries: &[f64]) -> Histogram<f64> {
    let Metric { name, words, unit } = metric;
    let histogram = meter.f64_histogram(name).with_description(words).with_unit(unit);
    histogram.with_boundaries(boundaries.to_vec()).build()
}

/// gRPC has 17 (<https://grpc.io/docs/guides/status-codes/>).
const CODES: usize = 17;
/// In seconds: from a kept key's call to one that waits for all attempts at KMS. The conventions advise bounds from 5 ms, which
/// would put every call that is served from the cache in one.
const BOUNDARIES: [f64; 17] = [
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
];

#[cfg(test)]
mod tests {
    use super::*;
    use key_broker_core::clock::SystemClock;

    #[test]
    fn timing_a_call_allocates_nothing() {
        let metrics = Metrics::new(true, None).expect("somebody reads them");
        let calls = metrics.calls(Arc::new(SystemClock));
        let reply = Response::new(());
        let call = || calls.begin(Method::Decrypt).end(&reply);
        call();
        assert_eq!(allocation_counter::measure(call).count_total, 0);
    }
}
