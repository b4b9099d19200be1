//! What each operation does. Each takes the parameters and gives the answer's members, or AWS's refusal.

mod aliases;
mod cryptography;
mod key_pairs;
mod keys;
mod signing;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::key::Key;
use crate::parameters::{Parameters, required};
use crate::recipient::Recipients;
use crate::store::Store;

/// The members of an answer.
pub(crate) type Answer = Map<String, Value>;

/// An answer, and the plaintext that a fault may betray.
pub(crate) struct Delivery {
    pub(crate) answer: Answer,
    /// `Plaintext`, where `CiphertextForRecipient` was sent in its place.
    pub(crate) withheld: Option<Value>,
}

impl Delivery {
    /// An answer that withholds nothing.
    pub(crate) fn open(answer: Answer) -> Delivery {
        Delivery { answer, withheld: None }
    }
}

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    CancelKeyDeletion,
    CreateAlias,
    CreateKey,
    Decrypt,
    DeleteAlias,
    DescribeKey,
    DisableKey,
    EnableKey,
    Encrypt,
    GenerateDataKey,
    GenerateDataKeyPair,
    GenerateDataKeyPairWithoutPlaintext,
    GenerateDataKeyWithoutPlaintext,
    GenerateRandom,
    GetPublicKey,
    ListAliases,
    ListKeys,
    ReEncrypt,
    ScheduleKeyDeletion,
    Sign,
    UpdateAlias,
}

impl Operation {
    pub(crate) fn named(name: &str) -> Option<Operation> {
        let (_, operation) = NAMES.iter().find(|(known, _)| *known == name)?;
        Some(*operation)
    }

    /// Whether it waits for the disk or computes for milliseconds: not for an async runtime's thread.
    pub(crate) fn is_slow(self) -> bool {
        !matches!(
            self,
            Operation::Decrypt
                | Operation::DescribeKey
                | Operation::Encrypt
                | Operation::GenerateDataKey
                | Operation::GenerateDataKeyWithoutPlaintext
                | Operation::GenerateRandom
                | Operation::GetPublicKey
                | Operation::ListAliases
                | Operation::ListKeys
                | Operation::ReEncrypt
        )
    }

    /// Does it.
    pub(crate) fn perform(
        self,
        store: &Store,
        recipients: &Recipients,
        parameters: &Parameters,
    ) -> Result<Delivery, ApiError> {
        parameters.check()?;
        let recipient = if self.takes_recipient() { recipients.accept(parameters)? } else { None };
        check_grant_tokens(parameters)?;
        let answer = match self {
            Operation::GenerateDataKey => {
                return cryptography::generate_data_key(store, parameters, recipient.as_ref());
            }
            Operation::Decrypt => return cryptography::decrypt(store, parameters, recipient.as_ref()),
            Operation::GenerateRandom => {
                return cryptography::generate_random(parameters, recipient.as_ref());
            }
            Operation::GenerateDataKeyWithoutPlaintext => {
                cryptography::generate_data_key_without_plaintext(store, parameters)
            }
            Operation::GenerateDataKeyPair => {
                return key_pairs::generate(store, parameters, recipient.as_ref());
            }
            Operation::GenerateDataKeyPairWithoutPlaintext => {
                key_pairs::generate_without_plaintext(store, parameters)
            }
            Operation::Encrypt => cryptography::encrypt(store, parameters),
            Operation::ReEncrypt => cryptography::re_encrypt(store, parameters),
            Operation::Sign => signing::sign(store, parameters),
            Operation::GetPublicKey => signing::get_public_key(store, parameters),
            Operation::CreateKey => keys::create(store, parameters),
            Operation::DescribeKey => keys::describe(store, parameters),
            Operation::ListKeys => Ok(keys::list(store, parameters)),
            Operation::EnableKey => keys::enable(store, parameters, true),
            Operation::DisableKey => keys::enable(store, parameters, false),
            Operation::ScheduleKeyDeletion => keys::schedule_deletion(store, parameters),
            Operation::CancelKeyDeletion => keys::cancel_deletion(store, parameters),
            Operation::CreateAlias => aliases::create(store, parameters),
            Operation::UpdateAlias => aliases::update(store, parameters),
            Operation::DeleteAlias => aliases::delete(store, parameters),
            Operation::ListAliases => aliases::list(store, parameters),
        };
        answer.map(Delivery::open)
    }

    /// Whether AWS knows the member `Recipient` here. Elsewhere it is skipped, as every unknown member is.
    fn takes_recipient(self) -> bool {
        matches!(
            self,
            Operation::GenerateDataKey
                | Operation::GenerateDataKeyPair
                | Operation::Decrypt
                | Operation::GenerateRandom
        )
    }
}

pub(crate) use aliases::{ensure_key, move_alias};
pub(crate) use keys::{replicate, require_attestation, set_enabled};

/// There are no grants here, so a token gives nothing; but it must look like one.
fn check_grant_tokens(parameters: &Parameters) -> Result<(), ApiError> {
    let well_formed = |token: &String| BASE64.decode(token).is_ok_and(|bytes| !bytes.is_empty());
    if parameters.grant_tokens.iter().flatten().all(well_formed) {
        Ok(())
    } else {
        Err(ApiError::bare("InvalidGrantTokenException"))
    }
}

/// The last word of an operation that would have succeeded.
/// <https://docs.aws.amazon.com/kms/latest/developerguide/testing-permissions.html>
fn refuse_dry_run(parameters: &Parameters) -> Result<(), ApiError> {
    match parameters.dry_run {
        Some(true) => Err(ApiError::named("DryRunOperationException")),
        _ => Ok(()),
    }
}

/// The key that `KeyId` names in any form, aliases too.
fn key(store: &Store, parameters: &Parameters, operation: &str) -> Result<Arc<Key>, ApiError> {
    store.find(&store.snapshot(), required("keyId", parameters.key_id.as_ref())?, operation)
}

/// Members as an answer.
fn answer<const N: usize>(members: [(&str, Value); N]) -> Answer {
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

pub(crate) fn base64(bytes: &[u8]) -> Value {
    BASE64.encode(bytes).into()
}

const NAMES: [(&str, Operation); 21] = [
    ("GenerateDataKey", Operation::GenerateDataKey),
    ("Decrypt", Operation::Decrypt),
    ("Encrypt", Operation::Encrypt),
    ("GenerateDataKeyWithoutPlaintext", Operation::GenerateDataKeyWithoutPlaintext),
    ("GenerateDataKeyPair", Operation::GenerateDataKeyPair),
    ("GenerateDataKeyPairWithoutPlaintext", Operation::GenerateDataKeyPairWithoutPlaintext),
    ("ReEncrypt", Operation::ReEncrypt),
    ("GenerateRandom", Operation::GenerateRandom),
    ("DescribeKey", Operation::DescribeKey),
    ("Sign", Operation::Sign),
    ("GetPublicKey", Operation::GetPublicKey),
    ("CancelKeyDeletion", Operation::CancelKeyDeletion),
    ("CreateAlias", Operation::CreateAlias),
    ("CreateKey", Operation::CreateKey),
    ("DeleteAlias", Operation::DeleteAlias),
    ("DisableKey", Operation::DisableKey),
    ("EnableKey", Operation::EnableKey),
    ("ListAliases", Operation::ListAliases),
    ("ListKeys", Operation::ListKeys),
    ("ScheduleKeyDeletion", Operation::ScheduleKeyDeletion),
    ("UpdateAlias", Operation::UpdateAlias),
];
