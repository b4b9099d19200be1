//! The folder of a `key-broker dev` that has run and stopped, and the real program as those run it who read its trail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use key_broker_client::{Client, GenerateDataKey};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::process::{Process, binary};

/// The folder of a `key-broker dev` that has run and stopped.
pub struct Folder(TempDir);

impl Folder {
    /// A copy of one run: four calls to KMS, and three uses of a kept data key.
    pub fn copy() -> Self {
        static RUN: OnceLock<TempDir> = OnceLock::new();
        let run = RUN.get_or_init(|| {
            let dir = tempfile::tempdir().expect("a directory");
            let folder = Self(dir);
            let dev = Process::dev(folder.path());
            // Before the first delivery, so that all records are in one log file.
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let client = Client::unix(folder.path().join("broker.sock")).await.expect("it serves");
                for _ in 0..4 {
                    let request = GenerateDataKey::aes_256("alias/dev").context("tenant", "acme");
                    client.generate_data_key(request).await.expect("a key");
                }
                client.generate_random(32).await.expect("random bytes");
                client.describe_key("alias/dev").await.expect("a description");
                let none = client.generate_data_key(GenerateDataKey::aes_256("alias/none")).await;
                assert!(none.is_err(), "no such key");
            });
            stop(dev);
            folder.0
        });
        let copy = tempfile::tempdir().expect("a directory");
        let copied = Command::new("cp").arg("-a").arg(run.path().join(".")).arg(copy.path()).status();
        assert!(copied.expect("cp runs").success());
        Self(copy)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn call(&self, arguments: &[&str]) {
        self.run(&[&["call"], arguments, &["--dir", self.path().to_str().expect("a path")]].concat());
    }

    pub fn audit(&self, command: &str, arguments: &[&str]) -> Output {
        self.run(&[&["audit", command, "--dir", self.path().to_str().expect("a path")], arguments].concat())
    }

    /// Runs the program as somebody whose state files are in this folder.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().expect("it runs")
    }

    pub fn command(&self) -> Command {
        let mut command = command();
        command.env("XDG_STATE_HOME", self.path().join("state"));
        command
    }

    pub fn follow(&self, arguments: &[&str]) -> Child {
        let tail = ["audit", "tail", "--dir", self.path().to_str().expect("a path")];
        self.command().args(tail).args(arguments).stdout(Stdio::piped()).spawn().expect("it starts")
    }

    /// The log files of its trail.
    pub fn log_files(&self) -> Vec<PathBuf> {
        self.files("CloudTrail")
    }

    /// What the trail has of one kind.
    pub fn files(&self, kind: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        collect(&self.path().join("trail/key-broker-dev/AWSLogs/111122223333").join(kind), &mut files);
        files.sort();
        files
    }

    /// Where its readers record what they ask of KMS.
    pub fn reader_records_file(&self) -> PathBuf {
        self.path().join("state/key-broker/reader-records.jsonl")
    }

    /// What they have recorded, if anything.
    pub fn reader_records(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.reader_records_file()).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
    }

    /// The records of calls to KMS in its trail.
    pub fn kms_records(&self) -> Vec<Value> {
        let output = self.audit("cat", &["--records"]);
        let records = text(&output.stdout);
        let records = records.lines().map(|line| serde_json::from_str(line).expect("a record"));
        records.filter(|record: &Value| record["eventSource"] == "kms.amazonaws.com").collect()
    }
}

/// The program, with nobody's state files.
pub fn command() -> Command {
    let mut command = Command::new(binary());
    command
        .env("AWS_ACCESS_KEY_ID", "AKIATESTEXAMPLE00000")
        .env("AWS_SECRET_ACCESS_KEY", "test-only")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("HOME", "/nonexistent")
        .env_remove("XDG_STATE_HOME")
        .stdin(Stdio::null());
    command
}

pub fn run(arguments: &[&str]) -> Output {
    command().args(arguments).output().expect("it runs")
}

pub fn stop(dev: Process) {
    dev.signal(Signal::TERM);
    assert!(dev.wait().success());
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

pub fn stdout_json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON on stdout")
}
