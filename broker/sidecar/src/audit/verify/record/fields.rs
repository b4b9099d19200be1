//! The fields of records, borrowed from their text. What a field may hold is for the profiles to say.

use std::fmt;

use key_broker_core::DeclaredUse;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::ordered::Text;
use crate::audit::journal::Notice;

/// A record of either profile.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Fields<'a> {
    #[serde(borrow)]
    pub(super) event_version: Text<'a>,
    #[serde(borrow)]
    pub(super) user_identity: Identity<'a>,
    #[serde(borrow)]
    pub(super) event_time: Text<'a>,
    #[serde(borrow)]
    pub(super) event_source: Text<'a>,
    #[serde(borrow)]
    pub(super) event_name: Text<'a>,
    #[serde(borrow)]
    pub(super) aws_region: Text<'a>,
    #[serde(borrow, rename = "sourceIPAddress")]
    pub(super) source_ip_address: Text<'a>,
    #[serde(borrow)]
    pub(super) user_agent: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) error_code: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) error_message: Option<Text<'a>>,
    /// Must be there, if only as null.
    #[serde(borrow, deserialize_with = "present")]
    pub(super) request_parameters: Option<Parameters<'a>>,
    #[serde(rename = "responseElements")]
    _response_elements: (),
    #[serde(borrow)]
    pub(super) additional_event_data: Option<&'a RawValue>,
    #[serde(borrow, rename = "requestID")]
    pub(super) request_id: Text<'a>,
    #[serde(borrow, rename = "eventID")]
    pub(super) event_id: Text<'a>,
    pub(super) read_only: bool,
    #[serde(borrow)]
    pub(super) resources: Option<Vec<Resource<'a>>>,
    #[serde(borrow)]
    pub(super) event_type: Text<'a>,
    pub(super) management_event: bool,
    #[serde(borrow)]
    pub(super) recipient_account_id: Text<'a>,
    #[serde(borrow)]
    pub(super) event_category: Text<'a>,
}

/// CloudTrail's order of the fields that a broker's records may have.
pub(super) const ORDER: &[&str] = &[
    "eventVersion",
    "userIdentity",
    "eventTime",
    "eventSource",
    "eventName",
    "awsRegion",
    "sourceIPAddress",
    "userAgent",
    "errorCode",
    "errorMessage",
    "requestParameters",
    "responseElements",
    "additionalEventData",
    "requestID",
    "eventID",
    "readOnly",
    "resources",
    "eventType",
    "managementEvent",
    "recipientAccountId",
    "eventCategory",
];

/// `userIdentity` of either profile.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Identity<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(borrow)]
    pub(super) principal_id: Text<'a>,
    #[serde(borrow)]
    pub(super) arn: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) account_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) access_key_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) user_name: Option<Text<'a>>,
    pub(super) session_context: Option<AnyObject>,
    #[serde(borrow)]
    pub(super) invoked_by: Option<Text<'a>>,
    pub(super) details: Option<AnyObject>,
}

/// `requestParameters` of either profile.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Parameters<'a> {
    #[serde(borrow)]
    pub(super) message_type: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) encryption_algorithm: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) key_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) key_spec: Option<Text<'a>>,
    pub(super) number_of_bytes: Option<u16>,
    #[serde(borrow)]
    pub(super) signing_algorithm: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) encryption_context: Option<Context<'a>>,
    #[serde(borrow, rename = "ciphertextBlobSHA256")]
    pub(super) ciphertext_sha256: Option<Text<'a>>,
    #[serde(rename = "use")]
    pub(super) declared_use: Option<DeclaredUse>,
}

/// `additionalEventData` of a KMS record.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct KmsData<'a> {
    #[serde(borrow)]
    pub(super) key_material_id: Option<Text<'a>>,
    pub(super) recipient: Option<AnyObject>,
}

/// `additionalEventData` of an activity record. Later brokers may tell more.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ActivityData<'a> {
    #[serde(borrow)]
    pub(super) outcome: Text<'a>,
    #[serde(borrow)]
    pub(super) data_key: Option<DataKey<'a>>,
    pub(super) journal: Option<Notice>,
}

/// `dataKey` of an activity record.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DataKey<'a> {
    #[serde(borrow)]
    pub(super) served_from: Text<'a>,
    #[serde(borrow, rename = "kmsRequestID")]
    pub(super) kms_request_id: Option<Text<'a>>,
    #[serde(borrow, rename = "kmsEventID")]
    pub(super) kms_event_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) minted_at: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) expires_at: Option<Text<'a>>,
    pub(super) messages_used: Option<u64>,
    pub(super) messages_limit: Option<u64>,
    pub(super) bytes_used: Option<u64>,
    pub(super) bytes_limit: Option<u64>,
}

/// One of `resources`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Resource<'a> {
    #[serde(borrow)]
    pub(super) account_id: Text<'a>,
    #[serde(borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(borrow, rename = "ARN")]
    pub(super) arn: Text<'a>,
}

/// An object whose fields are not looked at.
pub(super) struct AnyObject;

impl<'de> Deserialize<'de> for AnyObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = AnyObject;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AnyObject, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(AnyObject)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// An encryption context: its names and values, in the order of the record.
pub(super) struct Context<'a>(pub(super) Vec<(Text<'a>, Text<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Context<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Context<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an encryption context")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Context<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Context(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// With this, a field has to be there.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::deserialize(deserializer)
}
