//! Which log files of a trail can be trusted: those named by a digest that a given key has signed, or by the broker's own notes for the next
//! digest. Others may have been put there by anybody who can write to the store.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

use time::{Duration, OffsetDateTime};

use crate::digest::{Digest, LogFile, Position, sha256_hex};
use crate::reader::{DigestFile, DigestKey, DigestKeys, ReadFailure, TrailReader, digests_by_trail};
use crate::record::parse_record_time;
use crate::signature::PublicKey;
use crate::state::State;

/// The log files of a trail that can have records of some time.
#[derive(Debug, Default)]
pub struct LogFiles {
    /// Log files that are vouched for, in order.
    pub vouched: Vec<VouchedLogFile>,
    /// Log files that nobody vouches for, each with the reason.
    pub unvouched: Vec<(String, &'static str)>,
    /// The number of log files in other trails' digests.
    pub of_others: u64,
    /// The requestIDs of the signatures of closing digests, whose records no log file can have. They are not signed themselves.
    pub closing_signs: HashSet<String>,
    /// The requestIDs of the data keys of log files: the last one's record is in none.
    pub data_keys: HashSet<String>,
    /// How many records of the journal are delivered, as its broker has noted.
    pub delivered: u64,
}

/// A log file whose name and hash are vouched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VouchedLogFile {
    /// Whether a signed digest names it, and not only the broker's notes for the next one.
    pub is_signed: bool,
    /// When its oldest and its newest record happened.
    pub times: [Option<OffsetDateTime>; 2],
    /// The trail to which it belongs.
    pub trail: Arc<str>,
    file: LogFile,
}

impl VouchedLogFile {
    /// A log file in a signed digest of this trail.
    pub(crate) fn signed(file: LogFile, trail: &Arc<str>) -> Self {
        Self { is_signed: true, times: times_of(&file), file, trail: Arc::clone(trail) }
    }

    /// Whether the records of `next` follow these, as far as their places in the journal's chain are known.
    pub(crate) fn is_before(&self, next: &LogFile) -> bool {
        let own = self.file.journal_chain.as_ref();
        own.zip(next.journal_chain.as_ref())
            .is_none_or(|(own, next)| own.last_sequence.checked_add(1) == Some(next.first_sequence))
    }

    /// Its key in the bucket.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.file.s3_object
    }

    /// Its text, if it has the hash that is vouched for.
    pub async fn read(&self, reader: &TrailReader) -> Result<Vec<u8>, ReadFailure> {
        let Some(text) = reader.of(&self.trail).log_file(self.key()).await? else {
            return Err(ReadFailure::Malformed("it is not in the store".into()));
        };
        if sha256_hex(&text) == self.file.hash_value {
            Ok(text)
        } else {
            Err(ReadFailure::Malformed("its hash is not the one in its digest".into()))
        }
    }
}

impl LogFiles {
    /// The log files that can have records from `since` until `until`, of the trail of `reader`, or of all trails named `called` (`*` matches
    /// anything). They are vouched for by digests that `keys` have signed, and by the broker's own notes for its next digest, if
    /// `journal_dir` can be read.
    pub async fn of(
        reader: &TrailReader,
        called: Option<&str>,
        keys: &[PublicKey],
        journal_dir: Option<&Path>,
        (since, until): (Option<OffsetDateTime>, Option<OffsetDateTime>),
    ) -> Result<Self, ReadFailure> {
        // Listed before the digests, so that what is delivered meanwhile is in neither list.
        let listed = reader.log_file_keys().await?;
        let ((trails, others), noted) = digests_and_notes(reader, called, journal_dir).await?;
        let trail: Arc<str> = reader.names().trail.as_str().into();
        let mut found = Found { since, until, files: Self::default(), named: HashSet::new(), trail };
        for (trail, digests) in &trails {
            found.trail = trail.as_str().into();
            for digest in digests {
                let Some(file) = read(reader, &digest.key).await? else { continue };
                let is_believed = file.digest.digest_s3_object == digest.key && file.is_signed(keys);
                if is_believed {
                    found.add_calls(&file);
                }
                found.add_digest(file.digest, is_believed);
            }
        }
        if let Some(state) = noted {
            found.add_waiting(state);
        }
        if called.is_some_and(|called| called != "*") {
            // Log files may belong to trails that were not read.
            return Ok(found.files);
        }
        let strangers: BTreeSet<String> =
            listed.into_iter().filter(|key| found.is_stranger(reader, key)).collect();
        found.judge_strangers(reader, &others, strangers).await
    }
}

impl LogFiles {
    /// The log files in the digests of the trail of `reader`, without looking at the rest of its folder.
    pub async fn named(
        reader: &TrailReader,
        keys: &[PublicKey],
        (since, until): (Option<OffsetDateTime>, Option<OffsetDateTime>),
    ) -> Result<Self, ReadFailure> {
        let trail: Arc<str> = reader.names().trail.as_str().into();
        let mut found = Found { since, until, files: Self::default(), named: HashSet::new(), trail };
        for digest in &reader.digest_keys().await?.own {
            let Some(file) = read(reader, &digest.key).await? else { continue };
            let is_believed = file.digest.digest_s3_object == digest.key && file.is_signed(keys);
            if is_believed {
                found.add_calls(&file);
            }
            found.add_digest(file.digest, is_believed);
        }
        Ok(found.files)
    }
}

struct Found {
    since: Option<OffsetDateTime>,
    until: Option<OffsetDateTime>,
    files: LogFiles,
    named: HashSet<String>,
    /// The trail that is being read.
    trail: Arc<str>,
}

impl Found {
    fn add_calls(&mut self, file: &DigestFile) {
        let own = file.digest.key_broker.as_ref();
        if own.is_some_and(|own| own.position == Some(Position::Closing)) {
            self.files.closing_signs.extend(file.kms_request_id.clone());
        }
        let data_keys =
            file.digest.log_files.iter().filter_map(|log_file| log_file.data_key_request_id.clone());
        self.files.data_keys.extend(data_keys);
    }

    fn add_digest(&mut self, digest: Digest, is_believed: bool) {
        for file in digest.log_files {
            if is_believed {
                self.vouch(file, true);
            } else if self.may_hold(&file) && self.named.insert(file.s3_object.clone()) {
                let why = "its digest is not signed with a key that was given";
                self.files.unvouched.push((file.s3_object, why));
            }
        }
    }

    fn vouch(&mut self, file: LogFile, is_signed: bool) {
        if self.named.insert(file.s3_object.clone()) && self.may_hold(&file) {
            let (trail, times) = (Arc::clone(&self.trail), times_of(&file));
            self.files.vouched.push(VouchedLogFile { is_signed, times, trail, file });
        }
    }

    /// Adds what a broker has delivered since its last digest, by its own notes.
    fn add_waiting(&mut self, state: State) {
        self.trail = state.trail.into();
        self.files.delivered = state.delivered.map_or(0, |link| link.sequence);
        let sealed = state.sealed.map(|sealed| sealed.log_files).unwrap_or_default();
        for file in sealed.into_iter().chain(state.log_files) {
            self.vouch(file, false);
        }
    }

    fn may_hold(&self, file: &LogFile) -> bool {
        let [oldest, newest] = times_of(file);
        let starts_before_end = oldest.zip(self.until).is_none_or(|(oldest, until)| oldest < until);
        let ends_after_start = newest.zip(self.since).is_none_or(|(newest, since)| newest >= since);
        starts_before_end && ends_after_start
    }

    /// Whether it is in no digest of this trail, and can have records of the time according to its name. Programs that read the folder also
    /// read objects that are no log files.
    fn is_stranger(&self, reader: &TrailReader, key: &str) -> bool {
        let is_in_time = |closed: OffsetDateTime| {
            self.since.is_none_or(|since| closed + Duration::MINUTE > since)
                && self.until.is_none_or(|until| closed <= until + LONGEST_FILE)
        };
        let is_json = [".json", ".json.gz"].iter().any(|end| key.ends_with(end));
        !self.named.contains(key) && reader.names().log_file_minute(key).map_or(is_json, is_in_time)
    }

    async fn judge_strangers(
        mut self,
        reader: &TrailReader,
        others: &[String],
        mut strangers: BTreeSet<String>,
    ) -> Result<LogFiles, ReadFailure> {
        for key in others {
            if strangers.is_empty() {
                break;
            }
            let Some(file) = read(reader, key).await? else { continue };
            // Whoever signed the digest: this can only exclude files that this trail's own digests do not name.
            for log_file in &file.digest.log_files {
                self.files.of_others += u64::from(strangers.remove(&log_file.s3_object));
            }
        }
        self.files.unvouched.extend(strangers.into_iter().map(|key| (key, "no digest names it")));
        Ok(self.files)
    }
}

/// The digests of each trail, those of others, and the broker's notes for its next digest, read without a digest being made in between:
/// so a log file that moves from the notes to a digest is not missed.
async fn digests_and_notes(
    reader: &TrailReader,
    called: Option<&str>,
    journal_dir: Option<&Path>,
) -> Result<(DigestLists, Option<State>), ReadFailure> {
    let load = || journal_dir.and_then(|dir| State::load(dir).ok().flatten());
    let start = |state: &Option<State>| state.as_ref().map(|state| state.start);
    let mut before = start(&load());
    for _ in 1..TRIES {
        let listed = list_digests(reader, called).await?;
        let noted = load();
        if start(&noted) == before {
            return Ok((listed, noted));
        }
        before = start(&noted);
    }
    Ok((list_digests(reader, called).await?, load()))
}

/// The digests of each trail, and the keys of other trails' digests.
type DigestLists = (BTreeMap<String, Vec<DigestKey>>, Vec<String>);

async fn list_digests(reader: &TrailReader, called: Option<&str>) -> Result<DigestLists, ReadFailure> {
    if let Some(called) = called {
        return Ok(digests_by_trail(reader, called).await?);
    }
    let DigestKeys { own, others } = reader.digest_keys().await?;
    Ok((BTreeMap::from([(reader.names().trail.clone(), own)]), others))
}

/// In practice a broker makes at most one digest a minute.
const TRIES: usize = 5;

/// When the oldest and the newest record of a log file happened, as its digest says.
fn times_of(file: &LogFile) -> [Option<OffsetDateTime>; 2] {
    [&file.oldest_event_time, &file.newest_event_time].map(|time| parse_record_time(time))
}

/// A digest; `None` if it is gone, or the object is not one.
async fn read(reader: &TrailReader, key: &str) -> Result<Option<DigestFile>, ReadFailure> {
    match reader.digest_file(key).await {
        Err(ReadFailure::Malformed(_)) => Ok(None),
        read => read,
    }
}

/// The longest time that the records of a log file can span.
const LONGEST_FILE: Duration = Duration::HOUR;

#[cfg(test)]
mod tests {
    //! Only what a signed digest names is believed, and only if it is what the digest says; everything else is listed.

    use super::*;
    use crate::names::TrailNames;
    use crate::store::{Object, Store, StoreError};
    use crate::verify::forge::{Forge, MemoryStore, START, names, signer};

    async fn found(
        store: &MemoryStore,
        minutes: (Option<i64>, Option<i64>),
    ) -> (Vec<String>, Vec<&'static str>, u64) {
        let reader = TrailReader::new(Arc::new(store.copy()), names(), None);
        let at = |minutes: i64| START + Duration::minutes(minutes);
        let keys = [signer().public_key().clone()];
        let files = LogFiles::of(&reader, None, &keys, None, (minutes.0.map(at), minutes.1.map(at))).await;
        let LogFiles { vouched, unvouched, of_others, .. } = files.expect("lists");
        let mut read = Vec::new();
        for file in vouched {
            if file.read(&reader).await.is_ok() {
                read.push(file.key().to_owned());
            }
        }
        (read, unvouched.into_iter().map(|(_, why)| why).collect(), of_others)
    }

    fn plant(store: &MemoryStore, key: &str) {
        store.insert(key, b"{\"Records\":[]}", BTreeMap::new());
    }

    #[tokio::test]
    async fn what_a_signed_digest_names_is_believed_as_long_as_it_is_that() {
        let store = Forge::sound().store().await;
        let (all, unvouched, _) = found(&store, (None, None)).await;
        assert_eq!((all.len(), unvouched.len()), (3, 0));
        assert_eq!(found(&store, (Some(100), None)).await.0, all[2..]);
        assert_eq!(found(&store, (None, Some(100))).await.0, all[..2]);
        plant(&store, &all[1]);
        assert_eq!(found(&store, (None, None)).await.0, [all[0].clone(), all[2].clone()], "one was changed");
    }

    /// A store in whose bucket the newest digest appears once somebody has listed it without.
    struct DigestedMeanwhile {
        store: MemoryStore,
        newest: String,
        dir: std::path::PathBuf,
        after: State,
        was_listed: std::sync::atomic::AtomicBool,
    }

    #[async_trait::async_trait]
    impl Store for DigestedMeanwhile {
        async fn put(&self, object: Object) -> Result<bool, StoreError> {
            self.store.put(object).await
        }

        async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
            self.store.get(key).await
        }

        async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
            let mut keys = self.store.list(prefix).await?;
            let is_digests = prefix.contains("Digest");
            if is_digests && !self.was_listed.swap(true, std::sync::atomic::Ordering::Relaxed) {
                keys.retain(|key| *key != self.newest);
                self.after.save(&self.dir).expect("saves");
            }
            Ok(keys)
        }
    }

    /// What waits for a digest is vouched for by the broker's notes and then by the digest, with no gap in between.
    #[tokio::test]
    async fn a_digest_that_is_made_meanwhile_vouches_for_its_files() {
        let store = Forge::sound().store().await;
        let reader = TrailReader::new(Arc::new(store.copy()), names(), None);
        let newest = reader.digest_keys().await.expect("lists").own.pop().expect("some").key;
        let digest = reader.digest(&newest).await.expect("reads").expect("is there");
        let dir = tempfile::tempdir().expect("a directory");
        let mut before = State::new(names().trail, START + Duration::hours(2));
        before.log_files = digest.log_files;
        before.save(dir.path()).expect("saves");
        let after = State::new(names().trail, START + Duration::hours(3));
        let (dir, was_listed) = (dir.path().to_owned(), false.into());
        let store = Arc::new(DigestedMeanwhile { store, newest, dir: dir.clone(), after, was_listed });
        let reader = TrailReader::new(store, names(), None);
        let keys = [signer().public_key().clone()];
        let files = LogFiles::of(&reader, None, &keys, Some(&dir), (None, None)).await.expect("lists");
        assert_eq!((files.vouched.len(), files.unvouched), (3, vec![]));
    }

    #[tokio::test]
    async fn what_nobody_has_signed_is_named_and_left_out() {
        let store = Forge::sound().store().await;
        // Within the digests' time, and in the minute after the newest of them.
        for minutes in [70, 181] {
            plant(&store, &names().log_file(START + Duration::minutes(minutes), &[9; 32]));
        }
        plant(&store, &format!("{}2026/03/01/stolen.json", names().log_folder()));
        let (believed, unvouched, _) = found(&store, (None, None)).await;
        assert_eq!((believed.len(), unvouched), (3, vec!["no digest names it"; 3]));
        assert_eq!(
            found(&store, (None, Some(20))).await.1.len(),
            2,
            "what comes later has no record of that time"
        );

        // A thief's own digest of this trail, and one of another.
        for key in store.keys().iter().filter(|key| key.contains("Digest") && key.contains("T1100")) {
            store.with(|objects| objects.get_mut(key).map(|object| object.metadata.clear()));
        }
        let (believed, unvouched, _) = found(&store, (None, None)).await;
        assert_eq!(believed.len(), 2);
        assert!(unvouched.contains(&"its digest is not signed with a key that was given"), "{unvouched:?}");
    }

    #[tokio::test]
    async fn other_trails_are_left_out() {
        let store = Forge::sound().store().await;
        let (key, end) =
            (names().log_file(START + Duration::minutes(70), &[9; 32]), START + Duration::hours(4));
        plant(&store, &key);
        let reader = TrailReader::new(Arc::new(store.copy()), names(), None);
        let own = reader.digest_keys().await.expect("lists").own;
        let mut digest = reader.digest(&own[0].key).await.expect("reads").expect("is there");
        digest.digest_s3_object = TrailNames { trail: "other".into(), ..names() }.digest(end);
        digest.log_files[0].s3_object = key;
        store.sign(&digest, &digest.to_json(), &signer()).await;
        let (believed, unvouched, of_others) = found(&store, (None, None)).await;
        assert_eq!((believed.len(), unvouched.len(), of_others), (3, 0, 1));
    }

    #[tokio::test]
    async fn all_trails_together_vouch_for_their_log_files_and_for_no_other() {
        let store = Forge::sound().store().await;
        let (key, end) =
            (names().log_file(START + Duration::minutes(70), &[9; 32]), START + Duration::hours(4));
        plant(&store, &key);
        let reader = TrailReader::new(Arc::new(store.copy()), names(), None);
        let own = reader.digest_keys().await.expect("lists").own;
        let mut digest = reader.digest(&own[0].key).await.expect("reads").expect("is there");
        digest.digest_s3_object = TrailNames { trail: "other".into(), ..names() }.digest(end);
        digest.log_files.truncate(1);
        digest.log_files[0].s3_object = key.clone();
        digest.log_files[0].hash_value = sha256_hex(b"{\"Records\":[]}");
        store.sign(&digest, &digest.to_json(), &signer()).await;
        plant(&store, &names().log_file(START + Duration::minutes(71), &[8; 32]));
        let reader = TrailReader::new(Arc::new(store.copy()), names(), None);
        let keys = [signer().public_key().clone()];
        let found = |called| LogFiles::of(&reader, called, &keys, None, (None, None));
        let all = found(Some("*")).await.expect("lists");
        assert_eq!((all.vouched.len(), all.unvouched.len(), all.of_others), (4, 1, 0));
        let other = all.vouched.iter().find(|file| file.key() == key).expect("vouched for");
        assert_eq!((&*other.trail, other.read(&reader).await.is_ok()), ("other", true));
        let some = found(Some("oth*")).await.expect("lists");
        assert_eq!((some.vouched.len(), some.unvouched.len()), (1, 0));
    }
}
