//! Inspects the parsed form of a policy. Comparing with something that no call can have is a mistake, since such a policy would apply
//! never or always.

use cedar_policy::{Effect, EntityUid, Policy};
use key_broker_core::{KeyId, Transport};
use serde_json::Value;

use super::schema;

/// A policy in Cedar's JSON format (<https://docs.cedarpolicy.com/policies/json-format.html>), in which every operator is an object with
/// one member.
pub(super) struct ParsedPolicy<'a> {
    policy: &'a Policy,
    json: Value,
}

impl<'a> ParsedPolicy<'a> {
    pub(super) fn of(policy: &'a Policy) -> Result<Self, String> {
        let json = policy.to_json().map_err(|error| format!("{}: {error}", policy.id()))?;
        Ok(Self { policy, json })
    }

    /// Rejects conditions that Cedar accepts although they can never hold, or fail for every call.
    pub(super) fn check_entities(&self) -> Result<(), String> {
        let resource = &self.json["resource"];
        let checked = if resource["op"] == "==" && resource["entity"]["type"] == schema::ALIAS {
            Err(ALIAS_IS_NO_KEY.to_owned())
        } else {
            each(&self.json["conditions"], &mut check_operands)
        };
        checked.map_err(|why| format!("{}: {why}", self.policy.id()))
    }

    /// Rejects comparisons with what no call has.
    pub(super) fn check_comparisons(&self) -> Result<(), String> {
        each(&self.json["conditions"], &mut check_comparison)
            .map_err(|why| format!("{}: {why}", self.policy.id()))
    }

    /// Whether it reads the context.
    pub(super) fn reads_context(&self) -> bool {
        let mut reads = false;
        // This visitor never fails.
        let _ = each(&self.json["conditions"], &mut |operator, operands| {
            reads |= operator == "Var" && operands == "context";
            Ok(())
        });
        reads
    }

    /// The aliases by which it may permit less: those in a `forbid`, and those in the conditions of a `permit`. An alias in the scope
    /// of a `permit` can only permit more.
    pub(super) fn restricting_aliases(&self) -> Vec<KeyId> {
        let mut ids = Vec::new();
        if self.policy.effect() == Effect::Forbid {
            ids = self.policy.entity_literals().iter().filter_map(alias_of).collect();
        } else {
            // This visitor never fails.
            let _ = each(&self.json["conditions"], &mut |operator, operands| {
                if operator == "__entity" && operands["type"] == schema::ALIAS {
                    ids.extend(operands["id"].as_str().and_then(|id| KeyId::parse(id).ok()));
                }
                Ok(())
            });
        }
        ids
    }
}

/// The alias that an entity is, if it is one.
pub(super) fn alias_of(entity: &EntityUid) -> Option<KeyId> {
    if entity.type_name().basename() != schema::ALIAS {
        return None;
    }
    KeyId::parse(entity.id().unescaped()).ok()
}

/// Calls `see` for every operator of an expression, with its operands.
fn each(expression: &Value, see: &mut dyn FnMut(&str, &Value) -> Result<(), String>) -> Result<(), String> {
    match expression {
        Value::Array(members) => members.iter().try_for_each(|member| each(member, see)),
        Value::Object(members) => members.iter().try_for_each(|(operator, operands)| {
            see(operator, operands)?;
            each(operands, see)
        }),
        _ => Ok(()),
    }
}

/// Only names of entities written out in a policy are known: they have no attributes, tags or parents, so asking for these fails or is
/// never true.
fn check_operands(operator: &str, operands: &Value) -> Result<(), String> {
    let is_alias = |side: &str| operands[side]["Value"]["__entity"]["type"] == schema::ALIAS;
    if matches!(operator, "==" | "!=") && (is_alias("left") || is_alias("right")) {
        return Err(ALIAS_IS_NO_KEY.into());
    }
    let entity = &operands["left"]["Value"]["__entity"];
    if !matches!(operator, "." | "has" | "hasTag" | "getTag" | "in") || entity.is_null() {
        return Ok(());
    }
    let (kind, id) = (&entity["type"], &entity["id"]);
    let (kind, id) = (kind.as_str().unwrap_or_default(), id.as_str().unwrap_or_default());
    Err(format!(
        "{kind}::{id:?} stands before `{operator}`, and nothing is known of it but its name: ask about principal, resource or \
         context, such as resource.account, or resource in Alias::\"alias/NAME\""
    ))
}

fn check_comparison(operator: &str, operands: &Value) -> Result<(), String> {
    let sides = [&operands["left"], &operands["right"]];
    match operator {
        "==" | "!=" | "contains" | "containsAll" | "containsAny" => {
            let Some(compared) = sides.into_iter().find_map(Compared::within) else { return Ok(()) };
            sides.into_iter().flat_map(literals).try_for_each(|text| compared.check(text))
        }
        "like" => {
            let Some(Compared::Transport) = Compared::of(&operands["left"]) else { return Ok(()) };
            let parts = operands["pattern"].as_array().map(Vec::as_slice).unwrap_or_default();
            if Transport::ALL.iter().any(|transport| is_like(transport.name(), parts)) {
                return Ok(());
            }
            Err("context.transport: the pattern is like no transport: write unix, tls, insecure_tcp or vsock"
                .into())
        }
        _ => Ok(()),
    }
}

/// What can equal only certain texts.
enum Compared {
    Transport,
    Account,
    Digest(String),
}

impl Compared {
    /// The kind of an expression, or of the members of a set.
    fn within(expression: &Value) -> Option<Self> {
        let members = expression["Set"].as_array().into_iter().flatten();
        std::iter::once(expression).chain(members).find_map(Self::of)
    }

    fn of(expression: &Value) -> Option<Self> {
        let access = &expression["."];
        let name = access["attr"].as_str()?;
        let whole = &access["left"];
        match (whole["Var"].as_str(), name) {
            (Some("context"), "transport") => Some(Self::Transport),
            (Some("resource"), "account") => Some(Self::Account),
            _ if whole["."]["attr"] == "recipient" && whole["."]["left"]["Var"] == "context" => {
                (name != "moduleId").then(|| Self::Digest(name.to_owned()))
            }
            _ => None,
        }
    }

    fn check(&self, text: &str) -> Result<(), String> {
        match self {
            Self::Transport => match text.parse::<Transport>() {
                Ok(_) => Ok(()),
                Err(why) => Err(format!("context.transport: {}", why.0)),
            },
            Self::Account => {
                let is_account = text.len() == ACCOUNT_DIGITS && text.bytes().all(|b| b.is_ascii_digit());
                if is_account || text == schema::ANY_KEY {
                    return Ok(());
                }
                Err(format!(
                    "resource.account: {text:?} is not an account: write its 12 digits, or \"*\" for calls that name no key"
                ))
            }
            Self::Digest(name) => {
                let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
                if text.len() == DIGEST_DIGITS && text.bytes().all(is_hex) {
                    return Ok(());
                }
                Err(format!(
                    "context.recipient.{name}: {text:?} is not a SHA-384: write its 96 hex digits, in lower case"
                ))
            }
        }
    }
}

/// The strings of a literal, or of a set of literals.
fn literals(expression: &Value) -> impl Iterator<Item = &str> {
    let members = expression["Set"].as_array().into_iter().flatten();
    std::iter::once(expression).chain(members).filter_map(|literal| literal["Value"].as_str())
}

/// Whether `text` matches a pattern of literals and wildcards.
fn is_like(text: &str, pattern: &[Value]) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return text.is_empty() };
    match first["Literal"].as_str() {
        Some(literal) => text.strip_prefix(literal).is_some_and(|text| is_like(text, rest)),
        // Names of transports are ASCII.
        None => (0..=text.len()).any(|skipped| is_like(text.get(skipped..).unwrap_or_default(), rest)),
    }
}

const ALIAS_IS_NO_KEY: &str =
    "an alias is not a key, so no key equals it: write resource in Alias::\"alias/NAME\"";
const ACCOUNT_DIGITS: usize = 12;
/// The hex digits of a SHA-384.
const DIGEST_DIGITS: usize = 96;
