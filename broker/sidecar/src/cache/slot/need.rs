//! How far keys are charged, and how many keys a row of draws needs.

use key_broker_core::{Bounds, DeclaredUse};

/// How far one key is used, and how far it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Charges {
    pub(super) used: DeclaredUse,
    /// The tightest limits that any draw was promised. They apply to all later draws.
    pub(super) limit: DeclaredUse,
}

impl Charges {
    /// For a key without draws yet.
    pub(super) fn unused(bounds: &Bounds) -> Self {
        Self {
            used: DeclaredUse::default(),
            limit: DeclaredUse { messages: bounds.max_messages, bytes: bounds.max_bytes },
        }
    }

    /// After a draw; none if it does not fit. `bounds` are those of the draw.
    pub(super) fn charged(&self, declared: DeclaredUse, bounds: &Bounds) -> Option<Self> {
        let bounds = Bounds {
            max_messages: self.limit.messages.min(bounds.max_messages),
            max_bytes: self.limit.bytes.min(bounds.max_bytes),
            ..*bounds
        };
        let used = bounds.charge(self.used, declared)?;
        Some(Self { used, limit: DeclaredUse { messages: bounds.max_messages, bytes: bounds.max_bytes } })
    }
}

/// The keys that draws need which are served in order, each from the last of them if it has room.
#[derive(Debug, Default)]
pub(super) struct Need {
    keys: usize,
    last: Option<Charges>,
}

impl Need {
    /// One more draw, with its `bounds`; `of_all` are those of every key.
    pub(super) fn add(&mut self, of_all: &Bounds, declared: DeclaredUse, bounds: &Bounds) {
        if let Some(charged) = self.last.and_then(|last| last.charged(declared, bounds)) {
            self.last = Some(charged);
        } else {
            self.keys += 1;
            // One that no key has room for gets none, and leaves its key to the next.
            let unused = Charges::unused(of_all);
            self.last = Some(unused.charged(declared, bounds).unwrap_or(unused));
        }
    }

    /// How many keys that makes.
    pub(super) fn keys(&self) -> usize {
        self.keys
    }
}
