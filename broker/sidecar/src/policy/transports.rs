//! What policies compare `context.transport` with. To Cedar it is any string, so that a misspelt one would
//! make a condition that never holds.

use cedar_policy::Policy;
use key_broker_core::{InvalidValue, Transport};
use serde_json::Value;

/// Refuses a policy that compares `context.transport` with what no call has.
pub(super) fn check(policy: &Policy) -> Result<(), String> {
    // Cedar's JSON format (<https://docs.cedarpolicy.com/policies/json-format.html>): every operator is an
    // object of one member.
    let json = policy.to_json().map_err(|error| format!("{}: {error}", policy.id()))?;
    check_expression(&json["conditions"])
        .map_err(|InvalidValue(why)| format!("{}: context.transport: {why}", policy.id()))
}

fn check_expression(expression: &Value) -> Result<(), InvalidValue> {
    match expression {
        Value::Array(members) => members.iter().try_for_each(check_expression),
        Value::Object(members) => members.iter().try_for_each(|(operator, operands)| {
            if ["==", "!=", "contains"].contains(&operator.as_str()) {
                let sides = [&operands["left"], &operands["right"]];
                if sides.into_iter().any(is_transport) {
                    sides
                        .into_iter()
                        .flat_map(literals)
                        .try_for_each(|name| name.parse::<Transport>().map(drop))?;
                }
            }
            check_expression(operands)
        }),
        _ => Ok(()),
    }
}

/// Whether this is `context.transport`.
fn is_transport(expression: &Value) -> bool {
    let access = &expression["."];
    access["attr"] == "transport" && access["left"]["Var"] == "context"
}

/// The strings of a literal, or of a set of literals.
fn literals(expression: &Value) -> impl Iterator<Item = &str> {
    let members = expression["Set"].as_array().into_iter().flatten();
    std::iter::once(expression).chain(members).filter_map(|literal| literal["Value"].as_str())
}
