//! The text of a log file, uncompressed piece by piece: what has been read of it is forgotten, so that little memory is taken, and what is
//! at work on it finds it in the processor's caches.
//!
//! This is for log files as brokers deliver them. Of any other it says nothing, and the caller reads it whole.

use std::io::Read as _;

use flate2::bufread::GzDecoder;
use serde_json::Deserializer;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::MAX_UNCOMPRESSED_BYTES;
use super::records::{HEAD, TAIL};

/// Text that comes to light piece by piece.
pub(crate) struct Pieces<'a> {
    gzip: GzDecoder<&'a [u8]>,
    /// What is uncompressed and has not been taken, up to `end`; then room for what comes.
    bytes: Vec<u8>,
    end: usize,
    /// All bytes so far.
    length: usize,
    hash: Sha256,
    has_ended: bool,
}

/// It is no log file of a broker's, or one that has to be read whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ReadWhole;

/// Where a part of a log file is.
#[derive(Clone, Copy)]
enum Place {
    Head,
    /// A record, or the end where there is none.
    First,
    Record,
    /// What follows a record.
    After,
    /// Nothing follows.
    End,
}

impl<'a> Pieces<'a> {
    /// Of a gzip.
    pub(crate) fn new(gzip: &'a [u8]) -> Self {
        Self {
            gzip: GzDecoder::new(gzip),
            bytes: vec![0; PIECE],
            end: 0,
            length: 0,
            hash: Sha256::new(),
            has_ended: false,
        }
    }

    /// Gives each record to `take`, with the text from there on. It says how long the record is, or none where it cannot say: then it is
    /// given the record alone, as soon as its end is found, with true.
    pub(crate) fn for_each_record(
        &mut self,
        mut take: impl FnMut(&str, bool) -> Option<usize>,
    ) -> Result<(), ReadWhole> {
        let mut place = Place::Head;
        loop {
            let taken = take_all(self.text()?, self.has_ended, &mut place, &mut take)?;
            self.bytes.copy_within(taken..self.end, 0);
            self.end -= taken;
            if self.has_ended {
                return if matches!(place, Place::End) && self.end == 0 { Ok(()) } else { Err(ReadWhole) };
            }
            self.uncompress()?;
        }
    }

    /// SHA-256, in hex, of the whole, once that was read.
    pub(crate) fn hash(self) -> String {
        hex::encode(self.hash.finalize())
    }

    /// What has not been taken, up to the last whole character.
    fn text(&self) -> Result<&str, ReadWhole> {
        let bytes = &self.bytes[..self.end];
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(error) if error.error_len().is_none() => {
                std::str::from_utf8(&bytes[..error.valid_up_to()]).map_err(|_| ReadWhole)
            }
            Err(_) => Err(ReadWhole),
        }
    }

    /// Adds a piece.
    fn uncompress(&mut self) -> Result<(), ReadWhole> {
        if self.end > PIECE / 2 {
            if self.end > LONGEST {
                return Err(ReadWhole);
            }
            self.bytes.resize(self.end + PIECE, 0);
        }
        let read = self.gzip.read(&mut self.bytes[self.end..]).map_err(|_| ReadWhole)?;
        self.hash.update(&self.bytes[self.end..self.end + read]);
        self.end += read;
        self.length += read;
        self.has_ended = read == 0;
        // Of a second member, or what is none, readers make different things.
        let is_one = !self.has_ended || self.gzip.get_ref().is_empty();
        if is_one && self.length <= MAX_UNCOMPRESSED_BYTES { Ok(()) } else { Err(ReadWhole) }
    }
}

/// Takes what is there, and says how much that is.
fn take_all(
    text: &str,
    has_ended: bool,
    place: &mut Place,
    take: &mut impl FnMut(&str, bool) -> Option<usize>,
) -> Result<usize, ReadWhole> {
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let begins_with = |bytes: &[u8]| rest.as_bytes().starts_with(bytes);
        (at, *place) = match *place {
            Place::Head if begins_with(HEAD) => (at + HEAD.len(), Place::First),
            Place::First | Place::After if begins_with(TAIL) => (at + TAIL.len(), Place::End),
            Place::First if begins_with(b"{") => (at, Place::Record),
            Place::After if begins_with(b",{") => (at + 1, Place::Record),
            Place::Record => {
                let Some(length) = take(rest, false) else {
                    let Some(length) = length_of_record(rest, has_ended)? else { return Ok(at) };
                    take(&rest[..length], true);
                    (at, *place) = (at + length, Place::After);
                    continue;
                };
                (at + length, Place::After)
            }
            Place::End => return Ok(at),
            _ if has_ended || rest.len() >= HEAD.len() => return Err(ReadWhole),
            _ => return Ok(at),
        };
    }
}

/// The length of the record that comes next, whatever it is; none if it does not end here.
fn length_of_record(text: &str, has_ended: bool) -> Result<Option<usize>, ReadWhole> {
    match Deserializer::from_str(text).into_iter::<&RawValue>().next() {
        Some(Ok(record)) => Ok(Some(record.get().len())),
        Some(Err(error)) if error.is_eof() && !has_ended => Ok(None),
        _ => Err(ReadWhole),
    }
}

/// Several times what deflate looks back, and small enough for a processor's nearer caches.
const PIECE: usize = 256 << 10;
/// Several times a record of CloudTrail's.
const LONGEST: usize = 1 << 20;

#[cfg(test)]
mod tests;
