//! The promise of bounded reuse, recomputed from the records alone: no data key is used beyond its age, its messages or its bytes, for
//! differing requests, or again if it was for a single use; and each comes from a recorded call to KMS.
//!
//! There is no tolerance in time, since none is needed: `eventTime` is when a call arrived, which is not after its draw, and a draw is
//! not after `expiresAt`. Both are truncated to whole seconds, which keeps their order. If the clock is set back while a call waits,
//! the broker reckons `eventTime` by the new clock; the cache, which uses two clocks, excludes the rest.
//!
//! Draws are not committed in the order in which they were charged, and some charges have no record, as when a caller goes away. So
//! gaps between charges are only noted, but no message may be charged twice.

use key_broker_core::{MAX_AGE_SECONDS, MAX_MESSAGES};

use super::finding::{FindingKind, Severity};
use super::ids::IdMap;
use super::limits::Limits;
use super::ranges::Ranges;
use super::recent::{HowUsedUp, UsedUp};
use super::record::{Amount, Charge, KmsCall, Use};

/// The place of a record.
#[derive(Clone, Copy, Default)]
pub(super) struct At {
    /// The index of the object or file, in the order of reading.
    pub(super) source: u32,
    /// Counted from 1.
    pub(super) record: u32,
    pub(super) event_id: u128,
}

/// A fault in one use, or in several together.
pub(super) struct Fault {
    pub(super) kind: FindingKind,
    pub(super) severity: Severity,
    pub(super) at: At,
    pub(super) words: String,
}

/// Calls to KMS that may still be used, and their uses.
#[derive(Default)]
pub(super) struct Reuse {
    calls: IdMap<KmsCall>,
    /// Calls that can no longer be used.
    used_up: UsedUp,
    live: IdMap<Uses>,
    /// The time of the oldest record in the file after which calls were last forgotten.
    forgot_at: Option<i64>,
    keys_used: u64,
    noted: Noted,
    minted_before: Option<(u64, At)>,
}

/// What is noted although it is no fault.
#[derive(Default)]
struct Noted {
    /// Data keys that several principals used.
    shared: Option<(u64, At)>,
    /// Data keys with charges without a record.
    unexplained: Option<(u64, At)>,
}

/// The uses of one answer of KMS.
struct Uses {
    first: At,
    request: Option<u64>,
    asked: u64,
    subject: u64,
    principal: u64,
    minted_at: Option<i64>,
    used_at: i64,
    is_allowed: bool,
    is_shared: bool,
    from_kms: bool,
    /// The latest of all uses; `None` for a single use.
    expires_at: Option<i64>,
    charged: Ranges,
    messages: Sum,
    bytes: Sum,
}

/// Sums of declared amounts.
#[derive(Default)]
struct Sum {
    /// Over all recorded draws.
    drawn: u64,
    /// Over those that were answered.
    handed_out: u64,
    most_used: u64,
    /// Callers may tighten limits for all later draws, but not widen them.
    limits: Limits,
}

impl Reuse {
    /// Takes a record of a call to KMS.
    pub(super) fn called(&mut self, event_id: u128, call: KmsCall, faults: &mut Vec<Fault>) {
        if let Some(uses) = self.live.get(&event_id) {
            uses.join(&call, faults);
            if uses.expires_at.is_none() {
                self.live.remove(&event_id);
                self.keys_used += 1;
                return self.used_up.insert(event_id, HowUsedUp::HandedOut, call.at);
            }
        }
        self.calls.insert(event_id, call);
    }

    /// Takes a record of a use.
    pub(super) fn used(&mut self, made: &Use, at: At, faults: &mut Vec<Fault>) {
        judge_alone(made, at, faults);
        if let Some(call) = self.calls.get(&made.call) {
            join(made.request, made.asked, made.minted_at, made.is_allowed, call, at, faults);
            if made.expires_at.is_none() && !self.live.contains_key(&made.call) {
                self.used_up.insert(made.call, HowUsedUp::HandedOut, call.at);
                self.calls.remove(&made.call);
                self.keys_used += 1;
                return;
            }
        } else if !self.live.contains_key(&made.call) {
            let forgotten =
                || made.minted_at.is_some_and(|minted_at| self.used_up.may_be_forgotten(minted_at));
            match self.used_up.get(made.call) {
                Some(HowUsedUp::HandedOut) => {
                    return faults.push(Fault::unsound(FindingKind::UsedAgain, at, HANDED_OUT_ONCE));
                }
                ended if ended.is_some() || forgotten() => {
                    if made.is_allowed {
                        // A clock that was far ahead for a moment, or a record that somebody added later.
                        let words = "recorded when all other uses of its data key had long ended: it is not held against them";
                        let (kind, severity) = (FindingKind::UsedTooLate, Severity::CannotTell);
                        faults.push(Fault { kind, severity, at, words: words.to_owned() });
                    }
                    return;
                }
                _ => {}
            }
        }
        match self.live.get_mut(&made.call) {
            None => {
                self.live.insert(made.call, Uses::begin(made, at));
            }
            Some(uses) if uses.expires_at.is_none() || made.expires_at.is_none() => {
                faults.push(Fault::unsound(FindingKind::UsedAgain, at, HANDED_OUT_ONCE));
            }
            Some(uses) => uses.add(made, at, faults),
        }
    }

    /// Judges answers that expired so long before `oldest`, the oldest record in a whole file, that no call can still use them, and
    /// forgets their uses.
    pub(super) fn sweep(&mut self, oldest: i64, faults: &mut Vec<Fault>) {
        let Self { calls, used_up, live, keys_used, noted, .. } = self;
        live.retain(|call, uses| {
            let Some(KmsCall { at: made_at, .. }) = calls.get(call).copied() else { return true };
            if uses.expires_at.is_none_or(|at| at.saturating_add(LONGEST_CALL_SECONDS) >= oldest) {
                return true;
            }
            calls.remove(call);
            used_up.insert(*call, HowUsedUp::Ended, made_at);
            *keys_used += 1;
            uses.end(true, noted, faults);
            false
        });
        self.forget(oldest);
    }

    /// Forgets unused calls to KMS that are older than any data key may be.
    fn forget(&mut self, oldest: i64) {
        if self.forgot_at.is_some_and(|last| oldest < last.saturating_add(LONGEST_CALL_SECONDS)) {
            return;
        }
        self.forgot_at = Some(oldest);
        let longest = i64::try_from(MAX_AGE_SECONDS).unwrap_or(i64::MAX).saturating_add(LONGEST_CALL_SECONDS);
        let Self { calls, used_up, live, .. } = self;
        calls.retain(|call, KmsCall { at, .. }| {
            if at.saturating_add(longest) >= oldest || live.contains_key(call) {
                return true;
            }
            used_up.forget_until(*at);
            false
        });
    }

    /// Judges what is left at the end. A missing KMS record is a fault unless it was before `from`, where verification began, or not
    /// everything `is_complete`.
    pub(super) fn finish(mut self, is_complete: bool, from: Option<i64>, faults: &mut Vec<Fault>) -> u64 {
        let mut rest: Vec<_> = self.live.drain().collect();
        rest.sort_by_key(|(_, uses)| (uses.first.source, uses.first.record));
        for (call, uses) in rest {
            self.keys_used += 1;
            let is_known = self.calls.contains_key(&call);
            uses.end(is_known, &mut self.noted, faults);
            if is_known {
                continue;
            }
            if from.is_some_and(|from| uses.minted_at.unwrap_or(uses.used_at) < from) {
                count(&mut self.minted_before, uses.first);
                continue;
            }
            let severity = if is_complete { Severity::Unsound } else { Severity::CannotTell };
            let words = "it names a KMS record that is not there".to_owned();
            faults.push(Fault { kind: FindingKind::KmsRecordMissing, severity, at: uses.first, words });
        }
        if let Some((count, at)) = self.noted.shared {
            let words = format!(
                "{count} data keys were used by more than one principal: right if configuration names a partition for them; \
                 records do not tell"
            );
            faults.push(Fault { kind: FindingKind::Shared, severity: Severity::Note, at, words });
        }
        if let Some((count, at)) = self.noted.unexplained {
            let words = format!(
                "{count} data keys were charged for messages of which there is no record: callers went away, or records were removed \
                 before they were delivered"
            );
            faults.push(Fault { kind: FindingKind::UsesMissing, severity: Severity::Note, at, words });
        }
        if let Some((count, at)) = self.minted_before {
            let words = format!("{count} data keys in use were minted before the time that is verified");
            faults.push(Fault { kind: FindingKind::MintedBefore, severity: Severity::Note, at, words });
        }
        self.keys_used
    }
}

impl Fault {
    fn unsound(kind: FindingKind, at: At, words: &str) -> Self {
        Self { kind, severity: Severity::Unsound, at, words: words.to_owned() }
    }
}

impl Uses {
    fn begin(made: &Use, at: At) -> Self {
        let mut uses = Self {
            first: at,
            request: made.request,
            asked: made.asked,
            subject: made.subject,
            principal: made.principal,
            minted_at: made.minted_at,
            used_at: made.at,
            is_allowed: made.is_allowed,
            is_shared: false,
            from_kms: made.from_kms,
            expires_at: made.expires_at,
            charged: Ranges::default(),
            messages: Sum::default(),
            bytes: Sum::default(),
        };
        if let Some(charge) = made.charge {
            uses.sum_up(charge, made.is_allowed);
        }
        uses
    }

    fn add(&mut self, made: &Use, at: At, faults: &mut Vec<Fault>) {
        let mut fault = |kind, words: &str| faults.push(Fault::unsound(kind, at, words));
        if made.subject != self.subject {
            fault(FindingKind::PartitionMixed, "its data key was used for another request before");
        }
        if made.request != self.request || made.minted_at != self.minted_at {
            fault(FindingKind::KmsRecordMismatch, "another use tells another kmsRequestID or mintedAt");
        }
        if made.from_kms && self.from_kms {
            fault(FindingKind::MintedTwice, "its call to KMS is said to have been made for another request");
        }
        self.from_kms |= made.from_kms;
        self.is_shared |= made.principal != self.principal;
        self.is_allowed |= made.is_allowed;
        self.expires_at = self.expires_at.max(made.expires_at);
        if let Some(charge) = made.charge {
            let Summed { is_new, keeps_limits } = self.sum_up(charge, made.is_allowed);
            if !is_new {
                fault(
                    FindingKind::ChargedTwice,
                    "another draw was charged the same messages of its data key",
                );
            }
            if !keeps_limits {
                fault(FindingKind::LimitTooWide, "a draw before it was promised a tighter limit");
            }
        }
    }

    fn sum_up(&mut self, charge: Charge, is_allowed: bool) -> Summed {
        let Amount { declared, used, .. } = charge.messages;
        let messages = self.messages.add(charge.messages, used, is_allowed);
        let bytes = self.bytes.add(charge.bytes, used, is_allowed);
        let is_new = self.charged.add(used.saturating_sub(declared), used);
        Summed { is_new, keeps_limits: messages && bytes }
    }

    /// Compares the uses with their call to KMS, whose record came later.
    fn join(&self, call: &KmsCall, faults: &mut Vec<Fault>) {
        join(self.request, self.asked, self.minted_at, self.is_allowed, call, self.first, faults);
    }

    /// Judges all uses together. If the call to KMS `is_known`, all its uses must be.
    fn end(&self, is_known: bool, noted: &mut Noted, faults: &mut Vec<Fault>) {
        if self.is_shared {
            count(&mut noted.shared, self.first);
        }
        if is_known && !self.charged.is_whole() {
            count(&mut noted.unexplained, self.first);
        }
        let sums = [
            (FindingKind::MessagesExceeded, "messages", &self.messages),
            (FindingKind::BytesExceeded, "bytes", &self.bytes),
        ];
        for (kind, what, sum) in sums {
            let Sum { drawn, handed_out, most_used, limits } = sum;
            if let Some(limit) = limits.tightest()
                && *handed_out > limit
            {
                let words = format!("its data key was handed out for {handed_out} {what} in all, of {limit}");
                faults.push(Fault::unsound(kind, self.first, &words));
            }
            if drawn > most_used {
                let words = format!("draws of {drawn} {what} are charged as {most_used}");
                faults.push(Fault::unsound(FindingKind::ChargedTwice, self.first, &words));
            }
        }
    }
}

/// Whether a draw is consistent with the others of its data key.
struct Summed {
    /// No message is charged that was charged before.
    is_new: bool,
    /// No limit is wider than an earlier draw's.
    keeps_limits: bool,
}

impl Sum {
    /// False if the draw that took the messages up to `used` has a wider limit than an earlier one.
    fn add(&mut self, amount: Amount, used: u64, is_allowed: bool) -> bool {
        self.drawn = self.drawn.saturating_add(amount.declared);
        if is_allowed {
            self.handed_out = self.handed_out.saturating_add(amount.declared);
        }
        self.most_used = self.most_used.max(amount.used);
        self.limits.add(amount.limit, used)
    }
}

/// Checks a use by itself.
fn judge_alone(made: &Use, at: At, faults: &mut Vec<Fault>) {
    let mut fault = |kind, words: String| faults.push(Fault::unsound(kind, at, &words));
    if let Some(expires_at) = made.expires_at {
        if made.at > expires_at {
            let late = made.at - expires_at;
            fault(
                FindingKind::UsedTooLate,
                format!("asked for {late} seconds after its data key's expiresAt"),
            );
        }
        let longest = i64::try_from(MAX_AGE_SECONDS).unwrap_or(i64::MAX);
        if made.minted_at.is_some_and(|minted_at| expires_at - minted_at > longest + LONGEST_CALL_SECONDS) {
            fault(FindingKind::LimitTooWide, "no configuration keeps a data key for more than a day".into());
        }
    }
    let Some(Charge { messages, bytes }) = made.charge else { return };
    let amounts =
        [(FindingKind::MessagesExceeded, "messages", messages), (FindingKind::BytesExceeded, "bytes", bytes)];
    for (kind, what, Amount { declared, used, limit }) in amounts {
        if used > limit {
            fault(kind, format!("its data key is used for {used} {what}, of {limit}"));
        }
        let is_once = made.expires_at.is_none();
        if declared > used || (is_once && declared != used) {
            let words = format!("a draw of {declared} {what} is charged as {used}");
            fault(FindingKind::ChargedTwice, words);
        }
    }
    if made.expires_at.is_some() && messages.limit > MAX_MESSAGES {
        fault(FindingKind::LimitTooWide, format!("no configuration allows {} messages", messages.limit));
    }
}

/// Compares a use with its call to KMS.
fn join(
    request: Option<u64>,
    asked: u64,
    minted_at: Option<i64>,
    is_allowed: bool,
    call: &KmsCall,
    at: At,
    faults: &mut Vec<Fault>,
) {
    let mut fault = |words: &str| faults.push(Fault::unsound(FindingKind::KmsRecordMismatch, at, words));
    if request.is_some_and(|request| request != call.request) {
        fault("its kmsRequestID is not the requestID of the KMS record that it names");
    }
    if call.asked.is_some_and(|call| call != asked) {
        fault("the KMS record that it names is of another operation, key or encryption context");
    }
    if minted_at.is_some_and(|minted_at| minted_at != call.at) {
        fault("its mintedAt is not the eventTime of the KMS record that it names");
    }
    if is_allowed && call.was_refused {
        fault("it was answered, but the KMS record that it names is of a refusal");
    }
}

fn count(counted: &mut Option<(u64, At)>, at: At) {
    *counted = Some(counted.map_or((1, at), |(count, first)| (count + 1, first)));
}

const HANDED_OUT_ONCE: &str = "its data key is one that is handed out once, and was before";
/// In seconds: no call takes this long, including the wait for its commit.
pub(super) const LONGEST_CALL_SECONDS: i64 = 3_600;
