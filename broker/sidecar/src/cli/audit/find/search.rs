//! The search: an id names calls, a call names its data key, and a data key all its uses, wherever they are.
//!
//! Records are searched place by place (a log file, or a journal segment). A place is read again if ids that were learned later may be in
//! it. There is no index, and only records of the story are kept.

use std::collections::HashMap;

use key_broker_trail::record::{ReadRecord, ServedFrom};
use memchr::memmem::Finder;
use time::{Duration, OffsetDateTime};

use super::wanted::Wanted;
use crate::cli::audit::period::Period;

/// The times of the oldest and newest record of a place, if known.
pub(super) type Times = [Option<OffsetDateTime>; 2];

/// A record of the story.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) at: OffsetDateTime,
    /// As it is.
    pub(super) json: String,
    /// Which place it is in.
    pub(super) place: usize,
}

/// Records, of which there may be more than are kept.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) kept: Vec<Found>,
    pub(super) in_all: u64,
}

/// A data key, or another answer of KMS: the calls to KMS that made or decrypted it, and the calls that got it.
#[derive(Debug, Default)]
pub(super) struct DataKey {
    /// SHA-256 of its ciphertext, in hex; `None` without one.
    pub(super) ciphertext_sha256: Option<String>,
    pub(super) kms_records: Records,
    /// Uses, except for the calls that the story is about.
    pub(super) uses: Records,
}

/// The records that were found.
#[derive(Debug, Default)]
pub(super) struct Story {
    /// The calls that the id names or, where it names none, those for which KMS was called.
    pub(super) calls: Records,
    pub(super) data_keys: Vec<DataKey>,
    /// Whether there are more data keys than are followed.
    pub(super) is_cut: bool,
}

pub(super) struct Search {
    wanted: Wanted,
    period: Period,
    needles: Vec<Needle>,
    /// How many times places were read.
    reads: u64,
    places: Vec<Place>,
    by_ciphertext: HashMap<String, Known>,
    by_event: HashMap<String, Known>,
    story: Story,
}

/// What an id or a hash is known to be.
#[derive(Clone, Copy)]
struct Known {
    /// Which of the story's data keys it is of.
    key: usize,
    /// In which reading that was learned.
    since: u64,
}

struct Place {
    times: Times,
    /// Which reading was the last one; 0: none.
    read: u64,
}

/// A text that records of the story have.
struct Needle {
    finder: Finder<'static>,
    /// In which reading it was learned: places that were read before have to be read again.
    known: u64,
    /// The time that records with it are of.
    times: Times,
}

/// Facts in a record that lead to other records.
struct Facts {
    at: OffsetDateTime,
    is_kms: bool,
    /// Whether the id is its own.
    is_named: bool,
    /// The eventID of the KMS record behind it, or its own.
    kms_event: Option<String>,
    ciphertext: Option<String>,
    /// When KMS answered, and since when the ciphertext exists.
    minted: Option<OffsetDateTime>,
    made: Option<OffsetDateTime>,
    is_for_kms: bool,
}

impl Search {
    /// A search through as many places as there are times.
    pub(super) fn new(wanted: Wanted, period: Period, times: impl IntoIterator<Item = Times>) -> Self {
        let places = times.into_iter().map(|times| Place { times, read: 0 }).collect();
        let finder = Finder::new(wanted.text()).into_owned();
        let needles = vec![Needle { finder, known: 1, times: [None, None] }];
        let (by_ciphertext, by_event) = (HashMap::new(), HashMap::new());
        Self { wanted, period, needles, reads: 0, places, by_ciphertext, by_event, story: Story::default() }
    }

    /// The places to read now: first all of them, then those that may contain newly learned ids. `None` at the end.
    pub(super) fn next_pass(&self) -> Vec<usize> {
        let is_due = |place: &Place| {
            self.needles
                .iter()
                .any(|needle| place.read < needle.known && overlap(&needle.times, &place.times))
        };
        (0..self.places.len()).filter(|at| is_due(&self.places[*at])).collect()
    }

    /// Leaves a place out for good.
    pub(super) fn leave_out(&mut self, place: usize) {
        self.places[place].read = u64::MAX;
    }

    /// Whether there can be anything in such a text.
    pub(super) fn concerns(&self, text: &[u8]) -> bool {
        // With many, looking for each costs more than reading the record.
        self.needles.len() > MANY_NEEDLES
            || self.needles.iter().any(|needle| needle.finder.find(text).is_some())
    }

    /// Takes all records of a place.
    pub(super) fn take(&mut self, place: usize, records: &[&str]) -> Result<(), String> {
        self.reads += 1;
        let before = self.places[place].read;
        loop {
            let known = self.needles.len();
            for record in records {
                if let Some(facts) = self.facts(record)? {
                    self.learn(&facts);
                }
            }
            if self.needles.len() == known {
                break;
            }
        }
        for record in records {
            if let Some(facts) = self.facts(record)?
                && !self.was_taken(&facts, before)
            {
                self.keep(&facts, place, record);
            }
        }
        self.places[place].read = self.reads;
        Ok(())
    }

    /// The records that were found, in the order of time.
    pub(super) fn story(mut self) -> Story {
        let story = &mut self.story;
        if story.calls.in_all == 0 {
            for key in &mut story.data_keys {
                promote(&mut story.calls, &mut key.uses, &self.wanted);
            }
        }
        story
            .data_keys
            .retain(|key| key.kms_records.in_all + key.uses.in_all > 0 || key.ciphertext_sha256.is_some());
        let keys = story.data_keys.iter_mut().flat_map(|key| [&mut key.kms_records, &mut key.uses]);
        for records in keys.chain([&mut story.calls]) {
            records.kept.sort_by_key(|found| found.at);
        }
        self.story
    }

    /// The facts in a record; none if it does not belong to the story.
    fn facts(&self, json: &str) -> Result<Option<Facts>, String> {
        if !self.concerns(json.as_bytes()) {
            return Ok(None);
        }
        let record = ReadRecord::parse(json).map_err(|malformed| malformed.to_string())?;
        if !self.period.has(record.event_time) {
            return Ok(None);
        }
        let facts = if record.is_of_kms() { self.of_kms(&record) } else { self.of_call(&record)? };
        let is_known = self.known_event(&facts).is_some() || self.known_ciphertext(&facts).is_some();
        Ok((facts.is_named || facts.is_for_kms || is_known).then_some(facts))
    }

    fn of_kms(&self, record: &ReadRecord<'_>) -> Facts {
        let is_wanted = |id: &str| matches!(&self.wanted, Wanted::Id(wanted) if wanted == id);
        Facts {
            at: record.event_time,
            is_kms: true,
            is_named: is_wanted(&record.request_id) || is_wanted(&record.event_id),
            kms_event: Some(record.event_id.to_string()),
            ciphertext: None,
            minted: Some(record.event_time),
            made: None,
            is_for_kms: false,
        }
    }

    fn of_call(&self, record: &ReadRecord<'_>) -> Result<Facts, String> {
        let data = record.activity().map_err(|malformed| malformed.to_string())?;
        let (id, trace, sha256) = match &self.wanted {
            Wanted::Id(id) => (Some(id.as_str()), None, None),
            Wanted::Trace(id) => (None, Some(id.as_str()), None),
            Wanted::Sha256(hash) => (None, None, Some(hash.as_str())),
        };
        let is_id = |text: &str| id == Some(text);
        let key = data.as_ref().and_then(|data| data.data_key.as_ref());
        let refusals = data.as_ref().and_then(|data| data.refusals.as_ref());
        let others = data.iter().flat_map(|data| [data.withdraws, data.ends]).flatten();
        let is_of_other = others.map(|id| id.to_string()).any(|other| is_id(&other));
        let message =
            data.as_ref().and_then(|data| data.message.as_ref()).map(|message| &*message.header_sha256);
        let told = data.as_ref().and_then(|data| data.trace.as_ref().or(data.caller_trace.as_ref()));
        let is_named = is_id(&record.request_id)
            || is_id(&record.event_id)
            || is_of_other
            || (sha256.is_some() && message == sha256)
            || refusals.is_some_and(|all| is_id(&all.first_request_id) || is_id(&all.last_request_id))
            || told.is_some_and(|told| trace == Some(&*told.trace_id));
        let asked = record.request_parameters.as_ref().and_then(|asked| asked.ciphertext_sha256.as_deref());
        let got = key.and_then(|key| key.ciphertext_sha256.as_deref());
        let ciphertext = got.or(asked).map(str::to_owned);
        let kms_event = key.and_then(|key| key.kms_event_id).map(|id| id.to_string());
        let is_for_kms = key.and_then(|key| key.kms_request_id.as_deref()).is_some_and(is_id)
            || kms_event.as_deref().is_some_and(is_id)
            || (sha256.is_some() && ciphertext.as_deref() == sha256);
        let minted = key.and_then(|key| key.minted_at);
        let made = if got.is_some() { minted } else { None };
        let at = record.event_time;
        Ok(Facts { at, is_kms: false, is_named, kms_event, ciphertext, minted, made, is_for_kms })
    }

    /// Remembers which data key a record is of, and what else to look for.
    fn learn(&mut self, facts: &Facts) {
        let by_ciphertext = self.known_ciphertext(facts).map(|known| known.key);
        let by_event = self.known_event(facts).map(|known| known.key);
        let since = self.reads;
        let key = match (by_ciphertext, by_event) {
            (Some(one), Some(other)) if one != other => return self.join(one, other),
            (Some(key), _) | (None, Some(key)) => key,
            (None, None) if facts.kms_event.is_none() && facts.ciphertext.is_none() => return,
            (None, None) if self.story.data_keys.len() >= MOST_KEYS => {
                self.story.is_cut = true;
                return;
            }
            (None, None) => {
                self.story.data_keys.push(DataKey::default());
                self.story.data_keys.len() - 1
            }
        };
        if let (Some(hash), None) = (&facts.ciphertext, by_ciphertext) {
            self.by_ciphertext.insert(hash.clone(), Known { key, since });
            self.story.data_keys[key].ciphertext_sha256.get_or_insert_with(|| hash.clone());
            self.look_for(hash, [facts.made.map(|at| at - SLACK), None]);
        }
        if let (Some(id), None) = (&facts.kms_event, by_event) {
            self.by_event.insert(id.clone(), Known { key, since });
            let until = facts.minted.map(|at| at + LONGEST_LIFE + SLACK);
            self.look_for(id, [facts.minted.map(|at| at - SLACK), until]);
        }
    }

    /// Two are one: a call to KMS that was known, and a ciphertext.
    fn join(&mut self, one: usize, other: usize) {
        let DataKey { ciphertext_sha256, kms_records, uses } =
            std::mem::take(&mut self.story.data_keys[other]);
        let key = &mut self.story.data_keys[one];
        if key.ciphertext_sha256.is_none() {
            key.ciphertext_sha256 = ciphertext_sha256;
        }
        key.kms_records.append(kms_records);
        key.uses.append(uses);
        for known in self.by_event.values_mut().chain(self.by_ciphertext.values_mut()) {
            if known.key == other {
                known.key = one;
            }
        }
    }

    fn look_for(&mut self, text: &str, times: Times) {
        if text != self.wanted.text() {
            let finder = Finder::new(text).into_owned();
            self.needles.push(Needle { finder, known: self.reads, times });
        }
    }

    /// Whether an earlier reading of its place has taken it: one that knew what it is found by.
    fn was_taken(&self, facts: &Facts, before: u64) -> bool {
        let known = [self.known_event(facts), self.known_ciphertext(facts)];
        let was_known = known.into_iter().flatten().any(|known| before >= known.since);
        before > 0 && (facts.is_named || facts.is_for_kms || was_known)
    }

    fn known_event(&self, facts: &Facts) -> Option<&Known> {
        self.by_event.get(facts.kms_event.as_ref()?)
    }

    fn known_ciphertext(&self, facts: &Facts) -> Option<&Known> {
        self.by_ciphertext.get(facts.ciphertext.as_ref()?)
    }

    fn keep(&mut self, facts: &Facts, place: usize, json: &str) {
        let found = Found { at: facts.at, json: json.to_owned(), place };
        let known = self.known_ciphertext(facts).or_else(|| self.known_event(facts)).copied();
        match known.map(|known| &mut self.story.data_keys[known.key]) {
            Some(key) if facts.is_kms => key.kms_records.push(found),
            Some(key) if !facts.is_named => key.uses.push(found),
            _ => self.story.calls.push(found),
        }
    }
}

impl Records {
    fn push(&mut self, found: Found) {
        self.in_all += 1;
        if self.kept.len() < MOST_RECORDS {
            self.kept.push(found);
        }
    }

    fn append(&mut self, other: Self) {
        self.in_all += other.in_all;
        let room = MOST_RECORDS.saturating_sub(self.kept.len());
        self.kept.extend(other.kept.into_iter().take(room));
    }
}

/// The story is about the call that KMS was called for: the one of the wanted requestID, or the first.
fn promote(calls: &mut Records, uses: &mut Records, wanted: &Wanted) {
    let mut best: Option<((bool, bool, OffsetDateTime), usize)> = None;
    for (at, found) in uses.kept.iter().enumerate() {
        let record = ReadRecord::parse(&found.json).ok();
        let key = record.and_then(|record| record.activity().ok().flatten()?.data_key);
        let is_of_id = key.as_ref().is_some_and(|key| {
            let event = key.kms_event_id.map(|id| id.to_string());
            event.as_deref() == Some(wanted.text()) || key.kms_request_id.as_deref() == Some(wanted.text())
        });
        let is_miss = key.is_some_and(|key| key.served_from == ServedFrom::Kms);
        let rank = (!is_of_id, !is_miss, found.at);
        if best.is_none_or(|(before, _)| rank < before) {
            best = Some((rank, at));
        }
    }
    if let Some((_, at)) = best {
        calls.push(uses.kept.remove(at));
        uses.in_all -= 1;
    }
}

/// Whether there is a time that both have. Of a time that is not known, there may be.
fn overlap([from, to]: &Times, [oldest, newest]: &Times) -> bool {
    from.zip(*newest).is_none_or(|(from, newest)| newest >= from)
        && to.zip(*oldest).is_none_or(|(to, oldest)| oldest <= to)
}

/// So many records of a kind are kept; all are counted.
pub(super) const MOST_RECORDS: usize = 10_000;
/// So many data keys are followed: a trace id is the caller's own, and any number of calls may have it.
const MOST_KEYS: usize = 1_000;
const MANY_NEEDLES: usize = 16;
/// No configuration keeps a data key longer.
const LONGEST_LIFE: Duration = Duration::DAY;
/// A call waits for less, and clocks are set by less.
const SLACK: Duration = Duration::HOUR;

#[cfg(test)]
mod tests;
