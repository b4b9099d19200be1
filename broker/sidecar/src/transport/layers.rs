//! The layers around every call, outermost first: audit scope, panic catch, limits, then the service.
//!
//! The audit scope is outermost, so that refused, malformed, panicked and abandoned calls have records too.

use std::convert::Infallible;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use hyper::body::Incoming;
use key_broker_proto as proto;
use key_broker_proto::admin::v1::admin_server::AdminServer;
use key_broker_proto::v1::key_broker_server::KeyBrokerServer;
use tokio::sync::watch;
use tokio::time::Timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::{Code, Status};
use tower::Service as _;
use uuid::Uuid;

use crate::admin::{Admin, AdminCall};
use crate::audit::{Audit, AuditScope, RecordBuilder};
use crate::error::BrokerError;
use crate::identity::Peer;
use crate::limits::{CallLimits, MAX_METADATA_BYTES, Share, Shares, Taken};
use crate::method::{LARGEST_REQUEST_BYTES, Method};
use crate::service::{Service, WorkloadCall, wire};
use crate::telemetry::metrics::Calls;
use crate::telemetry::trace::Traces;
use crate::transport::connections::Listener;
use crate::transport::reflection::Reflection;
use crate::transport::request::{RequestBody, RequestBytes};
use crate::transport::standard::{Lasting, REFLECTION, StandardService, standard};
use crate::transport::streamed;

/// Everything between a connection and the service.
pub(crate) struct Layers {
    /// Records every call.
    pub audit: Arc<Audit>,
    /// Measures every call, if anybody reads the measurements.
    pub calls: Option<Arc<Calls>>,
    /// Limits on one call and on all.
    pub limits: CallLimits,
    /// The limits on each principal.
    pub shares: Shares,
    /// Decides which calls are traced.
    pub traces: Traces,
    /// Whether the store has the trail's beginning: calls wait until then.
    pub is_open: watch::Receiver<bool>,
    /// Cancelled when the broker is about to stop.
    pub drain: CancellationToken,
    /// `keybroker.v1.KeyBroker`.
    pub service: Arc<Service>,
    /// `keybroker.admin.v1.Admin`.
    pub admin: AdminServer<Admin>,
    /// `grpc.health.v1.Health`.
    pub health: StandardService,
    /// `grpc.reflection.v1` and `v1alpha.ServerReflection`.
    pub reflection: Reflection,
}

/// The reply to one call, boxed so that moving it moves only a pointer.
pub(crate) type ReplyFuture = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// The caller on a connection, and its share of the broker.
pub(crate) struct Caller {
    /// Its identity.
    pub peer: Arc<Peer>,
    /// Its principal's share, across all connections.
    pub share: Arc<Share>,
}

impl Layers {
    /// Answers one call. Boxed so that moving the future moves only a pointer.
    pub(crate) fn answer(
        self: &Arc<Self>,
        on: Listener,
        caller: &Caller,
        request: Request<Incoming>,
    ) -> ReplyFuture {
        let Some((service, method)) =
            request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'))
        else {
            return Box::pin(std::future::ready(unimplemented()));
        };
        let is_recorded = service == "keybroker.v1.KeyBroker";
        if !is_recorded && metadata_bytes(&request) > MAX_METADATA_BYTES {
            let refusal = wire::status(&BrokerError::MetadataTooLarge, Uuid::new_v4());
            return Box::pin(std::future::ready(refusal.into_http()));
        }
        match (service, on) {
            ("keybroker.v1.KeyBroker", Listener::Workloads(_)) => {
                if let Some(method) = Method::named(method) {
                    return self.recorded(method, caller, request);
                }
                self.tell_of_unknown(caller, &request);
                Box::pin(std::future::ready(unimplemented()))
            }
            ("keybroker.admin.v1.Admin", Listener::Admin) if Admin::METHODS.contains(&method) => {
                Box::pin(Arc::clone(self).administered(Arc::clone(&caller.peer), request))
            }
            ("grpc.health.v1.Health", _) => self.standard(&self.health, caller, Lasting::Watched, request),
            (name, on) => match self.reflection.service(on, name) {
                Some(reflection) => self.standard(reflection, caller, REFLECTION, request),
                None => Box::pin(std::future::ready(unimplemented())),
            },
        }
    }

    /// Whether a request is a workload's or an operator's call: connections stay open while one is under way.
    #[must_use]
    pub(super) fn is_call(request: &Request<Incoming>) -> bool {
        request.uri().path().starts_with("/keybroker.")
    }

    /// Logs a method that this version of the contract does not have. Nothing is done, so there is no record.
    fn tell_of_unknown(&self, caller: &Caller, request: &Request<Incoming>) {
        if let Some(calls) = &self.calls {
            calls.refuse_unknown();
        }
        let is_small = metadata_bytes(request) <= MAX_METADATA_BYTES;
        let nothing = HeaderMap::new();
        let headers = if is_small { request.headers() } else { &nothing };
        let method = request.uri().path().trim_start_matches('/');
        self.traces.refuse_unknown(method, caller.peer.details.transport.name(), headers);
    }

    fn standard(
        &self,
        service: &StandardService,
        caller: &Caller,
        lasting: Lasting,
        request: Request<Incoming>,
    ) -> ReplyFuture {
        let (service, share) = (service.clone(), Arc::clone(&caller.share));
        // With an unreadable deadline there must still be time to send the error.
        let timeout = self.timeout(request.headers()).unwrap_or(self.limits.default_deadline);
        Box::pin(async move { standard(service, &share, timeout, lasting, request).await })
    }

    /// Audit scope and panic catch: whatever happens inside, there is a record before there is a reply.
    fn recorded(&self, method: Method, caller: &Caller, request: Request<Incoming>) -> ReplyFuture {
        // If a request is refused for its length, nothing of it is kept, not even its trace and user agent.
        let nothing = HeaderMap::new();
        let is_too_large = metadata_bytes(&request) > MAX_METADATA_BYTES;
        let headers = if is_too_large { &nothing } else { request.headers() };
        let user_agent = headers.get(http::header::USER_AGENT);
        let trace = self.traces.call(method, caller.peer.details.transport.name(), headers);
        let (peer, span) = (Arc::clone(&caller.peer), trace.span().clone());
        let mut scope = self.audit.open(method.event_name(), peer, user_agent, span, trace.ids());
        let mut timed = self.calls.as_ref().map(|calls| calls.begin(method));
        let limited = panic::catch_unwind(AssertUnwindSafe(|| {
            if is_too_large {
                Err(BrokerError::MetadataTooLarge)
            } else {
                self.limited(method, &mut scope, caller, request)
            }
        }));
        if let Some(timed) = &mut timed {
            timed.set_deadline(scope.deadline());
        }
        // A block, which holds what it captures once; an async function would hold its arguments twice.
        trace.carry(async move {
            let (answered, held) = match limited {
                Ok(Ok(AdmittedCall { answer, held })) => {
                    let answered = match AssertUnwindSafe(answer).catch_unwind().await {
                        Ok(Ok(Ok(response))) => Ok(response),
                        Ok(Ok(Err(never))) => match never {},
                        Ok(Err(_)) => Err(BrokerError::DeadlineExceeded),
                        Err(_) => Err(BrokerError::Bug),
                    };
                    (answered, Some(held))
                }
                Ok(Err(error)) => (Err(error), None),
                Err(_) => (Err(BrokerError::Bug), None),
            };
            let (record, request_id) = (scope.record(), scope.request_id());
            if let Err(BrokerError::Bug) = &answered {
                tracing::error!(%request_id, "a call panicked: please report this bug");
            }
            let response = reply(&record, method, request_id, answered);
            let committed = if let Some(end) = record.stream() {
                // Boxed, since most calls are no streams.
                Box::pin(streamed::begin(scope, end, response, &mut timed, Box::new(held))).await
            } else {
                let committed = scope.commit().await;
                drop(scope);
                committed.map(|()| response)
            };
            // Key material in a response that may not leave is erased with it.
            let response = committed.unwrap_or_else(|error| {
                let mut response = wire::status(&error, request_id).into_http();
                add_request_ids(response.headers_mut(), request_id, record.kms_request_id().as_deref());
                response
            });
            if let Some(timed) = timed {
                timed.end(&response);
            }
            response
        })
    }

    /// Operators' calls. They have no audit scope, since they are no activity, and neither drain nor call limits apply to them, since
    /// operators need them most when those refuse everything else.
    async fn administered(
        self: Arc<Self>,
        peer: Arc<Peer>,
        mut request: Request<Incoming>,
    ) -> Response<Body> {
        let request_id = Uuid::new_v4();
        request.extensions_mut().insert(AdminCall { request_id, peer });
        let answer = async {
            let timeout = self.timeout(request.headers())?;
            if timeout < self.limits.deadline_floor {
                return Err(BrokerError::DeadlineExceeded);
            }
            let answer = self.admin.clone().call(request);
            match tokio::time::timeout(timeout, answer).await {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(never)) => match never {},
                Err(_) => Err(BrokerError::DeadlineExceeded),
            }
        };
        let answered = AssertUnwindSafe(answer).catch_unwind().await;
        let refuse = |error: &BrokerError| wire::status(error, request_id).into_http();
        let mut response = match answered {
            // tonic refused the request before the service saw it: the service's own errors have details.
            Ok(Ok(response)) if is_bare_refusal(&response) => {
                refuse(&unread(&response, LARGEST_REQUEST_BYTES))
            }
            Ok(Ok(response)) => response,
            Ok(Err(error)) => refuse(&error),
            Err(_) => refuse(&BrokerError::Bug),
        };
        add_request_ids(response.headers_mut(), request_id, None);
        response
    }

    /// The time limit of a call.
    fn timeout(&self, headers: &HeaderMap) -> Result<Duration, BrokerError> {
        Ok(deadline_in(headers)?.unwrap_or(self.limits.default_deadline).min(MAX_DEADLINE))
    }

    /// The time limit of a call of `method`: longer for streams.
    fn timeout_of(&self, method: Method, headers: &HeaderMap) -> Result<Duration, BrokerError> {
        if method.is_stream() {
            return Ok(deadline_in(headers)?.unwrap_or(MAX_STREAM_DEADLINE).min(MAX_STREAM_DEADLINE));
        }
        self.timeout(headers)
    }

    /// Answers once the trail is open: earlier calls wait for that within their own deadline.
    fn once_open(
        &self,
        answer: BoxFuture<Response<Body>, Infallible>,
        record: RecordBuilder,
        request_id: Uuid,
    ) -> BoxFuture<Response<Body>, Infallible> {
        let (mut is_open, drain) = (self.is_open.clone(), self.drain.clone());
        let opened = async move {
            while !*is_open.borrow_and_update() {
                if is_open.changed().await.is_err() {
                    // The start has failed, and the process is ending.
                    std::future::pending::<()>().await;
                }
            }
        };
        Box::pin(async move {
            tokio::select! {
                () = opened => answer.await,
                () = drain.cancelled() => {
                    record.refused(&BrokerError::Draining);
                    Ok(wire::status(&BrokerError::Draining, request_id).into_http())
                }
            }
        })
    }

    /// The limits, namely deadline, drain, and those on the principal and on all calls; then the service.
    fn limited(
        &self,
        method: Method,
        scope: &mut AuditScope,
        caller: &Caller,
        mut request: Request<Incoming>,
    ) -> Result<AdmittedCall, BrokerError> {
        let timeout = self.timeout_of(method, request.headers())?;
        let until = self.audit.clock.instant() + timeout;
        scope.set_deadline(until);
        if timeout < self.limits.deadline_floor {
            return Err(BrokerError::DeadlineExceeded);
        }
        if self.drain.is_cancelled() {
            return Err(BrokerError::Draining);
        }
        let slot = caller.share.call()?;
        drop_unread(request.headers_mut());
        if method.most_request_bytes() > LARGEST_REQUEST_BYTES || method.is_stream() {
            // Before the request is read: a caller that cannot be permitted anything must not send so much.
            let (record, principal) = (scope.record(), &caller.peer.principal);
            self.service.refuse_unpermitted(&record, principal, method.action())?;
        }
        let request = request.map(|body| RequestBody::new(body, method, Arc::clone(&caller.share)));
        let request_bytes = request.body().bytes();
        let (record, request_id, peer) = (scope.record(), scope.request_id(), Arc::clone(&caller.peer));
        let deadline = until.checked_sub(commit_time(timeout)).unwrap_or(until);
        let call = WorkloadCall { record, span: scope.span().clone(), request_id, peer, deadline };
        let answer = KeyBrokerServer::new(self.service.handler(call))
            .max_decoding_message_size(method.most_request_bytes())
            .call(request);
        let answer =
            if *self.is_open.borrow() { answer } else { self.once_open(answer, scope.record(), request_id) };
        let held = HeldByCall { _slot: slot, _request_bytes: request_bytes, _counted: self.limits.count() };
        Ok(AdmittedCall {
            answer: tokio::time::timeout(timeout.saturating_sub(commit_time(timeout)), answer),
            held,
        })
    }
}

/// A call that the limits have admitted.
struct AdmittedCall {
    answer: Timeout<BoxFuture<Response<Body>, Infallible>>,
    held: HeldByCall,
}

/// What a call holds until its record is committed; for a stream, its last record.
struct HeldByCall {
    _slot: Taken,
    _request_bytes: RequestBytes,
    _counted: TaskTrackerToken,
}

/// The reply to a call, which may leave once its record is committed.
fn reply(
    record: &RecordBuilder,
    method: Method,
    request_id: Uuid,
    answered: Result<Response<Body>, BrokerError>,
) -> Response<Body> {
    let refuse = |error: &BrokerError| {
        record.refused(error);
        wire::status(error, request_id).into_http()
    };
    let mut response = match answered {
        Ok(response) if record.ended() => response,
        // tonic refused the request before the service saw it.
        Ok(response) => refuse(&unread(&response, method.most_request_bytes())),
        Err(error) => refuse(&error),
    };
    add_request_ids(response.headers_mut(), request_id, record.kms_request_id().as_deref());
    response
}

/// An error without details did not come from the service. tonic puts the status of what fails at once into the headers.
fn is_bare_refusal(response: &Response<Body>) -> bool {
    Status::from_header_map(response.headers())
        .is_some_and(|status| status.code() != Code::Ok && status.details().is_empty())
}

/// The reason why tonic refused a request that the service never saw.
fn unread(response: &Response<Body>, most_bytes: usize) -> BrokerError {
    match Status::from_header_map(response.headers()).map(|status| status.code()) {
        Some(Code::OutOfRange) => BrokerError::TooLarge(most_bytes),
        Some(Code::ResourceExhausted) => BrokerError::TooManyOwnBytes,
        Some(Code::Cancelled | Code::Unknown) => BrokerError::Cancelled,
        Some(Code::Unimplemented) => BrokerError::Compressed,
        _ => BrokerError::Rejected(
            "the request cannot be read: send one protobuf message, as the contract in proto/keybroker has it".into(),
        ),
    }
}

/// The length of a request's metadata as HTTP/2 counts it (RFC 9113, 6.5.2).
fn metadata_bytes(request: &Request<Incoming>) -> usize {
    let fields =
        request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES);
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len() + FIELD_BYTES);
    let authority = request.uri().authority().map_or(0, |authority| authority.as_str().len() + FIELD_BYTES);
    fields.sum::<usize>() + path + authority
}

fn add_request_ids(headers: &mut HeaderMap, request_id: Uuid, kms_request_id: Option<&str>) {
    // KMS's requestIDs are UUIDs; one that is no valid header value is left out here but stays in the record.
    if let Ok(mut value) =
        HeaderValue::from_str(request_id.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
    {
        // Not secret, but unique to this reply: "sensitive" keeps it out of both ends' HPACK tables (RFC 7541, 6.2.3), where it would
        // displace fields that every reply has.
        value.set_sensitive(true);
        headers.insert(REQUEST_ID, value);
    }
    if let Some(Ok(value)) = kms_request_id.map(HeaderValue::from_str) {
        headers.insert(KMS_REQUEST_ID, value);
    }
}

/// `grpc-timeout`: at most eight digits and a unit
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>, "Timeout").
fn deadline_in(headers: &HeaderMap) -> Result<Option<Duration>, BrokerError> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    value.to_str().ok().and_then(parse_timeout).map(Some).ok_or_else(|| {
        BrokerError::Rejected("grpc-timeout is not 1 to 8 digits and one of H, M, S, m, u, n".into())
    })
}

/// The part of a call's time that is reserved for committing its record.
fn commit_time(timeout: Duration) -> Duration {
    (timeout / 10).min(MOST_COMMIT_TIME)
}

/// Of many headers, keeps only those that are still needed while the request comes in.
fn drop_unread(headers: &mut HeaderMap) {
    if headers.len() <= FEW_HEADERS {
        return;
    }
    let read = ["content-type", "te", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding"];
    let kept = read.into_iter().filter_map(|name| {
        let value = headers.get(name)?.clone();
        Some((HeaderName::from_static(name), value))
    });
    *headers = kept.collect();
}

fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(n * 3_600)),
        "M" => Some(Duration::from_secs(n * 60)),
        "S" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_millis(n)),
        "u" => Some(Duration::from_micros(n)),
        "n" => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

fn unimplemented() -> Response<Body> {
    Status::unimplemented(
        "no such method on this socket: see the contract in proto/keybroker, or ask server reflection",
    )
    .into_http()
}

/// gRPC clients send about ten, and a few of their own.
const FEW_HEADERS: usize = 24;
const REQUEST_ID: HeaderName = HeaderName::from_static(proto::HEADER_REQUEST_ID);
const KMS_REQUEST_ID: HeaderName = HeaderName::from_static(proto::HEADER_KMS_REQUEST_ID);
/// What HTTP/2 counts for each field besides its name and value.
const FIELD_BYTES: usize = 32;
/// A disk that is not busy needs less.
const MOST_COMMIT_TIME: Duration = Duration::from_millis(20);
/// Nothing the broker does takes longer; a longer timeout means "no deadline".
const MAX_DEADLINE: Duration = Duration::from_mins(5);
/// Enough for a gigabyte over a slow line.
const MAX_STREAM_DEADLINE: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    //! `grpc-timeout` is parsed as gRPC defines it, and nothing else is accepted.

    use super::*;

    #[test]
    fn timeouts() {
        assert_eq!(parse_timeout("1S"), Some(Duration::from_secs(1)));
        assert_eq!(parse_timeout("99999999H"), Some(Duration::from_hours(99_999_999)));
        assert_eq!(parse_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse_timeout("0n"), Some(Duration::ZERO));
        for bad in ["", "S", "1", "1s", "-1S", "+1S", "123456789S", "1.5S", "1SS", "１S", "é"] {
            assert_eq!(parse_timeout(bad), None, "{bad:?}");
        }
    }
}
