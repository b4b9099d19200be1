//! Remembers the most recent ids of each kind, so that memory does not grow with a trail.
//!
//! There are two generations: when the newer one is full, the older one is forgotten. So an id is known until at least
//! [`GENERATION`] and at most twice as many others of its kind have followed.

use super::ids::{IdMap, IdSet};

pub(super) struct RecentIds {
    newer: IdSet,
    older: IdSet,
    generation: usize,
}

impl Default for RecentIds {
    fn default() -> Self {
        Self { newer: IdSet::default(), older: IdSet::default(), generation: GENERATION }
    }
}

impl RecentIds {
    /// Remembers an id; false if it was known.
    pub(super) fn insert(&mut self, id: u128) -> bool {
        if self.older.contains(&id) || !self.newer.insert(id) {
            return false;
        }
        if self.newer.len() >= self.generation {
            // The older generation's memory is reused, so nothing is allocated in the middle of a trail.
            std::mem::swap(&mut self.newer, &mut self.older);
            self.newer.clear();
        }
        true
    }

    pub(super) fn contains(&self, id: u128) -> bool {
        self.newer.contains(&id) || self.older.contains(&id)
    }
}

/// Answers of KMS that can no longer be used: why, and when they were made.
pub(super) struct UsedUp {
    newer: IdMap<(HowUsedUp, i64)>,
    older: IdMap<(HowUsedUp, i64)>,
    /// When the newest of the forgotten ones were made.
    forgotten: Option<i64>,
    generation: usize,
}

impl Default for UsedUp {
    fn default() -> Self {
        Self { newer: IdMap::default(), older: IdMap::default(), forgotten: None, generation: GENERATION }
    }
}

/// Why an answer of KMS can no longer be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HowUsedUp {
    /// It was for a single use.
    HandedOut,
    /// It has expired, and its uses were judged.
    Ended,
}

impl UsedUp {
    pub(super) fn insert(&mut self, call: u128, how: HowUsedUp, made_at: i64) {
        self.newer.insert(call, (how, made_at));
        if self.newer.len() >= self.generation {
            std::mem::swap(&mut self.newer, &mut self.older);
            let newest = self.newer.values().map(|(_, at)| *at).max();
            self.forgotten = self.forgotten.max(newest);
            self.newer.clear();
        }
    }

    pub(super) fn get(&self, call: u128) -> Option<HowUsedUp> {
        self.newer.get(&call).or_else(|| self.older.get(&call)).map(|(how, _)| *how)
    }

    /// Forgets calls that were never used, made up to this time.
    pub(super) fn forget_until(&mut self, made_at: i64) {
        self.forgotten = self.forgotten.max(Some(made_at));
    }

    /// Whether an answer made at this time may have been forgotten.
    pub(super) fn may_be_forgotten(&self, made_at: i64) -> bool {
        self.forgotten.is_some_and(|newest| made_at <= newest)
    }
}

/// The most that a table of 2^20 places holds without growing. Stated in docs/audit.md.
const GENERATION: usize = 900_000;

#[cfg(test)]
mod tests {
    //! An id is known while fewer than a generation follow it, and memory does not grow.

    use super::*;

    const FEW: u128 = 1_000;

    #[test]
    fn the_latest_are_known() {
        let mut ids = RecentIds { generation: 1_000, ..RecentIds::default() };
        for id in 0..3 * FEW {
            assert!(ids.insert(id));
            assert!(id < 5 || !ids.insert(id - 5), "{id}");
        }
        assert!(!ids.insert(2 * FEW), "fewer than a generation came after it");
        assert!(ids.newer.capacity() + ids.older.capacity() < 4_000);
        assert!(ids.insert(0), "long forgotten");
    }

    #[test]
    fn what_is_forgotten_is_told_by_its_time() {
        let mut used_up = UsedUp { generation: 1_000, ..UsedUp::default() };
        for call in 0..=2_000_u16 {
            used_up.insert(call.into(), HowUsedUp::Ended, call.into());
        }
        assert_eq!(used_up.get(0), None);
        assert!(used_up.may_be_forgotten(0) && used_up.may_be_forgotten(999));
        assert!(!used_up.may_be_forgotten(1_000));
        assert_eq!(used_up.get(1_000), Some(HowUsedUp::Ended));
    }
}
