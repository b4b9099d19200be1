//! `listen.vsock`: the port, and the enclaves that may connect.

use serde::Deserialize;

use super::within;
use crate::transport::vsock::VsockAddress;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct VsockSection {
    #[serde(default = "default_port")]
    port: u32,
    cids: Vec<u32>,
}

impl VsockSection {
    pub(super) fn check(self) -> Result<VsockAddress, String> {
        let port = within("listen.vsock.port", self.port, 1, u32::MAX - 1)?;
        if self.cids.is_empty() {
            return Err("listen.vsock.cids: nobody may connect: name the enclaves' context ids".into());
        }
        for cid in &self.cids {
            within("listen.vsock.cids", *cid, FIRST_ENCLAVE_CID, u32::MAX - 1).map_err(|mistake| {
                format!("{mistake}: 0 to 3 are the hypervisor, this machine itself, the host and the parent")
            })?;
        }
        Ok(VsockAddress { port, cids: self.cids })
    }
}

fn default_port() -> u32 {
    DEFAULT_PORT
}

/// vsock-proxy's is 8000: both can run while a parent moves from one to the other.
const DEFAULT_PORT: u32 = 7_890;
/// <https://docs.aws.amazon.com/enclaves/latest/user/nitro-enclave-concepts.html>: an enclave's is at least 4.
const FIRST_ENCLAVE_CID: u32 = 4;
