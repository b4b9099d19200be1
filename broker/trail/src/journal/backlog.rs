//! The backlog: records of what has already happened (KMS has answered, a call was refused) while the journal cannot write them.
//!
//! They stay in memory, each kind within a bound of its own, so that refused calls take no room from answers of KMS. Nobody
//! waits for them, and they are written first.

use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::record::ACTIVITY_END;

/// What a record in the backlog is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A call to KMS made by a start or a delivery.
    Trail,
    /// Any other answer of KMS.
    Kms,
    /// A workload's call that was refused, or abandoned by its caller.
    Call,
}

impl Kind {
    /// In the order of writing: delivery depends on the first; a flood of calls makes the last.
    pub(super) const ALL: [Self; 3] = [Self::Trail, Self::Kms, Self::Call];

    pub(super) fn of(line: &[u8]) -> Self {
        let record = line.strip_suffix(b"\n").unwrap_or(line);
        if record.ends_with(ACTIVITY_END) { Self::Call } else { Self::Kms }
    }

    fn most_bytes(self) -> usize {
        match self {
            Self::Trail => 1 << 20,
            Self::Kms => MAX_KMS_BYTES,
            Self::Call => 4 << 20,
        }
    }
}

/// The records: whole lines, in order within each kind.
#[derive(Default)]
pub(super) struct Backlog([Vec<u8>; 3]);

impl Backlog {
    pub(super) fn lines(&mut self, kind: Kind) -> &mut Vec<u8> {
        &mut self.0[kind as usize]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Vec::is_empty)
    }

    pub(super) fn extend(&mut self, later: Self) {
        for (lines, later) in self.0.iter_mut().zip(later.0) {
            if lines.is_empty() {
                *lines = later;
            } else {
                lines.extend_from_slice(&later);
            }
        }
    }

    pub(super) fn take(&mut self, kind: Kind) -> Vec<u8> {
        mem::take(self.lines(kind))
    }

    pub(super) fn all(&self) -> Vec<u8> {
        self.0.concat()
    }
}

/// The bytes in the backlog, by kind.
#[derive(Default)]
pub(super) struct Sizes([AtomicUsize; 3]);

impl Sizes {
    /// Returns false if there is no room for these.
    pub(super) fn add(&self, kind: Kind, bytes: usize) -> bool {
        let more = |had: usize| had.checked_add(bytes).filter(|all| *all <= kind.most_bytes());
        self.of(kind).fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn remove(&self, kind: Kind, bytes: usize) {
        self.of(kind).fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn all(&self) -> usize {
        self.0.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum()
    }

    /// Whether another answer of KMS might find no room: then KMS is not called for workloads.
    pub(super) fn is_overdrawn(&self) -> bool {
        self.of(Kind::Kms).load(Ordering::Relaxed) > OVERDRAWN_BYTES
    }

    /// Whether another answer of KMS to a start or a delivery might find no room.
    pub(super) fn is_overdrawn_by_the_trail(&self) -> bool {
        self.of(Kind::Trail).load(Ordering::Relaxed) > Kind::Trail.most_bytes() / 2
    }

    fn of(&self, kind: Kind) -> &AtomicUsize {
        &self.0[kind as usize]
    }
}

/// Records for which there is no room: they will never be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Untaken {
    pub(super) kms_answers: u64,
    pub(super) calls: u64,
}

impl Untaken {
    pub(super) fn count(&mut self, kind: Kind) {
        match kind {
            Kind::Trail | Kind::Kms => self.kms_answers += 1,
            Kind::Call => self.calls += 1,
        }
    }

    pub(super) fn of(lines: &[u8]) -> Self {
        let mut all = Self::default();
        lines.split_inclusive(|byte| *byte == b'\n').for_each(|line| all.count(Kind::of(line)));
        all
    }
}

/// From here on KMS is not called for workloads, since each answer would be added to the backlog.
const OVERDRAWN_BYTES: usize = 4 << 20;
/// Leaves room for the calls under way by then: 64 calls to KMS, each with three attempts of at most 50 KB (an encryption
/// context of 8 KiB, of which JSON may write every byte as six).
const MAX_KMS_BYTES: usize = OVERDRAWN_BYTES + (12 << 20);
