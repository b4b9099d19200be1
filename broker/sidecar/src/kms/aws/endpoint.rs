//! Where KMS is, as the SDK itself finds: by region, partition, FIPS, dual stack, environment and configuration.

use std::error::Error;
use std::net::{ToSocketAddrs, UdpSocket};
use std::sync::{Arc, OnceLock};

use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

/// The URI that `client` sends its requests to. It sends none for this.
pub(super) async fn of_kms(client: &aws_sdk_kms::Client) -> Option<http::Uri> {
    let found = Arc::new(OnceLock::new());
    let probe = EndpointProbe(Arc::clone(&found));
    // Its end is the probe's own error.
    let _ = client.describe_key().key_id("alias/none").customize().interceptor(probe).send().await;
    found.get()?.parse().ok()
}

/// Looks where a request is to go, and stops it before it is signed.
#[derive(Debug)]
struct EndpointProbe(Arc<OnceLock<String>>);

impl Intercept for EndpointProbe {
    fn name(&self) -> &'static str {
        "EndpointProbe"
    }

    fn read_before_signing(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let _ = self.0.set(context.request().uri().to_owned());
        Err("this request is not to be sent".into())
    }
}

/// The address this host would send from. Connecting a UDP socket sends nothing; resolving a name blocks.
pub(super) fn local_address_toward(uri: &http::Uri) -> Option<String> {
    let port = uri.port_u16().unwrap_or(443);
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let address = (host, port).to_socket_addrs().ok()?.next()?;
    let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).ok()?;
    socket.connect(address).ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}
