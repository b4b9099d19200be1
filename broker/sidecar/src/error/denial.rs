//! The message of a denial: who the caller is, which action and key it asked for, as it wrote it, and what to send instead. The caller
//! knows or wrote all of this itself, and a key that does not exist looks like one that is not permitted. That a permit may require an
//! encryption context is said whatever the policies are, so that nobody learns from it what they permit, or to whom.

use key_broker_core::{Action, EncryptionContext, KeyId, Principal};

/// A request that policy has denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Denial {
    /// The principal that asked.
    pub(crate) principal: Principal,
    /// The action.
    pub(crate) action: Action,
    /// The key.
    pub(crate) key: DeniedKey,
    /// The encryption context.
    pub(crate) context: DeniedContext,
}

/// The encryption context of a denied request, as the caller sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeniedContext {
    /// The action has none, or the request was not read.
    NotLookedAt,
    /// The caller sent none.
    Empty,
    /// The caller sent some pairs.
    Pairs,
}

impl From<Option<&EncryptionContext>> for DeniedContext {
    fn from(sent: Option<&EncryptionContext>) -> Self {
        match sent {
            None => Self::NotLookedAt,
            Some(context) if context.pairs().is_empty() => Self::Empty,
            Some(_) => Self::Pairs,
        }
    }
}

/// The key of a denied request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DeniedKey {
    /// As the caller wrote it.
    Named(KeyId),
    /// None is named: it may be any.
    Any,
    /// The one that KMS answered with, which the caller did not name.
    OfTheAnswer,
}

impl Denial {
    pub(super) fn words(&self) -> String {
        let hint = match self.context {
            DeniedContext::NotLookedAt => "",
            DeniedContext::Empty => ". The call has no encryption context, and a permit may require one",
            DeniedContext::Pairs => ". A permit may require another encryption context than the call has",
        };
        self.refusal() + hint
    }

    fn refusal(&self) -> String {
        let who = match &self.principal {
            Principal::Workload(name) => &**name,
            Principal::Unknown => "an unidentified caller (unknown)",
        };
        let action = self.action.name();
        let denied = format!("the broker's policy does not permit {who} to {action}");
        match &self.key {
            DeniedKey::Named(key) => format!(
                "{denied} with {}, or there is no such key: ask the broker's operator for a permit",
                shown(key)
            ),
            DeniedKey::Any if matches!(self.action, Action::Decrypt | Action::ReEncryptFrom) => format!(
                "{denied} without naming the key: set key_id to the key's ARN, or to the alias by which the data key was requested, or ask \
                 the broker's operator for a permit"
            ),
            DeniedKey::Any => format!("{denied}: ask the broker's operator for a permit"),
            DeniedKey::OfTheAnswer => format!(
                "{denied} with the key of this ciphertext, which the request does not name: ask the broker's operator for a permit"
            ),
        }
    }
}

/// The longest names are cut: the caller knows them.
fn shown(key: &KeyId) -> &str {
    let text = key.as_str();
    text.get(..MAX_SHOWN_BYTES).unwrap_or(text)
}

/// An ARN has some 80.
const MAX_SHOWN_BYTES: usize = 256;

/// One of each kind, for the table of all errors.
#[cfg(test)]
pub(super) fn every() -> impl Iterator<Item = Denial> {
    let named = DeniedKey::Named(KeyId::parse("alias/app").expect("a key id"));
    let of = |action, key, context| Denial { principal: Principal::of_uid(1_000), action, key, context };
    [
        of(Action::GenerateDataKey, named, DeniedContext::Empty),
        of(Action::Decrypt, DeniedKey::Any, DeniedContext::Pairs),
        of(Action::Decrypt, DeniedKey::OfTheAnswer, DeniedContext::NotLookedAt),
        Denial {
            principal: Principal::Unknown,
            ..of(Action::GenerateRandom, DeniedKey::Any, DeniedContext::NotLookedAt)
        },
    ]
    .into_iter()
}
