//! What digests are checked with.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use key_broker_core::{KeyArn, KeyId};
use key_broker_trail::delivery::{SigningConfig, public_key_of};
use key_broker_trail::{PublicKey, leave_in_inbox};

use super::Source;
use crate::cli::audit::Failure;
use crate::cli::audit::output::note;
use crate::error::BrokerError;
use crate::kms::recorded::append_record;
use crate::kms::{Attempt, AttemptLog, Kms as _};
use crate::operation::{self, KeyedReply as _, KmsReply, KmsRequest, PublicKeyRequest};
use crate::policy::{Permitted, own};

/// Which key that is, if not the one that the broker is configured with.
#[derive(Debug, Args)]
pub(in crate::cli::audit) struct SigningKey {
    /// The public half of a key that signed digests, as PEM; may be given more than once
    #[arg(long, value_name = "FILE")]
    public_key: Vec<PathBuf>,
    /// The KMS key that signs digests: KMS is asked for its public half
    #[arg(long, value_name = "KEY", value_parser = parse_key, conflicts_with = "public_key")]
    signing_key_id: Option<KeyId>,
}

impl Source {
    /// What digests are checked with: what was told, else as the broker is configured.
    pub(in crate::cli::audit) async fn public_keys(
        &self,
        told: &SigningKey,
    ) -> Result<Vec<PublicKey>, Failure> {
        if !told.public_key.is_empty() {
            return told.public_key.iter().map(|file| from_file(file)).collect();
        }
        let told = told.signing_key_id.clone().map(SigningConfig::Kms);
        let key = match told.as_ref().or(self.signing.as_ref()) {
            Some(SigningConfig::File(path)) => public_key_of(path).map_err(|error| {
                Failure::Unavailable(format!("{error}: give its public half with --public-key FILE"))
            })?,
            Some(SigningConfig::Kms(key)) => self.ask_kms(key).await?,
            None => {
                return Err(Failure::Unavailable(
                    "no key to check digests with: give --public-key FILE (as `key-broker audit public-key` prints it) or \
                     --signing-key-id KEY"
                        .into(),
                ));
            }
        };
        Ok(vec![key])
    }

    /// Asks KMS, and leaves the record of that for the broker.
    async fn ask_kms(&self, key: &KeyId) -> Result<PublicKey, Failure> {
        let attempts = AttemptLog::default();
        let permitted = own::permit(PublicKeyRequest::from(key.clone()))
            .map_err(|error| Failure::Unavailable(error.describe()))?
            .widen();
        let result = self.kms.call(permitted.clone(), &attempts).await;
        let answered = attempts.take();
        let result = answered.checked(result);
        let used_key = result.as_ref().ok().and_then(KmsReply::used_key);
        for attempt in answered.attempts {
            self.leave_record(&permitted, &attempt, used_key);
        }
        let answer = result.map_err(|error| {
            Failure::Unavailable(format!(
                "kms:GetPublicKey of {}: {}: check the key, your AWS credentials and your way to KMS, or give --public-key FILE",
                key.as_str(),
                BrokerError::Kms(error).describe()
            ))
        })?;
        let answer = operation::PublicKey::try_from(answer)
            .map_err(|_| Failure::Unavailable(BrokerError::Bug.describe()))?;
        PublicKey::from_spki(&answer.spki)
            .map_err(|error| Failure::Unavailable(format!("{}: {error}", key.as_str())))
    }

    fn leave_record(
        &self,
        permitted: &Permitted<KmsRequest>,
        attempt: &Attempt,
        used_key: Option<(&KeyArn, Option<&str>)>,
    ) {
        let (Some(caller), Some(journal_dir)) = (&self.caller, self.journal_dir.as_ref()) else { return };
        let mut line = Vec::new();
        let _ = append_record(&mut line, caller, permitted, attempt, used_key);
        if journal_dir.is_dir()
            && let Err(error) = leave_in_inbox(journal_dir, &line)
        {
            note(format_args!("the record of GetPublicKey cannot be left for the broker: {error}"));
        }
    }
}

fn parse_key(text: &str) -> Result<KeyId, String> {
    KeyId::parse(text).map_err(|malformed| malformed.0)
}

fn from_file(file: &Path) -> Result<PublicKey, Failure> {
    let explain = |error: &dyn std::fmt::Display| {
        Failure::Unavailable(format!("--public-key {}: {error}", file.display()))
    };
    let pem = fs::read(file).map_err(|error| explain(&error))?;
    PublicKey::from_pem(&pem).map_err(|error| explain(&error))
}
