//! Uses of keys that the broker served, and its promises about them.

use key_broker_trail::record::{MalformedRecord, ReadRecord, parse};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

/// A broker's promise, from its start record, how long a key may be served after it was taken away. Records without `broker.reuse` have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Promise {
    /// How often KMS is asked again; 0: never.
    #[serde(rename = "revocationCheckSeconds")]
    interval_seconds: u32,
    /// About what.
    #[serde(rename = "revocationCheck")]
    scope: Scope,
    /// How much longer kept keys are served while KMS cannot be asked.
    unverified_max_seconds: u32,
}

/// What KMS is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Scope {
    /// A key, with any encryption context.
    Key,
    /// A key with each encryption context.
    Context,
}

/// A call that was answered with a key, or with what a key has made.
#[derive(Debug, Clone)]
pub(super) struct Use {
    pub(super) shown: ShownUse,
    /// The KMS operation.
    pub(super) operation: String,
    /// The key's ARN, in the broker's own region.
    pub(super) key: String,
    pub(super) context: Vec<(String, String)>,
    pub(super) redacted: Vec<String>,
    /// When KMS last allowed this very request.
    pub(super) context_answer: Option<OffsetDateTime>,
    /// When it last allowed any of its kind.
    pub(super) any_answer: Option<OffsetDateTime>,
    /// KMS's id of the newest of these answers.
    pub(super) answer_id: Option<String>,
    pub(super) expires_at: Option<OffsetDateTime>,
    /// Whether KMS could not be asked when it was due.
    pub(super) is_unverified: bool,
    pub(super) promise: Option<Promise>,
}

/// A use, for display.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct ShownUse {
    /// When the call came.
    #[serde(serialize_with = "super::super::call::as_record_time")]
    pub(in super::super) event_time: OffsetDateTime,
    /// Its record.
    #[serde(rename = "eventID")]
    pub(in super::super) event_id: String,
    /// KMS or CACHE.
    pub(in super::super) served_from: &'static str,
}

/// The contents of a record of the broker's own.
#[derive(Default)]
pub(super) struct Own {
    /// Whether it says what the broker promises from here on.
    pub(super) is_promise: bool,
    /// That; none where it starts and does not say so, or in words that are not known.
    pub(super) promise: Option<Promise>,
    /// The ARN of its AWS session.
    pub(super) arn: Option<String>,
}

/// Reads a record of the broker's own.
pub(super) fn own_in(record: &ReadRecord<'_>) -> Result<Own, MalformedRecord> {
    let Some(json) = record.additional_event_data else { return Ok(Own::default()) };
    let data: EventData = parse(json.get())?;
    let told = data.broker.and_then(|broker| broker.reuse);
    Ok(Own {
        is_promise: told.is_some() || &*record.event_name == "StartBroker",
        promise: told.and_then(|told| serde_json::from_value(told).ok()),
        arn: data.identity.and_then(|identity| identity.arn),
    })
}

/// The use in an activity record, if the call was answered. DescribeKey is not a use: it works for disabled keys, too.
pub(super) fn use_in(record: &ReadRecord<'_>) -> Result<Option<Use>, MalformedRecord> {
    if &*record.event_name == "DescribeKey" {
        return Ok(None);
    }
    let (Some(key), Some(json)) = (record.key_arn(), record.additional_event_data) else { return Ok(None) };
    let data: EventData = parse(json.get())?;
    let Some(data_key) = data.data_key.filter(|_| data.outcome == "Allowed") else { return Ok(None) };
    let allowed = data_key.last_allowed;
    let of_context = allowed.as_ref().filter(|allowed| allowed.scope == "CONTEXT");
    let context_answer = data_key.minted_at.max(of_context.map(|allowed| allowed.time));
    let any_answer = data_key.minted_at.max(allowed.as_ref().map(|allowed| allowed.time));
    let is_cached = data_key.served_from == "CACHE";
    Ok(Some(Use {
        shown: ShownUse {
            event_time: record.event_time,
            event_id: record.event_id.to_string(),
            served_from: if is_cached { "CACHE" } else { "KMS" },
        },
        operation: operation_of(&record.event_name).to_owned(),
        key: key.to_owned(),
        context: record
            .encryption_context()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        redacted: data.redacted_encryption_context,
        // KMS has answered the call itself.
        context_answer: if is_cached { context_answer } else { Some(record.event_time).max(context_answer) },
        any_answer: if is_cached { any_answer } else { Some(record.event_time).max(any_answer) },
        answer_id: allowed.and_then(|allowed| allowed.kms_request_id).or(data_key.kms_request_id),
        expires_at: data_key.expires_at,
        is_unverified: data_key.last_check_failed.is_some(),
        promise: None,
    }))
}

/// What KMS is asked for, by the name of the broker's call.
fn operation_of(event_name: &str) -> &str {
    match event_name {
        "EncryptMessage" => "GenerateDataKey",
        "DecryptMessage" => "Decrypt",
        other => other,
    }
}

impl Use {
    /// How long after it was taken from everybody a key may be served, by the broker's promise; none where that is as long as its data
    /// keys may.
    pub(super) fn key_bound(&self, promise: Promise) -> Option<Duration> {
        let longer = if self.is_unverified { promise.unverified_max_seconds } else { 0 };
        let interval = i64::from(promise.interval_seconds);
        (interval > 0).then(|| Duration::seconds(interval + i64::from(longer)))
    }

    /// The same where it was taken for some encryption contexts.
    pub(super) fn context_bound(&self, promise: Promise) -> Option<Duration> {
        self.key_bound(promise).filter(|_| promise.scope == Scope::Context)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct EventData {
    outcome: String,
    data_key: Option<DataKeyData>,
    redacted_encryption_context: Vec<String>,
    broker: Option<Broker>,
    identity: Option<Identity>,
}

#[derive(Deserialize)]
struct Identity {
    #[serde(default)]
    arn: Option<String>,
}

#[derive(Deserialize)]
struct Broker {
    #[serde(default)]
    reuse: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DataKeyData {
    #[serde(default)]
    served_from: String,
    #[serde(default, rename = "kmsRequestID")]
    kms_request_id: Option<String>,
    #[serde(default, with = "time::serde::rfc3339::option")]
    minted_at: Option<OffsetDateTime>,
    #[serde(default, with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    #[serde(default)]
    last_allowed: Option<LastAllowed>,
    #[serde(default)]
    last_check_failed: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct LastAllowed {
    #[serde(with = "time::serde::rfc3339")]
    time: OffsetDateTime,
    #[serde(default, rename = "kmsRequestID")]
    kms_request_id: Option<String>,
    scope: String,
}
