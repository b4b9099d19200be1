//! Converts the broker's values into the SDK's.

use std::collections::HashMap;

use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, KeyEncryptionMechanism, RecipientInfo};
use key_broker_core::{DataKeyLength, EncryptionContext};

use crate::attestation::VerifiedRecipient;

pub(super) fn recipient_info(recipient: &VerifiedRecipient) -> RecipientInfo {
    RecipientInfo::builder()
        .key_encryption_algorithm(KeyEncryptionMechanism::RsaesOaepSha256)
        .attestation_document(Blob::new(recipient.document().to_vec()))
        .build()
}

pub(super) fn length_fields(length: DataKeyLength) -> (Option<DataKeySpec>, Option<i32>) {
    match length {
        DataKeyLength::Aes256 => (Some(DataKeySpec::Aes256), None),
        DataKeyLength::Aes128 => (Some(DataKeySpec::Aes128), None),
        DataKeyLength::Bytes(n) => (None, Some(u16::from(n).into())),
    }
}

pub(super) fn context_map(context: &EncryptionContext) -> Option<HashMap<String, String>> {
    (!context.pairs().is_empty())
        .then(|| context.pairs().iter().map(|(name, value)| (name.clone(), value.clone())).collect())
}

pub(super) fn non_empty(tokens: &[String]) -> Option<Vec<String>> {
    (!tokens.is_empty()).then(|| tokens.to_vec())
}
