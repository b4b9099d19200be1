//! The peer of a connection, and the proof of its identity.

use std::sync::Arc;

use serde::Serialize;

use crate::transport::Transport;

/// The proof of a peer's identity: the record's `userIdentity.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum PeerKind {
    /// The kernel, which knows the process at the other end of a unix socket.
    UnixWorkload,
    /// A client certificate.
    SpiffeWorkload,
    /// The hypervisor, which knows the virtual machine at the other end of a vsock connection. What runs in it, only an
    /// attestation document proves.
    EnclaveWorkload,
    /// Nothing, or what many would show.
    Unknown,
}

/// Details of the caller from its connection.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerDetails {
    /// How the connection came in.
    pub transport: Transport,
    /// The caller's user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The caller's group id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// The caller's process id, where it is visible from the broker's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The context id of the caller's virtual machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cid: Option<u32>,
    /// The SHA-256, in hex, of the client's certificate.
    #[serde(skip_serializing_if = "Option::is_none", rename = "certificateSHA256")]
    pub certificate_sha256: Option<Arc<str>>,
    /// The certificate's DNS name, if that identifies the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_name: Option<Arc<str>>,
}

impl PeerDetails {
    /// A process on a unix socket.
    #[must_use]
    pub const fn unix(uid: u32, gid: u32, pid: Option<i32>) -> Self {
        let (uid, gid) = (Some(uid), Some(gid));
        let transport = Transport::Unix;
        Self { transport, uid, gid, pid, cid: None, certificate_sha256: None, dns_name: None }
    }

    /// A connection without further details.
    #[must_use]
    pub const fn of(transport: Transport) -> Self {
        Self {
            transport,
            uid: None,
            gid: None,
            pid: None,
            cid: None,
            certificate_sha256: None,
            dns_name: None,
        }
    }
}
