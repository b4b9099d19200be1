//! Health and reflection. They hand out no key material and leave no record. A pool of their own, and a bound on their requests, let them
//! be answered while all else is used up.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use crate::limits::{Share, Taken};

/// A standard gRPC service (health, reflection).
pub(crate) type StandardService = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Longer requests are refused: they contain no more than the name of a service or a symbol.
pub(crate) const MAX_STANDARD_BYTES: usize = 4 << 10;

/// How long a reply may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lasting {
    /// As long as the client watches.
    Watched,
    /// This long, whatever is asked meanwhile.
    AtMost(Duration),
}

/// Calls `service`.
pub(super) async fn standard(
    service: StandardService,
    share: &Share,
    timeout: Duration,
    lasting: Lasting,
    request: Request<Incoming>,
) -> Response<Body> {
    let Some(taken) = share.standard_call() else {
        return Status::resource_exhausted(
            "this principal has as many health and reflection calls open as its limit allows: end some",
        )
        .into_http();
    };
    match tokio::time::timeout(timeout.min(ANSWERED_WITHIN), service.oneshot(request.map(Body::new))).await {
        Ok(Ok(response)) => response.map(|body| Body::new(StandardReply::new(body, lasting, taken))),
        Ok(Err(never)) => match never {},
        Err(_) => Status::deadline_exceeded("the request has not come within its time").into_http(),
    }
}

/// The body of a reply, which occupies the pool until it ends.
struct StandardReply {
    body: Body,
    until: Option<Pin<Box<Sleep>>>,
    _taken: Taken,
}

impl StandardReply {
    fn new(body: Body, lasting: Lasting, taken: Taken) -> Self {
        let until = match lasting {
            Lasting::AtMost(time) if !http_body::Body::is_end_stream(&body) => {
                Some(Box::pin(tokio::time::sleep(time)))
            }
            _ => None,
        };
        Self { body, until, _taken: taken }
    }
}

impl http_body::Body for StandardReply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let Some(until) = &mut self.until else { return Poll::Pending };
        ready!(until.as_mut().poll(cx));
        Poll::Ready(Some(Err(Status::deadline_exceeded("it has gone on for long enough: ask again"))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How long a request may take to arrive; the answer is in memory.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// Reading all descriptors takes less.
pub(super) const REFLECTION: Lasting = Lasting::AtMost(Duration::from_mins(1));
