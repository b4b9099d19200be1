//! The optional HTTP listener: `/metrics` for Prometheus, `/healthz` and `/readyz` for the kubelet. It reads no body, and hands
//! out nothing that is secret: anybody may ask.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use super::metrics::MetricsText;
use crate::places::{Place, Places};
use crate::readiness::Ready;

/// The pages that the listener serves.
pub(crate) struct Pages {
    text: MetricsText,
    ready: watch::Receiver<Ready>,
    /// Taken while metrics are read: one reading at a time, however many ask and go away.
    reading: Arc<Mutex<()>>,
}

impl Pages {
    /// Pages about one broker.
    #[must_use]
    pub(crate) fn new(text: MetricsText, ready: watch::Receiver<Ready>) -> Arc<Self> {
        Arc::new(Self { text, ready, reading: Arc::default() })
    }

    /// Answers until `stop` is cancelled.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        // When all are taken, a newcomer displaces the longest idle: a probe is answered at once, and gone.
        let places = Places::new(CONNECTIONS);
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let Some(place) = places.take(&address.ip()) else { continue };
                    let connection = Arc::clone(&self).connection(stream, place);
                    tokio::spawn(stop.clone().run_until_cancelled_owned(connection));
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection for telemetry");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Whoever sends or reads slowly is cut off, whatever it does.
    async fn connection(self: Arc<Self>, stream: TcpStream, place: Place<IpAddr>) {
        let service = service_fn(|request| {
            let (pages, work) = (Arc::clone(&self), place.work());
            async move {
                let answer = pages.answer(&request).await;
                drop(work);
                Ok::<_, Infallible>(answer)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .max_buf_size(MAX_BUFFER_BYTES)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let (leave, cut) = (place.is_to_leave(), place.is_cut());
        tokio::select! {
            _ = connection.as_mut() => return,
            () = tokio::time::sleep(LIFETIME) => {}
            () = leave.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            _ = connection => {}
            () = tokio::time::sleep(LAST_REPLY) => {}
            () = cut.cancelled() => {}
        }
    }

    async fn answer(self: &Arc<Self>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if !["/metrics", "/healthz", "/readyz"].contains(&path) {
            return plain(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz");
        }
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "ask with GET or HEAD");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match path {
            "/metrics" => self.metrics().await,
            "/readyz" => {
                let ready = *self.ready.borrow();
                let status =
                    if ready == Ready::Yes { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                plain(status, ready.words())
            }
            _ => plain(StatusCode::OK, "alive"),
        }
    }

    /// Beside the runtime, which serves calls.
    async fn metrics(&self) -> Response<Full<Bytes>> {
        let reading = Arc::clone(&self.reading).lock_owned().await;
        let text = self.text.clone();
        let rendered = tokio::task::spawn_blocking(move || {
            let rendered = text.render();
            drop(reading);
            rendered
        });
        match rendered.await.map_err(io::Error::from).and_then(|text| text.map_err(io::Error::other)) {
            Ok(text) => {
                let mut response = Response::new(Full::from(text));
                response
                    .headers_mut()
                    .insert(CONTENT_TYPE, HeaderValue::from_static(MetricsText::CONTENT_TYPE));
                response
            }
            Err(error) => {
                tracing::error!(%error, "metrics cannot be read");
                plain(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be read: the log says why")
            }
        }
    }
}

fn plain(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{line}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Far more than a kubelet, a few Prometheus servers and people need, so that an idle one has time to ask before it leaves for another.
pub(crate) const CONNECTIONS: usize = 256;
/// How long a request line and headers may take, and a connection may be idle: Prometheus and the kubelet reconnect.
const HEADERS: Duration = Duration::from_secs(1);
/// How long a connection may live: bounds who reads slowly.
const LIFETIME: Duration = Duration::from_secs(30);
/// An answer under way when that is over.
const LAST_REPLY: Duration = Duration::from_secs(5);
/// hyper's least: a scrape's headers are a few hundred bytes.
const MAX_BUFFER_BYTES: usize = 8 << 10;
/// Prometheus sends six.
const MAX_HEADERS: usize = 32;
/// Long enough not to spin while the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
