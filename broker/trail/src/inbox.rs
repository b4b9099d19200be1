//! Records of others than the broker: whoever reads an encrypted trail asks KMS, too, and that is written down in the trail.
//!
//! `key-broker audit` puts a record into `inbox/` of the journal's directory before it shows anything; the broker takes it into
//! its journal before its next delivery.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use super::journal::{Journal, files};
use super::record::{ReadRecord, lower_case_uuid};
use super::store::directory::write_durably;

/// Leaves one record, a line of JSON, for the broker whose journal is in `journal_dir`.
pub fn leave(journal_dir: &Path, record: &[u8]) -> io::Result<()> {
    let Some(event_id) = event_id(record) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a record"));
    };
    let inbox = journal_dir.join(INBOX);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&inbox)?;
    let name = format!("{event_id}{RECORD}");
    let unfinished = inbox.join(format!("{event_id}.unfinished"));
    write_durably(&unfinished, record)?;
    // An auditor may be root; the broker is not, and has to read it.
    let owner = fs::metadata(journal_dir)?;
    for path in [&inbox, &unfinished] {
        if fs::metadata(path)?.uid() != owner.uid() {
            chown(path, Some(owner.uid()), Some(owner.gid()))?;
        }
    }
    fs::rename(&unfinished, inbox.join(name))?;
    fs::File::open(&inbox)?.sync_all()
}

/// The broker's side: takes what lies there into the journal, each record once. What cannot be taken stays; it holds up
/// nothing else.
pub(super) struct Inbox {
    journal: Journal,
    journal_dir: PathBuf,
    /// Records that are in the journal, or were and are delivered, and whose files could not be removed yet.
    taken: BTreeSet<String>,
}

impl Inbox {
    pub(super) fn new(journal: Journal, journal_dir: PathBuf) -> Self {
        Self { journal, journal_dir, taken: BTreeSet::new() }
    }

    pub(super) async fn take(&mut self) {
        let inbox = self.journal_dir.join(INBOX);
        let explain = |error: io::Error| {
            tracing::warn!(%error, dir = %inbox.display(), "a record that key-broker audit left cannot be taken into the journal: it stays");
        };
        for path in waiting(&inbox).map_err(explain).unwrap_or_default() {
            if let Err(error) = self.take_one(&path).await {
                explain(error);
            }
        }
    }

    async fn take_one(&mut self, path: &Path) -> io::Result<()> {
        let record = fs::read(path)?;
        let Some(event_id) = event_id(&record) else {
            tracing::warn!(file = %path.display(), "not a record: moved aside");
            return fs::rename(path, path.with_extension("refused"));
        };
        // A crash between the commit and the removal leaves it here a second time.
        if !self.taken.contains(&event_id) && !is_in(&self.journal_dir, event_id.as_bytes())? {
            let committed = self.journal.append(record).end().await;
            committed.map_err(|_| io::Error::other("the journal cannot commit"))?;
        }
        self.taken.insert(event_id.clone());
        fs::remove_file(path)?;
        self.taken.remove(&event_id);
        Ok(())
    }
}

fn waiting(inbox: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(inbox) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| path.to_string_lossy().ends_with(RECORD));
    paths.sort();
    Ok(paths)
}

/// The eventID of one line that is a KMS record.
fn event_id(record: &[u8]) -> Option<String> {
    if record.len() > MAX_RECORD_BYTES || memchr::memchr(b'\n', record)? != record.len() - 1 {
        return None;
    }
    let record = ReadRecord::parse(std::str::from_utf8(record).ok()?).ok()?;
    let event_id = lower_case_uuid(&record.event_id)?;
    record.is_of_kms().then(|| event_id.to_string())
}

/// Whether a file of the journal has this text.
pub(super) fn is_in(journal_dir: &Path, text: &[u8]) -> io::Result<bool> {
    let finder = memchr::memmem::Finder::new(text);
    for file in files(journal_dir)? {
        if finder.find(&fs::read(&file.path)?).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

const INBOX: &str = "inbox";
const RECORD: &str = ".record";
/// CloudTrail: a record has 256 KB at most.
const MAX_RECORD_BYTES: usize = 256 << 10;
