//! Values of encryption contexts that records do not show: digests stand in their places, the same for the same value.
//!
//! What verifies a trail holds uses of a data key against the call to KMS that it came from, so all records have the same digest. With a
//! key, only who has it can try values; without one, everybody can, and a short or common value is found.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::hmac;
use key_broker_trail::record::{RequestParameters, Text};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Which values are redacted, and how.
pub struct Redaction {
    names: BTreeSet<String>,
    digester: Digester,
}

/// Makes the digests.
#[derive(Clone)]
pub(crate) enum Digester {
    /// SHA-256 of the value: guesses can be confirmed.
    Plain,
    /// HMAC-SHA-256 of the value. The key is erased when the last one is dropped.
    Keyed(Arc<hmac::Key>),
}

/// What has made what stands in a record for a value.
pub(crate) enum Maker<'a> {
    /// This.
    Known(&'a Digester),
    /// A key that is not there.
    KeyMissing,
    /// It is no digest.
    Nobody,
}

impl Redaction {
    /// Of the pairs of these names.
    pub(crate) fn new(names: BTreeSet<String>, digester: Digester) -> Self {
        Self { names, digester }
    }

    /// What makes the digests.
    pub(crate) fn digester(&self) -> &Digester {
        &self.digester
    }

    /// The parameters as a record has them, and the names of the pairs whose values are redacted there.
    pub(crate) fn of<'a>(
        &self,
        mut parameters: RequestParameters<'a>,
    ) -> (RequestParameters<'a>, Vec<Text<'a>>) {
        let mut redacted = Vec::new();
        for context in parameters.contexts_mut() {
            *context = context.take().map(|pairs| {
                pairs
                    .into_iter()
                    .map(|(name, value)| {
                        if !self.names.contains(&*name) {
                            return (name, value);
                        }
                        redacted.push(name.clone());
                        (name, self.digester.digest(&value).into())
                    })
                    .collect()
            });
        }
        redacted.sort_by_cached_key(|name: &Text<'_>| name.to_string());
        redacted.dedup_by(|one, other| **one == **other);
        (parameters, redacted)
    }

    /// Words about a call with these parameters, with digests for the values where they stand by themselves.
    pub(crate) fn words<'a>(
        &self,
        words: &'a str,
        parameters: Option<RequestParameters<'_>>,
    ) -> Cow<'a, str> {
        let mut parameters = parameters.unwrap_or_default();
        let contexts = parameters.contexts_mut().into_iter().filter_map(Option::take);
        let pairs = contexts.flatten();
        let mut values: Vec<_> =
            pairs.filter(|(name, _)| self.names.contains(&**name)).map(|pair| pair.1).collect();
        let mut words = Cow::Borrowed(words);
        // One value may be a part of another.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        for value in values {
            if let Some(replaced) = replace(&words, &value, || self.digester.digest(&value)) {
                words = Cow::Owned(replaced);
            }
        }
        words
    }
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redaction").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Digester {
    /// With the key in this file: its text, without white space around it.
    pub(crate) fn with_key_in(file: &Path) -> io::Result<Self> {
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_KEY_BYTES + 1));
        File::open(file)?.take(MAX_KEY_BYTES as u64 + 1).read_to_end(&mut text)?;
        let key = text.trim_ascii();
        if !(MIN_KEY_BYTES..=MAX_KEY_BYTES).contains(&key.len()) {
            return Err(io::Error::other(format!(
                "a key has {MIN_KEY_BYTES} to {MAX_KEY_BYTES} bytes: make one with `openssl rand -hex 32`"
            )));
        }
        Ok(Self::Keyed(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, key))))
    }

    /// What stands for a value.
    pub(crate) fn digest(&self, value: &str) -> String {
        match self {
            Self::Plain => format!("{PLAIN}{}", hex::encode(Sha256::digest(value))),
            Self::Keyed(key) => format!("{KEYED}{}", hex::encode(hmac::sign(key, value.as_bytes()))),
        }
    }

    /// What has made this, which stands in a record for a value: `key`, where it takes one.
    pub(crate) fn of<'a>(digest: &str, key: Option<&'a Self>) -> Maker<'a> {
        const WITHOUT_KEY: Digester = Digester::Plain;
        if digest.starts_with(PLAIN) {
            return Maker::Known(&WITHOUT_KEY);
        }
        match key.filter(|key| matches!(key, Self::Keyed(_))) {
            _ if !digest.starts_with(KEYED) => Maker::Nobody,
            Some(key) => Maker::Known(key),
            None => Maker::KeyMissing,
        }
    }
}

/// `words` with another text for `value`, if that stands there by itself.
fn replace(words: &str, value: &str, other: impl FnOnce() -> String) -> Option<String> {
    if value.is_empty() {
        return None;
    }
    let is_apart = |at: usize| {
        let before = words[..at].chars().next_back();
        let after = words[at + value.len()..].chars().next();
        ![before, after].into_iter().flatten().any(char::is_alphanumeric)
    };
    let places: Vec<_> = words.match_indices(value).map(|(at, _)| at).filter(|at| is_apart(*at)).collect();
    if places.is_empty() {
        return None;
    }
    let (other, mut replaced, mut from) = (other(), String::new(), 0);
    for at in places {
        replaced.push_str(&words[from..at]);
        replaced.push_str(&other);
        from = at + value.len();
    }
    replaced.push_str(&words[from..]);
    Some(replaced)
}

const PLAIN: &str = "sha256:";
const KEYED: &str = "hmac-sha256:";
/// As long as what it makes.
const MIN_KEY_BYTES: usize = 32;
const MAX_KEY_BYTES: usize = 1_024;

#[cfg(test)]
mod tests {
    //! The same value has the same digest, as others compute it; nothing else changes.

    use std::collections::BTreeMap;

    use key_broker_core::EncryptionContext;

    use super::*;

    fn redaction(names: &[&str], digester: Digester) -> Redaction {
        Redaction::new(names.iter().map(|name| (*name).to_owned()).collect(), digester)
    }

    fn keyed(key: &str) -> io::Result<Digester> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("key");
        std::fs::write(&file, key)?;
        Digester::with_key_in(&file)
    }

    fn context(pairs: &[(&str, &str)]) -> EncryptionContext {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        EncryptionContext::parse(pairs.collect::<BTreeMap<_, _>>()).expect("a context")
    }

    #[test]
    fn digests_are_those_that_openssl_makes() {
        assert_eq!(
            Digester::Plain.digest("abc"),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        // RFC 4231, test case 2, has a shorter key than is taken here; a long one behaves the same.
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
        assert_eq!(
            Digester::Keyed(Arc::new(key)).digest("what do ya want for nothing?"),
            "hmac-sha256:5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        let (one, other) = (keyed(&"k".repeat(32)).expect("a key"), keyed(&"l".repeat(32)).expect("a key"));
        assert_ne!(one.digest("acme"), other.digest("acme"));
        let with_line_end = keyed(&format!("{}\n", "k".repeat(32))).expect("a key");
        assert_eq!(one.digest("acme"), with_line_end.digest("acme"));
        assert!(keyed(&"k".repeat(31)).is_err() && keyed(&"k".repeat(1_025)).is_err());
    }

    #[test]
    fn only_values_of_named_pairs_change() {
        let redaction = redaction(&["tenant", "user"], Digester::Plain);
        let context = context(&[("app", "acme"), ("tenant", "acme"), ("x", "")]);
        let (parameters, names) = redaction.of(RequestParameters::default().with_context(&context));
        let json = serde_json::to_value(&parameters).expect("JSON");
        let digest = Digester::Plain.digest("acme");
        assert_eq!(
            json["encryptionContext"],
            serde_json::json!({ "app": "acme", "tenant": digest, "x": "" })
        );
        assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["tenant"]);
        let (parameters, names) = redaction.of(RequestParameters::default());
        assert!(parameters.encryption_context.is_none() && names.is_empty());
        assert!(!format!("{redaction:?}").contains("Plain"));
    }

    #[test]
    fn words_show_no_value_that_stands_by_itself() {
        let redaction = redaction(&["tenant", "user"], Digester::Plain);
        let context = context(&[("app", "kms"), ("tenant", "acme"), ("user", "acme-7")]);
        let [acme, user] = ["acme", "acme-7"].map(|value| Digester::Plain.digest(value));
        for (words, redacted) in [
            (
                "the context tenant=acme, user=acme-7 is not right",
                format!("the context tenant={acme}, user={user} is not right"),
            ),
            ("acme", acme.clone()),
            ("acmes kms", "acmes kms".to_owned()),
            ("\"acme\"/acme", format!("\"{acme}\"/{acme}")),
            ("", String::new()),
        ] {
            let parameters = RequestParameters::default().with_context(&context);
            assert_eq!(redaction.words(words, Some(parameters)), redacted);
            assert_eq!(redaction.words(words, None), words);
        }
    }
}
