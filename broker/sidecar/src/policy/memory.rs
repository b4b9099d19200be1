//! A cache of Cedar's decisions under the policies in force: the same question gets the same answer, and
//! evaluating it takes longer than the rest of a cached call. New policies are another
//! [`Policy`](super::Policy), whose cache starts empty.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use key_broker_core::{Action, EncryptionContext, Measurements, NamedKey, Principal, Transport};

use super::aliases::KeyAliases;
use super::{CedarDecision, Question};

/// What a decision depends on, beside the policies.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct DecisionKey {
    principal: Principal,
    action: Action,
    key: Option<NamedKey>,
    aliases: KeyAliases,
    context: Option<ContextFacts>,
}

/// What the call says.
#[derive(Clone, PartialEq, Eq, Hash)]
struct ContextFacts {
    transport: Transport,
    messages: u64,
    bytes: u64,
    encryption_context: Option<EncryptionContext>,
    recipient: Option<Arc<Measurements>>,
}

/// Decisions by what they depend on.
#[derive(Default)]
pub(super) struct DecisionCache(RwLock<HashMap<DecisionKey, CedarDecision>>);

impl DecisionKey {
    /// With what the call says only where a policy looks at it.
    pub(super) fn of(question: &Question<'_>, aliases: KeyAliases, uses_context: bool) -> Self {
        let facts = &question.facts;
        let context = || ContextFacts {
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
            aliases,
            context: uses_context.then(context),
        }
    }

    /// The aliases that the key is, or may be, in.
    pub(super) fn aliases(&self) -> &KeyAliases {
        &self.aliases
    }
}

impl DecisionCache {
    pub(super) fn find(&self, wanted: &DecisionKey) -> Option<CedarDecision> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(wanted).cloned()
    }

    /// Clears the cache when it is full: a caller with ever new questions costs one evaluation each, as
    /// without a cache.
    pub(super) fn keep(&self, question: DecisionKey, decided: CedarDecision) {
        let mut decisions = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if decisions.len() >= MAX_DECISIONS {
            decisions.clear();
        }
        decisions.insert(question, decided);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Some 2 MiB, with the longest key ids; 8 MiB where policies look at encryption contexts, and all are of the longest.
pub(super) const MAX_DECISIONS: usize = 1_024;
