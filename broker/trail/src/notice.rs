//! Notices: what the next activity record reports besides its call, so that auditors learn of it: losses in the journal, and reloads.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What happened to the journal, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Notice {
    /// Bytes of an unfinished commit that were cut off at a start: no reply left for it.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) torn_bytes: u64,
    /// Bytes that did not fit the chain, kept as evidence in a file named `damaged`.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) damaged_bytes: u64,
    /// Records whose files were gone before they were delivered.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) missing_records: u64,
    /// Refused calls that have no record, because the backlog of records was full.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) unrecorded_refusals: u64,
    /// Answers of KMS that have no record.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) unrecorded_kms_answers: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl AddAssign for Notice {
    fn add_assign(&mut self, other: Self) {
        self.torn_bytes += other.torn_bytes;
        self.damaged_bytes += other.damaged_bytes;
        self.missing_records += other.missing_records;
        self.unrecorded_refusals += other.unrecorded_refusals;
        self.unrecorded_kms_answers += other.unrecorded_kms_answers;
    }
}

/// Reloads since the previous record, and failed ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Reloads {
    /// New policies are in force: their version is in the record.
    #[serde(skip_serializing_if = "is_zero")]
    pub policy: u64,
    /// New policies had a mistake, and the previous ones stay in force.
    #[serde(skip_serializing_if = "is_zero")]
    pub policy_refused: u64,
    /// Other certificates are in use.
    #[serde(skip_serializing_if = "is_zero")]
    pub certificates: u64,
    /// Other certificates had a mistake, and the previous ones stay in use.
    #[serde(skip_serializing_if = "is_zero")]
    pub certificates_refused: u64,
}

impl AddAssign for Reloads {
    fn add_assign(&mut self, other: Self) {
        self.policy += other.policy;
        self.policy_refused += other.policy_refused;
        self.certificates += other.certificates;
        self.certificates_refused += other.certificates_refused;
    }
}

/// What one record reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Untold {
    /// `noticeID` in the record: two records with the same one report the same.
    pub(crate) id: Uuid,
    /// What happened to the journal.
    #[serde(default)]
    pub(crate) journal: Notice,
    /// What was reloaded.
    #[serde(default)]
    pub(crate) reloads: Reloads,
}

impl Untold {
    /// What happened to the journal, if anything.
    #[must_use]
    pub(crate) fn journal(&self) -> Option<Notice> {
        Some(self.journal).filter(|journal| *journal != Notice::default())
    }

    /// What was reloaded, if anything was.
    #[must_use]
    pub(crate) fn reloads(&self) -> Option<Reloads> {
        Some(self.reloads).filter(|reloads| *reloads != Reloads::default())
    }
}
