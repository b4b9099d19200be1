//! Brokers with one configuration, and an auditor who has their bucket alone.
#![allow(dead_code, unreachable_pub, reason = "every test file uses another part of this one")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use key_broker_client::{Client, GenerateDataKey};
use kms_emulator::{Emulator, EmulatorConfig, KeySpec};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::dev_folder::{command, text};
use crate::support::process::{Process, write_config};
use crate::support::signing::write_key;
use crate::support::trail::{BUCKET, inflated, objects};

/// Brokers with one configuration, each in a directory of its own, before one KMS and one store.
pub struct Fleet {
    pub emulator: Emulator,
    pub dir: TempDir,
}

impl Fleet {
    pub async fn new() -> Self {
        let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
        emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
        let dir = tempfile::tempdir().expect("a directory");
        write_key(dir.path());
        Self { emulator, dir }
    }

    pub fn store(&self) -> PathBuf {
        self.dir.path().join("trail")
    }

    pub fn journal(&self, place: usize) -> PathBuf {
        self.dir.path().join(format!("{place}/journal"))
    }

    pub fn socket(&self, place: usize) -> PathBuf {
        self.dir.path().join(format!("{place}/broker.sock"))
    }

    /// The configuration that all have; paths in it begin where it is.
    pub fn config(&self, place: usize, more: &str) -> PathBuf {
        let dir = self.dir.path().join(place.to_string());
        fs::create_dir_all(&dir).expect("makes");
        let audit = format!(
            "store = {{ directory = \"../trail\", bucket = \"{BUCKET}\" }}\nsigning = {{ pem_file = \"../signing.pem\" }}\n{more}\
             [reuse]\nenabled = false\n"
        );
        let config = write_config(&dir, &self.emulator.endpoint_url(), &audit);
        let text = fs::read_to_string(&config).expect("reads");
        let text = text.replace("[kms]", "admin = { path = \"admin.sock\" }\n[kms]");
        fs::write(&config, text).expect("writes");
        config
    }

    pub fn start(&self, place: usize) -> Process {
        self.start_with(place, "")
    }

    pub fn start_with(&self, place: usize, more: &str) -> Process {
        let config = self.config(place, more);
        let broker = Self::spawn(place, &config);
        broker.wait_for_log("\"serving\"");
        broker
    }

    /// Starts one that gives out data keys more than once.
    pub fn start_reusing(&self, place: usize) -> Process {
        let config = self.config(place, "");
        let text = fs::read_to_string(&config).expect("reads").replace("[reuse]\nenabled = false\n", "");
        fs::write(&config, text).expect("writes");
        let broker = Self::spawn(place, &config);
        broker.wait_for_log("\"serving\"");
        broker
    }

    /// Starts it, as a pod of its own.
    pub fn spawn(place: usize, config: &Path) -> Process {
        let pod = format!("orders-{place}");
        let variables = [
            ("AWS_ACCESS_KEY_ID", "AKIATESTEXAMPLE00000"),
            ("AWS_SECRET_ACCESS_KEY", "test-only"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("KEY_BROKER_POD_NAME", pod.as_str()),
            ("KEY_BROKER_POD_NAMESPACE", "orders"),
        ];
        Process::serve_with_variables(config, &variables)
    }

    pub async fn call(&self, place: usize, times: usize) {
        let client = Client::unix(self.socket(place)).await.expect("listens");
        for _ in 0..times {
            client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect("a key");
        }
    }

    pub fn program(arguments: &[&str]) -> Output {
        let mut program: Command = command();
        program.args(arguments).output().expect("runs")
    }

    pub fn deliver(&self, place: usize) -> Output {
        let (journal, config) =
            (self.journal(place), self.dir.path().join(format!("{place}/key-broker.toml")));
        Self::program(&["audit", "deliver", "--journal", path(&journal), "--config", path(&config)])
    }

    /// The verdict of somebody who has the bucket alone.
    pub fn verify(&self, trail: &str) -> (Option<i32>, Value) {
        let (code, mut report) = self.audit("verify", &["--json", "--trail", trail]);
        (code, report.swap_remove(0))
    }

    /// What one of the commands for auditors says of the bucket.
    pub fn said(&self, command: &str, more: &[&str]) -> Output {
        let key = self.dir.path().join("public.pem");
        let public =
            key_broker_trail::delivery::public_key_of(&self.dir.path().join("signing.pem")).expect("a key");
        fs::write(&key, public.to_pem()).expect("writes");
        let store = self.store();
        let mut arguments = vec!["audit", command, "--store", path(&store), "--bucket", BUCKET];
        arguments.extend(["--account", "111122223333", "--region", "us-west-2"]);
        if command == "verify" {
            arguments.extend(["--public-key", path(&key)]);
        }
        arguments.extend(more);
        Self::program(&arguments)
    }

    /// The same, in lines of JSON.
    pub fn audit(&self, command: &str, more: &[&str]) -> (Option<i32>, Vec<Value>) {
        let said = self.said(command, more);
        let lines: Result<Vec<Value>, _> =
            serde_json::Deserializer::from_slice(&said.stdout).into_iter().collect();
        let code = said.status.code();
        (
            code,
            lines.ok().filter(|lines| !lines.is_empty()).unwrap_or_else(|| panic!("{}", text(&said.stderr))),
        )
    }

    pub fn of_kind(&self, is_digest: bool) -> Vec<Value> {
        let all = objects(&self.store()).into_iter();
        let wanted = all.filter(|(key, _)| key.contains("CloudTrail-Digest") == is_digest);
        wanted.map(|(_, path)| serde_json::from_slice(&inflated(&path)).expect("JSON")).collect()
    }

    pub fn digests(&self) -> Vec<Value> {
        self.of_kind(true)
    }

    /// The names of the trails in the store.
    pub fn trails(&self) -> Vec<String> {
        let digests = self.digests();
        let keys = digests.iter().map(|digest| digest["digestS3Object"].as_str().expect("a key"));
        let mut names: Vec<String> = keys
            .map(|key| {
                let (_, rest) = key.split_once("_CloudTrail-Digest_us-west-2_").expect("a digest");
                rest.split_once("_us-west-2_").expect("a trail").0.to_owned()
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }

    pub fn event_names(&self) -> Vec<String> {
        let files = self.of_kind(false);
        let records = files.iter().flat_map(|file| file["Records"].as_array().expect("records"));
        records.map(|record| record["eventName"].as_str().expect("a name").to_owned()).collect()
    }
}

pub fn path(path: &Path) -> &str {
    path.to_str().expect("a path")
}
