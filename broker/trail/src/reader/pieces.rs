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
    /// Bytes that are uncompressed next.
    room: Box<[u8]>,
    /// The beginning of a character, at the beginning of `room`.
    begun: usize,
    text: String,
    /// Where in `text` the part begins that has not been taken.
    at: usize,
    /// All bytes so far.
    length: usize,
    hash: Sha256,
    has_ended: bool,
}

/// It is no log file of a broker's, or one that has to be read whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ReadWhole;

impl<'a> Pieces<'a> {
    /// Of a gzip.
    pub(crate) fn new(gzip: &'a [u8]) -> Self {
        Self {
            gzip: GzDecoder::new(gzip),
            room: vec![0; PIECE].into_boxed_slice(),
            begun: 0,
            text: String::with_capacity(4 * PIECE),
            at: 0,
            length: 0,
            hash: Sha256::new(),
            has_ended: false,
        }
    }

    /// Gives each record to `take`, with the text from there on. It says how long the record is, or none where it cannot say: then it is given the
    /// record alone, by whoever finds its end, with true.
    pub(crate) fn for_each_record(
        &mut self,
        mut take: impl FnMut(&str, bool) -> Option<usize>,
    ) -> Result<(), ReadWhole> {
        if !self.begins_with(HEAD)? {
            return Err(ReadWhole);
        }
        self.at += HEAD.len();
        if self.begins_with(TAIL)? {
            return self.end();
        }
        loop {
            let length = match take(&self.text[self.at..], false) {
                Some(length) => length,
                None => {
                    let length = self.length_of_record()?;
                    take(&self.text[self.at..self.at + length], true);
                    length
                }
            };
            self.at += length;
            if self.begins_with(TAIL)? {
                return self.end();
            }
            if !self.begins_with(b",{")? {
                return Err(ReadWhole);
            }
            self.at += 1;
        }
    }

    /// SHA-256, in hex, of the whole, once that was read.
    pub(crate) fn hash(self) -> String {
        hex::encode(self.hash.finalize())
    }

    fn end(&mut self) -> Result<(), ReadWhole> {
        self.at += TAIL.len();
        while !self.has_ended {
            self.uncompress()?;
        }
        if self.at == self.text.len() { Ok(()) } else { Err(ReadWhole) }
    }

    fn begins_with(&mut self, bytes: &[u8]) -> Result<bool, ReadWhole> {
        while self.text.len() - self.at < bytes.len() && !self.has_ended {
            self.uncompress()?;
        }
        Ok(self.text.as_bytes()[self.at..].starts_with(bytes))
    }

    /// The length of the record that comes next, whatever it is.
    fn length_of_record(&mut self) -> Result<usize, ReadWhole> {
        loop {
            let mut values = Deserializer::from_str(&self.text[self.at..]).into_iter::<&RawValue>();
            match values.next() {
                Some(Ok(record)) => return Ok(record.get().len()),
                Some(Err(error)) if error.is_eof() && !self.has_ended => {}
                _ => return Err(ReadWhole),
            }
            if self.text.len() - self.at > LONGEST {
                return Err(ReadWhole);
            }
            self.uncompress()?;
        }
    }

    /// Adds a piece to the text.
    fn uncompress(&mut self) -> Result<(), ReadWhole> {
        let read = self.gzip.read(&mut self.room[self.begun..]).map_err(|_| ReadWhole)?;
        if read == 0 {
            self.has_ended = true;
            // A second member, or what is none, makes readers differ.
            let is_one = self.begun == 0 && self.gzip.get_ref().is_empty();
            return if is_one { Ok(()) } else { Err(ReadWhole) };
        }
        self.length += read;
        let new = self.begun + read;
        self.hash.update(&self.room[self.begun..new]);
        if self.length > MAX_UNCOMPRESSED_BYTES {
            return Err(ReadWhole);
        }
        let whole = match std::str::from_utf8(&self.room[..new]) {
            Ok(_) => new,
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => return Err(ReadWhole),
        };
        if self.at >= self.text.len() / 2 {
            self.text.drain(..self.at);
            self.at = 0;
        }
        self.text.push_str(std::str::from_utf8(&self.room[..whole]).map_err(|_| ReadWhole)?);
        self.room.copy_within(whole..new, 0);
        self.begun = new - whole;
        Ok(())
    }
}

/// Several fit into a processor's nearer caches.
const PIECE: usize = 64 << 10;
/// Several times a record of CloudTrail's.
const LONGEST: usize = 1 << 20;
