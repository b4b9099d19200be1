//! KMS for auditors' commands: every answer is recorded in the auditor's own file before it is used.

mod reader_records;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use key_broker_core::{CiphertextBlob, EncryptionContext, KeyArn, KeyId, Plaintext};
use key_broker_trail::record::AwsCaller;
use key_broker_trail::{Decrypter, KeysError, KeysErrorKind};

use super::aws::AwsKms;
use super::recorded::append_record;
use super::{AttemptLog, Kms};
use crate::error::BrokerError;
use crate::operation::{self, DecryptRequest, GrantTokens, KmsReply, PublicKeyRequest, TypedRequest};
use crate::policy::own;
pub(crate) use reader_records::ReaderRecords;

/// Asks KMS for what reading a trail takes: the data keys of log files, one call for each, and the public signing key.
pub struct AuditorKms {
    kms: Arc<AwsKms>,
    caller: Arc<AwsCaller>,
    records: Arc<ReaderRecords>,
}

impl AuditorKms {
    /// Asks `kms` as `caller` and records each answer in the file `record_to`.
    #[must_use]
    pub fn new(kms: Arc<AwsKms>, caller: Arc<AwsCaller>, record_to: PathBuf) -> Self {
        Self::with_records(kms, caller, Arc::new(ReaderRecords::new(Some(record_to), Vec::new())))
    }

    /// The same for a reader that may not need KMS at all.
    #[must_use]
    pub(crate) fn with_records(
        kms: Arc<AwsKms>,
        caller: Arc<AwsCaller>,
        records: Arc<ReaderRecords>,
    ) -> Self {
        Self { kms, caller, records }
    }

    /// GetPublicKey.
    pub(crate) async fn public_key(&self, key: &KeyId) -> Result<operation::PublicKey, KeysError> {
        let reply = self.ask(PublicKeyRequest::from(key.clone())).await?;
        operation::PublicKey::try_from(reply).map_err(|_| BrokerError::Bug.into())
    }

    /// Calls KMS only if its answer can be recorded, and returns the answer once it is.
    async fn ask<R: TypedRequest>(&self, request: R) -> Result<KmsReply, KeysError> {
        self.on_disk(ReaderRecords::open).await?;
        let permitted = own::permit(request)?.widen();
        let attempts = AttemptLog::default();
        let result = self.kms.call(permitted.clone(), &attempts).await;
        let answered = attempts.take();
        let result = answered.checked(result);
        let used_keys = result.as_ref().map_or([None, None], KmsReply::used_keys);
        let mut lines = Vec::new();
        for attempt in answered.attempts {
            // The trail's own encryption contexts are never redacted.
            let _ = append_record(&mut lines, &self.caller, None, &permitted, &attempt, used_keys);
        }
        self.on_disk(move |records| records.append(&lines)).await?;
        Ok(result.map_err(BrokerError::Kms)?)
    }

    async fn on_disk(
        &self,
        work: impl FnOnce(&ReaderRecords) -> Result<(), String> + Send + 'static,
    ) -> Result<(), KeysError> {
        let records = Arc::clone(&self.records);
        let done = tokio::task::spawn_blocking(move || work(&records)).await;
        let done = done.unwrap_or_else(|_| Err("the work on the reader's records was cut off".into()));
        done.map_err(|words| KeysError { kind: KeysErrorKind::Passing, words })
    }
}

#[async_trait]
impl Decrypter for AuditorKms {
    async fn decrypt(
        &self,
        ciphertext: CiphertextBlob,
        key: &KeyArn,
        context: EncryptionContext,
    ) -> Result<Plaintext, KeysError> {
        let request = DecryptRequest {
            ciphertext,
            context,
            key: Some(KeyId::from(key).into()),
            grant_tokens: GrantTokens::default(),
        };
        let reply = self.ask(request).await?;
        let decrypted = operation::Decryption::try_from(reply).map_err(|_| BrokerError::Bug)?;
        Ok(decrypted.plaintext)
    }
}
