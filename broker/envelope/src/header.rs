//! Message headers (message-header.md): written as a whole, parsed from untrusted input.

mod parse;

use bytes::Bytes;
use key_broker_core::{CiphertextBlob, EncryptionContext, KeyArn, Plaintext};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::body::BodyOpener;
use crate::context;
use crate::error::{OpenError, SealError};
use crate::format::{FRAMED, IV_BYTES, MAX_HEADER_BYTES, MessageId, TAG_BYTES, VERSION};
use crate::keys::MessageKeys;
use crate::signature::Signed;
use crate::suite::Suite;
use parse::{Accepted, Parsed, parse};

/// A header as it was read. Nothing in it is authenticated until one of its `open` methods has verified its tag.
pub struct Header {
    /// All of it.
    bytes: Vec<u8>,
    /// How much of it the tag covers.
    body_bytes: usize,
    message_id: Vec<u8>,
    context: EncryptionContext,
    encrypted_data_keys: Vec<EncryptedDataKey>,
    facts: HeaderFacts,
    /// Empty where the suite does not commit.
    commitment: Vec<u8>,
    iv: [u8; IV_BYTES],
    tag: [u8; TAG_BYTES],
}

/// The facts of a header, for records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderFacts {
    /// SHA-256 of the header with its tag. It identifies the message, since no two messages have the same header.
    pub sha256: [u8; 32],
    /// The number of the header's bytes.
    pub length: usize,
    /// The algorithm suite.
    pub suite: Suite,
    /// The number of encrypted data keys.
    pub encrypted_data_keys: usize,
    /// The length of all frames but the last, in bytes: 1 to 1 MiB, or 0 for content without frames.
    pub frame_length: u32,
}

/// Reads a header from bytes as they come, in memory of at most 64 KiB.
#[derive(Default)]
pub struct HeaderReader {
    bytes: Vec<u8>,
    /// How many bytes there have to be before it makes sense to look at them again.
    needs: usize,
}

/// A data key as a message carries it: encrypted, with a note on who can decrypt it.
#[derive(Clone)]
pub struct EncryptedDataKey {
    provider_id: String,
    pub(crate) provider_info: Vec<u8>,
    pub(crate) ciphertext: Vec<u8>,
}

impl HeaderReader {
    /// Takes in the next `bytes` and leaves of them what comes after the header, which is given once it is whole. It may be of any
    /// [`Suite`], and of content with or without frames: which of them to open is for the caller to decide.
    pub fn push(&mut self, bytes: &mut &[u8]) -> Result<Option<Header>, OpenError> {
        loop {
            let missing = self.needs.saturating_sub(self.bytes.len());
            let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
            self.bytes.extend_from_slice(taken);
            *bytes = rest;
            if taken.len() < missing {
                return Ok(None);
            }
            match parse(&self.bytes, Accepted::Every)? {
                Parsed::Needs(bytes) => self.needs = bytes,
                Parsed::Header(header) => return Ok(Some(*header)),
            }
        }
    }
}

impl Header {
    /// Reads the header that `bytes` begin with, of what a [`Sealer`](crate::Sealer) writes, suite 0x0478 in frames, and leaves what
    /// follows it; others are refused by name. [`HeaderReader`] takes more.
    pub fn read(bytes: &mut &[u8]) -> Result<Self, OpenError> {
        match parse(bytes, Accepted::Sealed)? {
            Parsed::Needs(_) => Err(OpenError::CutOff(0)),
            Parsed::Header(header) => {
                *bytes = &bytes[header.facts.length..];
                Ok(*header)
            }
        }
    }

    /// The whole encryption context of the data key, as KMS needs it: with `aws-crypto-public-key` if the message is signed.
    /// Compare it with the expected one: KMS only proves that it fits the ciphertext.
    #[must_use]
    pub fn context(&self) -> &EncryptionContext {
        &self.context
    }

    /// The same without the names that the SDKs keep for themselves (`aws-crypto-…`): what their callers gave.
    #[must_use]
    pub fn callers_context(&self) -> EncryptionContext {
        context::without_reserved(&self.context)
    }

    /// The one data key, once or more: each under another KMS key. 1 to 64.
    #[must_use]
    pub fn encrypted_data_keys(&self) -> &[EncryptedDataKey] {
        &self.encrypted_data_keys
    }

    /// The facts for a record.
    #[must_use]
    pub fn facts(&self) -> HeaderFacts {
        self.facts
    }

    /// Checks commitment and tag with the decrypted data key, for a body that is given piece by piece. Content without frames has to
    /// be held whole: `max_unframed` is how many bytes of it are accepted.
    pub fn open_body(self, data_key: &Plaintext, max_unframed: u64) -> Result<BodyOpener, OpenError> {
        let keys = MessageKeys::derive(data_key, self.facts.suite, &self.message_id)?;
        if !keys.match_commitment(&self.commitment) {
            return Err(OpenError::Commitment);
        }
        keys.open(self.iv, &self.bytes[..self.body_bytes], &mut [], self.tag)
            .map_err(|_| OpenError::HeaderTag)?;
        let signed = if self.facts.suite.is_signed() {
            let mut signed = Signed::new(context::public_key(&self.context))?;
            signed.update(&self.bytes);
            Some(signed)
        } else {
            None
        };
        Ok(BodyOpener::new(keys, self.message_id, self.facts.frame_length, max_unframed, signed))
    }

    /// Opens a message that is in memory: `body` is all that comes after the header. Nothing is given out unless all of it is right,
    /// the signature too.
    pub fn open_whole(self, data_key: &Plaintext, body: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        self.open_body(data_key, u64::MAX)?.open_whole(body)
    }
}

impl EncryptedDataKey {
    /// A data key that KMS encrypted under `key`, noted as the SDKs' KMS keyrings note it (aws-kms-keyring.md).
    #[must_use]
    pub fn aws_kms(key: &KeyArn, ciphertext: &CiphertextBlob) -> Self {
        Self {
            provider_id: AWS_KMS.into(),
            provider_info: key.as_str().into(),
            ciphertext: ciphertext.as_bytes().into(),
        }
    }

    /// The KMS key and the ciphertext to send to KMS; `None` for a data key of another provider.
    #[must_use]
    pub fn for_kms(&self) -> Option<(KeyArn, CiphertextBlob)> {
        if self.provider_id != AWS_KMS {
            return None;
        }
        let key = KeyArn::parse(str::from_utf8(&self.provider_info).ok()?)?;
        Some((key, CiphertextBlob::parse(Bytes::copy_from_slice(&self.ciphertext)).ok()?))
    }
}

impl HeaderFacts {
    pub(crate) fn new(header: &[u8], suite: Suite, encrypted_data_keys: usize, frame_length: u32) -> Self {
        let sha256 = Sha256::digest(header).into();
        Self { sha256, length: header.len(), suite, encrypted_data_keys, frame_length }
    }
}

/// Everything before the tag (message-header.md, "Header Body Version 2.0").
pub(crate) fn write(
    message_id: &MessageId,
    context: &EncryptionContext,
    encrypted_data_keys: &[EncryptedDataKey],
    frame_length: u32,
    commitment: &[u8],
) -> Result<Vec<u8>, SealError> {
    let mut body = vec![VERSION];
    body.extend_from_slice(&Suite::Committed.id().to_be_bytes());
    body.extend_from_slice(&message_id.0);
    write_field(&mut body, &context::write(context)?)?;
    body.extend_from_slice(
        &u16::try_from(encrypted_data_keys.len()).map_err(|_| SealError::TooLong)?.to_be_bytes(),
    );
    for key in encrypted_data_keys {
        write_field(&mut body, key.provider_id.as_bytes())?;
        write_field(&mut body, &key.provider_info)?;
        write_field(&mut body, &key.ciphertext)?;
    }
    body.push(FRAMED);
    body.extend_from_slice(&frame_length.to_be_bytes());
    body.extend_from_slice(commitment);
    // Never write a header that could not be read back.
    if body.len() > MAX_HEADER_BYTES { Err(SealError::TooLong) } else { Ok(body) }
}

fn write_field(body: &mut Vec<u8>, field: &[u8]) -> Result<(), SealError> {
    let length = u16::try_from(field.len()).map_err(|_| SealError::TooLong)?;
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(field);
    Ok(())
}

/// The provider of KMS's data keys.
const AWS_KMS: &str = "aws-kms";
