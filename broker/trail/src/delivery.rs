//! Delivery: the journal's records become log files in a store, and digests say what was delivered.
//!
//! A closed segment of the journal becomes exactly one log file. Its key and, except for the encryption, its bytes follow from its
//! contents, so an interrupted delivery can be repeated. A delivery is noted in `trail.json` before the segment is removed; a digest's
//! end and contents are noted before it is signed. So whenever the broker stops, every record ends up in exactly one log file, and
//! every log file in exactly one digest.
//!
//! No call waits for delivery. While a store is down, records stay in the journal, which refuses calls at its bound.

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

/// The configuration of a trail.
#[derive(Debug, Clone)]
pub struct TrailConfig {
    /// The beginning of its name, to which each journal adds an id of its own.
    pub name: String,
    /// Where log files and digests go.
    pub store: StoreConfig,
    /// The prefix before `AWSLogs/` in every key, possibly empty.
    pub prefix: String,
    /// How often log files are delivered.
    pub delivery_interval: Duration,
    /// How often digests are delivered.
    pub digest_interval: Duration,
    /// The KMS key under which log files are encrypted.
    pub kms_key: Option<KeyId>,
    /// The signing key for digests.
    pub signing: SigningConfig,
}

/// The signing key for digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SigningConfig {
    /// An RSA key of KMS.
    Kms(KeyId),
    /// An RSA private key in a PEM file.
    File(PathBuf),
}

/// Delivers the records of one journal.
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
    /// When the next digest is due by the monotonic clock.
    next_digest: Instant,
    state: State,
    /// [`Journal::asked_by_others`] at the last delivery.
    delivered_of_others: Option<u64>,
    /// The state after a log file that is in the store but could not be noted yet.
    unnoted: Option<State>,
    /// At the end, when store and KMS must be done. Work on the disk is not cut off, since it would go on beside what follows.
    deadline: Option<Instant>,
    newest_digest: watch::Sender<Option<NewestDigest>>,
    /// Receives requests to deliver now, each with a channel for the result. Dropped when the broker ends, which delivers anyway.
    pub flush_orders: mpsc::Sender<FlushOrder>,
    flushes: mpsc::Receiver<FlushOrder>,
}

/// The newest digest, whose signature should be kept out of reach of anybody who can delete the digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewestDigest {
    /// Its bucket and key.
    pub object: String,
    /// Its signature, in hex.
    pub signature: String,
    /// Its end: later deliveries are not in any digest yet.
    pub end: OffsetDateTime,
}

impl Trail {
    /// Watches the newest delivered digest.
    #[must_use]
    pub fn newest_digest(&self) -> watch::Receiver<Option<NewestDigest>> {
        self.newest_digest.subscribe()
    }

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
        // Notices are saved as reported before their records leave the journal, so that they are not reported again.
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

    /// Delivers one file of the journal, and returns whether that made a log file. `None` if its end is unknown, since no later file has
    /// begun.
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
        // When this is tried again, the journal's file may be gone.
        self.unnoted = Some(state);
        self.note_again().await?;
        self.remove(file).await?;
        tracing::info!(object = key, records, "log file delivered");
        Ok(())
    }

    /// Stores a log file under its name or, if another object has that, under the name of a later minute. Returns the name, and the
    /// requestID of its data key.
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

    /// Encrypts and stores a log file. Its hash is noted first, since a later process could not make the same bytes to recognize it by.
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

    /// Reads a file of the journal. What does not fit the hash chain is cut off and kept as evidence; the rest is delivered.
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

    /// Checks that the open segment begins where delivery has ended. This reveals a removed segment even if no later one is delivered.
    async fn account_for(&mut self, open: &SegmentFile) -> Result<(), TrailError> {
        let path = open.path.clone();
        // It may have been closed meanwhile, and another one begun: the next delivery sees that.
        let Some(before) = on_disk(move || Ok(begins_after(&path))).await? else { return Ok(()) };
        if self.state.delivered == Some(before) {
            return Ok(());
        }
        self.tell_missing(before).await?;
        let mut state = self.state.clone();
        state.delivered = Some(before);
        self.note(state).await
    }

    /// Unless delivery has ended at this place, adds a notice that the records in between are missing. It is durable, and added once
    /// however often delivery is tried.
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
            // Already removed by somebody else; it is delivered.
            let Some(metadata) = found(std::fs::metadata(&path))? else { return Ok(0) };
            found(std::fs::remove_file(&path))?;
            Ok(metadata.len())
        });
        self.journal.undelivered().remove(number, bytes.await?);
        Ok(())
    }

    /// Fails if another broker has taken the journal's directory, and so the trail: then nothing more is delivered.
    async fn keep_hold(&self) -> Result<(), TrailError> {
        let hold = Arc::clone(self.journal.hold());
        on_disk(move || Ok(hold.keep()?)).await
    }

    /// Does work that may be cut off at the deadline, since it can be repeated.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, TrailError>>) -> Result<T, TrailError> {
        within(self.rest(), work).await
    }

    /// The time left for store and KMS, if it is limited.
    fn rest(&self) -> Option<Duration> {
        Some(self.deadline?.saturating_duration_since(self.clock.instant()))
    }

    /// Saves the state, which counts only then: nothing is removed before a crash could no longer make the broker forget its delivery.
    async fn note(&mut self, state: State) -> Result<(), TrailError> {
        let (hold, notices) = (Arc::clone(self.journal.hold()), Arc::clone(self.journal.notices()));
        self.state = on_disk(move || {
            hold.keep()?;
            // Notices first: if the directory was removed, the state must not come back without the notices of what is missing.
            notices.save()?;
            state.save(hold.dir())?;
            Ok(state)
        })
        .await?;
        Ok(())
    }

    /// Saves that a log file is in the store, if an earlier attempt failed.
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

/// Does work on files, on a thread that may block.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TrailError> + Send + 'static,
) -> Result<T, TrailError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(TrailError::Io(io::Error::other("the work on the disk was cut off"))))
}

fn whole_second(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(0).unwrap_or(at)
}

/// This many other objects under unguessable names are an attack that people must investigate.
const MOST_TAKEN_NAMES: i64 = 4;
/// With this many log files, of about 550 bytes each, a digest is made early.
pub(crate) const MAX_LOG_FILES: usize = 1_000;
/// The spans of a delivery, each in a trace of its own.
pub const SPANS: [&str; 2] = [DELIVER_SPAN, DIGEST_SPAN];
/// The span of delivering a log file.
const DELIVER_SPAN: &str = "audit.deliver";
/// The span of signing and delivering a digest.
const DIGEST_SPAN: &str = "audit.digest";
/// The digest's signature, in hex, as `audit verify` takes it.
const DIGEST_SIGNATURE: &str = "keybroker.audit.digest_signature";
