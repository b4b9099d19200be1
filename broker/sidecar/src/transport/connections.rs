//! How many connections are open, by how they came in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a connection came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// The workloads' unix socket.
    Unix,
    /// TCP, for whoever shows a certificate.
    Tcp,
    /// vsock.
    Vsock,
    /// Plaintext TCP on loopback.
    InsecureTcp,
    /// The operator's unix socket.
    Admin,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Unix, Self::Tcp, Self::Vsock, Self::InsecureTcp, Self::Admin];

    /// As configuration names it, below `listen`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Tcp => "tcp",
            Self::Vsock => "vsock",
            Self::InsecureTcp => "insecure_tcp",
            Self::Admin => "admin",
        }
    }
}

/// How many connections are open.
#[derive(Debug, Default)]
pub struct Connections([AtomicU64; Transport::ALL.len()]);

impl Connections {
    /// The number of those that came in this way.
    #[must_use]
    pub fn open(&self, transport: Transport) -> u64 {
        self.0[transport as usize].load(Ordering::Relaxed)
    }

    /// Counts one until what this returns is dropped.
    pub(super) fn count(self: &Arc<Self>, transport: Transport) -> Counted {
        self.0[transport as usize].fetch_add(1, Ordering::Relaxed);
        Counted { connections: Arc::clone(self), transport }
    }
}

/// One connection.
pub(super) struct Counted {
    connections: Arc<Connections>,
    transport: Transport,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.connections.0[self.transport as usize].fetch_sub(1, Ordering::Relaxed);
    }
}
