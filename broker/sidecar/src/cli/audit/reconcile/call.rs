//! A call to KMS as one side records it, and the differences between two records of one call.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use time::OffsetDateTime;

use key_broker_trail::record::{KmsEventData, ReadRecord, Text, parse, record_time};

use crate::redaction::{Digester, Maker};

/// A call, for display.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListedCall {
    /// The time of the call.
    #[serde(serialize_with = "as_record_time")]
    pub(super) event_time: OffsetDateTime,
    /// The operation.
    pub(super) event_name: String,
    /// The requestID that KMS gave it.
    #[serde(rename = "requestID")]
    pub(super) request_id: String,
    /// The key, by its ARN, or as it was asked for.
    pub(super) key: Option<String>,
    /// The owner of the credentials.
    pub(super) arn: Option<String>,
    /// The access key.
    pub(super) access_key_id: Option<String>,
    /// The caller's address.
    #[serde(rename = "sourceIPAddress")]
    pub(super) source_ip_address: Option<String>,
    /// The caller's program.
    pub(super) user_agent: Option<String>,
    /// The AWS service that made the call in the caller's name.
    pub(super) invoked_by: Option<String>,
    /// The error code, if it failed.
    pub(super) error_code: Option<String>,
}

/// A field in which the two records of a call differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Difference {
    /// The time of the call.
    #[serde(serialize_with = "as_record_time")]
    pub(super) event_time: OffsetDateTime,
    /// The operation, as the trail has it.
    pub(super) event_name: String,
    /// The requestID that KMS gave it.
    #[serde(rename = "requestID")]
    pub(super) request_id: String,
    /// The field.
    pub(super) field: &'static str,
    /// As we have it.
    pub(super) ours: Option<String>,
    /// As AWS has it.
    pub(super) aws: Option<String>,
}

/// A call, with what the other side's record of it is compared with.
pub(super) struct ComparedCall {
    pub(super) call: ListedCall,
    key_id: Option<String>,
    key_arn: Option<String>,
    has_parameters: bool,
    has_resources: bool,
    context: BTreeMap<String, String>,
    /// The pairs of it whose values are digests.
    redacted: Vec<String>,
}

impl From<&ReadRecord<'_>> for ComparedCall {
    fn from(record: &ReadRecord<'_>) -> Self {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let context = record.encryption_context().map(|(name, value)| (name.to_owned(), value.to_owned()));
        // AWS's own records have other fields there, and not this one.
        let data = record.additional_event_data.and_then(|json| parse::<KmsEventData<'_>>(json.get()).ok());
        let redacted = data.map(|data| data.redacted.iter().map(ToString::to_string).collect());
        Self {
            call: record.into(),
            key_id: owned(record.key_id()),
            key_arn: owned(record.key_arn()),
            has_parameters: record.request_parameters.is_some(),
            has_resources: record.resources.is_some(),
            context: context.collect(),
            redacted: redacted.unwrap_or_default(),
        }
    }
}

impl From<&ReadRecord<'_>> for ListedCall {
    fn from(record: &ReadRecord<'_>) -> Self {
        let owned = |text: &Option<Text<'_>>| text.as_deref().map(str::to_owned);
        let identity = &record.user_identity;
        Self {
            event_time: record.event_time,
            key: record.key_arn().or_else(|| record.key_id()).map(str::to_owned),
            event_name: record.event_name.to_string(),
            request_id: record.request_id.to_string(),
            arn: owned(&identity.arn),
            access_key_id: owned(&identity.access_key_id),
            source_ip_address: owned(&record.source_ip_address),
            user_agent: owned(&record.user_agent),
            invoked_by: owned(&identity.invoked_by),
            error_code: owned(&record.error_code),
        }
    }
}

impl ComparedCall {
    /// Whether these are two records of one call that agree in every field that both have.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        let mut differences = Vec::new();
        let is_told = compare(self, other, None, &mut differences);
        is_told
            && differences.is_empty()
            && self.call.request_id == other.call.request_id
            && self.call.event_name == other.call.event_name
    }

    /// The context as `ours` would have it: redacted where that is. False if that takes a key that is not there; then what cannot be
    /// compared is as in `ours`.
    fn context_like(&self, ours: &Self, key: Option<&Digester>) -> (BTreeMap<String, String>, bool) {
        let (mut context, mut is_told) = (self.context.clone(), true);
        for name in &ours.redacted {
            let (Some(value), Some(digest)) = (context.get_mut(name), ours.context.get(name)) else {
                continue;
            };
            match Digester::of(digest, key) {
                Maker::Known(digester) => *value = digester.digest(value),
                Maker::KeyMissing => {
                    value.clone_from(digest);
                    is_told = false;
                }
                // No digest at all: it differs.
                Maker::Nobody => {}
            }
        }
        (context, is_told)
    }
}

/// Adds the fields in which two records of one call differ. What ours has redacted is redacted in theirs before; false if that takes the
/// key, and there is none.
pub(super) fn compare(
    ours: &ComparedCall,
    theirs: &ComparedCall,
    key: Option<&Digester>,
    differences: &mut Vec<Difference>,
) -> bool {
    let (their_context, is_told) = theirs.context_like(ours, key);
    let json = |context: &BTreeMap<String, String>| {
        (!context.is_empty()).then(|| serde_json::json!(context).to_string())
    };
    let (our_context, their_context) = (json(&ours.context), json(&their_context));
    let mut fields = vec![("errorCode", &ours.call.error_code, &theirs.call.error_code)];
    // Of calls that were throttled or denied, AWS may have neither.
    let failed = theirs.call.error_code.is_some();
    if theirs.has_parameters || !failed {
        fields.push(("requestParameters.keyId", &ours.key_id, &theirs.key_id));
        fields.push(("requestParameters.encryptionContext", &our_context, &their_context));
    }
    let is_session =
        |call: &ListedCall| call.arn.as_deref().is_some_and(|arn| arn.contains(":assumed-role/"));
    if is_session(&ours.call) && is_session(&theirs.call) {
        fields.push(("userIdentity.arn", &ours.call.arn, &theirs.call.arn));
    }
    // The broker does not always learn the key of a call that failed.
    let knows_key = ours.call.error_code.is_none() || ours.key_arn.is_some();
    if knows_key && (theirs.has_resources || !failed) {
        fields.push(("resources.ARN", &ours.key_arn, &theirs.key_arn));
    }
    differences.extend(
        fields
            .into_iter()
            .filter_map(|(field, one, other)| difference(&ours.call, field, one.clone(), other.clone())),
    );
    is_told
}

/// A field, if it differs.
pub(super) fn difference(
    call: &ListedCall,
    field: &'static str,
    ours: Option<String>,
    aws: Option<String>,
) -> Option<Difference> {
    (ours != aws).then(|| Difference {
        event_time: call.event_time,
        event_name: call.event_name.clone(),
        request_id: call.request_id.clone(),
        field,
        ours,
        aws,
    })
}

pub(super) fn as_record_time<S: Serializer>(at: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&record_time(*at))
}
