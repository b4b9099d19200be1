//! Who calls: what a connection tells, made into a [`Principal`] that policy can name.

use std::sync::Arc;

use crate::audit::record::PeerDetails;

/// The two ends of a connection, as far as the broker can know the other one.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Who it is.
    pub principal: Principal,
    /// The record's `sourceIPAddress`: an address, or `unix`.
    pub source: String,
    /// What the connection told.
    pub details: PeerDetails,
}

/// Who calls. Unknown is a principal too: policy may name it, and nothing else is permitted to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// A workload that the connection proves: `unix:uid/1000`.
    Workload(Arc<str>),
    /// Whoever reached the plaintext TCP port.
    Unknown,
}

impl Principal {
    /// The name in policy and records.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Workload(name) => name,
            Self::Unknown => "unknown",
        }
    }

    /// The record's `userIdentity.type`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Workload(_) => "UnixWorkload",
            Self::Unknown => "Unknown",
        }
    }
}

impl Peer {
    /// The process at the other end of a unix socket, as the kernel tells (`SO_PEERCRED`, unix(7)).
    #[must_use]
    pub fn unix(uid: u32, gid: u32, pid: Option<i32>) -> Self {
        Self {
            principal: Principal::Workload(format!("unix:uid/{uid}").into()),
            source: "unix".into(),
            details: PeerDetails { transport: "unix", uid: Some(uid), gid: Some(gid), pid },
        }
    }

    /// Whoever connected to the plaintext TCP port.
    #[must_use]
    pub fn insecure_tcp(address: std::net::IpAddr) -> Self {
        Self {
            principal: Principal::Unknown,
            source: address.to_string(),
            details: PeerDetails { transport: "tcp", uid: None, gid: None, pid: None },
        }
    }
}
