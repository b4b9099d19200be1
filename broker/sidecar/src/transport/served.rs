//! One connection: HTTP/2 within its limits, until it ends, is asked to leave, or is cut off.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use h2::Reason;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use key_broker_authority::NormalizeAuthority;
use key_broker_core::{Principal, Transport};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::blocks::HeaderBlocks;
use super::connections::Listener;
use super::greeting::Greeted;
use super::layers::{Caller, Layers};
use super::paced::Paced;
use super::progress::{Look, Progress};
use super::reply::Reply;
use crate::limits::MAX_HEADER_BYTES;
use crate::places::Place;

/// An admitted connection.
pub(super) struct Served {
    /// The layers that answer its calls.
    pub layers: Arc<Layers>,
    /// The peer.
    pub caller: Caller,
    /// Its place in the socket's connection limit.
    pub place: Place<Principal>,
    /// The socket it came in on.
    pub on: Listener,
}

impl Served {
    /// Serves the connection. Once `leave` is cancelled, it ends as soon as nothing is under way.
    pub(super) async fn serve<S>(self, stream: S, keep_alive: Option<Duration>, leave: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let too_long = CancellationToken::new();
        let blocks =
            HeaderBlocks::new(Greeted::new(stream), Arc::clone(&self.caller.share), too_long.clone());
        match self.on {
            Listener::Workloads(Transport::Unix) | Listener::Admin => {
                self.serve_http(NormalizeAuthority::new(blocks), keep_alive, &leave, &too_long).await;
            }
            Listener::Workloads(_) => self.serve_http(blocks, keep_alive, &leave, &too_long).await,
        }
        if too_long.is_cancelled() {
            tracing::warn!(
                principal = self.caller.peer.principal.as_str(),
                "connection closed: one call's metadata exceeds the limit, or the principal's share of bytes"
            );
        }
    }

    async fn serve_http<S>(
        &self,
        stream: S,
        keep_alive: Option<Duration>,
        leave: &CancellationToken,
        too_long: &CancellationToken,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let progress = Progress::new(Arc::clone(&self.layers.audit.clock));
        let paced = Paced::new(stream, Arc::clone(&progress), self.caller.share.turn());
        let stream = TokioIo::new(paced);
        let service = service_fn(|request| self.answer(&progress, request));
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADER_BYTES)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            // gRPC has no use for Date (RFC 9110, 6.6.1).
            .auto_date_header(false)
            .keep_alive_interval(keep_alive)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .serve_connection(stream, service);
        let mut connection = Box::pin(connection);
        let mut end = pin!(self.end(&progress, leave));
        tokio::select! {
            ended = &mut connection => return told(ended),
            () = &mut end => {}
            () = too_long.cancelled() => {}
        }
        // GOAWAY: calls under way may end, and so may those sent before the client reads it.
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            ended = connection => told(ended),
            () = self.cut(&progress) => tracing::debug!("a connection is cut off"),
        }
    }

    /// Answers one request. A stream beyond the limits is refused without a record, like one beyond HTTP/2's own limit.
    fn answer(
        &self,
        progress: &Arc<Progress>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<http::Response<Reply>, h2::Error>> + use<> {
        let work = Layers::is_call(&request).then(|| self.place.work());
        let stream = progress.open(|| self.caller.share.stream(), work);
        let answer = stream.map(|stream| (stream, self.layers.answer(self.on, &self.caller, request)));
        async move {
            let (stream, answer) = answer.ok_or(Reason::REFUSED_STREAM)?;
            Ok(answer.await.map(|body| Reply::new(body, stream)))
        }
    }

    /// Ends when the connection has to leave.
    async fn end(&self, progress: &Progress, leave: &CancellationToken) {
        let for_others = self.place.is_to_leave();
        loop {
            let again = match progress.look() {
                Look::Later(again) => again,
                Look::Leave(why) | Look::Cut(why) => {
                    tracing::debug!(
                        principal = self.caller.peer.principal.as_str(),
                        "a connection ends: {why}"
                    );
                    return;
                }
            };
            tokio::select! {
                () = tokio::time::sleep(again) => {}
                () = for_others.cancelled() => return,
                () = leave.cancelled() => return,
            }
        }
    }

    /// Ends when a connection that was asked to leave is to be cut off.
    async fn cut(&self, progress: &Progress) {
        let cut = self.place.is_cut();
        for _ in 0..LAST_SECONDS {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                () = cut.cancelled() => return,
            }
            if progress.is_quiet() || matches!(progress.look(), Look::Cut(_)) {
                return;
            }
        }
    }
}

fn told(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Concurrent calls on one connection: the least that HTTP/2 recommends (RFC 9113, 6.5.2). gRPC clients queue more.
const MAX_STREAMS: u32 = 100;
/// How much may come before it is read, both on one stream and on the whole connection.
const WINDOW_BYTES: u32 = 64 << 10;
/// The send buffer of a stream: larger than any reply except those of reflection and the operator's service.
const SEND_BUFFER_BYTES: usize = 16 << 10;
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How many seconds a connection has to end after it was asked to leave, while anything is under way on it.
const LAST_SECONDS: usize = 10;
