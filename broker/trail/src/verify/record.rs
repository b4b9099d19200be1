//! Checks that one record matches one of the two profiles exactly, and extracts what it says.

mod profile;
mod strict;
mod written;

use std::borrow::Cow;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};

use key_broker_core::{Action, KeyArn, Outcome};
use time::OffsetDateTime;
use uuid::Uuid;

use super::ids;
use super::uses::{self, UseCounts};
use crate::notice::Notice;
use crate::record::{
    ActivityEventData, AllowedScope, BrokerData, BrokerEvent, ContextPairs, EventCategory, FailedCheck,
    KmsEventData, Open, ReadRecord, Record, RequestParameters, RevocationPromise, ServedFrom, Text,
    UserIdentity, lower_case_uuid, parse,
};
use strict::{Extra, StrictRecord};
use written::check_written;
pub(super) use written::is_compact;

/// What a record says that other records are compared with.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(super) struct CheckedRecord {
    pub(super) event_id: u128,
    /// Seconds since 1970.
    pub(super) at: i64,
    pub(super) what: What,
    /// The session of the access key, if the record says that.
    pub(super) session: Option<SigningSession>,
}

/// An access key and its role session, which never changes, since STS creates the key for that session. As hashes.
#[cfg_attr(test, derive(Debug, PartialEq))]
#[derive(Clone, Copy)]
pub(super) struct SigningSession {
    pub(super) access_key: u64,
    pub(super) arn: u64,
}

#[cfg_attr(test, derive(Debug, PartialEq))]
#[expect(clippy::large_enum_variant, reason = "most records are of the larger one")]
pub(super) enum What {
    /// A call that KMS answered.
    Kms {
        /// requestID and eventName.
        request: u128,
        call: KmsCall,
        materials: KmsMaterials,
    },
    /// A request of a workload, or an event of the broker.
    Activity {
        /// The use of KMS's answer, if it names a KMS record.
        made: Option<Use>,
        /// The requestID of a failed call to KMS, which is named without the KMS record's eventID.
        failed: Option<u128>,
        /// Whether it withdraws a record that says Allowed although the answer never left.
        is_withdrawal: bool,
        /// A notice about the journal, if it reports one.
        told: Option<Box<Notice>>,
        notice_id: Option<u128>,
        /// What it says about revocation.
        revocation: Option<RevocationRecord>,
    },
}

/// What a record of the broker's own says about revocation.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(super) enum RevocationRecord {
    /// A start of the broker, with its promise; earlier versions promised nothing.
    Start(Option<RevocationPromise>),
    /// KMS could not be asked about a key and operation: a hash like [`KmsCall::of`].
    FailedCheck(u64),
}

/// A call to KMS. Texts are hashes under a random key, since they are only compared for equality.
#[cfg_attr(test, derive(Debug, PartialEq))]
#[derive(Clone, Copy)]
pub(super) struct KmsCall {
    /// The requestID.
    pub(super) request: u64,
    /// The operation and its parameters; `None` where AccessDenied hides them.
    pub(super) asked: Option<u64>,
    /// The operation and the key; `None` likewise.
    pub(super) of: Option<u64>,
    pub(super) at: i64,
    pub(super) was_refused: bool,
    /// Whether KMS allowed it, also by answering a dry run.
    pub(super) is_permission: bool,
}

/// The key materials used in a call to KMS, as hashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct KmsMaterials {
    /// That of the ciphertext it made.
    pub(super) sealed: Option<Material>,
    /// That of the ciphertext it decrypted.
    pub(super) opened: Option<Material>,
}

/// A key's material.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Material {
    /// The key in its region.
    pub(super) key: u64,
    pub(super) id: u64,
}

/// The ciphertexts of a workload's call, as hashes.
#[cfg_attr(test, derive(Debug, PartialEq))]
#[derive(Clone, Copy, Default)]
pub(super) struct Ciphertexts {
    /// In the answer.
    pub(super) sealed: Option<u64>,
    /// In the request.
    pub(super) opened: Option<u64>,
}

/// A use of an answer of KMS.
#[cfg_attr(test, derive(Debug, PartialEq))]
#[derive(Clone, Copy)]
pub(super) struct Use {
    /// The eventID of the KMS record.
    pub(super) call: u128,
    /// The requestID.
    pub(super) request: Option<u64>,
    /// Like [`KmsCall::asked`].
    pub(super) asked: u64,
    /// Like [`KmsCall::of`].
    pub(super) of: u64,
    pub(super) ciphertexts: Ciphertexts,
    /// The same with the ciphertext: equal for all uses of one answer.
    pub(super) subject: u64,
    pub(super) principal: u64,
    pub(super) is_allowed: bool,
    /// Whether KMS was called for this request.
    pub(super) from_kms: bool,
    pub(super) at: i64,
    pub(super) minted_at: Option<i64>,
    /// `None` for a single use.
    pub(super) expires_at: Option<i64>,
    /// For a data key.
    pub(super) charge: Option<Charge>,
    /// KMS's newest permission for the use.
    pub(super) allowed: Option<Permission>,
    /// The eventID of the record of a failed check.
    pub(super) failed_check: Option<u128>,
}

/// The answer of KMS that a use names as its permission.
#[cfg_attr(test, derive(Debug, PartialEq))]
#[derive(Clone, Copy)]
pub(super) struct Permission {
    /// The eventID of its KMS record.
    pub(super) call: u128,
    /// The requestID.
    pub(super) request: u64,
    pub(super) at: i64,
    /// Whether KMS was asked about the same encryption context.
    pub(super) is_of_context: bool,
}

/// The charge of one draw of a data key.
#[cfg_attr(test, derive(Debug, PartialEq))]
#[derive(Clone, Copy)]
pub(super) struct Charge {
    pub(super) messages: Amount,
    pub(super) bytes: Amount,
}

#[derive(Clone, Copy)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(super) struct Amount {
    /// For this draw.
    pub(super) declared: u64,
    /// For all draws so far, including this one.
    pub(super) used: u64,
    /// The limit for all draws.
    pub(super) limit: u64,
}

/// Why a line is not a valid record.
pub(super) struct InvalidRecord {
    pub(super) event_id: Option<Uuid>,
    pub(super) why: String,
}

/// Checks one record of a trail of this account, and counts its use if requested.
pub(super) fn read(
    json: &str,
    account_id: &str,
    hashes: &RandomState,
    uses: Option<&mut UseCounts>,
) -> Result<CheckedRecord, InvalidRecord> {
    let flaw = |event_id, why: String| InvalidRecord { event_id, why };
    if json.len() > MAX_RECORD_BYTES {
        return Err(flaw(
            None,
            format!("{} bytes; CloudTrail's records have {MAX_RECORD_BYTES} at most", json.len()),
        ));
    }
    if !is_compact(json.as_bytes()) {
        return Err(flaw(None, "not compact JSON: a broker writes no spaces or line breaks".into()));
    }
    let record = ReadRecord::parse(json).map_err(|malformed| flaw(None, malformed.to_string()))?;
    let Some(event_id) = lower_case_uuid(&record.event_id) else {
        return Err(flaw(None, "eventID is not a UUID in lower case".into()));
    };
    let seen = seen(&record, event_id, account_id, hashes);
    let checked = seen.and_then(|seen| check_written(json, &record).map(|()| seen));
    if let (Some(uses), Ok(_)) = (uses, &checked) {
        uses::count(uses, &record);
    }
    checked.map_err(|why| flaw(Some(event_id), why))
}

/// Reads the record at the start of `text`, with its length, if it is written as usual and has no fault; [`read`] gives the same result
/// for it. `None` for any other record.
pub(super) fn read_strictly(
    text: &str,
    account_id: &str,
    hashes: &RandomState,
    uses: Option<&mut UseCounts>,
) -> Option<(CheckedRecord, usize)> {
    strict::read(text, |record, length| {
        if length > MAX_RECORD_BYTES {
            return None;
        }
        let checked = seen_strictly(record, account_id, hashes)?;
        if let Some(uses) = uses {
            uses::count_with(uses, record, record.additional_event_data.as_ref().and_then(Extra::activity));
        }
        Some(checked)
    })
}

fn seen_strictly(record: &StrictRecord<'_>, account_id: &str, hashes: &RandomState) -> Option<CheckedRecord> {
    let event_id = lower_case_uuid(&record.event_id)?.as_u128();
    match (profile::check_head(record, account_id).ok()?, &record.additional_event_data) {
        (EventCategory::Management, None) => {
            profile::check_kms_with(record, None).ok()?;
            Some(of_kms(record, None, event_id, hashes))
        }
        (EventCategory::Management, Some(Extra::Kms(data))) => {
            profile::check_kms_with(record, Some(data)).ok()?;
            Some(of_kms(record, Some(data), event_id, hashes))
        }
        (EventCategory::ActivityAuditLog, Some(Extra::Activity(extra))) => {
            profile::check_activity_with(record, extra).ok()?;
            of_call(record, extra, event_id, hashes).ok()
        }
        _ => None,
    }
}

fn seen(
    record: &ReadRecord<'_>,
    event_id: Uuid,
    account_id: &str,
    hashes: &RandomState,
) -> Result<CheckedRecord, String> {
    let event_id = event_id.as_u128();
    match profile::check_head(record, account_id)? {
        EventCategory::Management => {
            let data = profile::check_kms(record)?;
            Ok(of_kms(record, data.as_ref(), event_id, hashes))
        }
        EventCategory::ActivityAuditLog => {
            let extra = profile::check_activity(record)?;
            of_call(record, &extra, event_id, hashes)
        }
    }
}

fn of_call<D>(
    record: &Record<'_, D>,
    extra: &ActivityEventData<'_>,
    event_id: u128,
    hashes: &RandomState,
) -> Result<CheckedRecord, String> {
    let at = record.event_time.unix_timestamp();
    let session = session(extra.identity.as_ref().unwrap_or(&record.user_identity), hashes);
    Ok(CheckedRecord { event_id, at, what: activity(record, extra, at, hashes)?, session })
}

fn of_kms<D>(
    record: &Record<'_, D>,
    data: Option<&KmsEventData<'_>>,
    event_id: u128,
    hashes: &RandomState,
) -> CheckedRecord {
    let at = record.event_time.unix_timestamp();
    let error = record.error_code.as_deref();
    let was_denied = error == Some("AccessDenied");
    let what = What::Kms {
        request: ids::kms_request(&record.request_id, &record.event_name),
        call: KmsCall {
            request: hashes.hash_one(&*record.request_id),
            asked: (!was_denied).then(|| asked(record, hashes)),
            of: (!was_denied).then(|| of(&record.event_name, key_of(record).as_deref(), hashes)),
            at,
            was_refused: error.is_some(),
            is_permission: error.is_none_or(|code| code == "DryRunOperationException"),
        },
        materials: data.map_or_else(KmsMaterials::default, |data| materials(record, data, hashes)),
    };
    CheckedRecord { event_id, at, what, session: session(&record.user_identity, hashes) }
}

fn materials<D>(record: &Record<'_, D>, data: &KmsEventData<'_>, hashes: &RandomState) -> KmsMaterials {
    let material = |resource: usize, id: &Option<Text<'_>>| {
        let key = record.resources.as_ref()?.get(resource)?.arn.as_deref()?;
        Some(Material { key: hashes.hash_one(key), id: hashes.hash_one(id.as_deref()?) })
    };
    let (sealed, opened) = match &*record.event_name {
        "Decrypt" => (None, material(0, &data.key_material_id)),
        "ReEncrypt" => {
            (material(1, &data.destination_key_material_id), material(0, &data.source_key_material_id))
        }
        _ => (material(0, &data.key_material_id), None),
    };
    KmsMaterials { sealed, opened }
}

fn session(identity: &UserIdentity<'_>, hashes: &RandomState) -> Option<SigningSession> {
    let arn = identity.arn.as_deref().filter(|arn| arn.contains(":assumed-role/"))?;
    let access_key = hashes.hash_one(identity.access_key_id.as_deref()?);
    Some(SigningSession { access_key, arn: hashes.hash_one(arn) })
}

fn activity<D>(
    record: &Record<'_, D>,
    extra: &ActivityEventData<'_>,
    at: i64,
    hashes: &RandomState,
) -> Result<What, String> {
    let told = extra.journal.map(Box::new);
    let notice_id = extra.notice_id.map(|id| id.as_u128());
    let is_withdrawal = extra.withdraws.is_some();
    let revocation = revocation(record, extra, hashes)?;
    // A withdrawn use was charged, but its data key was never handed out.
    let Some(data_key) = extra.data_key.as_ref().filter(|_| !is_withdrawal) else {
        return Ok(What::Activity { made: None, failed: None, is_withdrawal, told, notice_id, revocation });
    };
    let request_id = data_key.kms_request_id.as_deref();
    let Some(call) = data_key.kms_event_id else {
        let failed = request_id.map(|id| ids::kms_request(id, Action::operation_at_kms(&record.event_name)));
        return Ok(What::Activity { made: None, failed, is_withdrawal, told, notice_id, revocation });
    };
    let asked = asked(record, hashes);
    let parameters = record.request_parameters.as_ref();
    let ciphertext = parameters.and_then(|parameters| parameters.ciphertext_sha256.as_deref());
    let made = Use {
        call: call.as_u128(),
        request: request_id.map(|id| hashes.hash_one(id)),
        asked,
        of: of(&record.event_name, key_of(record).as_deref(), hashes),
        ciphertexts: Ciphertexts {
            sealed: data_key.ciphertext_sha256.as_deref().map(|hash| hashes.hash_one(hash)),
            opened: ciphertext.map(|hash| hashes.hash_one(hash)),
        },
        // Data keys of messages never leave the broker, so no draw of another action shares one.
        subject: hashes.hash_one((&*record.event_name, asked, ciphertext)),
        principal: hashes.hash_one(record.user_identity.principal_id.as_deref()),
        is_allowed: extra.outcome == Outcome::Allowed,
        from_kms: data_key.served_from == ServedFrom::Kms,
        at,
        minted_at: data_key.minted_at.map(OffsetDateTime::unix_timestamp),
        expires_at: data_key.expires_at.map(OffsetDateTime::unix_timestamp),
        charge: profile::charge(parameters, data_key)?,
        allowed: data_key.last_allowed.as_ref().map(|allowed| Permission {
            call: allowed.kms_event_id.as_u128(),
            request: hashes.hash_one(&*allowed.kms_request_id),
            at: allowed.time.unix_timestamp(),
            is_of_context: allowed.scope == AllowedScope::Context,
        }),
        failed_check: data_key.last_check_failed.map(|id| id.as_u128()),
    };
    Ok(What::Activity { made: Some(made), failed: None, is_withdrawal, told, notice_id, revocation })
}

/// What a record of the broker's own says about revocation.
fn revocation<D>(
    record: &Record<'_, D>,
    extra: &ActivityEventData<'_>,
    hashes: &RandomState,
) -> Result<Option<RevocationRecord>, String> {
    if let Some(FailedCheck { key, operation, .. }) = &extra.failed_check {
        let key = in_any_region(key);
        return Ok(Some(RevocationRecord::FailedCheck(of(operation, Some(&key), hashes))));
    }
    if &*record.event_name != BrokerEvent::Start.name() {
        return Ok(None);
    }
    let told = extra.broker.as_ref().and_then(Open::json).map(parse::<BrokerData<'_>>).transpose();
    let told = told.map_err(|malformed| format!("broker: {malformed}"))?;
    Ok(Some(RevocationRecord::Start(told.and_then(|broker| broker.reuse))))
}

/// The hash of an operation and a key.
fn of(event_name: &str, key: Option<&str>, hashes: &RandomState) -> u64 {
    hashes.hash_one((Action::operation_at_kms(event_name), key))
}

/// The key of a record. Workloads may name it in any way; KMS is asked for the key that is meant. All replicas of a multi-Region key
/// count as one.
fn key_of<'a, D>(record: &'a Record<'_, D>) -> Option<Cow<'a, str>> {
    record.key_arn().or(record.key_id()).map(in_any_region)
}

fn in_any_region(key: &str) -> Cow<'_, str> {
    if !key.contains(MULTI_REGION) {
        return Cow::Borrowed(key);
    }
    match KeyArn::parse(key).filter(KeyArn::is_multi_region) {
        Some(arn) => Cow::Owned(arn.in_region(ANY_REGION).as_str().to_owned()),
        None => Cow::Borrowed(key),
    }
}

/// The hash of an operation's parameters: equal for a call and its uses.
fn asked<D>(record: &Record<'_, D>, hashes: &RandomState) -> u64 {
    let mut state = hashes.build_hasher();
    Action::operation_at_kms(&record.event_name).hash(&mut state);
    let Some(parameters) = &record.request_parameters else { return state.finish() };
    // CloudTrail records no parameters of GenerateRandom.
    if &*record.event_name == "GenerateRandom" {
        return state.finish();
    }
    let RequestParameters { encryption_algorithm, key_pair_spec, key_spec, number_of_bytes, .. } = parameters;
    let key = key_of(record);
    let lengths = (key_pair_spec.as_deref(), key_spec.as_deref(), number_of_bytes);
    // The other key of a ReEncrypt.
    let new_key = record.resources.as_ref().and_then(|resources| resources.get(1)?.arn.as_deref());
    let new_key = new_key.and_then(KeyArn::parse).map(|arn| arn.in_region(ANY_REGION));
    (encryption_algorithm.as_deref(), key.as_deref(), lengths, new_key.as_ref().map(KeyArn::as_str))
        .hash(&mut state);
    let RequestParameters {
        encryption_context,
        source_encryption_context,
        destination_encryption_context,
        ..
    } = parameters;
    for context in [encryption_context, source_encryption_context, destination_encryption_context] {
        for (name, value) in context.iter().flat_map(ContextPairs::iter) {
            (name, value).hash(&mut state);
        }
        END_OF_CONTEXT.hash(&mut state);
    }
    state.finish()
}

/// A byte that occurs in no text.
const END_OF_CONTEXT: u8 = 0xFF;
/// The beginning of a multi-Region key's id.
const MULTI_REGION: &str = "mrk-";
/// Replaces the region in ARNs of multi-Region keys.
const ANY_REGION: &str = "*";
/// CloudTrail: a record has at most 256 KB.
const MAX_RECORD_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests;
