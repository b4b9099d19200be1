//! The activity record of the broker's own: what it has found out about its trail, where no call's record told it.

use key_broker_core::Outcome;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{ActivityEventData, ActivityRecord, AwsCaller, EventCategory, IdentityKind, UserIdentity};
use crate::notice::Untold;

impl<'a> ActivityRecord<'a> {
    /// The record that tells this, of the broker whom AWS takes for `caller`.
    pub(crate) fn of_notice(untold: &Untold, at: OffsetDateTime, caller: &'a AwsCaller) -> Self {
        let identity = UserIdentity {
            kind: IdentityKind::Broker.name().into(),
            principal_id: Some(BROKER.into()),
            ..UserIdentity::default()
        };
        // Nobody asked for it, so nobody was refused.
        let data = ActivityEventData::from(Outcome::Allowed).with_notice(untold);
        Self {
            source_ip_address: Some((&caller.source_address).into()),
            user_agent: Some(concat!("key-broker/", env!("CARGO_PKG_VERSION")).into()),
            request_id: Uuid::new_v4().into(),
            event_id: Uuid::new_v4().into(),
            recipient_account_id: (&caller.account_id).into(),
            additional_event_data: Some(data),
            ..Self::of(EventCategory::ActivityAuditLog, identity, at, REPORT_NOTICE, &caller.region)
        }
    }
}

/// The broker, as the principal of its own records.
pub(crate) const BROKER: &str = "key-broker";
/// The name of what the broker does by itself: it is none of the contract's calls.
pub(crate) const REPORT_NOTICE: &str = "ReportNotice";
