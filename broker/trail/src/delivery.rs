//! The trail: the journal's records are delivered as log files, and digests say what was delivered.
//!
//! A closed segment of the journal becomes exactly one log file. Its key and, except for the encryption, its bytes follow from its
//! content, so an interrupted delivery can be repeated. A delivery is noted in `trail.json` before the segment is removed; a digest's
//! end and contents are noted before it is signed. So every record is in exactly one log file, and every log file in exactly one
//! digest, whatever stops the broker and when.
//!
//! Nothing here holds up a call. A store that is down leaves records in the journal, which refuses calls at its bound.

mod digests;
mod encryption;
mod error;
mod finish;
mod jitter;
mod placement;
mod reading;
mod schedule;
mod setup;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use key_broker_core::KeyId;
use key_broker_core::clock::Clock;
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use tracing::field::Empty;
use tracing::{Instrument as _, info_span, record_all};

use super::announcer::Announcer;
use super::digest::{ChainSpan, HASH_ALGORITHM, LogFile, sha256_hex};
use super::journal::hash_chain::Link;
use super::journal::segment_reader::Cut;
use super::journal::{Journal, SegmentFile, damaged_name, files};
use super::log_file::LogFileContents;
use super::names::TrailNames;
use super::signature::Signer;
use super::state::{EncryptedFile, State};
use super::store::directory::found;
use super::store::{Object, Store};
use encryption::Encryption;
pub(crate) use error::TrailError;
use reading::{Reading, begins_after, oldest_place, read};
use schedule::FlushOrder;
pub use setup::{SetupError, StoreConfig, TrailParts, check_state, names, probe, public_key_of};

/// How a trail is to be.
#[derive(Debug, Clone)]
pub struct TrailConfig {
    /// What its name begins with: each journal adds its own id.
    pub name: String,
    /// Where to.
    pub store: StoreConfig,
    /// What stands before `AWSLogs/` in every key; empty for nothing.
    pub prefix: String,
    /// How often log files are delivered.
    pub delivery_interval: Duration,
    /// How often digests are.
    pub digest_interval: Duration,
    /// The KMS key under which log files are encrypted.
    pub kms_key: Option<KeyId>,
    /// Who signs digests.
    pub signing: SigningConfig,
}

/// Who signs digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SigningConfig {
    /// An RSA key of KMS.
    Kms(KeyId),
    /// An RSA private key in a PEM file.
    File(PathBuf),
}

/// Delivers one journal.
pub struct Trail {
    names: TrailNames,
    store: Arc<dyn Store>,
    journal: Journal,
    journal_dir: PathBuf,
    announcer: Announcer,
    signer: Signer,
    encryption: Option<Encryption>,
    clock: Arc<dyn Clock>,
    delivery_interval: Duration,
    digest_interval: Duration,
    /// When the next digest is due, whatever the time of day is said to be.
    next_digest: Instant,
    state: State,
    /// What others than the trail had had written when the journal was delivered last: see [`Journal::asked_by_others`].
    delivered_of_others: Option<u64>,
    /// A log file is in the store, and that could not be noted yet.
    unnoted: Option<State>,
    /// Until when store and KMS may take, at the end: work on the disk is not cut off, since it would go on beside the next.
    deadline: Option<Instant>,
    newest_digest: watch::Sender<Option<NewestDigest>>,
    /// Receives requests to deliver now, each with a channel for the result. Dropped when the broker ends, which delivers, too.
    pub flush_orders: mpsc::Sender<FlushOrder>,
    flushes: mpsc::Receiver<FlushOrder>,
}

/// The newest digest, to be kept out of reach of anybody who can delete it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewestDigest {
    /// Its bucket and key.
    pub object: String,
    /// Its signature, in hex.
    pub signature: String,
    /// Its end: later deliveries are in no digest yet.
    pub end: OffsetDateTime,
}

impl Trail {
    /// The newest digest that was delivered, now and from now on.
    #[must_use]
    pub fn newest_digest(&self) -> watch::Receiver<Option<NewestDigest>> {
        self.newest_digest.subscribe()
    }

    /// What the trail is called.
    #[must_use]
    pub(crate) fn names(&self) -> &TrailNames {
        &self.names
    }

    /// Delivers every record that is in the journal now. Returns the number of log files.
    pub(crate) async fn deliver(&mut self) -> Result<usize, TrailError> {
        let journal = self.journal.clone();
        let rotated = async {
            journal.rotate().await;
            Ok(())
        };
        self.in_time(rotated).await?;
        self.keep_hold().await?;
        // A report is noted as made before its record leaves the journal, so that it is not repeated.
        let notices = Arc::clone(self.journal.notices());
        on_disk(move || Ok(notices.save()?)).await?;
        self.note_again().await?;
        let mut delivered = 0;
        let dir = self.journal_dir.clone();
        let files = on_disk(move || Ok(files(&dir)?)).await?;
        for (place, file) in files.iter().enumerate() {
            let Some(closed_at) = file.closed_at else {
                self.account_for(file).await?;
                continue;
            };
            let later = files[place + 1..].iter().map(|file| file.path.clone()).collect();
            match self.deliver_file(file, closed_at, later).await? {
                Some(has_records) => delivered += usize::from(has_records),
                None => break,
            }
            if self.state.sealed.is_none() && self.state.log_files.len() >= MAX_LOG_FILES {
                self.digest().await?;
            }
        }
        Ok(delivered)
    }

    /// Delivers one file of the journal. True if that made a log file; none if it is not known yet where it ends, since no
    /// later file has begun.
    async fn deliver_file(
        &mut self,
        file: &SegmentFile,
        closed_at: OffsetDateTime,
        later: Vec<PathBuf>,
    ) -> Result<Option<bool>, TrailError> {
        let contents = match self.read(file, later).await? {
            Reading::NotYet => return Ok(None),
            Reading::Nothing => None,
            Reading::Contents(contents) => {
                Some(contents).filter(|contents| self.state.delivered != Some(contents.end))
            }
        };
        let Some(contents) = contents else {
            self.remove(file).await?;
            return Ok(Some(false));
        };
        let span = info_span!(parent: None, DELIVER_SPAN, "error.type" = Empty, otel.status_code = Empty);
        let delivered = self.put_log_file(file, closed_at, contents).instrument(span.clone()).await;
        if delivered.is_err() {
            record_all!(span, "error.type" = "_OTHER", otel.status_code = "ERROR");
        }
        delivered?;
        Ok(Some(true))
    }

    async fn put_log_file(
        &mut self,
        file: &SegmentFile,
        closed_at: OffsetDateTime,
        contents: LogFileContents,
    ) -> Result<(), TrailError> {
        self.tell_missing(contents.before).await?;
        let LogFileContents { bytes, hash, oldest, newest, before, end, records } = contents;
        let (key, data_key_request_id) = self.put_free(closed_at, &end.hash, &bytes, &hash).await?;
        let mut state = self.state.clone();
        state.log_files.push(LogFile {
            s3_bucket: self.names.bucket.clone(),
            s3_object: key.clone(),
            hash_value: hash,
            hash_algorithm: HASH_ALGORITHM.into(),
            newest_event_time: newest,
            oldest_event_time: oldest,
            journal_chain: Some(ChainSpan::new(&before, &end)),
            data_key_request_id,
        });
        (state.delivered, state.storing) = (Some(end), None);
        // The file of the journal may be gone when it is tried again.
        self.unnoted = Some(state);
        self.note_again().await?;
        self.remove(file).await?;
        tracing::info!(object = key, records, "log file delivered");
        Ok(())
    }

    /// Puts a log file under its name or, where somebody else's object has that, under the next minute's. Returns the name, and the requestID
    /// of its data key.
    async fn put_free(
        &mut self,
        closed_at: OffsetDateTime,
        end: &[u8; 32],
        bytes: &[u8],
        hash: &str,
    ) -> Result<(String, Option<String>), TrailError> {
        let mut taken = None;
        for minutes in 0..MOST_TAKEN_NAMES {
            let key = self.names.log_file(closed_at + time::Duration::minutes(minutes), end);
            self.keep_hold().await?;
            let put = if self.encryption.is_some() {
                self.put_encrypted(&key, bytes.to_vec()).await
            } else {
                let object = Object { key: key.clone(), bytes: bytes.to_vec(), metadata: BTreeMap::new() };
                self.put(object, Some(hash)).await.map(|()| None)
            };
            match put {
                Ok(data_key_request_id) => return Ok((key, data_key_request_id)),
                Err(occupied @ TrailError::Occupied(_)) => taken = Some(occupied),
                Err(error) => return Err(error),
            }
        }
        Err(taken.unwrap_or(TrailError::Late))
    }

    /// Encrypts a log file and puts it. Its hash is noted before: no later process could make the same bytes, and know what it finds there.
    /// Returns the requestID of its data key.
    async fn put_encrypted(&mut self, key: &str, bytes: Vec<u8>) -> Result<Option<String>, TrailError> {
        if let Some(stored) = self.state.storing.clone().filter(|storing| storing.object == key)
            && self.is_stored(key, &stored.sha256).await?
        {
            self.forget_encrypted();
            return Ok(stored.data_key_request_id);
        }
        let rest = self.rest();
        let Some(encryption) = &mut self.encryption else { return Ok(None) };
        let encrypted = encryption.encrypt(&self.names, key, bytes);
        let encrypted = within(rest, async { encrypted.await.map_err(TrailError::Key) }).await?;
        let (sha256, data_key_request_id) = (sha256_hex(&encrypted.bytes), encrypted.data_key_request_id);
        let storing = EncryptedFile { object: key.to_owned(), sha256, data_key_request_id };
        let data_key_request_id = storing.data_key_request_id.clone();
        let mut state = self.state.clone();
        state.storing = Some(storing);
        self.note(state).await?;
        let object = Object { key: key.to_owned(), bytes: encrypted.bytes, metadata: BTreeMap::new() };
        self.put(object, None).await?;
        self.forget_encrypted();
        Ok(data_key_request_id)
    }

    fn forget_encrypted(&mut self) {
        if let Some(encryption) = &mut self.encryption {
            encryption.end();
        }
    }

    /// Reads a file of the journal. What does not fit its chain is cut off and kept as evidence; the rest is delivered.
    async fn read(&self, file: &SegmentFile, later: Vec<PathBuf>) -> Result<Reading, TrailError> {
        let path = file.path.clone();
        let (number, evidence) = (file.number, self.journal_dir.join(damaged_name(file.number)));
        let notices = Arc::clone(self.journal.notices());
        let hold = Arc::clone(self.journal.hold());
        on_disk(move || {
            hold.keep()?;
            let note = |cut: &Cut| {
                notices.tell_cut(number, cut)?;
                tracing::error!(file = %path.display(), ?cut, "a journal segment was changed: what fits its hash chain is delivered, the rest is kept as evidence");
                Ok(())
            };
            let reading = read(&path, &later, &evidence, &note)?;
            notices.is_whole(number);
            Ok(reading)
        })
        .await
    }

    /// The open segment begins where delivery has ended, or records between them are gone: this reveals a removed segment
    /// also where no later one is delivered.
    async fn account_for(&mut self, open: &SegmentFile) -> Result<(), TrailError> {
        let path = open.path.clone();
        // It may have been closed meanwhile, and another one begun: the next delivery shows.
        let Some(before) = on_disk(move || Ok(begins_after(&path))).await? else { return Ok(()) };
        if self.state.delivered == Some(before) {
            return Ok(());
        }
        self.tell_missing(before).await?;
        let mut state = self.state.clone();
        state.delivered = Some(before);
        self.note(state).await
    }

    /// Records between what was delivered and this place are gone, if delivery has not ended there: that is to be seen in the trail,
    /// whatever happens to this process, and once however often the delivery is tried.
    async fn tell_missing(&self, before: Link) -> Result<(), TrailError> {
        let Some(delivered) = self.state.delivered.filter(|delivered| *delivered != before) else {
            return Ok(());
        };
        let missing_records = before.sequence.saturating_sub(delivered.sequence).max(1);
        let notices = Arc::clone(self.journal.notices());
        on_disk(move || Ok(notices.tell_missing(before, missing_records)?)).await?;
        tracing::error!(missing_records, "journal segments were removed before they were delivered");
        Ok(())
    }

    async fn remove(&self, file: &SegmentFile) -> Result<(), TrailError> {
        let (number, path) = (file.number, file.path.clone());
        let hold = Arc::clone(self.journal.hold());
        let bytes = on_disk(move || {
            hold.keep()?;
            // Somebody else may have been faster: it is delivered, and gone.
            let Some(metadata) = found(std::fs::metadata(&path))? else { return Ok(0) };
            found(std::fs::remove_file(&path))?;
            Ok(metadata.len())
        });
        self.journal.undelivered().remove(number, bytes.await?);
        Ok(())
    }

    /// Another broker may have the journal's directory, and the trail with it: then nothing more is delivered.
    async fn keep_hold(&self) -> Result<(), TrailError> {
        let hold = Arc::clone(self.journal.hold());
        on_disk(move || Ok(hold.keep()?)).await
    }

    /// Work that may be cut off: it is done again over itself.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, TrailError>>) -> Result<T, TrailError> {
        within(self.rest(), work).await
    }

    /// The time that store and KMS may take, if it is limited.
    fn rest(&self) -> Option<Duration> {
        Some(self.deadline?.saturating_duration_since(self.clock.instant()))
    }

    /// Notes how far the trail is. It counts only then: nothing is removed that a crash would forget to have delivered.
    async fn note(&mut self, state: State) -> Result<(), TrailError> {
        let (hold, notices) = (Arc::clone(self.journal.hold()), Arc::clone(self.journal.notices()));
        self.state = on_disk(move || {
            hold.keep()?;
            // First: where the directory was removed, how far the trail is does not come back without what it lacks.
            notices.save()?;
            state.save(hold.dir())?;
            Ok(state)
        })
        .await?;
        Ok(())
    }

    /// Notes that a log file is in the store: now or, if that fails, before anything else.
    async fn note_again(&mut self) -> Result<(), TrailError> {
        let Some(state) = self.unnoted.clone() else { return Ok(()) };
        self.note(state).await?;
        self.unnoted = None;
        Ok(())
    }
}

async fn within<T>(
    rest: Option<Duration>,
    work: impl Future<Output = Result<T, TrailError>>,
) -> Result<T, TrailError> {
    let Some(rest) = rest else { return work.await };
    tokio::time::timeout(rest, work).await.unwrap_or(Err(TrailError::Late))
}

/// Work on files, where it may block.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TrailError> + Send + 'static,
) -> Result<T, TrailError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(TrailError::Io(io::Error::other("the work on the disk was cut off"))))
}

fn whole_second(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(0).unwrap_or(at)
}

/// That many objects under unguessable names are an attack to be investigated.
const MOST_TAKEN_NAMES: i64 = 4;
/// A digest is made early once there are this many log files: about 550 bytes each.
pub(crate) const MAX_LOG_FILES: usize = 1_000;
/// The spans of a delivery, each of which begins a trace.
pub const SPANS: [&str; 2] = [DELIVER_SPAN, DIGEST_SPAN];
/// The span of a log file's delivery.
const DELIVER_SPAN: &str = "audit.deliver";
/// The span of a digest that is signed and delivered.
const DIGEST_SPAN: &str = "audit.digest";
/// Its signature, in hex: `audit verify` takes it.
const DIGEST_SIGNATURE: &str = "keybroker.audit.digest_signature";
