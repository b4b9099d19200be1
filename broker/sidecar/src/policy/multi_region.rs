//! To policy all replicas of a multi-Region key are one key, whichever ARN a policy or call uses. Cedar identifies entities by name, so such
//! a key has one name: an ARN without a region.

use std::borrow::Cow;

use cedar_policy::Policy as CedarPolicy;
use key_broker_core::KeyArn;
use serde_json::Value;

/// The key's name in Cedar.
pub(super) fn name_of(arn: &KeyArn) -> Cow<'_, str> {
    if arn.is_multi_region() { arn.in_region(ANY_REGION).to_string().into() } else { arn.as_str().into() }
}

/// The policy with these names for its multi-Region keys.
pub(super) fn with_one_name(policy: &CedarPolicy, key_type: &str) -> Result<CedarPolicy, String> {
    let is_of_one = |id: &str| KeyArn::parse(id).is_some_and(|arn| arn.is_multi_region());
    let literals = policy.entity_literals();
    let mut names = literals.iter().filter(|literal| literal.type_name().basename() == key_type);
    if !names.any(|literal| is_of_one(literal.id().unescaped())) {
        return Ok(policy.clone());
    }
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", policy.id());
    let mut parsed = policy.to_json().map_err(|error| told(&error))?;
    rename(&mut parsed, key_type);
    CedarPolicy::from_json(Some(policy.id().clone()), parsed).map_err(|error| told(&error))
}

/// Renames every key in a policy's parsed form.
fn rename(part: &mut Value, key_type: &str) {
    match part {
        Value::Array(members) => members.iter_mut().for_each(|member| rename(member, key_type)),
        Value::Object(members) => {
            if members.get("type").is_some_and(|kind| kind == key_type)
                && let Some(Value::String(id)) = members.get_mut("id")
                && let Some(arn) = KeyArn::parse(id)
            {
                *id = name_of(&arn).into_owned();
            }
            members.values_mut().for_each(|member| rename(member, key_type));
        }
        _ => {}
    }
}

/// Replaces the region. No ARN of AWS's contains it.
const ANY_REGION: &str = "*";
