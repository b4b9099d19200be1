//! Proves that gRPC clients of other makers can use the broker as they come, with no options, over its unix socket: each gets
//! the answers and errors that the contract promises, and every request id it saw has its one record in the journal.

#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::process::Command;

use peers::{Peers, cases, check_records, disabled_key, http, plain, printed, root};
use serde_json::{Value, json};
use support::Records;
use support::dev::{all_lines, all_records};
use support::process::Process;
use tempfile::TempDir;

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn python_grpcio() {
    let peers = Peers::install(&["python"]);
    let mut client = peers.command("python/bin/python");
    client.arg(root().join("tests/peers/python/client.py"));
    judge(client, "grpc-python/");
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn node_grpc_js() {
    let peers = Peers::install(&["node"]);
    let mut client = plain("node");
    client.env("NODE_PATH", peers.path("node/node_modules")).arg(root().join("tests/peers/node/client.js"));
    judge(client, "grpc-node-js/");
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn go_grpc_go() {
    let peers = Peers::install(&["go"]);
    judge(peers.command("go/bin/client"), "grpc-go/");
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn grpcurl() {
    let peers = Peers::install(&["grpcurl"]);
    let dev = Dev::start();
    let grpcurl = |arguments: &[&str], method: &str| {
        let mut command = peers.command("grpcurl/bin/grpcurl");
        command
            .args(["-plaintext", "-unix"])
            .args(arguments)
            .arg(dev.dir.path().join("broker.sock"))
            .arg(method);
        printed(&mut command)
    };
    let services = grpcurl(&[], "list");
    for service in SERVICES {
        assert!(services.lines().any(|line| line == service), "{services}");
    }
    let health: Value = serde_json::from_str(&grpcurl(&[], "grpc.health.v1.Health/Check")).expect("JSON");
    assert_eq!(health["status"], "SERVING");

    let request = r#"{"key_id": "alias/dev", "key_spec": "KEY_SPEC_AES_256", "encryption_context": {"tenant": "acme"}}"#;
    let text = grpcurl(&["-v", "-d", request], "keybroker.v1.KeyBroker/GenerateDataKey");
    let metadata = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.unwrap_or_else(|| panic!("no {name}: {text}"))
    };
    let records = dev.stop();
    let record = records.activity_of(metadata("x-request-id"));
    assert_eq!(
        (&record["eventName"], &record["additionalEventData"]["outcome"]),
        (&json!("GenerateDataKey"), &json!("Allowed"))
    );
    assert_eq!(records.kms_of(metadata("x-amzn-requestid"))["eventName"], "GenerateDataKey");
}

/// What a case has to come back with, and what its activity record has to say.
struct Expected {
    calls: usize,
    code: &'static str,
    reason: Option<&'static str>,
    /// Whether KMS was asked.
    kms: bool,
    action: &'static str,
    outcome: &'static str,
    error_code: Option<&'static str>,
}

/// The whole scenario of `peers/python/client.py`, but for what needs words of its own: health, reflection, file and deadline.
fn expected() -> BTreeMap<&'static str, Expected> {
    let allowed = |calls, action| Expected {
        calls,
        code: "OK",
        reason: None,
        kms: true,
        action,
        outcome: "Allowed",
        error_code: None,
    };
    let refused = |action, code, reason, kms, outcome, error_code| Expected {
        calls: 1,
        code,
        reason: Some(reason),
        kms,
        action,
        outcome,
        error_code: Some(error_code),
    };
    let altered = || {
        refused(
            "Decrypt",
            "INVALID_ARGUMENT",
            "INVALID_CIPHERTEXT",
            true,
            "Rejected",
            "InvalidCiphertextException",
        )
    };
    let draw = "GenerateDataKey";
    BTreeMap::from([
        ("generate", allowed(1, draw)),
        ("decrypt", allowed(1, "Decrypt")),
        ("sequential", allowed(200, draw)),
        ("concurrent", allowed(50, "Decrypt")),
        ("wrong_context", altered()),
        ("flipped_bit", altered()),
        ("unknown_key", refused(draw, "NOT_FOUND", "KEY_NOT_FOUND", true, "Failed", "NotFoundException")),
        (
            "disabled_key",
            refused(draw, "FAILED_PRECONDITION", "KEY_DISABLED", true, "Failed", "DisabledException"),
        ),
        (
            "oversized",
            refused(
                "Decrypt",
                "INVALID_ARGUMENT",
                "REQUEST_TOO_LARGE",
                false,
                "Rejected",
                "ValidationException",
            ),
        ),
        (
            "no_length",
            refused(draw, "INVALID_ARGUMENT", "MALFORMED_REQUEST", false, "Rejected", "ValidationException"),
        ),
    ])
}

/// Runs a client through the scenario and compares what it saw with the contract and with the journal.
fn judge(mut client: Command, user_agent: &str) {
    let dev = Dev::start();
    let seen = cases(client.arg(dev.target()).arg(dev.dir.path().join("facts.json")));
    let records = dev.stop();
    let named = |name: &str| seen.iter().filter(|case| case["case"] == name).collect::<Vec<_>>();

    let health = named("health");
    assert!(health.len() == 2 && health.iter().all(|case| case["status"] == "SERVING"), "{health:?}");
    let reflection = named("reflection");
    let served = |case: &&Value| {
        let services = case["services"].as_array().expect("a list");
        SERVICES.iter().all(|service| services.iter().any(|listed| listed == service))
    };
    assert!(reflection.iter().all(served), "{reflection:?}");
    let bytes = fs::metadata(root().join("Cargo.lock")).expect("a file").len();
    assert_eq!(named("file"), [&json!({ "case": "file", "same": true, "bytes": bytes })]);

    let mut ids = HashSet::new();
    let mut calls = 0;
    for (name, expected) in expected() {
        let cases = named(name);
        assert_eq!(cases.len(), expected.calls, "{name}");
        calls += cases.len();
        for case in cases {
            assert_eq!(case["code"], expected.code, "{case}");
            assert_eq!(case["reason"].as_str(), expected.reason, "{case}");
            let id = case["requestId"].as_str().unwrap_or_else(|| panic!("no x-request-id: {case}"));
            assert!(ids.insert(id), "the same id twice: {case}");
            let record = records.activity_of(id);
            assert_eq!(record["eventName"], expected.action, "{case} {record}");
            assert_eq!(record["additionalEventData"]["outcome"], expected.outcome, "{case} {record}");
            assert_eq!(record["errorCode"].as_str(), expected.error_code, "{case} {record}");
            let agent = record["userAgent"].as_str().unwrap_or_default();
            assert!(agent.contains(user_agent), "{agent}");

            let kms_id = case["kmsRequestId"].as_str();
            assert_eq!(kms_id.is_some(), expected.kms, "{case}");
            if let Some(kms_id) = kms_id {
                let kms = records.kms_of(kms_id);
                assert_eq!(kms["eventName"], expected.action, "{case} {kms}");
                assert_eq!(kms["errorCode"].as_str(), expected.error_code, "{case} {kms}");
            }
            if expected.reason.is_some() {
                let domain = if expected.kms { "kms.amazonaws.com" } else { "keybroker" };
                assert_eq!(case["domain"], domain, "{case}");
                assert_eq!(case["metadata"]["requestID"], id, "{case}");
                assert_eq!(case["metadata"]["kmsRequestID"].as_str(), kms_id, "{case}");
            }
        }
    }
    // The deadline runs out on both sides at once: the client's own word may come first, and the broker sees it gone.
    let [deadline] = named("deadline")[..] else { panic!("one deadline") };
    assert_eq!(deadline["code"], "DEADLINE_EXCEEDED");
    let late: Vec<_> =
        records.activity.iter().filter(|record| record["eventName"] == "GenerateRandom").collect();
    let [late] = late[..] else { panic!("one record of a call that was late: {late:?}") };
    let end = (late["additionalEventData"]["outcome"].as_str(), late["errorCode"].as_str());
    assert!(
        [(Some("Failed"), Some("DeadlineExceeded")), (Some("Aborted"), Some("RequestCancelled"))]
            .contains(&end),
        "{late}"
    );
    assert!(
        deadline["requestId"].is_null() || deadline["requestId"] == late["requestID"],
        "{deadline} {late}"
    );

    assert_eq!(
        seen.len(),
        calls + health.len() + reflection.len() + 2,
        "a case that nobody expects: {seen:?}"
    );
    assert_eq!(records.activity.len(), calls + 1, "a record of a call that nobody made");
}

/// What reflection lists, at least.
const SERVICES: [&str; 2] = ["grpc.health.v1.Health", "keybroker.v1.KeyBroker"];

/// `key-broker dev`, with a disabled key and a KMS that is slow to give random bytes.
struct Dev {
    dir: TempDir,
    process: Process,
}

impl Dev {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let process = Process::dev(dir.path());
        let text = fs::read_to_string(dir.path().join("dev.json")).expect("dev writes it");
        let mut facts: Value = serde_json::from_str(&text).expect("JSON");
        let endpoint = facts["kms_endpoint"].as_str().expect("an endpoint").to_owned();
        facts["disabled_key"] = disabled_key(&endpoint).into();
        let slow = json!([{ "effect": "latency=2000", "operation": "GenerateRandom" }]);
        http(&endpoint, "PUT", "/_emulator/faults", "", &slow);
        facts["slow_action"] = "GenerateRandom".into();
        facts["file"] = root().join("Cargo.lock").to_str().expect("a path").into();
        fs::write(dir.path().join("facts.json"), facts.to_string()).expect("writes");
        Self { dir, process }
    }

    fn target(&self) -> String {
        format!("unix:{}", self.dir.path().join("broker.sock").display())
    }

    /// Drains the broker; the records that it leaves, judged by schema too.
    fn stop(self) -> Records {
        self.process.signal(rustix::process::Signal::TERM);
        let status = self.process.wait();
        assert!(status.success(), "{status}");
        check_records(&all_lines(self.dir.path()));
        all_records(self.dir.path())
    }
}
