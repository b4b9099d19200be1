//! Proves that keys, aliases and states survive a restart in one private file, and that the file has one owner.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use kms_emulator::{Emulator, EmulatorConfig, EmulatorError, KeySpec};
use serde_json::json;

use support::{Client, base64};

fn config(path: &Path) -> EmulatorConfig {
    EmulatorConfig { state_file: Some(path.to_owned()), ..EmulatorConfig::default() }
}

#[tokio::test]
async fn a_restart_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kms.json");
    let emulator = Emulator::start(config(&path)).await.unwrap();
    let arn = emulator.ensure_key("alias/one", KeySpec::SymmetricDefault).unwrap();
    let signing = emulator.ensure_key("alias/signing", KeySpec::Rsa2048).unwrap();
    let mut client = Client::connect(&emulator.endpoint_url()).await;
    let request =
        json!({ "KeyId": "alias/one", "Plaintext": base64(b"kept"), "EncryptionContext": { "a": "b" } });
    let blob = client.call("Encrypt", request).await.text("CiphertextBlob");
    let public_key = client.call("GetPublicKey", json!({ "KeyId": signing })).await.bytes("PublicKey");
    client.call("ScheduleKeyDeletion", json!({ "KeyId": signing })).await;
    let before = client.call("DescribeKey", json!({ "KeyId": signing })).await.body;
    emulator.shutdown().await;

    let emulator = Emulator::start(config(&path)).await.unwrap();
    assert_eq!(emulator.ensure_key("alias/one", KeySpec::SymmetricDefault).unwrap(), arn);
    let mut client = Client::connect(&emulator.endpoint_url()).await;
    let request = json!({ "CiphertextBlob": blob, "EncryptionContext": { "a": "b" } });
    assert_eq!(client.call("Decrypt", request).await.bytes("Plaintext"), b"kept");
    assert_eq!(client.call("DescribeKey", json!({ "KeyId": signing })).await.body, before);
    client.call("CancelKeyDeletion", json!({ "KeyId": signing })).await;
    client.call("EnableKey", json!({ "KeyId": signing })).await;
    assert_eq!(client.call("GetPublicKey", json!({ "KeyId": signing })).await.bytes("PublicKey"), public_key);
}

#[tokio::test]
async fn only_the_owner_reads_the_file_and_nothing_is_left_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kms.json");
    let emulator = Emulator::start(config(&path)).await.unwrap();
    for alias in ["alias/a", "alias/b"] {
        emulator.ensure_key(alias, KeySpec::SymmetricDefault).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    emulator.shutdown().await;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let _emulator = Emulator::start(config(&path)).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "made private again");
    let names: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["kms.json"]);
}

#[tokio::test]
async fn conditions_are_kept_and_a_file_without_them_opens() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kms.json");
    let emulator = Emulator::start(config(&path)).await.unwrap();
    let arn = emulator.ensure_key("alias/a", KeySpec::SymmetricDefault).unwrap();
    let before = std::fs::read_to_string(&path).unwrap();
    assert!(!before.contains("attestation"), "as files were before there were conditions: {before}");
    let value = "0a".repeat(48);
    emulator.require_attestation("alias/a", &[("kms:RecipientAttestation:PCR8", &value)]).unwrap();
    emulator.shutdown().await;

    let emulator = Emulator::start(config(&path)).await.unwrap();
    let mut client = Client::connect(&emulator.endpoint_url()).await;
    let request = json!({ "KeyId": arn, "KeySpec": "AES_256" });
    let refused = client.call("GenerateDataKey", request.clone()).await;
    assert_eq!(refused.error(), "AccessDeniedException");
    drop(client);
    emulator.shutdown().await;

    std::fs::write(&path, before).unwrap();
    let emulator = Emulator::start(config(&path)).await.unwrap();
    let mut client = Client::connect(&emulator.endpoint_url()).await;
    assert_eq!(client.call("GenerateDataKey", request).await.bytes("Plaintext").len(), 32);
}

#[tokio::test]
async fn a_second_emulator_on_the_file_is_refused_until_the_first_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kms.json");
    let first = Emulator::start(config(&path)).await.unwrap();
    first.ensure_key("alias/a", KeySpec::SymmetricDefault).unwrap();
    let refused = Emulator::start(config(&path)).await.unwrap_err().to_string();
    assert!(refused.ends_with("another emulator has this state file"), "{refused}");
    drop(first);
    Emulator::start(config(&path)).await.unwrap();
}

#[tokio::test]
async fn a_change_that_cannot_be_kept_is_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sub/kms.json");
    std::fs::create_dir(directory.path().join("sub")).unwrap();
    let emulator = Emulator::start(config(&path)).await.unwrap();
    let arn = emulator.ensure_key("alias/a", KeySpec::SymmetricDefault).unwrap();
    std::fs::remove_dir_all(directory.path().join("sub")).unwrap();
    let mut client = Client::connect(&emulator.endpoint_url()).await;
    let failed = client.call("DisableKey", json!({ "KeyId": arn })).await;
    assert_eq!((failed.status.as_u16(), failed.error().as_str()), (500, "KMSInternalException"));
    let described = client.call("DescribeKey", json!({ "KeyId": arn })).await.json();
    assert_eq!(described["KeyMetadata"]["Enabled"], true);
}

#[tokio::test]
async fn a_file_of_another_account_or_of_no_emulator_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kms.json");
    Emulator::start(config(&path)).await.unwrap().shutdown().await;
    let other = EmulatorConfig { account_id: "999999999999".to_owned(), ..config(&path) };
    let refused = Emulator::start(other).await.unwrap_err().to_string();
    assert!(refused.ends_with("it belongs to region us-west-2 and account 111122223333"), "{refused}");
    std::fs::write(&path, "{}").unwrap();
    assert!(matches!(Emulator::start(config(&path)).await, Err(EmulatorError::State(_))));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{}", "left as it was");
}

#[tokio::test]
async fn a_link_in_the_files_place_is_refused_and_its_target_left_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("target"), "precious").unwrap();
    std::fs::set_permissions(at("target"), Permissions::from_mode(0o644)).unwrap();
    std::os::unix::fs::symlink(at("target"), at("link")).unwrap();
    std::fs::hard_link(at("target"), at("second")).unwrap();
    for name in ["link", "second"] {
        assert!(matches!(Emulator::start(config(&at(name))).await, Err(EmulatorError::State(_))), "{name}");
    }
    assert_eq!(std::fs::metadata(at("target")).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(std::fs::read_to_string(at("target")).unwrap(), "precious");
}

#[tokio::test]
async fn an_account_is_12_digits_and_a_region_a_name() {
    for (account_id, region) in
        [("1111", "us-west-2"), ("11112222333x", "us-west-2"), ("111122223333", "us:west")]
    {
        let config = EmulatorConfig {
            account_id: account_id.to_owned(),
            region: region.to_owned(),
            ..EmulatorConfig::default()
        };
        assert!(
            matches!(Emulator::start(config).await, Err(EmulatorError::Account(_))),
            "{account_id} {region}"
        );
    }
}

#[tokio::test]
async fn it_listens_on_loopback_only() {
    let config = EmulatorConfig { listen: "0.0.0.0:0".parse().unwrap(), ..EmulatorConfig::default() };
    assert!(matches!(Emulator::start(config).await, Err(EmulatorError::NotLoopback(_))));
}

#[tokio::test]
async fn an_alias_keeps_its_key_and_its_spec() {
    let emulator = Emulator::start(EmulatorConfig::default()).await.unwrap();
    let arn = emulator.ensure_key("alias/a", KeySpec::Hmac256).unwrap();
    assert_eq!(emulator.ensure_key("alias/a", KeySpec::Hmac256).unwrap(), arn);
    assert!(emulator.ensure_key("alias/a", KeySpec::SymmetricDefault).is_err());
    for name in ["a", "alias/", "alias/aws/x", "alias/ä"] {
        assert!(emulator.ensure_key(name, KeySpec::Hmac256).is_err(), "{name}");
    }
}
