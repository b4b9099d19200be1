//! Findings, their places and severities, and the verdict that follows from them.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::uses::Uses;
use crate::record::optional_moment;

/// The result of verifying a trail.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Digests that were read.
    pub digests: u64,
    /// Log files that were read.
    pub log_files: u64,
    /// Records that were read, those of the journal included.
    pub records: u64,
    /// How many of these record calls to KMS.
    pub kms_records: u64,
    /// How many of these record requests of workloads.
    pub activity_records: u64,
    /// How many of these are in the journal and not delivered yet.
    pub journal_records: u64,
    /// Data keys and other answers of KMS whose uses were counted.
    pub keys_used: u64,
    /// The start of the first digest.
    #[serde(serialize_with = "optional_moment::serialize")]
    pub from: Option<OffsetDateTime>,
    /// The end of the last digest.
    #[serde(serialize_with = "optional_moment::serialize")]
    pub to: Option<OffsetDateTime>,
    /// The signature of the last digest, in hex: keep it where it is out of reach of anyone who can delete digests.
    pub newest_signature: Option<String>,
    /// The worst first; of each kind at most the first hundred.
    pub findings: Vec<Finding>,
    /// The number of findings by kind, including those not listed.
    pub counts: BTreeMap<FindingKind, u64>,
    /// Whether more digests are to be expected; `None` without a digest, or if only a period was verified.
    pub state: Option<TrailState>,
    /// The verdict on the trail.
    pub verdict: Verdict,
    /// If requested, how KMS's answers were used, by the hour since 1970, principal (empty in records of calls to KMS) and key ARN, if KMS
    /// named one.
    #[serde(skip)]
    pub uses: BTreeMap<(i64, String, Option<String>), Uses>,
}

/// The verdict on a trail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// The trail is what the broker delivered, and the broker kept its promises.
    Sound,
    /// No fault was found, but not everything could be verified.
    #[default]
    CannotTell,
    /// The trail was tampered with, or the trail or the broker is at fault.
    Unsound,
}

/// How a trail ends, according to its newest digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TrailState {
    /// Its next digest is not due yet, or the current time is unknown.
    Open,
    /// Its next digest is overdue: the broker, its store or its signing key may be down.
    Stale,
    /// It is long overdue and was not closed: the broker was killed, and its journal was lost or is still to be delivered.
    Abandoned,
    /// The broker has ended, and everything was delivered.
    Closed,
}

/// A single finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its kind.
    pub kind: FindingKind,
    /// Its effect on the verdict.
    pub severity: Severity,
    /// Its place.
    pub place: Place,
    /// The explanation for people.
    pub words: String,
}

/// The effect of a finding on the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// None: it is worth knowing.
    Note,
    /// It prevents a verdict.
    CannotTell,
    /// It makes the trail unsound.
    Unsound,
}

/// The place of a finding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// The key of an object, or the path of a journal file.
    pub(crate) object: String,
    /// The record in it, counted from 1; in a journal file, the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) record: Option<u64>,
    /// The record's eventID, if it has one.
    #[serde(rename = "eventID", skip_serializing_if = "Option::is_none")]
    pub(crate) event_id: Option<Uuid>,
}

impl Place {
    /// A whole object.
    #[must_use]
    pub(crate) fn object(key: &str) -> Self {
        Self { object: key.to_owned(), ..Self::default() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.object)?;
        if let Some(record) = self.record {
            write!(f, "#{record}")?;
        }
        match self.event_id {
            Some(id) => write!(f, " (eventID {id})"),
            None => Ok(()),
        }
    }
}

/// The kinds of findings, in the order of a trail: digests, log files, records, what records say about the broker, the journal.
/// Each has the same name in JSON, in text and in docs/audit.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum FindingKind {
    /// There is no digest, so nothing vouches for anything.
    NoDigest,
    /// The store cannot deliver an object that it has.
    Unreadable,
    /// A log file is encrypted, and KMS cannot be asked or refuses.
    Locked,
    /// A digest is not as brokers write it.
    DigestMalformed,
    /// A digest is under another name, or in another bucket, than it was written for.
    DigestMoved,
    /// A digest has no signature.
    DigestUnsigned,
    /// A digest is signed with a key that was not given.
    DigestOtherKey,
    /// A digest's signature is wrong: it was changed after signing, or signed with another key.
    DigestSignature,
    /// The digest before another one is missing.
    DigestMissing,
    /// What came before the oldest digest is no longer there.
    BeginningMissing,
    /// A digest's hash is not the one in the next digest.
    PreviousHash,
    /// A digest's signature is not the one in the next digest: it was signed again.
    PreviousSignature,
    /// Two digests do not follow one another: a stretch of time is missing, or a chain begins in the middle.
    ChainGap,
    /// The newest digest is not the one whose signature was kept.
    NewestMissing,
    /// The next digest is overdue.
    TrailStale,
    /// The trail ends although its broker has not closed it.
    TrailAbandoned,
    /// An object has a later format than this program reads.
    NewerFormat,
    /// A log file in a digest is missing.
    LogFileMissing,
    /// A log file was changed: its hash is not the one in its digest.
    LogFileHash,
    /// A log file is not compact JSON in one gzip member, or not encrypted as it should be.
    LogFileMalformed,
    /// A log file's name or bucket is not one that brokers use.
    LogFileName,
    /// The times of a log file in its digest are not those of its records.
    LogFileTimes,
    /// A log file is in two digests, or twice in one.
    LogFileTwice,
    /// Records between two log files are missing, or the journal's chain goes back.
    LogFileGap,
    /// A trail's first log file does not begin with the first record of its journal.
    BeginsLate,
    /// The records of a log file do not have the place in the journal's chain that its digest says.
    LogFileChain,
    /// Digests do not say where log files are in the journal's chain.
    ChainUnknown,
    /// A log file is in no digest.
    LogFileUnreferenced,
    /// An object among log files and digests is neither.
    ForeignObject,
    /// Log files belong to other trails, according to those trails' digests.
    OtherTrail,
    /// A record does not match either profile.
    RecordMalformed,
    /// Two records have the same eventID.
    EventIdTwice,
    /// Two KMS records have the same requestID and eventName.
    RequestIdTwice,
    /// One access key is attributed to two sessions of roles.
    SessionMixed,
    /// An activity record names a missing KMS record.
    KmsRecordMissing,
    /// An activity record does not match the KMS record that it names.
    KmsRecordMismatch,
    /// KMS encrypted under a key material that had been replaced.
    MaterialWentBack,
    /// One ciphertext is attributed to two key materials.
    MaterialMixed,
    /// A data key was minted before the verified period.
    MintedBefore,
    /// A data key was used after it had expired.
    UsedTooLate,
    /// A data key was used longer after KMS's last permission than the broker promises.
    UsedUnchecked,
    /// The record with the broker's promise about revoked keys is not in the verified period.
    PromiseUnknown,
    /// A data key was used for more messages than its limit.
    MessagesExceeded,
    /// A data key was used for more declared bytes than its limit.
    BytesExceeded,
    /// Two draws were charged for the same message of a data key, or the charges do not add up.
    ChargedTwice,
    /// A data key for a single use was handed out again.
    UsedAgain,
    /// One call to KMS is claimed by two requests as their own.
    MintedTwice,
    /// A limit is wider than any configuration allows, or than an earlier draw of the same data key was promised.
    LimitTooWide,
    /// A data key was used for differing requests.
    PartitionMixed,
    /// Several principals used the same data keys.
    Shared,
    /// Data keys were charged for messages without a record.
    UsesMissing,
    /// A record says that records were lost.
    RecordsLost,
    /// A record reports an unfinished commit, or refusals without a record.
    JournalNotice,
    /// One record says that a call was answered, and another that the answer never left.
    RecordWithdrawn,
    /// A line of the journal was changed or moved.
    JournalBroken,
    /// Records between the last delivery and the journal, or within the journal, are missing.
    JournalGap,
    /// The journal contains evidence: lines that did not fit the chain.
    JournalEvidence,
    /// The journal cannot be read.
    JournalUnreadable,
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Collects findings: all are counted, and the first of each kind are listed.
#[derive(Default)]
pub(super) struct Findings {
    kept: Vec<Finding>,
    counts: BTreeMap<FindingKind, u64>,
    worst: Option<Severity>,
}

impl Findings {
    pub(super) fn unsound(&mut self, kind: FindingKind, place: Place, words: impl Into<String>) {
        self.add(kind, Severity::Unsound, place, words);
    }

    pub(super) fn cannot_tell(&mut self, kind: FindingKind, place: Place, words: impl Into<String>) {
        self.add(kind, Severity::CannotTell, place, words);
    }

    pub(super) fn note(&mut self, kind: FindingKind, place: Place, words: impl Into<String>) {
        self.add(kind, Severity::Note, place, words);
    }

    pub(super) fn add(
        &mut self,
        kind: FindingKind,
        severity: Severity,
        place: Place,
        words: impl Into<String>,
    ) {
        self.worst = self.worst.max(Some(severity));
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if *count <= KEPT_OF_A_KIND {
            self.kept.push(Finding { kind, severity, place, words: words.into() });
        }
    }

    /// Whether no finding so far speaks against the trail.
    pub(super) fn is_sound_so_far(&self) -> bool {
        matches!(self.worst, None | Some(Severity::Note))
    }

    /// Writes the findings and the verdict into `report`.
    pub(super) fn conclude(mut self, report: &mut Report) {
        self.kept.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        report.findings = self.kept;
        report.counts = self.counts;
        report.verdict = match self.worst {
            None | Some(Severity::Note) => Verdict::Sound,
            Some(Severity::CannotTell) => Verdict::CannotTell,
            Some(Severity::Unsound) => Verdict::Unsound,
        };
    }
}

/// Nobody reads more than this, and a trail with faults everywhere must not fill memory.
const KEPT_OF_A_KIND: u64 = 100;
