//! Proves: the AWS Encryption SDK and `aws-encryption-cli`, which nobody here wrote, open what the broker seals, and the broker
//! opens what they seal with each of its suites, in frames and without; where only its own messages are read, it refuses the others for
//! the reason that it is.

#[path = "peers/mod.rs"]
mod peers;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use key_broker_core::{CiphertextBlob, EncryptionContext, KeyArn, Plaintext};
use key_broker_envelope::{EncryptedDataKey, Header, HeaderReader, OpenError, Sealer, Suite};
use kms_emulator::{Emulator, EmulatorConfig, KeySpec};
use peers::{Peers, cases, kms, printed, root};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn the_sdk_opens_what_the_broker_seals() {
    let peers = Peers::install(&["encryption-sdk"]);
    let bench = Bench::start();
    let messages: Vec<_> = LENGTHS.iter().map(|len| bench.seal(*len)).collect();
    let seen = bench.sdk(&peers, &json!({ "keys": [bench.key], "open": messages, "seal": [] }));
    assert_eq!(seen.len(), messages.len());
    for ((case, message), len) in seen.iter().zip(&messages).zip(LENGTHS) {
        assert_eq!(case["suite"], "AES_256_GCM_HKDF_SHA512_COMMIT_KEY");
        assert_eq!(case["frame_length"], 4_096);
        assert_eq!(case["context"], json!(pairs()));
        let opened = fs::read(format!("{}.opened", message.display())).expect("it was opened");
        assert!(opened == plaintext(len), "{len}");
    }
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn aws_encryption_cli_opens_what_the_broker_seals() {
    let peers = Peers::install(&["encryption-cli"]);
    let bench = Bench::start();
    for len in [0, 100_000] {
        let (message, opened) = (bench.seal(len), bench.path("opened"));
        let metadata = bench.path("metadata");
        let mut cli = bench.aws(peers.command("encryption-cli/bin/aws-encryption-cli"));
        cli.arg("--decrypt").arg("--input").arg(&message).arg("--output").arg(&opened);
        cli.arg("--wrapping-keys").arg(format!("key={}", bench.key));
        cli.args(["--commitment-policy", "require-encrypt-require-decrypt"]).arg("--encryption-context");
        cli.args(pairs().iter().map(|(name, value)| format!("{name}={value}")));
        cli.arg("--metadata-output").arg(&metadata).arg("--overwrite-metadata");
        printed(&mut cli);
        assert!(fs::read(&opened).expect("it was opened") == plaintext(len), "{len}");
        let metadata: Value = serde_json::from_slice(&fs::read(&metadata).expect("metadata")).expect("JSON");
        assert_eq!(metadata["header"]["encryption_context"], json!(pairs()), "{metadata}");
    }
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn the_broker_opens_what_the_sdk_seals() {
    let peers = Peers::install(&["encryption-sdk"]);
    let bench = Bench::start();
    let mut wishes = Vec::new();
    for (suite, name) in SUITES {
        // 0 is content without frames.
        for frame_length in [0, 128, 4_096, 1 << 20] {
            wishes.extend(LENGTHS.map(|len| (bench.wish(len, name, frame_length), suite, len, frame_length)));
        }
    }
    let seal: Vec<_> = wishes.iter().map(|(wish, ..)| wish).collect();
    // Two keys: two encrypted data keys. Either will do.
    let keys = [&bench.key, &bench.second_key];
    bench.sdk(&peers, &json!({ "keys": keys, "open": [], "seal": seal }));
    for (place, (wish, suite, len, frame_length)) in wishes.iter().enumerate() {
        let message = fs::read(wish["to"].as_str().expect("a path")).expect("sealed");
        let read = || {
            let mut rest = &message[..];
            let header = HeaderReader::default().push(&mut rest).expect("a header").expect("whole");
            (header, rest)
        };
        let (header, body) = read();
        let facts = header.facts();
        assert_eq!((facts.suite, facts.frame_length), (*suite, *frame_length), "{wish}");
        assert_eq!(header.callers_context(), context(), "{wish}");
        let found: Vec<_> =
            header.encrypted_data_keys().iter().map(|key| key.for_kms().expect("of KMS")).collect();
        // The SDK keeps its keys in a set.
        let arns: BTreeSet<_> = found.iter().map(|(arn, _)| arn.as_str()).collect();
        assert_eq!(arns, keys.map(String::as_str).into(), "{wish}");
        let data_key = bench.decrypt(&found[place % 2].1, header.context());
        assert!(header.open_whole(&data_key, body).expect("whole")[..] == plaintext(*len), "{wish}");

        let (header, body) = read();
        let mut opener = header.open_body(&data_key, 1 << 20).expect("its own key");
        let mut whole = Vec::new();
        for piece in body.chunks(1_000) {
            whole.extend_from_slice(&opener.push(piece).expect("whole"));
        }
        whole.extend_from_slice(&opener.finish().expect("whole"));
        assert!(whole == plaintext(*len), "{wish}");
    }
}

/// Where only the broker's own messages are read.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn what_the_sdk_seals_otherwise_is_refused_for_the_reason_that_it_is() {
    let peers = Peers::install(&["encryption-sdk"]);
    let bench = Bench::start();
    let format_one = "no key commitment";
    let wishes = [
        (FORMAT_ONE[0], 4_096, ["message format 1 (suite 0x0378)", format_one]),
        (FORMAT_ONE[1], 0, ["message format 1 (suite 0x0178)", format_one]),
        (FORMAT_ONE[2], 4_096, ["message format 1 (suite 0x0014)", format_one]),
        (SIGNED, 4_096, ["suite 0x0578, which is signed", "use aws-encryption-cli --decrypt"]),
        (COMMITTING, 0, ["content without frames", "use aws-encryption-cli --decrypt"]),
        (COMMITTING, (1 << 20) + 128, ["frame length 1048704", "up to 1048576 bytes"]),
    ];
    let sealed = wishes.map(|(suite, frame_length, _)| bench.wish(5_000, suite, frame_length));
    bench.sdk(&peers, &json!({ "keys": [bench.key], "open": [], "seal": sealed }));
    for (wish, (.., words)) in sealed.iter().zip(wishes) {
        let message = fs::read(wish["to"].as_str().expect("a path")).expect("sealed");
        let error = Header::read(&mut &message[..]).err().expect("refused").to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{wish}: {error}");
        // The official way to hand a message on as text.
        let base64 = STANDARD.encode(&message);
        let error = Header::read(&mut base64.as_bytes()).err().expect("refused");
        assert!(matches!(error, OpenError::Base64), "{wish}: {error}");
    }
}

/// A KMS with two keys, and a directory.
struct Bench {
    dir: TempDir,
    endpoint: String,
    key: String,
    second_key: String,
    /// Runs the KMS.
    _runtime: (Emulator, Runtime),
}

impl Bench {
    fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let emulator =
            runtime.block_on(Emulator::start(EmulatorConfig::default())).expect("the emulator starts");
        let key = |alias| emulator.ensure_key(alias, KeySpec::SymmetricDefault).expect("a key");
        let (first, second) = (key("alias/first"), key("alias/second"));
        let dir = tempfile::tempdir().expect("a directory");
        let endpoint = emulator.endpoint_url();
        Self { dir, endpoint, key: first, second_key: second, _runtime: (emulator, runtime) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A message of so many bytes, sealed by the broker's code with a data key of KMS.
    fn seal(&self, len: usize) -> PathBuf {
        let request = json!({ "KeyId": self.key, "KeySpec": "AES_256", "EncryptionContext": pairs() });
        let answer = kms(&self.endpoint, "GenerateDataKey", &request);
        let data_key = Plaintext::new(bytes(&answer["Plaintext"]));
        let blob = CiphertextBlob::parse(bytes(&answer["CiphertextBlob"]).into()).expect("KMS's own");
        let encrypted = EncryptedDataKey::aws_kms(&KeyArn::parse(&self.key).expect("an ARN"), &blob);
        let path = self.path(&format!("broker-{len}"));
        let file = BufWriter::new(File::create(&path).expect("creates"));
        let mut sealer = Sealer::new(file, &data_key, encrypted, &context()).expect("a header");
        sealer.write_all(&plaintext(len)).expect("writes");
        sealer.finish().expect("writes").flush().expect("writes");
        path
    }

    fn decrypt(&self, blob: &CiphertextBlob, context: &EncryptionContext) -> Plaintext {
        let blob = STANDARD.encode(blob.as_bytes());
        let request = json!({ "CiphertextBlob": blob, "EncryptionContext": context.pairs() });
        Plaintext::new(bytes(&kms(&self.endpoint, "Decrypt", &request)["Plaintext"]))
    }

    /// What the SDK is to seal.
    fn wish(&self, len: usize, suite: &str, frame_length: u32) -> Value {
        let plain = self.path(&format!("plain-{len}"));
        fs::write(&plain, plaintext(len)).expect("writes");
        let to = self.path(&format!("sdk-{len}-{suite}-{frame_length}"));
        json!({ "plaintext": plain, "to": to, "suite": suite, "context": pairs(), "frame_length": frame_length })
    }

    fn sdk(&self, peers: &Peers, plan: &Value) -> Vec<Value> {
        let path = self.path("plan.json");
        fs::write(&path, plan.to_string()).expect("writes");
        let mut client = self.aws(peers.command("encryption-sdk/bin/python"));
        cases(client.arg(root().join("tests/peers/encryption-sdk/client.py")).arg(path))
    }

    /// AWS's tools, before the emulator and with nothing of this user's.
    fn aws(&self, mut command: Command) -> Command {
        let none = Path::new("/dev/null");
        command.env("AWS_ENDPOINT_URL_KMS", &self.endpoint).env("AWS_DEFAULT_REGION", "us-west-2");
        command.env("AWS_ACCESS_KEY_ID", "AKIATESTEXAMPLE00000").env("AWS_SECRET_ACCESS_KEY", "test-only");
        command.env("AWS_CONFIG_FILE", none).env("AWS_SHARED_CREDENTIALS_FILE", none);
        command
    }
}

/// As the trail's log files have it, with a letter beyond ASCII.
fn pairs() -> BTreeMap<String, String> {
    let trail = "arn:aws:cloudtrail:us-west-2:111122223333:trail/key-broker";
    let file = "arn:aws:s3:::trail/AWSLogs/111122223333/CloudTrail/us-west-2/2026/11/21/é.json.gz";
    BTreeMap::from([("aws:cloudtrail:arn".into(), trail.into()), ("aws:s3:arn".into(), file.into())])
}

fn context() -> EncryptionContext {
    EncryptionContext::parse(pairs()).expect("short")
}

fn plaintext(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

fn bytes(base64: &Value) -> Vec<u8> {
    STANDARD.decode(base64.as_str().expect("a string")).expect("base64")
}

/// Nothing, and around the ends of frames of both 128 and 4,096 bytes.
const LENGTHS: [usize; 8] = [0, 1, 127, 128, 4_095, 4_096, 4_097, 300_000];
const COMMITTING: &str = "AES_256_GCM_HKDF_SHA512_COMMIT_KEY";
const SIGNED: &str = "AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384";
const FORMAT_ONE: [&str; 3] = [
    "AES_256_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384",
    "AES_256_GCM_IV12_TAG16_HKDF_SHA256",
    "AES_128_GCM_IV12_TAG16",
];
const SUITES: [(Suite, &str); 4] = [
    (Suite::Committed, COMMITTING),
    (Suite::CommittedSigned, SIGNED),
    (Suite::UncommittedSigned, FORMAT_ONE[0]),
    (Suite::Uncommitted, FORMAT_ONE[1]),
];
