//! The records of a trail, in the shape and field order of genuine CloudTrail records
//! (<https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html>).
//!
//! A **KMS record** says of a call to KMS what CloudTrail itself will say. An **activity record** says what a workload
//! asked of the broker and how that ended. Plaintext, ciphertext and attestation documents have no field here.
//!
//! [`Record`] defines both. The broker writes it. The commands read it, as well as AWS's own records, of which they need only some
//! fields. Verification reads it, checks it against its profile, and writes it again: a broker's record comes out byte for byte as it
//! was. docs/audit.md says what later brokers may add, and where.

mod broker_life;
mod caller;
mod event_data;
mod identity;
mod moments;
mod notice;
mod open;
mod parameters;
mod reading;
mod recipient;
mod revocation;
mod text;
mod tls_details;

use key_broker_core::KeyArn;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::{
    caller::AwsCaller,
    event_data::{
        ActivityEventData, DataKeyData, KmsEventData, MessageData, PolicyData, RefusalCount, ServedFrom,
        TraceData,
    },
    identity::UserIdentity,
    moments::record_time,
    open::Open,
    parameters::{RequestParameters, UseData},
    reading::{MalformedRecord, ReadRecord, parse},
    recipient::RecipientData,
    revocation::{AllowedScope, CheckedScope, FailedCheck, LastAllowed, RevocationPromise},
    text::Text,
    tls_details::TlsDetails,
};
pub(crate) use broker_life::{BrokerData, BrokerEvent, OPERATOR_METHODS};
pub(crate) use identity::IdentityKind;
pub(crate) use moments::{moment, optional_moment, parse_record_time};
pub(crate) use notice::{BROKER, REPORT_FAILED_CHECK, REPORT_IDENTITY, REPORT_NOTICE};
pub(crate) use parameters::ContextPairs;
pub(crate) use reading::shown;
use text::cut;
pub(crate) use text::{MAX_SHORT_TEXT_BYTES, lower_case_uuid};

/// A record, with `D` as its `additionalEventData`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record<'a, D> {
    /// `1.11`.
    #[serde(borrow, default)]
    pub(crate) event_version: Text<'a>,
    /// Who did it.
    #[serde(borrow, default)]
    pub user_identity: UserIdentity<'a>,
    /// When KMS answered; when a workload's call arrived.
    #[serde(with = "moment")]
    pub event_time: OffsetDateTime,
    /// The service: `kms.amazonaws.com` or `keybroker.v1.KeyBroker`.
    #[serde(borrow)]
    pub(crate) event_source: Text<'a>,
    /// The KMS operation; the RPC.
    #[serde(borrow)]
    pub event_name: Text<'a>,
    /// The region of the KMS endpoint.
    #[serde(borrow)]
    pub aws_region: Text<'a>,
    /// The broker host's own address toward KMS; the peer's address, `unix`, or `vsock:CID`.
    #[serde(borrow, default, rename = "sourceIPAddress", skip_serializing_if = "Option::is_none")]
    pub source_ip_address: Option<Text<'a>>,
    /// The `User-Agent` the AWS SDK sent; the client's `user-agent`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", serialize_with = "cut")]
    pub user_agent: Option<Text<'a>>,
    /// CloudTrail's name of the error, if there was no answer.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", serialize_with = "cut")]
    pub error_code: Option<Text<'a>>,
    /// What KMS or the broker said.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", serialize_with = "cut")]
    pub error_message: Option<Text<'a>>,
    /// The request's parameters; null if CloudTrail has none, or they could not be read.
    #[serde(borrow, default)]
    pub request_parameters: Option<RequestParameters<'a>>,
    /// Always null: answers are secret.
    #[serde(default)]
    pub(crate) response_elements: NoElements,
    /// Further data, always present in an activity record.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub additional_event_data: Option<D>,
    /// `x-amzn-RequestId` of KMS's answer; the broker's own id of the call, which the caller saw as `x-request-id`.
    #[serde(borrow, default, rename = "requestID")]
    pub request_id: Text<'a>,
    /// The broker's own id of this record.
    #[serde(borrow, rename = "eventID")]
    pub event_id: Text<'a>,
    /// Always true: nothing at KMS changes.
    #[serde(default)]
    pub(crate) read_only: bool,
    /// The key; `None` on AccessDenied, empty if no key is involved or KMS did not say.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Vec<Resource<'a>>>,
    /// `AwsApiCall`, `ActivityLog`.
    #[serde(borrow, default)]
    pub(crate) event_type: Text<'a>,
    /// Whether KMS was called.
    #[serde(default)]
    pub(crate) management_event: bool,
    /// The broker's account.
    #[serde(borrow, default)]
    pub recipient_account_id: Text<'a>,
    /// AWS's own records only: the same in the records of one call that several accounts have.
    #[serde(borrow, default, rename = "sharedEventID", skip_serializing_if = "Option::is_none")]
    pub shared_event_id: Option<Text<'a>>,
    /// `Management`, `ActivityAuditLog`.
    #[serde(borrow, default)]
    pub(crate) event_category: Text<'a>,
    /// How the connection of the KMS call was encrypted, if known.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub tls_details: Option<TlsDetails<'a>>,
}

/// What CloudTrail will say about a call that KMS answered.
pub type KmsRecord<'a> = Record<'a, KmsEventData<'a>>;

/// What a workload asked of the broker, and how that ended.
pub type ActivityRecord<'a> = Record<'a, ActivityEventData<'a>>;

impl<'a> KmsRecord<'a> {
    /// A record with the fields that are the same for all KMS records.
    #[must_use]
    pub fn new(
        identity: UserIdentity<'a>,
        event_time: OffsetDateTime,
        event_name: &'a str,
        aws_region: &'a str,
        request_id: &'a str,
        event_id: Uuid,
    ) -> Self {
        Self {
            request_id: request_id.into(),
            event_id: event_id.into(),
            recipient_account_id: identity.account_id.clone().unwrap_or_default(),
            ..Self::of(EventCategory::Management, identity, event_time, event_name, aws_region)
        }
    }
}

impl<'a> ActivityRecord<'a> {
    /// A record with the fields that are the same for all activity records. `event_name` is an action of workloads or a method of
    /// operators.
    #[must_use]
    pub fn new(
        identity: UserIdentity<'a>,
        event_time: OffsetDateTime,
        name: &'static str,
        aws_region: &'a str,
        account_id: &'a str,
        data: ActivityEventData<'a>,
    ) -> Self {
        Self {
            recipient_account_id: account_id.into(),
            additional_event_data: Some(data),
            ..Self::of(EventCategory::ActivityAuditLog, identity, event_time, name, aws_region)
        }
    }
}

impl<'a, D> Record<'a, D> {
    fn of(
        category: EventCategory,
        user_identity: UserIdentity<'a>,
        event_time: OffsetDateTime,
        event_name: &'a str,
        aws_region: &'a str,
    ) -> Self {
        Self {
            event_version: EVENT_VERSION.into(),
            user_identity,
            event_time,
            event_source: category.event_source().into(),
            event_name: event_name.into(),
            aws_region: aws_region.into(),
            source_ip_address: Some("".into()),
            user_agent: Some("".into()),
            error_code: None,
            error_message: None,
            request_parameters: None,
            response_elements: NoElements,
            additional_event_data: None,
            request_id: Text::default(),
            event_id: Text::default(),
            read_only: true,
            resources: None,
            event_type: category.event_type().into(),
            management_event: category.is_management(),
            recipient_account_id: Text::default(),
            shared_event_id: None,
            event_category: category.name().into(),
            tls_details: None,
        }
    }

    /// Notes why there was no answer.
    pub fn fail(&mut self, error_code: &'a str, error_message: &'a str) {
        self.error_code = Some(error_code.into());
        self.error_message = (!error_message.is_empty()).then(|| error_message.into());
    }
}

impl<D: Serialize> Record<'_, D> {
    /// Adds the record to `lines` as one line of compact JSON.
    #[expect(clippy::missing_panics_doc, reason = "nothing can fail")]
    pub fn append_to(&self, lines: &mut Vec<u8>) {
        lines.reserve(TYPICAL_RECORD_BYTES);
        serde_json::to_writer(&mut *lines, self)
            .expect("records have string keys and go to memory: nothing can fail");
        lines.push(b'\n');
    }
}

/// The profile of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum EventCategory {
    /// A KMS record.
    Management,
    /// An activity record.
    ActivityAuditLog,
}

impl EventCategory {
    /// `eventCategory`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Management => "Management",
            Self::ActivityAuditLog => "ActivityAuditLog",
        }
    }

    /// `eventSource`.
    pub(crate) const fn event_source(self) -> &'static str {
        match self {
            Self::Management => KMS,
            Self::ActivityAuditLog => KEY_BROKER,
        }
    }

    /// `eventType`.
    pub(crate) const fn event_type(self) -> &'static str {
        match self {
            Self::Management => "AwsApiCall",
            Self::ActivityAuditLog => "ActivityLog",
        }
    }

    /// `managementEvent`.
    pub(crate) const fn is_management(self) -> bool {
        matches!(self, Self::Management)
    }
}

/// `responseElements`, written as null. Those of AWS's own records are ignored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NoElements;

impl Serialize for NoElements {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for NoElements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// One of `resources`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resource<'a> {
    /// The key's account.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(crate) account_id: Option<Text<'a>>,
    /// `AWS::KMS::Key`.
    #[serde(borrow, rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<Text<'a>>,
    /// The key's ARN.
    #[serde(borrow, rename = "ARN", skip_serializing_if = "Option::is_none")]
    pub(crate) arn: Option<Text<'a>>,
}

impl<'a> From<&'a KeyArn> for Resource<'a> {
    fn from(arn: &'a KeyArn) -> Self {
        Self { account_id: Some(arn.account_id().into()), kind: Some(KMS_KEY.into()), arn: Some(arn.into()) }
    }
}

fn none<T>() -> Option<T> {
    None
}

/// The end of every activity record, and of no other.
pub(crate) const ACTIVITY_END: &[u8] = br#""eventCategory":"ActivityAuditLog"}"#;
/// The record version that today's readers meet.
pub(crate) const EVENT_VERSION: &str = "1.11";
/// The source of all KMS records, the broker's and AWS's.
pub(crate) const KMS: &str = "kms.amazonaws.com";
/// The source of activity records.
const KEY_BROKER: &str = "keybroker.v1.KeyBroker";
/// The type of a record's resources.
pub(crate) const KMS_KEY: &str = "AWS::KMS::Key";
/// Most records are between 0.9 and 1.5 KB.
const TYPICAL_RECORD_BYTES: usize = 1_536;

#[cfg(test)]
mod tests;
