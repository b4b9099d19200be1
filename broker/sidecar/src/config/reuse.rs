//! `[reuse]` and `[[reuse.rule]]`: how far data keys are reused, by default and by key and principal.

use std::time::Duration;

use key_broker_core::{Bounds, KeyId, MAX_AGE_SECONDS, Principal};
use serde::Deserialize;

use super::bounds::{byte_bound, message_bound};
use super::messages::MessagesSection;
use super::within;
use crate::cache::rules::{Match, RevocationCheck, Rule, Rules};

/// `[reuse]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct ReuseSection {
    enabled: bool,
    max_age_seconds: u64,
    max_messages: u64,
    max_bytes: u64,
    refresh_at: f64,
    max_entries: u64,
    revocation_check_seconds: u64,
    revocation_check: CheckScope,
    unverified_max_seconds: u64,
    rule: Vec<RuleSection>,
}

impl Default for ReuseSection {
    fn default() -> Self {
        Self {
            enabled: true,
            // The AWS Encryption SDK's own examples use minutes; a revoked key is served for so long at most.
            max_age_seconds: 300,
            max_messages: 10_000,
            max_bytes: 1 << 30,
            // A replacement takes one call to KMS, some tens of milliseconds: a fifth of any bound is ample.
            refresh_at: 0.8,
            // Each costs under a kilobyte.
            max_entries: 10_000,
            // A KMS key that is busy all day costs 1,800 requests for each operation, half a cent; an idle one none.
            revocation_check_seconds: 60,
            revocation_check: CheckScope::Key,
            // As long as data keys are kept by default.
            unverified_max_seconds: 300,
            rule: Vec::new(),
        }
    }
}

/// What a revocation check speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CheckScope {
    /// The KMS key.
    Key,
    /// One encryption context under it.
    Context,
}

/// One `[[reuse.rule]]`; what it leaves out is as in `[reuse]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct RuleSection {
    key_id: Option<String>,
    principal: Option<String>,
    enabled: Option<bool>,
    max_age_seconds: Option<u64>,
    max_messages: Option<u64>,
    max_bytes: Option<u64>,
    refresh_at: Option<f64>,
    partition: Option<String>,
}

impl ReuseSection {
    pub(super) fn check(self, messages: &MessagesSection, kms_deadline: Duration) -> Result<Rules, String> {
        let revocation_check = self.check_revocation()?;
        let bounds = Bounds {
            max_age: age("reuse.max_age_seconds", self.max_age_seconds)?,
            max_messages: message_bound("reuse.max_messages", self.max_messages)?,
            max_bytes: byte_bound("reuse.max_bytes", self.max_bytes)?,
        };
        let refresh_at = share("reuse.refresh_at", self.refresh_at)?;
        let message_bounds = messages.bounds(bounds.max_age)?;
        let default = Rule { enabled: self.enabled, bounds, message_bounds, refresh_at, partition: None };
        let mut rules: Vec<(Match, Rule)> = Vec::new();
        for (place, section) in self.rule.into_iter().enumerate() {
            let name = format!("reuse.rule {}", place + 1);
            let (matches, rule) = section.check(&name, &default)?;
            if let Some(earlier) = rules.iter().position(|(earlier, _)| earlier.includes(&matches)) {
                return Err(format!(
                    "{name}: never holds, since rule {} matches all that it matches and comes first: put it before that \
                     one, or remove it",
                    earlier + 1
                ));
            }
            check_partition(&name, &rules, &rule)?;
            rules.push((matches, rule));
        }
        let max_entries = within("reuse.max_entries", self.max_entries, 1, 10_000_000)?;
        Ok(Rules { default, rules, max_entries, kms_deadline, revocation_check })
    }
}

impl ReuseSection {
    fn check_revocation(&self) -> Result<Option<RevocationCheck>, String> {
        let seconds = |key, seconds| within(key, seconds, 0, MAX_AGE_SECONDS).map(Duration::from_secs);
        let interval = seconds("reuse.revocation_check_seconds", self.revocation_check_seconds)?;
        let unverified_max = seconds("reuse.unverified_max_seconds", self.unverified_max_seconds)?;
        let by_context = self.revocation_check == CheckScope::Context;
        Ok((!interval.is_zero()).then(|| RevocationCheck {
            interval,
            by_context,
            unverified_max: unverified_max.max(interval),
        }))
    }
}

impl RuleSection {
    fn check(self, name: &str, default: &Rule) -> Result<(Match, Rule), String> {
        if self.key_id.is_none() && self.principal.is_none() {
            return Err(format!(
                "{name}: matches everything: say so in [reuse], or give key_id or principal"
            ));
        }
        if let Some(key) = &self.key_id {
            KeyId::parse(key).map_err(|malformed| format!("{name}: {}", malformed.0))?;
        }
        let principal = self.principal.as_deref().map(Principal::parse).transpose();
        let principal = principal.map_err(|why| format!("{name}: principal: {why}"))?;
        let bounded = self.max_age_seconds.or(self.max_messages).or(self.max_bytes).is_some();
        if bounded || self.refresh_at.is_some() || self.partition.is_some() {
            match self.enabled {
                Some(false) => {
                    return Err(format!("{name}: enabled = false contradicts its bounds: nothing is reused"));
                }
                None if !default.enabled => {
                    return Err(format!(
                        "{name}: has no effect, since reuse.enabled is false: give the rule enabled = true, or remove it"
                    ));
                }
                _ => {}
            }
        }
        let max_age =
            self.max_age_seconds.map(|n| age(&format!("{name}: max_age_seconds"), n)).transpose()?;
        let max_messages =
            self.max_messages.map(|n| message_bound(&format!("{name}: max_messages"), n)).transpose()?;
        let max_bytes = self.max_bytes.map(|n| byte_bound(&format!("{name}: max_bytes"), n)).transpose()?;
        // What a rule says holds for whatever the data keys are for.
        let within_default = |default: Bounds| Bounds {
            max_age: max_age.unwrap_or(default.max_age),
            max_messages: max_messages.unwrap_or(default.max_messages),
            max_bytes: max_bytes.unwrap_or(default.max_bytes),
        };
        let (bounds, message_bounds) =
            (within_default(default.bounds), within_default(default.message_bounds));
        let refresh_at = match self.refresh_at {
            Some(at) => share(&format!("{name}: refresh_at"), at)?,
            None => default.refresh_at,
        };
        if self.partition.as_deref() == Some("") {
            return Err(format!("{name}: partition is empty: give it a name, or leave it out"));
        }
        let principal = principal.map(|principal| principal.as_str().to_owned());
        let matches = Match { principal, key: self.key_id };
        let enabled = self.enabled.unwrap_or(default.enabled);
        Ok((matches, Rule { enabled, bounds, message_bounds, refresh_at, partition: self.partition }))
    }
}

/// Refuses a rule that puts the data keys of a partition within other bounds than an earlier one does: whoever came first would set
/// them for both.
fn check_partition(name: &str, earlier: &[(Match, Rule)], rule: &Rule) -> Result<(), String> {
    let Some(partition) = &rule.partition else { return Ok(()) };
    let shares = |(_, other): &(Match, Rule)| other.partition.as_ref() == Some(partition);
    match earlier.iter().position(|other| shares(other) && !other.1.has_bounds_of(rule)) {
        Some(place) => Err(format!(
            "{name}: rule {} has other bounds for partition {partition:?}, whose data keys have one set of them: give both the same \
             max_age_seconds, max_messages, max_bytes and refresh_at, or another partition",
            place + 1
        )),
        None => Ok(()),
    }
}

fn age(key: &str, seconds: u64) -> Result<Duration, String> {
    within(key, seconds, 1, MAX_AGE_SECONDS).map(Duration::from_secs)
}

fn share(key: &str, at: f64) -> Result<Option<f64>, String> {
    // One is "at the bound itself": that is never, since a key at its bound is gone.
    within(key, at, 0.1, 1.0).map(|at| (at < 1.0).then_some(at))
}

#[cfg(test)]
mod tests {
    //! A rule that could never hold is refused with what to write, and rules of one partition have one set of bounds.

    use super::*;

    fn rules(text: &str) -> Result<Rules, String> {
        let section: ReuseSection = toml::from_str(text).expect("a section");
        section.check(&MessagesSection::default(), Duration::from_secs(10))
    }

    fn refused(text: &str) -> String {
        rules(text).err().unwrap_or_else(|| panic!("accepted: {text}"))
    }

    /// Two rules of one partition.
    fn shared(one: &str, other: &str) -> String {
        let rule =
            |uid, more| format!("[[rule]]\nprincipal = \"unix:uid/{uid}\"\npartition = \"shared\"\n{more}\n");
        rule(1, one) + &rule(2, other)
    }

    #[test]
    fn rules_of_one_partition_have_one_set_of_bounds() {
        for same in [("max_messages = 5", "max_messages = 5"), ("refresh_at = 0.8", "")] {
            assert_eq!(rules(&shared(same.0, same.1)).expect("the same").rules.len(), 2);
        }
        // Said of a rule, the default of data keys holds for messages, too.
        for other in [
            "max_messages = 10000",
            "max_messages = 6",
            "max_bytes = 5",
            "max_age_seconds = 5",
            "refresh_at = 1",
        ] {
            let why = refused(&shared("", other));
            assert!(
                why.starts_with("reuse.rule 2: rule 1 has other bounds for partition \"shared\""),
                "{why}"
            );
        }
        let elsewhere = shared("", "max_messages = 6").replacen("shared", "another", 1);
        assert!(rules(&elsewhere).is_ok());
    }

    #[test]
    fn a_rule_that_could_not_hold_is_refused() {
        for principal in ["unix:uid:0", "uid/0", "unix:uid/00", "spiffe://Example.org/a", "vsock:16"] {
            let why = refused(&format!("[[rule]]\nprincipal = \"{principal}\"\nenabled = false"));
            assert!(why.starts_with("reuse.rule 1: principal: "), "{why}");
        }
        let why = refused("enabled = false\n[[rule]]\nprincipal = \"unix:uid/0\"\nmax_messages = 5");
        assert!(why.contains("give the rule enabled = true"), "{why}");
        let enabled =
            "enabled = false\n[[rule]]\nprincipal = \"unix:uid/0\"\nenabled = true\nmax_messages = 5";
        assert!(rules(enabled).is_ok());
    }
}
