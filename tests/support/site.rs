//! Where the real program runs with a trail, again and again: a KMS, a directory for everything, a signing key.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use key_broker_trail::PublicKey;
use kms_emulator::{Emulator, EmulatorConfig, KeySpec};
use tempfile::TempDir;

use super::delivered::Delivered;
use super::load::{POLICY, Seen};
use super::process::{binary, write_config};
use super::signing::write_key;

pub struct Site {
    pub emulator: Emulator,
    pub dir: TempDir,
    pub key: PublicKey,
}

impl Site {
    pub async fn new() -> Self {
        let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
        for alias in ["alias/dev", "alias/forbidden"] {
            emulator.ensure_key(alias, KeySpec::SymmetricDefault).expect("a key");
        }
        let dir = tempfile::tempdir().expect("a directory");
        let key = write_key(dir.path());
        Self { emulator, dir, key }
    }

    /// Writes a configuration that delivers into a directory every second and makes a digest every two; `more` are further
    /// lines of `[audit]`, then other sections.
    pub fn config(&self, more: &str) -> PathBuf {
        self.config_with_store("store = { directory = \"trail\", bucket = \"logs\" }", more)
    }

    /// The same with another line for the store.
    pub fn config_with_store(&self, store: &str, more: &str) -> PathBuf {
        let audit = format!(
            "{store}\nsigning = {{ pem_file = \"signing.pem\" }}\n\
             delivery_interval_seconds = 1\ndigest_interval_seconds = 2\n{more}"
        );
        let path = write_config(self.dir.path(), &self.emulator.endpoint_url(), &audit);
        fs::write(self.dir.path().join("policy.cedar"), POLICY).expect("writes");
        path
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("broker.sock")
    }

    pub fn journal(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    /// The broker's own verdict on its trail.
    pub fn verdict(config: &Path) -> Output {
        let mut verify = Command::new(binary());
        verify.args(["audit", "verify", "--config"]).arg(config);
        let own = tempfile::tempdir().expect("a directory");
        verify.arg("--record-to").arg(own.path().join("records"));
        verify.env("AWS_ACCESS_KEY_ID", "AKIATESTEXAMPLE00000").env("AWS_SECRET_ACCESS_KEY", "test-only");
        verify.output().expect("runs")
    }

    /// The same, which has to be that it is sound.
    pub fn verify(config: &Path) {
        let verdict = Self::verdict(config);
        let (told, why) =
            (String::from_utf8_lossy(&verdict.stdout), String::from_utf8_lossy(&verdict.stderr));
        assert!(verdict.status.success(), "{told}\n{why}");
    }

    /// The root of the store.
    pub fn store(&self) -> PathBuf {
        self.dir.path().join("trail")
    }

    /// A broker that was told to stop by now has delivered everything: nothing is lost, doubled or unrecorded. Returns what it
    /// delivered.
    pub fn assert_accounts_for(&self, seen: &Seen) -> Delivered {
        let delivered = self.delivered();
        delivered.assert_holds(&seen.told);
        delivered.assert_holds_refused(&seen.refused);
        assert!(delivered.undelivered.is_empty(), "the drain delivers everything");
        assert_eq!(delivered.gaps, 0, "the chain goes through all log files");
        for flaw in ["damagedBytes", "missingRecords", "unrecordedRefusals"] {
            assert_eq!(delivered.told_of_journal(flaw), 0, "{flaw}");
        }
        delivered
    }

    /// What was delivered, checked.
    pub fn delivered(&self) -> Delivered {
        Delivered::read(&self.store(), &self.journal(), &self.key)
    }
}
