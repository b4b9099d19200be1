//! Which messages of a data key were charged, as ranges of numbers without overlap.

/// Disjoint ranges in order, each excluding its first number and including its last. Adjacent ranges are merged, so a data key
/// with records of all its draws has a single range.
#[derive(Debug, Default)]
pub(super) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds the numbers after `start` up to `end`. False if any of them was there already.
    pub(super) fn add(&mut self, start: u64, end: u64) -> bool {
        if start >= end {
            return true;
        }
        let place = self.0.partition_point(|range| range.1 <= start);
        let after = self.0.get(place).copied();
        if after.is_some_and(|range| range.0 < end) {
            return false;
        }
        let joins_after = after.is_some_and(|range| range.0 == end);
        let joins_before = place > 0 && self.0[place - 1].1 == start;
        match (joins_before, joins_after) {
            (true, true) => {
                self.0[place - 1].1 = self.0[place].1;
                self.0.remove(place);
            }
            (true, false) => self.0[place - 1].1 = end,
            (false, true) => self.0[place].0 = start,
            (false, false) => self.0.insert(place, (start, end)),
        }
        true
    }

    /// Whether every number from 1 to the last is included.
    pub(super) fn is_whole(&self) -> bool {
        self.0.len() <= 1 && self.0.first().is_none_or(|range| range.0 == 0)
    }
}

#[cfg(test)]
mod tests {
    //! Each number is added once, whatever the order, and adjacent ranges are merged.

    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn as_a_set_of_numbers(ranges in prop::collection::vec((0..40_u64, 0..6_u64), 0..20)) {
            let (mut kept, mut model) = (Ranges::default(), HashSet::new());
            for (start, length) in ranges {
                let numbers: Vec<_> = (start + 1..=start + length).collect();
                let free = numbers.iter().all(|n| !model.contains(n));
                prop_assert_eq!(kept.add(start, start + length), free);
                if free {
                    model.extend(numbers);
                }
                prop_assert!(kept.0.windows(2).all(|pair| pair[0].1 < pair[1].0));
                prop_assert_eq!(kept.is_whole(), (1..=model.iter().max().copied().unwrap_or(0)).all(|n| model.contains(&n)));
                prop_assert_eq!(kept.0.iter().map(|range| range.1 - range.0).sum::<u64>(), model.len() as u64);
            }
        }
    }
}
