//! The broker's own activity records: notices about its trail that no call's record has reported, and owners of access keys.

use key_broker_core::Outcome;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{ActivityEventData, ActivityRecord, AwsCaller, EventCategory, IdentityKind, UserIdentity};
use crate::notice::Untold;

impl<'a> ActivityRecord<'a> {
    /// The record of this notice, by the broker with this `caller` identity.
    pub(crate) fn of_notice(untold: &Untold, at: OffsetDateTime, caller: &'a AwsCaller) -> Self {
        // Nobody asked for it, so nobody was refused.
        let data = ActivityEventData::from(Outcome::Allowed).with_notice(untold);
        Self::of_the_broker(REPORT_NOTICE, data, at, caller)
    }

    /// The record of who owns the access key in `identity`, for KMS records written before that was known.
    #[must_use]
    pub fn of_identity(identity: UserIdentity<'a>, at: OffsetDateTime, caller: &'a AwsCaller) -> Self {
        let data =
            ActivityEventData { identity: Some(identity), ..ActivityEventData::from(Outcome::Allowed) };
        Self::of_the_broker(REPORT_IDENTITY, data, at, caller)
    }

    pub(super) fn of_the_broker(
        event_name: &'static str,
        data: ActivityEventData<'a>,
        at: OffsetDateTime,
        caller: &'a AwsCaller,
    ) -> Self {
        let identity = UserIdentity {
            kind: IdentityKind::Broker.name().into(),
            principal_id: Some(BROKER.into()),
            ..UserIdentity::default()
        };
        Self {
            source_ip_address: Some((&caller.source_address).into()),
            user_agent: Some(concat!("key-broker/", env!("CARGO_PKG_VERSION")).into()),
            request_id: Uuid::new_v4().into(),
            event_id: Uuid::new_v4().into(),
            recipient_account_id: (&caller.account_id).into(),
            additional_event_data: Some(data),
            ..Self::of(EventCategory::ActivityAuditLog, identity, at, event_name, &caller.region)
        }
    }
}

/// The broker, as the principal of its own records.
pub(crate) const BROKER: &str = "key-broker";
/// The name of an event of the broker's own, which is no call of the contract.
pub(crate) const REPORT_NOTICE: &str = "ReportNotice";
/// Likewise.
pub(crate) const REPORT_IDENTITY: &str = "ReportIdentity";
/// Likewise.
pub(crate) const REPORT_FAILED_CHECK: &str = "ReportFailedCheck";
