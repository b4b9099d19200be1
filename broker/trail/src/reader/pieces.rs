//! Uncompresses a log file piece by piece and forgets what has been read, so that it takes little memory and stays in the processor's
//! caches.
//!
//! This is only for log files as brokers deliver them. Any other file must be read as a whole.

use std::io::Read as _;

use flate2::bufread::GzDecoder;
use serde_json::Deserializer;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::MAX_UNCOMPRESSED_BYTES;
use super::records::{HEAD, TAIL};

/// The text of a log file while it is uncompressed.
pub(crate) struct Pieces<'a> {
    gzip: GzDecoder<&'a [u8]>,
    /// Uncompressed bytes that have not been taken, up to `end`, followed by room for more.
    bytes: Vec<u8>,
    end: usize,
    /// The number of bytes so far.
    length: usize,
    hash: Sha256,
    has_ended: bool,
}

/// The file is not as brokers deliver it, so it must be read as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ReadWhole;

/// Where in a log file the next text is.
#[derive(Clone, Copy)]
enum Place {
    Head,
    /// Before a record, or the end of an empty list.
    First,
    Record,
    /// After a record.
    After,
    /// After everything.
    End,
}

impl<'a> Pieces<'a> {
    /// Uncompresses a gzip.
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

    /// Calls `take` for each record, with the text from there on. It returns the record's length, or `None` if it cannot tell: then it is
    /// called again with `true` and the record alone, once its end is found.
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

    /// The SHA-256, in hex, of everything that was read.
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

    /// Uncompresses another piece.
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
        // Programs disagree about a second member and about trailing bytes.
        let is_one = !self.has_ended || self.gzip.get_ref().is_empty();
        if is_one && self.length <= MAX_UNCOMPRESSED_BYTES { Ok(()) } else { Err(ReadWhole) }
    }
}

/// Takes as many records as there are, and returns their bytes.
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

/// The length of the next record, whatever it is; `None` if it does not end here.
fn length_of_record(text: &str, has_ended: bool) -> Result<Option<usize>, ReadWhole> {
    match Deserializer::from_str(text).into_iter::<&RawValue>().next() {
        Some(Ok(record)) => Ok(Some(record.get().len())),
        Some(Err(error)) if error.is_eof() && !has_ended => Ok(None),
        _ => Err(ReadWhole),
    }
}

/// Several times deflate's window, and small enough for a processor's inner caches.
const PIECE: usize = 256 << 10;
/// Several times a record of CloudTrail.
const LONGEST: usize = 1 << 20;

#[cfg(test)]
mod tests;
