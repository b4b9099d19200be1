//! HTTPS without a proxy, like the SDK's own connector, but with TLS details of the connections.

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connection::{CaptureSmithyConnection, ConnectionMetadata};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{
    CaptureConnection, Connected, Connection, HttpConnector as Tcp, HttpInfo, capture_connection,
};
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, NamedGroup, ProtocolVersion, RootCertStore};
use tokio::net::TcpStream;
use tower::Service;

/// TLS details of a connection in CloudTrail's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Encryption {
    /// `TLSv1.3`.
    pub(crate) version: &'static str,
    /// The cipher suite's name at IANA.
    pub(crate) cipher_suite: &'static str,
    /// The group's name at IANA; `None` if this program does not know it.
    pub(crate) key_exchange: Option<&'static str>,
}

/// A client with one pool of connections for all who use it.
pub(super) struct Encrypted {
    /// Made with the first connection, since reading the system's authorities takes a while.
    client: OnceLock<Client<Connecting, SdkBody>>,
}

impl Encrypted {
    pub(super) fn new() -> Self {
        Self { client: OnceLock::new() }
    }

    /// Trusts only these authorities.
    #[cfg(test)]
    pub(super) fn trusting(roots: RootCertStore) -> Self {
        let new = Self::new();
        new.client.get_or_init(|| client(roots, None));
        new
    }

    /// A connector with these timeouts of an SDK client. All who share the connections have the same connect timeout.
    pub(super) fn with(&self, settings: &HttpConnectorSettings) -> EncryptedConnector {
        let client = self.client.get_or_init(|| client(authorities(), settings.connect_timeout()));
        EncryptedConnector { client: client.clone(), read_timeout: settings.read_timeout() }
    }
}

impl fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encrypted")
    }
}

/// The authorities of the system, or of the file that `SSL_CERT_FILE` names.
fn authorities() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn client(roots: RootCertStore, connect_timeout: Option<Duration>) -> Client<Connecting, SdkBody> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut tls = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites of both versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut tcp = Tcp::new();
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    let connecting = Connecting { https: (tcp, tls).into(), timeout: connect_timeout };
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connecting)
}

/// Sends requests.
#[derive(Debug, Clone)]
pub(super) struct EncryptedConnector {
    client: Client<Connecting, SdkBody>,
    read_timeout: Option<Duration>,
}

impl HttpConnector for EncryptedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let mut request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        let captured = capture_connection(&mut request);
        if let Some(capture) = request.extensions().get::<CaptureSmithyConnection>() {
            capture.set_connection_retriever(move || metadata(&captured));
        }
        let (answer, read_timeout) = (self.client.request(request), self.read_timeout);
        HttpConnectorFuture::new(async move {
            let answer = match read_timeout {
                Some(time) => tokio::time::timeout(time, answer)
                    .await
                    .map_err(|elapsed| ConnectorError::timeout(elapsed.into()))?,
                None => answer.await,
            };
            let response = answer.map_err(connector_error)?.map(SdkBody::from_body_1_x);
            HttpResponse::try_from(response).map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// What the SDK needs of a connection: its addresses, and how to stop using it.
fn metadata(captured: &CaptureConnection) -> Option<ConnectionMetadata> {
    let connected = captured.connection_metadata();
    let mut extras = http::Extensions::new();
    connected.as_ref()?.get_extras(&mut extras);
    let addresses = extras.get::<HttpInfo>();
    let captured = captured.clone();
    let poison = move || {
        if let Some(connected) = captured.connection_metadata().as_ref() {
            connected.poison();
        }
    };
    let mut builder = ConnectionMetadata::builder().proxied(false).poison_fn(poison);
    builder.set_local_addr(addresses.map(HttpInfo::local_addr));
    builder.set_remote_addr(addresses.map(HttpInfo::remote_addr));
    Some(builder.build())
}

/// Classifies errors like the SDK's own connector, which decides about retries.
fn connector_error(error: ClientError) -> ConnectorError {
    let io = source::<io::Error>(&error).map(io::Error::kind);
    let hyper = source::<hyper::Error>(&error);
    if io == Some(io::ErrorKind::TimedOut) || hyper.is_some_and(hyper::Error::is_timeout) {
        return ConnectorError::timeout(error.into());
    }
    if hyper.is_some_and(hyper::Error::is_user) {
        return ConnectorError::user(error.into());
    }
    let is_cut_off =
        |error: &hyper::Error| error.is_closed() || error.is_canceled() || error.is_incomplete_message();
    if error.is_connect() || io.is_some() || hyper.is_some_and(is_cut_off) {
        return ConnectorError::io(error.into());
    }
    ConnectorError::other(error.into(), None)
}

fn source<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(wanted) = error.downcast_ref() {
            return Some(wanted);
        }
        next = error.source();
    }
    None
}

/// Makes connections within a time limit, TLS included.
#[derive(Clone)]
struct Connecting {
    https: HttpsConnector<Tcp>,
    timeout: Option<Duration>,
}

impl Service<http::Uri> for Connecting {
    type Response = Told;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Told, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(context)
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        let (connecting, timeout) = (self.https.call(uri), self.timeout);
        Box::pin(async move {
            let Some(timeout) = timeout else { return connecting.await.map(Told) };
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
            tokio::time::timeout(timeout, connecting).await.map_err(late)?.map(Told)
        })
    }
}

/// A connection that adds its TLS details to the extensions of each response.
struct Told(MaybeHttpsStream<TokioIo<TcpStream>>);

impl Connection for Told {
    fn connected(&self) -> Connected {
        let connected = self.0.connected();
        match encryption(&self.0) {
            Some(encryption) => connected.extra(encryption),
            None => connected,
        }
    }
}

fn encryption(stream: &MaybeHttpsStream<TokioIo<TcpStream>>) -> Option<Encryption> {
    let MaybeHttpsStream::Https(stream) = stream else { return None };
    let (_, tls) = stream.inner().get_ref();
    let version = match tls.protocol_version()? {
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        _ => return None,
    };
    // IANA's names for TLS 1.3 have no `13`.
    let cipher_suite = tls.negotiated_cipher_suite()?.suite().as_str()?;
    let cipher_suite =
        TLS_1_3.iter().find(|(known, _)| *known == cipher_suite).map_or(cipher_suite, |(_, name)| name);
    let key_exchange = tls.negotiated_key_exchange_group().and_then(|group| name_of(group.name()));
    Some(Encryption { version, cipher_suite, key_exchange })
}

fn name_of(group: NamedGroup) -> Option<&'static str> {
    Some(match group {
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        NamedGroup::secp256r1MLKEM768 => "SecP256r1MLKEM768",
        NamedGroup::X25519 => "x25519",
        NamedGroup::secp256r1 => "secp256r1",
        NamedGroup::secp384r1 => "secp384r1",
        _ => return None,
    })
}

/// The names of rustls and of IANA.
const TLS_1_3: [(&str, &str); 3] = [
    ("TLS13_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
    ("TLS13_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
    ("TLS13_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256"),
];

impl hyper::rt::Read for Told {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for Told {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, buffers)
    }
}

#[cfg(test)]
mod tests;
