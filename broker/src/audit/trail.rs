//! The trail: what the journal holds is delivered as log files, and digests say what was delivered.
//!
//! A closed file of the journal becomes exactly one log file. Its key comes from its content, and its bytes but for the
//! encryption, so a delivery that was cut off is done again over itself. What is delivered is noted in `trail.json` before the
//! journal's file is removed; a digest's end and contents are noted before it is signed. So every record is in exactly one log
//! file, and every log file in exactly one digest, whatever stops the broker and when.
//!
//! Nothing here holds up a call. A store that is down leaves records in the journal, which refuses calls at its bound.

mod encryption;
mod schedule;
mod setup;
pub(in crate::audit) mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::watch;
use tracing::field::Empty;
use tracing::{Instrument as _, info_span, record_all};

use super::digest::{
    Digest, HASH_ALGORITHM, LogFile, SIGNATURE_ALGORITHM, SIGNATURE_ALGORITHM_METADATA, SIGNATURE_METADATA,
    sha256_hex,
};
use super::inbox::Inbox;
use super::journal::chain::{Link, parse_header};
use super::journal::segment::{ReadError, repair};
use super::journal::{Journal, Notice, SegmentFile, damaged_name, files};
use super::log_file::{self, LogFileContents};
use super::names::TrailNames;
use super::record::record_time;
use super::signature::Signer;
use super::store::directory::found;
use super::store::{Object, Store, StoreError};
use crate::clock::Clock;
use crate::key::KeyId;
use encryption::Encryption;
pub use encryption::{TRAIL_ARN, object_context, path_context};
pub use setup::{SetupError, StoreConfig, Surroundings, names, open_store, signer_from};
use state::{Previous, Sealed, State};

/// How a trail is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrailConfig {
    /// Its name: one for each broker that delivers into a bucket.
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
    inbox: Inbox,
    signer: Signer,
    encryption: Option<Encryption>,
    clock: Arc<dyn Clock>,
    delivery_interval: Duration,
    digest_interval: Duration,
    state: State,
    /// Records were missing before this place; told already.
    told_missing: Option<Link>,
    newest_digest: watch::Sender<Option<NewestDigest>>,
}

/// The newest digest: to be kept where whoever can delete it cannot reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewestDigest {
    /// Its bucket and key.
    pub object: String,
    /// Its signature, in hex.
    pub signature: String,
    /// Where it ends: what was delivered later is in none yet.
    pub end: OffsetDateTime,
}

/// A delivery that was not done. It is tried again; nothing is lost.
#[derive(Debug)]
pub enum TrailError {
    /// The store cannot take or give an object.
    Store(StoreError),
    /// The journal's directory cannot be read or written.
    Io(std::io::Error),
    /// KMS or the signing key cannot.
    Key(String),
}

impl fmt::Display for TrailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(f, "the trail's store: {error}"),
            Self::Io(error) => write!(f, "the journal's directory: {error}"),
            Self::Key(error) => f.write_str(error),
        }
    }
}

impl std::error::Error for TrailError {}

impl From<StoreError> for TrailError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<std::io::Error> for TrailError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl Trail {
    /// The newest digest that was delivered, now and from now on.
    #[must_use]
    pub fn newest_digest(&self) -> watch::Receiver<Option<NewestDigest>> {
        self.newest_digest.subscribe()
    }

    /// What the trail is called.
    #[must_use]
    pub fn names(&self) -> &TrailNames {
        &self.names
    }

    /// Delivers every record that is in the journal now. Returns the number of log files.
    pub async fn deliver(&mut self) -> Result<usize, TrailError> {
        self.inbox.take().await;
        self.journal.rotate().await;
        let mut delivered = 0;
        let dir = self.journal_dir.clone();
        let files = on_disk(move || Ok(files(&dir)?)).await?;
        for (place, file) in files.iter().enumerate() {
            let Some(closed_at) = file.closed_at else { continue };
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
        self.tell_missing(&contents);
        let key = self.names.log_file(closed_at, &contents.end.hash);
        let LogFileContents { bytes, hash, oldest, newest, end, records, .. } = contents;
        let bytes = match &self.encryption {
            Some(encryption) => {
                encryption.encrypt(&self.names, &key, bytes).await.map_err(TrailError::Key)?
            }
            None => bytes,
        };
        self.store.put(Object { key: key.clone(), bytes, metadata: BTreeMap::new() }).await?;
        let mut state = self.state.clone();
        state.log_files.push(LogFile {
            s3_bucket: self.names.bucket.clone(),
            s3_object: key.clone(),
            hash_value: hash,
            hash_algorithm: HASH_ALGORITHM.into(),
            newest_event_time: newest,
            oldest_event_time: oldest,
        });
        state.delivered = Some(end);
        self.note(state).await?;
        self.remove(file).await?;
        tracing::info!(object = key, records, "log file delivered");
        Ok(())
    }

    /// Reads a file of the journal. What does not fit its chain is cut off and kept as evidence; the rest is delivered.
    async fn read(&self, file: &SegmentFile, later: Vec<PathBuf>) -> Result<Reading, TrailError> {
        let path = file.path.clone();
        let evidence = self.journal_dir.join(damaged_name(file.number));
        let (reading, notice) = on_disk(move || read(&path, &later, &evidence)).await?;
        if notice != Notice::default() {
            tracing::error!(file = %file.path.display(), ?notice, "a journal file is not what was written: what fits its chain is delivered, the rest is kept as evidence");
            self.journal.tell(notice);
        }
        Ok(reading)
    }

    /// Records between what was delivered before and this file are gone: that is to be seen in the trail, once however often
    /// the delivery is tried.
    fn tell_missing(&mut self, contents: &LogFileContents) {
        let Some(delivered) = self.state.delivered else { return };
        if contents.before != delivered && self.told_missing != Some(contents.before) {
            let missing_records = contents.before.sequence.saturating_sub(delivered.sequence).max(1);
            tracing::error!(missing_records, "files of the journal were gone before they were delivered");
            self.journal.tell(Notice { missing_records, ..Notice::default() });
            self.told_missing = Some(contents.before);
        }
    }

    async fn remove(&self, file: &SegmentFile) -> Result<(), TrailError> {
        let path = file.path.clone();
        let bytes = on_disk(move || {
            // Somebody else may have been faster: it is delivered, and gone.
            let Some(metadata) = found(std::fs::metadata(&path))? else { return Ok(0) };
            found(std::fs::remove_file(&path))?;
            Ok(metadata.len())
        });
        self.journal.undelivered().remove(bytes.await?);
        Ok(())
    }

    /// Notes how far the trail is. It counts only then: nothing is removed that a crash would forget to have delivered.
    async fn note(&mut self, state: State) -> Result<(), TrailError> {
        let dir = self.journal_dir.clone();
        self.state = on_disk(move || {
            state.save(&dir)?;
            Ok(state)
        })
        .await?;
        Ok(())
    }

    /// Delivers the digest of what was delivered since the one before, or the one whose delivery was cut off.
    pub async fn digest(&mut self) -> Result<(), TrailError> {
        let span = info_span!(
            parent: None,
            DIGEST_SPAN,
            { DIGEST_SIGNATURE } = Empty,
            "error.type" = Empty,
            otel.status_code = Empty
        );
        let delivered = self.put_digest().instrument(span.clone()).await;
        match &delivered {
            Ok(()) => {
                if let Some(newest) = self.newest_digest.borrow().as_ref() {
                    span.record(DIGEST_SIGNATURE, newest.signature.as_str());
                }
            }
            Err(_) => record_all!(span, "error.type" = "_OTHER", otel.status_code = "ERROR"),
        }
        delivered
    }

    async fn put_digest(&mut self) -> Result<(), TrailError> {
        if self.state.sealed.is_none() {
            // Whatever the clock does, digests go forward, one after the other.
            let end = whole_second(self.clock.now()).max(self.state.start + Duration::from_secs(1));
            let mut state = self.state.clone();
            state.sealed = Some(Sealed { end, log_files: std::mem::take(&mut state.log_files) });
            self.note(state).await?;
        }
        let Some(sealed) = self.state.sealed.clone() else { return Ok(()) };
        let digest = self.state.digest(&sealed, &self.names, self.signer.public_key());
        let json = digest.to_json();
        let signature = self.signer.sign(digest.string_to_sign(&json).as_bytes()).await;
        let signature = hex::encode(signature.map_err(|error| TrailError::Key(error.to_string()))?);
        let metadata = BTreeMap::from([
            (SIGNATURE_METADATA.to_owned(), signature.clone()),
            (SIGNATURE_ALGORITHM_METADATA.to_owned(), SIGNATURE_ALGORITHM.to_owned()),
        ]);
        let key = digest.digest_s3_object.clone();
        self.store.put(Object { key, bytes: log_file::compress(&json)?, metadata }).await?;
        let (object, end) = (format!("{}/{}", digest.digest_s3_bucket, digest.digest_s3_object), sealed.end);
        let mut state = self.state.clone();
        state.previous = Some(Previous {
            bucket: digest.digest_s3_bucket,
            object: digest.digest_s3_object,
            hash: sha256_hex(&json),
            signature: signature.clone(),
        });
        (state.start, state.sealed) = (end, None);
        self.note(state).await?;
        let log_files = digest.log_files.len();
        tracing::info!(digest = object, log_files, signature, "digest delivered");
        self.newest_digest.send_replace(Some(NewestDigest { object, signature, end }));
        Ok(())
    }
}

impl State {
    fn newest_digest(&self) -> Option<NewestDigest> {
        let Previous { bucket, object, signature, .. } = self.previous.as_ref()?;
        let object = format!("{bucket}/{object}");
        Some(NewestDigest { object, signature: signature.clone(), end: self.start })
    }

    fn digest(&self, sealed: &Sealed, names: &TrailNames, key: &super::signature::PublicKey) -> Digest {
        let previous = self.previous.as_ref();
        Digest {
            aws_account_id: names.account_id.clone(),
            digest_start_time: record_time(self.start),
            digest_end_time: record_time(sealed.end),
            digest_s3_bucket: names.bucket.clone(),
            digest_s3_object: names.digest(sealed.end),
            digest_public_key_fingerprint: key.fingerprint(),
            digest_signature_algorithm: SIGNATURE_ALGORITHM.into(),
            newest_event_time: sealed.log_files.iter().map(|file| file.newest_event_time.clone()).max(),
            oldest_event_time: sealed.log_files.iter().map(|file| file.oldest_event_time.clone()).min(),
            previous_digest_s3_bucket: previous.map(|previous| previous.bucket.clone()),
            previous_digest_s3_object: previous.map(|previous| previous.object.clone()),
            previous_digest_hash_value: previous.map(|previous| previous.hash.clone()),
            previous_digest_hash_algorithm: previous.map(|_| HASH_ALGORITHM.into()),
            previous_digest_signature: previous.map(|previous| previous.signature.clone()),
            log_files: sealed.log_files.clone(),
        }
    }
}

/// What a file of the journal was found to hold.
enum Reading {
    /// It is not known where it ends.
    NotYet,
    /// No record.
    Nothing,
    /// Records.
    Contents(LogFileContents),
}

impl From<Option<LogFileContents>> for Reading {
    fn from(contents: Option<LogFileContents>) -> Self {
        contents.map_or(Self::Nothing, Self::Contents)
    }
}

/// Makes the log file of the journal's file at `path`, which ends where the next of `later` begins: what a failed commit left
/// behind that is no record. Tells what did not fit.
fn read(path: &Path, later: &[PathBuf], evidence: &Path) -> Result<(Reading, Notice), TrailError> {
    let mut notice = Notice::default();
    let Some(next) = later.iter().find_map(|path| begins_after(path)) else {
        return Ok((Reading::NotYet, notice));
    };
    match log_file::build(path, next.sequence) {
        Ok(contents) => return Ok((contents.into(), notice)),
        Err(ReadError::Io(error)) => return Err(error.into()),
        Err(ReadError::Flaw(_)) => {}
    }
    let Some(contents) = repair(path, evidence)? else {
        // Not even the header fits.
        notice.damaged_bytes = std::fs::metadata(path)?.len();
        std::fs::copy(path, evidence)?;
        std::fs::write(path, b"")?;
        return Ok((Reading::Nothing, notice));
    };
    if let Some(cut) = contents.cut {
        notice.add_cut(cut.flaw, cut.bytes);
    }
    match log_file::build(path, next.sequence) {
        Ok(contents) => Ok((contents.into(), notice)),
        Err(ReadError::Io(error)) => Err(error.into()),
        Err(ReadError::Flaw(_)) => Ok((Reading::Nothing, notice)),
    }
}

/// The last record before a file of the journal, as its header says.
fn begins_after(path: &Path) -> Option<Link> {
    use std::io::BufRead as _;
    let mut line = Vec::new();
    std::io::BufReader::new(std::fs::File::open(path).ok()?).read_until(b'\n', &mut line).ok()?;
    parse_header(line.strip_suffix(b"\n")?).map(|(_, before)| before)
}

/// Work on files, where it may block.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TrailError> + Send + 'static,
) -> Result<T, TrailError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(TrailError::Io(std::io::Error::other("the work on the disk was cut off"))))
}

fn whole_second(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(0).unwrap_or(at)
}

/// A digest of so many log files is made before its time: some 300 bytes each.
const MAX_LOG_FILES: usize = 1_000;
/// The span of a log file's delivery. It begins a trace.
pub const DELIVER_SPAN: &str = "audit.deliver";
/// The span of a digest that is signed and delivered. It begins a trace.
pub const DIGEST_SPAN: &str = "audit.digest";
/// Its signature, in hex: `audit verify` takes it.
const DIGEST_SIGNATURE: &str = "keybroker.audit.digest_signature";
