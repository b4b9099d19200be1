//! How far the draws of one data key were promised that it may be used: what one draw was promised holds for all that come after it.

use std::collections::BTreeMap;

/// Each limit that a draw was recorded with, and how far the data key was used at the first and the last of those draws.
///
/// Records come in another order than draws are charged in, so the order is that of the charges.
#[derive(Debug, Default)]
pub(super) struct Limits(BTreeMap<u64, (u64, u64)>);

impl Limits {
    /// Adds the limit of the draw that took the messages up to `used`. False if it is wider than that of a draw before it, or
    /// tighter than that of one after it: then it is left out.
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

    /// The tightest: what holds for the data key as a whole.
    pub(super) fn tightest(&self) -> Option<u64> {
        self.0.keys().next().copied()
    }
}

#[cfg(test)]
mod tests {
    //! Limits only fall along the uses of a data key, whatever the order of its records.

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
