//! Encrypts log files under a KMS key as CloudTrail has S3 do it: a data key for each file, bound to trail and object
//! ("How AWS CloudTrail uses AWS KMS", step "CloudTrail puts a log file into your S3 bucket").

use std::io::Write as _;
use std::sync::Arc;

use key_broker_core::{EncryptionContext, KeyArn};
use key_broker_envelope::{EncryptedDataKey, Sealer};

use crate::encryption_context::object_context;
use crate::keys::{DataKey, TrailKeys};
use crate::names::TrailNames;

/// Encrypts under one KMS key.
pub(super) struct Encryption {
    keys: Arc<dyn TrailKeys>,
    key: KeyArn,
    /// The log file being delivered: repeated attempts reuse it, and need no other data key.
    current: Option<(String, Sealed)>,
}

/// An encrypted log file.
#[derive(Clone)]
pub(super) struct Sealed {
    /// A message of the AWS Encryption SDK.
    pub(super) bytes: Vec<u8>,
    /// The requestID of the GenerateDataKey behind it.
    pub(super) data_key_request_id: Option<String>,
}

impl Encryption {
    pub(super) fn new(keys: Arc<dyn TrailKeys>, key: KeyArn) -> Self {
        Self { keys, key, current: None }
    }

    /// Encrypts the log file `object` with these bytes.
    pub(super) async fn encrypt(
        &mut self,
        names: &TrailNames,
        object: &str,
        bytes: Vec<u8>,
    ) -> Result<Sealed, String> {
        if let Some((of, sealed)) = &self.current
            && of == object
        {
            return Ok(sealed.clone());
        }
        let context = object_context(names, object).map_err(|malformed| malformed.0)?;
        let made = self.keys.data_key(&(&self.key).into(), &context).await;
        let made =
            made.map_err(|error| format!("the data key for a log file, under {}: {error}", self.key))?;
        let data_key_request_id = made.request_id.clone();
        let work = tokio::task::spawn_blocking(move || seal(&made, &context, &bytes));
        let bytes = work.await.map_err(|_| "the encryption of a log file was cut off".to_owned())??;
        let (_, sealed) = self.current.insert((object.to_owned(), Sealed { bytes, data_key_request_id }));
        Ok(sealed.clone())
    }

    /// Forgets the log file, which is in the store.
    pub(super) fn end(&mut self) {
        self.current = None;
    }
}

fn seal(data_key: &DataKey, context: &EncryptionContext, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let explain = |error: &dyn std::fmt::Display| format!("cannot encrypt a log file: {error}");
    let encrypted = EncryptedDataKey::aws_kms(&data_key.key, &data_key.ciphertext);
    let message = Vec::with_capacity(bytes.len() + bytes.len() / 64 + 1_024);
    let mut sealer =
        Sealer::new(message, &data_key.plaintext, encrypted, context).map_err(|error| explain(&error))?;
    sealer.write_all(bytes).map_err(|error| explain(&error))?;
    sealer.finish().map_err(|error| explain(&error))
}
