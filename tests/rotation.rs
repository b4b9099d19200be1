//! Proves: signing key and trail key are changed as docs/audit.md says ("Changing keys"), under one trail, which is sound to whoever has
//! both public keys and may decrypt under both. And: a KMS key is rotated under a running broker; what was sealed before opens, the trail is
//! sound, and `audit find` shows which material each call used.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use key_broker_client::{Client, Decrypt, GenerateDataKey};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_is_followed_by_verify_and_find() {
    let site = Site::new().await;
    let public_key = keep(&site, "public.pem", &site.key);
    let config = site.config("");
    let broker = Process::serve(&config);
    let client = Client::unix(site.socket()).await.expect("listens");
    let request = |tenant: &str| GenerateDataKey::aes_256("alias/dev").context("tenant", tenant);
    let old = client.generate_data_key(request("acme")).await.expect("a key");
    let rotated = site.emulator.rotate_key("alias/dev").expect("rotates");
    let new = client.generate_data_key(request("umbrella")).await.expect("a key");
    assert_eq!(new.key_material_id, rotated);
    assert_ne!(old.key_material_id, new.key_material_id);
    for (sealed, tenant) in [(&old, "acme"), (&new, "umbrella")] {
        let decrypt = Decrypt::new(sealed.ciphertext_blob.clone()).context("tenant", tenant);
        let opened = client.decrypt(decrypt).await.expect("opens");
        assert_eq!(opened.key_material_id, sealed.key_material_id, "the one that it was sealed with");
    }
    let found = command()
        .args(["audit", "find", &old.provenance.kms_request_id, "--config"])
        .arg(&config)
        .output()
        .expect("runs");
    let found = text(&found.stdout);
    let told =
        found.lines().filter(|line| line.contains("key material") && line.contains(&old.key_material_id));
    assert_eq!(told.count(), 2, "of the call that made it, and of the one that opened it: {found}");
    broker.signal(Signal::TERM);
    let ended = tokio::task::spawn_blocking(move || broker.wait()).await.expect("waits");
    assert!(ended.success(), "{ended}");
    let verified = verify(&config, &[&public_key]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stdout));
    assert!(!text(&verified.stdout).contains("Material"), "{}", text(&verified.stdout));
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
