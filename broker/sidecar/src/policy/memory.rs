//! A cache of Cedar's decisions under the policies in force: the same question gets the same answer, and
//! evaluating it takes longer than the rest of a cached call. New policies are another
//! [`Policy`](super::Policy), whose cache starts empty.

use std::sync::Arc;

use key_broker_core::{Action, EncryptionContext, Measurements, NamedKey, Principal, Transport};
use moka::sync::Cache;

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

/// Decisions by what they depend on; moka keeps those that are asked for often.
pub(super) struct DecisionCache(Cache<DecisionKey, CedarDecision>);

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
        self.0.get(wanted)
    }

    /// Ever new requests cost one evaluation each, as without a cache, and displace no entry that is used again and
    /// again.
    pub(super) fn keep(&self, question: DecisionKey, decided: CedarDecision) {
        self.0.insert(question, decided);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> u64 {
        self.0.run_pending_tasks();
        self.0.entry_count()
    }
}

impl Default for DecisionCache {
    fn default() -> Self {
        Self(Cache::new(MAX_DECISIONS))
    }
}

/// Some 2 MiB, with the longest key ids; 8 MiB where policies look at encryption contexts, and all are of the longest.
pub(super) const MAX_DECISIONS: u64 = 1_024;
