//! What is kept under which KMS key, so that a refusal of one costs a look and no walk.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use key_broker_core::KeyArn;

/// Entries by the ARN of the KMS key that what they keep is under.
pub(super) struct KeyIndex<P, E> {
    by_key: HashMap<KeyArn, HashMap<P, Arc<E>>>,
    /// Of an entry whose requests name no key there may be several.
    keys: HashMap<P, Vec<KeyArn>>,
}

impl<P, E> Default for KeyIndex<P, E> {
    fn default() -> Self {
        Self { by_key: HashMap::new(), keys: HashMap::new() }
    }
}

impl<P: Copy + Eq + Hash, E> KeyIndex<P, E> {
    /// The entry of `place` keeps something under `arn`.
    pub(super) fn add(&mut self, arn: &KeyArn, place: P, entry: &Arc<E>) {
        self.by_key.entry(arn.clone()).or_default().insert(place, Arc::clone(entry));
        let keys = self.keys.entry(place).or_default();
        if !keys.contains(arn) {
            keys.push(arn.clone());
        }
    }

    /// The entry of `place` is gone.
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

    /// What keeps something under `arn`.
    pub(super) fn of(&self, arn: &KeyArn) -> Vec<Arc<E>> {
        self.by_key.get(arn).into_iter().flat_map(HashMap::values).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    //! What is found under a key is what is kept under it, and nothing of what is gone stays.

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_index_is_the_set_of_what_is_kept(
            steps in prop::collection::vec((any::<bool>(), 0..6_u8, 0..3_u8), 0..100),
        ) {
            let arn = |n: u8| {
                KeyArn::parse(&format!("arn:aws:kms:us-west-2:111122223333:key/000{n}")).expect("an ARN")
            };
            let mut index = KeyIndex::<u8, u8>::default();
            let mut kept = std::collections::BTreeSet::new();
            for (adds, place, key) in steps {
                if adds {
                    index.add(&arn(key), place, &Arc::new(place));
                    kept.insert((key, place));
                } else {
                    index.remove(&place);
                    kept.retain(|(_, other)| *other != place);
                }
                for key in 0..3 {
                    let mut found: Vec<u8> = index.of(&arn(key)).iter().map(|entry| **entry).collect();
                    found.sort_unstable();
                    let wanted: Vec<u8> =
                        kept.iter().filter(|(of, _)| *of == key).map(|(_, place)| *place).collect();
                    prop_assert_eq!(found, wanted);
                }
            }
            (0..6).for_each(|place| index.remove(&place));
            prop_assert!(index.by_key.is_empty() && index.keys.is_empty());
        }
    }
}
