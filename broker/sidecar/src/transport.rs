//! Listeners and connections: from a socket to the layers, and the drain when the broker stops.

mod blocks;
pub(crate) mod connections;
mod greeting;
pub(crate) mod handshakes;
pub(crate) mod layers;
pub(crate) mod opening;
mod paced;
mod progress;
pub(crate) mod reflection;
mod reply;
mod request;
mod served;
pub(crate) mod standard;
mod streamed;
pub(crate) mod tls;
pub(crate) mod unix;
pub(crate) mod vsock;

use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use key_broker_core::{Principal, Transport};
use rustix::io::Errno;
use rustix::net::sockopt;
use std::os::fd::AsFd;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::identity::Identities;
use crate::identity::Peer;
use crate::limits::Limits;
use crate::places::Places;
use connections::{Connections, Listener};
use handshakes::Handshakes;
use layers::{Caller, Layers};
use served::Served;
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

/// The connections of one broker.
pub(crate) struct Server {
    layers: Arc<Layers>,
    identities: Arc<Identities>,
    /// The connection limit of each socket.
    places: [Arc<Places<Principal>>; Listener::ALL.len()],
    /// Limits peers of the TLS port, by address, until they have proved who they are.
    handshaking: Arc<Places<IpAddr>>,
    handshakes: Arc<Handshakes>,
    open: Arc<Connections>,
    tasks: TaskTracker,
    /// Cancelling `leave` ends connections once they are idle; cancelling `cut` ends them all.
    leave: CancellationToken,
    cut: CancellationToken,
}

impl Server {
    /// A server with the connection limits of `limits`. `open` counts connections, `handshakes` failed handshakes.
    #[must_use]
    pub(crate) fn new(
        layers: Layers,
        identities: Identities,
        limits: &Limits,
        open: Arc<Connections>,
        handshakes: Arc<Handshakes>,
    ) -> Self {
        Self {
            layers: Arc::new(layers),
            identities: Arc::new(identities),
            places: Listener::ALL.map(|listener| match listener {
                Listener::Workloads(_) => Places::at_most(limits.connections, limits.share.connections),
                Listener::Admin => Places::new(ADMIN_CONNECTIONS),
            }),
            handshaking: Places::new(HANDSHAKES),
            handshakes,
            open,
            tasks: TaskTracker::new(),
            leave: CancellationToken::new(),
            cut: CancellationToken::new(),
        }
    }

    /// Serves until `drain` is cancelled, then waits for calls in flight for at most `grace`.
    pub(crate) async fn serve(self, listeners: Listeners, drain: CancellationToken, grace: Duration) {
        let Listeners { unix, tls, vsock, insecure_tcp, admin } = listeners;
        let turns = Arc::clone(self.layers.shares.turns());
        let _turns = AbortOnDropHandle::new(tokio::spawn(async move { turns.run().await }));
        tokio::select! {
            never = self.accept_unix(Listener::Workloads(Transport::Unix), unix.as_ref()) => match never {},
            never = self.accept_unix(Listener::Admin, admin.as_ref()) => match never {},
            never = self.accept_tls(tls.as_ref()) => match never {},
            never = self.accept_vsock(vsock.as_ref()) => match never {},
            never = self.accept_insecure_tcp(insecure_tcp.as_ref()) => match never {},
            () = drain.cancelled() => {}
        }
        // No new connections. Calls on open ones are refused with a retry delay until the calls in flight have ended. GOAWAY
        // comes only then: a client that receives it earlier may report its next call as cancelled.
        drop((unix, tls, vsock, insecure_tcp, admin));
        if tokio::time::timeout(grace, self.layers.limits.idle()).await.is_err() {
            tracing::warn!(
                seconds = grace.as_secs(),
                "calls are still in flight at the end of the drain: they are cut off"
            );
        }
        // What is still open now is health watchers and the last replies.
        self.leave.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(LAST_REPLIES, self.tasks.wait()).await;
        self.cut.cancel();
    }

    async fn accept_unix(&self, on: Listener, socket: Option<&UnixSocket>) -> Infallible {
        let Some(socket) = socket else { return std::future::pending().await };
        // The kernel reports when the process at the other end has ended.
        self.accept(on, None, || async {
            let (stream, _) = socket.listener.accept().await?;
            bound_buffers(&stream);
            let credentials = stream.peer_cred()?;
            let (uid, gid, pid) = (credentials.uid(), credentials.gid(), credentials.pid());
            let peer = self.identities.unix_peer(uid, gid, pid);
            Ok(ready(Ok((stream, peer))))
        })
        .await
    }

    async fn accept_tls(&self, listener: Option<&(TcpListener, Tls)>) -> Infallible {
        let Some((listener, tls)) = listener else { return std::future::pending().await };
        self.accept(Listener::Workloads(Transport::Tls), Some(KEEP_ALIVE), || async {
            let (stream, address) = listener.accept().await?;
            stream.set_nodelay(true)?;
            bound_buffers(&stream);
            let (tls, identities) = (tls.clone(), Arc::clone(&self.identities));
            let (handshakes, clock) = (Arc::clone(&self.handshakes), Arc::clone(&self.layers.audit.clock));
            let place = self.handshaking.take(&address.ip());
            // The handshake runs in its own task, so that a slow peer does not keep others from connecting.
            Ok(async move {
                let established = async {
                    let too_many = |words| io::Error::new(io::ErrorKind::ResourceBusy, words);
                    let place = place.ok_or_else(|| too_many("too many handshakes"))?;
                    let leave = place.is_to_leave();
                    let stream = tokio::select! {
                        stream = tls.accept(stream) => stream?,
                        () = leave.cancelled() => return Err(too_many("others want to connect")),
                    };
                    drop(place);
                    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                    let shown = shown.ok_or_else(|| io::Error::other("no client certificate"))?;
                    let peer = identities.tls_peer(address.ip(), shown);
                    Ok((stream, peer))
                };
                established.await.inspect_err(|error| handshakes.refuse(address.ip(), error, clock.instant()))
            })
        })
        .await
    }

    async fn accept_vsock(&self, socket: Option<&VsockSocket>) -> Infallible {
        let Some(socket) = socket else { return std::future::pending().await };
        // As on a unix socket: the hypervisor reports when the enclave has ended.
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
            bound_buffers(&stream);
            Ok(ready(Ok((stream, Peer::insecure_tcp(address.ip())))))
        })
        .await
    }

    /// Accepts connections without waiting for any of them: identifying the peer, as in a TLS handshake, happens in the connection's
    /// own task. Connections beyond the limits are asked to leave, or closed.
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
        let mut exhausted = false;
        loop {
            match next().await {
                Ok(established) => {
                    exhausted = false;
                    // Boxed as it is made: an async block holds twice what it captures and then awaits.
                    let connection = Box::pin(self.connection(established, on, keep_alive));
                    let counted = self.open.count(on);
                    self.tasks.spawn(async move {
                        connection.await;
                        drop(counted);
                    });
                }
                Err(error) if is_exhaustion(&error) => {
                    if !exhausted {
                        tracing::warn!(%error, "cannot accept connections");
                    }
                    exhausted = true;
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                // The peer has already gone away.
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
        let (layers, places, leave) =
            (Arc::clone(&self.layers), Arc::clone(&self.places[on.index()]), self.leave.clone());
        let established = Box::pin(established);
        let connection = async move {
            let (stream, peer) = match established.await {
                Ok(established) => established,
                Err(error) => {
                    tracing::debug!(%error, "a connection is refused");
                    return;
                }
            };
            let Some(place) = places.take(&peer.principal) else {
                let principal = peer.principal.as_str();
                tracing::debug!(principal, "a connection is refused: the principal has all that it may have");
                return;
            };
            let caller = Caller { share: layers.shares.of(&peer.principal), peer: Arc::new(peer) };
            Box::pin(Served { layers, caller, place, on }.serve(stream, keep_alive, leave)).await;
        };
        self.cut.clone().run_until_cancelled_owned(connection).map(drop)
    }
}

/// Bounds the kernel's buffers for a peer that does not read, or sends more than is read, since they count as the broker's memory.
/// Replies are a few KiB.
fn bound_buffers(stream: &impl AsFd) {
    let bounded = sockopt::set_socket_send_buffer_size(stream, SOCKET_BUFFER_BYTES)
        .and_then(|()| sockopt::set_socket_recv_buffer_size(stream, SOCKET_BUFFER_BYTES));
    if let Err(error) = bounded {
        tracing::debug!(%error, "a connection keeps the system's buffers");
    }
}

/// Whether the process or the machine is out of file descriptors or memory, so that accept(2) would fail again at once.
fn is_exhaustion(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    exhausted.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// A reply reaches a local peer in much less.
const LAST_REPLIES: Duration = Duration::from_secs(1);
/// For people and their scripts: root and the broker's own user, each of whom may take half.
pub(crate) const ADMIN_CONNECTIONS: usize = 32;
/// Keeps the loop from spinning while the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Peers on TCP that vanish silently are detected within a minute and a half.
const KEEP_ALIVE: Duration = Duration::from_mins(1);
/// Concurrent TLS handshakes. Beyond this, the oldest is given up.
pub(crate) const HANDSHAKES: usize = 256;
/// The kernel doubles it for its own needs (socket(7)).
const SOCKET_BUFFER_BYTES: usize = 64 << 10;
