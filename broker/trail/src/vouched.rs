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
    /// Digests that the store has and does not return: what they vouch for is not known.
    pub unread: Vec<Unread>,
    /// The number of log files in other trails' digests.
    pub of_others: u64,
    /// The requestIDs of the signatures of closing digests, whose records no log file can have. They are not signed themselves.
    pub closing_signs: HashSet<String>,
    /// The requestIDs of the data keys of log files: the last one's record is in none.
    pub data_keys: HashSet<String>,
    /// How many records of the journal are delivered, as its broker has noted.
    pub delivered: u64,
}

/// An object of the trail that the store has and does not return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Its key in the bucket.
    pub key: String,
    /// The store's error.
    pub why: String,
    /// The time whose records it may have or vouch for; no bound where none is known.
    pub times: [Option<OffsetDateTime>; 2],
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
    /// `journal_dir` can be read. `progress` is told which digest is read, of how many.
    pub async fn of(
        reader: &TrailReader,
        called: Option<&str>,
        keys: &[PublicKey],
        journal_dir: Option<&Path>,
        (since, until): (Option<OffsetDateTime>, Option<OffsetDateTime>),
        progress: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Result<Self, ReadFailure> {
        // Listed before the digests, so that what is delivered meanwhile is in neither list.
        let listed = reader.log_file_keys().await?;
        let ((trails, others), noted) = digests_and_notes(reader, called, journal_dir).await?;
        let trail: Arc<str> = reader.names().trail.as_str().into();
        let mut found =
            Found { since, until, files: Self::default(), named: HashSet::new(), trail, unread: 0 };
        let (mut done, all) = (0, trails.values().map(Vec::len).sum());
        for (trail, digests) in &trails {
            found.trail = trail.as_str().into();
            let mut tick = || {
                done += 1;
                progress(done, all);
            };
            found.read_digests(reader, keys, digests, &mut tick).await?;
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
        let mut found =
            Found { since, until, files: Self::default(), named: HashSet::new(), trail, unread: 0 };
        found.read_digests(reader, keys, &reader.digest_keys().await?.own, &mut || {}).await?;
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
    /// How many digests the store did not return, of any time.
    unread: usize,
}

impl Found {
    /// Adds what the digests of one trail, in order, name; `tick` is called for each. Those that the store does not return are listed, unless
    /// the next one that is vouched for shows that they are none of this trail's. Too many of them are an error.
    async fn read_digests(
        &mut self,
        reader: &TrailReader,
        keys: &[PublicKey],
        digests: &[DigestKey],
        tick: &mut (dyn FnMut() + Send),
    ) -> Result<(), ReadFailure> {
        let (mut newest, mut last, mut waiting) = (None, None, Vec::new());
        for digest in digests {
            tick();
            match read(reader, &digest.key).await {
                Ok(Some(file)) => {
                    let is_believed = file.digest.digest_s3_object == digest.key && file.is_signed(keys);
                    if is_believed {
                        self.add_calls(&file);
                        self.add_unread(&mut waiting, last, Some(&file.digest));
                        newest = file.digest.log_files.last().map_or(newest, |last| times_of(last)[1]);
                        last = Some(&digest.key);
                    }
                    self.add_digest(file.digest, is_believed);
                }
                Ok(None) => {}
                Err(ReadFailure::Store(error)) if self.unread < MOST_UNREAD => {
                    self.unread += 1;
                    let (key, why) = (digest.key.clone(), error.to_string());
                    let from = newest.map(|newest: OffsetDateTime| newest.saturating_sub(LONGEST_CALL));
                    waiting.push(Unread { key, why, times: [from, Some(digest.end)] });
                }
                Err(failure) => return Err(failure),
            }
        }
        self.add_unread(&mut waiting, last, None);
        Ok(())
    }

    /// Lists digests that were not read between the one with the key `last` and `next`, both vouched for. `next` names its predecessor: what
    /// is between the two is no digest of this trail. And its records may be older than those before, if the clock was set back.
    fn add_unread(&mut self, waiting: &mut Vec<Unread>, last: Option<&String>, next: Option<&Digest>) {
        if let Some(next) = next {
            let (previous, before) = (next.previous_digest_s3_object.as_ref(), waiting.len());
            if let Some(place) = waiting.iter().position(|unread| Some(&unread.key) == previous) {
                waiting.truncate(place + 1);
            } else if previous == last {
                waiting.clear();
            }
            self.unread -= before - waiting.len();
            let oldest = next.log_files.iter().filter_map(|file| times_of(file)[0]).min();
            for unread in &mut *waiting {
                unread.times[0] = unread.times[0].map(|from| oldest.map_or(from, |oldest| from.min(oldest)));
            }
        }
        for unread in waiting.drain(..) {
            if self.may_hold(unread.times) {
                self.files.unread.push(unread);
            }
        }
    }

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
            } else if self.may_hold(times_of(&file)) && self.named.insert(file.s3_object.clone()) {
                let why = "its digest is not signed with a key that was given";
                self.files.unvouched.push((file.s3_object, why));
            }
        }
    }

    fn vouch(&mut self, file: LogFile, is_signed: bool) {
        let times = times_of(&file);
        if self.named.insert(file.s3_object.clone()) && self.may_hold(times) {
            let trail = Arc::clone(&self.trail);
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

    fn may_hold(&self, [oldest, newest]: [Option<OffsetDateTime>; 2]) -> bool {
        let starts_before_end = oldest.zip(self.until).is_none_or(|(oldest, until)| oldest < until);
        let ends_after_start = newest.zip(self.since).is_none_or(|(newest, since)| newest >= since);
        starts_before_end && ends_after_start
    }

    /// Whether it is in no digest of this trail, and can have records of the time according to its name. Programs that read the folder also
    /// read objects that are no log files.
    fn is_stranger(&self, reader: &TrailReader, key: &str) -> bool {
        let is_in_time = |closed: OffsetDateTime| {
            self.since.is_none_or(|since| closed.saturating_add(Duration::MINUTE) > since)
                && self.until.is_none_or(|until| closed <= until.saturating_add(LONGEST_FILE))
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
            let file = match read(reader, key).await {
                Err(ReadFailure::Store(_)) if self.unread < MOST_UNREAD => {
                    self.unread += 1;
                    continue;
                }
                read => read?,
            };
            let Some(file) = file else { continue };
            // Whoever signed the digest: this can only exclude files that this trail's own digests do not name.
            for log_file in &file.digest.log_files {
                self.files.of_others += u64::from(strangers.remove(&log_file.s3_object));
            }
        }
        let why =
            if self.unread > 0 { "no digest that could be read names it" } else { "no digest names it" };
        self.files.unvouched.extend(strangers.into_iter().map(|key| (key, why)));
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

/// Records are in the order of their commits, and have the time at which their calls came.
const LONGEST_CALL: Duration = Duration::minutes(5);
/// The number of digests that a store may fail to return before it counts as unreachable.
const MOST_UNREAD: usize = 20;
/// The longest time that the records of a log file can span.
const LONGEST_FILE: Duration = Duration::HOUR;

#[cfg(test)]
mod tests;
