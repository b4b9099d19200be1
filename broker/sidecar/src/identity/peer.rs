//! The peer of a connection, with its identity.

use std::net::IpAddr;

use key_broker_core::{PeerDetails, PeerKind, Principal, Transport};

/// The peer of a connection, as far as the broker can know it.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// The principal.
    pub principal: Principal,
    /// The evidence for it.
    pub kind: PeerKind,
    /// The record's `sourceIPAddress`: an address, `unix`, or `vsock:CID`.
    pub source: String,
    /// Details of the connection.
    pub details: PeerDetails,
}

impl Peer {
    /// The virtual machine with this context id, from the hypervisor (vsock(7)).
    #[must_use]
    pub(crate) fn vsock(cid: u32) -> Self {
        Self {
            principal: Principal::of_cid(cid),
            kind: PeerKind::EnclaveWorkload,
            source: format!("vsock:{cid}"),
            details: PeerDetails { cid: Some(cid), ..PeerDetails::of(Transport::Vsock) },
        }
    }

    /// Whoever connected to the plaintext TCP port.
    #[must_use]
    pub(crate) fn insecure_tcp(address: IpAddr) -> Self {
        let (source, details) = (address.to_string(), PeerDetails::of(Transport::InsecureTcp));
        Self { principal: Principal::Unknown, kind: PeerKind::Unknown, source, details }
    }
}
