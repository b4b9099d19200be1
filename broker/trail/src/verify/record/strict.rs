//! Parses records in the form in which brokers almost always write them, in one pass: fields in order, texts without escapes, no white
//! space. This takes a fraction of the time of parsing general JSON.
//!
//! Nothing is checked here. Any other form is left to the general parser, which accepts everything that this one does, with the same
//! result: tests compare the two.

mod reader;
mod writer;

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize, Serializer, de, ser};

use crate::record::{ActivityEventData, KmsEventData, Record};
use reader::Reader;

/// A record that was parsed together with its `additionalEventData`.
pub(super) type StrictRecord<'a> = Record<'a, Extra<'a>>;

/// `additionalEventData` of either profile, which [`Reader`] distinguishes by its beginning.
#[derive(Deserialize)]
#[expect(clippy::large_enum_variant, reason = "most records are of the larger one, and none is kept")]
pub(super) enum Extra<'a> {
    /// For a call to KMS.
    #[serde(borrow)]
    Kms(KmsEventData<'a>),
    /// For a workload's call.
    #[serde(borrow)]
    Activity(ActivityEventData<'a>),
}

impl<'a> Extra<'a> {
    /// The data of a workload's call.
    pub(super) fn activity(&self) -> Option<&ActivityEventData<'a>> {
        match self {
            Self::Kms(_) => None,
            Self::Activity(data) => Some(data),
        }
    }
}

impl Serialize for Extra<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Kms(data) => data.serialize(serializer),
            Self::Activity(data) => data.serialize(serializer),
        }
    }
}

/// Parses the record at the start of `text`, calls `take` with it and its length, and returns that length and the result. `None` if `take`
/// says so, or if the record is not byte for byte what a broker would write, except in an activity record's `additionalEventData`, to
/// which later brokers may add.
pub(super) fn read<T>(
    text: &str,
    take: impl FnOnce(&StrictRecord<'_>, usize) -> Option<T>,
) -> Option<(T, usize)> {
    let mut reader = Reader::new(text);
    // It is large, so it is not moved.
    match &StrictRecord::deserialize(&mut reader) {
        Ok(record) => {
            let end = reader.at();
            let added = match record.additional_event_data {
                Some(Extra::Activity(_)) => reader.extra(),
                Some(Extra::Kms(_)) | None => None,
            };
            let taken = writer::is_written(&text[..end], record, added).then(|| take(record, end))??;
            Some((taken, end))
        }
        Err(Otherwise) => None,
    }
}

/// The record has another form; the reason does not matter, since it is parsed again.
#[derive(Debug)]
struct Otherwise;

impl Display for Otherwise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not as a broker writes it")
    }
}

impl std::error::Error for Otherwise {}

impl de::Error for Otherwise {
    fn custom<T: Display>(_: T) -> Self {
        Self
    }
}

impl ser::Error for Otherwise {
    fn custom<T: Display>(_: T) -> Self {
        Self
    }
}

/// The length of the text before a closing quote; `None` if there is an escape, a control character or no end.
fn plain_text(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk() {
        let found = odd_bytes(u64::from_le_bytes(*chunk));
        if found != 0 {
            at += (found.trailing_zeros() / 8) as usize;
            return (bytes[at] == b'"').then_some(at);
        }
        at += 8;
    }
    let rest = bytes[at..].iter().position(|byte| matches!(byte, b'"' | b'\\' | ..b' '))?;
    (bytes[at + rest] == b'"').then_some(at + rest)
}

/// Sets the high bit of the first of eight bytes that is a quote, a backslash or a control character, and maybe of later ones.
const fn odd_bytes(bytes: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    const fn zero_bytes(bytes: u64) -> u64 {
        bytes.wrapping_sub(ONES) & !bytes
    }
    let control = bytes.wrapping_sub(ONES * 0x20) & !bytes;
    let (quote, backslash) = (zero_bytes(bytes ^ (ONES * 0x22)), zero_bytes(bytes ^ (ONES * 0x5c)));
    (control | quote | backslash) & HIGH
}

#[cfg(test)]
mod tests;
