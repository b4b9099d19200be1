//! AWS's records of events that take a key away or give it back
//! (<https://docs.aws.amazon.com/kms/latest/developerguide/understanding-kms-entries.html>).

use std::collections::BTreeMap;

use key_broker_trail::record::{MalformedRecord, ReadRecord, Text, parse};
use serde::Deserialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;

/// The contents of a record of AWS's.
pub(super) enum Event {
    /// Something was taken away.
    Taken(Taken, What),
    /// This key can be used again.
    Restored(String),
    /// A grant begins.
    Granted(String, Grant),
}

/// Who took which key away, and when.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) at: OffsetDateTime,
    pub(super) event_name: String,
    pub(super) event_id: String,
    /// The key's ARN; none where the event names no key, or is not about one.
    pub(super) key: Option<String>,
    pub(super) by: Option<String>,
    pub(super) region: String,
}

/// The means by which a key was taken away.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// The key, from everybody.
    Key,
    /// A grant of this id.
    Grant(String),
    /// A key policy or tag was changed. The record does not say what it had allowed.
    Policy,
    /// A policy of this role was changed; the name is as [`principal`] has it.
    Role(String),
}

/// A grant, as it began.
#[derive(Debug, Clone, Default)]
pub(super) struct Grant {
    pub(super) grantee: String,
    pub(super) operations: Vec<String>,
    pub(super) constraint: Constraint,
}

/// Which encryption contexts a grant is for.
#[derive(Debug, Clone, Default)]
pub(super) enum Constraint {
    /// All.
    #[default]
    None,
    /// This one.
    Equals(BTreeMap<String, String>),
    /// Those that have these pairs.
    Subset(BTreeMap<String, String>),
}

/// Reads a record with this name; `None` if it takes or gives nothing, or failed.
pub(super) fn read(source: &str, name: &str, json: &str) -> Result<Option<Event>, MalformedRecord> {
    if !is_one(source, name) {
        return Ok(None);
    }
    let record = ReadRecord::parse(json)?;
    if record.error_code.is_some() {
        return Ok(None);
    }
    let details: Details<'_> = parse(json)?;
    let requested: Requested<'_> = part(details.request_parameters)?;
    let answered: Answered<'_> = part(details.response_elements)?;
    if source == IAM {
        let Some(role) = requested.role_name else { return Ok(None) };
        let what = What::Role(role_name(&record.recipient_account_id, &role));
        return Ok(Some(Event::Taken(taken(&record, None), what)));
    }
    let named = [record.key_arn(), answered.key_id.as_deref(), requested.key_id.as_deref()];
    let key = named.into_iter().flatten().find(|key| key.starts_with("arn:")).map(str::to_owned);
    let more: Answered<'_> = part(details.additional_event_data)?;
    let what = match name {
        "EnableKey" | "ImportKeyMaterial" => return Ok(key.map(Event::Restored)),
        "CreateGrant" => {
            let Some(id) = answered.grant_id else { return Ok(None) };
            return Ok(Some(Event::Granted(id.to_string(), requested.grant())));
        }
        "RevokeGrant" | "RetireGrant" => {
            let ids = [requested.grant_id, more.grant_id, answered.grant_id];
            What::Grant(ids.into_iter().flatten().next().unwrap_or_default().to_string())
        }
        "PutKeyPolicy" | "UntagResource" => What::Policy,
        _ => What::Key,
    };
    Ok(Some(Event::Taken(taken(&record, key), what)))
}

fn is_one(source: &str, name: &str) -> bool {
    match source {
        KMS => matches!(
            name,
            "DisableKey"
                | "ScheduleKeyDeletion"
                | "DeleteKey"
                | "DeleteImportedKeyMaterial"
                | "DeleteExpiredKeyMaterial"
                | "EnableKey"
                | "ImportKeyMaterial"
                | "CreateGrant"
                | "RevokeGrant"
                | "RetireGrant"
                | "PutKeyPolicy"
                | "UntagResource"
        ),
        IAM => matches!(
            name,
            "DeleteRole"
                | "DeleteRolePolicy"
                | "DetachRolePolicy"
                | "PutRolePolicy"
                | "AttachRolePolicy"
                | "PutRolePermissionsBoundary"
        ),
        _ => false,
    }
}

fn taken(record: &ReadRecord<'_>, key: Option<String>) -> Taken {
    let identity = &record.user_identity;
    let by = identity.arn.as_deref().or(identity.invoked_by.as_deref());
    Taken {
        at: record.event_time,
        event_name: record.event_name.to_string(),
        event_id: record.event_id.to_string(),
        key,
        by: by.map(str::to_owned),
        region: record.aws_region.to_string(),
    }
}

/// What an ARN names: of a role and of its sessions, the role. IAM's ARN of a role has its path, and STS's of a session has not.
pub(super) fn principal(arn: &str) -> String {
    let [_, _, _, _, account, resource] = arn.splitn(6, ':').collect::<Vec<_>>()[..] else {
        return arn.to_owned();
    };
    let role = match resource.split_once('/') {
        Some(("role", path)) => path.rsplit('/').next(),
        Some(("assumed-role", session)) => session.split('/').next(),
        _ => None,
    };
    role.map_or_else(|| arn.to_owned(), |role| role_name(account, role))
}

fn role_name(account: &str, role: &str) -> String {
    format!("{account} role {role}")
}

/// A part of a record, or null.
fn part<'a, T: Deserialize<'a> + Default>(json: Option<&'a RawValue>) -> Result<T, MalformedRecord> {
    json.map_or_else(|| Ok(T::default()), |json| parse(json.get()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Details<'a> {
    #[serde(borrow, default)]
    request_parameters: Option<&'a RawValue>,
    #[serde(borrow, default)]
    response_elements: Option<&'a RawValue>,
    #[serde(borrow, default)]
    additional_event_data: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Requested<'a> {
    #[serde(borrow)]
    key_id: Option<Text<'a>>,
    #[serde(borrow)]
    grant_id: Option<Text<'a>>,
    #[serde(borrow)]
    grantee_principal: Option<Text<'a>>,
    operations: Vec<String>,
    constraints: Option<Constraints>,
    #[serde(borrow)]
    role_name: Option<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Constraints {
    encryption_context_equals: Option<BTreeMap<String, String>>,
    encryption_context_subset: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Answered<'a> {
    #[serde(borrow)]
    key_id: Option<Text<'a>>,
    #[serde(borrow)]
    grant_id: Option<Text<'a>>,
}

impl Requested<'_> {
    fn grant(self) -> Grant {
        let constraints = self.constraints.unwrap_or_default();
        let equals = constraints.encryption_context_equals.map(Constraint::Equals);
        let subset = constraints.encryption_context_subset.map(Constraint::Subset);
        Grant {
            grantee: self.grantee_principal.as_deref().unwrap_or_default().to_owned(),
            operations: self.operations,
            constraint: equals.or(subset).unwrap_or_default(),
        }
    }
}

/// `eventSource` of KMS's records.
const KMS: &str = "kms.amazonaws.com";
/// IAM's event source.
const IAM: &str = "iam.amazonaws.com";
