//! The Rust client of key-broker.
//!
//! ```no_run
//! # async fn example() -> Result<(), key_broker_client::Error> {
//! use key_broker_client::{Client, GenerateDataKey};
//!
//! let client = Client::unix("/run/key-broker/broker.sock").await?;
//! let data_key = client.generate_data_key(GenerateDataKey::aes_256("alias/dev").context("tenant", "acme")).await?;
//! // Encrypt with `data_key.plaintext.expose()`, keep `data_key.ciphertext_blob` beside what was encrypted.
//! # Ok(())
//! # }
//! ```
//!
//! Key material comes as [`Plaintext`], which erases itself when dropped and cannot be printed. The buffers of the
//! connection that carried it are not erased.
//!
//! # Features
//!
//! - `vsock`: `Client::vsock` reaches a broker on the parent instance of a virtual machine.
//! - `enclave`: the `enclave` module attests each call, so that KMS encrypts its answer to this enclave alone, and opens
//!   the answer. The broker and the parent instance never see the plaintext.

#[cfg(feature = "enclave")]
pub mod enclave;
mod error;
mod request;
mod response;
mod stream;
#[cfg(feature = "vsock")]
mod vsock;

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use key_broker_proto::v1 as pb;
use key_broker_proto::v1::key_broker_client::KeyBrokerClient;
use tonic::Request;
use tonic::transport::{self, Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use zeroize::Zeroizing;

pub use error::Error;
pub use request::{
    Decrypt, DecryptMessage, Encrypt, EncryptMessage, GenerateDataKey, GenerateDataKeyPair,
    GenerateDataKeyWithoutPlaintext, KeyPairSpec, ReEncrypt,
};
pub use response::{
    DataKey, DataKeyPair, DecryptedMessage, Decryption, EncryptedDataKey, EncryptedMessage, Encryption,
    KeyDescription, Plaintext, Provenance, RandomBytes, ReEncryption,
};
pub use stream::{DecryptedStream, EncryptedStream};

/// A connection to a broker. Clones share it; it reconnects by itself.
#[derive(Debug, Clone)]
pub struct Client {
    broker: KeyBrokerClient<Channel>,
    health: HealthClient<Channel>,
    deadline: Duration,
}

/// The files for mutual TLS.
pub struct Tls {
    /// The client's certificate, then those that it chains through, in PEM.
    pub certificate: Vec<u8>,
    /// Its private key, in PEM.
    pub key: Zeroizing<Vec<u8>>,
    /// The authorities whose certificate the broker may show, in PEM.
    pub trust_bundle: Vec<u8>,
    /// The DNS name in the broker's certificate.
    pub server_name: String,
}

impl Client {
    /// Connects to the broker's unix socket, by its path: not by an address as gRPC writes them (`unix:PATH`), and a broker has no
    /// abstract socket.
    pub async fn unix(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let Some(text) = path.to_str() else {
            return Err(Error::address(format!("{} is not UTF-8", path.display())));
        };
        if !is_path(text) {
            let why = format!(
                "{text:?} is not a path: give the path of the broker's socket alone, such as /run/key-broker/broker.sock (abstract sockets \
                 have no permissions, and a broker has none)"
            );
            return Err(Error::address(why));
        }
        Self::connect(&format!("unix:{text}")).await
    }

    /// Connects to the broker's TLS port, for example `broker.internal:7890`, with mutual TLS. The
    /// certificate is shown at every new connection: after a renewal, make a new client.
    pub async fn tls(address: &str, tls: &Tls) -> Result<Self, Error> {
        let config = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&tls.trust_bundle))
            .identity(Identity::from_pem(&tls.certificate, &*tls.key))
            .domain_name(&tls.server_name);
        let address = format!("https://{address}");
        let endpoint = endpoint(&address).and_then(|endpoint| endpoint.tls_config(config));
        Self::connect_to(&address, endpoint).await
    }

    /// Connects to the broker's plaintext TCP port on this machine, for example `127.0.0.1:7890`. Another machine's is refused: key
    /// material would go there for all to read.
    pub async fn insecure_tcp(address: &str) -> Result<Self, Error> {
        if !is_loopback(address) {
            let why = format!(
                "{address:?} is not an address of this machine: plaintext never leaves it: write 127.0.0.1:PORT, or connect with TLS"
            );
            return Err(Error::address(why));
        }
        Self::connect(&format!("http://{address}")).await
    }

    /// Every call ends with `DEADLINE_EXCEEDED` after `deadline`; ten seconds unless set.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Encrypts a message of at most 3,145,728 bytes. The data key stays in the broker.
    pub async fn encrypt_message(&self, request: EncryptMessage) -> Result<EncryptedMessage, Error> {
        let reply = self.messages().encrypt_message(self.request(request.0)).await?;
        Ok(reply.into_inner().into())
    }

    /// Decrypts a message of [`Client::encrypt_message`], or of an AWS Encryption SDK.
    pub async fn decrypt_message(&self, request: DecryptMessage) -> Result<DecryptedMessage, Error> {
        let reply = self.messages().decrypt_message(self.request(request.0)).await?;
        Ok(reply.into_inner().into())
    }

    /// A new data key, in plaintext and encrypted under the KMS key.
    pub async fn generate_data_key(&self, request: GenerateDataKey) -> Result<DataKey, Error> {
        let reply = self.broker.clone().generate_data_key(self.request(request.0)).await?;
        Ok(reply.into_inner().into())
    }

    /// A new data key, encrypted under the KMS key only.
    pub async fn generate_data_key_without_plaintext(
        &self,
        request: GenerateDataKeyWithoutPlaintext,
    ) -> Result<EncryptedDataKey, Error> {
        let reply = self.broker.clone().generate_data_key_without_plaintext(self.request(request.0)).await?;
        Ok(reply.into_inner().into())
    }

    /// Decrypts what KMS encrypted.
    pub async fn decrypt(&self, request: Decrypt) -> Result<Decryption, Error> {
        let reply = self.broker.clone().decrypt(self.request(request.0)).await?;
        Ok(reply.into_inner().into())
    }

    /// Encrypts up to 4,096 bytes under a KMS key itself: one call to KMS each.
    pub async fn encrypt(&self, request: Encrypt) -> Result<Encryption, Error> {
        let reply = self.broker.clone().encrypt(self.request(request.0)).await?;
        Ok(reply.into_inner().into())
    }

    /// Encrypts a ciphertext of KMS anew, within KMS.
    pub async fn re_encrypt(&self, request: ReEncrypt) -> Result<ReEncryption, Error> {
        let reply = self.broker.clone().re_encrypt(self.request(request.0)).await?;
        Ok(reply.into_inner().into())
    }

    /// A new data key pair.
    pub async fn generate_data_key_pair(&self, request: GenerateDataKeyPair) -> Result<DataKeyPair, Error> {
        let reply = self.broker.clone().generate_data_key_pair(self.request(request.0)).await?;
        Ok(reply.into_inner().into())
    }

    /// A new data key pair, its private key encrypted only.
    pub async fn generate_data_key_pair_without_plaintext(
        &self,
        request: GenerateDataKeyPair,
    ) -> Result<DataKeyPair, Error> {
        let request = self.request(request.into());
        let reply = self.broker.clone().generate_data_key_pair_without_plaintext(request).await?;
        Ok(reply.into_inner().into())
    }

    /// Random bytes from KMS, 1 to 1,024.
    pub async fn generate_random(&self, number_of_bytes: u32) -> Result<RandomBytes, Error> {
        let message = pb::GenerateRandomRequest { number_of_bytes, recipient: None };
        let reply = self.broker.clone().generate_random(self.request(message)).await?;
        Ok(reply.into_inner().into())
    }

    /// Returns KMS's description of a key.
    pub async fn describe_key(&self, key_id: impl Into<String>) -> Result<KeyDescription, Error> {
        let message = pb::DescribeKeyRequest { key_id: key_id.into() };
        let reply = self.broker.clone().describe_key(self.request(message)).await?;
        Ok(reply.into_inner().into())
    }

    /// Whether the broker says that it can serve callers now (`grpc.health.v1.Health`): readiness.
    pub async fn is_serving(&self) -> Result<bool, Error> {
        self.check_health("keybroker.v1.KeyBroker").await
    }

    /// Whether the broker's process answers, though it may have to refuse callers (`grpc.health.v1.Health`): liveness.
    pub async fn is_alive(&self) -> Result<bool, Error> {
        self.check_health("").await
    }

    async fn check_health(&self, service: &str) -> Result<bool, Error> {
        let question = HealthCheckRequest { service: service.into() };
        let reply = self.health.clone().check(self.request(question)).await?;
        Ok(reply.into_inner().status() == ServingStatus::Serving)
    }

    async fn connect(address: &str) -> Result<Self, Error> {
        Self::connect_to(address, endpoint(address)).await
    }

    async fn connect_to(address: &str, endpoint: Result<Endpoint, transport::Error>) -> Result<Self, Error> {
        let explain = |error| Error::connect(address, &error);
        Ok(Self::over(endpoint.map_err(explain)?.connect().await.map_err(explain)?))
    }

    fn over(channel: Channel) -> Self {
        Self {
            broker: KeyBrokerClient::new(channel.clone()),
            health: HealthClient::new(channel),
            deadline: DEFAULT_DEADLINE,
        }
    }

    /// For answers with whole messages: without frames a message of 4 MiB has as much plaintext.
    fn messages(&self) -> KeyBrokerClient<Channel> {
        self.broker.clone().max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.deadline);
        request
    }
}

/// Whether it can be the path of a socket: neither an address (RFC 3986, 3.1) nor an abstract socket.
fn is_path(text: &str) -> bool {
    let is_address = text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    !is_address && !text.is_empty() && !text.starts_with('@') && !text.contains('\0')
}

fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn endpoint(address: &str) -> Result<Endpoint, transport::Error> {
    Ok(Endpoint::from_shared(address.to_owned())?.user_agent(USER_AGENT)?.connect_timeout(CONNECT_TIMEOUT))
}

const MAX_MESSAGE_BYTES: usize = 5 << 20;
const USER_AGENT: &str = concat!("key-broker-client/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);
