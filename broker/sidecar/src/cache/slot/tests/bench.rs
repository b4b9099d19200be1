//! A slot and its KMS: calls that the slot asks for are under way until the test ends them, and every draw that the slot serves is
//! checked.

use std::collections::HashMap;
use std::time::Instant;

use key_broker_core::clock::{Clock, SystemClock};
use time::OffsetDateTime;
use time::macros::datetime;
use uuid::Uuid;

use super::super::*;
use crate::cache::standing::KeyStanding;
use crate::kms::{KmsError, KmsErrorKind};

pub(super) const BOUNDS: Bounds =
    Bounds { max_age: Duration::from_secs(100), max_messages: 10, max_bytes: 1_000 };

/// A key is its serial number.
type Serial = u64;

pub(super) struct Bench {
    pub(super) slot: Slot<Serial, ()>,
    start: Instant,
    pub(super) wall: OffsetDateTime,
    pub(super) seconds: u64,
    pub(super) calls: u64,
    /// The calls under way, and when they began.
    pub(super) under_way: Vec<(Ticket, Moment)>,
    requested_after: HashMap<Serial, u64>,
    pub(super) charged: HashMap<Serial, DeclaredUse>,
    /// The tightest limit on messages promised to a draw of each key.
    promised: HashMap<Serial, u64>,
    /// Keys up to this one were evicted.
    evicted: Serial,
    pub(super) waiting: Vec<Waiter>,
}

pub(super) struct Waiter {
    answer: oneshot::Receiver<DrawResult<Serial>>,
    demand: (DeclaredUse, Bounds),
}

impl Bench {
    pub(super) fn new(refresh_at: Option<f64>) -> Self {
        Self {
            slot: Slot::new(BOUNDS, refresh_at),
            start: SystemClock.instant(),
            wall: datetime!(2026-11-21 00:00 UTC),
            seconds: 0,
            calls: 0,
            under_way: Vec::new(),
            requested_after: HashMap::new(),
            charged: HashMap::new(),
            promised: HashMap::new(),
            evicted: 0,
            waiting: Vec::new(),
        }
    }

    pub(super) fn now(&self) -> Moment {
        let passed = Duration::from_secs(self.seconds);
        Moment { instant: self.start + passed, wall: self.wall + passed }
    }

    fn begin(&mut self, mint: &Mint<()>) {
        assert_eq!(mint.ticket, Ticket(self.calls));
        self.calls += 1;
        self.under_way.push((mint.ticket, self.now()));
    }

    /// Begins the call for a replacement.
    fn replace(&mut self, mint: Option<Mint<()>>) {
        if let Some(mint) = mint {
            assert!(self.under_way.is_empty(), "one replacement at a time");
            self.begin(&mint);
        }
    }

    /// Begins calls for waiting draws.
    fn begin_for_waiting(&mut self, mints: &[Mint<()>]) {
        for mint in mints {
            self.begin(mint);
        }
        if mints.is_empty() {
            return;
        }
        // Calls that were evicted in advance bring nothing.
        let bring = self.under_way.iter().filter(|(ticket, _)| serial(*ticket) > self.evicted).count();
        assert_eq!(bring, self.needed(), "as many calls as are needed");
    }

    /// How many keys the waiting draws need, one after the other.
    fn needed(&self) -> usize {
        let (mut keys, mut used, mut limit) = (0, DeclaredUse::default(), BOUNDS);
        for Waiter { demand: (declared, bounds), .. } in &self.waiting {
            let both =
                |limit: Bounds| Bounds { max_messages: limit.max_messages.min(bounds.max_messages), ..limit };
            let fits = if keys > 0 { both(limit).charge(used, *declared) } else { None };
            if let Some(charged) = fits {
                (used, limit) = (charged, both(limit));
            } else {
                keys += 1;
                limit = both(BOUNDS);
                used = limit.charge(DeclaredUse::default(), *declared).expect("it fits");
            }
        }
        keys
    }

    pub(super) fn draw(&mut self, declared: DeclaredUse, bounds: Bounds) -> Option<Serial> {
        let demand = Demand { request: (), declared, bounds };
        match self.slot.draw(&self.now(), demand) {
            DrawStep::Drawn(draw, mint, check) => {
                assert!(check.is_none(), "there is no revocation check");
                let serial = self.check(&draw, declared, &bounds);
                self.replace(mint);
                Some(serial)
            }
            DrawStep::Wait(answer, mints) => {
                self.waiting.push(Waiter { answer, demand: (declared, bounds) });
                self.begin_for_waiting(&mints);
                None
            }
            DrawStep::Check(_) => panic!("there is no revocation check"),
            DrawStep::Retired => panic!("nobody retires this slot"),
        }
    }

    /// Checks a draw that the slot has served.
    fn check(&mut self, draw: &Draw<Serial>, declared: DeclaredUse, bounds: &Bounds) -> Serial {
        let serial = *draw.value;
        assert!(serial > self.evicted, "an evicted key is served");
        assert!(
            self.seconds - self.requested_after[&serial] <= bounds.max_age.as_secs(),
            "a key is served past its age"
        );
        let charged = self.charged.entry(serial).or_default();
        charged.messages += declared.messages;
        charged.bytes += declared.bytes;
        assert_eq!(
            (charged.messages, charged.bytes),
            (draw.used.messages, draw.used.bytes),
            "provenance tells the truth"
        );
        assert!(
            charged.messages <= bounds.max_messages && charged.bytes <= bounds.max_bytes,
            "a bound is crossed"
        );
        let promised = self.promised.entry(serial).or_insert(BOUNDS.max_messages);
        *promised = bounds.max_messages.min(*promised);
        assert!(charged.messages <= *promised, "a later draw goes beyond what an earlier one was promised");
        assert_eq!(draw.limit.messages, *promised, "provenance tells the truth");
        serial
    }

    /// KMS answers the oldest call under way.
    pub(super) fn kms_answers(&mut self) {
        self.kms_answers_one(0);
    }

    pub(super) fn kms_answers_one(&mut self, which: usize) {
        if which >= self.under_way.len() {
            return;
        }
        let (ticket, requested_at) = self.under_way.remove(which);
        let serial = serial(ticket);
        self.requested_after.insert(serial, (requested_at.instant - self.start).as_secs());
        let source = Provenance {
            request_id: serial.to_string().into(),
            event_id: Uuid::nil(),
            at: self.wall,
            span: None,
        };
        let standing = unchecked();
        let minted = MintedReply { value: Arc::new(serial), source, requested_at, standing };
        let mints = self.slot.minted(&self.now(), ticket, minted);
        self.collect_before(&mints);
    }

    pub(super) fn kms_fails(&mut self, blame: Blame) {
        self.kms_fails_one(0, blame);
    }

    pub(super) fn kms_fails_one(&mut self, which: usize, blame: Blame) {
        if which >= self.under_way.len() {
            return;
        }
        let (ticket, _) = self.under_way.remove(which);
        let error = BrokerError::Kms(KmsError {
            kind: KmsErrorKind::Unavailable,
            code: "x".into(),
            message: None,
            request_id: None,
        });
        let mints = self.slot.failed(self.now(), ticket, &error, blame);
        self.collect_before(&mints);
    }

    fn collect_before(&mut self, mints: &[Mint<()>]) {
        self.collect();
        self.begin_for_waiting(mints);
        assert!(self.waiting.is_empty() || !self.under_way.is_empty(), "somebody waits for nothing");
    }

    fn collect(&mut self) {
        for mut waiter in std::mem::take(&mut self.waiting) {
            match waiter.answer.try_recv() {
                Ok(Ok(draw)) => drop(self.check(&draw, waiter.demand.0, &waiter.demand.1)),
                Ok(Err(_)) => {}
                Err(oneshot::error::TryRecvError::Empty) => self.waiting.push(waiter),
                Err(oneshot::error::TryRecvError::Closed) => panic!("somebody is forgotten"),
            }
        }
    }

    pub(super) fn evict(&mut self) {
        self.slot.evict();
        // Calls under way began before: their serial numbers are at most the number of calls so far.
        self.evicted = self.calls;
    }
}

/// The serial number of a key: how many calls had begun, including its own.
fn serial(Ticket(before): Ticket) -> Serial {
    before + 1
}

/// The standing of a key that is never checked again.
fn unchecked() -> Arc<Standing> {
    let arn = KeyArn::parse("arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab");
    let key = KeyStanding::new(arn.expect("an ARN"), "us-west-2".into(), None);
    Arc::new(Standing::new(Arc::new(key)))
}
