//! Partitions: which draws may share a data key, as a canonical form.

use key_broker_core::{Action, DataKeyLength, EncryptionContext};
use sha2::{Digest, Sha256};

use crate::named_key::RequestedKey;
use crate::operation::{DryRunOf, DryRunRequest};

/// The SHA-256 of a canonical form of principal (or the name of a shared partition), action, key, length, encryption context and, for
/// Decrypt, the ciphertext. Two partitions are equal only if all of these are.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Partition([u8; 32]);

/// Who may draw a data key.
#[derive(Clone, Copy)]
pub(crate) enum Owner<'a> {
    /// One principal.
    Principal(&'a str),
    /// All principals to whom the configuration gives this partition.
    Shared(&'a str),
}

/// The rest of what distinguishes draws.
pub(super) enum Subject<'a> {
    /// A data key under a KMS key.
    DataKey(&'a RequestedKey, DataKeyLength),
    /// A decrypt: the ciphertext, and the key if the caller named one.
    Decrypt(&'a [u8], Option<&'a RequestedKey>),
}

impl Partition {
    /// Writes the canonical form: a length before every part, pairs in the order of their names.
    pub(super) fn of(
        owner: Owner<'_>,
        action: Action,
        subject: &Subject<'_>,
        context: &EncryptionContext,
    ) -> Self {
        let mut form = Canonical::default();
        match owner {
            Owner::Principal(name) => {
                form.part(b"principal");
                form.part(name.as_bytes());
            }
            Owner::Shared(name) => {
                form.part(b"shared");
                form.part(name.as_bytes());
            }
        }
        form.part(action.name().as_bytes());
        match subject {
            Subject::DataKey(key, length) => {
                form.key(key);
                form.length(*length);
            }
            Subject::Decrypt(ciphertext, key) => {
                form.part(ciphertext);
                match key {
                    Some(key) => form.key(key),
                    // No real key id is empty.
                    None => [b"", b""].into_iter().for_each(|part| form.part(part)),
                }
            }
        }
        form.context(context);
        Self(form.0.finalize().into())
    }
}

/// What a request to KMS has besides operation and key: the length of a data key, and the encryption context, as the SHA-256 of
/// their canonical form.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Asked([u8; 32]);

impl Asked {
    pub(super) fn of(DryRunRequest { of, context, .. }: &DryRunRequest) -> Self {
        let mut form = Canonical::default();
        match of {
            DryRunOf::GenerateDataKey(length) | DryRunOf::GenerateDataKeyWithoutPlaintext(length) => {
                form.length(*length);
            }
            DryRunOf::Decrypt(_) | DryRunOf::Sign => {}
        }
        form.context(context);
        Self(form.0.finalize().into())
    }
}

#[derive(Default)]
struct Canonical(Sha256);

impl Canonical {
    fn length(&mut self, length: DataKeyLength) {
        self.part(&match length {
            DataKeyLength::Aes256 => [1, 0, 0],
            DataKeyLength::Aes128 => [2, 0, 0],
            DataKeyLength::Bytes(n) => {
                let [high, low] = u16::from(n).to_be_bytes();
                [3, high, low]
            }
        });
    }

    fn context(&mut self, context: &EncryptionContext) {
        for (name, value) in context.pairs() {
            self.part(name.as_bytes());
            self.part(value.as_bytes());
        }
    }

    fn part(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    /// Writes both names of a key, so that what an alias meant before does not answer for what it means now. All replicas of a
    /// multi-Region key have one name.
    fn key(&mut self, key: &RequestedKey) {
        let sent = key.sent();
        let is_replica = key.arn().is_some_and(|arn| arn.is_multi_region() && key.written.names(arn));
        let written = if is_replica { sent } else { &key.written };
        self.part(written.as_str().as_bytes());
        self.part(sent.as_str().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    //! The canonical form is injective and ignores the order of pairs: equal partitions are equal requests of one owner.

    use std::collections::BTreeMap;

    use key_broker_core::{KeyArn, KeyId};
    use proptest::prelude::*;

    use super::*;
    use crate::named_key::NamedKey;

    type Request = (String, bool, String, BTreeMap<String, String>);

    fn request() -> impl Strategy<Value = Request> {
        // Few letters, so that different requests often concatenate to the same text.
        (
            "[ab:]{0,3}",
            any::<bool>(),
            "[ab]{1,3}",
            prop::collection::btree_map("[ab=]{1,2}", "[ab=]{0,2}", 0..3),
        )
    }

    fn partition((owner, long, key, pairs): &Request) -> Partition {
        let context = EncryptionContext::parse(pairs.clone()).expect("short");
        let key = KeyId::parse(key).expect("a key id").into();
        let length = if *long { DataKeyLength::Aes256 } else { DataKeyLength::Aes128 };
        Partition::of(
            Owner::Principal(owner),
            Action::GenerateDataKey,
            &Subject::DataKey(&key, length),
            &context,
        )
    }

    proptest! {
        #[test]
        fn equal_only_if_all_parts_are(one in request(), other in request()) {
            prop_assert_eq!(partition(&one) == partition(&other), one == other);
        }

        #[test]
        fn pairs_given_in_any_order_are_the_same(pairs in prop::collection::vec(("[a-z]{1,4}", ".{0,4}"), 0..6)) {
            let forward: BTreeMap<String, String> = pairs.iter().cloned().collect();
            let mut backward = BTreeMap::new();
            for (name, value) in pairs.iter().rev() {
                backward.entry(name.clone()).or_insert_with(|| value.clone());
            }
            let request = |pairs| (String::new(), true, "k".to_owned(), pairs);
            prop_assert!(partition(&request(forward)) == partition(&request(backward)));
        }
    }

    #[test]
    fn a_multi_region_key_is_one_and_what_an_alias_means_another() {
        let arn = |region: &str, id: &str| format!("arn:aws:kms:{region}:111122223333:key/{id}");
        let of = |written: &str, id: &str| {
            let arn = KeyArn::parse(&arn("us-west-2", id));
            let written = KeyId::parse(written).expect("a key id");
            let key = RequestedKey { written, resolved: Some(NamedKey { arn, alias: None }) };
            let context = EncryptionContext::default();
            [Subject::DataKey(&key, DataKeyLength::Aes256), Subject::Decrypt(b"c", Some(&key))]
                .map(|subject| Partition::of(Owner::Principal("p"), Action::Decrypt, &subject, &context))
        };
        let (many, single) = ("mrk-1234abcd12ab34cd56ef1234567890ab", "1234abcd-12ab-34cd-56ef-1234567890ab");
        let home = of(&arn("us-west-2", many), many);
        assert!(home == of(&arn("us-east-1", many), many) && home == of(many, many));
        assert!(home != of("alias/global", many));
        assert!(of(&arn("us-west-2", single), single) != of(single, single), "as the caller wrote it");
    }

    #[test]
    fn actions_and_subjects_differ() {
        let id = |text| KeyId::parse(text).expect("a key id");
        let (key, context) = (RequestedKey::from(id("k")), EncryptionContext::default());
        let arn = KeyArn::parse("arn:aws:kms:us-west-2:111122223333:key/l");
        let moved = RequestedKey { resolved: Some(NamedKey { arn, alias: None }), ..key.clone() };
        let of = |action, subject| Partition::of(Owner::Principal("p"), action, &subject, &context);
        let forms = [
            of(Action::GenerateDataKey, Subject::DataKey(&key, DataKeyLength::Aes256)),
            of(Action::GenerateDataKeyWithoutPlaintext, Subject::DataKey(&key, DataKeyLength::Aes256)),
            of(Action::Decrypt, Subject::Decrypt(b"k", None)),
            of(Action::Decrypt, Subject::Decrypt(b"k", Some(&key))),
            of(Action::Decrypt, Subject::Decrypt(b"", Some(&key))),
            of(Action::Decrypt, Subject::Decrypt(b"k", Some(&moved))),
            of(Action::GenerateDataKey, Subject::DataKey(&moved, DataKeyLength::Aes256)),
            Partition::of(Owner::Shared("p"), Action::Decrypt, &Subject::Decrypt(b"k", None), &context),
        ];
        for (place, form) in forms.iter().enumerate() {
            assert!(forms[..place].iter().all(|other| other != form));
        }
    }
}
