//! How many connections are open, by how they came in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use key_broker_core::Transport;

/// Which of the broker's sockets a connection came in on. Workloads and the operator are served different
/// services, and both the standard ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    /// For workloads.
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

    /// As configuration names it, below `listen`.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Workloads(transport) => transport.name(),
            Self::Admin => "admin",
        }
    }

    /// Its place among all.
    pub(super) const fn index(self) -> usize {
        match self {
            Self::Workloads(transport) => transport as usize,
            Self::Admin => Transport::ALL.len(),
        }
    }
}

/// How many connections are open.
#[derive(Debug, Default)]
pub(crate) struct Connections([AtomicU64; Listener::ALL.len()]);

impl Connections {
    /// The number of those that came in this way.
    #[must_use]
    pub(crate) fn open(&self, listener: Listener) -> u64 {
        self.0[listener.index()].load(Ordering::Relaxed)
    }

    /// Counts one until what this returns is dropped.
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
