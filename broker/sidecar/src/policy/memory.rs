//! Caches Cedar's decisions under the policies in force: equal questions have equal answers, and evaluating one takes
//! longer than the rest of a cached call. New policies are a new [`Policy`](super::Policy), whose cache starts empty.

use std::sync::Arc;

use key_broker_core::{Action, EncryptionContext, Principal, Transport};
use moka::sync::Cache;

use super::aliases::KeyAliases;
use super::{CedarDecision, Question};
use crate::attestation::Measurements;
use crate::named_key::NamedKey;

/// Everything that a decision depends on except the policies.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct DecisionKey {
    principal: Principal,
    action: Action,
    key: Option<NamedKey>,
    aliases: KeyAliases,
    context: Option<ContextFacts>,
}

/// What policies can read about the call.
#[derive(Clone, PartialEq, Eq, Hash)]
struct ContextFacts {
    transport: Transport,
    messages: u64,
    bytes: u64,
    encryption_context: Option<EncryptionContext>,
    recipient: Option<Arc<Measurements>>,
}

/// Decisions by what they depend on; moka retains those that are asked for often.
pub(super) struct DecisionCache(Cache<DecisionKey, CedarDecision>);

impl DecisionKey {
    /// Includes what the call says only if a policy reads it.
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

    /// The known and possible aliases of the key.
    pub(super) fn aliases(&self) -> &KeyAliases {
        &self.aliases
    }
}

impl DecisionCache {
    pub(super) fn find(&self, wanted: &DecisionKey) -> Option<CedarDecision> {
        self.0.get(wanted)
    }

    /// Adds a decision. A stream of ever new requests costs one evaluation each, as without a cache, and displaces no entry
    /// that is in regular use.
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

/// About 2 MiB with the longest key ids; 8 MiB if policies read encryption contexts and all are of the greatest length.
pub(super) const MAX_DECISIONS: u64 = 1_024;
