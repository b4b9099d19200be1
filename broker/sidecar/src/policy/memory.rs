//! What Cedar has said under the policies in force: it says the same again, and takes longer than the rest of a cached call.
//! Other policies are another [`Policy`](super::Policy), which remembers nothing yet.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use key_broker_core::{Action, EncryptionContext, Measurements, NamedKey, Principal};

use super::{Decided, Question};

/// What a decision depends on, beside the policies.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Remembered {
    principal: Principal,
    action: Action,
    key: Option<NamedKey>,
    facts: Option<Said>,
}

/// What the call says.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Said {
    transport: &'static str,
    messages: u64,
    bytes: u64,
    encryption_context: Option<EncryptionContext>,
    recipient: Option<Arc<Measurements>>,
}

/// Decisions.
#[derive(Default)]
pub(super) struct Memory(RwLock<HashMap<Remembered, Decided>>);

impl Remembered {
    /// With what the call says only where a policy looks at it.
    pub(super) fn of(question: &Question<'_>, uses_context: bool) -> Self {
        let facts = &question.facts;
        let said = || Said {
            transport: facts.transport,
            messages: facts.messages,
            bytes: facts.bytes,
            encryption_context: facts.encryption_context.cloned(),
            recipient: facts.recipient.cloned(),
        };
        Self {
            principal: question.principal.clone(),
            action: question.action,
            key: question.key.cloned(),
            facts: uses_context.then(said),
        }
    }
}

impl Memory {
    pub(super) fn find(&self, wanted: &Remembered) -> Option<Decided> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(wanted).cloned()
    }

    /// Forgets all when full: callers who ask ever new questions cost one evaluation each, as without a memory.
    pub(super) fn keep(&self, question: Remembered, decided: Decided) {
        let mut memory = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if memory.len() >= MAX_DECISIONS {
            memory.clear();
        }
        memory.insert(question, decided);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Some 2 MiB, with the longest key ids; 8 MiB where policies look at encryption contexts, and all are of the longest.
pub(super) const MAX_DECISIONS: usize = 1_024;
