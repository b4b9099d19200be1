//! Who may do what with which key: Cedar policies, default deny. A [`Permit`] is the only way to reach KMS.
//!
//! A request to Cedar is `Workload::"unix:uid/1000"` (or `Unknown::"unknown"`), `Action::"Decrypt"` and `Key::"…"`, the
//! key as the caller wrote it. Where a call names no key, the resource is `Key::"*"`: only a policy that permits any key
//! permits it.

use std::str::FromStr;

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
    pub determining_policies: Vec<String>,
}

impl Policy {
    /// Reads policies in Cedar's own syntax (<https://docs.cedarpolicy.com/policies/syntax-policy.html>).
    pub fn parse(text: &str) -> Result<Self, String> {
        let policies = PolicySet::from_str(text).map_err(|errors| format!("{errors:?}"))?;
        Ok(Self { policies, authorizer: Authorizer::new(), names: Names::new() })
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
        let request = Request::new(
            self.names.principal(principal),
            self.names.action(action),
            self.names.key(key.map_or(ANY_KEY, KeyId::as_str)),
            Context::empty(),
            None,
        );
        let Ok(request) = request else {
            return Answer { permit: None, determining_policies: Vec::new() };
        };
        let response = self.authorizer.is_authorized(&request, &self.policies, &Entities::empty());
        for error in response.diagnostics().errors() {
            tracing::warn!(%error, "a policy cannot be evaluated and counts as absent");
        }
        Answer {
            permit: (response.decision() == Decision::Allow).then_some(Permit { action }),
            determining_policies: response.diagnostics().reason().map(ToString::to_string).collect(),
        }
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

#[cfg(test)]
mod tests {
    //! Nothing is permitted that a policy does not permit.

    use super::*;

    fn permits(policy: &str, principal: &Principal, action: Action, key: Option<&str>) -> bool {
        let key = key.map(|text| KeyId::parse(text).expect("key id"));
        Policy::parse(policy).expect("parses").authorize(principal, action, key.as_ref()).permit.is_some()
    }

    fn uid(uid: u32) -> Principal {
        Principal::Workload(format!("unix:uid/{uid}"))
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
        assert_eq!(yes.determining_policies, ["policy0"]);
        let no = policy.authorize(&uid(1), Action::GenerateRandom, None);
        assert!(no.permit.is_none());
        assert_eq!(no.determining_policies, ["policy1"]);
    }

    #[test]
    fn a_mistake_is_an_error_with_a_place() {
        assert!(Policy::parse("permit(principal, action").is_err());
    }
}
