//! What an earlier process left is made whole: its files are closed, and the chain goes on from their end.

use std::fs::{self, OpenOptions};
use std::io;

use time::OffsetDateTime;

use super::{Segment, SegmentFile, Segments, closed_name, damaged_name, files};
use crate::audit::journal::Notice;
use crate::audit::journal::segment::{Contents, Flaw, repair};

impl Segments {
    pub(super) fn recover(&mut self, now: OffsetDateTime) -> io::Result<Notice> {
        let mut notice = Notice::default();
        let files = files(&self.dir)?;
        self.newest = files.last().map_or(0, |file| file.number);
        let mut has_end = false;
        // The newest that can be read has the end of the chain. Older ones that are closed are looked at when they are
        // delivered.
        for file in files.iter().rev() {
            if has_end && file.closed_at.is_some() {
                continue;
            }
            let Some(contents) = self.examine(file, &mut notice)? else { continue };
            if !has_end {
                self.link = contents.end;
            }
            if file.closed_at.is_none() {
                self.take_over(file, &contents, !has_end, now)?;
            }
            has_end = true;
        }
        Ok(notice)
    }

    /// Cuts off what does not fit. None if not even the first line does: only a crash within a file's first moment leaves
    /// that, or somebody's hand.
    fn examine(&self, file: &SegmentFile, notice: &mut Notice) -> io::Result<Option<Contents>> {
        let evidence = self.dir.join(damaged_name(file.number));
        let contents = repair(&file.path, &evidence)?;
        if let Some(cut) = contents.and_then(|contents| contents.cut) {
            tracing::warn!(file = %file.path.display(), bytes = cut.bytes, flaw = ?cut.flaw, "cut the end off a journal file that does not fit its chain");
            notice.add_cut(cut.flaw, cut.bytes);
        }
        if contents.is_none() {
            let bytes = fs::metadata(&file.path)?.len();
            if bytes == 0 {
                fs::remove_file(&file.path)?;
            } else {
                fs::rename(&file.path, evidence)?;
                notice.add_cut(Flaw::Broken, bytes);
            }
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
        let (number, path) = (file.number, file.path.clone());
        self.current = Some(Segment { number, path, file: opened, bytes, records: 0, has_rest: false });
        Ok(())
    }
}
