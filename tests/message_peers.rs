//! Proves: what a broker encrypts, whole and in parts, the AWS Encryption SDKs for Python and JavaScript open with the KMS key alone; and
//! what they encrypt, with each suite that a broker takes, framed and not, under several keys, a broker decrypts.

#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use futures_util::stream;
use key_broker_client::{Client, DecryptMessage, EncryptMessage, Error};
use peers::{Peers, cases, root};
use serde_json::{Value, json};
use support::{Setup, TestBroker, reuse, rule};
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn the_sdk_opens_what_a_broker_encrypts() {
    let bench = Bench::start(false).await;
    let client = bench.broker.client().await;
    let mut messages = Vec::new();
    for length in [0, 1, 4_096, 1_000_003, 3 << 20] {
        let request = with(EncryptMessage::new("alias/dev", plaintext(length)), &pairs());
        let message = client.encrypt_message(request).await.expect("encrypted").message;
        messages.push((bench.write(&format!("whole-{length}"), &message), length, pairs()));
    }
    for length in [0, 100 << 20] {
        let message = in_parts(&client, length).await.expect("encrypted");
        messages.push((bench.write(&format!("parts-{length}"), &message), length, pairs()));
    }
    // As long as KMS takes it.
    let long = BTreeMap::from([("name".to_owned(), "x".repeat(8_192 - 4))]);
    let message = client.encrypt_message(with(EncryptMessage::new("alias/dev", plaintext(10)), &long)).await;
    messages.push((bench.write("long-context", &message.expect("encrypted").message), 10, long));

    let paths: Vec<_> = messages.iter().map(|(path, ..)| path).collect();
    let keys = [&bench.broker.key_arn];
    let seen = bench.sdk(json!({ "keys": keys, "open": paths, "seal": [] })).await;
    for (case, (path, length, context)) in seen.iter().zip(&messages) {
        assert_eq!(case["suite"], "AES_256_GCM_HKDF_SHA512_COMMIT_KEY");
        assert_eq!(case["context"], json!(context));
        let opened = fs::read(format!("{}.opened", path.display())).expect("it was opened");
        assert!(opened == plaintext(*length), "{}", path.display());
    }
    assert_eq!(seen.len(), messages.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn a_broker_decrypts_what_the_sdk_encrypts() {
    let bench = Bench::start(true).await;
    let client = bench.broker.client().await;
    let mut wishes = Vec::new();
    for suite in SUITES {
        for (frame_length, length) in
            [(0, 0), (0, 300_000), (128, 1_000), (4_096, 0), (4_096, 300_000), (1 << 20, 3 << 20)]
        {
            wishes.push((bench.wish(suite, frame_length, length), suite, frame_length, length));
        }
    }
    // The broker knows one of them: what it may not use, or KMS does not have, it passes over.
    let other = bench.broker.emulator.ensure_key("alias/other", kms_emulator::KeySpec::SymmetricDefault);
    let (dev, other) = (bench.broker.key_arn.clone(), other.expect("a key"));
    let seal: Vec<_> = wishes.iter().map(|(wish, ..)| wish).collect();
    bench.sdk(json!({ "keys": [other, dev], "context": pairs(), "open": [], "seal": seal })).await;
    for (wish, suite, frame_length, length) in &wishes {
        let case = format!("{suite} {frame_length} {length}");
        let message = Bytes::from(fs::read(wish["to"].as_str().expect("a path")).expect("sealed"));
        let request = || DecryptMessage::new(message.clone()).context("tenant", "acme");
        let decrypted = client.decrypt_message(request()).await.unwrap_or_else(|e| panic!("{case}: {e}"));
        assert!(decrypted.plaintext.expose() == plaintext(*length), "{case}");
        assert_eq!(decrypted.encryption_context, pairs(), "{case}: without what the SDK keeps for itself");
        let named = client.decrypt_message(request().key_id("alias/dev")).await.expect("one of its keys");
        assert_eq!(named.key_id, bench.broker.key_arn, "{case}");
        let is_signed = suite.contains("ECDSA");
        match decrypt_in_parts(&client, &message, false).await {
            Ok(opened) => assert!(!is_signed && opened == plaintext(*length), "{case}"),
            Err(error) => {
                assert_eq!(
                    reason(&error),
                    (Code::FailedPrecondition, "SUITE_NOT_ALLOWED"),
                    "{case}: {error}"
                );
                assert!(is_signed, "{case}");
            }
        }
        let opened =
            decrypt_in_parts(&client, &message, true).await.unwrap_or_else(|e| panic!("{case}: {e}"));
        assert!(opened == plaintext(*length), "{case}");
        // A signature that is another's is found, and nothing of it leaves.
        let mut forged = message.to_vec();
        let last = forged.len() - 1;
        forged[last] ^= 1;
        let error = client.decrypt_message(DecryptMessage::new(forged)).await.expect_err("forged");
        assert_eq!(reason(&error), (Code::InvalidArgument, "INVALID_MESSAGE"), "{case}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn the_sdk_for_javascript_and_a_broker_open_each_others_messages() {
    let bench = Bench::start(true).await;
    let client = bench.broker.client().await;
    let mut messages = Vec::new();
    for length in [0, 1, 4_096, 1_000_003] {
        let request = with(EncryptMessage::new("alias/dev", plaintext(length)), &pairs());
        let message = client.encrypt_message(request).await.expect("encrypted").message;
        messages.push((bench.write(&format!("whole-{length}"), &message), length));
    }
    let message = in_parts(&client, 5 << 20).await.expect("encrypted");
    messages.push((bench.write("parts", &message), 5 << 20));
    let wishes: Vec<_> = SUITES_IN_JAVASCRIPT
        .into_iter()
        .flat_map(|suite| [(suite, 128, 0), (suite, 4_096, 300_000)])
        .map(|(suite, frame_length, length)| (bench.wish(suite, frame_length, length), length))
        .collect();
    let seal: Vec<_> = wishes.iter().map(|(wish, _)| wish).collect();
    let open: Vec<_> = messages.iter().map(|(path, _)| path).collect();
    let plan = json!({ "keys": [bench.broker.key_arn], "context": pairs(), "open": open, "seal": seal });
    let seen = bench.sdk_for_javascript(plan).await;
    assert_eq!(seen.len(), messages.len() + wishes.len());
    for (case, (path, length)) in seen.iter().zip(&messages) {
        assert_eq!((&case["suite"], &case["context"]), (&json!(0x0478), &json!(pairs())));
        let opened = fs::read(format!("{}.opened", path.display())).expect("it was opened");
        assert!(opened == plaintext(*length), "{length}");
    }
    for (wish, length) in &wishes {
        let message = fs::read(wish["to"].as_str().expect("a path")).expect("sealed");
        let decrypted = client.decrypt_message(DecryptMessage::new(message).context("tenant", "acme")).await;
        let decrypted = decrypted.unwrap_or_else(|error| panic!("{wish}: {error}"));
        assert!(decrypted.plaintext.expose() == plaintext(*length), "{wish}");
        assert_eq!(decrypted.encryption_context, pairs(), "{wish}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn suites_without_commitment_are_off() {
    let bench = Bench::start(false).await;
    let client = bench.broker.client().await;
    let old = [SUITES[2], SUITES[3], "AES_256_GCM_IV12_TAG16"];
    let wishes = old.map(|suite| bench.wish(suite, 4_096, 1_000));
    let keys = [&bench.broker.key_arn];
    bench.sdk(json!({ "keys": keys, "context": pairs(), "open": [], "seal": wishes })).await;
    for wish in &wishes {
        let message = fs::read(wish["to"].as_str().expect("a path")).expect("sealed");
        let error = client.decrypt_message(DecryptMessage::new(message)).await.expect_err("refused");
        assert_eq!(reason(&error), (Code::FailedPrecondition, "SUITE_NOT_ALLOWED"), "{wish}: {error}");
    }
    assert_eq!(bench.broker.emulator.call_count("Decrypt"), 0);
}

struct Bench {
    broker: TestBroker,
    peers: Peers,
}

impl Bench {
    async fn start(suites_without_commitment: bool) -> Self {
        let peers = Peers::install(&["encryption-sdk"]);
        let setup = Setup { suites_without_commitment, reuse: reuse(rule()), ..Setup::default() };
        Self { broker: TestBroker::with(setup).await, peers }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.broker.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).expect("writes");
        path
    }

    fn wish(&self, suite: &str, frame_length: u32, length: usize) -> Value {
        let plain = self.write(&format!("plain-{length}"), &plaintext(length));
        let to = self.path(&format!("sdk-{length}-{suite}-{frame_length}"));
        let committing = suite.contains("COMMIT_KEY");
        json!({ "plaintext": plain, "to": to, "suite": suite, "frame_length": frame_length, "committing": committing })
    }

    async fn sdk(&self, plan: Value) -> Vec<Value> {
        let mut client = self.peers.command("encryption-sdk/bin/python");
        client.arg(root().join("tests/peers/encryption-sdk/client.py"));
        self.told_by(client, plan).await
    }

    async fn sdk_for_javascript(&self, plan: Value) -> Vec<Value> {
        let peers = Peers::install(&["encryption-sdk-node"]);
        let mut client = Command::new("node");
        client.arg(root().join("tests/peers/encryption-sdk-node/client.mjs"));
        client.arg(peers.path("encryption-sdk-node/package.json"));
        self.told_by(client, plan).await
    }

    async fn told_by(&self, mut client: Command, plan: Value) -> Vec<Value> {
        let none = Path::new("/dev/null");
        client.arg(self.write("plan.json", plan.to_string().as_bytes()));
        client.env("AWS_ENDPOINT_URL_KMS", self.broker.emulator.endpoint_url());
        client.env("AWS_DEFAULT_REGION", "us-west-2").env("AWS_EC2_METADATA_DISABLED", "true");
        client.env("AWS_ACCESS_KEY_ID", "AKIATESTEXAMPLE00000").env("AWS_SECRET_ACCESS_KEY", "test-only");
        client.env("AWS_CONFIG_FILE", none).env("AWS_SHARED_CREDENTIALS_FILE", none);
        tokio::task::spawn_blocking(move || cases(&mut client)).await.expect("no panic")
    }
}

async fn in_parts(client: &Client, length: usize) -> Result<Bytes, Error> {
    let all = Bytes::from(plaintext(length));
    let parts: Vec<_> =
        (0..length).step_by(500_000).map(|at| all.slice(at..(at + 500_000).min(length))).collect();
    let request = with(EncryptMessage::new("alias/dev", ""), &pairs());
    let mut stream = client.encrypt_message_stream(&request, None, stream::iter(parts)).await?;
    let mut message = Vec::new();
    while let Some(part) = stream.next().await? {
        message.extend_from_slice(&part);
    }
    Ok(message.into())
}

async fn decrypt_in_parts(client: &Client, message: &Bytes, signed: bool) -> Result<Vec<u8>, Error> {
    let parts: Vec<_> = message.chunks(65_536).map(Bytes::copy_from_slice).collect();
    let request = DecryptMessage::new("").context("tenant", "acme");
    let mut stream = client.decrypt_message_stream(&request, signed, stream::iter(parts)).await?;
    let mut plaintext = Vec::new();
    while let Some(part) = stream.next().await? {
        plaintext.extend_from_slice(part.expose());
    }
    Ok(plaintext)
}

fn with(request: EncryptMessage, pairs: &BTreeMap<String, String>) -> EncryptMessage {
    pairs.iter().fold(request, |request, (name, value)| request.context(name, value))
}

/// With letters beyond ASCII.
fn pairs() -> BTreeMap<String, String> {
    BTreeMap::from([("tenant".into(), "acme".into()), ("purpose".into(), "épreuve".into())])
}

fn plaintext(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

fn reason(error: &Error) -> (Code, &str) {
    (error.code(), error.reason().expect("a reason"))
}

/// As the SDK calls 0x0478, 0x0578, 0x0178 and 0x0378.
const SUITES: [&str; 4] = [
    "AES_256_GCM_HKDF_SHA512_COMMIT_KEY",
    "AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384",
    "AES_256_GCM_IV12_TAG16_HKDF_SHA256",
    "AES_256_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384",
];
/// The same for JavaScript.
const SUITES_IN_JAVASCRIPT: [&str; 4] = [
    "ALG_AES256_GCM_IV12_TAG16_HKDF_SHA512_COMMIT_KEY",
    "ALG_AES256_GCM_IV12_TAG16_HKDF_SHA512_COMMIT_KEY_ECDSA_P384",
    "ALG_AES256_GCM_IV12_TAG16_HKDF_SHA256",
    "ALG_AES256_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384",
];
