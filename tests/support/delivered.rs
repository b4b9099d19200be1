//! A delivered trail, checked as a whole: files, digests, and the journal's chain through all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use key_broker_trail::PublicKey;
use kms_emulator::Call;
use serde_json::Value;

use super::formats::{Place, files, journal_header, journal_line};
use super::load::{Refusal, Told};
use super::trail::{BUCKET, checked_digests, inflated, log_files};

/// Everything that was delivered, in order, and what the journal still holds.
pub struct Delivered {
    /// Delivered records, as text.
    pub texts: Vec<String>,
    /// The same, read.
    pub records: Vec<Value>,
    /// Where a record is, by its eventID.
    by_event: BTreeMap<String, usize>,
    /// Activity records by requestID.
    by_request: BTreeMap<String, Vec<usize>>,
    /// The number of digests.
    pub digests: usize,
    /// The number of log files.
    pub log_files: usize,
    /// What is in the journal.
    pub undelivered: Vec<Value>,
    /// Places where the chain does not go on: none, unless somebody removed records.
    pub gaps: usize,
}

impl Delivered {
    /// Reads the trail below `root` and the journal behind it. Panics unless every digest is signed and chained, every log
    /// file is in exactly one digest, and no eventID is there twice.
    pub fn read(root: &Path, journal: &Path, key: &PublicKey) -> Self {
        let digests = checked_digests(root, key);
        let mut all = Self {
            texts: Vec::new(),
            records: Vec::new(),
            by_event: BTreeMap::new(),
            by_request: BTreeMap::new(),
            digests: digests.len(),
            log_files: log_files(root).len(),
            undelivered: Vec::new(),
            gaps: 0,
        };
        let mut link = Place::START;
        for file in digests.iter().flat_map(|digest| &digest.log_files) {
            link = all.add_file(&root.join(BUCKET).join(&file.s3_object), link);
        }
        all.add_journal(journal, link);
        let ids = all.records.iter().chain(&all.undelivered).map(|record| record["eventID"].to_string());
        let ids: Vec<_> = ids.collect();
        let distinct: BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len(), "no record twice");
        all
    }

    fn add_file(&mut self, path: &Path, mut link: Place) -> Place {
        let json = String::from_utf8(inflated(path)).expect("text");
        let mut rest = json.strip_prefix("{\"Records\":[").expect("a log file");
        while rest != "]}" {
            rest = rest.strip_prefix(',').unwrap_or(rest);
            let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
            let value = values.next().expect("a record").expect("JSON");
            let (text, behind) = rest.split_at(values.byte_offset());
            rest = behind;
            link = link.next(text.as_bytes());
            let place = self.records.len();
            self.by_event.insert(value["eventID"].as_str().expect("an id").to_owned(), place);
            if value["eventCategory"] == "ActivityAuditLog" {
                let id = value["requestID"].as_str().expect("an id").to_owned();
                self.by_request.entry(id).or_default().push(place);
            }
            self.texts.push(text.to_owned());
            self.records.push(value);
        }
        link
    }

    /// The delivered records, hashed again, have to be the journal's chain up to where its files begin.
    fn add_journal(&mut self, journal: &Path, mut link: Place) {
        for file in files(journal).expect("a journal") {
            let text = fs::read_to_string(&file.path).expect("reads");
            let (header, lines) = text.split_once('\n').unwrap_or_default();
            let before = match journal_header(header) {
                Some(before) => before,
                // It could be neither begun nor removed: the next start does that.
                None if file.closed_at.is_none() => continue,
                None => panic!("{}: {header}", file.path.display()),
            };
            let (mut place, mut records) = (before, Vec::new());
            for line in lines.split_inclusive('\n') {
                let (told, record) = line.strip_suffix('\n').and_then(journal_line).expect("a line");
                place = place.next(record.as_bytes());
                assert_eq!(told, place, "fits its chain");
                records.push(serde_json::from_str(record).expect("a record"));
            }
            // The newest delivered file stays until another one is there.
            if records.is_empty() || place == link {
                continue;
            }
            self.gaps += usize::from(before != link);
            self.undelivered.append(&mut records);
            link = place;
        }
    }

    /// The KMS record with this eventID.
    pub fn kms(&self, event_id: &str) -> Option<&Value> {
        self.by_event.get(event_id).map(|place| &self.records[*place])
    }

    /// The activity records of a call: one, if all is well.
    pub fn activity(&self, request_id: &str) -> Vec<&Value> {
        let places = self.by_request.get(request_id).into_iter().flatten();
        places.map(|place| &self.records[*place]).collect()
    }

    /// Every reply and refusal that reached a caller is there once, as it was told, with the KMS record behind it.
    pub fn assert_holds(&self, told: &[Told]) {
        for told in told {
            let found = self.activity(&told.request_id);
            assert_eq!(found.len(), 1, "{told:?}: {found:?}");
            let event = &found[0]["additionalEventData"];
            if let Some(outcome) = told.outcome {
                assert_eq!(event["outcome"], outcome, "{told:?}");
            }
            if let Some(id) = &told.kms_event_id {
                assert_eq!(event["dataKey"]["kmsEventID"], id.as_str(), "{told:?}");
                assert!(
                    self.kms(id).is_some_and(|record| record["eventCategory"] == "Management"),
                    "{told:?}"
                );
            }
        }
    }

    /// Every call that was refused because the journal could not commit is there once: as refused or, only if its wait was
    /// over, as the answer that it would have been.
    pub fn assert_holds_refused(&self, refused: &[Refusal]) {
        for refusal in refused {
            let found = self.activity(&refusal.request_id);
            assert_eq!(found.len(), 1, "{refusal:?}: {found:?}");
            let outcome = &found[0]["additionalEventData"]["outcome"];
            assert!(outcome == "Failed" || refusal.took >= COMMIT_WAIT, "{refusal:?}: {:?}", found[0]);
        }
    }

    /// The answers of KMS that have no record.
    pub fn unrecorded(&self, calls: Vec<Call>) -> Vec<Call> {
        let kms = self.records.iter().filter(|record| record["eventCategory"] == "Management");
        let recorded: BTreeSet<_> = kms.filter_map(|record| record["requestID"].as_str()).collect();
        let is_due = |call: &Call| call.operation != "GetCallerIdentity" && call.error.is_none();
        let missing = |call: &Call| is_due(call) && !recorded.contains(call.request_id.as_str());
        calls.into_iter().filter(missing).collect()
    }

    /// The sum of what the records tell of the journal under this name, such as `tornBytes`.
    pub fn told_of_journal(&self, name: &str) -> u64 {
        let told = self.records.iter().map(|record| &record["additionalEventData"]["journal"][name]);
        told.filter_map(Value::as_u64).sum()
    }
}

/// `audit.commit_wait_ms`, by default.
const COMMIT_WAIT: Duration = Duration::from_secs(2);
