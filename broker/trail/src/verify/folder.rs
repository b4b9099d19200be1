//! Checks the folder of log files: everything in it must be in a digest of this trail or another one. Anything else may have been
//! planted for those who read the folder without its digests.
//!
//! Only digests signed with a given key count. They also distinguish what is in other trails' digests from what may be in their next
//! ones.

use std::collections::{BTreeMap, HashSet};

use time::{Duration, OffsetDateTime};

use super::VerifyOptions;
use super::finding::{FindingKind, Findings, Place};
use super::ids;
use super::stretch::Stretch;
use crate::digest::Digest;
use crate::names::trail_of;
use crate::reader::{DigestFile, DigestKey, ReadFailure, TrailReader};

/// The folder, and what is known about it already.
pub(super) struct Folder<'a> {
    pub(super) reader: &'a TrailReader,
    pub(super) options: &'a VerifyOptions,
    /// What was in the folder at the start: whatever of it is this trail's must be known.
    pub(super) listed: &'a [String],
    /// The log files in this trail's digests, and those that wait for one.
    pub(super) known: &'a HashSet<String>,
    /// This trail's digests.
    pub(super) own: &'a [DigestKey],
    /// Its digests within and around the period.
    pub(super) around: &'a Stretch<'a>,
    /// Other objects among this trail's digests.
    pub(super) others: &'a [String],
    /// The ends of this trail's digests that the store did not return.
    pub(super) unread: &'a [OffsetDateTime],
    /// Whether the broker's own notes have told which log files wait for a digest.
    pub(super) waiting_is_known: bool,
}

/// Log files in no known digest, with the minutes in their names.
type Strangers = BTreeMap<String, OffsetDateTime>;

/// Another trail in this folder.
#[derive(Default)]
struct Other {
    log_files: u64,
    /// The end of its newest digest that is signed with a given key.
    vouches_until: Option<OffsetDateTime>,
}

impl Folder<'_> {
    pub(super) async fn check(&self, findings: &mut Findings) {
        let names = self.reader.names();
        let mut strangers = Strangers::new();
        for key in self.listed {
            match names.log_file_minute(key) {
                Some(minute) if self.is_in_time(minute) && !self.known.contains(key) => {
                    strangers.insert(key.clone(), minute);
                }
                Some(_) => {}
                None => foreign(key, findings),
            }
        }
        for key in self.others.iter().filter(|key| trail_of(key).is_none()) {
            let words = "no digest, but in their folder";
            findings.note(FindingKind::ForeignObject, Place::object(key), words);
        }
        if strangers.is_empty() {
            return;
        }
        let unread = self.ask_own(&mut strangers).await.into_iter().chain(self.unread.iter().copied()).max();
        let trails = self.ask_others(&mut strangers, findings).await;
        let newest = self.newest().await;
        for (key, minute) in strangers {
            // A digest ends after the delivery of its log files.
            if unread.is_some_and(|end| minute <= end) {
                let words = "in no digest that could be read: one that could not be may name it";
                findings.cannot_tell(FindingKind::LogFileUnreferenced, Place::object(&key), words);
                continue;
            }
            self.judge(&key, minute, newest, &trails, findings);
        }
    }

    fn is_in_time(&self, minute: OffsetDateTime) -> bool {
        let VerifyOptions { from, to, .. } = self.options;
        from.is_none_or(|from| minute + MINUTE > from) && to.is_none_or(|to| minute <= to)
    }

    /// A log file from the period may have been delivered later, and so be in a digest outside of it. Returns the ends of those that the
    /// store did not return.
    async fn ask_own(&self, strangers: &mut Strangers) -> Vec<OffsetDateTime> {
        let mut unread = Vec::new();
        for digest in self.around.around() {
            if strangers.is_empty() {
                break;
            }
            match self.reader.digest_file(&digest.key).await {
                Ok(Some(file)) if file.is_signed(&self.options.keys) => {
                    take_out(&file.digest, digest.end, strangers);
                }
                Ok(_) | Err(ReadFailure::Malformed(_)) => {}
                Err(_) => unread.push(digest.end),
            }
        }
        unread
    }

    /// Removes what is in other trails' digests.
    async fn ask_others(
        &self,
        strangers: &mut Strangers,
        findings: &mut Findings,
    ) -> BTreeMap<String, Other> {
        let mut trails: BTreeMap<&str, Vec<(OffsetDateTime, &str)>> = BTreeMap::new();
        for key in self.others {
            if let Some((trail, end)) = trail_of(key) {
                trails.entry(trail).or_default().push((end, key));
            }
        }
        let mut others = BTreeMap::new();
        for (trail, mut digests) in trails {
            digests.sort_unstable();
            let other = self.ask_other(trail, &digests, strangers, findings).await;
            if other.log_files > 0 {
                let words = format!(
                    "{} log files here are of trail {trail:?}, as its digests say: verify it by its own name",
                    other.log_files
                );
                let place = Place::object(&self.reader.names().digest_folder());
                findings.note(FindingKind::OtherTrail, place, words);
            }
            others.insert(trail.to_owned(), other);
        }
        others
    }

    async fn ask_other(
        &self,
        trail: &str,
        digests: &[(OffsetDateTime, &str)],
        strangers: &mut Strangers,
        findings: &mut Findings,
    ) -> Other {
        let mut other = Other::default();
        for (end, key) in digests.iter().rev() {
            // Digests end after the delivery of their log files. The newest one shows how far the trail has come.
            let oldest = strangers.values().min();
            if oldest.is_none_or(|oldest| end < oldest) && other.vouches_until.is_some() {
                break;
            }
            let Some(file) = self.digest_of_other(key, findings).await else { continue };
            if file.is_signed(&self.options.keys) {
                other.vouches_until = other.vouches_until.max(Some(*end));
                other.log_files += take_out(&file.digest, *end, strangers);
            } else {
                claim(trail, &file, strangers, findings, &self.options.keys);
            }
        }
        other
    }

    async fn digest_of_other(&self, key: &str, findings: &mut Findings) -> Option<DigestFile> {
        let place = Place::object(key);
        match self.reader.digest_file(key).await {
            Ok(Some(file)) if file.digest.digest_s3_object != key => {
                let words = format!("written for {}", file.digest.digest_s3_object);
                findings.unsound(FindingKind::DigestMoved, place, words);
                None
            }
            Ok(file) => file,
            Err(failure @ ReadFailure::Malformed(_)) => {
                findings.note(FindingKind::ForeignObject, place, failure.to_string());
                None
            }
            Err(failure) => {
                findings.cannot_tell(FindingKind::Unreadable, place, failure.to_string());
                None
            }
        }
    }

    /// The start and end of this trail's newest digest, if there is one.
    async fn newest(&self) -> Option<(OffsetDateTime, OffsetDateTime)> {
        let newest = self.own.last()?;
        let start = match self.reader.digest(&newest.key).await {
            Ok(Some(digest)) => ids::seconds(&digest.digest_start_time),
            _ => None,
        };
        let start = start.and_then(|start| OffsetDateTime::from_unix_timestamp(start).ok());
        Some((start.unwrap_or(newest.end), newest.end))
    }

    fn judge(
        &self,
        key: &str,
        minute: OffsetDateTime,
        newest: Option<(OffsetDateTime, OffsetDateTime)>,
        trails: &BTreeMap<String, Other>,
        findings: &mut Findings,
    ) {
        let place = Place::object(key);
        let kind = FindingKind::LogFileUnreferenced;
        // Names have a precision of one minute.
        let later_than = |end: OffsetDateTime| minute + MINUTE > end;
        let behind = trails.iter().filter(|(_, other)| other.vouches_until.is_some_and(later_than));
        let waits_for: Vec<&str> = behind.map(|(trail, _)| trail.as_str()).collect();
        if !waits_for.is_empty() {
            let waits = self.options.now.is_some_and(|now| now < minute.saturating_add(LONGEST_WAIT));
            let words =
                format!("in no digest yet; it may be of trail {waits_for:?}, whose newest digest is older");
            if waits {
                findings.note(kind, place, words);
            } else {
                findings.cannot_tell(kind, place, words);
            }
            return;
        }
        match newest {
            None => findings.cannot_tell(kind, place, "there is no digest yet"),
            Some((start, _)) if !later_than(start) => {
                findings.unsound(kind, place, "in no digest: no broker vouches for it");
            }
            Some(_) if self.waiting_is_known => findings.cannot_tell(
                kind,
                place,
                "in no digest, and not delivered by this broker: put there by somebody, or by a broker that has no digest yet",
            ),
            Some((_, end)) if later_than(end) => {
                findings.note(kind, place, "in no digest yet: it is newer than the newest one");
            }
            Some(_) => findings.cannot_tell(
                kind,
                place,
                "in no digest: put there by somebody, or delivered while the newest digest was made: the next one tells",
            ),
        }
    }
}

/// Reports a name that neither brokers nor CloudTrail use.
pub(super) fn foreign(key: &str, findings: &mut Findings) {
    let (place, kind) = (Place::object(key), FindingKind::ForeignObject);
    let is_read = [".json", ".json.gz"].iter().any(|end| key.ends_with(end));
    if is_read {
        let words = "no log file, and in their folder: no broker vouches for it, and who reads the folder reads it, too";
        findings.unsound(kind, place, words);
    } else {
        findings.note(kind, place, "no log file, but in their folder");
    }
}

/// Removes what is in a digest, unless its minute is after the digest's end. Returns the number removed.
fn take_out(digest: &Digest, end: OffsetDateTime, strangers: &mut Strangers) -> u64 {
    let mut taken = 0;
    for log_file in &digest.log_files {
        if strangers.get(&log_file.s3_object).is_some_and(|minute| *minute <= end) {
            strangers.remove(&log_file.s3_object);
            taken += 1;
        }
    }
    taken
}

/// Handles a digest signed with none of the given keys, which may or may not be what it claims.
fn claim(
    trail: &str,
    file: &DigestFile,
    strangers: &mut Strangers,
    findings: &mut Findings,
    keys: &[crate::PublicKey],
) {
    let fingerprint = &file.digest.digest_public_key_fingerprint;
    if keys.iter().any(|key| key.fingerprint() == *fingerprint) {
        let words = "another trail's digest, with a wrong signature: what it names is not believed";
        return findings.unsound(FindingKind::DigestSignature, Place::object(&file.key), words);
    }
    for log_file in &file.digest.log_files {
        if strangers.remove(&log_file.s3_object).is_some() {
            let words = format!(
                "named by a digest of trail {trail:?}, signed with a key of fingerprint {fingerprint} that was not given: give it, too, \
                 if you know that broker"
            );
            findings.cannot_tell(FindingKind::OtherTrail, Place::object(&log_file.s3_object), words);
        }
    }
}

const MINUTE: Duration = Duration::MINUTE;
/// The longest interval of digests that can be configured, and an hour for delays.
pub(super) const LONGEST_WAIT: Duration = Duration::hours(25);
