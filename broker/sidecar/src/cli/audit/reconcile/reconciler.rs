//! Compares our KMS records with AWS's: which calls have both, and which only one.
//!
//! A call is the same call where requestID and eventName are the same: requestID alone is not unique in CloudTrail. First all
//! of our records are added, then AWS's, in any order; what is not ours is forgotten at once.

use std::collections::{BTreeSet, HashMap, HashSet};

use key_broker_trail::record::{self, ReadRecord, UserIdentity};
use key_broker_trail::{TRAIL_ARN, Unread};
use time::OffsetDateTime;

use super::EDGE;
use super::call::{ComparedCall, Difference, compare, difference};
use super::classes::{Classes, Head, Kind, SeenIds};
use super::outcome::{Match, OWN, Reconciliation};
use super::principals::Principals;
use super::range::{Question, Range, common_range, widen};
use super::reader_records::{ReaderRecords, reads_the_trail};
use super::siblings::{OfSiblings, Siblings};
use super::takings::OfTakings;
use crate::redaction::Digester;

/// Joins the two.
#[derive(Default)]
pub(super) struct Reconciler {
    /// Ours that AWS has not shown yet, by requestID.
    ours: HashMap<String, Vec<ComparedCall>>,
    our_ids: HashSet<String>,
    range: Option<Range>,
    regions: BTreeSet<String>,
    principals: Principals,
    /// AWS's with our identity that we have not, and whether it reads the trail.
    theirs: Vec<(ComparedCall, bool)>,
    their_ids: HashSet<String>,
    their_range: Option<Range>,
    readers: ReaderRecords,
    /// The key with which values in the trail are redacted.
    key: Option<Digester>,
    /// Calls with values that take this key, and it is not there.
    untold: usize,
    /// The keys with which the broker signs the trail.
    signing_keys: BTreeSet<String>,
    /// requestIDs of signatures of closing digests: each explains one Sign.
    closing_signs: HashSet<String>,
    /// requestIDs of data keys of log files.
    data_keys: HashSet<String>,
    named_by_digests: usize,
    by_readers: usize,
    by_services: usize,
    matched: usize,
    differences: Vec<Difference>,
    /// The keys that the trail's calls are about.
    keys: BTreeSet<String>,
    classes: Classes,
    others: SeenIds,
    siblings: Siblings,
    /// The times of which the trail could not be read.
    unread: Vec<[Option<OffsetDateTime>; 2]>,
    /// Whether AWS's files have any call to KMS.
    has_calls_to_kms: bool,
}

impl Reconciler {
    /// Joins with what these readers have recorded themselves.
    pub(super) fn new(readers: ReaderRecords) -> Self {
        Self { readers, ..Self::default() }
    }

    /// The same, with the key under which values in the trail are redacted.
    pub(super) fn with_key(self, key: Option<Digester>) -> Self {
        Self { key, ..self }
    }

    /// Adds whose the calls are of another broker that is expected.
    pub(super) fn add_sibling(&mut self, identity: &UserIdentity<'_>) {
        self.principals.add(identity);
    }

    /// Takes what other trails have, before AWS's records come.
    pub(super) fn set_siblings(&mut self, siblings: Siblings) {
        self.siblings = siblings;
    }

    /// Takes the objects of the trail that could not be read: a call of their times may be in one of them.
    pub(super) fn set_unread(&mut self, unread: &[Unread]) {
        self.unread = unread.iter().map(|unread| unread.times).collect();
    }

    /// Adds calls that digests of the trail name.
    pub(super) fn add_named(&mut self, closing_signs: HashSet<String>, data_keys: HashSet<String>) {
        (self.closing_signs, self.data_keys) = (closing_signs, data_keys);
    }

    /// Whether a digest names this call, which the trail cannot have: the signature of a closing digest, or the data key of a log file.
    /// Each explains one.
    fn take_named(&mut self, theirs: &ReadRecord<'_>, question: &Question) -> bool {
        match &*theirs.event_name {
            "Sign" => {
                theirs.key_arn().is_some_and(|key| self.signing_keys.contains(key))
                    && self.closing_signs.remove(&*theirs.request_id)
            }
            "GenerateDataKey" => {
                is_for_this_trail(theirs, question) && self.data_keys.remove(&*theirs.request_id)
            }
            _ => false,
        }
    }

    /// The keys that the trail's calls are about.
    pub(super) fn keys(&self) -> &BTreeSet<String> {
        &self.keys
    }

    /// Adds a record of the trail. All of them come before AWS's. False if it was there already.
    pub(super) fn add_ours(&mut self, record: &ReadRecord<'_>) -> bool {
        let is_new = self.our_ids.insert(record.event_id.to_string());
        if is_new {
            self.add_new(record);
        }
        is_new
    }

    fn add_new(&mut self, record: &ReadRecord<'_>) {
        if !record.is_of_kms() {
            // It says whose an access key is, where records had the key alone.
            if let Some(identity) = record.activity().ok().flatten().and_then(|told| told.identity) {
                self.principals.add(&identity);
            }
            return;
        }
        widen(&mut self.range, record.event_time);
        self.regions.insert(record.aws_region.to_string());
        // Who only reads the trail may do with KMS what the broker knows nothing of.
        if !record.is_of_the_broker_itself() || matches!(&*record.event_name, "GenerateDataKey" | "Sign") {
            self.principals.add(&record.user_identity);
        }
        if record.is_of_the_broker_itself()
            && matches!(&*record.event_name, "Sign" | "GetPublicKey")
            && let Some(key) = record.key_arn()
        {
            self.signing_keys.insert(key.to_owned());
        }
        if let Some(key) = record.key_arn().filter(|key| !self.keys.contains(*key)) {
            self.keys.insert(key.to_owned());
        }
        self.ours.entry(record.request_id.to_string()).or_default().push(record.into());
    }

    /// Adds a record of AWS's, as JSON.
    pub(super) fn add_aws(&mut self, json: &str, question: &Question) -> Result<(), record::MalformedRecord> {
        let head = Head::parse(json)?;
        let is_of_kms = &*head.event_source == KMS;
        match head.kind() {
            Kind::Call => {}
            Kind::Summary => {
                self.classes.summaries += 1;
                return Ok(());
            }
            Kind::NetworkActivity if is_of_kms => return self.classes.add_network_activity(json),
            Kind::NetworkActivity => return Ok(()),
        }
        if self.our_ids.contains(&*event_id_of(json)) {
            // The trail itself, or a copy: AWS's record of a call has an id of its own.
            self.classes.own += 1;
            return Ok(());
        }
        if self.regions.contains(&*head.aws_region) {
            widen(&mut self.their_range, head.event_time);
        }
        // The broker's credentials are as good in any other region.
        if is_of_kms {
            self.has_calls_to_kms = true;
            self.join(&ReadRecord::parse(json)?, question);
        }
        Ok(())
    }

    fn join(&mut self, theirs: &ReadRecord<'_>, question: &Question) {
        let same_call = |ours: &ComparedCall| *ours.call.event_name == *theirs.event_name;
        let place = self.ours.get(&*theirs.request_id).and_then(|calls| calls.iter().position(same_call));
        let is_ours = self.principals.have(&theirs.user_identity);
        let reads = place.is_none() && reads_the_trail(theirs, &question.trail_arns, &self.signing_keys);
        let is_of_a_reader = reads && self.readers.have(theirs);
        if place.is_none() && !is_ours && !is_of_a_reader {
            let is_under_our_key = theirs.key_arn().is_some_and(|key| self.keys.contains(key));
            let ids = [Some(&theirs.event_id), theirs.shared_event_id.as_ref()];
            if is_under_our_key
                && question.has(theirs.event_time)
                && self.others.are_new(ids.into_iter().flatten().map(|id| &**id))
            {
                self.classes.add_other(theirs);
            }
            return;
        }
        // Another file, or another account's trail, may have the same call once more.
        let ids = [Some(&theirs.event_id), theirs.shared_event_id.as_ref()];
        let mut is_new = true;
        for id in ids.into_iter().flatten() {
            is_new &= self.their_ids.insert(id.to_string());
        }
        if !is_new {
            return;
        }
        let Some(place) = place else {
            if self.take_named(theirs, question) {
                self.named_by_digests += usize::from(question.has(theirs.event_time));
            } else if is_of_a_reader {
                self.by_readers += usize::from(question.has(theirs.event_time));
            } else if is_of_this_trails_objects(theirs, question) {
                self.by_services += usize::from(question.has(theirs.event_time));
            } else {
                self.theirs.push((theirs.into(), reads));
            }
            return;
        };
        let Some(calls) = self.ours.get_mut(&*theirs.request_id) else { return };
        let ours = calls.swap_remove(place);
        if question.has(ours.call.event_time) {
            self.matched += 1;
            let is_told = compare(&ours, &theirs.into(), self.key.as_ref(), &mut self.differences);
            self.untold += usize::from(!is_told);
        }
    }

    /// Ends the comparison and returns its result.
    #[must_use]
    pub(super) fn finish(mut self, question: &Question) -> Reconciliation {
        self.match_names(question);
        let mut outcome = Reconciliation {
            verdict: Match::CannotTell,
            why: None,
            range: None,
            matched: self.matched,
            differences: self.differences,
            missing_from_aws: Vec::new(),
            missing_from_trail: Vec::new(),
            unread: Vec::new(),
            left_out: 0,
            too_new: 0,
            outside: 0,
            outside_the_trail: 0,
            named_by_digests: self.named_by_digests,
            by_services: self.by_services,
            by_readers: self.by_readers,
            siblings: OfSiblings::default(),
            classes: self.classes,
            maybe_of_readers: 0,
            takings: OfTakings::default(),
        };
        if !self.has_calls_to_kms {
            let why = if outcome.classes.own > 0 { OWN } else { NOTHING_OF_KMS };
            return Reconciliation { why: Some(why.into()), ..outcome };
        }
        let range = match common_range(self.range, self.their_range, question) {
            Ok(range) => range,
            Err(why) => return Reconciliation { why: Some(why.into()), ..outcome },
        };
        outcome.range = Some(range);
        let ours = self.ours.into_values().flatten().map(|known| known.call);
        for ours in ours.filter(|ours| question.has(ours.event_time)) {
            match ours.event_time {
                at if at > question.settled => outcome.too_new += 1,
                at if range.has(at) => outcome.missing_from_aws.push(ours),
                _ => outcome.outside += 1,
            }
        }
        let theirs = self.theirs.into_iter().map(|(known, reads)| (known.call, reads));
        for (theirs, reads) in theirs.filter(|(theirs, _)| question.has(theirs.event_time)) {
            if self.siblings.take(&theirs.request_id, &theirs.event_name, &mut outcome.siblings) {
                continue;
            }
            if theirs.event_time > question.settled {
                outcome.too_new += 1;
            } else if theirs.error_code.is_some() {
                outcome.classes.add_refused(theirs);
            } else if is_unread(&self.unread, theirs.event_time) {
                outcome.unread.push(theirs);
            } else if range.has(theirs.event_time) {
                outcome.maybe_of_readers += usize::from(reads);
                outcome.missing_from_trail.push(theirs);
            } else {
                outcome.outside_the_trail += 1;
            }
        }
        outcome.sort();
        if !outcome.missing_from_trail.is_empty() {
            outcome.siblings.unverified = self.siblings.unverified().to_vec();
        }
        outcome.judge();
        outcome.leave_redacted(self.untold);
        outcome
    }

    /// Calls with one requestID and two names are one call, with a difference.
    fn match_names(&mut self, question: &Question) {
        let (ours, differences, matched) = (&mut self.ours, &mut self.differences, &mut self.matched);
        let (key, untold) = (self.key.as_ref(), &mut self.untold);
        self.theirs.retain(|(theirs, _)| {
            let Some(ours) = ours.get_mut(&theirs.call.request_id).and_then(Vec::pop) else { return true };
            if question.has(ours.call.event_time) {
                *matched += 1;
                let (our_name, name) = (ours.call.event_name.clone(), theirs.call.event_name.clone());
                differences.extend(difference(&ours.call, "eventName", Some(our_name), Some(name)));
                *untold += usize::from(!compare(&ours, theirs, key, differences));
            }
            false
        });
    }
}

/// Whether the trail's record of this time may be in an object that could not be read. The two records of a call differ by minutes at most: AWS
/// takes no request that is signed with another time.
fn is_unread(unread: &[[Option<OffsetDateTime>; 2]], at: OffsetDateTime) -> bool {
    unread.iter().any(|[from, to]| {
        from.is_none_or(|from| at >= from.saturating_sub(EDGE))
            && to.is_none_or(|to| at <= to.saturating_add(EDGE))
    })
}

/// Whether S3 asked for it, to store an object of this very trail: then the broker has no record of it, nor needs one.
fn is_of_this_trails_objects(theirs: &ReadRecord<'_>, question: &Question) -> bool {
    theirs.user_identity.invoked_by.is_some()
        && &*theirs.event_name == "GenerateDataKey"
        && is_for_this_trail(theirs, question)
}

fn is_for_this_trail(theirs: &ReadRecord<'_>, question: &Question) -> bool {
    let mut context = theirs.encryption_context().rev();
    context.find(|pair| pair.0 == TRAIL_ARN).is_some_and(|pair| question.trail_arns.contains(pair.1))
}

/// The `eventID` of a record; nothing where it has none.
fn event_id_of(json: &str) -> record::Text<'_> {
    #[derive(serde::Deserialize)]
    struct Id<'a> {
        #[serde(rename = "eventID", borrow, default)]
        event_id: record::Text<'a>,
    }
    record::parse::<Id<'_>>(json).map(|id| id.event_id).unwrap_or_default()
}

/// Why there is no verdict beside files without KMS.
const NOTHING_OF_KMS: &str = "AWS's files have no call to KMS at all: their trail leaves KMS out (ExcludeManagementEventSources), or they are of \
                              another account, region or time";
/// `eventSource` of KMS's records.
const KMS: &str = "kms.amazonaws.com";

#[cfg(test)]
mod tests;
