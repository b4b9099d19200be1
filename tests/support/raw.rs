//! gRPC as bytes: requests that no client would send.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use http_body::{Body, Frame};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use tonic::transport::Channel;
use tower::{Service, ServiceExt};

/// Sends `body` as it is and returns the status of the answer.
pub async fn send(mut channel: Channel, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Status {
    let mut request = Request::builder()
        .method("POST")
        .uri(
            Uri::builder().scheme("http").authority("localhost").path_and_query(path).build().expect("a URI"),
        )
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(tonic::body::Body::new(Raw(Some(body.into())))).expect("a request");
    let response = channel.ready().await.expect("connected").call(request).await.expect("an answer");
    status_of(response).await
}

async fn status_of(response: Response<tonic::body::Body>) -> Status {
    let (parts, mut body) = response.into_parts();
    if let Some(status) = Status::from_header_map(&parts.headers) {
        return status;
    }
    let mut trailers = HeaderMap::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(found) = frame.expect("a whole answer").into_trailers() {
            trailers = found;
        }
    }
    Status::from_header_map(&trailers).expect("every answer has a status")
}

/// Sends `body` as far as it is taken, and never ends it, until what this returns is dropped.
pub fn hold(mut channel: Channel, path: &str, body: Vec<u8>) -> DropGuard {
    let request = Request::builder()
        .method("POST")
        .uri(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "60S")
        .body(tonic::body::Body::new(Held(body.into())))
        .expect("a request");
    let held = CancellationToken::new();
    tokio::spawn(held.clone().run_until_cancelled_owned(async move {
        if channel.ready().await.is_ok() {
            // An answer, if there is one, is kept, too.
            let _answer = channel.call(request).await;
            std::future::pending::<()>().await;
        }
    }));
    held.drop_guard()
}

/// A body that does not end.
struct Held(Bytes);

impl Body for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0.is_empty() {
            return Poll::Pending;
        }
        let piece = self.0.len().min(16_000);
        Poll::Ready(Some(Ok(Frame::data(self.0.split_to(piece)))))
    }
}

/// A body of one frame.
struct Raw(Option<Bytes>);

impl Body for Raw {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// A gRPC message: flag, length, bytes.
pub fn framed(flag: u8, bytes: &[u8]) -> Vec<u8> {
    let mut framed = vec![flag];
    framed.extend(u32::try_from(bytes.len()).expect("short").to_be_bytes());
    framed.extend(bytes);
    framed
}
