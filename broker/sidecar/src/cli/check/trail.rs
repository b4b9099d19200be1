//! What the trail needs: its store, and its two keys.

use key_broker_core::{DataKeyLength, EncryptionContext, KeyId};
use key_broker_trail::delivery::{SigningConfig, StoreConfig, TrailConfig, names, probe, public_key_of};
use key_broker_trail::record::AwsCaller;
use key_broker_trail::{PublicKey, path_context};

use super::host::try_folder;
use super::keys::{ask_kms, may, refused};
use super::report::{Finding, Report};
use crate::error::BrokerError;
use crate::kms::aws::AwsKms;
use crate::operation::{self, DryRunOf, PublicKeyRequest};

/// Checks a directory as a store.
pub(super) fn check_directory(config: &TrailConfig, report: &mut Report) {
    let StoreConfig::Directory { root, bucket } = &config.store else { return };
    let folder = root.join(bucket);
    let found = match try_folder(&folder) {
        Ok(note) => Ok(format!("{}{note}", folder.display())),
        Err(error) => Err(format!(
            "audit.store.directory: {}: {error}: the broker's user cannot create or write it: allow it, or choose another",
            folder.display()
        )),
    };
    report.add("trail", found);
}

/// Checks what AWS has to allow. Without `caller`, the names of objects and the key's encryption context are not known.
pub(super) async fn check(
    config: &TrailConfig,
    kms: &AwsKms,
    caller: Option<&AwsCaller>,
    writes: bool,
    report: &mut Report,
) {
    if let StoreConfig::S3(settings) = &config.store {
        let bucket = &settings.bucket;
        let found = match (writes, caller) {
            (false, _) => Finding::Skipped(format!(
                "S3 bucket {bucket}: not tried: --write puts an object there, outside of AWSLogs/"
            )),
            (true, None) => Finding::NotKnown(format!("S3 bucket {bucket}: not tried without credentials")),
            (true, Some(caller)) => match probe(config, caller).await {
                Ok(key) => Finding::Ok(format!("S3 bucket {bucket}: may PutObject, as {key} shows")),
                Err(error) => Finding::Failed(format!("S3 bucket {bucket}: {error}")),
            },
        };
        report.add("trail", found);
    }
    match signing_key(&config.signing, kms).await {
        Ok(words) => report.add("signing key", Finding::Ok(words)),
        Err(words) => return report.add("signing key", Finding::Failed(words)),
    }
    if let SigningConfig::Kms(key) = &config.signing {
        report.add("signing key", may(kms, DryRunOf::Sign, key, &EncryptionContext::default()).await);
    }
    let own_key = match (&config.kms_key, caller) {
        (None, _) => Finding::Ok("none: log files are not encrypted by the broker".to_owned()),
        (Some(_), None) => Finding::NotKnown("not tried without credentials".to_owned()),
        (Some(key), Some(caller)) => match path_context(&names(config, caller)) {
            Ok(context) => may(kms, DryRunOf::GenerateDataKey(DataKeyLength::Aes256), key, &context).await,
            Err(malformed) => Finding::Failed(malformed.0),
        },
    };
    report.add("trail's key", own_key);
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
    let reply = ask_kms(kms, PublicKeyRequest::from(key.clone())).await;
    let reply = reply.map_err(|error| refused("GetPublicKey", key, &error))?;
    let answer = operation::PublicKey::try_from(reply).map_err(|_| BrokerError::Bug.describe())?;
    let public = PublicKey::from_spki(&answer.spki).map_err(|error| format!("{}: {error}", key.as_str()))?;
    Ok(format!("{}, fingerprint {}", key.as_str(), public.fingerprint()))
}
