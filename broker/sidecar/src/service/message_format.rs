//! Messages in the format of the AWS Encryption SDKs. Long ones that come whole are encrypted and decrypted outside the runtime's
//! threads, since that takes milliseconds.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use key_broker_core::{CiphertextBlob, EncryptionContext, KeyArn, KeyId, Reuse};
use key_broker_envelope::{
    EncryptedDataKey, Header, HeaderFacts, HeaderReader, OpenError, SealError, Sealer, Suite,
};
use key_broker_trail::record::{DataKeyData, MessageData};
use zeroize::Zeroizing;

use crate::error::BrokerError;
use crate::operation::{DataKey, Decryption, GrantTokens};
use crate::policy::{Permitted, SealedReply};

/// What a caller expects of a message to decrypt.
pub(super) struct ExpectedMessage {
    /// Pairs that its encryption context must contain.
    pub context: EncryptionContext,
    /// The KMS key under which its data key must be encrypted.
    pub key: Option<KeyId>,
    /// The caller's grant tokens.
    pub grant_tokens: GrantTokens,
    /// The caller's tighter bounds.
    pub reuse: Reuse,
}

/// Which algorithm suites are accepted for decryption.
#[derive(Debug, Clone, Copy)]
pub(super) struct TakenSuites {
    /// Whether suites without key commitment are.
    pub without_commitment: bool,
    /// Whether signed ones are, whose signature comes last.
    pub signed: bool,
}

/// The data key of a message, decrypted.
pub(super) struct MessageKey {
    pub sealed: Arc<SealedReply<Decryption>>,
    pub key: Permitted<KeyArn>,
    /// The answer of KMS that it came from.
    pub source: DataKeyData,
}

impl MessageKey {
    /// KMS's answer.
    pub(super) fn decryption(&self) -> Result<&Decryption, BrokerError> {
        // KMS answers with the key that the request named, or with an error.
        self.sealed.open(&self.key).ok_or(BrokerError::Bug)
    }
}

/// Rejects names that the AWS Encryption SDKs reserve, and empty values, which not all of them can decrypt.
pub(super) fn check_context(pairs: &BTreeMap<String, String>) -> Result<(), BrokerError> {
    let refused = |error: SealError| Err(BrokerError::Rejected(error.to_string().into()));
    if let Some(name) = pairs.keys().find(|name| name.starts_with(RESERVED)) {
        return refused(SealError::ReservedName(name.clone()));
    }
    match pairs.iter().find(|(_, value)| value.is_empty()) {
        Some((name, _)) => refused(SealError::EmptyValue(name.clone())),
        None => Ok(()),
    }
}

/// Begins a message.
pub(super) fn sealer(
    data_key: &DataKey,
    context: &EncryptionContext,
) -> Result<Sealer<Vec<u8>>, BrokerError> {
    let encrypted = &data_key.encrypted;
    // It came from KMS, so it parses.
    let blob = CiphertextBlob::parse(encrypted.ciphertext_blob.clone()).map_err(|_| BrokerError::Bug)?;
    let encrypted = EncryptedDataKey::aws_kms(&encrypted.key.arn, &blob);
    Sealer::new(Vec::new(), &data_key.plaintext, encrypted, context).map_err(|error| match error {
        SealError::Randomness(_) => BrokerError::Bug,
        error => BrokerError::Rejected(error.to_string().into()),
    })
}

/// Encrypts a whole message.
pub(super) async fn seal(
    data_key: Arc<DataKey>,
    context: EncryptionContext,
    plaintext: Bytes,
) -> Result<(Bytes, MessageData<'static>), BrokerError> {
    let length = plaintext.len();
    beside(length, move || {
        let sealer = sealer(&data_key, &context)?;
        let facts = facts(&sealer.facts());
        // Only messages of more than 16 TiB fail.
        let message = sealer.seal(&plaintext).map_err(|_| BrokerError::Bug)?;
        let (length, plaintext_length) = (Some(message.len() as u64), Some(plaintext.len() as u64));
        Ok((message.into(), MessageData { length, plaintext_length, ..facts }))
    })
    .await
}

/// Parses the header of a whole message.
pub(super) fn read_header(message: &[u8]) -> Result<(Header, usize), BrokerError> {
    let mut rest = message;
    let header = HeaderReader::default().push(&mut rest);
    let header = header.and_then(|header| header.ok_or(OpenError::CutOff(0)));
    Ok((header.map_err(|error| refused(&error))?, message.len() - rest.len()))
}

/// Decrypts a whole message, whose header has `header_bytes` bytes.
pub(super) async fn open(
    header: Header,
    data_key: MessageKey,
    message: Bytes,
    header_bytes: usize,
) -> Result<Bytes, BrokerError> {
    beside(message.len(), move || {
        let frames = message.get(header_bytes..).ok_or(BrokerError::Bug)?;
        let plaintext: Zeroizing<Vec<u8>> =
            header.open_whole(&data_key.decryption()?.plaintext, frames).map_err(|error| refused(&error))?;
        Ok(Bytes::from_owner(plaintext))
    })
    .await
}

/// What a record says about a message whose header is known.
pub(super) fn facts(header: &HeaderFacts) -> MessageData<'static> {
    MessageData {
        header_sha256: hex::encode(header.sha256).into(),
        suite: format!("0x{:04x}", header.suite.id()).into(),
        encrypted_data_keys: u16::try_from(header.encrypted_data_keys).unwrap_or(u16::MAX),
        length: None,
        plaintext_length: None,
    }
}

/// Checks that messages of this suite are accepted.
pub(super) fn check_suite(suite: Suite, taken: TakenSuites) -> Result<(), BrokerError> {
    let id = suite.id();
    if !suite.is_committed() && !taken.without_commitment {
        return Err(BrokerError::SuiteNotAllowed(format!(
            "the message's algorithm suite 0x{id:04x} has no key commitment: encrypt it anew, or ask the broker's operator to set \
             messages.suites_without_commitment"
        )));
    }
    if suite.is_signed() && !taken.signed {
        return Err(BrokerError::SuiteNotAllowed(format!(
            "the message's algorithm suite 0x{id:04x} is signed, and its signature comes last: use DecryptMessage, or set \
             release_before_signature and use nothing of the plaintext before the call has ended with OK"
        )));
    }
    Ok(())
}

/// The error for a message that cannot be opened.
pub(super) fn refused(error: &OpenError) -> BrokerError {
    match error {
        OpenError::Suite(_) | OpenError::FormatOne(_) => BrokerError::SuiteNotAllowed(error.to_string()),
        _ => BrokerError::InvalidMessage(error.to_string()),
    }
}

/// Runs work on this many bytes outside the runtime's threads if it takes long.
async fn beside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, BrokerError> + Send + 'static,
) -> Result<T, BrokerError> {
    if bytes <= LONG {
        return work();
    }
    tokio::task::spawn_blocking(work).await.map_err(|_| BrokerError::Bug)?
}

/// The prefix of names in encryption contexts that the AWS Encryption SDKs reserve.
const RESERVED: &str = "aws-crypto-";
/// AES-GCM takes some 50 µs for this: less than handing it to another thread costs.
const LONG: usize = 64 << 10;
