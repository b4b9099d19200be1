//! What each operation does. Each takes the parameters and gives the answer's members, or AWS's refusal.

mod aliases;
mod cryptography;
mod keys;
mod signing;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::key::Key;
use crate::parameters::{Parameters, required};
use crate::store::Store;

/// The members of an answer.
pub(crate) type Answer = Map<String, Value>;

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
    GenerateDataKeyWithoutPlaintext,
    GenerateRandom,
    GetPublicKey,
    ListAliases,
    ListKeys,
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
        )
    }

    /// Does it.
    pub(crate) fn perform(self, store: &Store, parameters: &Parameters) -> Result<Answer, ApiError> {
        parameters.check()?;
        refuse_recipient(parameters)?;
        check_grant_tokens(parameters)?;
        match self {
            Operation::GenerateDataKey => cryptography::generate_data_key(store, parameters, self.name()),
            Operation::GenerateDataKeyWithoutPlaintext => {
                let mut answer = cryptography::generate_data_key(store, parameters, self.name())?;
                answer.remove("Plaintext");
                Ok(answer)
            }
            Operation::Encrypt => cryptography::encrypt(store, parameters),
            Operation::Decrypt => cryptography::decrypt(store, parameters),
            Operation::GenerateRandom => cryptography::generate_random(parameters),
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
        }
    }

    /// AWS's name for it.
    fn name(self) -> &'static str {
        let (name, _) = NAMES.iter().find(|(_, known)| *known == self).expect("every operation has a name");
        name
    }
}

pub(crate) use aliases::ensure_key;
pub(crate) use keys::set_enabled;

/// Never a plaintext for an attested call: this emulator reads no attestation documents yet.
fn refuse_recipient(parameters: &Parameters) -> Result<(), ApiError> {
    match parameters.recipient {
        Some(_) => Err(ApiError::unsupported("This emulator does not support Recipient.")),
        None => Ok(()),
    }
}

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

fn base64(bytes: &[u8]) -> Value {
    BASE64.encode(bytes).into()
}

const NAMES: [(&str, Operation); 18] = [
    ("GenerateDataKey", Operation::GenerateDataKey),
    ("Decrypt", Operation::Decrypt),
    ("Encrypt", Operation::Encrypt),
    ("GenerateDataKeyWithoutPlaintext", Operation::GenerateDataKeyWithoutPlaintext),
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
