//! vsock: the enclaves of this parent instance, by context id (vsock(7)).
//!
//! A context id is an address, given by the hypervisor and chosen by the parent. What runs behind it is proved only by a
//! verified attestation document.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};

/// Where to listen, and which enclaves may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VsockAddress {
    /// The port.
    pub port: u32,
    /// The context ids of the enclaves that may connect.
    pub cids: Vec<u32>,
}

/// An open vsock port.
pub(crate) struct VsockSocket {
    listener: VsockListener,
    cids: Vec<u32>,
    /// The context id that was refused last, so that repeated attempts are logged once.
    refused: AtomicU32,
}

impl VsockSocket {
    /// Opens the port on any context id of this machine.
    pub(crate) fn bind(address: &VsockAddress) -> io::Result<Self> {
        let VsockAddress { port, cids } = address;
        let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, *port)).map_err(|error| {
            let hint = "is this a parent instance with the vsock driver, and does its seccomp profile allow AF_VSOCK?";
            io::Error::new(error.kind(), format!("vsock port {port}: {error}: {hint}"))
        })?;
        Ok(Self { listener, cids: cids.clone(), refused: AtomicU32::new(VMADDR_CID_ANY) })
    }

    /// Accepts the next connection and its peer's context id; an error if that id may not connect.
    pub(super) async fn accept(&self) -> io::Result<(VsockStream, u32)> {
        let (stream, address) = self.listener.accept().await?;
        let cid = address.cid();
        if self.cids.contains(&cid) {
            Ok((stream, cid))
        } else {
            if self.refused.swap(cid, Ordering::Relaxed) != cid {
                tracing::warn!(
                    cid,
                    "a vsock connection is refused: listen.vsock.cids has no such context id"
                );
            }
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
}
