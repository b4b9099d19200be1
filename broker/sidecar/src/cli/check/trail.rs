//! The trail's part: its store, and its two keys.

use super::{Report, ask_kms, may_generate_data_key, writable};
use crate::error::BrokerError;
use crate::kms::aws::AwsKms;
use crate::operation::{self, PublicKeyRequest};
use key_broker_core::KeyId;
use key_broker_trail::delivery::{SigningConfig, StoreConfig, TrailConfig, names, public_key_of};
use key_broker_trail::record::AwsCaller;
use key_broker_trail::{PublicKey, path_context};

/// Checks what can be checked without writing into the store. Without `caller`, the key's encryption context is not known.
pub(super) async fn check(
    config: &TrailConfig,
    kms: &AwsKms,
    caller: Option<&AwsCaller>,
    report: &mut Report,
) {
    report.line("trail", &store(&config.store));
    report.line("signing key", &signing_key(&config.signing, kms).await);
    let own_key = match (&config.kms_key, caller) {
        (None, _) => Ok("none: log files are not encrypted by the broker".to_owned()),
        (Some(_), None) => Err("cannot be asked for without credentials".to_owned()),
        (Some(key), Some(caller)) => match path_context(&names(config, caller)) {
            Ok(context) => may_generate_data_key(kms, key, &context).await,
            Err(malformed) => Err(malformed.0),
        },
    };
    report.line("trail's key", &own_key);
}

fn store(store: &StoreConfig) -> Result<String, String> {
    match store {
        StoreConfig::Directory { root, bucket } => writable(&root.join(bucket)),
        StoreConfig::S3(settings) => {
            Ok(format!("S3 bucket {}: not tried, since only a delivery would tell", settings.bucket))
        }
    }
}

async fn signing_key(signing: &SigningConfig, kms: &AwsKms) -> Result<String, String> {
    match signing {
        SigningConfig::File(path) => {
            let public = public_key_of(path).map_err(|error| error.to_string())?;
            Ok(format!("{}, fingerprint {}", path.display(), public.fingerprint()))
        }
        SigningConfig::Kms(key) => public_key(key, kms).await,
    }
}

async fn public_key(key: &KeyId, kms: &AwsKms) -> Result<String, String> {
    let reply = ask_kms(kms, PublicKeyRequest::from(key.clone()), key).await?;
    let answer = operation::PublicKey::try_from(reply).map_err(|_| BrokerError::Bug.describe())?;
    let public = PublicKey::from_spki(&answer.spki).map_err(|error| format!("{}: {error}", key.as_str()))?;
    Ok(format!("{}, fingerprint {}; Sign itself is not tried", key.as_str(), public.fingerprint()))
}
