//! Proves that the broker works before a KMS that nobody here wrote, moto: the same client, the same answers. And that the
//! emulator of these tests differs from moto only where it is known to.

#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::fs;

use kms_emulator::{Emulator, EmulatorConfig};
use peers::{Moto, Peers, cases, check_records, disabled_key, kms, printed, root};
use serde_json::{Value, json};
use support::Records;
use support::process::{Process, write_config};

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn the_broker_before_moto() {
    let peers = Peers::install(&["moto", "python"]);
    let dir = tempfile::tempdir().expect("a directory");
    let moto = Moto::start(&peers, dir.path());
    let key = kms(&moto.endpoint, "CreateKey", &json!({}))["KeyMetadata"].clone();
    kms(&moto.endpoint, "CreateAlias", &json!({ "AliasName": "alias/dev", "TargetKeyId": key["KeyId"] }));
    let facts = json!({ "disabled_key": disabled_key(&moto.endpoint), "file": root().join("Cargo.lock") });
    fs::write(dir.path().join("facts.json"), facts.to_string()).expect("writes");

    let broker = Process::serve(&write_config(dir.path(), &moto.endpoint, ""));
    let mut client = peers.command("python/bin/python");
    client.arg(root().join("tests/peers/python/client.py"));
    client
        .arg(format!("unix:{}", dir.path().join("broker.sock").display()))
        .arg(dir.path().join("facts.json"));
    let seen = cases(&mut client);
    broker.signal(rustix::process::Signal::TERM);
    let status = broker.wait();
    assert!(status.success(), "{status}");

    let expected = [
        ("generate", "OK", None),
        ("decrypt", "OK", None),
        ("wrong_context", "INVALID_ARGUMENT", Some("INVALID_CIPHERTEXT")),
        ("flipped_bit", "INVALID_ARGUMENT", Some("INVALID_CIPHERTEXT")),
        ("unknown_key", "NOT_FOUND", Some("KEY_NOT_FOUND")),
        // moto is wrong: it uses disabled keys; KMS answers DisabledException. The broker passes on what it is told.
        ("disabled_key", "OK", None),
        ("oversized", "INVALID_ARGUMENT", Some("REQUEST_TOO_LARGE")),
        ("no_length", "INVALID_ARGUMENT", Some("MALFORMED_REQUEST")),
    ];
    let brief = |case: &Value| {
        (case["case"].to_string(), case["code"].to_string(), case["reason"].as_str().map(str::to_owned))
    };
    let others = ["health", "reflection", "file", "sequential", "concurrent"];
    let once = seen.iter().filter(|case| !others.iter().any(|name| case["case"] == *name));
    let once: Vec<_> = once.map(brief).collect();
    let expected = expected
        .map(|(case, code, reason)| (format!("{case:?}"), format!("{code:?}"), reason.map(str::to_owned)));
    assert_eq!(once, expected);
    assert!(seen.iter().any(|case| case["case"] == "file" && case["same"] == true));
    for (name, count) in [("sequential", 200), ("concurrent", 50)] {
        assert_eq!(
            seen.iter().filter(|case| case["case"] == name && case["code"] == "OK").count(),
            count,
            "{name}"
        );
    }

    let records = Records::read(&dir.path().join("journal"));
    for case in &seen {
        if let Some(id) = case["requestId"].as_str() {
            records.activity_of(id);
        }
        if let Some(id) = case["kmsRequestId"].as_str() {
            // moto's request ids are not UUIDs: they are kept as they come.
            let record = records.kms_of(id);
            assert_eq!(record["errorCode"].is_null(), case["code"] == "OK", "{case} {record}");
        }
    }
    check_records(&support::journal_lines(&dir.path().join("journal")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn the_emulator_differs_from_moto_only_where_it_is_known_to() {
    let peers = Peers::install(&["moto"]);
    let dir = tempfile::tempdir().expect("a directory");
    let moto = Moto::start(&peers, dir.path());
    let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
    let crosscheck = root().join("tests/kms-emulator/crosscheck");
    let mut command = peers.command("moto/bin/python");
    command.arg(crosscheck.join("crosscheck.py"));
    command.args(["--emulator", &emulator.endpoint_url(), "--moto", &moto.endpoint, "--table"]);
    command.arg(crosscheck.join("DIFFERENCES.md"));
    let table = tokio::task::spawn_blocking(move || printed(&mut command)).await.expect("no panic");
    assert!(table.contains("| case | emulator | moto |"), "{table}");
    emulator.shutdown().await;
}
