//! The endpoints under `/_emulator/`: what a test in another process asks and arranges.
//!
//! | endpoint | methods |
//! |---|---|
//! | `/_emulator/faults` | `GET` lists, `PUT` replaces (a JSON array), `DELETE` removes all |
//! | `/_emulator/calls` | `GET` gives `{"counts": …, "calls": […]}`, `DELETE` forgets |
//! | `/_emulator/attestation` | `GET` gives `{"KEY ARN": {"CONDITION KEY": "VALUE", …}, …}`, `PUT` puts such conditions on the keys that it names |
//! | `/_emulator/health` | `GET` gives region and account |

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::emulator;
use crate::fault::Fault;
use crate::server::Service;
use crate::wire::{HttpResponse, respond};

/// Answers a request for a path that begins with [`PREFIX`]. A change waits for the disk.
pub(crate) fn answer(service: &Service, method: &Method, path: &str, body: &[u8]) -> HttpResponse {
    let path = path.strip_prefix(PREFIX).unwrap_or(path);
    match (path, method.as_str()) {
        ("faults", "GET") => ok(&json!(service.faults.list())),
        ("faults", "PUT") => match serde_json::from_slice::<Vec<Fault>>(body) {
            Ok(faults) => {
                service.faults.replace(faults);
                ok(&json!(service.faults.list()))
            }
            Err(error) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
        },
        ("faults", "DELETE") => {
            service.faults.replace(Vec::new());
            ok(&json!([]))
        }
        ("calls", "GET") => ok(&json!({ "counts": service.calls.counts(), "calls": service.calls.list() })),
        ("calls", "DELETE") => {
            service.calls.clear();
            ok(&json!({}))
        }
        ("attestation", "GET") => ok(&conditions(service)),
        ("attestation", "PUT") => match put_conditions(service, body) {
            Ok(()) => ok(&conditions(service)),
            Err(error) => refuse(StatusCode::BAD_REQUEST, &error),
        },
        ("health", "GET") => {
            let account = service.store.account();
            ok(&json!({ "status": "ok", "region": account.region, "account": account.id }))
        }
        ("faults" | "calls" | "attestation" | "health", _) => {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
        }
        _ => refuse(StatusCode::NOT_FOUND, "there are faults, calls, attestation and health"),
    }
}

/// The answer where there is none.
pub(crate) fn failed(message: &str) -> HttpResponse {
    refuse(StatusCode::INTERNAL_SERVER_ERROR, message)
}

/// The keys that have conditions, by ARN.
fn conditions(service: &Service) -> Value {
    let state = service.store.snapshot();
    let with_conditions = state.keys.values().filter(|key| !key.attestation.is_empty());
    with_conditions.map(|key| (key.arn.clone(), json!(key.attestation.texts()))).collect()
}

/// All keys that the body names, or none.
fn put_conditions(service: &Service, body: &[u8]) -> Result<(), String> {
    type Texts = BTreeMap<String, BTreeMap<String, String>>;
    let texts: Texts = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let texts = texts.iter().map(|(key_id, conditions)| {
        let conditions = conditions.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        (key_id.as_str(), conditions.collect::<Vec<_>>())
    });
    emulator::require_attestation(&service.store, texts).map_err(|error| error.to_string())
}

fn ok(body: &Value) -> HttpResponse {
    respond(StatusCode::OK, "application/json", body.to_string().into_bytes())
}

fn refuse(status: StatusCode, message: &str) -> HttpResponse {
    respond(status, "application/json", json!({ "error": message }).to_string().into_bytes())
}

/// How their paths begin.
pub(crate) const PREFIX: &str = "/_emulator/";
