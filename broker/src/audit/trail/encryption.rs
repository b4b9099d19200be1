//! Log files encrypted under a KMS key, as CloudTrail has S3 do it: one data key for each file, bound to trail and object
//! (seed "How AWS CloudTrail uses AWS KMS", step "CloudTrail puts a log file into your S3 bucket").

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use crate::audit::names::TrailNames;
use crate::envelope::{EncryptedDataKey, MessageId, Sealer};
use crate::error::BrokerError;
use crate::key::{CiphertextBlob, DataKeyLength, EncryptionContext, GrantTokens, KeyArn, KeyId, Malformed};
use crate::kms::recorded::RecordedKms;
use crate::kms::{DataKey, DataKeyRequest, UsedKey};

/// Encrypts under one KMS key.
pub(super) struct Encryption {
    kms: RecordedKms,
    key: KeyArn,
}

impl Encryption {
    pub(super) fn new(kms: RecordedKms, key: KeyArn) -> Self {
        Self { kms, key }
    }

    /// The log file `key` with these bytes, as a message of the AWS Encryption SDK.
    pub(super) async fn encrypt(
        &self,
        names: &TrailNames,
        object: &str,
        bytes: Vec<u8>,
    ) -> Result<Vec<u8>, String> {
        let context = object_context(names, object).map_err(|malformed| malformed.0)?;
        let request = data_key_request((&self.key).into(), context.clone());
        let data_key = ask(&self.kms, request).await.map_err(|error| {
            format!("the data key for a log file, under {}: {}", self.key, error.describe())
        })?;
        let sealed = tokio::task::spawn_blocking(move || seal(&data_key, &context, &bytes)).await;
        // The data key went with the closure: it is erased.
        sealed.map_err(|_| "the encryption of a log file was cut off".to_owned())?
    }
}

fn seal(data_key: &DataKey, context: &EncryptionContext, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let explain = |error: &dyn std::fmt::Display| format!("cannot encrypt a log file: {error}");
    let UsedKey { arn, .. } = &data_key.encrypted.key;
    let blob = CiphertextBlob::parse(data_key.encrypted.ciphertext_blob.clone())
        .map_err(|malformed| explain(&malformed.0))?;
    let encrypted = EncryptedDataKey::aws_kms(arn, &blob);
    let message_id = MessageId::random().map_err(|error| explain(&error))?;
    let message = Vec::with_capacity(bytes.len() + bytes.len() / 64 + 1_024);
    let mut sealer = Sealer::new(message, &data_key.plaintext, encrypted, context, message_id)
        .map_err(|error| explain(&error))?;
    sealer.write_all(bytes).map_err(|error| explain(&error))?;
    sealer.finish().map_err(|error| explain(&error))
}

/// Asks KMS for the data key of a log file, or to see that it may (the data key is erased then).
pub(super) async fn ask(
    kms: &RecordedKms,
    request: Arc<DataKeyRequest>,
) -> Result<DataKey, BrokerError> {
    let until = kms.clock().instant() + DEADLINE;
    let answered = kms.own_data_key(request, until).await;
    // A file whose key has no record is not delivered; what the journal cannot commit it owes.
    match answered.records.commit().await {
        Ok(()) => answered.result,
        Err(_) => Err(BrokerError::JournalUnavailable),
    }
}

pub(super) fn data_key_request(key: KeyId, context: EncryptionContext) -> Arc<DataKeyRequest> {
    Arc::new(DataKeyRequest {
        key: key.into(),
        length: DataKeyLength::Aes256,
        context,
        grant_tokens: GrantTokens::default(),
    })
}

/// The encryption context of a log file.
pub fn object_context(names: &TrailNames, object: &str) -> Result<EncryptionContext, Malformed> {
    context(names, names.object_arn(object))
}

/// The encryption context of the question whether the key may be used, when a trail is configured.
pub fn path_context(names: &TrailNames) -> Result<EncryptionContext, Malformed> {
    context(names, names.path_arn())
}

fn context(names: &TrailNames, s3_arn: String) -> Result<EncryptionContext, Malformed> {
    EncryptionContext::parse(BTreeMap::from([
        (TRAIL_ARN.to_owned(), names.trail_arn()),
        (S3_ARN.to_owned(), s3_arn),
    ]))
}

/// CloudTrail's names in the encryption context.
pub const TRAIL_ARN: &str = "aws:cloudtrail:arn";
const S3_ARN: &str = "aws:s3:arn";
/// With the SDK's attempts and pauses.
const DEADLINE: Duration = Duration::from_secs(30);
