//! Grants: what a key lets a principal do beside its policy.
//! <https://docs.aws.amazon.com/kms/latest/developerguide/grants.html>

use serde::{Deserialize, Serialize};

use crate::caller::Caller;
use crate::context::EncryptionContext;

/// One grant on one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grant {
    /// 64 hex digits.
    pub(crate) id: String,
    pub(crate) token: String,
    pub(crate) name: Option<String>,
    pub(crate) grantee: String,
    /// The principal that may retire it, beside those whom the key policy allows to.
    pub(crate) retiring: Option<String>,
    /// By AWS's names, without a prefix.
    pub(crate) operations: Vec<String>,
    pub(crate) constraint: Option<Constraint>,
    /// Unix milliseconds.
    pub(crate) created: u64,
}

/// The constraint on the encryption context. It does not apply to operations without one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Constraint {
    /// All of these pairs, and no others.
    Equals(EncryptionContext),
    /// All of these pairs, and perhaps others.
    Subset(EncryptionContext),
}

impl Grant {
    /// Whether it lets a caller do this. `context` is nothing where the operation has none.
    pub(crate) fn permits(
        &self,
        caller: &Caller,
        operation: &str,
        context: Option<&EncryptionContext>,
    ) -> bool {
        let fits = match (&self.constraint, context) {
            (None, _) | (_, None) => true,
            (Some(Constraint::Equals(wanted)), Some(context)) => wanted == context,
            (Some(Constraint::Subset(wanted)), Some(context)) => {
                wanted.iter().all(|(name, value)| context.get(name) == Some(value))
            }
        };
        fits && caller.is(&self.grantee) && self.operations.iter().any(|known| known == operation)
    }

    /// Whether the caller may end it whatever the key's policy says.
    pub(crate) fn may_be_retired_by(&self, caller: &Caller) -> bool {
        self.retiring.as_deref().is_some_and(|principal| caller.is(principal))
            || self.permits(caller, "RetireGrant", None)
    }
}
