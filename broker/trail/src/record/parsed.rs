//! Records read back: the fields that commands look at, of both profiles and of AWS's own records of KMS.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A record that somebody reads.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParsedRecord {
    /// Who did it.
    #[serde(default)]
    pub user_identity: ParsedIdentity,
    /// When.
    #[serde(deserialize_with = "moment")]
    pub event_time: OffsetDateTime,
    /// The service: `kms.amazonaws.com`, `keybroker.v1.KeyBroker`.
    pub(crate) event_source: String,
    /// The operation.
    pub event_name: String,
    /// The region.
    pub(crate) aws_region: String,
    /// Where the call came from.
    #[serde(rename = "sourceIPAddress")]
    pub(crate) source_ip_address: Option<String>,
    /// With which program.
    pub(crate) user_agent: Option<String>,
    /// Why there was no answer.
    pub error_code: Option<String>,
    /// In words.
    pub error_message: Option<String>,
    /// What was asked.
    pub(crate) request_parameters: Option<ParsedParameters>,
    /// What else there is.
    pub(crate) additional_event_data: Option<ParsedEventData>,
    /// KMS's id of the call, or the broker's; records of no call have none.
    #[serde(rename = "requestID", default)]
    pub request_id: String,
    /// The id of the record.
    #[serde(rename = "eventID")]
    pub(crate) event_id: String,
    /// The same in the records of one call that several accounts have.
    #[serde(rename = "sharedEventID")]
    pub(crate) shared_event_id: Option<String>,
    /// The keys.
    pub(crate) resources: Option<Vec<ParsedResource>>,
    /// The account that has the record.
    #[serde(default)]
    pub(crate) recipient_account_id: String,
}

/// `userIdentity`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParsedIdentity {
    /// The principal of an activity record.
    pub principal_id: Option<String>,
    /// The principal of an AWS record.
    pub arn: Option<String>,
    /// The access key that signed an AWS call.
    pub(crate) access_key_id: Option<String>,
    /// Who asked in the principal's name: `key-broker`, or a service of AWS.
    pub invoked_by: Option<String>,
}

/// `requestParameters`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParsedParameters {
    /// The key as the caller wrote it.
    pub(crate) key_id: Option<String>,
    /// The encryption context.
    pub(crate) encryption_context: Option<BTreeMap<String, String>>,
}

/// `additionalEventData`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParsedEventData {
    /// How a workload's call ended.
    pub(crate) outcome: Option<String>,
    /// Where its answer came from.
    pub(crate) data_key: Option<ParsedDataKey>,
    /// What became of the journal since the record before: counts by their names.
    pub(crate) journal: Option<BTreeMap<String, u64>>,
    /// What was taken anew since the record before, in the same way.
    pub(crate) reloads: Option<BTreeMap<String, u64>>,
}

/// `additionalEventData.dataKey`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParsedDataKey {
    /// `KMS` or `CACHE`.
    pub served_from: Option<String>,
    /// The requestID of the KMS call behind the answer.
    #[serde(rename = "kmsRequestID")]
    pub kms_request_id: Option<String>,
}

/// One of `resources`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ParsedResource {
    /// The key's ARN.
    #[serde(rename = "ARN")]
    pub(crate) arn: Option<String>,
}

impl ParsedRecord {
    /// Reads one record.
    pub fn parse(json: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(json)
    }

    /// Whether it tells of a call to KMS.
    #[must_use]
    pub fn is_of_kms(&self) -> bool {
        self.event_source == KMS
    }

    /// Whether the broker, or an auditor's command, made the call for the trail or for itself.
    #[must_use]
    pub fn is_of_the_broker_itself(&self) -> bool {
        self.user_identity.invoked_by.as_deref() == Some("key-broker")
    }

    /// The key as the caller wrote it.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.request_parameters.as_ref()?.key_id.as_deref()
    }

    /// A value of the encryption context.
    #[must_use]
    pub(crate) fn context(&self, name: &str) -> Option<&str> {
        self.encryption_context()?.get(name).map(String::as_str)
    }

    /// The encryption context; none if it is empty.
    #[must_use]
    pub(crate) fn encryption_context(&self) -> Option<&BTreeMap<String, String>> {
        let context = self.request_parameters.as_ref()?.encryption_context.as_ref()?;
        (!context.is_empty()).then_some(context)
    }

    /// The ARN of the first key.
    #[must_use]
    pub fn key_arn(&self) -> Option<&str> {
        self.resources.as_ref()?.first()?.arn.as_deref()
    }

    /// How a workload's call ended.
    #[must_use]
    pub fn outcome(&self) -> Option<&str> {
        self.additional_event_data.as_ref()?.outcome.as_deref()
    }

    /// What became of the journal since the record before, as `NAME COUNT`.
    #[must_use]
    pub fn journal_notice(&self) -> Option<String> {
        Some(counts(self.additional_event_data.as_ref()?.journal.as_ref()?))
    }

    /// What was taken anew since the record before, as `NAME COUNT`.
    #[must_use]
    pub fn reloads(&self) -> Option<String> {
        Some(counts(self.additional_event_data.as_ref()?.reloads.as_ref()?))
    }

    /// Where the answer to a workload came from.
    #[must_use]
    pub fn data_key(&self) -> Option<&ParsedDataKey> {
        self.additional_event_data.as_ref()?.data_key.as_ref()
    }
}

fn counts(counts: &BTreeMap<String, u64>) -> String {
    counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    OffsetDateTime::parse(&text, &Rfc3339).map_err(serde::de::Error::custom)
}

/// The source of all records of KMS, ours and AWS's.
pub(crate) const KMS: &str = "kms.amazonaws.com";
