//! The public keys that verify digests.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use key_broker_core::KeyId;
use key_broker_trail::PublicKey;
use key_broker_trail::delivery::{SigningConfig, public_key_of};

use super::Source;
use crate::cli::audit::Failure;
use crate::kms::auditor::AuditorKms;

/// Which key that is, if not the one that the broker is configured with.
#[derive(Debug, Args)]
pub(in crate::cli::audit) struct SigningKey {
    /// The public half of a key that signed digests, as PEM; may be given more than once
    #[arg(long, value_name = "FILE")]
    public_key: Vec<PathBuf>,
    /// The KMS key that signs digests; its public half is fetched from KMS
    #[arg(long, value_name = "KEY", value_parser = parse_key, conflicts_with = "public_key")]
    signing_key_id: Option<KeyId>,
}

impl Source {
    /// The keys that verify digests: the given ones, or those of the broker's configuration.
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
                Failure::Configuration(format!("{error}: give its public half with --public-key FILE"))
            })?,
            Some(SigningConfig::Kms(key)) => self.ask_kms(key).await?,
            None => {
                return Err(Failure::Configuration(
                    "no key to check digests with: give --public-key FILE (as `key-broker audit public-key` prints it) or \
                     --signing-key-id KEY"
                        .into(),
                ));
            }
        };
        Ok(vec![key])
    }

    /// Asks KMS, and records that.
    async fn ask_kms(&self, key: &KeyId) -> Result<PublicKey, Failure> {
        self.records.open().map_err(Failure::Configuration)?;
        let caller = match &self.caller {
            Some(caller) => Arc::clone(caller),
            None => Arc::new(self.kms.caller().await.map_err(|error| {
                Failure::Unavailable(format!(
                    "sts:GetCallerIdentity: {error}: give AWS credentials that may ask KMS for the key, or give --public-key FILE"
                ))
            })?),
        };
        let kms = AuditorKms::with_records(Arc::clone(&self.kms), caller, Arc::clone(&self.records));
        let answer = kms.public_key(key).await.map_err(|error| {
            Failure::Unavailable(format!(
                "kms:GetPublicKey of {}: {error}: check the key, your AWS credentials and your way to KMS, or give --public-key FILE",
                key.as_str(),
            ))
        })?;
        PublicKey::from_spki(&answer.spki)
            .map_err(|error| Failure::Unavailable(format!("{}: {error}", key.as_str())))
    }
}

fn parse_key(text: &str) -> Result<KeyId, String> {
    KeyId::parse(text).map_err(|malformed| malformed.0)
}

fn from_file(file: &Path) -> Result<PublicKey, Failure> {
    let explain = |error: &dyn std::fmt::Display| {
        Failure::Configuration(format!("--public-key {}: {error}", file.display()))
    };
    let pem = fs::read(file).map_err(|error| explain(&error))?;
    PublicKey::from_pem(&pem).map_err(|error| explain(&error))
}
