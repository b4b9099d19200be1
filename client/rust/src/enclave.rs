//! The client inside an enclave: every call is attested, and KMS encrypts its answer to this enclave alone.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use key_broker_client::enclave::{Enclave, Nsm};
//! use key_broker_client::{Client, GenerateDataKey};
//!
//! let client = Client::vsock(Client::PARENT_CID, Client::DEFAULT_VSOCK_PORT).await?;
//! let enclave = Enclave::new(client, Nsm::open()?)?;
//! let data_key = enclave.generate_data_key(GenerateDataKey::aes_256("alias/app").context("tenant", "acme")).await?;
//! # Ok(())
//! # }
//! ```
//!
//! What this proves, and what not: KMS gives the plaintext only to an enclave that the key's policy knows, and neither the broker
//! nor the parent instance can read it. But KMS's answer is not signed. Who controls the parent can answer with a data key or with
//! random bytes of his own making; he cannot forge a decrypt of data that an AEAD binds. A wrapped data key can be swapped for
//! another one, unless the encryption context says what it is for.
//!
//! A call that fails with [`Error::NotOpened`] is not tried again here, and should not be without end elsewhere: CBC has no proof of
//! its own, and who may send altered answers for ever learns from which of them open.

mod attestation;
pub mod cms;
mod error;
mod key;
mod nsm;

use std::sync::Arc;

use bytes::Bytes;
use key_broker_proto::v1 as pb;
use key_broker_proto::v1::generate_data_key_request::Length;

pub use attestation::{AttestationError, AttestationProvider, FileDocument};
pub use error::Error;
pub use key::{KeyError, RecipientKey};
pub use nsm::Nsm;

use crate::{
    Client, DataKey, DataKeyPair, Decrypt, Decryption, GenerateDataKey, GenerateDataKeyPair, Plaintext,
    RandomBytes,
};
use cms::OpenError;

/// A broker, seen from an enclave. Clones share the connection and the key.
///
/// Each call has an attestation document of its own. One could serve for the five minutes that the broker takes it; but a new one
/// says what the enclave is now (its application may have extended a PCR since), and costs one call to the hypervisor where the
/// call to KMS behind it goes over the network: for a recipient, nothing is answered from the broker's memory.
#[derive(Clone)]
pub struct Enclave {
    client: Client,
    provider: Arc<dyn AttestationProvider>,
    key: Arc<RecipientKey>,
}

impl Enclave {
    /// Makes an ephemeral RSA-2048 key, which takes about a tenth of a second of computation, and dies with the last clone.
    pub fn new(client: Client, provider: impl AttestationProvider) -> Result<Self, KeyError> {
        Ok(Self::with_key(client, provider, RecipientKey::generate()?))
    }

    /// With a key that exists already.
    pub fn with_key(client: Client, provider: impl AttestationProvider, key: RecipientKey) -> Self {
        Self { client, provider: Arc::new(provider), key: Arc::new(key) }
    }

    /// A new data key, in plaintext and encrypted under the KMS key.
    pub async fn generate_data_key(
        &self,
        GenerateDataKey(mut request): GenerateDataKey,
    ) -> Result<DataKey, Error> {
        let length = request.length.and_then(length_of);
        request.recipient = Some(self.recipient().await?);
        let reply =
            self.client.broker.clone().generate_data_key(self.client.request(request)).await?.into_inner();
        let plaintext = self.open(&reply.plaintext, &reply.ciphertext_for_recipient)?;
        Ok(DataKey { plaintext: of_length(plaintext, length)?, ..reply.into() })
    }

    /// A new data key pair, whose private key only this enclave can read, and whoever may decrypt its encrypted form.
    pub async fn generate_data_key_pair(
        &self,
        GenerateDataKeyPair(mut request): GenerateDataKeyPair,
    ) -> Result<DataKeyPair, Error> {
        request.recipient = Some(self.recipient().await?);
        let request = self.client.request(request);
        let reply = self.client.broker.clone().generate_data_key_pair(request).await?.into_inner();
        let private_key = self.open(&reply.private_key_plaintext, &reply.ciphertext_for_recipient)?;
        Ok(DataKeyPair { private_key: Some(one_der_value(private_key)?), ..reply.into() })
    }

    /// Decrypts what KMS encrypted.
    pub async fn decrypt(&self, Decrypt(mut request): Decrypt) -> Result<Decryption, Error> {
        request.recipient = Some(self.recipient().await?);
        let reply = self.client.broker.clone().decrypt(self.client.request(request)).await?.into_inner();
        let plaintext = self.open(&reply.plaintext, &reply.ciphertext_for_recipient)?;
        Ok(Decryption { plaintext, ..reply.into() })
    }

    /// Random bytes from KMS, 1 to 1,024.
    pub async fn generate_random(&self, number_of_bytes: u32) -> Result<RandomBytes, Error> {
        let request = pb::GenerateRandomRequest { number_of_bytes, recipient: Some(self.recipient().await?) };
        let reply =
            self.client.broker.clone().generate_random(self.client.request(request)).await?.into_inner();
        let plaintext = self.open(&reply.plaintext, &reply.ciphertext_for_recipient)?;
        Ok(RandomBytes { plaintext: of_length(plaintext, Some(number_of_bytes))?, ..reply.into() })
    }

    async fn recipient(&self) -> Result<pb::Recipient, Error> {
        let (provider, key) = (Arc::clone(&self.provider), Arc::clone(&self.key));
        let attested = tokio::task::spawn_blocking(move || provider.attest(key.public_key_spki())).await;
        let document =
            attested.map_err(|error| Error::Attestation(error.into()))?.map_err(Error::Attestation)?;
        Ok(pb::Recipient {
            attestation_document: document.into(),
            key_encryption_algorithm: KEY_ENCRYPTION_ALGORITHM.into(),
        })
    }

    /// Fails closed: an answer that anybody else could have read is none.
    fn open(&self, plaintext: &Bytes, ciphertext_for_recipient: &Bytes) -> Result<Plaintext, Error> {
        if !plaintext.is_empty() {
            return Err(Error::PlaintextExposed);
        }
        if ciphertext_for_recipient.is_empty() {
            return Err(Error::NotForRecipient);
        }
        Ok(self.key.open(ciphertext_for_recipient)?)
    }
}

/// The length of the data key that was asked for; none is for the broker to refuse.
fn length_of(length: Length) -> Option<u32> {
    match length {
        Length::KeySpec(spec) => match pb::KeySpec::try_from(spec) {
            Ok(pb::KeySpec::Aes256) => Some(32),
            Ok(pb::KeySpec::Aes128) => Some(16),
            Ok(pb::KeySpec::Unspecified) | Err(_) => None,
        },
        Length::NumberOfBytes(number) => Some(number),
    }
}

/// Another length is the same error as a failed decryption. So, of altered messages that ask whether a block's padding is right, only
/// those with a padding of the right length get the answer yes.
fn of_length(plaintext: Plaintext, length: Option<u32>) -> Result<Plaintext, OpenError> {
    if Some(plaintext.expose().len()) == length.and_then(|length| length.try_into().ok()) {
        Ok(plaintext)
    } else {
        Err(OpenError::NotOpened)
    }
}

/// Anything but one value of DER, as long as it says itself, is the same error as a failed decryption: see [`of_length`].
fn one_der_value(plaintext: Plaintext) -> Result<Plaintext, OpenError> {
    let length = match plaintext.expose() {
        [SEQUENCE, length @ 0..=0x7f, ..] => Some(2 + usize::from(*length)),
        [SEQUENCE, 0x81, length, ..] => Some(3 + usize::from(*length)),
        [SEQUENCE, 0x82, high, low, ..] => Some(4 + usize::from(u16::from_be_bytes([*high, *low]))),
        _ => None,
    };
    if length == Some(plaintext.expose().len()) { Ok(plaintext) } else { Err(OpenError::NotOpened) }
}

/// The tag of a PKCS #8 key (X.690, 8.9).
const SEQUENCE: u8 = 0x30;
/// The only one that KMS has.
const KEY_ENCRYPTION_ALGORITHM: &str = "RSAES_OAEP_SHA_256";
