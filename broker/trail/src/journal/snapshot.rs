//! The files of a journal at one moment, for a reader that needs them more than once.

use std::fs::File;
use std::io::{self, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::segment_reader::{Flaw, ReadError, SegmentReader};
use super::{Begun, files};
use crate::regular_file::open_regular;

/// Open files of a journal, which stay readable after their broker has delivered and removed them.
pub struct JournalSnapshot {
    /// The number of files.
    pub files: usize,
    opened: Vec<(PathBuf, File)>,
    /// What the broker has noted of its newest file, if that is not there.
    gone: Option<Begun>,
}

impl TryFrom<&Path> for JournalSnapshot {
    type Error = io::Error;

    /// Opens the journal in a directory.
    fn try_from(dir: &Path) -> io::Result<Self> {
        for attempt in 1..=TRIES {
            // Before the files: the file that it names is there, or was delivered.
            let begun = Begun::load(dir)?;
            let listed = files(dir)?;
            let newest = listed.last().map_or(0, |file| file.number);
            let opened: io::Result<Vec<_>> =
                listed.into_iter().map(|file| Ok((file.path.clone(), open_regular(&file.path)?))).collect();
            let gone = begun.filter(|begun| begun.number > newest);
            // Delivered or renamed meanwhile.
            let is_moving = opened.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
            if is_moving || (gone.is_some() && attempt < TRIES) {
                continue;
            }
            let opened = opened?;
            if let Some(gone) = gone.as_ref().filter(|_| opened.is_empty()) {
                return Err(io::Error::other(is_gone(gone.number)));
            }
            return Ok(Self { files: opened.len(), opened, gone });
        }
        Err(io::Error::other("the broker delivers faster than its journal can be opened: try again"))
    }
}

impl JournalSnapshot {
    /// The records of a file with numbers above `after`, checked against the chain, up to where the next file continues. Up to `after` they
    /// may be missing; where others are, that is an error.
    pub fn records(&self, file: usize, after: u64) -> io::Result<Vec<String>> {
        let mut records = Vec::new();
        let Some(mut reader) = self.open(file)? else { return Ok(records) };
        if file == 0 && reader.before().sequence > after {
            return Err(self.gap(file, &format!("the records between {after} and this file are gone")));
        }
        // Anything behind that was never committed.
        let next = self.open(file + 1)?.map(|next| next.before());
        while next.is_none_or(|next| reader.link().sequence < next.sequence) {
            let record = match reader.next_record() {
                Ok(Some(record)) => std::str::from_utf8(record).map(str::to_owned),
                Ok(None) => break,
                Err(error) => {
                    self.explain(file, error)?;
                    break;
                }
            };
            if reader.link().sequence > after {
                records.push(record.map_err(io::Error::other)?);
            }
        }
        if next.is_some_and(|next| next != reader.link()) {
            return Err(self.gap(file, "the next file does not continue it: records between are gone"));
        }
        if let Some(gone) = self.gone.as_ref().filter(|_| file + 1 == self.files)
            && gone.after.is_none_or(|before| before.sequence >= after)
        {
            return Err(self.gap(file, &is_gone(gone.number)));
        }
        Ok(records)
    }

    fn gap(&self, file: usize, why: &str) -> io::Error {
        io::Error::other(format!("{}: {why}: see `key-broker audit verify`", self.opened[file].0.display()))
    }

    /// Reads a file from its beginning; `None` if there is none, or if the newest one has no complete first line.
    fn open(&self, file: usize) -> io::Result<Option<SegmentReader<BufReader<&File>>>> {
        let Some((_, mut opened)) = self.opened.get(file).map(|(path, file)| (path, file)) else {
            return Ok(None);
        };
        opened.seek(SeekFrom::Start(0))?;
        match SegmentReader::new(BufReader::new(opened)) {
            Ok(reader) => Ok(Some(reader)),
            Err(error) => self.explain(file, error).map(|()| None),
        }
    }

    /// An unfinished line at the end of the newest file is no error; everything else is.
    fn explain(&self, file: usize, error: ReadError) -> io::Result<()> {
        let at = self.opened[file].0.display();
        match error {
            ReadError::Flaw(Flaw::Torn) if file + 1 == self.files => Ok(()),
            ReadError::Flaw(_) => Err(io::Error::other(format!(
                "{at}: a line does not fit the chain: it was changed, or is not where it was written"
            ))),
            ReadError::Io(error) => Err(io::Error::new(error.kind(), format!("{at}: {error}"))),
        }
    }
}

fn is_gone(number: u64) -> String {
    format!("the broker has begun file {number}, which is not there")
}

/// A broker delivers at most every second.
const TRIES: usize = 10;

#[cfg(test)]
mod tests {
    //! What was there when a journal was opened can be read repeatedly, whatever becomes of its files; a line that does not fit the
    //! chain is an error, unless it is still being written; and so is a file that is not there, unless it was delivered.

    use std::fs;

    use super::*;
    use crate::journal::hash_chain::{Link, header};

    const FIRST: &str = "journal-00000001-20260301T080000Z.closed";
    const SECOND: &str = "journal-00000002.open";

    /// A journal of two files with two records each.
    fn journal() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let mut link = Link::START;
        for (number, name, records) in
            [(1, FIRST, "{\"a\":1}\n{\"a\":2}\n"), (2, SECOND, "{\"a\":3}\n{\"a\":4}\n")]
        {
            let mut text = header(number, &link).into_bytes();
            link.append_all(records.as_bytes(), &mut text);
            fs::write(dir.path().join(name), text).expect("writes");
        }
        dir
    }

    fn all(journal: &JournalSnapshot, after: u64) -> io::Result<Vec<String>> {
        let files: io::Result<Vec<_>> = (0..journal.files).map(|file| journal.records(file, after)).collect();
        Ok(files?.concat())
    }

    #[test]
    fn files_that_are_removed_meanwhile_are_read_again_and_again() {
        let dir = journal();
        let journal = JournalSnapshot::try_from(dir.path()).expect("opens");
        drop(dir);
        for _ in 0..2 {
            assert_eq!(all(&journal, 0).expect("reads").len(), 4);
            assert_eq!(
                all(&journal, 3).expect("reads"),
                ["{\"a\":4}"],
                "those that are delivered are left out"
            );
        }
    }

    #[test]
    fn files_that_are_gone_are_an_error_unless_they_were_delivered() {
        let (dir, third) = (journal(), "journal-00000003.open");
        let link = |records: &str| {
            let mut link = Link::START;
            link.append_all(records.as_bytes(), &mut Vec::new());
            link
        };
        let four = link("{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n{\"a\":4}\n");
        fs::write(dir.path().join(third), header(3, &four)).expect("writes");
        Begun::new(3, four).save(dir.path()).expect("saves");
        let read = |after| JournalSnapshot::try_from(dir.path()).and_then(|journal| all(&journal, after));
        assert_eq!(read(0).expect("reads").len(), 4);
        // One after the other: those in the middle, the oldest, the newest.
        fs::rename(dir.path().join(SECOND), dir.path().join("second")).expect("moves");
        assert!(read(0).expect_err("a gap").to_string().contains("does not continue"));
        fs::rename(dir.path().join("second"), dir.path().join(SECOND)).expect("moves");
        fs::remove_file(dir.path().join(FIRST)).expect("removes");
        assert!(read(0).expect_err("a gap").to_string().contains("between 0 and"));
        assert_eq!(read(2).expect("delivered").len(), 2);
        fs::remove_file(dir.path().join(third)).expect("removes");
        assert!(read(2).expect_err("noted").to_string().contains("begun file 3"));
        assert_eq!(read(5).expect("delivered").len(), 0);
        fs::remove_file(dir.path().join(SECOND)).expect("removes");
        assert!(read(5).expect_err("noted, and nothing is left").to_string().contains("begun file 3"));
    }

    #[test]
    fn a_line_that_is_being_written_is_none_and_a_changed_one_is_an_error() {
        let dir = journal();
        let text = fs::read(dir.path().join(SECOND)).expect("reads");
        fs::write(dir.path().join(SECOND), &text[..text.len() - 3]).expect("writes");
        let journal = JournalSnapshot::try_from(dir.path()).expect("opens");
        assert_eq!(all(&journal, 0).expect("reads").len(), 3);
        let text =
            fs::read_to_string(dir.path().join(FIRST)).expect("reads").replace("{\"a\":1}", "{\"a\":7}");
        fs::write(dir.path().join(FIRST), text).expect("writes");
        let journal = JournalSnapshot::try_from(dir.path()).expect("opens");
        let why = all(&journal, 0).expect_err("changed").to_string();
        assert!(why.contains(FIRST) && why.contains("does not fit the chain"), "{why}");
    }
}
