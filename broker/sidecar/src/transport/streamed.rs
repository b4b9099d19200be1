//! The answer to a stream: its first record is durable before the first part leaves, and its last record, which says how it ended,
//! before the stream ends.

use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt as _;
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame};
use tokio::time::Sleep;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Bytes};
use tonic::{Code, Status};
use uuid::Uuid;

use crate::audit::{AuditScope, RecordBuilder};
use crate::error::BrokerError;
use crate::service::wire;
use crate::telemetry::metrics::CallTimer;

/// The parts of an answer, followed by its status.
struct StreamedBody {
    body: Body,
    request_id: Uuid,
    state: State,
    deadline: Pin<Box<Sleep>>,
    timed: Option<CallTimer>,
    /// What the call holds of the limits.
    held: Option<Box<dyn Send>>,
}

enum State {
    /// More parts may come.
    Open(Box<AuditScope>),
    /// The last record is being committed.
    Ending(BoxFuture<(), BrokerError>, HeaderMap),
    Ended,
}

/// Commits the record with which the stream begins, and returns the answer, which ends with another record made from `end`. Only then
/// is `held` released and the call measured.
pub(super) async fn begin(
    scope: AuditScope,
    end: RecordBuilder,
    response: Response<Body>,
    timed: &mut Option<CallTimer>,
    held: Box<dyn Send>,
) -> Result<Response<Body>, BrokerError> {
    let request_id = scope.request_id();
    // If this fails, key material in the response is erased with it.
    let ending = scope.commit_beginning(end).await?;
    let deadline = Box::pin(tokio::time::sleep(ending.rest()));
    let (state, timed, held) = (State::Open(Box::new(ending)), timed.take(), Some(held));
    Ok(response.map(|body| Body::new(StreamedBody { body, request_id, state, deadline, timed, held })))
}

impl StreamedBody {
    /// The next part or, at the end, the status.
    fn poll_part(
        &mut self,
        record: &RecordBuilder,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Frame<Bytes>, HeaderMap>> {
        if self.deadline.poll_unpin(cx).is_ready() {
            return Poll::Ready(Err(self.refused(record, &BrokerError::DeadlineExceeded)));
        }
        let body = &mut self.body;
        let polled = panic::catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(cx)));
        let Ok(polled) = polled else {
            let request_id = self.request_id;
            tracing::error!(%request_id, "a call panicked: please report this bug");
            return Poll::Ready(Err(self.refused(record, &BrokerError::Bug)));
        };
        Poll::Ready(match ready!(polled) {
            Some(Ok(frame)) => match frame.into_trailers() {
                Ok(trailers) if record.ended() => Err(trailers),
                // tonic ended the stream because it could not read the request.
                Ok(_) => Err(self.refused(record, &unreadable())),
                Err(part) => Ok(part),
            },
            Some(Err(_)) => Err(self.refused(record, &unreadable())),
            None => Err(self.refused(record, &BrokerError::Bug)),
        })
    }

    fn refused(&self, record: &RecordBuilder, error: &BrokerError) -> HeaderMap {
        record.refused(error);
        trailers(error, self.request_id)
    }
}

impl http_body::Body for StreamedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let State::Open(ending) = &this.state {
            let record = ending.record();
            match ready!(this.poll_part(&record, cx)) {
                Ok(part) => return Poll::Ready(Some(Ok(part))),
                Err(trailers) => {
                    // Key material is erased now, not when the caller has read the rest.
                    this.body = Body::empty();
                    if let State::Open(ending) = std::mem::replace(&mut this.state, State::Ended) {
                        this.state = State::Ending(Box::pin(ending.commit_end()), trailers);
                    }
                }
            }
        }
        if let State::Ending(commit, trailers) = &mut this.state {
            let committed = ready!(commit.as_mut().poll(cx));
            let trailers = match committed {
                Ok(()) => std::mem::take(trailers),
                Err(error) => self::trailers(&error, this.request_id),
            };
            this.state = State::Ended;
            let code =
                trailers.get("grpc-status").map_or(Code::Unknown, |code| Code::from_bytes(code.as_bytes()));
            if let Some(timed) = this.timed.take() {
                timed.end_with(code);
            }
            this.held = None;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Poll::Ready(None)
    }
}

/// The caller has sent something that is no message of the contract, or has reset the stream.
fn unreadable() -> BrokerError {
    BrokerError::Rejected(
        "a part of the stream cannot be read: send protobuf messages of at most 524,288 bytes, as the contract in proto/keybroker has \
         them"
            .into(),
    )
}

fn trailers(error: &BrokerError, request_id: Uuid) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if wire::status(error, request_id).add_header(&mut trailers).is_err() {
        trailers.insert("grpc-status", (Code::Internal as i32).into());
    }
    trailers
}
