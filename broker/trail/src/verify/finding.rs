//! What verifying finds, where, how bad it is, and the verdict that follows from all of it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::uses::Uses;
use crate::record::optional_moment;

/// What came of verifying a trail.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Digests that were read.
    pub digests: u64,
    /// Log files that were read.
    pub log_files: u64,
    /// Records that were read, those of the journal included.
    pub records: u64,
    /// Of these, records of calls to KMS.
    pub kms_records: u64,
    /// Of these, records of what workloads asked for.
    pub activity_records: u64,
    /// Of these, records that are in the journal and not delivered yet.
    pub journal_records: u64,
    /// Data keys and other answers of KMS whose uses were counted.
    pub keys_used: u64,
    /// Where the first digest begins.
    #[serde(serialize_with = "optional_moment::serialize")]
    pub from: Option<OffsetDateTime>,
    /// Where the last one ends.
    #[serde(serialize_with = "optional_moment::serialize")]
    pub to: Option<OffsetDateTime>,
    /// The signature of the last digest, in hex: keep it where whoever can delete digests cannot reach.
    pub newest_signature: Option<String>,
    /// The worst first; of a kind with many, the first hundred.
    pub findings: Vec<Finding>,
    /// How many findings there are of each kind, those that are not listed included.
    pub counts: BTreeMap<FindingKind, u64>,
    /// Whether more is to come of the trail; none where there is no digest, or only a time was looked at.
    pub state: Option<TrailState>,
    /// What follows from them.
    pub verdict: Verdict,
    /// How what KMS answered was used, if that was to be counted: by the hour since 1970, who asked (empty in records of calls to KMS), and
    /// the key's ARN, if KMS told one.
    #[serde(skip)]
    pub uses: BTreeMap<(i64, String, Option<String>), Uses>,
}

/// What can be said of a trail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It is what the broker delivered, and the broker kept its promises.
    Sound,
    /// Nothing wrong was found, but not everything could be looked at.
    #[default]
    CannotTell,
    /// It was tampered with, or something is wrong with it or with the broker.
    Unsound,
}

/// How a trail ends, as far as its newest digest tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TrailState {
    /// Its next digest is not due yet, or nobody knows what time it is.
    Open,
    /// Its next digest is overdue: the broker, its store or its signing key may be down.
    Stale,
    /// It is long overdue, and nobody said that the trail ends: the broker was killed, and its journal was lost or waits.
    Abandoned,
    /// The broker has ended, and everything was delivered.
    Closed,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub kind: FindingKind,
    /// What it means for the verdict.
    pub severity: Severity,
    /// Where.
    pub place: Place,
    /// What it is, as text.
    pub words: String,
}

/// What a finding means for the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// Nothing: it is good to know.
    Note,
    /// There is no verdict without it.
    CannotTell,
    /// The trail is not sound.
    Unsound,
}

/// Where something was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// The key of an object, or the path of a file of the journal.
    pub(crate) object: String,
    /// The record in it, counted from 1; in a file of the journal, the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) record: Option<u64>,
    /// The record's eventID, if it has one.
    #[serde(rename = "eventID", skip_serializing_if = "Option::is_none")]
    pub(crate) event_id: Option<Uuid>,
}

impl Place {
    /// An object as a whole.
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

/// What can be found, in the order of a trail: digests, log files, records, what the records tell of the broker, the journal.
/// Its name is the same in JSON, for people and in docs/audit.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum FindingKind {
    /// There is no digest, so nothing vouches for anything.
    NoDigest,
    /// An object is there, and the store cannot give it.
    Unreadable,
    /// A log file is encrypted, and KMS cannot be asked or refuses.
    Locked,
    /// A digest is not what a broker writes.
    DigestMalformed,
    /// A digest stands under another name, or in another bucket, than it was written for.
    DigestMoved,
    /// A digest has no signature.
    DigestUnsigned,
    /// A digest is signed with a key that was not given.
    DigestOtherKey,
    /// A digest's signature is wrong: it was changed after it was signed, or signed by somebody else.
    DigestSignature,
    /// The digest that another one follows is not there.
    DigestMissing,
    /// What was before the oldest digest is not there any more.
    BeginningMissing,
    /// A digest's hash is not what the next digest says.
    PreviousHash,
    /// A digest's signature is not what the next digest says: it was signed again.
    PreviousSignature,
    /// Two digests do not follow one another: time is missing, or a chain begins in the middle.
    ChainGap,
    /// The newest digest is not the one whose signature was kept.
    NewestMissing,
    /// The next digest is overdue.
    TrailStale,
    /// The trail ends without its broker's having said so.
    TrailAbandoned,
    /// Something is of a later format than this program reads.
    NewerFormat,
    /// A log file that a digest names is not there.
    LogFileMissing,
    /// A log file was changed: its hash is not what its digest says.
    LogFileHash,
    /// A log file is not compact JSON in one gzip member, or not encrypted as it should be.
    LogFileMalformed,
    /// A log file's name or bucket is none that a broker gives.
    LogFileName,
    /// The times that a digest says of a log file are not those of its records.
    LogFileTimes,
    /// A log file is in two digests, or twice in one.
    LogFileTwice,
    /// Records between two log files are in none, or the journal's chain goes back.
    LogFileGap,
    /// The first log file of a trail does not begin with the first record of its journal.
    BeginsLate,
    /// The records of a log file are not those whose place in the journal's chain its digest says.
    LogFileChain,
    /// Digests do not say where log files stand in the journal's chain.
    ChainUnknown,
    /// A log file is in no digest.
    LogFileUnreferenced,
    /// Something that is neither log file nor digest lies where they do.
    ForeignObject,
    /// Log files are other trails', as those trails' digests say.
    OtherTrail,
    /// A record is not of one of the two profiles.
    RecordMalformed,
    /// Two records have one eventID.
    EventIdTwice,
    /// Two KMS records have one requestID and eventName.
    RequestIdTwice,
    /// One access key is said to be of two sessions of roles.
    SessionMixed,
    /// An activity record names a KMS record that is not there.
    KmsRecordMissing,
    /// An activity record does not fit the KMS record that it names.
    KmsRecordMismatch,
    /// KMS encrypted under a key material that it had replaced before.
    MaterialWentBack,
    /// A ciphertext is said to be of two key materials.
    MaterialMixed,
    /// A data key was minted before what was verified.
    MintedBefore,
    /// A data key was used after its time.
    UsedTooLate,
    /// A data key was used for longer after KMS had allowed it than the broker promises.
    UsedUnchecked,
    /// What the broker promises of keys that are taken away is not in what was verified.
    PromiseUnknown,
    /// A data key was used for more messages than its limit.
    MessagesExceeded,
    /// A data key was used for more declared bytes than its limit.
    BytesExceeded,
    /// Two draws were charged the same message of a data key, or the charges do not add up.
    ChargedTwice,
    /// A data key that is handed out once was handed out again.
    UsedAgain,
    /// One call to KMS is said to have been made for two requests.
    MintedTwice,
    /// A limit that no configuration allows, or one wider than a draw of the same data key was promised before.
    LimitTooWide,
    /// A data key was used for requests that differ.
    PartitionMixed,
    /// Data keys were used by several principals.
    Shared,
    /// Data keys were charged for messages of which there is no record.
    UsesMissing,
    /// A record tells that records were lost.
    RecordsLost,
    /// A record tells of an unfinished commit, or of refusals without a record.
    JournalNotice,
    /// A record says that a call was answered, and another one that the answer never left.
    RecordWithdrawn,
    /// A line of the journal was changed, or is not where it was written.
    JournalBroken,
    /// Records between what was delivered and the journal, or within the journal, are not there.
    JournalGap,
    /// The journal keeps evidence of lines that did not fit.
    JournalEvidence,
    /// The journal cannot be read.
    JournalUnreadable,
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Collects findings: all are counted, the first of each kind are kept.
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

    /// Whether nothing was found that speaks against the trail.
    pub(super) fn is_sound_so_far(&self) -> bool {
        matches!(self.worst, None | Some(Severity::Note))
    }

    /// Writes what was found into `report`, with the verdict.
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

/// Who has to read more than that needs another tool; a trail in which everything is wrong must not fill memory.
const KEPT_OF_A_KIND: u64 = 100;
