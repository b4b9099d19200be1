//! The endpoints under `/_emulator/`: what a test in another process asks and arranges.
//!
//! | endpoint | methods |
//! |---|---|
//! | `/_emulator/faults` | `GET` lists, `PUT` replaces (a JSON array), `DELETE` removes all |
//! | `/_emulator/calls` | `GET` gives `{"counts": …, "calls": […]}`, `DELETE` forgets |
//! | `/_emulator/attestation` | `GET` gives `{"KEY ARN": {"CONDITION KEY": "VALUE", …}, …}`, `PUT` puts such conditions on the keys that it names |
//! | `/_emulator/key-policies` | `GET` gives `{"KEY ARN": POLICY, …}`, `PUT` puts such policies on the keys that it names |
//! | `/_emulator/role-policies` | `GET` gives `{"ROLE ARN": POLICY, …}`, `PUT` puts such policies on the roles that it names; `null` takes one away |
//! | `/_emulator/clock` | `GET` gives `{"unix_seconds": …}`, `PUT` of `{"advance_seconds": …}` lets time pass |
//! | `/_emulator/last-usage` | `GET` and `PUT`: `{"delay_seconds": …, "dry_runs": …}` |
//! | `/_emulator/health` | `GET` gives region and account |

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::epoch_seconds;
use crate::emulator;
use crate::fault::Fault;
use crate::operations::{put_key_policy, put_role_policy};
use crate::policy::Policy;
use crate::server::Service;
use crate::wire::{HttpResponse, respond};

/// Answers a request for a path that begins with [`PREFIX`]. A change waits for the disk.
pub(crate) fn answer(service: &Service, method: &Method, path: &str, body: &[u8]) -> HttpResponse {
    let path = path.strip_prefix(PREFIX).unwrap_or(path);
    if !PATHS.contains(&path) {
        return refuse(StatusCode::NOT_FOUND, &format!("there are {}", PATHS.join(", ")));
    }
    let put = match (path, method.as_str()) {
        (_, "GET") => Ok(()),
        ("faults", "PUT") => read(body).map(|faults: Vec<Fault>| service.faults.replace(faults)),
        ("faults", "DELETE") => {
            service.faults.replace(Vec::new());
            Ok(())
        }
        ("calls", "DELETE") => {
            service.calls.clear();
            return ok(&json!({}));
        }
        ("attestation", "PUT") => put_conditions(service, body),
        ("key-policies", "PUT") => put_key_policies(service, body),
        ("role-policies", "PUT") => put_role_policies(service, body),
        ("clock", "PUT") => advance(service, body),
        ("last-usage", "PUT") => read(body).map(|tracking: Tracking| {
            service.kms.usage.track(Duration::from_secs(tracking.delay_seconds), tracking.dry_runs);
        }),
        _ => return refuse(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"),
    };
    match put {
        Ok(()) => ok(&shown(service, path)),
        Err(error) => refuse(StatusCode::BAD_REQUEST, &error),
    }
}

/// The state at a path.
fn shown(service: &Service, path: &str) -> Value {
    let (store, usage) = (&service.kms.store, &service.kms.usage);
    let (account, state) = (store.account(), store.snapshot());
    let document = |policy: &Policy| serde_json::from_str(policy.text()).unwrap_or(Value::Null);
    match path {
        "faults" => json!(service.faults.list()),
        "calls" => json!({ "counts": service.calls.counts(), "calls": service.calls.list() }),
        "attestation" => {
            let with_conditions = state.keys.values().filter(|key| !key.attestation.is_empty());
            with_conditions.map(|key| (key.arn.clone(), json!(key.attestation.texts()))).collect()
        }
        "key-policies" => {
            let put = state.keys.values().filter_map(|key| Some((key.arn.clone(), key.policy.as_ref()?)));
            put.map(|(arn, policy)| (arn, document(policy))).collect()
        }
        "role-policies" => {
            state.role_policies.iter().map(|(arn, policy)| (arn.clone(), document(policy))).collect()
        }
        "clock" => json!({ "unix_seconds": epoch_seconds(store.now()) }),
        "last-usage" => {
            let (delay, dry_runs) = usage.tracking();
            json!(Tracking { delay_seconds: delay.as_secs(), dry_runs })
        }
        _ => json!({ "status": "ok", "region": account.region, "account": account.id }),
    }
}

/// How uses of keys are told.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tracking {
    delay_seconds: u64,
    #[serde(default)]
    dry_runs: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_seconds: u64,
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn advance(service: &Service, body: &[u8]) -> Result<(), String> {
    let Advance { advance_seconds } = read(body)?;
    service.kms.store.advance(Duration::from_secs(advance_seconds)).map_err(|error| error.to_string())
}

/// One after the other, until one is refused.
fn put_key_policies(service: &Service, body: &[u8]) -> Result<(), String> {
    let store = &service.kms.store;
    for (key_id, policy) in read::<BTreeMap<String, Value>>(body)? {
        let key = store.find(&store.snapshot(), &key_id, "PutKeyPolicy");
        let put = key.and_then(|key| put_key_policy(store, &key, &policy.to_string()));
        put.map_err(|error| format!("{key_id}: {error}"))?;
    }
    Ok(())
}

/// One after the other, until one is refused.
fn put_role_policies(service: &Service, body: &[u8]) -> Result<(), String> {
    for (role, policy) in read::<BTreeMap<String, Option<Value>>>(body)? {
        let text = policy.map(|policy| policy.to_string());
        put_role_policy(&service.kms.store, &role, text.as_deref())
            .map_err(|error| format!("{role}: {error}"))?;
    }
    Ok(())
}

/// The answer where there is none.
pub(crate) fn failed(message: &str) -> HttpResponse {
    refuse(StatusCode::INTERNAL_SERVER_ERROR, message)
}

/// All keys that the body names, or none.
fn put_conditions(service: &Service, body: &[u8]) -> Result<(), String> {
    type Texts = BTreeMap<String, BTreeMap<String, String>>;
    let texts: Texts = read(body)?;
    let texts = texts.iter().map(|(key_id, conditions)| {
        let conditions = conditions.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        (key_id.as_str(), conditions.collect::<Vec<_>>())
    });
    emulator::require_attestation(&service.kms.store, texts).map_err(|error| error.to_string())
}

fn ok(body: &Value) -> HttpResponse {
    respond(StatusCode::OK, "application/json", body.to_string().into_bytes())
}

fn refuse(status: StatusCode, message: &str) -> HttpResponse {
    respond(status, "application/json", json!({ "error": message }).to_string().into_bytes())
}

/// How their paths begin.
pub(crate) const PREFIX: &str = "/_emulator/";

const PATHS: [&str; 8] =
    ["faults", "calls", "attestation", "key-policies", "role-policies", "clock", "last-usage", "health"];
