//! The encryption context as bytes.

use std::collections::BTreeMap;

/// Name-value pairs that are bound to a ciphertext. The map keeps them sorted, so their order in a request is lost.
pub(crate) type EncryptionContext = BTreeMap<String, String>;

/// The context in its one form: the number of pairs, then each name and value after its length, sorted by name.
/// Two contexts have the same bytes only if they are equal.
pub(crate) fn canonical(context: &EncryptionContext) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + size(context) + 8 * context.len());
    push_length(&mut bytes, context.len());
    for part in context.iter().flat_map(|(name, value)| [name, value]) {
        push_length(&mut bytes, part.len());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

/// The bytes of all names and values: what the limit counts.
pub(crate) fn size(context: &EncryptionContext) -> usize {
    context.iter().map(|(name, value)| name.len() + value.len()).sum()
}

fn push_length(bytes: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).expect("a request's body is limited to far less than 4 GiB");
    bytes.extend_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    fn contexts() -> impl Strategy<Value = EncryptionContext> {
        btree_map("[ab:=]{0,3}", "[ab:=]{0,3}", 0..4)
    }

    proptest! {
        #[test]
        fn order_does_not_matter(pairs in vec(("[a-z]{1,8}", any::<String>()), 0..8)) {
            let forward: EncryptionContext = pairs.iter().cloned().collect();
            let mut distinct: Vec<_> = forward.clone().into_iter().collect();
            distinct.reverse();
            let backward: EncryptionContext = distinct.into_iter().collect();
            prop_assert_eq!(canonical(&forward), canonical(&backward));
        }

        #[test]
        fn different_contexts_have_different_bytes(one in contexts(), other in contexts()) {
            prop_assert_eq!(one == other, canonical(&one) == canonical(&other));
        }
    }

    #[test]
    fn the_form_is_fixed() {
        let context = EncryptionContext::from([("b".into(), String::new()), ("a".into(), "xy".into())]);
        assert_eq!(
            canonical(&context),
            b"\x00\x00\x00\x02\x00\x00\x00\x01a\x00\x00\x00\x02xy\x00\x00\x00\x01b\x00\x00\x00\x00"
        );
    }
}
