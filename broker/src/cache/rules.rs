//! Which bounds hold for whom: the defaults, and rules by key and principal.

use std::time::Duration;

use super::bounds::Bounds;
use crate::identity::Principal;
use crate::key::KeyId;

/// The configuration of reuse, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Holds where no other does.
    pub default: Rule,
    /// The first that matches holds.
    pub rules: Vec<(Match, Rule)>,
    /// Partitions that are kept at a time, for each kind of answer.
    pub max_entries: u64,
    /// How long a call to KMS may take that several callers wait for.
    pub kms_deadline: Duration,
    /// How often KMS is asked whether the keys behind what is kept may still be used; none is never.
    pub revocation_check: Option<Duration>,
}

/// Whom and what a rule is for; nothing given matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    /// The principal, as policy names it.
    pub principal: Option<String>,
    /// The KMS key, as callers write it.
    pub key: Option<String>,
}

/// How far data keys may be reused.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Whether at all.
    pub enabled: bool,
    /// The bounds.
    pub bounds: Bounds,
    /// From which share of age, messages or bytes on a replacement is minted in the background; none is never.
    pub refresh_at: Option<f64>,
    /// The name of a partition that principals share; none is one for each principal.
    pub partition: Option<String>,
}

impl Rules {
    /// The rule for one draw.
    #[must_use]
    pub fn of(&self, principal: &Principal, key: Option<&KeyId>) -> &Rule {
        let found =
            self.rules.iter().find(|(matches, _)| matches.covers(principal.as_str(), key.map(KeyId::as_str)));
        found.map_or(&self.default, |(_, rule)| rule)
    }
}

impl Match {
    fn covers(&self, principal: &str, key: Option<&str>) -> bool {
        self.principal.as_deref().is_none_or(|wanted| wanted == principal)
            && self.key.as_deref().is_none_or(|wanted| Some(wanted) == key)
    }

    /// Whether everything that `other` is for is also what this is for.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        let part = |mine: &Option<String>, theirs: &Option<String>| mine.is_none() || mine == theirs;
        part(&self.principal, &other.principal) && part(&self.key, &other.key)
    }
}
