//! Opens a broker's sockets at its start, or only tries to. Errors name the key of the configuration and what to do.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::tls::Tls;
use super::unix::{UnixAddress, UnixSocket};
use super::vsock::{VsockAddress, VsockSocket};
use super::{Listeners, is_exhaustion};

/// Where to listen: on at least one socket for workloads.
#[derive(Clone)]
pub struct Listen {
    /// The unix socket.
    pub unix: Option<UnixAddress>,
    /// TCP with mutual TLS.
    pub tls: Option<(SocketAddr, Tls)>,
    /// vsock, for enclaves.
    pub vsock: Option<VsockAddress>,
    /// Plaintext TCP on loopback.
    pub insecure_tcp: Option<SocketAddr>,
    /// The operator's unix socket; it serves nothing to workloads.
    pub admin: Option<UnixAddress>,
}

/// Why a socket cannot be opened.
#[derive(Debug)]
pub struct ListenError {
    key: &'static str,
    words: String,
    is_mistake: bool,
}

/// The result of trying a socket: its key in the configuration, its address, and what is in the way.
pub(crate) struct Attempt {
    pub(crate) key: &'static str,
    pub(crate) place: String,
    pub(crate) result: Result<(), ListenError>,
}

impl Listeners {
    /// Opens all sockets, or none.
    pub(crate) async fn open(listen: &Listen) -> Result<Self, ListenError> {
        let unix = listen.unix.as_ref().map(|address| unix_at(UNIX, address)).transpose()?;
        let admin = listen.admin.as_ref().map(|address| unix_at(ADMIN, address)).transpose()?;
        let tls = match &listen.tls {
            Some((address, tls)) => Some((tcp(TLS, *address).await?, tls.clone())),
            None => None,
        };
        let vsock = listen.vsock.as_ref().map(vsock_at).transpose()?;
        let insecure_tcp = match listen.insecure_tcp {
            Some(address) => Some(tcp(INSECURE_TCP, address).await?),
            None => None,
        };
        Ok(Self { unix, tls, vsock, insecure_tcp, admin })
    }
}

/// Opens the port of `telemetry.http`.
pub(crate) async fn http(address: SocketAddr) -> Result<TcpListener, ListenError> {
    tcp(HTTP, address).await
}

/// Tries to open every socket and closes it again.
pub(crate) async fn try_all(listen: &Listen, http: Option<SocketAddr>) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    for (key, address) in [(UNIX, &listen.unix), (ADMIN, &listen.admin)] {
        if let Some(address) = address {
            let result = UnixSocket::try_at(address).map_err(|error| ListenError::unix(key, address, &error));
            attempts.push(Attempt { key, place: address.path.display().to_string(), result });
        }
    }
    if let Some(address) = &listen.vsock {
        let result = vsock_at(address).map(drop);
        attempts.push(Attempt { key: VSOCK, place: format!("port {}", address.port), result });
    }
    let tls = listen.tls.as_ref().map(|(address, _)| *address);
    for (key, address) in [(TLS, tls), (INSECURE_TCP, listen.insecure_tcp), (HTTP, http)] {
        if let Some(address) = address {
            let result = tcp(key, address).await.map(drop);
            attempts.push(Attempt { key, place: address.to_string(), result });
        }
    }
    attempts
}

fn unix_at(key: &'static str, address: &UnixAddress) -> Result<UnixSocket, ListenError> {
    UnixSocket::bind(address).map_err(|error| ListenError::unix(key, address, &error))
}

fn vsock_at(address: &VsockAddress) -> Result<VsockSocket, ListenError> {
    VsockSocket::bind(address).map_err(|error| ListenError {
        key: VSOCK,
        words: error.to_string(),
        is_mistake: !is_exhaustion(&error),
    })
}

async fn tcp(key: &'static str, address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|error| ListenError::tcp(key, address, &error))
}

impl ListenError {
    /// Whether somebody must change something: just trying again would fail in the same way.
    #[must_use]
    pub(crate) fn is_a_mistake(&self) -> bool {
        self.is_mistake
    }

    fn unix(key: &'static str, address: &UnixAddress, error: &io::Error) -> Self {
        // An error with a message of its own already names the path.
        let is_told = error.get_ref().is_some();
        let words = if is_told { error.to_string() } else { format!("{}: {error}", address.path.display()) };
        Self { key, words, is_mistake: needs_somebody(error.kind()) }
    }

    fn tcp(key: &'static str, address: SocketAddr, error: &io::Error) -> Self {
        let words = match error.kind() {
            ErrorKind::AddrInUse => {
                format!("{address} is in use by another process: stop it, or choose another port")
            }
            ErrorKind::AddrNotAvailable => {
                format!(
                    "{address} is not an address of this machine: choose one of its own, 127.0.0.1 or 0.0.0.0"
                )
            }
            ErrorKind::PermissionDenied => format!(
                "{address}: this user ({}) may not listen there: choose a port from 1024 on, or give it CAP_NET_BIND_SERVICE",
                user()
            ),
            _ => format!("{address}: {error}"),
        };
        Self { key, words, is_mistake: needs_somebody(error.kind()) }
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.words)
    }
}

impl std::error::Error for ListenError {}

/// Whether a file or socket error persists until somebody changes something, unlike a shortage of the machine's resources.
pub(crate) fn needs_somebody(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::AddrInUse
            | ErrorKind::AddrNotAvailable
            | ErrorKind::AlreadyExists
            | ErrorKind::InvalidFilename
            | ErrorKind::InvalidInput
            | ErrorKind::IsADirectory
            | ErrorKind::NotADirectory
            | ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::Unsupported
    )
}

fn user() -> String {
    format!("uid {}", rustix::process::geteuid().as_raw())
}

const UNIX: &str = "listen.unix.path";
const ADMIN: &str = "listen.admin.path";
const TLS: &str = "listen.tls.address";
const VSOCK: &str = "listen.vsock.port";
const INSECURE_TCP: &str = "listen.insecure_tcp";
const HTTP: &str = "telemetry.http";
