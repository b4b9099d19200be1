//! Remembers the aliases that callers use.
//!
//! Each principal chooses names of its own, so each has a share: one principal's names displace nothing that another uses within
//! its share. Names that KMS has resolved are kept apart from all others, so that invented names cannot displace them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use key_broker_core::{KeyArn, KeyId, Principal};

use crate::fair_memory::FairMemory;

/// The key that KMS gave for an alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AliasTarget {
    /// `None` if the alias does not exist.
    pub(super) arn: Option<KeyArn>,
    /// When KMS said so.
    pub(super) at: Instant,
}

/// Locked during a call to KMS, so that callers of one principal share the lookup of an alias.
pub(super) type Lookup = Arc<tokio::sync::Mutex<()>>;

/// Aliases and what is known about them, each for as long as some principal uses it.
pub(super) struct AliasMemory {
    names: HashMap<KeyId, Name>,
    answered: FairMemory<Principal, KeyId, Lookup>,
    unanswered: FairMemory<Principal, KeyId, Lookup>,
}

#[derive(Default)]
struct Name {
    target: Option<AliasTarget>,
    /// The number of principals that use it.
    users: usize,
    refresh_not_before: Option<Instant>,
}

impl Name {
    fn is_answered(&self) -> bool {
        self.target.as_ref().is_some_and(|target| target.arn.is_some())
    }
}

impl AliasMemory {
    /// Remembers this many uses of aliases with a key.
    #[must_use]
    pub(super) fn new(most_answered: usize) -> Self {
        Self {
            names: HashMap::new(),
            answered: FairMemory::new(most_answered),
            unanswered: FairMemory::new(MOST_UNANSWERED),
        }
    }

    /// What `alias` stands for, if that is remembered from any principal's lookup. Counts as a use by `principal`.
    pub(super) fn target(&mut self, principal: &Principal, alias: &KeyId) -> Option<AliasTarget> {
        let target = self.names.get(alias)?.target.clone()?;
        self.use_name(principal, alias);
        Some(target)
    }

    /// Whether `alias` may be asked for again now.
    pub(super) fn may_refresh(&self, alias: &KeyId, now: Instant) -> bool {
        self.names.get(alias).is_some_and(|name| name.refresh_not_before.is_none_or(|moment| moment <= now))
    }

    /// The lock that `principal`'s callers share while they ask KMS about `alias`.
    pub(super) fn lookup(&mut self, principal: &Principal, alias: &KeyId) -> Lookup {
        self.use_name(principal, alias)
    }

    /// Remembers KMS's answer to `principal` about `alias`.
    pub(super) fn learn(&mut self, principal: &Principal, alias: &KeyId, target: AliasTarget) {
        self.names.entry(alias.clone()).or_default().target = Some(target);
        self.use_name(principal, alias);
    }

    /// Whether the caller is to ask for `alias` again now: true only once until `again_from`.
    pub(super) fn begin_refresh(&mut self, alias: &KeyId, now: Instant, again_from: Instant) -> bool {
        let may = self.may_refresh(alias, now);
        if let Some(name) = self.names.get_mut(alias).filter(|_| may) {
            name.refresh_not_before = Some(again_from);
        }
        may
    }

    fn use_name(&mut self, principal: &Principal, alias: &KeyId) -> Lookup {
        let name = self.names.entry(alias.clone()).or_default();
        let (list, other) = if name.is_answered() {
            (&mut self.answered, &mut self.unanswered)
        } else {
            (&mut self.unanswered, &mut self.answered)
        };
        if let Some(lookup) = list.get(principal, alias) {
            return Arc::clone(lookup);
        }
        let lookup = other.remove(principal, alias).unwrap_or_else(|| {
            name.users += 1;
            Lookup::default()
        });
        if let Some((_, gone, _)) = list.put(principal, alias.clone(), Arc::clone(&lookup)) {
            self.leave(&gone);
        }
        lookup
    }

    fn leave(&mut self, alias: &KeyId) {
        let Some(name) = self.names.get_mut(alias) else { return };
        name.users -= 1;
        if name.users == 0 {
            self.names.remove(alias);
        }
    }
}

/// Unresolved aliases and those that do not exist: at most 2 MiB at the greatest length.
const MOST_UNANSWERED: usize = 1_024;

#[cfg(test)]
mod tests {
    //! A principal's resolved alias is remembered within its share, whatever others ask for, and no name outlives its last user.

    use proptest::prelude::*;

    use super::*;

    fn alias(text: &str) -> KeyId {
        KeyId::parse(&format!("alias/{text}")).expect("an alias")
    }

    fn arn() -> Option<KeyArn> {
        KeyArn::parse("arn:aws:kms:us-west-2:111122223333:key/0001-aa")
    }

    fn now() -> Instant {
        use key_broker_core::clock::{Clock as _, SystemClock};
        SystemClock.instant()
    }

    #[derive(Debug, Clone)]
    enum Step {
        Ask(u32, u16),
        Learn(u32, u16, bool),
        Find(u32, u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Three others.
        let asked = || (1..4_u32, 0..60_u16);
        prop_oneof![
            asked().prop_map(|(uid, name)| Step::Ask(uid, name)),
            (asked(), any::<bool>()).prop_map(|((uid, name), is_one)| Step::Learn(uid, name, is_one)),
            asked().prop_map(|(uid, name)| Step::Find(uid, name)),
        ]
    }

    proptest! {
        #[test]
        fn an_answered_alias_is_remembered_whatever_others_do(steps in prop::collection::vec(step(), 0..400)) {
            let mut memory = AliasMemory::new(32);
            let (own, own_alias, at) = (Principal::of_uid(0), alias("own"), now());
            memory.learn(&own, &own_alias, AliasTarget { arn: arn(), at });
            for step in steps {
                match step {
                    Step::Ask(uid, name) => {
                        drop(memory.lookup(&Principal::of_uid(uid), &alias(&name.to_string())));
                    }
                    Step::Learn(uid, name, is_one) => {
                        let target = AliasTarget { arn: arn().filter(|_| is_one), at };
                        memory.learn(&Principal::of_uid(uid), &alias(&name.to_string()), target);
                    }
                    Step::Find(uid, name) => {
                        memory.target(&Principal::of_uid(uid), &alias(&name.to_string()));
                    }
                }
                let users: usize = memory.names.values().map(|name| name.users).sum();
                prop_assert_eq!(users, memory.answered.iter().count() + memory.unanswered.iter().count());
                prop_assert!(memory.names.values().all(|name| name.users > 0));
                prop_assert!(memory.answered.iter().count() <= 32);
            }
            prop_assert_eq!(memory.target(&own, &own_alias), Some(AliasTarget { arn: arn(), at }));
        }
    }

    #[test]
    fn made_up_names_take_no_place_of_one_that_kms_has_answered_for() {
        let mut memory = AliasMemory::new(2);
        let (principal, at) = (Principal::of_uid(1), now());
        memory.learn(&principal, &alias("a"), AliasTarget { arn: arn(), at });
        for name in 0..3 * MOST_UNANSWERED {
            drop(memory.lookup(&principal, &alias(&name.to_string())));
        }
        assert!(memory.target(&principal, &alias("a")).is_some());
        assert_eq!(memory.names.len(), 1 + MOST_UNANSWERED);
        for name in ["b", "c"] {
            memory.learn(&principal, &alias(name), AliasTarget { arn: arn(), at });
        }
        assert_eq!(memory.target(&principal, &alias("a")), None, "its own answered names are two at most");
        memory.learn(&principal, &alias("b"), AliasTarget { arn: None, at });
        memory.learn(&principal, &alias("d"), AliasTarget { arn: arn(), at });
        assert!(memory.target(&principal, &alias("c")).is_some(), "one that is gone takes no place");
    }

    #[test]
    fn an_alias_is_asked_for_again_once_in_a_while() {
        let mut memory = AliasMemory::new(2);
        let (principal, at) = (Principal::of_uid(1), now());
        let later = |seconds| at + std::time::Duration::from_secs(seconds);
        assert!(!memory.begin_refresh(&alias("a"), at, later(10)), "nobody uses it");
        memory.learn(&principal, &alias("a"), AliasTarget { arn: arn(), at });
        assert!(memory.begin_refresh(&alias("a"), at, later(10)));
        assert!(!memory.begin_refresh(&alias("a"), later(9), later(19)));
        assert!(!memory.may_refresh(&alias("a"), later(9)) && memory.may_refresh(&alias("a"), later(10)));
        assert!(memory.begin_refresh(&alias("a"), later(10), later(20)));
    }
}
