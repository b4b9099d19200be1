//! Policies of keys and of roles: what they say, and what they say of a call.
//!
//! A subset of IAM's language. What is not in it is refused when the policy is put, never ignored:
//! `Version`, `Id`, `Statement` with `Sid`, `Effect`, `Principal` (`"*"` or `AWS`), `Action`, `Resource`, and a `Condition` of
//! `StringEquals`, `StringNotEquals`, `StringLike`, `StringNotLike` on `kms:EncryptionContext:NAME`.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements.html>

mod document;
mod pattern;

use self::document::Written;
use self::pattern::Pattern;
use crate::caller::Caller;
use crate::context::EncryptionContext;

/// A policy, as it was put.
pub(crate) struct Policy {
    text: String,
    statements: Vec<Statement>,
}

struct Statement {
    effect: Effect,
    principals: Vec<Principal>,
    actions: Vec<Pattern>,
    resources: Vec<Pattern>,
    /// All of them must hold.
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
enum Effect {
    Allow,
    Deny,
}

/// The principals of a statement.
#[derive(Debug, PartialEq, Eq)]
enum Principal {
    Anybody,
    /// An account: whomever the account's own policies let.
    Account(String),
    /// A role, a session or a user.
    Arn(String),
}

/// A condition on one pair of the encryption context.
struct Condition {
    /// The name, of which AWS does not mind upper and lower case.
    name: String,
    /// Any of them.
    values: Vec<Pattern>,
    /// Whether it must be none of them; it then holds without the pair, too.
    negated: bool,
}

/// Whether a policy is of a key, and names principals, or of a role, and names resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PolicyOf {
    Key,
    Role,
}

/// A call, as policies see it.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) caller: &'a Caller,
    /// With its prefix: `kms:Decrypt`.
    pub(crate) action: &'a str,
    /// The key's ARN, or `*` where there is none.
    pub(crate) resource: &'a str,
    pub(crate) context: &'a EncryptionContext,
}

/// The decision of a policy on a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// A statement denies it: that is the end.
    pub(crate) denied: bool,
    /// A statement allows it to this caller.
    pub(crate) allowed: bool,
    /// A statement leaves it to the policies of the caller's account.
    pub(crate) delegated: bool,
}

impl Policy {
    /// Reads a JSON document; what is wrong with it, if it is not one that is understood in full.
    pub(crate) fn parse(text: &str, of: PolicyOf) -> Result<Policy, String> {
        let written: Written = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Ok(Policy { text: text.to_owned(), statements: written.statements(of)? })
    }

    /// The document as it was put.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn judge(&self, question: Question<'_>) -> Verdict {
        let mut verdict = Verdict::default();
        for statement in self.statements.iter().filter(|statement| statement.is_about(question)) {
            let principals = &statement.principals;
            let direct = principals.is_empty()
                || principals.iter().any(|principal| match principal {
                    Principal::Anybody => true,
                    Principal::Arn(arn) => question.caller.is(arn),
                    Principal::Account(_) => false,
                });
            let account = principals.iter().any(
                |principal| matches!(principal, Principal::Account(id) if *id == question.caller.account),
            );
            match statement.effect {
                Effect::Deny => verdict.denied |= direct || account,
                Effect::Allow => {
                    verdict.allowed |= direct;
                    verdict.delegated |= account;
                }
            }
        }
        verdict
    }
}

impl Statement {
    /// Whether it speaks of such a call, whoever makes it.
    fn is_about(&self, question: Question<'_>) -> bool {
        let action = question.action.to_ascii_lowercase();
        self.actions.iter().any(|pattern| pattern.matches(&action))
            && self.resources.iter().any(|pattern| pattern.matches(question.resource))
            && self.conditions.iter().all(|condition| condition.holds(question.context))
    }
}

impl Condition {
    fn holds(&self, context: &EncryptionContext) -> bool {
        let mut of_name = context.iter().filter(|(name, _)| name.eq_ignore_ascii_case(&self.name));
        let is_one = of_name.any(|(_, value)| self.values.iter().any(|pattern| pattern.matches(value)));
        is_one != self.negated
    }
}

#[cfg(test)]
mod tests;
