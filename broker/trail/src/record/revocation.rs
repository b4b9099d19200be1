//! Revocation checks in records: whether KMS still allowed a cached data key to be used.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::text::word;
use super::{ActivityEventData, ActivityRecord, AwsCaller, REPORT_FAILED_CHECK, Text, moment};
use key_broker_core::Outcome;

/// KMS's newest permission to use a cached data key, if it is newer than the data key.
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
    /// The scope of the answer.
    #[serde(deserialize_with = "word")]
    pub scope: AllowedScope,
}

/// The scope of an answer of KMS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AllowedScope {
    /// The KMS key: KMS may have been asked with another encryption context.
    Key,
    /// The same request.
    Context,
}

/// How long a broker serves data keys under a revoked KMS key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevocationPromise {
    /// How long cached data keys are used after KMS's last permission, in seconds; 0 means up to their own limits.
    pub revocation_check_seconds: u64,
    /// The scope of each check.
    pub revocation_check: CheckedScope,
    /// The same while KMS cannot be asked, in seconds.
    pub unverified_max_seconds: u64,
}

/// The scope of revocation checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckedScope {
    /// The KMS key.
    Key,
    /// One encryption context under it.
    Context,
}

/// KMS could not be asked whether data keys may still be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedCheck<'a> {
    /// The KMS key's ARN.
    #[serde(borrow, rename = "keyArn")]
    pub key: Text<'a>,
    /// The operation to which the dry run belongs.
    #[serde(borrow)]
    pub operation: Text<'a>,
    /// The reason, by the name of the contract's error.
    #[serde(borrow)]
    pub reason: Text<'a>,
}

impl<'a> ActivityRecord<'a> {
    /// The record of a failed revocation check, by the broker described by `caller`.
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
