//! Records as brokers write them nearly always, read in one pass: fields in their order, texts without escapes, no white space. It takes
//! a fraction of the time of reading any JSON.
//!
//! Nothing is judged here. What is written otherwise is left to the reading of any JSON, which takes all that this takes and finds the
//! same in it: tests hold the two against each other.

mod reader;
mod writer;

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize, Serializer, de, ser};

use crate::record::{ActivityEventData, KmsEventData, Record};
use reader::Reader;

/// A record that was read together with its `additionalEventData`.
pub(super) type StrictRecord<'a> = Record<'a, Extra<'a>>;

/// `additionalEventData` of either profile: [`Reader`] tells them apart by how they begin.
#[derive(Deserialize)]
#[expect(clippy::large_enum_variant, reason = "most records are of the larger one, and none is kept")]
pub(super) enum Extra<'a> {
    /// Of a call to KMS.
    #[serde(borrow)]
    Kms(KmsEventData<'a>),
    /// Of a workload's call.
    #[serde(borrow)]
    Activity(ActivityEventData<'a>),
}

impl<'a> Extra<'a> {
    /// What a workload's call has.
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

/// Reads the record that `text` begins with, gives it to `take` with its length, and returns both: none if it is not byte for byte what a broker
/// would write of it, but for `additionalEventData` of an activity record, to which later brokers may add, or if `take` says so.
pub(super) fn read<T>(
    text: &str,
    take: impl FnOnce(&StrictRecord<'_>, usize) -> Option<T>,
) -> Option<(T, usize)> {
    let mut reader = Reader::new(text);
    // It is large, and is not moved.
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

/// It is not written so; why does not matter, since it is read once more.
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

/// The length of the text that `bytes` begin with, up to a quote that ends it; none if there is an escape, a control character or no end.
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

/// A high bit for the first of eight bytes that is a quote, a backslash or a control character, and perhaps for some after it.
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
