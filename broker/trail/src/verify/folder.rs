//! The folder of the log files: everything in it is in a digest, this trail's or another's. What is not may have been put there
//! for those who read the folder without its digests.
//!
//! Only a digest that a given key has signed may vouch for anything. What another trail's digests name, or may name yet, is told
//! apart by that.

use std::collections::{BTreeMap, HashSet};

use time::{Duration, OffsetDateTime};

use super::VerifyOptions;
use super::finding::{FindingKind, Findings, Place};
use super::ids;
use super::stretch::Stretch;
use crate::digest::Digest;
use crate::names::trail_of;
use crate::reader::{DigestFile, DigestKey, ReadFailure, TrailReader};

/// What of the folder is known already.
pub(super) struct Folder<'a> {
    pub(super) reader: &'a TrailReader,
    pub(super) options: &'a VerifyOptions,
    /// What was in the folder before anything else was looked at: all of it that is this broker's, it knows.
    pub(super) listed: &'a [String],
    /// The log files of this trail's digests, and those that wait for one.
    pub(super) known: &'a HashSet<String>,
    /// This trail's digests.
    pub(super) own: &'a [DigestKey],
    /// Those of them that were looked at, and the others.
    pub(super) around: &'a Stretch<'a>,
    /// Objects beside this trail's digests.
    pub(super) others: &'a [String],
    /// Whether the broker's own notes have told which log files wait for a digest.
    pub(super) waiting_is_known: bool,
}

/// Log files that no digest is known to name yet, and the minutes of their names.
type Strangers = BTreeMap<String, OffsetDateTime>;

/// Another trail that delivers into this folder.
#[derive(Default)]
struct Other {
    log_files: u64,
    /// Where its newest digest ends that a given key has signed.
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
        self.ask_own(&mut strangers).await;
        let trails = self.ask_others(&mut strangers, findings).await;
        let newest = self.newest().await;
        for (key, minute) in strangers {
            self.judge(&key, minute, newest, &trails, findings);
        }
    }

    fn is_in_time(&self, minute: OffsetDateTime) -> bool {
        let VerifyOptions { from, to, .. } = self.options;
        from.is_none_or(|from| minute + MINUTE > from) && to.is_none_or(|to| minute <= to)
    }

    /// A log file of the period may have been delivered after it, and so be in a digest that is not of it.
    async fn ask_own(&self, strangers: &mut Strangers) {
        for digest in self.around.around() {
            if strangers.is_empty() {
                return;
            }
            let Ok(Some(file)) = self.reader.digest_file(&digest.key).await else { continue };
            if file.is_signed(&self.options.keys) {
                take_out(&file.digest, digest.end, strangers);
            }
        }
    }

    /// Takes out what other trails' digests name.
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
            // What a digest names was delivered before its end. The newest tells how far the trail has come.
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

    /// Where this trail's newest digest starts and ends, if there is one.
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
        // Within the minute of its name.
        let later_than = |end: OffsetDateTime| minute + MINUTE > end;
        let behind = trails.iter().filter(|(_, other)| other.vouches_until.is_some_and(later_than));
        let waits_for: Vec<&str> = behind.map(|(trail, _)| trail.as_str()).collect();
        if !waits_for.is_empty() {
            let waits = self.options.now.is_some_and(|now| now < minute + LONGEST_WAIT);
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

/// Neither broker nor CloudTrail gives such a name.
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

/// Takes out what a digest names; what was complete after its end, it cannot know of. Returns how many.
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

/// What a digest names that no given key has signed may be what it says, or not.
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
/// The longest interval of digests that a broker can be configured with, and an hour for what holds it up.
pub(super) const LONGEST_WAIT: Duration = Duration::hours(25);
