//! Collectors as an operator gets them on a bad day: OTLP endpoints that hang, refuse, or vanish.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use http::{Request, Response};
use http_body::Body as _;
use rustix::net::{AddressFamily, SocketAddrAny, SocketType, bind, getsockname, socket};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;
use tower::service_fn;

fn endpoint_of(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// Accepts every connection, and never reads nor answers.
pub struct Hanging {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    ended: Arc<AtomicBool>,
}

impl Hanging {
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (connections, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (all, until) = (Arc::clone(&connections), Arc::clone(&ended));
        thread::spawn(move || {
            for connection in listener.incoming() {
                if until.load(Ordering::Relaxed) {
                    break;
                }
                all.lock().expect("nobody panics with it").push(connection.expect("a connection"));
            }
        });
        Self { address, connections, ended }
    }

    pub fn endpoint(&self) -> String {
        endpoint_of(self.address)
    }

    /// How many have come.
    pub fn connections(&self) -> usize {
        self.connections.lock().expect("nobody panics with it").len()
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Only to wake the thread.
        drop(TcpStream::connect(self.address));
    }
}

/// A port at which nobody listens, and that nobody else gets while this lives.
pub struct Refusing {
    address: SocketAddr,
    _socket: rustix::fd::OwnedFd,
}

impl Refusing {
    pub fn start() -> Self {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
        let address: SocketAddrAny = getsockname(&socket).expect("an address");
        Self { address: address.try_into().expect("an internet address"), _socket: socket }
    }

    pub fn endpoint(&self) -> String {
        endpoint_of(self.address)
    }
}

/// Takes one export, over OTLP/gRPC or OTLP/HTTP, answers it, closes its connections and stops listening.
pub struct Vanishing {
    address: SocketAddr,
    exports: Arc<AtomicUsize>,
    vanished: Arc<AtomicBool>,
}

impl Vanishing {
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let (exports, vanished) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, done) = (Arc::clone(&exports), Arc::clone(&vanished));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(take_one_export(listener, count));
            done.store(true, Ordering::Release);
        });
        Self { address, exports, vanished }
    }

    pub fn endpoint(&self) -> String {
        endpoint_of(self.address)
    }

    /// How many it has answered: more than one only if they were under way together.
    pub fn exports(&self) -> usize {
        self.exports.load(Ordering::Relaxed)
    }

    /// Whether all connections are closed and nothing listens any more.
    pub fn has_vanished(&self) -> bool {
        self.vanished.load(Ordering::Acquire)
    }
}

async fn take_one_export(listener: TcpListener, exports: Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
    let incoming = futures_util::stream::unfold(listener, async |listener| {
        let accepted = listener.accept().await.map(|(connection, _)| connection);
        Some((accepted, listener))
    });
    let end = CancellationToken::new();
    let ended = end.clone();
    let service = service_fn(move |request: Request<Body>| {
        let (exports, end) = (Arc::clone(&exports), end.clone());
        async move {
            let response = if request.uri().path().ends_with("/Export") {
                let nothing = service_fn(async |_: tonic::Request<()>| Ok(tonic::Response::new(())));
                Grpc::new(ProstCodec::<(), ()>::default()).unary(nothing, request).await
            } else {
                let mut body = pin!(request.into_body());
                while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
                    frame.expect("a whole request");
                }
                Response::new(Body::empty())
            };
            exports.fetch_add(1, Ordering::Relaxed);
            end.cancel();
            Ok::<_, Infallible>(response)
        }
    });
    let server = tonic::transport::Server::builder().accept_http1(true);
    server.serve_with_incoming_shutdown(service, incoming, ended.cancelled_owned()).await.expect("serves");
}
