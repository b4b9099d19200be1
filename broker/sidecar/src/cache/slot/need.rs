//! How far keys are charged, and how many keys a series of draws needs.

use key_broker_core::{Bounds, DeclaredUse};

/// How far one key is used, and its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Charges {
    pub(super) used: DeclaredUse,
    /// The tightest limits promised to any draw so far, which apply to all later ones.
    pub(super) limit: DeclaredUse,
}

impl Charges {
    /// The charges of an unused key.
    pub(super) fn unused(bounds: &Bounds) -> Self {
        Self {
            used: DeclaredUse::default(),
            limit: DeclaredUse { messages: bounds.max_messages, bytes: bounds.max_bytes },
        }
    }

    /// The charges after a draw with these `bounds`; `None` if it does not fit.
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

/// How many keys a series of draws needs, if each is served from the last key as long as that has room.
#[derive(Debug, Default)]
pub(super) struct Need {
    keys: usize,
    last: Option<Charges>,
}

impl Need {
    /// Adds a draw with its own `bounds`; `of_all` are the bounds of every key.
    pub(super) fn add(&mut self, of_all: &Bounds, declared: DeclaredUse, bounds: &Bounds) {
        if let Some(charged) = self.last.and_then(|last| last.charged(declared, bounds)) {
            self.last = Some(charged);
        } else {
            self.keys += 1;
            // A draw that fits no key gets none and leaves its key to the next draw.
            let unused = Charges::unused(of_all);
            self.last = Some(unused.charged(declared, bounds).unwrap_or(unused));
        }
    }

    /// The number of keys.
    pub(super) fn keys(&self) -> usize {
        self.keys
    }
}
