//! The operations. Each takes the parameters and returns the members of the answer, or AWS's error.

mod aliases;
mod cryptography;
mod grants;
mod imports;
mod key_pairs;
mod keys;
mod last_usage;
mod policies;
mod request;
mod rotation;
mod signing;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::imports::Imports;
use crate::parameters::Parameters;
use crate::recipient::Recipients;
use crate::store::Store;
use crate::usage::Usage;

pub(crate) use self::aliases::{create_external_key, ensure_key, move_alias};
pub(crate) use self::imports::{delete_material, import};
pub(crate) use self::keys::{replicate, require_attestation, set_enabled};
pub(crate) use self::policies::{put_key_policy, put_role_policy};
pub(crate) use self::request::Request;
pub(crate) use self::rotation::rotate;

/// The state on which operations work.
pub(crate) struct Kms {
    pub(crate) store: Store,
    pub(crate) recipients: Recipients,
    pub(crate) imports: Imports,
    pub(crate) usage: Usage,
}

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

/// An operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    CancelKeyDeletion,
    CreateAlias,
    CreateGrant,
    CreateKey,
    Decrypt,
    DeleteAlias,
    DeleteImportedKeyMaterial,
    DescribeKey,
    DisableKey,
    EnableKey,
    Encrypt,
    GenerateDataKey,
    GenerateDataKeyPair,
    GenerateDataKeyPairWithoutPlaintext,
    GenerateDataKeyWithoutPlaintext,
    GenerateRandom,
    GetKeyLastUsage,
    GetKeyPolicy,
    GetParametersForImport,
    GetPublicKey,
    ImportKeyMaterial,
    ListAliases,
    ListGrants,
    ListKeys,
    PutKeyPolicy,
    ReEncrypt,
    RetireGrant,
    RevokeGrant,
    RotateKeyOnDemand,
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
                | Operation::GetKeyLastUsage
                | Operation::GetKeyPolicy
                | Operation::GetPublicKey
                | Operation::ListAliases
                | Operation::ListGrants
                | Operation::ListKeys
                | Operation::ReEncrypt
        )
    }

    /// Does it.
    pub(crate) fn perform(self, request: &Request<'_>) -> Result<Delivery, ApiError> {
        let parameters = request.parameters;
        parameters.check()?;
        let recipient = if self.takes_recipient() {
            request.kms.recipients.accept(parameters, request.now())?
        } else {
            None
        };
        check_grant_tokens(parameters)?;
        let answer = match self {
            Operation::GenerateDataKey => {
                return cryptography::generate_data_key(request, recipient.as_ref());
            }
            Operation::Decrypt => return cryptography::decrypt(request, recipient.as_ref()),
            Operation::GenerateRandom => return cryptography::generate_random(request, recipient.as_ref()),
            Operation::GenerateDataKeyPair => return key_pairs::generate(request, recipient.as_ref()),
            Operation::GenerateDataKeyPairWithoutPlaintext => key_pairs::generate_without_plaintext(request),
            Operation::GenerateDataKeyWithoutPlaintext => {
                cryptography::generate_data_key_without_plaintext(request)
            }
            Operation::Encrypt => cryptography::encrypt(request),
            Operation::ReEncrypt => cryptography::re_encrypt(request),
            Operation::Sign => signing::sign(request),
            Operation::GetPublicKey => signing::get_public_key(request),
            Operation::CreateKey => keys::create(request),
            Operation::DescribeKey => keys::describe(request),
            Operation::ListKeys => keys::list(request),
            Operation::EnableKey => keys::enable(request, true),
            Operation::DisableKey => keys::enable(request, false),
            Operation::ScheduleKeyDeletion => keys::schedule_deletion(request),
            Operation::CancelKeyDeletion => keys::cancel_deletion(request),
            Operation::CreateAlias => aliases::create(request),
            Operation::UpdateAlias => aliases::update(request),
            Operation::DeleteAlias => aliases::delete(request),
            Operation::ListAliases => aliases::list(request),
            Operation::PutKeyPolicy => policies::put(request),
            Operation::GetKeyPolicy => policies::get(request),
            Operation::CreateGrant => grants::create(request),
            Operation::ListGrants => grants::list(request),
            Operation::RevokeGrant => grants::revoke(request),
            Operation::RetireGrant => grants::retire(request),
            Operation::GetParametersForImport => imports::parameters(request),
            Operation::ImportKeyMaterial => imports::import_wrapped(request),
            Operation::DeleteImportedKeyMaterial => imports::delete(request),
            Operation::RotateKeyOnDemand => rotation::rotate_on_demand(request),
            Operation::GetKeyLastUsage => last_usage::get(request),
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

/// A grant counts as soon as it is made, so a token gives nothing; but it must look like one.
fn check_grant_tokens(parameters: &Parameters) -> Result<(), ApiError> {
    let well_formed = |token: &String| BASE64.decode(token).is_ok_and(|bytes| !bytes.is_empty());
    if parameters.grant_tokens.iter().flatten().all(well_formed) {
        Ok(())
    } else {
        Err(ApiError::bare("InvalidGrantTokenException"))
    }
}

/// Members as an answer.
fn answer<const N: usize>(members: [(&str, Value); N]) -> Answer {
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

pub(crate) fn base64(bytes: &[u8]) -> Value {
    BASE64.encode(bytes).into()
}

const NAMES: [(&str, Operation); 32] = [
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
    ("CreateGrant", Operation::CreateGrant),
    ("DeleteImportedKeyMaterial", Operation::DeleteImportedKeyMaterial),
    ("GetKeyLastUsage", Operation::GetKeyLastUsage),
    ("GetKeyPolicy", Operation::GetKeyPolicy),
    ("GetParametersForImport", Operation::GetParametersForImport),
    ("ImportKeyMaterial", Operation::ImportKeyMaterial),
    ("ListGrants", Operation::ListGrants),
    ("PutKeyPolicy", Operation::PutKeyPolicy),
    ("RetireGrant", Operation::RetireGrant),
    ("RevokeGrant", Operation::RevokeGrant),
    ("RotateKeyOnDemand", Operation::RotateKeyOnDemand),
];
