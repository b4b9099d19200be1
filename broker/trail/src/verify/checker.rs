//! Checks all records of a trail in order, each by itself and against earlier ones.
//!
//! Of each record only ids and the uses of its data key are remembered, and only for a limited time, so that memory does not grow with
//! the trail (`recent.rs`).

use std::collections::HashMap;
use std::hash::RandomState;

use uuid::Uuid;

use super::finding::{FindingKind, Findings, Place, Report, Severity, TrailState};
use super::ids::{IdMap, IdSet};
use super::log_file::{ReadLogFile, Span};
use super::materials::Materials;
use super::recent::RecentIds;
use super::record::{self, CheckedRecord, InvalidRecord, SigningSession, What};
use super::reuse::{At, Fault, LONGEST_CALL_SECONDS, Reuse};
use super::revocation::{Promise, Revocation};
use super::uses::{self, UseCounts};
use crate::notice::{Notice, Untold};

/// The state of checking a trail's records.
#[derive(Default)]
pub(super) struct Checker {
    account_id: String,
    pub(super) findings: Findings,
    /// The objects and files that records come from, in order.
    sources: Vec<String>,
    hashes: RandomState,
    event_ids: RecentIds,
    kms_requests: RecentIds,
    /// The session of each access key.
    sessions: HashMap<u64, u64>,
    reuse: Reuse,
    materials: Materials,
    revocation: Revocation,
    /// Failed calls to KMS whose records have not come yet, with the times of the records that name them.
    failed: IdMap<(At, i64)>,
    /// The time of the newest record.
    newest: i64,
    faults: Vec<Fault>,
    /// Sources from this one on may name records that could not be read.
    doubted_from: Option<u32>,
    /// Whether the records that are not delivered yet were read, and the newest time before those that could not be.
    has_journal: bool,
    unread_since: Option<i64>,
    /// Notices that were already counted.
    notices: IdSet,
    kms_records: u64,
    activity_records: u64,
    malformed_records: u64,
    has_malformed: bool,
    uses: UseCounts,
}

impl Checker {
    /// Checks records that follow those of a broker with this promise.
    pub(super) fn new(account_id: &str, promise: Promise) -> Self {
        Self { account_id: account_id.to_owned(), revocation: Revocation::new(promise), ..Self::default() }
    }

    /// The next record is the first of the trail.
    pub(super) fn begin_trail(&mut self) {
        self.revocation.begin_trail();
    }

    /// The broker's promise about revoked keys, as of the latest record.
    pub(super) fn promise(&self) -> Promise {
        self.revocation.promise()
    }

    /// The records before this source could not all be read: what is missing for it, or a later one, may be among them.
    pub(super) fn doubt_from(&mut self, source: u32) {
        self.doubted_from.get_or_insert(source);
    }

    /// Records that follow could not be read: those of failed calls to KMS, which may come a little after their calls', may be among them.
    pub(super) fn doubt_failures(&mut self) {
        self.unread_since.get_or_insert(self.newest);
    }

    /// The records that follow are those that are not delivered yet, up to the newest one.
    pub(super) fn begin_journal(&mut self) {
        self.has_journal = true;
    }

    /// Begins the next source of records.
    pub(super) fn begin(&mut self, source: &str) -> u32 {
        self.sources.push(source.to_owned());
        u32::try_from(self.sources.len() - 1).unwrap_or(u32::MAX)
    }

    /// Checks the contents of a log file.
    pub(super) fn log_file(&mut self, key: &str, read: ReadLogFile) {
        let source = self.begin(key);
        let ReadLogFile { mut records, broken, flaws, uses } = read;
        uses::merge(&mut self.uses, uses);
        let whole = || Place::object(key);
        if flaws.hash {
            let words = "its hash is not the one in its digest: it was changed after it was delivered";
            self.findings.unsound(FindingKind::LogFileHash, whole(), words);
        }
        let (mut span, mut number) = (Span::default(), 0);
        for record in records.drain() {
            number += 1;
            self.checked(source, number, record, &mut span);
        }
        if let Some(malformed) = broken {
            self.has_malformed = true;
            let place = Place { record: Some(number as u64 + 1), ..whole() };
            self.findings.unsound(FindingKind::LogFileMalformed, place, malformed.to_string());
        }
        self.end(span);
        if flaws.chain {
            let words = "its records are not those whose place in the journal's chain its digest says";
            self.findings.unsound(FindingKind::LogFileChain, whole(), words);
        }
        if flaws.times {
            let words = "the oldest or the newest of its records is of another time than its digest says";
            self.findings.unsound(FindingKind::LogFileTimes, whole(), words);
        }
    }

    /// Checks one record, the `number`th of its source.
    pub(super) fn record(&mut self, source: u32, number: usize, json: &str, span: &mut Span) {
        let record = record::read(json, &self.account_id, &self.hashes, None);
        self.checked(source, number, record, span);
    }

    /// The numbers of KMS records and activity records so far.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.kms_records, self.activity_records)
    }

    /// The random key of the hashes by which records are compared.
    pub(super) fn hashes(&self) -> &RandomState {
        &self.hashes
    }

    fn checked(
        &mut self,
        source: u32,
        number: usize,
        record: Result<CheckedRecord, InvalidRecord>,
        span: &mut Span,
    ) {
        let mut at = At { source, record: u32::try_from(number).unwrap_or(u32::MAX), event_id: 0 };
        match record {
            Ok(seen) => {
                at.event_id = seen.event_id;
                span.widen(seen.at);
                self.newest = self.newest.max(seen.at);
                self.seen(seen, at);
                self.flush();
            }
            Err(InvalidRecord { event_id, why }) => {
                self.malformed_records += 1;
                (span.has_malformed, self.has_malformed) = (true, true);
                at.event_id = event_id.map_or(0, |id| id.as_u128());
                self.findings.unsound(FindingKind::RecordMalformed, self.place(at), why);
            }
        }
    }

    /// Ends a source.
    pub(super) fn end(&mut self, span: Span) {
        if let Some((oldest, _)) = span.times {
            self.reuse.sweep(oldest, &mut self.faults);
            self.flush();
        }
    }

    fn seen(&mut self, CheckedRecord { event_id, at: seen_at, what, session }: CheckedRecord, at: At) {
        if !self.event_ids.insert(event_id) {
            self.findings.unsound(
                FindingKind::EventIdTwice,
                self.place(at),
                "another record has the same eventID",
            );
        }
        if let Some(SigningSession { access_key, arn }) = session
            && *self.sessions.entry(access_key).or_insert(arn) != arn
        {
            let words = "another record names another session of this access key, which is of one for good";
            self.findings.unsound(FindingKind::SessionMixed, self.place(at), words);
        }
        match what {
            What::Kms { request, call, materials } => {
                self.kms_records += 1;
                if !self.kms_requests.insert(request) {
                    let words = "another KMS record has the same requestID and eventName";
                    self.findings.unsound(FindingKind::RequestIdTwice, self.place(at), words);
                }
                self.failed.remove(&request);
                self.materials.called(event_id, materials, call.at, at, &mut self.faults);
                self.revocation.called(event_id, &call, &mut self.faults);
                self.reuse.called(event_id, call, &mut self.faults);
            }
            What::Activity { made, failed, is_withdrawal, told, notice_id, revocation } => {
                self.activity_records += 1;
                if let Some(told) = revocation {
                    self.revocation.told(event_id, seen_at, &told);
                }
                if let Some(made) = made {
                    self.materials.used(made.call, made.ciphertexts, at, &mut self.faults);
                    self.revocation.used(&made, at, &mut self.faults);
                    self.reuse.used(&made, at, &mut self.faults);
                }
                if let Some(failed) = failed.filter(|failed| !self.kms_requests.contains(*failed)) {
                    self.failed.entry(failed).or_insert((at, seen_at));
                }
                self.notices.extend(notice_id);
                if is_withdrawal {
                    let words = "it withdraws a record of this call, which was written too late: its answer never left";
                    self.findings.note(FindingKind::RecordWithdrawn, self.place(at), words);
                }
                if let Some(told) = told {
                    self.told(*told, self.place(at), "it tells");
                }
            }
        }
    }

    /// Checks a notice that the broker has saved and no record has reported.
    pub(super) fn untold(&mut self, untold: &Untold, source: &str) {
        if !self.notices.contains(&untold.id.as_u128()) && untold.journal != Notice::default() {
            self.told(
                untold.journal,
                Place::object(source),
                "no record tells it yet, but the broker has noted",
            );
        }
    }

    /// Turns a notice about the journal into findings.
    fn told(&mut self, told: Notice, place: Place, how: &str) {
        let Notice {
            torn_bytes,
            damaged_bytes,
            missing_records,
            unrecorded_refusals,
            unrecorded_kms_answers,
        } = told;
        if damaged_bytes > 0 || missing_records > 0 {
            let words = format!(
                "{how} that the journal lost records before they were delivered: {missing_records} records were gone, and \
                 {damaged_bytes} bytes did not fit the chain"
            );
            self.findings.unsound(FindingKind::RecordsLost, place.clone(), words);
        }
        if unrecorded_kms_answers > 0 {
            let words = format!("{how} that {unrecorded_kms_answers} answers of KMS have no record");
            self.findings.unsound(FindingKind::RecordsLost, place.clone(), words);
        }
        if torn_bytes > 0 || unrecorded_refusals > 0 {
            let words = format!(
                "{how} {torn_bytes} bytes of an unfinished commit, for which no reply went out, and {unrecorded_refusals} refused \
                 calls without a record"
            );
            self.findings.note(FindingKind::JournalNotice, place, words);
        }
    }

    /// Ends the trail. `from` is where verification began, if not at the trail's beginning.
    pub(super) fn finish(mut self, is_complete: bool, from: Option<i64>, report: &mut Report) {
        // A missing KMS record may be among those that could not be read.
        let is_complete = is_complete && !self.has_malformed;
        let revocation = std::mem::take(&mut self.revocation);
        self.flush();
        revocation.finish(is_complete, from, &mut self.faults);
        let reuse = std::mem::take(&mut self.reuse);
        report.keys_used = reuse.finish(is_complete, from, &mut self.faults);
        let doubted_from = self.doubted_from;
        let is_doubted = |fault: &&mut Fault| doubted_from.is_some_and(|from| fault.at.source >= from);
        let missing = self.faults.iter_mut().filter(|fault| fault.kind == FindingKind::KmsRecordMissing);
        for fault in missing.filter(is_doubted) {
            fault.severity = fault.severity.min(Severity::CannotTell);
        }
        self.flush();
        self.judge_failed(is_complete, from, report.state);
        report.uses = self.uses;
        report.kms_records = self.kms_records;
        report.activity_records = self.activity_records;
        report.records = self.kms_records + self.activity_records + self.malformed_records;
        self.findings.conclude(report);
    }

    /// Judges failed calls to KMS without a record. Only the last ones can have it in what was not read.
    fn judge_failed(&mut self, is_complete: bool, from: Option<i64>, state: Option<TrailState>) {
        let has_end = self.has_journal || state == Some(TrailState::Closed);
        let unread_since = self.unread_since.or((!has_end).then_some(self.newest));
        let mut failed: Vec<_> = std::mem::take(&mut self.failed).into_values().collect();
        failed.sort_by_key(|(at, _)| (at.source, at.record));
        for (at, called_at) in failed {
            let may_come =
                unread_since.is_some_and(|since| called_at.saturating_add(LONGEST_CALL_SECONDS) >= since);
            // Or the record may have been delivered before `from`.
            let severity = if from.is_some() || !is_complete || may_come {
                Severity::CannotTell
            } else {
                Severity::Unsound
            };
            let words = "it names the requestID of a KMS record that is not there";
            self.findings.add(FindingKind::KmsRecordMissing, severity, self.place(at), words);
        }
    }

    fn flush(&mut self) {
        for Fault { kind, severity, at, words } in std::mem::take(&mut self.faults) {
            self.findings.add(kind, severity, self.place(at), words);
        }
    }

    fn place(&self, at: At) -> Place {
        Place {
            object: self.sources.get(at.source as usize).cloned().unwrap_or_default(),
            record: Some(at.record.into()),
            event_id: (at.event_id != 0).then(|| Uuid::from_u128(at.event_id)),
        }
    }
}
