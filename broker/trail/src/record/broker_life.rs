//! Activity records of the broker's own life, and of operators' calls.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{ActivityEventData, ActivityRecord, AwsCaller, Open, RevocationPromise, Text, UserIdentity};
use crate::format_version::FORMAT_VERSION;
use crate::origin::Origin;

/// An event in the life of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BrokerEvent {
    /// It is about to serve.
    Start,
    /// It takes no new calls.
    Drain,
    /// Only the last deliveries follow.
    Close,
}

impl BrokerEvent {
    /// `eventName`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Start => "StartBroker",
            Self::Drain => "DrainBroker",
            Self::Close => "CloseTrail",
        }
    }

    /// The event of this name, if there is one.
    pub(crate) fn of(event_name: &str) -> Option<Self> {
        [Self::Start, Self::Drain, Self::Close].into_iter().find(|event| event.name() == event_name)
    }
}

/// What a broker records about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct BrokerData<'a> {
    /// The program's version.
    #[serde(borrow)]
    pub(crate) version: Text<'a>,
    /// The format version of journal, records and trail.
    pub(crate) format_version: u32,
    /// SHA-256, in hex, of the configuration file.
    #[serde(borrow, rename = "configurationSHA256", skip_serializing_if = "Option::is_none")]
    pub(crate) configuration_sha256: Option<Text<'a>>,
    /// The version of the policies in force, as in the records of calls.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(crate) policy_version: Option<Text<'a>>,
    /// Its promise about cached data keys whose KMS key is revoked. Earlier brokers have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reuse: Option<RevocationPromise>,
    /// Where it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<Origin>,
    /// Bytes of records in the journal that an earlier process left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recovered_bytes: Option<u64>,
}

impl<'a> ActivityRecord<'a> {
    /// The record of an event, with the AWS session at that time, if it is known.
    #[must_use]
    pub(crate) fn of_broker(
        event: BrokerEvent,
        broker: BrokerData<'a>,
        identity: Option<UserIdentity<'a>>,
        at: OffsetDateTime,
        caller: &'a AwsCaller,
    ) -> Self {
        let broker = BrokerData {
            version: env!("CARGO_PKG_VERSION").into(),
            format_version: FORMAT_VERSION,
            ..broker
        };
        let data = ActivityEventData {
            broker: Some(Open::Written(
                serde_json::to_value(broker)
                    .expect("it has string keys and goes to memory: nothing can fail"),
            )),
            identity,
            ..ActivityEventData::from(key_broker_core::Outcome::Allowed)
        };
        Self::of_the_broker(event.name(), data, at, caller)
    }
}

/// Operators' methods that are recorded. `Status` is not: it only returns numbers, and is polled.
pub(crate) const OPERATOR_METHODS: [&str; 3] = ["Evict", "ListEntries", "Flush"];
