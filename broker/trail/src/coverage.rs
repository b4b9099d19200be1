//! Until when the trails of a bucket vouch for their brokers, and with which log files. So if a call has no record, it is known whether
//! one may still come.
//!
//! A digest names what was delivered before, and a delivery takes everything that the journal then has. So everything from before a
//! digest *begins* is in it or in an earlier one; for what happened before it ends, this is not known.

use std::collections::HashSet;
use std::sync::Arc;

use time::{Duration, OffsetDateTime};

use crate::digest::{Digest, Position};
use crate::reader::{DigestKey, ReadFailure, TrailReader, digests_between};
use crate::record::parse_record_time;
use crate::signature::PublicKey;
use crate::verify::TrailState;
use crate::vouched::VouchedLogFile;

/// What the trails of a bucket vouch for, from some time on.
#[derive(Debug, Default)]
pub struct Coverage {
    /// The trails that were open then or later, by name.
    pub trails: Vec<CoveredTrail>,
    /// The requestIDs of the signatures of closing digests, whose records no log file can have.
    pub closing_signs: HashSet<String>,
    /// The requestIDs of the data keys of log files: the last one's record is in none.
    pub data_keys: HashSet<String>,
}

/// What one trail vouches for.
#[derive(Debug)]
pub struct CoveredTrail {
    /// The trail's name.
    pub name: String,
    /// Where its broker runs: a pod with its namespace, or a host; `None` if no digest that was read says so. The first digest does, and is
    /// read only where the place is needed.
    pub place: Option<String>,
    /// Whether no process of its broker can have been killed before the first of these log files.
    pub is_from_its_start: bool,
    /// The log files in signed digests, in order.
    pub files: Vec<VouchedLogFile>,
    /// The digests that were read, in order; empty if the newest is not signed with a given key.
    stretches: Vec<Stretch>,
    newest: Option<Digest>,
    newest_end: OffsetDateTime,
    is_whole: bool,
}

/// The time of a digest.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    start: OffsetDateTime,
    end: OffsetDateTime,
    is_opening: bool,
    /// Whether everything written by then was delivered before it was made.
    is_after_all: bool,
}

/// Whether a trail has everything that its broker did by some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vouching {
    /// It was not open then.
    NotOpen,
    /// It has everything.
    Whole,
    /// Its next digests will show it, and are not due yet.
    NotYet,
    /// Its next digests are overdue.
    Late,
    /// No more digests are to be expected, and its broker has not closed it.
    Abandoned,
    /// Its newest digest is not signed with a given key.
    Unsigned,
    /// A digest or a log file is missing in its chain.
    Broken,
}

impl Coverage {
    /// The trails named `called` in the folder of `reader`, from `since` on, as far as `keys` have signed their digests, up to `now`. Days on
    /// which no trail that was open at `since` can have its newest digest are skipped.
    pub async fn since(
        reader: &TrailReader,
        called: &str,
        keys: &[PublicKey],
        since: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<Self, ReadFailure> {
        let mut coverage = Self::default();
        let listed = digests_between(reader, called, since - LONGEST_SILENCE, now).await?;
        for (name, digests) in listed {
            let mut trail = CoveredTrail::new(name);
            for (place, digest) in digests.iter().enumerate() {
                let next = digests.get(place + 1);
                // The first says where the broker runs, the newest whether more is to come, the previous one whether a process had ended.
                let is_due = next.is_none_or(|next| next.end >= since);
                if is_due || place == 0 {
                    coverage.read(reader, &mut trail, digest, keys, (is_due, next.is_none())).await?;
                }
            }
            trail.find_place(reader, now).await?;
            coverage.trails.push(trail);
        }
        Ok(coverage)
    }

    async fn read(
        &mut self,
        reader: &TrailReader,
        trail: &mut CoveredTrail,
        key: &DigestKey,
        keys: &[PublicKey],
        (is_due, is_newest): (bool, bool),
    ) -> Result<(), ReadFailure> {
        let file = match reader.digest_file(&key.key).await {
            Err(ReadFailure::Malformed(_)) => None,
            read => read?,
        };
        let believed = file.filter(|file| file.digest.digest_s3_object == key.key && file.is_signed(keys));
        trail.newest_end = trail.newest_end.max(key.end);
        let Some(file) = believed else {
            // With records missing it cannot vouch for everything.
            trail.is_whole = false;
            if is_newest {
                trail.newest = None;
            }
            return Ok(());
        };
        let own = file.digest.key_broker.as_ref();
        if own.is_some_and(|own| own.position == Some(Position::Closing)) {
            self.closing_signs.extend(file.kms_request_id.clone());
        }
        self.data_keys
            .extend(file.digest.log_files.iter().filter_map(|log_file| log_file.data_key_request_id.clone()));
        if let Some(origin) = own.and_then(|own| own.origin.as_ref()) {
            trail.place = origin.place();
        }
        if is_due {
            trail.add(file.digest, key.end);
        }
        Ok(())
    }
}

impl CoveredTrail {
    fn new(name: String) -> Self {
        Self {
            name,
            place: None,
            is_from_its_start: false,
            files: Vec::new(),
            stretches: Vec::new(),
            newest: None,
            newest_end: OffsetDateTime::UNIX_EPOCH,
            is_whole: true,
        }
    }

    fn add(&mut self, digest: Digest, end: OffsetDateTime) {
        let Some(start) = parse_record_time(&digest.digest_start_time) else {
            self.is_whole = false;
            return;
        };
        let own = digest.key_broker.as_ref();
        let is_opening = own.is_some_and(|own| own.position == Some(Position::Opening));
        self.is_whole &= is_opening || self.stretches.last().is_none_or(|before| before.end == start);
        let is_after_all = digest.log_files.len() < crate::delivery::MAX_LOG_FILES;
        let is_closing = own.is_some_and(|own| own.position == Some(Position::Closing));
        if self.stretches.is_empty() {
            self.is_from_its_start = is_opening || is_closing;
        }
        self.stretches.push(Stretch { start, end, is_opening, is_after_all });
        let trail: Arc<str> = self.name.as_str().into();
        for file in &digest.log_files {
            self.is_whole &= self.files.last().is_none_or(|before| before.is_before(file));
            self.files.push(VouchedLogFile::signed(file.clone(), &trail));
        }
        self.newest = Some(digest);
    }

    /// Finds out where its broker runs from its first digest, however old. There are many trails, so only where that is needed.
    async fn find_place(&mut self, reader: &TrailReader, now: OffsetDateTime) -> Result<(), ReadFailure> {
        let state = self.newest.as_ref().map(|newest| TrailState::of(newest, self.newest_end, Some(now)));
        let is_well = self.is_whole && matches!(state, Some(TrailState::Open | TrailState::Closed));
        if is_well || self.place.is_some() {
            return Ok(());
        }
        let digests = reader.of(&self.name).digest_keys().await?.own;
        let Some(first) = digests.first() else { return Ok(()) };
        let digest = match reader.digest(&first.key).await {
            Err(ReadFailure::Malformed(_)) => None,
            read => read?,
        };
        let origin = digest.and_then(|digest| digest.key_broker?.origin);
        self.place = origin.and_then(|origin| origin.place());
        Ok(())
    }

    /// Whether the trail has everything that its broker did at `at`, by clocks that differ by at most `skew`.
    #[must_use]
    pub fn vouching(&self, at: OffsetDateTime, skew: Duration, now: OffsetDateTime) -> Vouching {
        if self.stretches.first().is_some_and(|first| first.is_opening && first.start > at + skew) {
            return Vouching::NotOpen;
        }
        let Some(newest) = &self.newest else { return Vouching::Unsigned };
        let state = TrailState::of(newest, self.newest_end, Some(now));
        if state == TrailState::Closed && self.newest_end < at - skew {
            return Vouching::NotOpen;
        }
        if TrailState::of(newest, self.newest_end, Some(at - skew)) == TrailState::Abandoned {
            return Vouching::NotOpen;
        }
        if !self.is_whole {
            return Vouching::Broken;
        }
        if state == TrailState::Closed || self.is_delivered(at + skew) {
            return Vouching::Whole;
        }
        match state {
            TrailState::Stale => Vouching::Late,
            TrailState::Abandoned => Vouching::Abandoned,
            TrailState::Open | TrailState::Closed => Vouching::NotYet,
        }
    }

    /// Whether a digest begins after `at`, and neither it nor the previous one was made during a delivery.
    fn is_delivered(&self, at: OffsetDateTime) -> bool {
        let before = std::iter::once(true).chain(self.stretches.iter().map(|stretch| stretch.is_after_all));
        self.stretches
            .iter()
            .zip(before)
            .any(|(stretch, before)| stretch.start > at && stretch.is_after_all && before)
    }
}

/// A trail whose newest digest is this much older than some time was closed by then, or abandoned: two of the longest intervals of
/// digests, and the grace period of trail states.
const LONGEST_SILENCE: Duration = Duration::hours(50);

#[cfg(test)]
mod tests;
