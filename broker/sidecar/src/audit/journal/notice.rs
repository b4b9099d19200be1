//! What became of the journal itself, for the next activity record: an auditor is to learn of it from the trail.

use std::mem;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::segment::Flaw;

/// What became of the journal: counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Notice {
    /// Bytes of an unfinished commit that were cut off at a start: no reply went out for it.
    #[serde(skip_serializing_if = "is_zero")]
    pub torn_bytes: u64,
    /// Bytes that did not fit the chain, kept as evidence in a file named `damaged`.
    #[serde(skip_serializing_if = "is_zero")]
    pub damaged_bytes: u64,
    /// Records whose files were gone before they were delivered.
    #[serde(skip_serializing_if = "is_zero")]
    pub missing_records: u64,
    /// Refused calls that have no record, because more was owed than memory may hold.
    #[serde(skip_serializing_if = "is_zero")]
    pub unrecorded_refusals: u64,
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
    }
}

impl Notice {
    /// Notes what was cut off a file.
    pub fn add_cut(&mut self, flaw: Flaw, bytes: u64) {
        match flaw {
            Flaw::Torn => self.torn_bytes += bytes,
            Flaw::Broken => self.damaged_bytes += bytes,
        }
    }
}

/// Counts that wait for the next activity record.
#[derive(Default)]
pub struct Notices<T> {
    /// Read on every call, without the lock.
    any: AtomicBool,
    waiting: Mutex<T>,
}

impl<T: Copy + Default + PartialEq + AddAssign> Notices<T> {
    /// Adds to them.
    pub fn tell(&self, more: T) {
        if more == T::default() {
            return;
        }
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) += more;
        self.any.store(true, Ordering::Relaxed);
    }

    /// Takes them: each is told once.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.any.store(false, Ordering::Relaxed);
        Some(mem::take(&mut *waiting)).filter(|waiting| *waiting != T::default())
    }
}
