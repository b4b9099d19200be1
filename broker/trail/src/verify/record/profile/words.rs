//! The allowed contents of single fields.

use serde::Deserialize;
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error as UnknownWord, StrDeserializer};

use crate::record::{Open, Text};

/// Parses a word, if a broker may write it there.
pub(super) fn known<T: for<'de> Deserialize<'de>>(word: &str) -> Option<T> {
    let word: StrDeserializer<'_, UnknownWord> = word.into_deserializer();
    T::deserialize(word).ok()
}

pub(super) fn demand(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}

pub(super) fn equal(name: &str, found: &str, expected: &str) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{name} is {found:?}, not {expected:?}")) }
}

pub(super) fn is_there(text: Option<&Text<'_>>) -> bool {
    text.is_some_and(|text| !text.is_empty())
}

pub(super) fn is_object<T>(part: &Open<'_, T>) -> bool {
    part.json().is_some_and(|json| json.starts_with('{'))
}

/// `us-west-2`, `us-gov-east-1`, `eusc-de-east-1`: groups of letters, then a digit.
pub(super) fn is_region(text: &str) -> bool {
    let Some((letters, digit)) = text.rsplit_once('-') else { return false };
    let is_word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
    letters.contains('-')
        && letters.split('-').all(is_word)
        && digit.len() == 1
        && digit.bytes().all(|b| b.is_ascii_digit())
}

pub(super) fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
