//! An index of cache entries by KMS key, so that a refusal of a key finds its entries without a search. Entries found once are taken
//! out, so repeated refusals of a key cost no more than the requests made between them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use key_broker_core::KeyArn;

/// Entries by the ARN of the KMS key of the data keys that they hold, or are about to hold.
pub(super) struct KeyIndex<P, E> {
    by_key: HashMap<KeyArn, HashMap<P, Arc<E>>>,
    /// The ARNs of each entry: more than one is possible if its requests name no key.
    keys: HashMap<P, Vec<KeyArn>>,
}

impl<P, E> Default for KeyIndex<P, E> {
    fn default() -> Self {
        Self { by_key: HashMap::new(), keys: HashMap::new() }
    }
}

impl<P: Copy + Eq + Hash, E> KeyIndex<P, E> {
    /// The entry at `place` is about to hold a data key under `arn`.
    pub(super) fn add(&mut self, arn: &KeyArn, place: P, entry: &Arc<E>) {
        self.by_key.entry(arn.clone()).or_default().insert(place, Arc::clone(entry));
        let keys = self.keys.entry(place).or_default();
        if !keys.contains(arn) {
            keys.push(arn.clone());
        }
    }

    /// Removes the entry at `place`.
    pub(super) fn remove(&mut self, place: &P) {
        for arn in self.keys.remove(place).unwrap_or_default() {
            if let Some(entries) = self.by_key.get_mut(&arn) {
                entries.remove(place);
                if entries.is_empty() {
                    self.by_key.remove(&arn);
                }
            }
        }
    }

    /// Takes out the entries with data keys under `arn`.
    pub(super) fn take(&mut self, arn: &KeyArn) -> Vec<Arc<E>> {
        let mut taken = Vec::new();
        for (place, entry) in self.by_key.remove(arn).unwrap_or_default() {
            taken.push(entry);
            if let Some(keys) = self.keys.get_mut(&place) {
                keys.retain(|key| key != arn);
                if keys.is_empty() {
                    self.keys.remove(&place);
                }
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    //! A key's entries are found, and removed entries are not.

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Add(u8, u8),
        Remove(u8),
        Take(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..3_u8, 0..6_u8).prop_map(|(key, place)| Step::Add(key, place)),
            1 => (0..6_u8).prop_map(Step::Remove),
            1 => (0..3_u8).prop_map(Step::Take),
        ]
    }

    proptest! {
        #[test]
        fn an_index_is_the_set_of_what_is_kept(steps in prop::collection::vec(step(), 0..100)) {
            let arn = |n: u8| {
                KeyArn::parse(&format!("arn:aws:kms:us-west-2:111122223333:key/000{n}")).expect("an ARN")
            };
            let mut index = KeyIndex::<u8, u8>::default();
            let mut kept = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Add(key, place) => {
                        index.add(&arn(key), place, &Arc::new(place));
                        kept.insert((key, place));
                    }
                    Step::Remove(place) => {
                        index.remove(&place);
                        kept.retain(|(_, other)| *other != place);
                    }
                    Step::Take(key) => {
                        let found: BTreeSet<_> = index.take(&arn(key)).iter().map(|place| (key, **place)).collect();
                        let wanted: BTreeSet<_> = kept.iter().copied().filter(|(of, _)| *of == key).collect();
                        kept.retain(|(of, _)| *of != key);
                        prop_assert_eq!(found, wanted);
                    }
                }
                prop_assert_eq!(index.keys.values().map(Vec::len).sum::<usize>(), kept.len());
            }
            (0..6).for_each(|place| index.remove(&place));
            prop_assert!(index.by_key.is_empty() && index.keys.is_empty());
        }
    }
}
