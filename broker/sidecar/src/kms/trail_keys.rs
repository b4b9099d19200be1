//! KMS for the trail's own keys: the broker's own calls, each with its record in the journal.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use key_broker_core::{CiphertextBlob, DataKeyLength, EncryptionContext, KeyId};
use key_broker_trail::{DataKey, KeysError, KeysErrorKind, KmsPublicKey, TrailKeys};

use super::KmsErrorKind;
use super::recorded::{CallableRequest, RecordedKms, RecordedReply};
use crate::error::BrokerError;
use crate::operation::{DataKeyRequest, GrantTokens, PublicKeyRequest, SignRequest};
use crate::policy::own;

#[async_trait]
impl TrailKeys for RecordedKms {
    async fn data_key(&self, key: &KeyId, context: &EncryptionContext) -> Result<DataKey, KeysError> {
        let request = DataKeyRequest {
            key: key.clone().into(),
            length: DataKeyLength::Aes256,
            context: context.clone(),
            grant_tokens: GrantTokens::default(),
        };
        let reply = own_call(self, request).await?;
        let request_id = reply.source.as_ref().map(|source| String::from(&*source.request_id));
        // A log file is delivered only if the call for its data key has a record.
        reply.records.commit_for_the_trail().await.map_err(|_| BrokerError::JournalUnavailable)?;
        let made = reply.result?;
        let ciphertext =
            CiphertextBlob::parse(made.encrypted.ciphertext_blob).map_err(|malformed| KeysError {
                kind: KeysErrorKind::Refused,
                words: format!("KMS answers with no ciphertext: {}", malformed.0),
            })?;
        Ok(DataKey { key: made.encrypted.key.arn, plaintext: made.plaintext, ciphertext, request_id })
    }

    async fn sign(&self, key: &KeyId, digest: [u8; 32]) -> Result<(Vec<u8>, Option<String>), KeysError> {
        let reply = own_call(self, SignRequest { key: key.clone().into(), digest }).await?;
        let request_id = reply.source.as_ref().map(|source| String::from(&*source.request_id));
        // The record is in the backlog, or may still be written.
        let _ = reply.records.commit_for_the_trail().await;
        Ok((reply.result?.bytes, request_id))
    }

    async fn public_key(&self, key: &KeyId) -> Result<KmsPublicKey, KeysError> {
        let reply = own_call(self, PublicKeyRequest::from(key.clone())).await?;
        reply.records.commit_for_the_trail().await.map_err(|_| BrokerError::JournalUnavailable)?;
        let public = reply.result?;
        Ok(KmsPublicKey { key: public.key.arn, spki: public.spki })
    }
}

async fn own_call<R: CallableRequest>(
    kms: &RecordedKms,
    request: R,
) -> Result<RecordedReply<R::Reply>, BrokerError> {
    let permitted: crate::policy::Permitted<Arc<R>> = own::permit(request)?;
    Ok(kms.call_for_the_trail(permitted, kms.clock().instant() + DEADLINE).await)
}

impl From<BrokerError> for KeysError {
    fn from(error: BrokerError) -> Self {
        let kind = match &error {
            BrokerError::Kms(kms) => match kms.kind {
                kind if kind.is_transient() => KeysErrorKind::Passing,
                KmsErrorKind::InvalidKeyUsage | KmsErrorKind::Validation => KeysErrorKind::WrongKey,
                _ => KeysErrorKind::Refused,
            },
            _ => KeysErrorKind::Passing,
        };
        Self { kind, words: error.describe() }
    }
}

/// Covers the SDK's attempts and pauses.
const DEADLINE: Duration = Duration::from_secs(30);
