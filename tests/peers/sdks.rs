//! The AWS Encryption SDKs of four languages beside a broker, before one KMS: what each writes and reads, by files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::peers::{Peers, cases, plain, root};
use crate::support::{Setup, TestBroker, reuse, rule};

/// A language's Encryption SDK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sdk {
    Python,
    JavaScript,
    Java,
    Go,
}

impl Sdk {
    /// What it calls 0x0478, 0x0578, 0x0178 and 0x0378.
    pub(crate) fn suites(self) -> [&'static str; 4] {
        match self {
            Self::Python => [
                "AES_256_GCM_HKDF_SHA512_COMMIT_KEY",
                "AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384",
                "AES_256_GCM_IV12_TAG16_HKDF_SHA256",
                "AES_256_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384",
            ],
            Self::JavaScript => [
                "ALG_AES256_GCM_IV12_TAG16_HKDF_SHA512_COMMIT_KEY",
                "ALG_AES256_GCM_IV12_TAG16_HKDF_SHA512_COMMIT_KEY_ECDSA_P384",
                "ALG_AES256_GCM_IV12_TAG16_HKDF_SHA256",
                "ALG_AES256_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384",
            ],
            Self::Java | Self::Go => [
                "ALG_AES_256_GCM_HKDF_SHA512_COMMIT_KEY",
                "ALG_AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384",
                "ALG_AES_256_GCM_IV12_TAG16_HKDF_SHA256",
                "ALG_AES_256_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384",
            ],
        }
    }

    /// Whether it writes messages without frames: the others only read them.
    pub(crate) fn writes_unframed(self) -> bool {
        matches!(self, Self::Python | Self::Java)
    }

    /// The program that opens and seals what a plan says, installed.
    fn program(self) -> Command {
        let ours = |file: &str| root().join("tests/peers").join(file);
        match self {
            Self::Python => {
                let mut python = Peers::install(&["encryption-sdk"]).command("encryption-sdk/bin/python");
                python.arg(ours("encryption-sdk/client.py"));
                python
            }
            Self::JavaScript => {
                let peers = Peers::install(&["encryption-sdk-node"]);
                let mut node = plain("node");
                node.arg(ours("encryption-sdk-node/client.mjs"));
                node.arg(peers.path("encryption-sdk-node/package.json"));
                node
            }
            Self::Java => {
                let peers = Peers::install(&["encryption-sdk-java"]);
                let folder = peers.path("encryption-sdk-java");
                let mut java = plain("java");
                java.args(["-cp", &format!("{0}/classes:{0}/lib/*", folder.display()), "Peer"]);
                java
            }
            Self::Go => {
                Peers::install(&["encryption-sdk-go"]).command("encryption-sdk-go/bin/encryption-sdk-go")
            }
        }
    }
}

/// A message that an SDK is asked to write.
pub(crate) struct Wish {
    pub(crate) suite: &'static str,
    /// 0 is content without frames.
    pub(crate) frame_length: u32,
    pub(crate) length: usize,
    pub(crate) context: BTreeMap<String, String>,
    /// Where it is to be.
    pub(crate) to: PathBuf,
}

impl Wish {
    pub(crate) fn is_signed(&self) -> bool {
        self.suite.contains("ECDSA")
    }

    /// For whoever reads a failure.
    pub(crate) fn name(&self) -> String {
        let (pairs, suite, frames) = (self.context.len(), self.suite, self.frame_length);
        format!("{suite}, frames of {frames}, {} bytes, {pairs} pairs of context", self.length)
    }
}

/// A broker, and a folder for files.
pub(crate) struct Bench {
    pub(crate) broker: TestBroker,
}

impl Bench {
    pub(crate) async fn start(suites_without_commitment: bool) -> Self {
        let setup = Setup { suites_without_commitment, reuse: reuse(rule()), ..Setup::default() };
        Self { broker: TestBroker::with(setup).await }
    }

    /// A file with these bytes.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.broker.dir.path().join(name);
        fs::write(&path, bytes).expect("writes");
        path
    }

    pub(crate) fn wish(
        &self,
        suite: &'static str,
        frame_length: u32,
        length: usize,
        context: &BTreeMap<String, String>,
    ) -> Wish {
        let bound: usize = context.iter().map(|(name, value)| name.len() + value.len()).sum();
        let to = self.broker.dir.path().join(format!("sdk-{suite}-{frame_length}-{length}-{bound}"));
        Wish { suite, frame_length, length, context: context.clone(), to }
    }

    /// Has an SDK open messages, each into a file beside it.
    pub(crate) async fn open(&self, sdk: Sdk, messages: &[&Path]) -> Vec<Value> {
        self.run(sdk, &json!({ "keys": [self.broker.key_arn], "open": messages, "seal": [] })).await
    }

    /// Has an SDK write messages, under the first of these KMS keys and the others, too.
    pub(crate) async fn seal(&self, sdk: Sdk, keys: &[&str], wishes: &[Wish]) {
        let seal: Vec<_> = wishes.iter().map(|wish| self.plan_of(wish)).collect();
        let done = self.run(sdk, &json!({ "keys": keys, "open": [], "seal": seal })).await;
        assert_eq!(done.len(), wishes.len());
    }

    fn plan_of(&self, wish: &Wish) -> Value {
        let from = self.write(&format!("plain-{}", wish.length), &plaintext(wish.length));
        json!({
            "plaintext": from, "to": wish.to, "suite": wish.suite, "context": wish.context,
            "frame_length": wish.frame_length, "committing": wish.suite.contains("COMMIT_KEY"),
        })
    }

    async fn run(&self, sdk: Sdk, plan: &Value) -> Vec<Value> {
        let plan = self.write("plan.json", plan.to_string().as_bytes());
        let endpoint = self.broker.emulator.endpoint_url();
        let asked = move || {
            let none = Path::new("/dev/null");
            let mut program = sdk.program();
            program.arg(plan).env("AWS_ENDPOINT_URL_KMS", endpoint).env("AWS_REGION", "us-west-2");
            program.env("AWS_DEFAULT_REGION", "us-west-2").env("AWS_EC2_METADATA_DISABLED", "true");
            program
                .env("AWS_ACCESS_KEY_ID", "AKIATESTEXAMPLE00000")
                .env("AWS_SECRET_ACCESS_KEY", "test-only");
            program.env("AWS_CONFIG_FILE", none).env("AWS_SHARED_CREDENTIALS_FILE", none);
            cases(&mut program)
        };
        tokio::task::spawn_blocking(asked).await.expect("no panic")
    }
}

/// The numbers to 250 over and over, in one copy: byte by byte, 100 MiB take seconds in a build that is not optimized.
pub(crate) fn plaintext(length: usize) -> Vec<u8> {
    let numbers: Vec<u8> = (0..=250).collect();
    let mut all = numbers.repeat(length / numbers.len() + 1);
    all.truncate(length);
    all
}
