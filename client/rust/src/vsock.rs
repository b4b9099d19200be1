//! Connections over `AF_VSOCK`, between a virtual machine and its parent.

use hyper_util::rt::TokioIo;
use tokio_vsock::{VsockAddr, VsockStream};
use tower::service_fn;

use super::{Channel, Client, Error, endpoint};

impl Client {
    /// Connects over vsock to the broker on `port` of the machine that has context id `cid`. Seen from a Nitro enclave, its
    /// parent instance is [`PARENT_CID`](Client::PARENT_CID); the broker listens on
    /// [`DEFAULT_VSOCK_PORT`](Client::DEFAULT_VSOCK_PORT) unless it is told another. Needs the feature `vsock`.
    pub async fn vsock(cid: u32, port: u32) -> Result<Self, Error> {
        let connector = service_fn(move |_| async move {
            VsockStream::connect(VsockAddr::new(cid, port)).await.map(TokioIo::new)
        });
        let explain = |error| Error::connect(&format!("vsock:{cid}:{port}"), &error);
        let endpoint = endpoint(ORIGIN).map_err(explain)?;
        let channel: Channel = endpoint.connect_with_connector(connector).await.map_err(explain)?;
        Ok(Self::over(channel))
    }

    /// The context id of an enclave's parent instance, seen from the enclave.
    /// <https://docs.aws.amazon.com/enclaves/latest/user/nitro-enclave-concepts.html>
    pub const PARENT_CID: u32 = 3;

    /// The vsock port of key-broker.
    pub const DEFAULT_VSOCK_PORT: u32 = 7890;
}

/// What HTTP/2 has as `:scheme` and `:authority`: a context id and a port have no place there.
const ORIGIN: &str = "http://vsock";
