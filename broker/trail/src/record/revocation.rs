//! Revocation checks in records: whether KMS still allowed a cached data key to be used.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::text::word;
use super::{ActivityEventData, ActivityRecord, AwsCaller, REPORT_FAILED_CHECK, Text, moment};
use key_broker_core::Outcome;

/// The newest answer of KMS by which a kept data key may still be used, where it is newer than the data key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastAllowed<T> {
    /// When KMS answered.
    #[serde(with = "moment")]
    pub time: OffsetDateTime,
    /// The requestID of the answer: of a dry run, or of a call for another data key.
    #[serde(rename = "kmsRequestID")]
    pub kms_request_id: T,
    /// The eventID of its KMS record.
    #[serde(rename = "kmsEventID")]
    pub kms_event_id: Uuid,
    /// What it speaks for.
    #[serde(deserialize_with = "word")]
    pub scope: AllowedScope,
}

/// What an answer of KMS speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AllowedScope {
    /// The KMS key: KMS was asked with another encryption context, perhaps.
    Key,
    /// The very same request.
    Context,
}

/// How long a broker serves what KMS has taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevocationPromise {
    /// How long cached data keys are used after KMS has allowed it, in seconds; 0 is up to their own limits.
    pub revocation_check_seconds: u64,
    /// What each check speaks for.
    pub revocation_check: CheckedScope,
    /// The same while KMS cannot be asked, in seconds.
    pub unverified_max_seconds: u64,
}

/// What revocation checks speak for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckedScope {
    /// The KMS key.
    Key,
    /// One encryption context under it.
    Context,
}

/// That KMS could not be asked whether data keys may still be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedCheck<'a> {
    /// The KMS key's ARN.
    #[serde(borrow, rename = "keyArn")]
    pub key: Text<'a>,
    /// The operation that a dry run would have been of.
    #[serde(borrow)]
    pub operation: Text<'a>,
    /// Why, as the contract's errors name it.
    #[serde(borrow)]
    pub reason: Text<'a>,
}

impl<'a> ActivityRecord<'a> {
    /// The record of a revocation check that failed, by the broker that is where `caller` says.
    #[must_use]
    pub fn of_failed_check(
        check: FailedCheck<'a>,
        event_id: Uuid,
        at: OffsetDateTime,
        caller: &'a AwsCaller,
    ) -> Self {
        let data =
            ActivityEventData { failed_check: Some(check), ..ActivityEventData::from(Outcome::Allowed) };
        Self { event_id: event_id.into(), ..Self::of_the_broker(REPORT_FAILED_CHECK, data, at, caller) }
    }
}
