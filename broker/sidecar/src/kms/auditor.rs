//! KMS as an auditor's command asks it: each answer is recorded, and the record left for the broker.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use key_broker_core::{CiphertextBlob, EncryptionContext, GrantTokens, KeyArn, KeyId};
use key_broker_trail::record::AwsCaller;
use key_broker_trail::{DecryptedDataKey, Decrypter, KeysError, leave_in_inbox};

use super::aws::AwsKms;
use super::recorded::append_record;
use super::{AttemptLog, Kms};
use crate::error::BrokerError;
use crate::operation::{self, DecryptRequest, KeyedReply as _, KmsReply};
use crate::policy::own;

/// Asks KMS for the data keys of log files, one call for each file, and records each answer.
pub struct AuditorKms {
    kms: Arc<AwsKms>,
    caller: Arc<AwsCaller>,
    journal_dir: Option<PathBuf>,
}

impl AuditorKms {
    /// Asks `kms` as `caller`. Records are left in the broker's `journal_dir`; where there is none, as on an auditor's machine,
    /// they are given back with what was read.
    #[must_use]
    pub fn new(kms: Arc<AwsKms>, caller: Arc<AwsCaller>, journal_dir: Option<PathBuf>) -> Self {
        Self { kms, caller, journal_dir }
    }

    /// Leaves a record for the broker; gives it back where that cannot be.
    async fn leave(&self, line: Vec<u8>) -> Result<(), Vec<u8>> {
        let Some(dir) = self.journal_dir.clone().filter(|dir| dir.is_dir()) else { return Err(line) };
        let kept = line.clone();
        let left = tokio::task::spawn_blocking(move || leave_in_inbox(&dir, &kept)).await;
        match left {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot leave the record of a decrypt for the broker");
                Err(line)
            }
            Err(_) => Err(line),
        }
    }
}

#[async_trait]
impl Decrypter for AuditorKms {
    async fn decrypt(
        &self,
        ciphertext: CiphertextBlob,
        key: &KeyArn,
        context: EncryptionContext,
    ) -> Result<DecryptedDataKey, KeysError> {
        let request = DecryptRequest {
            ciphertext,
            context,
            key: Some(KeyId::from(key).into()),
            grant_tokens: GrantTokens::default(),
        };
        let permitted = own::permit(request)?.widen();
        let attempts = AttemptLog::default();
        let result = self.kms.call(permitted.clone(), &attempts).await;
        let answered = attempts.take();
        let result = answered.checked(result);
        let used_key = result.as_ref().ok().and_then(KmsReply::used_key);
        let mut unrecorded = Vec::new();
        for attempt in answered.attempts {
            let mut line = Vec::new();
            let _ = append_record(&mut line, &self.caller, &permitted, &attempt, used_key);
            unrecorded.extend(self.leave(line).await.err().unwrap_or_default());
        }
        let reply = result.map_err(BrokerError::Kms)?;
        let decrypted = operation::Decryption::try_from(reply).map_err(|_| BrokerError::Bug)?;
        Ok(DecryptedDataKey { plaintext: decrypted.plaintext, unrecorded })
    }
}
