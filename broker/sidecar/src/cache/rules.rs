//! The bounds on reuse: defaults, and rules by key and principal.

use std::borrow::Cow;
use std::time::Duration;

use key_broker_core::{Bounds, KeyId, Principal, Reuse};
use key_broker_trail::record::{CheckedScope, RevocationPromise};

use crate::named_key::{NamedKey, RequestedKey};

/// The validated configuration of reuse.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Applies where no rule matches.
    pub default: Rule,
    /// The first match applies.
    pub rules: Vec<(Match, Rule)>,
    /// The most partitions that are cached at a time, for each kind of reply.
    pub max_entries: u64,
    /// The time limit of a call to KMS that several draws share.
    pub kms_deadline: Duration,
    /// Whether and when KMS is asked again about cached data keys.
    pub revocation_check: Option<RevocationCheck>,
}

/// How long a cached data key may outlive the permission to use its KMS key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevocationCheck {
    /// The age of KMS's last permission up to which a cached key is served without asking KMS first.
    pub interval: Duration,
    /// Whether KMS is asked about each encryption context; if not, one context answers for the whole KMS key.
    pub by_context: bool,
    /// The same while KMS cannot be asked; at least `interval`.
    pub unverified_max: Duration,
}

impl RevocationCheck {
    /// The age of KMS's last permission from which a draw triggers a check in the background, so that draws need not wait.
    #[must_use]
    pub(crate) fn ahead(&self) -> Duration {
        self.interval.mul_f64(AHEAD)
    }

    /// The most requests a day that this costs for each KMS key and operation in use, and for each encryption context with
    /// `by_context`.
    #[must_use]
    pub(crate) fn most_requests_a_day(&self) -> u64 {
        let day = Duration::from_hours(24).as_millis();
        u64::try_from(day.div_ceil(self.ahead().as_millis().max(1))).unwrap_or(u64::MAX)
    }
}

/// Which draws a rule applies to; an empty match applies to all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    /// The principal as policies name it.
    pub principal: Option<String>,
    /// The KMS key: an ARN or id matches however callers name the key; an alias matches only callers that use it.
    pub key: Option<String>,
}

/// How far data keys may be reused.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Whether they may be reused at all.
    pub enabled: bool,
    /// The bounds of data keys that are handed to callers.
    pub bounds: Bounds,
    /// The bounds of data keys under which the broker encrypts messages.
    pub message_bounds: Bounds,
    /// The share of any bound from which a replacement is fetched in the background; `None` for never.
    pub refresh_at: Option<f64>,
    /// The name of a partition that principals share; without it each principal has its own.
    pub partition: Option<String>,
}

/// The tighter of a rule's bounds and a caller's, bound by bound.
pub(super) fn tightened(bounds: Bounds, reuse: &Reuse) -> Bounds {
    Bounds {
        max_age: reuse.max_age.map_or(bounds.max_age, |age| age.min(bounds.max_age)),
        max_messages: reuse.max_messages.map_or(bounds.max_messages, |n| n.min(bounds.max_messages)),
        max_bytes: reuse.max_bytes.map_or(bounds.max_bytes, |n| n.min(bounds.max_bytes)),
    }
}

impl Rules {
    /// What records say about the revocation check.
    #[must_use]
    pub(crate) fn promise(&self) -> RevocationPromise {
        let (interval, unverified_max, by_context) = match self.revocation_check {
            Some(check) => (check.interval, check.unverified_max, check.by_context),
            None => (Duration::ZERO, Duration::ZERO, false),
        };
        RevocationPromise {
            revocation_check_seconds: interval.as_secs(),
            revocation_check: if by_context { CheckedScope::Context } else { CheckedScope::Key },
            unverified_max_seconds: unverified_max.as_secs(),
        }
    }

    /// The rule for one draw. A Decrypt that names no key could use any, so the tightest of the rules that might match its key
    /// applies.
    #[must_use]
    pub(crate) fn of(&self, principal: &Principal, key: Option<&RequestedKey>) -> Cow<'_, Rule> {
        let principal = principal.as_str();
        let found = self.rules.iter().find(|(matches, _)| matches.covers(principal, key));
        let found = Cow::Borrowed(found.map_or(&self.default, |(_, rule)| rule));
        if key.is_some() {
            return found;
        }
        let may_match = self.rules.iter().filter(|(matches, _)| matches.may_be_of(principal));
        may_match.fold(found, |tightest, (_, rule)| Cow::Owned(tightest.into_owned().tightened(rule)))
    }
}

impl Rule {
    /// The tighter of both rules in every bound; the partition stays the same.
    fn tightened(self, other: &Self) -> Self {
        let tighter = |one: Bounds, two: Bounds| Bounds {
            max_age: one.max_age.min(two.max_age),
            max_messages: one.max_messages.min(two.max_messages),
            max_bytes: one.max_bytes.min(two.max_bytes),
        };
        Self {
            enabled: self.enabled && other.enabled,
            bounds: tighter(self.bounds, other.bounds),
            message_bounds: tighter(self.message_bounds, other.message_bounds),
            ..self
        }
    }

    /// Whether both rules set the same bounds.
    #[must_use]
    pub(crate) fn has_bounds_of(&self, other: &Self) -> bool {
        self.bounds == other.bounds
            && self.message_bounds == other.message_bounds
            && self.refresh_at == other.refresh_at
    }
}

impl Match {
    fn covers(&self, principal: &str, key: Option<&RequestedKey>) -> bool {
        self.principal.as_deref().is_none_or(|wanted| wanted == principal)
            && self.key.as_deref().is_none_or(|wanted| key.is_some_and(|key| names(wanted, key)))
    }

    /// Whether this rule names a key, and could match this principal.
    fn may_be_of(&self, principal: &str) -> bool {
        self.key.is_some() && self.principal.as_deref().is_none_or(|wanted| wanted == principal)
    }

    /// Whether this matches everything that `other` matches.
    #[must_use]
    pub(crate) fn includes(&self, other: &Self) -> bool {
        let part = |mine: &Option<String>, theirs: &Option<String>| mine.is_none() || mine == theirs;
        part(&self.principal, &other.principal) && part(&self.key, &other.key)
    }
}

/// Whether `wanted` names this key: an ARN or id, however the caller named the key; an alias, in either of its forms, only if the
/// caller used it.
fn names(wanted: &str, key: &RequestedKey) -> bool {
    if key.written.as_str() == wanted || key.sent().as_str() == wanted {
        return true;
    }
    // All replicas of a multi-Region key count as one.
    if KeyId::parse(wanted).is_ok_and(|wanted| key.arn().is_some_and(|arn| wanted.names(arn))) {
        return true;
    }
    let Some(NamedKey { arn: Some(arn), alias }) = &key.resolved else { return false };
    let Some((home, id)) = arn.as_str().rsplit_once(":key/") else { return false };
    let is_alias = |alias: &KeyId| {
        let long = wanted.strip_prefix(home).and_then(|rest| rest.strip_prefix(':'));
        alias.as_str() == wanted || long == Some(alias.as_str())
    };
    id == wanted || alias.as_ref().is_some_and(is_alias)
}

/// The share of the interval after which KMS is asked in the background.
const AHEAD: f64 = 0.8;

#[cfg(test)]
mod tests {
    //! A rule about a key applies whichever name of the key a caller uses.

    use key_broker_core::KeyArn;

    use super::*;

    #[test]
    fn a_rule_for_a_key_holds_however_it_is_named_and_for_an_alias_by_either_name() {
        let arn = "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        let key = |written: &str| RequestedKey {
            written: KeyId::parse(written).expect("a key id"),
            resolved: Some(NamedKey {
                arn: KeyArn::parse(arn),
                // As aliases are resolved: without the broker's own account and region.
                alias: written
                    .rsplit_once("alias/")
                    .and_then(|(_, name)| KeyId::parse(&format!("alias/{name}")).ok()),
            }),
        };
        let covers = |wanted: &str, written: &str| {
            let rule = Match { principal: None, key: Some(wanted.into()) };
            rule.covers("unix:uid/1", Some(&key(written)))
        };
        for written in [arn, "alias/dev", "1234abcd-12ab-34cd-56ef-1234567890ab"] {
            assert!(covers(arn, written), "{written}");
            assert!(covers("1234abcd-12ab-34cd-56ef-1234567890ab", written), "{written}");
            assert!(!covers("1234abcd-12ab-34cd-56ef-1234567890ac", written), "{written}");
        }
        let long = "arn:aws:kms:us-west-2:111122223333:alias/dev";
        for (wanted, written) in [(long, "alias/dev"), ("alias/dev", long), (long, long)] {
            assert!(covers(wanted, written), "{wanted} {written}");
        }
        assert!(!covers("arn:aws:kms:eu-west-1:111122223333:alias/dev", "alias/dev"));
        assert!(covers("alias/dev", "alias/dev") && !covers("alias/dev", "alias/other"));
        assert!(!covers("alias/dev", arn), "what aliases a key has is not known");
        assert!(!Match { principal: None, key: Some(arn.into()) }.covers("unix:uid/1", None));
    }

    #[test]
    fn a_rule_for_a_replica_holds_for_the_multi_region_key() {
        let arn = |region: &str| {
            format!("arn:aws:kms:{region}:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab")
        };
        let named = NamedKey { arn: KeyArn::parse(&arn("us-west-2")), alias: None };
        let written = KeyId::parse("mrk-1234abcd12ab34cd56ef1234567890ab").expect("a key id");
        let key = RequestedKey { written, resolved: Some(named) };
        for region in ["us-west-2", "eu-west-1"] {
            assert!(
                Match { principal: None, key: Some(arn(region)) }.covers("unix:uid/1", Some(&key)),
                "{region}"
            );
        }
    }

    #[test]
    fn a_decrypt_that_names_no_key_has_the_tightest_of_what_could_hold() {
        let rule = |enabled, seconds, messages| {
            let bounds =
                Bounds { max_age: Duration::from_secs(seconds), max_messages: messages, max_bytes: 1 };
            Rule { enabled, bounds, message_bounds: bounds, refresh_at: None, partition: None }
        };
        let matches = |principal: Option<&str>, key: Option<&str>| Match {
            principal: principal.map(Into::into),
            key: key.map(Into::into),
        };
        let rules = Rules {
            default: rule(true, 300, 100),
            rules: vec![
                (matches(None, Some("alias/a")), rule(true, 60, 1_000)),
                (matches(Some("unix:uid/1"), Some("alias/b")), rule(false, 300, 100)),
                (matches(Some("unix:uid/2"), None), rule(true, 600, 50)),
            ],
            max_entries: 1,
            kms_deadline: Duration::from_secs(1),
            revocation_check: None,
        };
        let of = |uid| rules.of(&Principal::of_uid(uid), None).into_owned();
        assert!(!of(1).enabled, "a key that is not to be kept may be the one");
        assert_eq!(of(2), rule(true, 60, 50));
        assert_eq!(of(3), rule(true, 60, 100));
    }
}
