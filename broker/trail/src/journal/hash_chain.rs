//! The hash chain of the journal's records, and the two kinds of lines that hold it.
//!
//! A line is `SEQUENCE HASH RECORD`. HASH is the SHA-256, in hex, of the hash before it, the sequence number (eight bytes,
//! big-endian) and the record's bytes: an edited, dropped, swapped or inserted line does not fit what follows. The first line
//! of a file says where its chain begins: `key-broker-journal 1 SEGMENT SEQUENCE HASH`, the last record before it.

use std::fmt;
use std::io::Write as _;

use sha2::{Digest, Sha256};

use crate::format_version::FORMAT_VERSION;

/// A place in the chain: the sequence number of a record and its hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    /// The first record has number 1.
    pub(crate) sequence: u64,
    /// The hash of this record and all before it.
    pub(crate) hash: [u8; 32],
}

impl Link {
    /// The place before the first record.
    pub(crate) const START: Self = Self { sequence: 0, hash: [0; 32] };

    /// The link of the record that follows this one.
    #[must_use]
    pub(crate) fn next(&self, record: &[u8]) -> Self {
        let sequence = self.sequence + 1;
        let hash = Sha256::new().chain_update(self.hash).chain_update(sequence.to_be_bytes());
        Self { sequence, hash: hash.chain_update(record).finalize().into() }
    }

    /// Adds the records that follow, each ended by a line feed, and advances to the last of them.
    pub(crate) fn append_all(&mut self, records: &[u8], lines: &mut Vec<u8>) {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', records) {
            self.append(&records[start..end], lines);
            start = end + 1;
        }
    }

    /// Adds the record that follows this one to `lines`, as a line, and advances to it.
    pub(crate) fn append(&mut self, record: &[u8], lines: &mut Vec<u8>) {
        *self = self.next(record);
        let mut hash = [0; 64];
        hex::encode_to_slice(self.hash, &mut hash).expect("64 digits for 32 bytes");
        write!(lines, "{} ", self.sequence).expect("memory takes everything");
        for part in [&hash[..], b" ", record, b"\n"] {
            lines.extend_from_slice(part);
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sequence, hex::encode(self.hash))
    }
}

/// An optional place in the chain as the broker's own files have it: `SEQUENCE:HASH`.
pub(crate) mod optional_link {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{Link, parse_hash};

    #[expect(clippy::ref_option, reason = "serde passes the field as it is")]
    pub(crate) fn serialize<S: Serializer>(link: &Option<Link>, serializer: S) -> Result<S::Ok, S::Error> {
        match link {
            Some(link) => serializer.serialize_some(&format!("{link:?}")),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Link>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let link = || {
            let (sequence, hex) = text.split_once(':')?;
            Some(Link { sequence: sequence.parse().ok()?, hash: parse_hash(hex.as_bytes())? })
        };
        link().map(Some).ok_or_else(|| serde::de::Error::custom("not a place in the journal's chain"))
    }
}

/// The first line of a file, line feed included.
#[must_use]
pub(crate) fn header(segment: u64, before: &Link) -> String {
    format!("{MAGIC}{FORMAT_VERSION} {segment} {} {}\n", before.sequence, hex::encode(before.hash))
}

/// Parses a first line into the number of the segment and the last record before it.
#[must_use]
pub(crate) fn parse_header(line: &[u8]) -> Option<(u64, Link)> {
    let (version, rest) = versioned(line)?;
    if version > FORMAT_VERSION {
        return None;
    }
    let (segment, rest) = rest.split_once(' ')?;
    let (sequence, hash) = rest.split_once(' ')?;
    Some((
        segment.parse().ok()?,
        Link { sequence: sequence.parse().ok()?, hash: parse_hash(hash.as_bytes())? },
    ))
}

/// The format version in a first line, if this program cannot read it because it is later.
#[must_use]
pub(crate) fn newer_version(line: &[u8]) -> Option<u32> {
    versioned(line).map(|(version, _)| version).filter(|version| *version > FORMAT_VERSION)
}

fn versioned(line: &[u8]) -> Option<(u32, &str)> {
    let (version, rest) = std::str::from_utf8(line).ok()?.strip_prefix(MAGIC)?.split_once(' ')?;
    Some((version.parse().ok()?, rest))
}

/// Parses a line into the place that it claims and its record.
#[must_use]
pub(crate) fn parse_line(line: &[u8]) -> Option<(Link, &[u8])> {
    let at = line.iter().take(MAX_SEQUENCE_DIGITS + 1).position(|byte| *byte == b' ')?;
    let sequence = std::str::from_utf8(&line[..at]).ok()?.parse().ok()?;
    let (hash, record) = line[at + 1..].split_at_checked(64)?;
    Some((Link { sequence, hash: parse_hash(hash)? }, record.strip_prefix(b" ")?))
}

fn parse_hash(hex: &[u8]) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    hex::decode_to_slice(hex, &mut hash).ok()?;
    Some(hash)
}

const MAGIC: &str = "key-broker-journal ";
/// The digits of 2^64 - 1.
const MAX_SEQUENCE_DIGITS: usize = 20;

#[cfg(test)]
mod tests {
    //! What is written can be read, and no other record fits its place in the chain.

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_read_back_and_any_change_breaks_the_chain(
            records in prop::collection::vec("[ -~]{0,40}", 1..6),
            at in any::<prop::sample::Index>(),
            bit in 0..8_u32,
        ) {
            let (mut link, mut lines) = (Link::START, Vec::new());
            for record in &records {
                link.append(record.as_bytes(), &mut lines);
            }
            let verify = |lines: &[u8]| {
                let mut link = Link::START;
                let mut read = Vec::new();
                for line in lines.strip_suffix(b"\n").unwrap_or(lines).split(|byte| *byte == b'\n') {
                    let (said, record) = parse_line(line)?;
                    link = link.next(record);
                    read.push(String::from_utf8(record.to_vec()).ok()?);
                    if said != link {
                        return None;
                    }
                }
                Some((read, link))
            };
            prop_assert_eq!(verify(&lines), Some((records, link)));
            let place = at.index(lines.len() - 1);
            lines[place] ^= 1 << bit;
            let changed = verify(&lines);
            // The letters of a hash may be written large.
            prop_assert!(changed.is_none() || lines[place].is_ascii_uppercase());
        }
    }

    #[test]
    fn headers_read_back() {
        let link = Link::START.next(b"{}");
        assert_eq!(parse_header(header(7, &link).trim_end().as_bytes()), Some((7, link)));
        for bad in ["", "key-broker-journal 2 7 1 00", "key-broker-journal 1 7 1", "{}"] {
            assert_eq!(parse_header(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(newer_version(header(7, &link).as_bytes()), None);
        assert_eq!(newer_version(b"key-broker-journal 2 whatever comes then"), Some(2));
    }
}
