//! The limits promised to the draws of one data key: a limit promised to one draw holds for all later ones.

use std::collections::BTreeMap;

/// Each recorded limit, with the charges of the data key at the first and the last draw that had it.
///
/// Records are not in the order in which draws were charged, so the order here is that of the charges.
#[derive(Debug, Default)]
pub(super) struct Limits(BTreeMap<u64, (u64, u64)>);

impl Limits {
    /// Adds the limit of the draw that took the messages up to `used`. False, and not added, if it is wider than that of an earlier
    /// draw, or tighter than that of a later one.
    pub(super) fn add(&mut self, limit: u64, used: u64) -> bool {
        let next_tighter = self.0.range(..limit).next_back();
        let next_wider = limit.checked_add(1).and_then(|wider| self.0.range(wider..).next());
        if next_tighter.is_some_and(|(_, (first, _))| *first < used)
            || next_wider.is_some_and(|(_, (_, last))| *last > used)
        {
            return false;
        }
        let (first, last) = self.0.entry(limit).or_insert((used, used));
        (*first, *last) = ((*first).min(used), (*last).max(used));
        true
    }

    /// The tightest limit, which holds for the data key as a whole.
    pub(super) fn tightest(&self) -> Option<u64> {
        self.0.keys().next().copied()
    }
}

#[cfg(test)]
mod tests {
    //! Limits never widen over the uses of a data key, whatever the order of its records.

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn as_a_list_in_the_order_of_use(draws in prop::collection::vec((0..6_u64, 0..8_u64), 0..24)) {
            let (mut limits, mut model) = (Limits::default(), Vec::<(u64, u64)>::new());
            for (limit, used) in draws {
                let fits = model.iter().all(|(other, at)| match used.cmp(at) {
                    std::cmp::Ordering::Less => limit >= *other,
                    std::cmp::Ordering::Equal => true,
                    std::cmp::Ordering::Greater => limit <= *other,
                });
                prop_assert_eq!(limits.add(limit, used), fits);
                if fits {
                    model.push((limit, used));
                }
                prop_assert_eq!(limits.tightest(), model.iter().map(|(limit, _)| *limit).min());
            }
        }
    }
}
