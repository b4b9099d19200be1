//! The members of a request, and the limits that AWS's model puts on them.
//!
//! One struct has the members of all operations: the call log and the checks look at them without knowing the
//! operation. Limits: <https://docs.aws.amazon.com/kms/latest/APIReference/API_Operations.html>, each operation's page.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use zeroize::Zeroizing;

use crate::context::{self, EncryptionContext};
use crate::error::ApiError;

/// What a request says. Members that no operation here knows are skipped, as AWS does.
#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Parameters {
    pub(crate) key_id: Option<String>,
    pub(crate) encryption_context: Option<EncryptionContext>,
    pub(crate) grant_tokens: Option<Vec<String>>,
    pub(crate) dry_run: Option<bool>,
    pub(crate) dry_run_modifiers: Option<Vec<String>>,
    pub(crate) recipient: Option<RecipientParameters>,
    pub(crate) number_of_bytes: Option<i64>,
    pub(crate) key_spec: Option<String>,
    pub(crate) key_pair_spec: Option<String>,
    pub(crate) source_key_id: Option<String>,
    pub(crate) source_encryption_context: Option<EncryptionContext>,
    pub(crate) destination_key_id: Option<String>,
    pub(crate) destination_encryption_context: Option<EncryptionContext>,
    pub(crate) plaintext: Option<Blob>,
    pub(crate) ciphertext_blob: Option<Blob>,
    pub(crate) encryption_algorithm: Option<String>,
    pub(crate) message: Option<Blob>,
    pub(crate) message_type: Option<String>,
    pub(crate) signing_algorithm: Option<String>,
    pub(crate) alias_name: Option<String>,
    pub(crate) target_key_id: Option<String>,
    pub(crate) customer_master_key_spec: Option<String>,
    pub(crate) custom_key_store_id: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) key_usage: Option<String>,
    pub(crate) multi_region: Option<bool>,
    pub(crate) origin: Option<String>,
    pub(crate) pending_window_in_days: Option<i64>,
    pub(crate) limit: Option<i64>,
    pub(crate) marker: Option<String>,
    pub(crate) policy: Option<String>,
    pub(crate) policy_name: Option<String>,
    pub(crate) bypass_policy_lockout_safety_check: Option<bool>,
    pub(crate) grantee_principal: Option<String>,
    pub(crate) retiring_principal: Option<String>,
    pub(crate) operations: Option<Vec<String>>,
    pub(crate) constraints: Option<ConstraintParameters>,
    pub(crate) name: Option<String>,
    pub(crate) grant_id: Option<String>,
    pub(crate) grant_token: Option<String>,
    pub(crate) wrapping_algorithm: Option<String>,
    pub(crate) wrapping_key_spec: Option<String>,
    pub(crate) import_token: Option<Blob>,
    pub(crate) encrypted_key_material: Option<Blob>,
    pub(crate) expiration_model: Option<String>,
    pub(crate) import_type: Option<String>,
    /// Seconds since 1970.
    pub(crate) valid_to: Option<f64>,
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GrantConstraints.html>
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct ConstraintParameters {
    pub(crate) encryption_context_equals: Option<EncryptionContext>,
    pub(crate) encryption_context_subset: Option<EncryptionContext>,
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_RecipientInfo.html>
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RecipientParameters {
    pub(crate) attestation_document: Option<Blob>,
    pub(crate) key_encryption_algorithm: Option<String>,
}

impl Parameters {
    /// Reads a JSON body; an empty one says nothing.
    pub(crate) fn parse(body: &[u8]) -> Result<Parameters, ApiError> {
        if body.is_empty() {
            return Ok(Parameters::default());
        }
        serde_json::from_slice(body).map_err(|_| ApiError::bare("SerializationException"))
    }

    /// Whether a dry run is not to look at the ciphertext
    /// (<https://docs.aws.amazon.com/kms/latest/developerguide/testing-permissions.html>).
    pub(crate) fn ignores_ciphertext(&self) -> Result<bool, ApiError> {
        let Some(modifiers) = self.dry_run_modifiers.as_ref().filter(|modifiers| !modifiers.is_empty())
        else {
            return Ok(false);
        };
        for modifier in modifiers {
            one_of("dryRunModifiers", Some(modifier), &["IGNORE_CIPHERTEXT"])?;
        }
        if self.is_dry_run() {
            Ok(true)
        } else {
            Err(ApiError::validation("DryRunModifiers can only be specified when DryRun is true."))
        }
    }

    /// The constraints that hold whatever the operation; AWS names all that are broken.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        let mut broken = Vec::new();
        for (name, text) in [
            ("keyId", &self.key_id),
            ("targetKeyId", &self.target_key_id),
            ("sourceKeyId", &self.source_key_id),
            ("destinationKeyId", &self.destination_key_id),
        ] {
            broken.extend(text.as_deref().and_then(|text| text_length(name, text, KEY_ID_MAX)));
        }
        for (name, text, max) in [
            ("aliasName", &self.alias_name, ALIAS_MAX),
            ("policy", &self.policy, POLICY_MAX),
            ("granteePrincipal", &self.grantee_principal, PRINCIPAL_MAX),
            ("retiringPrincipal", &self.retiring_principal, PRINCIPAL_MAX),
            ("grantId", &self.grant_id, GRANT_ID_MAX),
            ("grantToken", &self.grant_token, GRANT_TOKEN_MAX),
            ("name", &self.name, ALIAS_MAX),
        ] {
            broken.extend(text.as_deref().and_then(|text| text_length(name, text, max)));
        }
        let document = self.recipient.as_ref().map(|recipient| &recipient.attestation_document);
        for (name, blob, max) in [
            ("plaintext", &self.plaintext, PLAINTEXT_MAX),
            ("ciphertextBlob", &self.ciphertext_blob, CIPHERTEXT_MAX),
            ("message", &self.message, PLAINTEXT_MAX),
            ("importToken", &self.import_token, CIPHERTEXT_MAX),
            ("encryptedKeyMaterial", &self.encrypted_key_material, CIPHERTEXT_MAX),
            ("recipient.attestationDocument", document.unwrap_or(&None), DOCUMENT_MAX),
        ] {
            broken.extend(
                blob.as_ref().and_then(|blob| length(&format!("Value at '{name}'"), blob.0.len(), max)),
            );
        }
        broken.extend(self.number_of_bytes.and_then(|value| range("numberOfBytes", value, 1, 1024)));
        broken.extend(
            self.pending_window_in_days.and_then(|value| range("pendingWindowInDays", value, 1, 365)),
        );
        broken.extend(self.limit.and_then(|value| range("limit", value, 1, 1000)));
        if let Some(tokens) = self.grant_tokens.as_ref().filter(|tokens| tokens.len() > GRANT_TOKENS_MAX) {
            broken.extend(length(
                &format!("Value '{tokens:?}' at 'grantTokens'"),
                tokens.len(),
                GRANT_TOKENS_MAX,
            ));
        }
        match broken.len() {
            0 => self.check_context(),
            1 => Err(ApiError::constraint(&broken[0])),
            count => Err(ApiError::validation(format!(
                "{count} validation errors detected: {}",
                broken.join("; ")
            ))),
        }
    }

    /// AWS's model states no limit on the context: how AWS counts it and what it then says is a guess.
    fn check_context(&self) -> Result<(), ApiError> {
        let contexts =
            [&self.encryption_context, &self.source_encryption_context, &self.destination_encryption_context];
        if contexts.into_iter().flatten().any(|context| context::size(context) > CONTEXT_MAX) {
            return Err(ApiError::validation(format!(
                "EncryptionContext is longer than {CONTEXT_MAX} bytes."
            )));
        }
        Ok(())
    }

    /// The source encryption context of a ReEncrypt; empty if there is none.
    pub(crate) fn source_context(&self) -> EncryptionContext {
        self.source_encryption_context.clone().unwrap_or_default()
    }

    /// The destination encryption context of a ReEncrypt; empty if there is none.
    pub(crate) fn destination_context(&self) -> EncryptionContext {
        self.destination_encryption_context.clone().unwrap_or_default()
    }

    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run == Some(true)
    }

    /// The encryption context, empty if there is none.
    pub(crate) fn context(&self) -> EncryptionContext {
        self.encryption_context.clone().unwrap_or_default()
    }
}

/// A member that the operation cannot do without.
pub(crate) fn required<'a, T>(name: &str, value: Option<&'a T>) -> Result<&'a T, ApiError> {
    value.ok_or_else(|| {
        ApiError::constraint(&format!(
            "Value null at '{name}' failed to satisfy constraint: Member must not be null"
        ))
    })
}

/// A member that is one of a set of words, or absent.
pub(crate) fn one_of<'a>(
    name: &str,
    value: Option<&'a String>,
    set: &[&str],
) -> Result<Option<&'a str>, ApiError> {
    match value {
        Some(word) if !set.contains(&word.as_str()) => Err(ApiError::constraint(&format!(
            "Value '{word}' at '{name}' failed to satisfy constraint: Member must satisfy enum value set: [{}]",
            set.join(", ")
        ))),
        word => Ok(word.map(String::as_str)),
    }
}

/// Bytes, base64 in JSON; wiped when dropped.
pub(crate) struct Blob(pub(crate) Zeroizing<Vec<u8>>);

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Blob, D::Error> {
        deserializer.deserialize_str(BlobVisitor)
    }
}

struct BlobVisitor;

impl Visitor<'_> for BlobVisitor {
    type Value = Blob;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("base64")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Blob, E> {
        BASE64.decode(text).map(|bytes| Blob(Zeroizing::new(bytes))).map_err(|_| E::custom("not base64"))
    }
}

fn text_length(name: &str, text: &str, max: usize) -> Option<String> {
    length(&format!("Value '{text}' at '{name}'"), text.len(), max)
}

fn length(subject: &str, length: usize, max: usize) -> Option<String> {
    let bound = match length {
        0 => "greater than or equal to 1".to_owned(),
        _ if length > max => format!("less than or equal to {max}"),
        _ => return None,
    };
    Some(format!("{subject} failed to satisfy constraint: Member must have length {bound}"))
}

fn range(name: &str, value: i64, min: i64, max: i64) -> Option<String> {
    let bound = match value {
        _ if value < min => format!("greater than or equal to {min}"),
        _ if value > max => format!("less than or equal to {max}"),
        _ => return None,
    };
    Some(format!("Value '{value}' at '{name}' failed to satisfy constraint: Member must have value {bound}"))
}

const KEY_ID_MAX: usize = 2048;
const ALIAS_MAX: usize = 256;
const PLAINTEXT_MAX: usize = 4096;
const CIPHERTEXT_MAX: usize = 6144;
const DOCUMENT_MAX: usize = 262_144;
const GRANT_TOKENS_MAX: usize = 10;
const GRANT_TOKEN_MAX: usize = 8192;
const GRANT_ID_MAX: usize = 128;
const PRINCIPAL_MAX: usize = 256;
const POLICY_MAX: usize = 131_072;
/// All names and values together, in bytes of UTF-8.
const CONTEXT_MAX: usize = 8192;
