//! "You get an encrypted log file" in AWS's
//! [How AWS CloudTrail uses AWS KMS](https://docs.aws.amazon.com/awscloudtrail/latest/userguide/how-kms-works-with-cloudtrail.html):
//! whoever reads an encrypted log file has KMS decrypt its data key, with the trail and the object in the encryption context. That call is recorded before anything of the file is shown.

use std::path::PathBuf;
use std::sync::Arc;

use key_broker_core::{Action, GrantTokens, KeyId, Plaintext};

use super::ReadFailure;
use crate::audit::inbox;
use crate::audit::names::TrailNames;
use crate::audit::trail::object_context;
use crate::envelope::{EncryptedDataKey, Header};
use crate::error::BrokerError;
use crate::kms::caller::AwsCaller;
use crate::kms::{Answer, Answers, Asked, DecryptRequest, Kms, Uses as _};
use crate::policy::Permit;

/// Asks KMS for the data keys of log files, one call for each file, and records each answer.
pub struct Decrypter {
    kms: Arc<dyn Kms>,
    caller: Arc<AwsCaller>,
    journal_dir: Option<PathBuf>,
}

/// The data key of one log file.
pub(super) struct Opened {
    pub(super) data_key: Plaintext,
    /// Records that could not be left for the broker.
    pub(super) unrecorded: Vec<u8>,
}

impl Decrypter {
    /// Asks `kms` as `caller`. Records are left in the broker's `journal_dir`; where there is none, as on an auditor's machine,
    /// they are given back with what was read.
    #[must_use]
    pub fn new(kms: Arc<dyn Kms>, caller: Arc<AwsCaller>, journal_dir: Option<PathBuf>) -> Self {
        Self { kms, caller, journal_dir }
    }

    /// The data key of the log file `object`, whose message begins with `header`.
    pub(super) async fn data_key(
        &self,
        names: &TrailNames,
        object: &str,
        header: &Header,
    ) -> Result<Opened, ReadFailure> {
        let context =
            object_context(names, object).map_err(|malformed| ReadFailure::Malformed(malformed.0))?;
        // KMS only tells that a context fits its ciphertext: one of another object would, too.
        if *header.context() != context {
            return Err(ReadFailure::Malformed(format!(
                "encrypted for another object or trail ({:?}): moved here, or the trail is called otherwise",
                header.context().pairs()
            )));
        }
        let Some((key, ciphertext)) = header.encrypted_data_keys().iter().find_map(EncryptedDataKey::for_kms)
        else {
            return Err(ReadFailure::Malformed("no data key in it is for KMS".into()));
        };
        let request = Arc::new(DecryptRequest {
            ciphertext,
            context,
            key: Some(KeyId::from(&key).into()),
            grant_tokens: GrantTokens::default(),
        });
        let answers = Answers::default();
        let permit = Permit::for_own_use(Action::Decrypt);
        let result = self.kms.decrypt(permit, &request, &answers).await;
        let used_key = result.as_ref().ok().and_then(|decrypted| decrypted.used_key());
        let asked = Asked::OwnDecrypt(Arc::clone(&request));
        let mut unrecorded = Vec::new();
        for answer in answers.take() {
            let line = self.record(&asked, &answer, used_key);
            unrecorded.extend(self.leave(line).await.err().unwrap_or_default());
        }
        match result {
            Ok(decrypted) => Ok(Opened { data_key: decrypted.plaintext, unrecorded }),
            Err(error) => Err(ReadFailure::Locked(format!(
                "KMS does not decrypt its data key under {key}: {}",
                BrokerError::Kms(error).describe()
            ))),
        }
    }

    fn record(
        &self,
        asked: &Asked,
        answer: &Answer,
        used_key: Option<(&key_broker_core::KeyArn, Option<&str>)>,
    ) -> Vec<u8> {
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
