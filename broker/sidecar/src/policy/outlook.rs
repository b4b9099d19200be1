//! Decides whether a call is denied whatever its key is, before the key is known.
//!
//! Each `permit` is evaluated without its conditions on keys, so that it applies at least as often as before, and a `forbid` only if it
//! has no conditions on keys. A call denied by these is denied by all policies.

use std::sync::Arc;

use cedar_policy::{Authorizer, Decision, Effect, Entities, Policy, PolicySet, Request};
use key_broker_core::{Action, Principal};
use serde_json::{Value, json};

use super::{AliasMeanings, Facts, Question, schema, sorted};

/// The policies without their conditions on keys.
pub(super) struct Outlook {
    keyless: PolicySet,
    /// The permits alone, reduced to principal and action.
    unconditional: PolicySet,
}

impl Outlook {
    pub(super) fn of(policies: &PolicySet) -> Result<Self, String> {
        let (mut keyless, mut unconditional) = (PolicySet::new(), PolicySet::new());
        for policy in policies.policies() {
            let parsed = policy.to_json().map_err(|error| format!("{}: {error}", policy.id()))?;
            let add = |set: &mut PolicySet, parsed| {
                let added = Policy::from_json(Some(policy.id().clone()), parsed)
                    .map_err(|error| error.to_string())
                    .and_then(|policy| set.add(policy).map_err(|error| error.to_string()));
                added.map_err(|error| format!("{}: {error}", policy.id()))
            };
            if policy.effect() == Effect::Permit {
                let mut bare = parsed.clone();
                bare["resource"] = json!({ "op": "All" });
                bare["conditions"] = json!([]);
                add(&mut unconditional, bare)?;
            }
            if let Some(parsed) = without_keys(policy.effect(), parsed) {
                add(&mut keyless, parsed)?;
            }
        }
        Ok(Self { keyless, unconditional })
    }

    /// Whether no permit matches the principal and the action, whatever its other conditions.
    pub(super) fn denies_all(&self, authorizer: &Authorizer, request: &Request, entities: &Entities) -> bool {
        authorizer.is_authorized(request, &self.unconditional, entities).decision() == Decision::Deny
    }

    /// The policies behind a certain denial, which are none if no permit applies; `None` if the call may be permitted for some key.
    pub(super) fn denial(
        &self,
        authorizer: &Authorizer,
        request: &Request,
        entities: &Entities,
    ) -> Option<Vec<String>> {
        let response = authorizer.is_authorized(request, &self.keyless, entities);
        let is_denied = response.decision() == Decision::Deny;
        is_denied.then(|| response.diagnostics().reason().map(ToString::to_string).collect())
    }
}

impl super::Policy {
    /// The decision, if the call is denied whatever its key is, so that nobody need be asked about the key.
    #[must_use]
    pub(crate) fn denies_every_key(
        &self,
        principal: &Principal,
        action: Action,
        facts: Facts<'_>,
    ) -> Option<super::Decision> {
        let question = Question { principal, action, key: None, meanings: &AliasMeanings::default(), facts };
        let (request, entities) = self.names.request(&question, &[])?;
        let determining = self.outlook.denial(&self.authorizer, &request, &entities)?;
        let determining_policies = sorted(determining.into_iter());
        Some(super::Decision { permits: false, determining_policies, version: Arc::clone(&self.version) })
    }

    /// Whether any such call is denied, whatever its key and its other facts.
    #[must_use]
    pub(crate) fn denies_every_call(&self, principal: &Principal, action: Action) -> bool {
        let (meanings, facts) = (AliasMeanings::default(), Facts::default());
        let question = Question { principal, action, key: None, meanings: &meanings, facts };
        self.names
            .request(&question, &[])
            .is_some_and(|(request, entities)| self.outlook.denies_all(&self.authorizer, &request, &entities))
    }
}

/// A `permit` that applies wherever it applied for some key; a `forbid` as it is, unless it has conditions on keys.
fn without_keys(effect: Effect, mut policy: Value) -> Option<Value> {
    let parts = conjuncts(policy["conditions"].as_array()?);
    let all = parts.len();
    let keyless: Vec<Value> = parts.into_iter().filter(|part| !speaks_of_keys(part)).collect();
    let is_whole = keyless.len() == all && policy["resource"]["op"] == "All";
    if effect == Effect::Forbid && !is_whole {
        return None;
    }
    policy["resource"] = json!({ "op": "All" });
    policy["conditions"] = keyless.into();
    Some(policy)
}

/// The conditions in order, with each `a && b` split, since all of them must hold.
fn conjuncts(conditions: &[Value]) -> Vec<Value> {
    let mut parts = Vec::new();
    for condition in conditions {
        let both = &condition["body"]["&&"];
        if condition["kind"] == "when" && both.is_object() {
            let sides = ["left", "right"].map(|side| json!({ "kind": "when", "body": both[side] }));
            parts.extend(conjuncts(&sides));
        } else {
            parts.push(condition.clone());
        }
    }
    parts
}

/// Whether its value can depend on the key, or on what aliases stand for.
fn speaks_of_keys(expression: &Value) -> bool {
    match expression {
        Value::Array(members) => members.iter().any(speaks_of_keys),
        Value::Object(members) => members.iter().any(|(operator, operands)| {
            (operator == "Var" && operands == "resource")
                || (operator == "__entity"
                    && (operands["type"] == schema::KEY || operands["type"] == schema::ALIAS))
                || speaks_of_keys(operands)
        }),
        _ => false,
    }
}
