//! A site to check, and what the program's `check` says of a configuration.
#![allow(dead_code, reason = "every test file uses another part of this one")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kms_emulator::{Emulator, EmulatorConfig, KeySpec};
use tokio::task::block_in_place;

use crate::support::process::{binary, write_config};

pub(crate) fn check(config: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(["check", "--config"]).arg(config).args(arguments);
    command.env("AWS_ACCESS_KEY_ID", "AKIATESTEXAMPLE00000").env("AWS_SECRET_ACCESS_KEY", "test-only");
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    // What it asks is in this runtime.
    block_in_place(|| command.output()).expect("it runs")
}

pub(crate) fn told(output: &Output) -> String {
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{error}")
}

/// A site with an emulator: `alias/dev`, and a trail in a directory.
pub(crate) struct Place {
    pub(crate) emulator: Emulator,
    pub(crate) dir: tempfile::TempDir,
}

impl Place {
    pub(crate) async fn new() -> Self {
        let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
        emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
        emulator.ensure_key("alias/signing", KeySpec::Rsa2048).expect("a key");
        Self { emulator, dir: tempfile::tempdir().expect("a directory") }
    }

    pub(crate) fn config(&self, more: &str) -> PathBuf {
        write_config(self.dir.path(), &self.emulator.endpoint_url(), more)
    }

    /// For a host that this is not, and a KMS that nobody reaches.
    pub(crate) fn config_for_elsewhere(&self) -> PathBuf {
        let config = self.config("");
        let text = fs::read_to_string(&config).expect("reads");
        let listen = "unix = { path = \"/nowhere/broker.sock\", group = \"no-such-group\" }\n\
                      tls = { address = \"0.0.0.0:7890\", certificate_file = \"/nowhere/a\", key_file = \"/nowhere/b\", trust_bundle_file = \"/nowhere/c\" }\n";
        let text = text.replace("unix = { path = \"broker.sock\", mode = \"0600\" }\n", listen);
        let text = text.replace(&self.emulator.endpoint_url(), "http://127.0.0.1:9");
        fs::write(&config, text).expect("writes");
        config
    }

    pub(crate) fn policy(&self, text: &str) {
        fs::write(self.dir.path().join("policy.cedar"), text).expect("writes");
    }
}
