//! Proves: signing key and trail key are changed as docs/audit.md says ("Changing keys"), under one trail, which is sound to whoever has
//! both public keys and may decrypt under both.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use key_broker_client::{Client, GenerateDataKey};
use key_broker_trail::PublicKey;
use kms_emulator::KeySpec;
use rustix::process::Signal;
use support::dev_folder::{command, text};
use support::process::Process;
use support::signing::write_key;
use support::site::Site;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trail_of_two_signing_keys_and_two_trail_keys_is_sound() {
    let site = Site::new().await;
    for alias in ["alias/trail-1", "alias/trail-2"] {
        site.emulator.ensure_key(alias, KeySpec::SymmetricDefault).expect("a key");
    }
    // 1. The old public half is kept.
    let first = keep(&site, "first.pem", &site.key);
    run(&site, "kms_key_id = \"alias/trail-1\"\n").await;
    // 2. Other keys are configured, and the broker is started again.
    let other = tempfile::tempdir().expect("a directory");
    let second = keep(&site, "second.pem", &write_key(other.path()));
    fs::copy(other.path().join("signing.pem"), site.dir.path().join("signing.pem")).expect("copies");
    let config = run(&site, "kms_key_id = \"alias/trail-2\"\n").await;
    // 3. Whoever verifies has both.
    let both = verify(&config, &[&first, &second]);
    assert_eq!(both.status.code(), Some(0), "{}{}", text(&both.stdout), text(&both.stderr));
    let said = text(&both.stdout);
    assert!(said.contains("SOUND") && said.contains("The trail is closed"), "{said}");
    for alone in [&first, &second] {
        let verdict = verify(&config, &[alone]);
        assert_eq!(verdict.status.code(), Some(2), "{}", text(&verdict.stdout));
        assert!(text(&verdict.stdout).contains("DigestOtherKey"), "{}", text(&verdict.stdout));
    }
}

/// Writes the public half of a key, as `key-broker audit public-key` prints it.
fn keep(site: &Site, name: &str, key: &PublicKey) -> PathBuf {
    let file = site.dir.path().join(name);
    fs::write(&file, key.to_pem()).expect("writes");
    file
}

/// A broker from its start to its end.
async fn run(site: &Site, more: &str) -> PathBuf {
    let config = site.config(more);
    let broker = Process::serve(&config);
    let client = Client::unix(site.socket()).await.expect("listens");
    for _ in 0..3 {
        client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect("a key");
    }
    broker.signal(Signal::TERM);
    let ended = tokio::task::spawn_blocking(move || broker.wait()).await.expect("waits");
    assert!(ended.success(), "{ended}");
    config
}

fn verify(config: &Path, keys: &[&PathBuf]) -> Output {
    let mut verify = command();
    verify.args(["audit", "verify", "--config"]).arg(config);
    for key in keys {
        verify.arg("--public-key").arg(key);
    }
    verify.arg("--record-to").arg(config.with_file_name("reader-records"));
    verify.output().expect("runs")
}
