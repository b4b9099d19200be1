//! Listeners and connections: from a socket to the layers, and the drain at the end.

pub(crate) mod connections;
pub(crate) mod layers;
pub(crate) mod tls;
pub(crate) mod unix;
pub(crate) mod vsock;

use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use key_broker_authority::NormalizeAuthority;
use key_broker_core::{Peer, Transport};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::identity::Identities;
use connections::{Connections, Listener};
use layers::{Caller, Layers};
use tls::Tls;
use unix::UnixSocket;
use vsock::VsockSocket;

/// The sockets on which the broker listens.
pub(crate) struct Listeners {
    /// The unix socket.
    pub unix: Option<UnixSocket>,
    /// TCP with mutual TLS.
    pub tls: Option<(TcpListener, Tls)>,
    /// vsock, for enclaves.
    pub vsock: Option<VsockSocket>,
    /// Plaintext TCP on loopback.
    pub insecure_tcp: Option<TcpListener>,
    /// The operator's unix socket.
    pub admin: Option<UnixSocket>,
}

impl Listeners {
    /// Opens a TCP port.
    pub(crate) async fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::bind(address).await
    }
}

/// The connections of one broker.
pub(crate) struct Server {
    layers: Arc<Layers>,
    identities: Arc<Identities>,
    connections: Arc<Semaphore>,
    /// The operator's: workloads that use up theirs do not keep the operator out.
    admin_connections: Arc<Semaphore>,
    open: Arc<Connections>,
    graceful: GracefulShutdown,
    /// Cancelled when connections must end, whatever they do.
    cut: CancellationToken,
}

impl Server {
    /// A server of at most `max_connections` connections at a time; more wait in the kernel's backlog. `open` counts them.
    #[must_use]
    pub(crate) fn new(
        layers: Layers,
        identities: Identities,
        max_connections: usize,
        open: Arc<Connections>,
    ) -> Self {
        Self {
            layers: Arc::new(layers),
            identities: Arc::new(identities),
            connections: Arc::new(Semaphore::new(max_connections)),
            admin_connections: Arc::new(Semaphore::new(ADMIN_CONNECTIONS)),
            open,
            graceful: GracefulShutdown::new(),
            cut: CancellationToken::new(),
        }
    }

    /// Serves until `drain` is cancelled, then lets calls in flight end, for at most `grace`.
    pub(crate) async fn serve(self, listeners: Listeners, drain: CancellationToken, grace: Duration) {
        let Listeners { unix, tls, vsock, insecure_tcp, admin } = listeners;
        tokio::select! {
            never = self.accept_unix(Listener::Workloads(Transport::Unix), unix.as_ref()) => match never {},
            never = self.accept_unix(Listener::Admin, admin.as_ref()) => match never {},
            never = self.accept_tls(tls.as_ref()) => match never {},
            never = self.accept_vsock(vsock.as_ref()) => match never {},
            never = self.accept_insecure_tcp(insecure_tcp.as_ref()) => match never {},
            () = drain.cancelled() => {}
        }
        // No new connections. Calls on open ones are refused with a retry delay until the calls in flight
        // have ended. Only then GOAWAY: a client that it reaches earlier may report its next call as
        // cancelled.
        drop((unix, tls, vsock, insecure_tcp, admin));
        if tokio::time::timeout(grace, self.layers.limits.idle()).await.is_err() {
            tracing::warn!(
                seconds = grace.as_secs(),
                "calls are still in flight at the end of the drain: they are cut off"
            );
        }
        // What is still open now is health watchers and the last replies on their way.
        let _ = tokio::time::timeout(LAST_REPLIES, self.graceful.shutdown()).await;
        self.cut.cancel();
    }

    async fn accept_unix(&self, on: Listener, socket: Option<&UnixSocket>) -> Infallible {
        let Some(socket) = socket else { return std::future::pending().await };
        // The kernel tells when the process at the other end is gone.
        self.accept(on, None, || async {
            let (stream, _) = socket.listener.accept().await?;
            let credentials = stream.peer_cred()?;
            let (uid, gid, pid) = (credentials.uid(), credentials.gid(), credentials.pid());
            let peer = self.identities.unix_peer(uid, gid, pid);
            Ok(ready(Ok((NormalizeAuthority::new(stream), peer))))
        })
        .await
    }

    async fn accept_tls(&self, listener: Option<&(TcpListener, Tls)>) -> Infallible {
        let Some((listener, tls)) = listener else { return std::future::pending().await };
        self.accept(Listener::Workloads(Transport::Tls), Some(KEEP_ALIVE), || async {
            let (stream, address) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (tls, identities) = (tls.clone(), Arc::clone(&self.identities));
            // The handshake runs elsewhere: a slow peer must not keep others from connecting.
            Ok(async move {
                let stream = tls.accept(stream).await?;
                let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                let shown = shown.ok_or_else(|| io::Error::other("no client certificate"))?;
                let peer = identities.tls_peer(address.ip(), shown);
                Ok((stream, peer))
            })
        })
        .await
    }

    async fn accept_vsock(&self, socket: Option<&VsockSocket>) -> Infallible {
        let Some(socket) = socket else { return std::future::pending().await };
        // As on a unix socket: the hypervisor tells when the enclave is gone.
        self.accept(Listener::Workloads(Transport::Vsock), None, || async {
            let (stream, cid) = socket.accept().await?;
            Ok(ready(Ok((stream, Peer::vsock(cid)))))
        })
        .await
    }

    async fn accept_insecure_tcp(&self, listener: Option<&TcpListener>) -> Infallible {
        let Some(listener) = listener else { return std::future::pending().await };
        self.accept(Listener::Workloads(Transport::InsecureTcp), Some(KEEP_ALIVE), || async {
            let (stream, address) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(ready(Ok((stream, Peer::insecure_tcp(address.ip())))))
        })
        .await
    }

    /// Accepts connections. Finding out who the peer is, such as a TLS handshake, does not hold up the next
    /// one.
    async fn accept<S, E, A>(
        &self,
        on: Listener,
        keep_alive: Option<Duration>,
        next: impl Fn() -> A,
    ) -> Infallible
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        E: Future<Output = io::Result<(S, Peer)>> + Send + 'static,
        A: Future<Output = io::Result<E>>,
    {
        let connections = match on {
            Listener::Workloads(_) => &self.connections,
            Listener::Admin => &self.admin_connections,
        };
        loop {
            let Ok(slot) = Arc::clone(connections).acquire_owned().await else {
                return std::future::pending().await;
            };
            match next().await {
                Ok(established) => {
                    let connection = self.connection(established, on, keep_alive);
                    let counted = self.open.count(on);
                    tokio::spawn(async move {
                        connection.await;
                        drop((slot, counted));
                    });
                }
                Err(error) if is_exhaustion(&error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                // The peer has left already.
                Err(error) => tracing::debug!(%error, "cannot accept a connection"),
            }
        }
    }

    fn connection<S, E>(
        &self,
        established: E,
        on: Listener,
        keep_alive: Option<Duration>,
    ) -> impl Future<Output = ()> + use<S, E>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        E: Future<Output = io::Result<(S, Peer)>> + Send + 'static,
    {
        let (layers, graceful, cut) = (Arc::clone(&self.layers), self.graceful.watcher(), self.cut.clone());
        cut.run_until_cancelled_owned(async move {
            let (stream, peer) = match established.await {
                Ok(established) => established,
                Err(error) => {
                    tracing::debug!(%error, "a connection is refused");
                    return;
                }
            };
            let share = layers.shares.of(&peer.principal);
            let own = share.connect();
            if on != Listener::Admin && own.is_none() {
                let principal = peer.principal.as_str();
                tracing::debug!(principal, "a connection is refused: the principal has all that it may have");
                return;
            }
            let caller = Caller { peer: Arc::new(peer), share };
            let service =
                service_fn(move |request| layers.answer(on, &caller, request).map(Ok::<_, Infallible>));
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_STREAMS)
                .max_header_list_size(MAX_HEADER_BYTES)
                // gRPC knows no Date (RFC 9110, 6.6.1): no client reads it.
                .auto_date_header(false)
                .keep_alive_interval(keep_alive)
                .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = graceful.watch(connection).await {
                tracing::debug!(%error, "a connection ended");
            }
            drop(own);
        })
        .map(drop)
    }
}

/// The process or the machine has no more file descriptors or memory: accept(2) would fail again at once.
fn is_exhaustion(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    exhausted.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// A reply reaches a local peer in far less.
const LAST_REPLIES: Duration = Duration::from_secs(1);
/// People and their scripts.
const ADMIN_CONNECTIONS: usize = 16;
/// Long enough not to spin while the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Calls at a time on one connection; gRPC clients queue above it. HTTP/2 recommends at least 100 (RFC 9113, 6.5.2).
const MAX_STREAMS: u32 = 256;
/// gRPC's own default bound for metadata is 8 KiB; twice that leaves room for tracing headers.
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// Peers on TCP that vanished without a word are found within a minute and a half.
const KEEP_ALIVE: Duration = Duration::from_mins(1);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
