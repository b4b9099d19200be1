//! Counts open connections by listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use key_broker_core::Transport;

/// Which of the broker's sockets a connection came in on. Workloads and operators get different services; both get health and
/// reflection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    Workloads(Transport),
    /// The operator's unix socket.
    Admin,
}

impl Listener {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [
        Self::Workloads(Transport::Unix),
        Self::Workloads(Transport::Tls),
        Self::Workloads(Transport::Vsock),
        Self::Workloads(Transport::InsecureTcp),
        Self::Admin,
    ];

    /// Its name in the configuration, below `listen`.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Workloads(transport) => transport.name(),
            Self::Admin => "admin",
        }
    }

    /// Its index in [`Self::ALL`].
    pub(super) const fn index(self) -> usize {
        match self {
            Self::Workloads(transport) => transport as usize,
            Self::Admin => Transport::ALL.len(),
        }
    }
}

/// The numbers of open connections.
#[derive(Debug, Default)]
pub(crate) struct Connections([AtomicU64; Listener::ALL.len()]);

impl Connections {
    /// The number of open connections on this listener.
    #[must_use]
    pub(crate) fn open(&self, listener: Listener) -> u64 {
        self.0[listener.index()].load(Ordering::Relaxed)
    }

    /// Counts a connection until the returned value is dropped.
    pub(super) fn count(self: &Arc<Self>, listener: Listener) -> OpenConnection {
        self.0[listener.index()].fetch_add(1, Ordering::Relaxed);
        OpenConnection { connections: Arc::clone(self), listener }
    }
}

/// One connection.
pub(super) struct OpenConnection {
    connections: Arc<Connections>,
    listener: Listener,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.connections.0[self.listener.index()].fetch_sub(1, Ordering::Relaxed);
    }
}
