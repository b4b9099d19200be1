//! Repairs what an earlier process left: its files are closed, and the chain continues from their end.

use std::fs::{self, OpenOptions};
use std::io;

use time::OffsetDateTime;

use super::mark::Begun;
use super::{Segment, SegmentFile, Segments, closed_name, damaged_name, files};
use crate::journal::Notices;
use crate::journal::hash_chain::Link;
use crate::journal::segment_reader::{Contents, repair};

impl Segments {
    pub(super) fn recover(&mut self, now: OffsetDateTime, notices: &Notices) -> io::Result<()> {
        let files = files(&self.dir)?;
        let newest = files.last().map_or(0, |file| file.number);
        let begun = Begun::load(&self.dir)?.filter(|begun| begun.number > newest);
        // No two files have the same number, even if one of them is gone.
        self.newest = begun.as_ref().map_or(newest, |begun| begun.number);
        // Noted before the next file exists, since after that the next start could not know.
        if files.is_empty() {
            notices.begin_anew()?;
        } else if let Some(begun) = begun {
            notices.begun_file_is_gone(begun.after.unwrap_or(Link::START))?;
        }
        let mut has_end = false;
        // The newest readable file has the end of the chain. Older closed files are examined when they are delivered.
        for file in files.iter().rev() {
            if has_end && file.closed_at.is_some() {
                continue;
            }
            let Some(contents) = self.examine(file, notices)? else { continue };
            if !has_end {
                self.link = contents.end;
            }
            if file.closed_at.is_none() {
                self.take_over(file, &contents, !has_end, now)?;
            }
            has_end = true;
        }
        if let Err(error) = notices.save() {
            tracing::warn!(%error, "cannot save yet what was found out about the journal");
        }
        Ok(())
    }

    /// Cuts off what does not fit. `None` if not even the first line does, which only a crash in a file's first moment, or a person,
    /// can cause.
    fn examine(&self, file: &SegmentFile, notices: &Notices) -> io::Result<Option<Contents>> {
        let evidence = self.dir.join(damaged_name(file.number));
        let contents = repair(&file.path, &evidence, &|cut| notices.tell_cut(file.number, cut))?;
        notices.is_whole(file.number);
        if let Some(cut) = contents.and_then(|contents| contents.cut) {
            tracing::warn!(file = %file.path.display(), bytes = cut.bytes, flaw = ?cut.flaw, "cut off the end of a journal segment that does not fit its hash chain");
        }
        if contents.is_none() {
            // Its contents were moved to the evidence.
            fs::remove_file(&file.path)?;
        }
        Ok(contents)
    }

    fn take_over(
        &mut self,
        file: &SegmentFile,
        contents: &Contents,
        is_newest: bool,
        now: OffsetDateTime,
    ) -> io::Result<()> {
        if contents.records() > 0 {
            fs::rename(&file.path, self.dir.join(closed_name(file.number, now)))?;
            return self.sync_dir();
        }
        if !is_newest {
            return fs::remove_file(&file.path);
        }
        let opened = OpenOptions::new().read(true).write(true).open(&file.path)?;
        let bytes = opened.metadata()?.len();
        self.current = Some(Segment { bytes, ..Segment::new(file.number, file.path.clone(), opened)? });
        Ok(())
    }
}
