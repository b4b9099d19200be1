//! The texts and ids of records.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use key_broker_core::{KeyArn, KeyId};
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, IntoDeserializer as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// A text in a record. A parsed one is borrowed from the JSON if it has no escapes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl Text<'_> {
    /// Cuts text beyond `rest` bytes of JSON, and subtracts the remaining length from `rest`. True if anything was cut.
    pub(super) fn cut(&mut self, rest: &mut usize) -> bool {
        let mut end = 0;
        for (at, character) in self.0.char_indices() {
            let bytes = match character {
                '"' | '\\' => 2,
                control if control < ' ' => 6,
                other => other.len_utf8(),
            };
            let Some(left) = rest.checked_sub(bytes) else { break };
            *rest = left;
            end = at + character.len_utf8();
        }
        let is_cut = end < self.0.len();
        if is_cut {
            self.0 = Cow::Owned(self.0[..end].to_owned());
        }
        is_cut
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl<'a> From<&'a String> for Text<'a> {
    fn from(text: &'a String) -> Self {
        text.as_str().into()
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

impl<'a> From<&'a KeyId> for Text<'a> {
    fn from(key: &'a KeyId) -> Self {
        key.as_str().into()
    }
}

impl<'a> From<&'a KeyArn> for Text<'a> {
    fn from(arn: &'a KeyArn) -> Self {
        arn.as_str().into()
    }
}

impl From<Uuid> for Text<'_> {
    fn from(id: Uuid) -> Self {
        id.to_string().into()
    }
}

/// Writes a text, cut to CloudTrail's limit.
#[expect(clippy::ref_option, reason = "serde passes the field as it is")]
pub(super) fn cut<S: Serializer>(text: &Option<Text<'_>>, serializer: S) -> Result<S::Ok, S::Error> {
    match text.as_deref() {
        Some(text) => serializer.serialize_str(&text[..text.floor_char_boundary(MAX_SHORT_TEXT_BYTES)]),
        None => serializer.serialize_none(),
    }
}

/// Parses a UUID as records have it: lower case, with dashes.
pub(crate) fn lower_case_uuid(text: &str) -> Option<Uuid> {
    if text.len() != 36 || text.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    Uuid::try_parse(text).ok()
}

/// Reads an optional id in that form only.
pub(super) fn optional_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Uuid>, D::Error> {
    let Some(text) = Option::<Text<'de>>::deserialize(deserializer)? else { return Ok(None) };
    let id = lower_case_uuid(&text).ok_or_else(|| serde::de::Error::custom("not a UUID in lower case"))?;
    Ok(Some(id))
}

/// Reads an enumeration from a word. Without this, serde would also accept `{"Allowed":null}`.
pub(super) fn word<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    let word = Text::deserialize(deserializer)?;
    let word: StrDeserializer<'_, D::Error> = word.into_deserializer();
    T::deserialize(word)
}

/// CloudTrail: userAgent, errorCode and errorMessage have at most 1 KB.
pub(crate) const MAX_SHORT_TEXT_BYTES: usize = 1_024;
