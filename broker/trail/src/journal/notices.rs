//! Notices: what the broker has found out about its own trail and has not reported there yet.
//!
//! The next activity record reports them or, if none comes soon, a record of the broker's own. Until that record is in the
//! journal they are kept in `notices.json`, so that a broker that is stopped or killed in between reports them after its next
//! start. A notice of missing records is saved before the delivery or start that found it out goes on.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::hash_chain::{Link, optional_link};
use super::hold::Hold;
use super::segment_reader::{Cut, Flaw};
use super::segments::is_full;
use crate::format_version::{FORMAT_VERSION, Versioned, newer};
use crate::notice::{Notice, Reloads, Untold};
use crate::record::ActivityEventData;
use crate::regular_file::read_regular;
use crate::store::directory::{found, write_durably};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The notices, in memory and in the journal's directory.
#[derive(Default)]
pub(crate) struct Notices {
    /// Without it notices are in memory only.
    hold: Option<Arc<Hold>>,
    /// Whether a notice waits for a record: read on every call, without the lock.
    any: AtomicBool,
    ledger: Mutex<Ledger>,
    /// Held while the file is written, so that an older state never replaces a newer one.
    saving: Mutex<()>,
}

#[derive(Default)]
struct Ledger {
    entries: Vec<Entry>,
    missing_before: Option<Link>,
    cuts: Vec<CutPlace>,
    begun_anew: bool,
    begun_and_gone: Option<Link>,
    /// Changed since the file was written.
    is_changed: bool,
}

struct Entry {
    untold: Untold,
    standing: Standing,
}

#[derive(Clone, Copy, PartialEq)]
enum Standing {
    /// In no record yet.
    Waiting,
    /// In a record that is being committed.
    Taken,
    /// In a record that may have been committed: the journal has the answer.
    Uncertain,
}

/// The contents of the file.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Noted {
    version: u32,
    untold: Vec<Untold>,
    /// Records were found missing before this place: already noted.
    #[serde(with = "optional_link")]
    missing_before: Option<Link>,
    /// Cuts of files that are already noted.
    cuts: Vec<CutPlace>,
    /// At a start the journal had no file, and it is not known yet whether it should have had one.
    #[serde(default)]
    begun_anew: bool,
    /// At a start the newest file, which began after this place, was gone, and it is not known yet whether it was delivered.
    #[serde(default, with = "optional_link", skip_serializing_if = "Option::is_none")]
    begun_and_gone: Option<Link>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CutPlace {
    file: u64,
    at: u64,
}

impl Notices {
    /// The name of the file in the journal's directory.
    pub(crate) const FILE: &str = "notices.json";

    /// Loads what an earlier process saved in a locked directory.
    pub(super) fn load(hold: &Arc<Hold>) -> io::Result<Self> {
        let Noted { untold, missing_before, cuts, begun_anew, begun_and_gone, .. } = Noted::load(hold.dir())?;
        // The process may have ended after the record was committed and before the file was updated.
        let entry = |untold| Entry { untold, standing: Standing::Uncertain };
        let entries = untold.into_iter().map(entry).collect();
        let ledger = Ledger { entries, missing_before, cuts, begun_anew, begun_and_gone, is_changed: false };
        let ledger = Mutex::new(ledger);
        Ok(Self { hold: Some(Arc::clone(hold)), ledger, ..Self::default() })
    }

    /// The notices saved in `dir`, for a reader other than the broker.
    pub(crate) fn read(dir: &Path) -> io::Result<Vec<Untold>> {
        Ok(Noted::load(dir)?.untold)
    }

    /// Adds a notice about the journal. [`Notices::save`] makes it durable.
    pub(crate) fn tell(&self, journal: Notice) {
        self.add(&mut self.lock(), journal, Reloads::default());
    }

    /// Adds reloads. They are durable when this returns; after an error they are in memory only. Blocks.
    pub(crate) fn tell_reloads(&self, reloads: Reloads) -> io::Result<()> {
        self.note_reloads(reloads);
        self.save()
    }

    /// The same, in memory only.
    pub(crate) fn note_reloads(&self, reloads: Reloads) {
        self.add(&mut self.lock(), Notice::default(), reloads);
    }

    /// Adds that `missing_records` records before this place are missing: once, however often it is found. Durable when this
    /// returns. Blocks.
    pub(crate) fn tell_missing(&self, before: Link, missing_records: u64) -> io::Result<()> {
        let mut ledger = self.lock();
        if ledger.missing_before != Some(before) {
            ledger.missing_before = Some(before);
            self.add(&mut ledger, Notice { missing_records, ..Notice::default() }, Reloads::default());
        }
        drop(ledger);
        self.save()
    }

    /// Adds that this is about to be cut off a file: once, even if the cut has to be repeated. Durable when this returns. Blocks.
    pub(crate) fn tell_cut(&self, file: u64, cut: &Cut) -> io::Result<()> {
        let place = CutPlace { file, at: cut.at };
        let mut ledger = self.lock();
        if !ledger.cuts.contains(&place) {
            ledger.cuts.push(place);
            let mut notice = Notice::default();
            notice.add_cut(cut.flaw, cut.bytes);
            self.add(&mut ledger, notice, Reloads::default());
        }
        drop(ledger);
        match self.save() {
            // No reply left for an unfinished line, so nothing is lost without the notice.
            Err(error) if cut.flaw == Flaw::Torn => {
                tracing::warn!(%error, "cannot note yet that an unfinished commit was cut off");
                Ok(())
            }
            saved => saved,
        }
    }

    /// Notes that the journal has no file, until [`Notices::tell_begun_anew`]. Durable when this returns. Blocks.
    pub(super) fn begin_anew(&self) -> io::Result<()> {
        let mut ledger = self.lock();
        (ledger.begun_anew, ledger.is_changed) = (true, true);
        drop(ledger);
        self.save()
    }

    /// Notes that the newest file, which began after this place, is missing, until [`Notices::tell_begun_anew`]. Durable when this
    /// returns. Blocks.
    pub(super) fn begun_file_is_gone(&self, after: Link) -> io::Result<()> {
        let mut ledger = self.lock();
        (ledger.begun_and_gone, ledger.is_changed) = (Some(after), true);
        drop(ledger);
        self.save()
    }

    /// Decides whether files that were not there at the start were lost or had been delivered. If they were lost, adds a notice,
    /// although the number of their records is unknown, and returns true. Durable when this returns. Blocks.
    pub(crate) fn tell_begun_anew(&self, was_used: bool, delivered: Option<Link>) -> io::Result<bool> {
        let mut ledger = self.lock();
        let (begun_anew, gone) =
            (std::mem::take(&mut ledger.begun_anew), std::mem::take(&mut ledger.begun_and_gone));
        ledger.is_changed |= begun_anew || gone.is_some();
        // Delivered files are removed.
        let is_gone = |after: Link| delivered.is_none_or(|delivered| delivered.sequence <= after.sequence);
        let is_missed = (begun_anew && was_used) || gone.is_some_and(is_gone);
        if is_missed {
            self.add(&mut ledger, Notice { missing_records: 1, ..Notice::default() }, Reloads::default());
        }
        drop(ledger);
        self.save()?;
        Ok(is_missed)
    }

    /// Forgets the cuts of a file that fits its chain now.
    pub(crate) fn is_whole(&self, file: u64) {
        let mut ledger = self.lock();
        let before = ledger.cuts.len();
        ledger.cuts.retain(|cut| cut.file != file);
        ledger.is_changed |= ledger.cuts.len() != before;
    }

    /// Makes all notices durable, also where the directory was removed meanwhile. Blocks.
    pub(crate) fn save(&self) -> io::Result<()> {
        let Some(hold) = &self.hold else { return Ok(()) };
        let _saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let is_gone = !hold.dir().join(Notices::FILE).exists();
        let Some(noted) = self.lock().take_changes(is_gone) else { return Ok(()) };
        let saved = hold.keep().and_then(|()| noted.save(hold));
        if saved.is_err() {
            self.lock().is_changed = true;
        }
        saved
    }

    /// Whether there is something to save.
    pub(crate) fn is_changed(&self) -> bool {
        let (is_changed, is_noted) = {
            let ledger = self.lock();
            (ledger.is_changed, ledger.is_noted())
        };
        is_changed
            || (is_noted && self.hold.as_ref().is_some_and(|hold| !hold.dir().join(Notices::FILE).exists()))
    }

    /// The notice that the next activity record is to report.
    #[must_use]
    pub(super) fn take(self: &Arc<Self>) -> Option<Taken> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        self.take_one(|standing| standing == Standing::Waiting)
    }

    /// The same for a record of the broker's own, which also reports what may have been reported before.
    #[must_use]
    pub(crate) fn take_for_own_record(self: &Arc<Self>) -> Option<Taken> {
        self.take_one(|standing| standing != Standing::Taken)
    }

    fn take_one(self: &Arc<Self>, is_wanted: impl Fn(Standing) -> bool) -> Option<Taken> {
        let mut ledger = self.lock();
        let entry = ledger.entries.iter_mut().find(|entry| is_wanted(entry.standing))?;
        let may_be_told = entry.standing == Standing::Uncertain;
        entry.standing = Standing::Taken;
        let untold = entry.untold.clone();
        self.look(&ledger);
        Some(Taken { notices: Arc::clone(self), untold, may_be_told, is_settled: false })
    }

    /// How many notices are still to be reported.
    #[must_use]
    pub(crate) fn untold(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether it is unknown of any notice if it was reported.
    pub(crate) fn is_uncertain(&self) -> bool {
        self.lock().entries.iter().any(|entry| entry.standing == Standing::Uncertain)
    }

    fn add(&self, ledger: &mut Ledger, journal: Notice, reloads: Reloads) {
        if (journal, reloads) == Default::default() {
            return;
        }
        ledger.is_changed = true;
        let is_full = ledger.entries.len() >= MAX_ENTRIES;
        let joins = |entry: &&mut Entry| match entry.standing {
            Standing::Waiting => true,
            Standing::Uncertain => is_full,
            Standing::Taken => false,
        };
        if let Some(entry) = ledger.entries.iter_mut().rfind(joins) {
            entry.untold.journal += journal;
            entry.untold.reloads += reloads;
        } else {
            let untold = Untold { id: Uuid::new_v4(), journal, reloads };
            ledger.entries.push(Entry { untold, standing: Standing::Waiting });
        }
        self.look(ledger);
    }

    fn settle(&self, id: Uuid, standing: Option<Standing>) {
        let mut ledger = self.lock();
        match standing {
            None => {
                ledger.entries.retain(|entry| entry.untold.id != id);
                ledger.is_changed = true;
            }
            Some(standing) => {
                if let Some(entry) = ledger.entries.iter_mut().find(|entry| entry.untold.id == id) {
                    entry.standing = standing;
                }
            }
        }
        self.look(&ledger);
    }

    fn look(&self, ledger: &Ledger) {
        let any = ledger.entries.iter().any(|entry| entry.standing == Standing::Waiting);
        self.any.store(any, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // Nothing that holds the lock can panic half way.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// Whether anything has to outlive the process.
    fn is_noted(&self) -> bool {
        !self.entries.is_empty()
            || self.missing_before.is_some()
            || !self.cuts.is_empty()
            || self.begun_anew
            || self.begun_and_gone.is_some()
    }

    fn take_changes(&mut self, is_gone: bool) -> Option<Noted> {
        let is_to_be_saved = std::mem::take(&mut self.is_changed) || (is_gone && self.is_noted());
        is_to_be_saved.then(|| Noted {
            version: FORMAT_VERSION,
            untold: self.entries.iter().map(|entry| entry.untold.clone()).collect(),
            missing_before: self.missing_before,
            cuts: self.cuts.clone(),
            begun_anew: self.begun_anew,
            begun_and_gone: self.begun_and_gone,
        })
    }
}

impl Noted {
    fn load(dir: &Path) -> io::Result<Self> {
        let path = dir.join(Notices::FILE);
        let Some(text) = found(read_regular(&path, MAX_FILE_BYTES))? else { return Ok(Self::default()) };
        let explain = |why: &dyn std::fmt::Display| {
            io::Error::other(format!("{}: {why}: put it back as it was, or move it away", path.display()))
        };
        let Versioned { version } = serde_json::from_slice(&text).map_err(|error| explain(&error))?;
        if version > FORMAT_VERSION {
            let words = format!("{}: {}", path.display(), newer(version));
            return Err(io::Error::new(io::ErrorKind::Unsupported, words));
        }
        serde_json::from_slice(&text).map_err(|error| explain(&error))
    }

    fn save(&self, hold: &Hold) -> io::Result<()> {
        let (path, text) = (hold.dir().join(Notices::FILE), serde_json::to_vec(self)?);
        match write_durably(&path, &text) {
            Err(error) if is_full(&error) => hold.kept_room().write(&path, &text)?,
            written => written?,
        }
        File::open(hold.dir())?.sync_all()
    }
}

/// A notice in a record that is being made. If this is dropped, it is unknown whether it was reported.
pub struct Taken {
    notices: Arc<Notices>,
    untold: Untold,
    may_be_told: bool,
    is_settled: bool,
}

impl Taken {
    /// The notice.
    #[must_use]
    pub(crate) fn untold(&self) -> &Untold {
        &self.untold
    }

    /// `data` of an activity record, with the notice added.
    #[must_use]
    pub fn told_with<'a>(&self, data: ActivityEventData<'a>) -> ActivityEventData<'a> {
        data.with_notice(&self.untold)
    }

    /// Whether an earlier record may have reported it.
    #[must_use]
    pub(crate) fn may_be_told(&self) -> bool {
        self.may_be_told
    }

    /// Removes the notice: its record is in the journal.
    pub fn told(mut self) {
        self.is_settled = true;
        self.notices.settle(self.untold.id, None);
    }

    /// Puts the notice back: its record is not in the journal, and will not be.
    pub fn give_back(mut self) {
        self.is_settled = true;
        self.notices.settle(self.untold.id, Some(Standing::Waiting));
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.is_settled {
            self.notices.settle(self.untold.id, Some(Standing::Uncertain));
        }
    }
}

/// Far more than it ever holds, since entries are bounded and damaged files few.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// At this number, notices that may have been reported are merged, too.
const MAX_ENTRIES: usize = 32;

#[cfg(test)]
mod tests;
