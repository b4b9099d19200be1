//! The two record profiles of the trail, in the shape and field order of genuine CloudTrail records
//! (<https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html>).
//!
//! A **KMS record** says of a call to KMS what CloudTrail itself will say. An **activity record** says what a workload
//! asked of the broker and how that ended. Plaintext, ciphertext and attestation documents have no field here.

mod caller;
mod identity;
mod notice;
pub(crate) mod parsed;

use std::sync::Arc;

use key_broker_core::{
    Action, DataKeyLength, DeclaredUse, EncryptionContext, KeyArn, KeyId, Measurements, Outcome,
};
use serde::{Serialize, Serializer};
use time::{OffsetDateTime, UtcOffset};
use uuid::Uuid;

use crate::notice::{Notice, Reloads};

pub use caller::AwsCaller;
pub use identity::WorkloadIdentity;
pub(crate) use identity::{AwsIdentity, SessionContext, SessionIssuer};
pub(crate) use notice::BROKER;
pub(crate) use notice::{NoticeRecord, REPORT_NOTICE};
pub use parsed::ParsedRecord;

/// Adds a record to `lines` as one line of compact JSON.
fn append_line(lines: &mut Vec<u8>, record: &impl Serialize) {
    lines.reserve(TYPICAL_RECORD_BYTES);
    serde_json::to_writer(&mut *lines, record)
        .expect("records have string keys and go to memory: nothing can fail");
    lines.push(b'\n');
}

/// What CloudTrail will say about a call that KMS answered.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KmsRecord<'a> {
    event_version: &'static str,
    /// The broker's AWS principal.
    pub(crate) user_identity: AwsIdentity<'a>,
    /// When KMS answered.
    #[serde(serialize_with = "cloudtrail_time")]
    pub(crate) event_time: OffsetDateTime,
    event_source: &'static str,
    /// The KMS operation.
    pub(crate) event_name: &'static str,
    /// The region of the KMS endpoint.
    pub(crate) aws_region: &'a str,
    /// The broker host's address as it is on the way to KMS.
    #[serde(rename = "sourceIPAddress")]
    pub source_ip_address: &'a str,
    /// The `User-Agent` the AWS SDK sent.
    #[serde(serialize_with = "short_text")]
    pub user_agent: &'a str,
    /// KMS's error, if it answered with one.
    #[serde(flatten)]
    pub error: Option<RecordedError<'a>>,
    /// What was asked.
    pub request_parameters: Option<RequestParameters<'a>>,
    response_elements: (),
    #[serde(skip_serializing_if = "Option::is_none")]
    /// What KMS used, and for whom.
    pub additional_event_data: Option<KmsEventData<'a>>,
    /// `x-amzn-RequestId` of the answer.
    #[serde(rename = "requestID")]
    pub(crate) request_id: &'a str,
    /// The broker's own id of this record.
    #[serde(rename = "eventID")]
    pub event_id: Uuid,
    read_only: bool,
    /// The key; none on AccessDenied, empty where no key is involved or KMS did not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Vec<Resource<'a>>>,
    event_type: &'static str,
    management_event: bool,
    /// The broker's account.
    pub(crate) recipient_account_id: &'a str,
    event_category: &'static str,
}

impl<'a> KmsRecord<'a> {
    /// A record with everything that is the same for all KMS records.
    #[must_use]
    pub fn new(
        identity: AwsIdentity<'a>,
        event_time: OffsetDateTime,
        event_name: &'static str,
        aws_region: &'a str,
        request_id: &'a str,
    ) -> Self {
        let recipient_account_id = identity.account_id;
        Self {
            event_version: EVENT_VERSION,
            user_identity: identity,
            event_time,
            event_source: "kms.amazonaws.com",
            event_name,
            aws_region,
            source_ip_address: "",
            user_agent: "",
            error: None,
            request_parameters: None,
            response_elements: (),
            additional_event_data: None,
            request_id,
            event_id: Uuid::new_v4(),
            read_only: true,
            resources: None,
            event_type: "AwsApiCall",
            management_event: true,
            recipient_account_id,
            event_category: "Management",
        }
    }

    /// Adds the record to `lines` as one line of compact JSON.
    pub fn append_to(&self, lines: &mut Vec<u8>) {
        append_line(lines, self);
    }
}

/// What a workload asked of the broker, and how that ended.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ActivityRecord<'a> {
    /// [`EVENT_VERSION`].
    pub event_version: &'static str,
    /// The principal.
    pub user_identity: WorkloadIdentity<'a>,
    /// When the call arrived.
    #[serde(serialize_with = "cloudtrail_time")]
    pub event_time: OffsetDateTime,
    /// `keybroker.v1.KeyBroker`.
    pub event_source: &'static str,
    /// The RPC.
    pub event_name: Action,
    /// The region of the broker's KMS.
    pub aws_region: &'a str,
    /// The peer's address, `unix`, or `vsock:CID`.
    #[serde(rename = "sourceIPAddress")]
    pub source_ip_address: &'a str,
    /// The client's `user-agent`.
    #[serde(serialize_with = "short_text")]
    pub user_agent: &'a str,
    /// Why there was no answer.
    #[serde(flatten)]
    pub error: Option<RecordedError<'a>>,
    /// What was asked; null if it could not be read.
    pub request_parameters: Option<RequestParameters<'a>>,
    /// Always null: answers are secret.
    pub response_elements: (),
    /// The outcome and where the answer came from.
    pub additional_event_data: ActivityEventData<'a>,
    /// The broker's own id of the call, which the caller saw as `x-request-id`.
    #[serde(rename = "requestID")]
    pub request_id: Uuid,
    /// The id of this record.
    #[serde(rename = "eventID")]
    pub event_id: Uuid,
    /// Always true: nothing at KMS changes.
    pub read_only: bool,
    /// The KMS key, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<[Resource<'a>; 1]>,
    /// `ActivityLog`.
    pub event_type: &'static str,
    /// Always false.
    pub management_event: bool,
    /// The broker's account.
    pub recipient_account_id: &'a str,
    /// `ActivityAuditLog`.
    pub event_category: &'static str,
}

impl ActivityRecord<'_> {
    /// Adds the record to `lines` as one line of compact JSON.
    pub fn append_to(&self, lines: &mut Vec<u8>) {
        append_line(lines, self);
    }
}

/// `errorCode` and `errorMessage`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedError<'a> {
    /// CloudTrail's name of the error.
    #[serde(serialize_with = "short_text")]
    pub error_code: &'a str,
    /// What KMS or the broker said.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "short_text")]
    pub error_message: &'a str,
}

/// `requestParameters`, as the KMS operation's.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct RequestParameters<'a> {
    /// `DIGEST` on Sign.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_type: Option<&'static str>,
    /// `SYMMETRIC_DEFAULT` on Decrypt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption_algorithm: Option<&'static str>,
    /// The key as the caller wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<&'a KeyId>,
    /// `AES_256` or `AES_128`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_spec: Option<&'static str>,
    /// The number of bytes, if no key spec was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number_of_bytes: Option<u16>,
    /// `RSASSA_PKCS1_V1_5_SHA_256` on Sign.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_algorithm: Option<&'static str>,
    /// The encryption context, if there is any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption_context: Option<&'a EncryptionContext>,
    /// Activity records only: the ciphertext's name, its SHA-256 in hex.
    #[serde(skip_serializing_if = "Option::is_none", rename = "ciphertextBlobSHA256")]
    pub ciphertext_sha256: Option<&'a str>,
    /// Activity records only: what the caller declared.
    #[serde(skip_serializing_if = "Option::is_none", rename = "use")]
    pub declared_use: Option<DeclaredUse>,
}

impl RequestParameters<'_> {
    /// With a data key's length in the field that KMS would have it in.
    #[must_use]
    pub fn with_length(mut self, length: DataKeyLength) -> Self {
        match length {
            DataKeyLength::Aes256 => self.key_spec = Some("AES_256"),
            DataKeyLength::Aes128 => self.key_spec = Some("AES_128"),
            DataKeyLength::Bytes(n) => self.number_of_bytes = Some(n.get()),
        }
        self
    }
}

/// `additionalEventData` of a KMS record.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KmsEventData<'a> {
    /// The key material that KMS used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_material_id: Option<&'a str>,
    /// What an attestation document measured, to whose public key KMS encrypted its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<&'a Measurements>,
}

/// `additionalEventData` of an activity record.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ActivityEventData<'a> {
    /// How the call ended.
    pub outcome: Outcome,
    /// What policy said, if it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyData<'a>>,
    /// Where the answer came from, if KMS or the cache was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_key: Option<&'a DataKeyData>,
    /// What the call's attestation document proves, whatever became of the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<&'a Measurements>,
    /// The span of the call, if it was traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<&'a TraceData>,
    /// What became of the journal since the record before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal: Option<Notice>,
    /// What was taken anew since the record before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reloads: Option<Reloads>,
    /// Names what `journal` and `reloads` tell: two records with the same one tell the same.
    #[serde(rename = "noticeID", skip_serializing_if = "Option::is_none")]
    pub notice_id: Option<Uuid>,
}

/// Where a call is in OpenTelemetry's traces.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceData {
    /// 32 lower-case hex digits.
    pub trace_id: String,
    /// Of the server span: 16 lower-case hex digits.
    pub span_id: String,
}

/// The policies that decided.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyData<'a> {
    /// Their ids; empty when no policy permits.
    pub determining_policies: &'a [String],
    /// Names the policies in force: the first half of the SHA-256 of their text, in hex.
    pub version: &'a str,
}

/// Where an answer came from, and how far its data key has been used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DataKeyData {
    /// Whether KMS was called for it.
    pub served_from: ServedFrom,
    /// The requestID of the KMS call behind the answer.
    #[serde(rename = "kmsRequestID", skip_serializing_if = "Option::is_none")]
    pub kms_request_id: Option<Arc<str>>,
    /// The eventID of that call's KMS record.
    #[serde(rename = "kmsEventID", skip_serializing_if = "Option::is_none")]
    pub kms_event_id: Option<Uuid>,
    /// When KMS answered.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_time")]
    pub minted_at: Option<OffsetDateTime>,
    /// When the data key is handed out for the last time.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_time")]
    pub expires_at: Option<OffsetDateTime>,
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
}

/// Who made an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ServedFrom {
    /// A call to KMS for this very request.
    Kms,
    /// An earlier one.
    Cache,
}

/// One of `resources`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource<'a> {
    account_id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "ARN")]
    arn: &'a KeyArn,
}

impl<'a> From<&'a KeyArn> for Resource<'a> {
    fn from(arn: &'a KeyArn) -> Self {
        Self { account_id: arn.account_id(), kind: "AWS::KMS::Key", arn }
    }
}

/// A moment as records and digests have it: `YYYY-MM-DDTHH:MM:SSZ`.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "nothing can fail")]
pub fn record_time(at: OffsetDateTime) -> String {
    std::str::from_utf8(&digits(at.to_offset(UtcOffset::UTC))).expect("digits are ASCII").to_owned()
}

fn cloudtrail_time<S: Serializer>(at: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    let text = digits(*at);
    serializer.serialize_str(std::str::from_utf8(&text).map_err(serde::ser::Error::custom)?)
}

/// `YYYY-MM-DDTHH:MM:SSZ`, without fraction. By hand, since each record has three moments: `time` interprets a description of
/// the form every time.
fn digits(at: OffsetDateTime) -> [u8; 20] {
    let mut text = *b"0000-00-00T00:00:00Z";
    let mut put = |place: usize, number: u32| {
        for (place, unit) in [(place, 10), (place + 1, 1)] {
            text[place] = b'0' + u8::try_from(number / unit % 10).unwrap_or_default();
        }
    };
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second) = at.to_hms();
    // `time` knows years up to 9999; there are no moments before our era here.
    let year = year.unsigned_abs();
    put(0, year / 100);
    put(2, year);
    put(5, u8::from(month).into());
    put(8, day.into());
    put(11, hour.into());
    put(14, minute.into());
    put(17, second.into());
    text
}

/// The same, where there may be none.
#[expect(clippy::ref_option, reason = "serde passes the field as it is")]
pub(crate) fn optional_time<S: Serializer>(
    at: &Option<OffsetDateTime>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => cloudtrail_time(at, serializer),
        None => serializer.serialize_none(),
    }
}

/// CloudTrail's limit for userAgent, errorCode and errorMessage: longer text is cut, the record is kept.
fn short_text<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let mut end = text.len().min(MAX_SHORT_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    serializer.serialize_str(&text[..end])
}

/// How every activity record ends, and no other.
pub(crate) const ACTIVITY_END: &[u8] = br#""eventCategory":"ActivityAuditLog"}"#;
/// The record version that today's readers meet.
pub const EVENT_VERSION: &str = "1.11";
/// CloudTrail: userAgent, errorCode and errorMessage are 1 KB at most.
const MAX_SHORT_TEXT_BYTES: usize = 1_024;
/// Most records are between 0.8 and 1.2 KB.
const TYPICAL_RECORD_BYTES: usize = 1_280;

#[cfg(test)]
mod tests;
