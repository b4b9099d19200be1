//! Objects of Kubernetes as the files of deploy/ have them.
#![allow(dead_code, reason = "every test file uses another part of this one")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub(crate) const BROKER: &str = "key-broker";
/// What deliveries may write beyond `audit.max_undelivered_bytes`.
pub(crate) const BEYOND_THE_BOUND: u64 = 16 << 20;

pub(crate) fn deploy() -> PathBuf {
    // The package of these tests is broker/sidecar.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.expect("a package is in its workspace").join("deploy")
}

pub(crate) fn text(path: &str) -> String {
    fs::read_to_string(deploy().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub(crate) fn objects(text: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    all.into_iter().filter(|it| !it.is_null()).collect()
}

pub(crate) fn documents(path: &str) -> Vec<Value> {
    objects(&text(path))
}

pub(crate) fn document(path: &str, kind: &str) -> Value {
    documents(path).into_iter().find(|it| it["kind"] == kind).unwrap_or_else(|| panic!("{path}: no {kind}"))
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn named<'a>(items: &'a Value, name: &str) -> &'a Value {
    list(items).iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("no {name}: {items:#}"))
}

/// A quantity of memory or disk.
pub(crate) fn bytes(quantity: &Value) -> u64 {
    let quantity = quantity.as_str().expect("a quantity");
    let split = quantity.find(|letter: char| !letter.is_ascii_digit()).expect("a unit");
    let factor = match &quantity[split..] {
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        unit => panic!("{unit}?"),
    };
    quantity[..split].parse::<u64>().expect("a number") * factor
}

/// What Pod Security's `restricted` wants of each container, and a read-only root.
pub(crate) fn assert_restricted(container: &Value) {
    let context = &container["securityContext"];
    assert_eq!(context["runAsNonRoot"], true, "{container:#}");
    assert_eq!(context["allowPrivilegeEscalation"], false, "{container:#}");
    assert_eq!(context["readOnlyRootFilesystem"], true, "{container:#}");
    assert_eq!(context["capabilities"], serde_json::json!({ "drop": ["ALL"] }), "{container:#}");
    assert_eq!(context["seccompProfile"], serde_json::json!({ "type": "RuntimeDefault" }), "{container:#}");
}
