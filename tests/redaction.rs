//! Proves, with the real program: values that configuration redacts are nowhere in journal, trail, log and stdout, for calls that are
//! answered, refused one by one and counted alike; the trail is sound all the same, and agrees with AWS's own once AWS's values are
//! redacted the same way.

#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use key_broker_client::{Client, Decrypt, GenerateDataKey};
use peers::check_records;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::process::{Process, binary};
use support::site::Site;

const SECRET: &str = "acme-4711";
const PLAIN: &str = "redact = { encryption_context = [\"tenant\", \"user\"], plain = true }\n";
const KEYED: &str =
    "redact = { encryption_context = [\"tenant\", \"user\"], key_file = \"redaction.key\" }\n";

/// Calls of every kind with the secret in the encryption context. Returns the ciphertext of a data key.
async fn call(socket: &Path) {
    let client = Client::unix(socket).await.expect("listens");
    let asked = |key: &str| GenerateDataKey::aes_256(key).context("tenant", SECRET).context("app", "billing");
    let key = client.generate_data_key(asked("alias/dev")).await.expect("a key");
    client.generate_data_key(asked("alias/dev")).await.expect("the same key");
    let decrypt = |tenant: &str| {
        Decrypt::new(key.ciphertext_blob.clone()).context("tenant", tenant).context("app", "billing")
    };
    client.decrypt(decrypt(SECRET)).await.expect("decrypts");
    client.decrypt(decrypt("acme-4712")).await.expect_err("KMS refuses another context");
    client.generate_data_key(asked("alias/none")).await.expect_err("no such key");
    for _ in 0..250 {
        client.generate_data_key(asked("alias/forbidden")).await.expect_err("policy refuses it");
    }
}

/// Whether a file below `dir` has this text, as it is or in gzip.
fn found(dir: &Path, text: &str) -> bool {
    let finds = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path()).any(|path| {
        if path.is_dir() {
            return found(&path, text);
        }
        let Ok(bytes) = fs::read(&path) else { return false };
        let mut plain = Vec::new();
        let is_packed =
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*bytes), &mut plain).is_ok();
        finds(&bytes) || (is_packed && finds(&plain))
    })
}

fn reconcile(config: &Path, aws: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command
        .args(["audit", "reconcile", "--lag-minutes", "0", "--account", "111122223333", "--config"])
        .arg(config);
    command.arg("--cloudtrail").arg(aws).args(more);
    command.env("AWS_ACCESS_KEY_ID", "AKIATESTEXAMPLE00000").env("AWS_SECRET_ACCESS_KEY", "test-only");
    command.output().expect("runs")
}

/// AWS's record of a call that ours is of: it has the values, and an id of its own.
fn awss(record: &Value, digests: &[(String, &str)]) -> Value {
    let mut text = record.to_string();
    for (digest, value) in digests {
        text = text.replace(digest, value);
    }
    let mut record: Value = serde_json::from_str(&text).expect("JSON");
    if let Some(data) = record.get_mut("additionalEventData").and_then(Value::as_object_mut) {
        data.remove("redactedEncryptionContext");
    }
    record["eventID"] = format!("aws {}", record["eventID"].as_str().expect("an id")).into();
    record
}

/// Returns the records.
async fn redacts(line: &str, prefix: &str) -> Vec<String> {
    let site = Site::new().await;
    fs::write(site.dir.path().join("redaction.key"), "0123456789abcdef".repeat(4)).expect("writes");
    let config = site.config(line);
    let policy =
        "permit(principal is Workload, action, resource) unless { resource in Alias::\"alias/forbidden\" };";
    fs::write(site.dir.path().join("policy.cedar"), policy).expect("writes");
    let broker = Process::serve(&config);
    call(&site.socket()).await;
    broker.signal(Signal::TERM);
    let log = broker.log();
    assert!(broker.wait().success(), "{log}");
    assert!(!log.contains(SECRET));
    Site::verify(&config);
    let delivered = site.delivered();
    assert!(!found(&site.journal(), SECRET) && !found(&site.store(), SECRET), "it is nowhere");
    assert!(found(&site.store(), "billing"), "what is not redacted is there");

    let values: BTreeSet<_> = delivered
        .texts
        .iter()
        .filter_map(|text| {
            let record: Value = serde_json::from_str(text).expect("JSON");
            let context = &record["requestParameters"]["encryptionContext"];
            let tenant = context["tenant"].as_str()?.to_owned();
            assert_eq!(
                record["additionalEventData"]["redactedEncryptionContext"],
                json!(["tenant"]),
                "{record}"
            );
            Some(tenant)
        })
        .collect();
    assert_eq!(values.len(), 2, "each value has one digest: {values:?}");
    assert!(
        values.iter().all(|value| value.strip_prefix(prefix).is_some_and(|hex| hex.len() == 64)),
        "{values:?}"
    );
    assert!(
        delivered.records.iter().any(|record| record["additionalEventData"]["refusals"]["count"].is_u64())
    );

    let ours: Vec<_> =
        delivered.records.iter().filter(|record| record["eventSource"] == "kms.amazonaws.com").collect();
    let of_the_first =
        ours.iter().find_map(|record| record["requestParameters"]["encryptionContext"]["tenant"].as_str());
    let first = of_the_first.expect("a call with the context").to_owned();
    let second = values.iter().find(|value| **value != first).cloned().expect("another");
    let digests = [(first, SECRET), (second, "acme-4712")];
    let write = |digests: &[(String, &str)]| {
        let records: Vec<_> = ours.iter().map(|record| awss(record, digests)).collect();
        let place = site.dir.path().join("aws.json");
        fs::write(&place, json!({ "Records": records }).to_string()).expect("writes");
        place
    };
    let matched = reconcile(&config, &write(&digests), &[]);
    assert!(matched.status.success(), "{}", String::from_utf8_lossy(&matched.stdout));
    let [(first, _), second] = digests;
    let differs = reconcile(&config, &write(&[(first, "another"), second]), &[]);
    assert_eq!(differs.status.code(), Some(1), "{}", String::from_utf8_lossy(&differs.stdout));
    delivered.texts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_nowhere_with_a_key() {
    redacts(KEYED, "hmac-sha256:").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_nowhere_without_a_key() {
    redacts(PLAIN, "sha256:").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn redacted_records_fit_their_schemas() {
    let texts = redacts(KEYED, "hmac-sha256:").await;
    tokio::task::spawn_blocking(move || check_records(&texts)).await.expect("judged");
}
