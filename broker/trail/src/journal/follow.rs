//! Reads a journal while it is being written, as `tail -f` does.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use super::files;
use super::hash_chain::parse_line;
use super::segment_reader::MAX_LINE_BYTES;
use crate::regular_file::open_regular;

/// A reader's place in a journal. Neither writer nor delivery waits for it: records removed before they are read are counted.
pub struct Follower {
    dir: PathBuf,
    current: Option<Open>,
    /// The number of the last file that was read to the end.
    done: u64,
    last_sequence: Option<u64>,
    missed: u64,
}

struct Open {
    number: u64,
    reader: BufReader<File>,
    /// The part of a line read so far.
    line: Vec<u8>,
    /// A later file exists, so this one no longer grows.
    is_complete: bool,
}

impl Follower {
    /// Begins at the oldest record in `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), current: None, done: 0, last_sequence: None, missed: 0 }
    }

    /// The next record as JSON text, if there is one yet.
    pub fn next_record(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let Some(open) = &mut self.current else {
                if self.open_next()? {
                    continue;
                }
                return Ok(None);
            };
            if let Some(line) = open.next_line()? {
                // Headers hold no record.
                let Some((link, record)) = parse_line(&line) else { continue };
                let expected = self.last_sequence.map_or(link.sequence, |last| last + 1);
                self.missed += link.sequence.saturating_sub(expected);
                self.last_sequence = Some(link.sequence);
                return Ok(Some(record.to_vec()));
            }
            if open.is_complete {
                self.done = open.number;
                self.current = None;
            } else if files(&self.dir)?.iter().any(|file| file.number > open.number) {
                // Read once more: it may have grown before the next file was begun.
                open.is_complete = true;
            } else {
                return Ok(None);
            }
        }
    }

    /// How many records were removed before they were read.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    fn open_next(&mut self) -> io::Result<bool> {
        let Some(file) = files(&self.dir)?.into_iter().find(|file| file.number > self.done) else {
            return Ok(false);
        };
        match open_regular(&file.path) {
            Ok(opened) => {
                let reader = BufReader::new(opened);
                self.current =
                    Some(Open { number: file.number, reader, line: Vec::new(), is_complete: false });
                Ok(true)
            }
            // Renamed or delivered meanwhile: the directory is read again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Open {
    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let room = (MAX_LINE_BYTES + 1).saturating_sub(self.line.len() as u64);
        self.reader.by_ref().take(room).read_until(b'\n', &mut self.line)?;
        if self.line.pop_if(|last| *last == b'\n').is_none() {
            if self.line.len() as u64 > MAX_LINE_BYTES {
                let why = format!("a line of more than {MAX_LINE_BYTES} bytes: not a journal");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            return Ok(None);
        }
        Ok(Some(std::mem::take(&mut self.line)))
    }
}
