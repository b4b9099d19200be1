//! Which bounds hold for whom: the defaults, and rules by key and principal.

use std::time::Duration;

use key_broker_core::{Bounds, Principal, RequestedKey};

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
    /// The KMS key: its ARN, however callers write it; else as they write it.
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
    pub(crate) fn of(&self, principal: &Principal, key: Option<&RequestedKey>) -> &Rule {
        let found = self.rules.iter().find(|(matches, _)| matches.covers(principal.as_str(), key));
        found.map_or(&self.default, |(_, rule)| rule)
    }
}

impl Match {
    fn covers(&self, principal: &str, key: Option<&RequestedKey>) -> bool {
        let names = |wanted: &str| {
            key.is_some_and(|key| key.written.as_str() == wanted || key.sent().as_str() == wanted)
        };
        self.principal.as_deref().is_none_or(|wanted| wanted == principal)
            && self.key.as_deref().is_none_or(names)
    }

    /// Whether everything that `other` is for is also what this is for.
    #[must_use]
    pub(crate) fn includes(&self, other: &Self) -> bool {
        let part = |mine: &Option<String>, theirs: &Option<String>| mine.is_none() || mine == theirs;
        part(&self.principal, &other.principal) && part(&self.key, &other.key)
    }
}

#[cfg(test)]
mod tests {
    //! A rule about a key cannot be gone around by another name for it.

    use key_broker_core::{KeyArn, KeyId, NamedKey};

    use super::*;

    #[test]
    fn a_rule_for_an_arn_holds_however_the_key_is_named() {
        let arn = "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        let key = |written: &str| RequestedKey {
            written: KeyId::parse(written).expect("a key id"),
            resolved: Some(NamedKey { arn: KeyArn::parse(arn), alias: None }),
        };
        let covers = |wanted: &str, written: &str| {
            let rule = Match { principal: None, key: Some(wanted.into()) };
            rule.covers("unix:uid/1", Some(&key(written)))
        };
        for written in [arn, "alias/dev", "1234abcd-12ab-34cd-56ef-1234567890ab"] {
            assert!(covers(arn, written), "{written}");
        }
        assert!(covers("alias/dev", "alias/dev") && !covers("alias/dev", "alias/other"));
        assert!(!covers("alias/dev", arn), "what aliases a key has is not known");
        assert!(!Match { principal: None, key: Some(arn.into()) }.covers("unix:uid/1", None));
    }
}
