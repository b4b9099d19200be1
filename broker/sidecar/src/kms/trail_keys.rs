//! KMS as the trail's keys need it: the broker's own calls, each with its record in the journal.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use key_broker_core::{CiphertextBlob, DataKeyLength, EncryptionContext, GrantTokens, KeyId};
use key_broker_trail::keys::{DataKey, KeysError, KeysErrorKind, KmsPublicKey, TrailKeys};

use super::recorded::RecordedKms;
use super::{DataKeyRequest, KmsErrorKind};
use crate::error::BrokerError;

#[async_trait]
impl TrailKeys for RecordedKms {
    async fn data_key(&self, key: &KeyId, context: &EncryptionContext) -> Result<DataKey, KeysError> {
        let request = Arc::new(DataKeyRequest {
            key: key.clone().into(),
            length: DataKeyLength::Aes256,
            context: context.clone(),
            grant_tokens: GrantTokens::default(),
        });
        let answered = self.own_data_key(request, deadline(self)).await;
        // A file whose key has no record is not delivered; what the journal cannot commit it owes.
        answered.records.commit().await.map_err(|_| BrokerError::JournalUnavailable)?;
        let made = answered.result?;
        let ciphertext =
            CiphertextBlob::parse(made.encrypted.ciphertext_blob).map_err(|malformed| KeysError {
                kind: KeysErrorKind::Refused,
                words: format!("KMS answers with no ciphertext: {}", malformed.0),
            })?;
        Ok(DataKey { key: made.encrypted.key.arn, plaintext: made.plaintext, ciphertext })
    }

    async fn sign(&self, key: &KeyId, digest: [u8; 32]) -> Result<Vec<u8>, KeysError> {
        let signed = RecordedKms::sign(self, key.clone(), digest, deadline(self)).await;
        // The journal owes what it cannot commit.
        let _ = signed.records.commit().await;
        Ok(signed.result?.bytes)
    }

    async fn public_key(&self, key: &KeyId) -> Result<KmsPublicKey, KeysError> {
        let answered = RecordedKms::public_key(self, key.clone(), deadline(self)).await;
        answered.records.commit().await.map_err(|_| BrokerError::JournalUnavailable)?;
        let public = answered.result?;
        Ok(KmsPublicKey { key: public.key.arn, spki: public.spki })
    }
}

fn deadline(kms: &RecordedKms) -> Instant {
    kms.clock().instant() + DEADLINE
}

impl From<BrokerError> for KeysError {
    fn from(error: BrokerError) -> Self {
        let kind = match &error {
            BrokerError::Kms(kms) => match kms.kind {
                KmsErrorKind::Unavailable | KmsErrorKind::Throttled => KeysErrorKind::Passing,
                KmsErrorKind::InvalidKeyUsage | KmsErrorKind::Validation => KeysErrorKind::WrongKey,
                _ => KeysErrorKind::Refused,
            },
            _ => KeysErrorKind::Passing,
        };
        Self { kind, words: error.describe() }
    }
}

/// With the SDK's attempts and pauses.
const DEADLINE: Duration = Duration::from_secs(30);
