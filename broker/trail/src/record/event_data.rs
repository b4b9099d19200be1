//! `additionalEventData` of the two profiles.

use std::borrow::Cow;
use std::sync::Arc;

use key_broker_core::Outcome;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::open::object;
use super::text::{optional_id, word};
use super::{FailedCheck, LastAllowed, Open, RecipientData, Text, UserIdentity, optional_moment};
use crate::notice::{Notice, Reloads, Untold};

/// `additionalEventData` of a KMS record.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KmsEventData<'a> {
    /// The key material that KMS used.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub key_material_id: Option<Text<'a>>,
    /// On ReEncrypt, the key material that the ciphertext is encrypted under now.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub destination_key_material_id: Option<Text<'a>>,
    /// The key material that it had been encrypted under.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub source_key_material_id: Option<Text<'a>>,
    /// The measurements in the attestation document to whose public key KMS encrypted its answer.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<Open<'a, RecipientData<'a>>>,
    /// The names of encryption context pairs whose values are digests in this record, as configured for redaction.
    #[serde(borrow, rename = "redactedEncryptionContext", default, skip_serializing_if = "Vec::is_empty")]
    pub redacted: Vec<Text<'a>>,
}

/// `additionalEventData` of an activity record. Later brokers may add fields, here and in its parts.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActivityEventData<'a> {
    /// How the call ended.
    #[serde(deserialize_with = "word")]
    pub outcome: Outcome,
    /// The policy decision, if policy was asked.
    #[serde(borrow, default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyData<'a>>,
    /// Where the answer came from, if KMS or the cache was asked.
    #[serde(borrow, default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub data_key: Option<DataKeyData<Text<'a>>>,
    /// The message that was encrypted or decrypted.
    #[serde(borrow, default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageData<'a>>,
    /// The eventID of the activity record with which a stream began: this record says how it ended.
    #[serde(
        rename = "endsEventID",
        default,
        deserialize_with = "optional_id",
        skip_serializing_if = "Option::is_none"
    )]
    pub ends: Option<Uuid>,
    /// What the call's attestation document proves, whatever the outcome.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<Open<'a, RecipientData<'a>>>,
    /// The span of the call, if it was traced.
    #[serde(borrow, default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceData<'a>>,
    /// The caller's span, if the call was not traced and the caller told of one.
    #[serde(borrow, default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub caller_trace: Option<TraceData<'a>>,
    /// Whether the caller's long texts are cut, as in records of refused calls.
    #[serde(rename = "requestParametersCut", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
    /// The names of encryption context pairs whose values are digests in this record, as configured for redaction.
    #[serde(borrow, rename = "redactedEncryptionContext", default, skip_serializing_if = "Vec::is_empty")]
    pub redacted: Vec<Text<'a>>,
    /// The eventID of an activity record of this call that says Allowed but was written too late: its answer never left.
    #[serde(
        rename = "withdrawsEventID",
        default,
        deserialize_with = "optional_id",
        skip_serializing_if = "Option::is_none"
    )]
    pub withdraws: Option<Uuid>,
    /// The calls that this record counts, if there are several.
    #[serde(borrow, default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub refusals: Option<RefusalCount<'a>>,
    /// What happened to the journal since the previous record.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub journal: Option<Notice>,
    /// Reloads since the previous record.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub reloads: Option<Reloads>,
    /// Identifies the report in `journal` and `reloads`: two records with the same one report the same.
    #[serde(
        rename = "noticeID",
        default,
        deserialize_with = "optional_id",
        skip_serializing_if = "Option::is_none"
    )]
    pub notice_id: Option<Uuid>,
    /// A failed check of whether data keys may still be used.
    #[serde(borrow, default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub failed_check: Option<FailedCheck<'a>>,
    /// The owner of an access key that is alone in earlier KMS records.
    #[serde(borrow, default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub identity: Option<UserIdentity<'a>>,
    /// What the broker records about itself, in records of its own life.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub broker: Option<Open<'a, Value>>,
    /// What an operator requested, and the outcome, in records of the operator's calls.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub operator: Option<Open<'a, Value>>,
}

impl From<Outcome> for ActivityEventData<'_> {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            policy: None,
            data_key: None,
            message: None,
            ends: None,
            recipient: None,
            trace: None,
            caller_trace: None,
            is_cut: false,
            redacted: Vec::new(),
            withdraws: None,
            refusals: None,
            journal: None,
            reloads: None,
            notice_id: None,
            failed_check: None,
            identity: None,
            broker: None,
            operator: None,
        }
    }
}

impl ActivityEventData<'_> {
    /// Adds a notice about the broker's trail.
    #[must_use]
    pub(crate) fn with_notice(mut self, untold: &Untold) -> Self {
        (self.journal, self.reloads) = (untold.journal(), untold.reloads());
        self.notice_id = Some(untold.id);
        self
    }
}

/// A count of one principal's calls that were refused for one reason within a second.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusalCount<'a> {
    /// The number of calls.
    pub count: u64,
    /// The request id that the first caller saw.
    #[serde(borrow, rename = "firstRequestID")]
    pub first_request_id: Text<'a>,
    /// The request id that the last caller saw.
    #[serde(borrow, rename = "lastRequestID")]
    pub last_request_id: Text<'a>,
    /// The first sixteen requested keys, as callers wrote them.
    #[serde(borrow)]
    pub key_names: Vec<Text<'a>>,
    /// The number of different keys requested, up to 1,024.
    pub different_key_names: u64,
}

/// An AWS Encryption SDK message, whose header is known once it is read or written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageData<'a> {
    /// The SHA-256, in hex, of the message's header with its tag, by which the call of a message can be found.
    #[serde(borrow, rename = "headerSHA256")]
    pub header_sha256: Text<'a>,
    /// The algorithm suite: `0x0478`.
    #[serde(borrow)]
    pub suite: Text<'a>,
    /// The number of encrypted data keys in the message.
    pub encrypted_data_keys: u16,
    /// The bytes of the whole message; unknown while a stream has not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// The bytes of plaintext that were encrypted, or that left the broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plaintext_length: Option<u64>,
}

/// The call's place in OpenTelemetry's traces.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceData<'a> {
    /// 32 lower-case hex digits.
    #[serde(borrow)]
    pub trace_id: Text<'a>,
    /// The span's id: 16 lower-case hex digits.
    #[serde(borrow)]
    pub span_id: Text<'a>,
}

/// The policies that decided.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyData<'a> {
    /// Their ids; empty when no policy permits.
    pub determining_policies: Cow<'a, [String]>,
    /// The version of the policies in force: the first half of the SHA-256 of their text, in hex.
    #[serde(borrow)]
    pub version: Text<'a>,
}

/// The source of an answer, and how far its data key has been used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataKeyData<T = Arc<str>> {
    /// Whether KMS was called for it.
    #[serde(deserialize_with = "word")]
    pub served_from: ServedFrom,
    /// The requestID of the KMS call behind the answer.
    #[serde(rename = "kmsRequestID", skip_serializing_if = "Option::is_none")]
    pub kms_request_id: Option<T>,
    /// The eventID of that call's KMS record.
    #[serde(
        rename = "kmsEventID",
        default,
        deserialize_with = "optional_id",
        skip_serializing_if = "Option::is_none"
    )]
    pub kms_event_id: Option<Uuid>,
    /// When KMS answered.
    #[serde(default, with = "optional_moment", skip_serializing_if = "Option::is_none")]
    pub minted_at: Option<OffsetDateTime>,
    /// When the data key expires.
    #[serde(default, with = "optional_moment", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<OffsetDateTime>,
    /// KMS's latest permission since then.
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub last_allowed: Option<LastAllowed<T>>,
    /// The eventID of the record that explains why KMS was not asked again in time.
    #[serde(default, deserialize_with = "optional_id", skip_serializing_if = "Option::is_none")]
    pub last_check_failed: Option<Uuid>,
    /// The messages charged so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_used: Option<u64>,
    /// The messages allowed in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_limit: Option<u64>,
    /// The declared bytes charged so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_used: Option<u64>,
    /// The declared bytes allowed in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_limit: Option<u64>,
    /// The SHA-256, in hex, of the ciphertext that KMS made and the caller got, by which the call can be found.
    #[serde(rename = "ciphertextBlobSHA256", skip_serializing_if = "Option::is_none")]
    pub ciphertext_sha256: Option<T>,
}

impl DataKeyData {
    /// The same, for a record.
    #[must_use]
    pub fn borrowed(&self) -> DataKeyData<Text<'_>> {
        DataKeyData {
            served_from: self.served_from,
            kms_request_id: self.kms_request_id.as_deref().map(Into::into),
            kms_event_id: self.kms_event_id,
            minted_at: self.minted_at,
            expires_at: self.expires_at,
            last_allowed: self.last_allowed.as_ref().map(|allowed| LastAllowed {
                time: allowed.time,
                kms_request_id: (&*allowed.kms_request_id).into(),
                kms_event_id: allowed.kms_event_id,
                scope: allowed.scope,
            }),
            last_check_failed: self.last_check_failed,
            messages_used: self.messages_used,
            messages_limit: self.messages_limit,
            bytes_used: self.bytes_used,
            bytes_limit: self.bytes_limit,
            ciphertext_sha256: self.ciphertext_sha256.as_deref().map(Into::into),
        }
    }
}

/// The source of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ServedFrom {
    /// A call to KMS for this request.
    Kms,
    /// An earlier call.
    Cache,
}

impl ServedFrom {
    /// The word in records and on spans.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kms => "KMS",
            Self::Cache => "CACHE",
        }
    }
}
