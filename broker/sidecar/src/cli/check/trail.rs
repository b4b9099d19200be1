//! The trail's part: its store, and its two keys.

use key_broker_core::{Action, KeyId};

use super::{Report, may_generate_data_key, refused, writable};
use crate::audit::signature::PublicKey;
use crate::audit::trail::{SigningConfig, StoreConfig, TrailConfig, names, path_context, signer_from};
use crate::kms::aws::AwsKms;
use crate::kms::caller::AwsCaller;
use crate::kms::{Answers, Kms as _};
use crate::policy::Permit;

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
            let signer = signer_from(path).map_err(|error| error.to_string())?;
            Ok(format!("{}, fingerprint {}", path.display(), signer.public_key().fingerprint()))
        }
        SigningConfig::Kms(key) => public_key(key, kms).await,
    }
}

async fn public_key(key: &KeyId, kms: &AwsKms) -> Result<String, String> {
    let permit = Permit::for_own_use(Action::DescribeKey);
    let answer = kms.public_key(permit, key, &Answers::default()).await;
    let answer = answer.map_err(|error| refused("GetPublicKey", key, error))?;
    let public = PublicKey::from_spki(&answer.spki).map_err(|error| format!("{}: {error}", key.as_str()))?;
    Ok(format!("{}, fingerprint {}; Sign itself is not tried", key.as_str(), public.fingerprint()))
}
