//! Who may do what with which key: Cedar policies, default deny. A [`Permit`] is the only way to reach KMS.
//!
//! A request to Cedar is `Workload::"unix:uid/1000"` (or `Unknown::"unknown"`), `Action::"Decrypt"` and `Key::"…"`, the
//! key as the caller wrote it. Where a call names no key, the resource is `Key::"*"`: only a policy that permits any key
//! permits it.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

use cedar_policy::{
    Authorizer, Context, Decision, Entities, EntityId, EntityTypeName, EntityUid, PolicySet, Request,
};

use crate::audit::record::Action;
use crate::identity::Principal;
use crate::key::KeyId;

/// The policies in force.
pub struct Policy {
    policies: PolicySet,
    authorizer: Authorizer,
    names: Names,
    decided: Memory,
}

/// Proof that policy said yes to one call. Only [`Policy::authorize`] makes one for a workload, and every way to KMS takes
/// one.
#[derive(Debug)]
pub struct Permit {
    action: Action,
}

impl Permit {
    /// The same yes, for another attempt at the same draw.
    pub(crate) fn again(&self) -> Self {
        Self { action: self.action }
    }

    /// For what the broker asks for itself: no workload gets anything by it.
    pub(crate) fn for_own_use(action: Action) -> Self {
        Self { action }
    }

    /// What was permitted.
    #[must_use]
    pub fn action(&self) -> Action {
        self.action
    }
}

/// What policy said, and which policies said it: described as fully for a no as for a yes.
pub struct Answer {
    /// The permit, or none.
    pub permit: Option<Permit>,
    /// The ids of the policies that decided; empty when no policy permits.
    pub determining_policies: Arc<[String]>,
}

impl Policy {
    /// Reads policies in Cedar's own syntax (<https://docs.cedarpolicy.com/policies/syntax-policy.html>).
    pub fn parse(text: &str) -> Result<Self, String> {
        let policies = PolicySet::from_str(text).map_err(|errors| format!("{errors:?}"))?;
        Ok(Self { policies, authorizer: Authorizer::new(), names: Names::new(), decided: Memory::default() })
    }

    /// The number of policies.
    #[must_use]
    pub fn len(&self) -> usize {
        self.policies.policies().count()
    }

    /// Whether there are no policies: then everything is denied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Asks whether `principal` may do `action` with `key`. Whatever goes wrong is a no.
    #[must_use]
    pub fn authorize(&self, principal: &Principal, action: Action, key: Option<&KeyId>) -> Answer {
        let question = Question { principal: principal.clone(), action, key: key.cloned() };
        let decision = self.decided.find(&question).unwrap_or_else(|| {
            let (decision, is_sound) = self.decide(&question);
            if is_sound {
                self.decided.keep(question, decision.clone());
            }
            decision
        });
        Answer {
            permit: decision.permits.then_some(Permit { action }),
            determining_policies: decision.determining_policies,
        }
    }

    /// Asks Cedar. The second value is whether nothing went wrong.
    fn decide(&self, question: &Question) -> (Decided, bool) {
        let request = Request::new(
            self.names.principal(&question.principal),
            self.names.action(question.action),
            self.names.key(question.key.as_ref().map_or(ANY_KEY, KeyId::as_str)),
            Context::empty(),
            None,
        );
        let Ok(request) = request else {
            return (Decided { permits: false, determining_policies: Arc::default() }, false);
        };
        let response = self.authorizer.is_authorized(&request, &self.policies, &Entities::empty());
        let mut is_sound = true;
        for error in response.diagnostics().errors() {
            tracing::warn!(%error, "a policy cannot be evaluated and counts as absent");
            is_sound = false;
        }
        let decided = Decided {
            permits: response.decision() == Decision::Allow,
            determining_policies: response.diagnostics().reason().map(ToString::to_string).collect(),
        };
        (decided, is_sound)
    }
}

/// What a decision depends on, beside the policies: there are no entities and no context.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    principal: Principal,
    action: Action,
    key: Option<KeyId>,
}

/// What Cedar said.
#[derive(Clone)]
struct Decided {
    permits: bool,
    determining_policies: Arc<[String]>,
}

/// What Cedar has said under these policies: it says the same again, and takes longer than the rest of a cached call.
/// Other policies are another [`Policy`], which remembers nothing yet.
#[derive(Default)]
struct Memory(RwLock<HashMap<Question, Decided>>);

impl Memory {
    fn find(&self, question: &Question) -> Option<Decided> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(question).cloned()
    }

    /// Forgets all when full: callers who ask about ever new keys cost one evaluation each, as without a memory.
    fn keep(&self, question: Question, decided: Decided) {
        let mut memory = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if memory.len() >= MAX_DECISIONS {
            memory.clear();
        }
        memory.insert(question, decided);
    }
}

/// Cedar's entity types, parsed once.
struct Names {
    workload: EntityTypeName,
    unknown: EntityTypeName,
    action: EntityTypeName,
    key: EntityTypeName,
}

impl Names {
    fn new() -> Self {
        let name = |text| EntityTypeName::from_str(text).expect("a plain identifier is an entity type name");
        Self {
            workload: name("Workload"),
            unknown: name("Unknown"),
            action: name("Action"),
            key: name("Key"),
        }
    }

    fn principal(&self, principal: &Principal) -> EntityUid {
        let kind = match principal {
            Principal::Workload(_) => &self.workload,
            Principal::Unknown => &self.unknown,
        };
        EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(principal.as_str()))
    }

    fn action(&self, action: Action) -> EntityUid {
        EntityUid::from_type_name_and_id(self.action.clone(), EntityId::new(action.name()))
    }

    fn key(&self, key: &str) -> EntityUid {
        EntityUid::from_type_name_and_id(self.key.clone(), EntityId::new(key))
    }
}

/// The resource of a call that names no key. No key id can have this name.
const ANY_KEY: &str = "*";
/// Some 2 MiB, with the longest key ids; most brokers see a few keys and principals.
const MAX_DECISIONS: usize = 1_024;

#[cfg(test)]
mod tests {
    //! Nothing is permitted that a policy does not permit.

    use super::*;

    fn permits(policy: &str, principal: &Principal, action: Action, key: Option<&str>) -> bool {
        let key = key.map(|text| KeyId::parse(text).expect("key id"));
        Policy::parse(policy).expect("parses").authorize(principal, action, key.as_ref()).permit.is_some()
    }

    fn uid(uid: u32) -> Principal {
        Principal::Workload(format!("unix:uid/{uid}").into())
    }

    #[test]
    fn no_policy_permits_nothing() {
        assert!(!permits("", &uid(0), Action::Decrypt, Some("alias/dev")));
    }

    #[test]
    fn a_policy_permits_what_it_names_and_nothing_else() {
        let policy = r#"permit(principal == Workload::"unix:uid/1000", action == Action::"Decrypt", resource == Key::"alias/dev");"#;
        assert!(permits(policy, &uid(1000), Action::Decrypt, Some("alias/dev")));
        assert!(!permits(policy, &uid(1001), Action::Decrypt, Some("alias/dev")));
        assert!(!permits(policy, &uid(1000), Action::GenerateDataKey, Some("alias/dev")));
        assert!(!permits(policy, &uid(1000), Action::Decrypt, Some("alias/other")));
        assert!(
            !permits(policy, &uid(1000), Action::Decrypt, None),
            "a call without a key needs a permit for any key"
        );
    }

    #[test]
    fn every_workload_does_not_include_the_unknown() {
        let policy = "permit(principal is Workload, action, resource);";
        assert!(permits(policy, &uid(1000), Action::Decrypt, None));
        assert!(!permits(policy, &Principal::Unknown, Action::Decrypt, Some("alias/dev")));
    }

    #[test]
    fn a_forbid_wins_and_both_answers_name_their_policies() {
        let policy = r#"
            @id("all") permit(principal, action, resource);
            @id("no-random") forbid(principal, action == Action::"GenerateRandom", resource);"#;
        let policy = Policy::parse(policy).expect("parses");
        let yes = policy.authorize(&uid(1), Action::Decrypt, None);
        assert!(yes.permit.is_some_and(|permit| permit.action() == Action::Decrypt));
        assert_eq!(*yes.determining_policies, ["policy0".to_owned()]);
        let no = policy.authorize(&uid(1), Action::GenerateRandom, None);
        assert!(no.permit.is_none());
        assert_eq!(*no.determining_policies, ["policy1".to_owned()]);
    }

    /// Proves: whatever was asked before, and however often, an answer is that of policies which remember nothing.
    #[test]
    fn a_remembered_answer_is_the_answer() {
        let text = r#"
            permit(principal == Workload::"unix:uid/1", action == Action::"Decrypt", resource);
            permit(principal == Workload::"unix:uid/2", action, resource == Key::"alias/b");
            forbid(principal, action, resource == Key::"alias/c");"#;
        let remembering = Policy::parse(text).expect("parses");
        let keys = [None, Some("alias/a"), Some("alias/b"), Some("alias/c")];
        let keys = keys.map(|key| key.map(|text| KeyId::parse(text).expect("key id")));
        for _ in 0..2 {
            for principal in [uid(1), uid(2), Principal::Workload("unknown".into()), Principal::Unknown] {
                for (action, key) in Action::ALL.into_iter().flat_map(|a| keys.iter().map(move |k| (a, k))) {
                    let fresh =
                        Policy::parse(text).expect("parses").authorize(&principal, action, key.as_ref());
                    let again = remembering.authorize(&principal, action, key.as_ref());
                    let permitted = |answer: &Answer| answer.permit.as_ref().map(Permit::action);
                    assert_eq!(permitted(&again), permitted(&fresh));
                    assert_eq!(again.determining_policies, fresh.determining_policies);
                }
            }
        }
    }

    /// Proves: the memory is bounded, goes on when it was full, and holds no answer of a policy that failed.
    #[test]
    fn the_memory_is_bounded_and_holds_sound_answers_only() {
        let remembered = |policy: &Policy| policy.decided.0.read().expect("sound").len();
        let policy = Policy::parse("permit(principal, action, resource);").expect("parses");
        for n in 0..=MAX_DECISIONS {
            let key = KeyId::parse(&format!("alias/{n}")).expect("key id");
            assert!(policy.authorize(&uid(1), Action::Decrypt, Some(&key)).permit.is_some());
        }
        assert_eq!(remembered(&policy), 1);
        let failing =
            Policy::parse("permit(principal, action, resource) when { 1 + true == 2 };").expect("parses");
        assert!(failing.authorize(&uid(1), Action::Decrypt, None).permit.is_none());
        assert_eq!(remembered(&failing), 0);
    }

    #[test]
    fn a_mistake_is_an_error_with_a_place() {
        assert!(Policy::parse("permit(principal, action").is_err());
    }
}
