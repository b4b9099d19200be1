//! What is remembered of records long read: the latest of each kind, so that memory does not grow with a trail.
//!
//! Two generations: where the newer one is full, the older one is forgotten. So an id is known for as long as fewer than
//! [`GENERATION`] others of its kind come after it, and for twice as many at most.

use super::ids::{IdMap, IdSet};

/// Ids of records.
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
    /// Remembers an id; false if it is known.
    pub(super) fn insert(&mut self, id: u128) -> bool {
        if self.older.contains(&id) || !self.newer.insert(id) {
            return false;
        }
        if self.newer.len() >= self.generation {
            // The room of the older ones is used again: no memory is asked for in the midst of a trail.
            std::mem::swap(&mut self.newer, &mut self.older);
            self.newer.clear();
        }
        true
    }

    pub(super) fn contains(&self, id: u128) -> bool {
        self.newer.contains(&id) || self.older.contains(&id)
    }
}

/// Answers of KMS that are used up: how they were, and when they were made.
pub(super) struct UsedUp {
    newer: IdMap<(HowUsedUp, i64)>,
    older: IdMap<(HowUsedUp, i64)>,
    /// The newest that are forgotten were made then.
    forgotten: Option<i64>,
    generation: usize,
}

impl Default for UsedUp {
    fn default() -> Self {
        Self { newer: IdMap::default(), older: IdMap::default(), forgotten: None, generation: GENERATION }
    }
}

/// Why an answer of KMS is not used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HowUsedUp {
    /// It was handed out once, and may not be again.
    HandedOut,
    /// It is past its time; its uses have been judged.
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

    /// Forgets calls that were never used, the newest of which were made then.
    pub(super) fn forget_until(&mut self, made_at: i64) {
        self.forgotten = self.forgotten.max(Some(made_at));
    }

    /// Whether an answer that was made then may be one that is forgotten.
    pub(super) fn may_be_forgotten(&self, made_at: i64) -> bool {
        self.forgotten.is_some_and(|newest| made_at <= newest)
    }
}

/// Just what a table of 2^20 places takes without growing. docs/audit.md says it.
const GENERATION: usize = 900_000;

#[cfg(test)]
mod tests {
    //! An id is known while fewer than a generation came after it; memory does not grow.

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
