//! KMS as an auditor's command asks it: each answer is recorded, and the record left for the broker.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use key_broker_core::{Action, CiphertextBlob, EncryptionContext, GrantTokens, KeyArn, KeyId};
use key_broker_trail::inbox;
use key_broker_trail::keys::{Decrypted, Decrypter, KeysError};

use super::caller::AwsCaller;
use super::{Answer, Answers, Asked, DecryptRequest, Kms, Uses as _};
use crate::error::BrokerError;
use crate::policy::Permit;

/// Asks KMS for the data keys of log files, one call for each file, and records each answer.
pub struct AuditorKms {
    kms: Arc<dyn Kms>,
    caller: Arc<AwsCaller>,
    journal_dir: Option<PathBuf>,
}

impl AuditorKms {
    /// Asks `kms` as `caller`. Records are left in the broker's `journal_dir`; where there is none, as on an auditor's machine,
    /// they are given back with what was read.
    #[must_use]
    pub fn new(kms: Arc<dyn Kms>, caller: Arc<AwsCaller>, journal_dir: Option<PathBuf>) -> Self {
        Self { kms, caller, journal_dir }
    }

    fn record(&self, asked: &Asked, answer: &Answer, used_key: Option<(&KeyArn, Option<&str>)>) -> Vec<u8> {
        let mut line = Vec::new();
        let _ = self.caller.record(&mut line, Action::Decrypt.name(), asked, answer, used_key, None);
        line
    }

    /// Leaves a record for the broker; gives it back where that cannot be.
    async fn leave(&self, line: Vec<u8>) -> Result<(), Vec<u8>> {
        let Some(dir) = self.journal_dir.clone().filter(|dir| dir.is_dir()) else { return Err(line) };
        let kept = line.clone();
        let left = tokio::task::spawn_blocking(move || inbox::leave(&dir, &kept)).await;
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
    ) -> Result<Decrypted, KeysError> {
        let request = Arc::new(DecryptRequest {
            ciphertext,
            context,
            key: Some(KeyId::from(key).into()),
            grant_tokens: GrantTokens::default(),
        });
        let answers = Answers::default();
        let permit = Permit::for_own_use(Action::Decrypt);
        let result = self.kms.decrypt(permit, &request, &answers).await;
        let used_key = result.as_ref().ok().and_then(|decrypted| decrypted.used_key());
        let asked = Asked::OwnDecrypt(request);
        let mut unrecorded = Vec::new();
        for answer in answers.take() {
            let line = self.record(&asked, &answer, used_key);
            unrecorded.extend(self.leave(line).await.err().unwrap_or_default());
        }
        let decrypted = result.map_err(BrokerError::Kms)?;
        Ok(Decrypted { plaintext: decrypted.plaintext, unrecorded })
    }
}
