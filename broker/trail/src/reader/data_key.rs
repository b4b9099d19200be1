//! Decrypts the data key of an encrypted log file with KMS, as in "Get" of "How AWS CloudTrail uses AWS KMS"
//! (<https://docs.aws.amazon.com/kms/latest/developerguide/services-cloudtrail.html>), with the trail and the object in the encryption
//! context. The call is recorded before anything of the file is shown.

use key_broker_core::Plaintext;
use key_broker_envelope::{EncryptedDataKey, Header};

use super::ReadFailure;
use crate::encryption_context::object_context;
use crate::keys::Decrypter;
use crate::names::TrailNames;

/// Decrypts the data key of the log file `object`, whose message begins with `header`.
pub(super) async fn decrypt(
    decrypter: &dyn Decrypter,
    names: &TrailNames,
    object: &str,
    header: &Header,
) -> Result<Plaintext, ReadFailure> {
    let context = object_context(names, object).map_err(|malformed| ReadFailure::Malformed(malformed.0))?;
    // KMS only checks that the context matches the ciphertext, as that of another object would, too.
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
    decrypter
        .decrypt(ciphertext, &key, context)
        .await
        .map_err(|error| ReadFailure::Locked(format!("its data key under {key} is not decrypted: {error}")))
}
