//! The activity record of the broker's own: what it has found out about its trail, where no call's record told it.

use key_broker_core::Outcome;
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{EVENT_VERSION, append_line, cloudtrail_time};
use crate::notice::Reloads;
use crate::notice::{Notice, Untold};
use crate::record::AwsCaller;

/// A record of the broker's own.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NoticeRecord<'a> {
    event_version: &'static str,
    user_identity: BrokerIdentity,
    #[serde(serialize_with = "cloudtrail_time")]
    event_time: OffsetDateTime,
    event_source: &'static str,
    event_name: &'static str,
    aws_region: &'a str,
    #[serde(rename = "sourceIPAddress")]
    source_ip_address: &'a str,
    user_agent: &'static str,
    request_parameters: (),
    response_elements: (),
    additional_event_data: NoticeEventData,
    #[serde(rename = "requestID")]
    request_id: Uuid,
    #[serde(rename = "eventID")]
    event_id: Uuid,
    read_only: bool,
    event_type: &'static str,
    management_event: bool,
    recipient_account_id: &'a str,
    event_category: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BrokerIdentity {
    #[serde(rename = "type")]
    kind: &'static str,
    principal_id: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NoticeEventData {
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    journal: Option<Notice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reloads: Option<Reloads>,
    #[serde(rename = "noticeID")]
    notice_id: Uuid,
}

impl<'a> NoticeRecord<'a> {
    /// The record that tells this, of the broker whom AWS takes for `caller`.
    #[must_use]
    pub(crate) fn new(untold: &Untold, at: OffsetDateTime, caller: &'a AwsCaller) -> Self {
        Self {
            event_version: EVENT_VERSION,
            user_identity: BrokerIdentity { kind: BROKER, principal_id: "key-broker" },
            event_time: at,
            event_source: "keybroker.v1.KeyBroker",
            event_name: REPORT_NOTICE,
            aws_region: &caller.region,
            source_ip_address: &caller.source_address,
            user_agent: concat!("key-broker/", env!("CARGO_PKG_VERSION")),
            request_parameters: (),
            response_elements: (),
            additional_event_data: NoticeEventData {
                outcome: Outcome::Allowed,
                journal: untold.journal(),
                reloads: untold.reloads(),
                notice_id: untold.id,
            },
            request_id: Uuid::new_v4(),
            event_id: Uuid::new_v4(),
            read_only: true,
            event_type: "ActivityLog",
            management_event: false,
            recipient_account_id: &caller.account_id,
            event_category: "ActivityAuditLog",
        }
    }

    /// The record as one line of compact JSON.
    #[must_use]
    pub(crate) fn to_line(&self) -> Vec<u8> {
        let mut line = Vec::new();
        append_line(&mut line, self);
        line
    }
}

/// The broker, as the principal of its own records.
pub(crate) const BROKER: &str = "Broker";
/// The name of what the broker does by itself: it is none of the contract's calls.
pub(crate) const REPORT_NOTICE: &str = "ReportNotice";
