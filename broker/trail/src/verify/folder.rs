//! The folder of the log files: everything in it is in a digest, this trail's or another's. What is not may have been put there
//! for those who read the folder without its digests.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use time::{Duration, OffsetDateTime};

use super::finding::{FindingKind, Findings, Place};
use crate::names::trail_of;
use crate::reader::{ReadFailure, TrailReader};
use crate::signature::PublicKey;

/// What of the folder is known already.
pub(super) struct Folder<'a> {
    pub(super) reader: &'a TrailReader,
    pub(super) keys: &'a [PublicKey],
    /// What was in the folder before anything else was looked at: all of it that is this broker's, it knows.
    pub(super) listed: &'a [String],
    /// The log files of this trail's digests, and those that wait for one.
    pub(super) known: &'a HashSet<String>,
    /// Objects beside this trail's digests.
    pub(super) others: &'a [String],
    /// Where this trail's newest digest starts and ends; none if there is none.
    pub(super) newest: Option<(OffsetDateTime, OffsetDateTime)>,
    /// Whether the broker's own notes have told which log files wait for a digest.
    pub(super) waiting_is_known: bool,
    pub(super) from: Option<OffsetDateTime>,
    pub(super) to: Option<OffsetDateTime>,
}

/// Another trail that delivers into this folder.
#[derive(Default)]
struct Other {
    digests: u64,
    log_files: u64,
    newest: Option<OffsetDateTime>,
    untrusted: bool,
}

impl Folder<'_> {
    pub(super) async fn check(&self, findings: &mut Findings) {
        let names = self.reader.names();
        let mut strangers: BTreeMap<String, OffsetDateTime> = BTreeMap::new();
        for key in self.listed {
            match names.log_file_minute(key) {
                Some(minute) if self.is_in_time(minute) && !self.known.contains(key) => {
                    strangers.insert(key.clone(), minute);
                }
                Some(_) => {}
                None => findings.note(
                    FindingKind::ForeignObject,
                    Place::object(key),
                    "no log file, but in their folder: who reads the folder reads it, too",
                ),
            }
        }
        let trails = self.ask_others(&mut strangers, findings).await;
        for (key, minute) in strangers {
            self.judge(&key, minute, &trails, findings);
        }
    }

    fn is_in_time(&self, minute: OffsetDateTime) -> bool {
        self.from.is_none_or(|from| minute + MINUTE > from) && self.to.is_none_or(|to| minute <= to)
    }

    /// Takes out what other trails' digests name.
    async fn ask_others(
        &self,
        strangers: &mut BTreeMap<String, OffsetDateTime>,
        findings: &mut Findings,
    ) -> BTreeMap<String, Other> {
        let mut trails: BTreeMap<String, Other> = BTreeMap::new();
        let oldest = strangers.values().min().copied();
        for key in self.others {
            let Some((trail, end)) = trail_of(key) else {
                let words = "no digest, but in their folder";
                findings.note(FindingKind::ForeignObject, Place::object(key), words);
                continue;
            };
            let other = trails.entry(trail.to_owned()).or_default();
            other.newest = other.newest.max(Some(end));
            // What a digest names was delivered before its end.
            if oldest.is_some_and(|oldest| end >= oldest) {
                self.ask_other(key, other, strangers, findings).await;
            }
        }
        for (trail, other) in trails.iter().filter(|(_, other)| other.log_files > 0) {
            let words = format!(
                "{} log files here are of trail {trail:?}, as its digests say{}: verify it by its own name",
                other.log_files,
                if other.untrusted { ", whose signatures are of a key that was not given" } else { "" }
            );
            findings.note(
                FindingKind::OtherTrail,
                Place::object(&self.reader.names().digest_folder()),
                words,
            );
        }
        trails
    }

    async fn ask_other(
        &self,
        key: &str,
        other: &mut Other,
        strangers: &mut BTreeMap<String, OffsetDateTime>,
        findings: &mut Findings,
    ) {
        let file = match self.reader.digest_file(key).await {
            Ok(Some(file)) => file,
            Ok(None) => return,
            Err(failure @ ReadFailure::Malformed(_)) => {
                return findings.note(FindingKind::ForeignObject, Place::object(key), failure.to_string());
            }
            Err(failure) => {
                return findings.cannot_tell(
                    FindingKind::Unreadable,
                    Place::object(key),
                    failure.to_string(),
                );
            }
        };
        if file.digest.digest_s3_object != key {
            let words = format!("written for {}", file.digest.digest_s3_object);
            return findings.unsound(FindingKind::DigestMoved, Place::object(key), words);
        }
        let fingerprint = &file.digest.digest_public_key_fingerprint;
        match self.keys.iter().find(|key| key.fingerprint() == *fingerprint) {
            None => other.untrusted = true,
            Some(public) => {
                let signed = file.digest.string_to_sign(&file.json);
                let signature = file.signature.as_deref().and_then(|hex| hex::decode(hex).ok());
                if !signature.is_some_and(|signature| public.verifies(signed.as_bytes(), &signature)) {
                    let words =
                        "another trail's digest, with a wrong signature: what it names is not believed";
                    return findings.unsound(FindingKind::DigestSignature, Place::object(key), words);
                }
            }
        }
        other.digests += 1;
        for log_file in &file.digest.log_files {
            other.log_files += u64::from(strangers.remove(&log_file.s3_object).is_some());
        }
    }

    fn judge(
        &self,
        key: &str,
        minute: OffsetDateTime,
        trails: &BTreeMap<String, Other>,
        findings: &mut Findings,
    ) {
        let place = Place::object(key);
        let kind = FindingKind::LogFileUnreferenced;
        // Within the minute of its name.
        let later_than = |end: OffsetDateTime| minute + MINUTE > end;
        let waits_for: BTreeSet<_> = trails
            .iter()
            .filter(|(_, other)| other.newest.is_some_and(later_than))
            .map(|(trail, _)| trail.as_str())
            .collect();
        match self.newest {
            _ if !waits_for.is_empty() => {
                findings.note(kind, place, format!("in no digest yet; it may be of trail {waits_for:?}"));
            }
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

const MINUTE: Duration = Duration::MINUTE;
