//! Counters of the journal and the trail since the start.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::record::ACTIVITY_END;

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Activity records that were written.
    pub activity_records: u64,
    /// KMS records that were written.
    pub kms_records: u64,
    /// Commits that failed.
    pub failed_commits: u64,
    /// Calls refused because their records could not be committed in time.
    pub refused_calls: u64,
    /// Answers of KMS without a record: the trail is incomplete.
    pub unrecorded_kms_answers: u64,
    /// Deliveries that failed.
    pub failed_deliveries: u64,
    /// Calls whose records wait for a commit now.
    pub waiting: u64,
    /// Bytes of the files that are not delivered yet.
    pub undelivered_bytes: u64,
}

/// The counters behind [`Totals`].
#[derive(Default)]
pub(super) struct Counts {
    activity_records: AtomicU64,
    kms_records: AtomicU64,
    pub(super) failed_commits: AtomicU64,
    pub(super) refused_calls: AtomicU64,
    pub(super) failed_deliveries: AtomicU64,
    pub(super) unrecorded_kms_answers: AtomicU64,
}

impl Counts {
    /// Counts lines that were written.
    pub(super) fn written(&self, lines: &[u8]) {
        let (mut all, mut activity) = (0, 0);
        for end in memchr::memchr_iter(b'\n', lines) {
            all += 1;
            activity += u64::from(lines[..end].ends_with(ACTIVITY_END));
        }
        self.activity_records.fetch_add(activity, Ordering::Relaxed);
        self.kms_records.fetch_add(all - activity, Ordering::Relaxed);
    }

    pub(super) fn totals(&self) -> Totals {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Totals {
            activity_records: read(&self.activity_records),
            kms_records: read(&self.kms_records),
            failed_commits: read(&self.failed_commits),
            refused_calls: read(&self.refused_calls),
            failed_deliveries: read(&self.failed_deliveries),
            unrecorded_kms_answers: read(&self.unrecorded_kms_answers),
            ..Totals::default()
        }
    }
}
