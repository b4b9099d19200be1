//! `begun.json` says which file was begun last. It is separate from that file, so that the next start notices if somebody removes the file
//! while no broker runs. It does not show what was cut off the end of the file.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::journal::hash_chain::{Link, optional_link};
use crate::regular_file::read_regular;
use crate::store::directory::{found, write_durably};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Begun {
    version: u32,
    /// The file's number.
    pub(crate) number: u64,
    /// The last record before the file.
    #[serde(with = "optional_link")]
    pub(crate) after: Option<Link>,
}

impl Begun {
    /// Its name in the journal's directory.
    pub(crate) const FILE: &str = "begun.json";

    pub(crate) fn new(number: u64, after: Link) -> Self {
        Self { version: VERSION, number, after: Some(after) }
    }

    /// `None` in a journal of a version without this file.
    pub(crate) fn load(dir: &Path) -> io::Result<Option<Self>> {
        let path = dir.join(Self::FILE);
        let Some(text) = found(read_regular(&path, MAX_BYTES))? else { return Ok(None) };
        let explain = |why: &dyn std::fmt::Display| {
            io::Error::other(format!("{}: {why}: put it back as it was, or move it away", path.display()))
        };
        let begun: Self = serde_json::from_slice(&text).map_err(|error| explain(&error))?;
        if begun.version == VERSION {
            Ok(Some(begun))
        } else {
            Err(explain(&format_args!("version {} is not {VERSION}", begun.version)))
        }
    }

    /// The caller makes the file's name durable.
    pub(crate) fn save(&self, dir: &Path) -> io::Result<()> {
        write_durably(&dir.join(Self::FILE), &serde_json::to_vec(self)?)
    }
}

const VERSION: u32 = 1;
const MAX_BYTES: u64 = 4_096;

#[cfg(test)]
mod tests {
    //! Proves: if the newest file is removed while no broker runs, that is reported once, unless the file was delivered.

    use std::fs;
    use std::time::Duration;

    use time::OffsetDateTime;

    use super::*;
    use crate::journal::segments::{Segments, files};
    use crate::journal::{Durability, JournalConfig, Notices};

    /// One start that writes this many records, each to a file of its own; the last file stays open.
    fn run(dir: &Path, records: u64) -> (Notices, Segments) {
        let config = JournalConfig::new(dir.to_owned(), Durability::Write, Duration::from_secs(1));
        let (mut segments, notices) = Segments::open(&config, OffsetDateTime::UNIX_EPOCH).expect("opens");
        for number in 0..records {
            if number > 0 {
                assert!(segments.rotate(OffsetDateTime::UNIX_EPOCH));
            }
            let (mut link, mut lines) = (segments.link(), Vec::new());
            link.append(b"{}", &mut lines);
            segments.commit(&lines, link, OffsetDateTime::UNIX_EPOCH).expect("commits");
        }
        (notices, segments)
    }

    fn is_told(dir: &Path, delivered: Option<Link>) -> bool {
        let (notices, _held) = run(dir, 0);
        notices.tell_begun_anew(false, delivered).expect("notes")
    }

    fn remove_newest(dir: &Path) -> u64 {
        let newest = files(dir).expect("files").pop().expect("one");
        fs::remove_file(newest.path).expect("removes");
        newest.number
    }

    #[test]
    fn the_open_file_is_missed_once() {
        let dir = tempfile::tempdir().expect("dir");
        run(dir.path(), 3);
        let removed = remove_newest(dir.path());
        // Killed before anybody looked.
        run(dir.path(), 0);
        assert!(is_told(dir.path(), Some(Link::START)));
        assert!(!is_told(dir.path(), Some(Link::START)));
        let newest = files(dir.path()).expect("files").pop().expect("one");
        assert!(newest.number > removed, "two files never have one number");
    }

    #[test]
    fn what_was_there_or_was_delivered_is_not_missed() {
        let dir = tempfile::tempdir().expect("dir");
        let end = run(dir.path(), 2).1.link();
        assert!(!is_told(dir.path(), None), "it is there");
        // As if only an older file could not be removed.
        run(dir.path(), 2);
        let after_all = Link { sequence: end.sequence + 2, ..end };
        remove_newest(dir.path());
        remove_newest(dir.path());
        assert!(!is_told(dir.path(), Some(after_all)), "it was delivered");
    }

    #[test]
    fn a_journal_of_an_older_version_has_no_such_note() {
        let dir = tempfile::tempdir().expect("dir");
        run(dir.path(), 2);
        fs::remove_file(dir.path().join(Begun::FILE)).expect("removes");
        remove_newest(dir.path());
        assert!(!is_told(dir.path(), Some(Link::START)));
        fs::write(dir.path().join(Begun::FILE), "{}").expect("writes");
        let error = Begun::load(dir.path()).expect_err("not whole").to_string();
        assert!(error.contains(Begun::FILE) && error.contains("move it away"), "{error}");
    }
}
