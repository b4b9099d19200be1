//! A policy's JSON: read in full, or refused.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, Visitor};

use super::pattern::Pattern;
use super::{Condition, Effect, PolicyOf, Principal, Statement};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
pub(super) struct Written {
    version: Option<String>,
    #[serde(rename = "Id")]
    _id: Option<String>,
    statement: OneOrMany<WrittenStatement>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct WrittenStatement {
    #[serde(rename = "Sid")]
    _sid: Option<String>,
    effect: Effect,
    principal: Option<WrittenPrincipal>,
    action: OneOrMany<String>,
    resource: Option<OneOrMany<String>>,
    condition: Option<Pairs<Pairs<OneOrMany<String>>>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenPrincipal {
    Anybody(String),
    Named(Named),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    #[serde(rename = "AWS")]
    aws: OneOrMany<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        }
    }
}

impl Written {
    pub(super) fn statements(self, of: PolicyOf) -> Result<Vec<Statement>, String> {
        if let Some(version) = self.version.filter(|version| !VERSIONS.contains(&version.as_str())) {
            return Err(format!("Version {version:?} is not {}", VERSIONS.join(" or ")));
        }
        self.statement.into_vec().into_iter().map(|statement| statement.understood(of)).collect()
    }
}

impl WrittenStatement {
    fn understood(self, of: PolicyOf) -> Result<Statement, String> {
        let principals = match (of, self.principal) {
            (PolicyOf::Role, None) => Vec::new(),
            (PolicyOf::Role, Some(_)) => return Err("a role's policy has no Principal".to_owned()),
            (PolicyOf::Key, None) => return Err("Principal is missing".to_owned()),
            (PolicyOf::Key, Some(principal)) => principal.understood()?,
        };
        let actions = self.action.into_vec().into_iter().map(|action| understood_action(&action));
        let resources = self.resource.ok_or("Resource is missing")?.into_vec();
        let conditions = self.condition.map_or(Vec::new(), |Pairs(conditions)| conditions);
        let conditions = conditions.into_iter().flat_map(|(operator, Pairs(pairs))| {
            pairs
                .into_iter()
                .map(move |(key, values)| understood_condition(&operator, &key, values.into_vec()))
        });
        Ok(Statement {
            effect: self.effect,
            principals,
            actions: actions.collect::<Result<_, _>>()?,
            resources: resources.iter().map(|resource| Pattern::like(resource)).collect(),
            conditions: conditions.collect::<Result<_, _>>()?,
        })
    }
}

impl WrittenPrincipal {
    fn understood(self) -> Result<Vec<Principal>, String> {
        let names = match self {
            WrittenPrincipal::Anybody(name) if name == "*" => return Ok(vec![Principal::Anybody]),
            WrittenPrincipal::Anybody(name) => return Err(format!("Principal {name:?} is not \"*\"")),
            WrittenPrincipal::Named(named) => named.aws.into_vec(),
        };
        if names.is_empty() {
            return Err("Principal names nobody".to_owned());
        }
        names.iter().map(|name| understood_principal(name)).collect()
    }
}

fn understood_principal(name: &str) -> Result<Principal, String> {
    let is_account = |id: &str| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_digit());
    if name == "*" {
        return Ok(Principal::Anybody);
    }
    if is_account(name) {
        return Ok(Principal::Account(name.to_owned()));
    }
    let parts: Vec<&str> = name.splitn(6, ':').collect();
    match *parts.as_slice() {
        ["arn", _, "iam", "", account, "root"] if is_account(account) => {
            Ok(Principal::Account(account.to_owned()))
        }
        ["arn", _, "iam" | "sts", "", account, resource]
            if is_account(account)
                && !resource.contains(['*', '?'])
                && ["role/", "user/", "assumed-role/"].iter().any(|kind| resource.starts_with(kind)) =>
        {
            Ok(Principal::Arn(name.to_owned()))
        }
        _ => Err(format!("Principal {name:?} is no account, role, session or user")),
    }
}

/// IAM does not mind upper and lower case in actions.
fn understood_action(action: &str) -> Result<Pattern, String> {
    let lower = action.to_ascii_lowercase();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"*?".contains(&byte);
    let name = lower.strip_prefix("kms:").filter(|name| !name.is_empty() && name.bytes().all(is_name));
    if name.is_none() && lower != "*" {
        return Err(format!("Action {action:?} is none of KMS"));
    }
    Ok(Pattern::like(&lower))
}

fn understood_condition(operator: &str, key: &str, values: Vec<String>) -> Result<Condition, String> {
    let (is_like, negated) = match operator {
        "StringEquals" => (false, false),
        "StringNotEquals" => (false, true),
        "StringLike" => (true, false),
        "StringNotLike" => (true, true),
        _ => return Err(format!("condition operator {operator:?} is not known here")),
    };
    let name = key
        .split_at_checked(CONTEXT.len())
        .filter(|(prefix, name)| prefix.eq_ignore_ascii_case(CONTEXT) && !name.is_empty())
        .map(|(_, name)| name.to_owned())
        .ok_or_else(|| format!("condition key {key:?} is not known here"))?;
    if values.is_empty() {
        return Err(format!("condition key {key:?} has no value"));
    }
    let pattern = |value: String| if is_like { Pattern::like(&value) } else { Pattern::Exactly(value) };
    Ok(Condition { name, values: values.into_iter().map(pattern).collect(), negated })
}

/// The members of an object, each name once.
struct Pairs<V>(Vec<(String, V)>);

impl<'de, V: DeserializeOwned> Deserialize<'de> for Pairs<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pairs<V>, D::Error> {
        deserializer.deserialize_map(PairsVisitor(PhantomData))
    }
}

struct PairsVisitor<V>(PhantomData<V>);

impl<'de, V: DeserializeOwned> Visitor<'de> for PairsVisitor<V> {
    type Value = Pairs<V>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<V>, A::Error> {
        let mut pairs: Vec<(String, V)> = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, V>()? {
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(de::Error::custom(format_args!("{name:?} is there twice")));
            }
            pairs.push((name, value));
        }
        Ok(Pairs(pairs))
    }
}

const VERSIONS: [&str; 2] = ["2012-10-17", "2008-10-17"];

/// How the condition keys begin that are known here.
const CONTEXT: &str = "kms:EncryptionContext:";
