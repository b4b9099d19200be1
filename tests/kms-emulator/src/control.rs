//! The endpoints under `/_emulator/`: what a test in another process asks and arranges.
//!
//! | endpoint | methods |
//! |---|---|
//! | `/_emulator/faults` | `GET` lists, `PUT` replaces (a JSON array), `DELETE` removes all |
//! | `/_emulator/calls` | `GET` gives `{"counts": …, "calls": […]}`, `DELETE` forgets |
//! | `/_emulator/health` | `GET` gives region and account |

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::server::Service;
use crate::wire::{HttpResponse, respond};

/// Answers a request for `path`, what follows the prefix.
pub(crate) fn answer(service: &Service, method: &Method, path: &str, body: &[u8]) -> HttpResponse {
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
        ("health", "GET") => {
            let account = service.store.account();
            ok(&json!({ "status": "ok", "region": account.region, "account": account.id }))
        }
        ("faults" | "calls" | "health", _) => refuse(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"),
        _ => refuse(StatusCode::NOT_FOUND, "there are faults, calls and health"),
    }
}

fn ok(body: &Value) -> HttpResponse {
    respond(StatusCode::OK, "application/json", body.to_string().into_bytes())
}

fn refuse(status: StatusCode, message: &str) -> HttpResponse {
    respond(status, "application/json", json!({ "error": message }).to_string().into_bytes())
}

/// How their paths begin.
pub(crate) const PREFIX: &str = "/_emulator/";
