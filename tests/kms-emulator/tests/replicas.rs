//! Proves that a replica of a multi-Region key is the same key in another region: what one encrypts the other decrypts, each has a state
//! of its own, and no other key has replicas.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::time::Duration;

use kms_emulator::{Emulator, EmulatorConfig, KeySpec};
use serde_json::json;

use support::Client;

#[tokio::test]
async fn a_replica_decrypts_what_its_primary_encrypted_and_back() {
    let west = Emulator::start(EmulatorConfig::default()).await.unwrap();
    let config = EmulatorConfig { region: "us-east-1".into(), ..EmulatorConfig::default() };
    let east = Emulator::start(config).await.unwrap();
    let primary = west.ensure_multi_region_key("alias/global").unwrap();
    let replica = west.replicate_key("alias/global", &east).unwrap();
    assert_eq!(replica, primary.replace("us-west-2", "us-east-1"));

    let mut at_west = Client::connect(&west.endpoint_url()).await;
    let mut at_east = Client::connect(&east.endpoint_url()).await;
    let made = at_west.call("GenerateDataKey", json!({ "KeyId": primary, "KeySpec": "AES_256" })).await;
    let blob = json!({ "CiphertextBlob": made.text("CiphertextBlob"), "KeyId": replica });
    let opened = at_east.call("Decrypt", blob).await;
    assert_eq!(opened.bytes("Plaintext"), made.bytes("Plaintext"));
    assert_eq!(opened.text("KeyId"), replica);
    let asked_elsewhere = at_east.call("DescribeKey", json!({ "KeyId": primary })).await;
    assert_eq!(asked_elsewhere.error(), "NotFoundException", "an ARN is of its region");

    west.set_enabled(&primary, false).unwrap();
    let made = at_east.call("GenerateDataKey", json!({ "KeyId": replica, "KeySpec": "AES_256" })).await;
    let described = at_east.call("DescribeKey", json!({ "KeyId": replica })).await.json();
    assert_eq!(described["KeyMetadata"]["MultiRegionConfiguration"]["MultiRegionKeyType"], "REPLICA");
    let blob = json!({ "CiphertextBlob": made.text("CiphertextBlob") });
    assert_eq!(at_west.call("Decrypt", blob).await.error(), "DisabledException", "each has its own state");
}

#[tokio::test]
async fn a_replica_is_taken_away_alone() {
    let west = Emulator::start(EmulatorConfig::default()).await.unwrap();
    let config = EmulatorConfig { region: "us-east-1".into(), ..EmulatorConfig::default() };
    let east = Emulator::start(config).await.unwrap();
    let primary = west.ensure_multi_region_key("alias/global").unwrap();
    let replica = west.replicate_key("alias/global", &east).unwrap();
    let mut at_west = Client::connect(&west.endpoint_url()).await;
    let mut at_east = Client::connect(&east.endpoint_url()).await;
    let mint = |key: &str| json!({ "KeyId": key, "KeySpec": "AES_256" });
    for (operation, error) in
        [("DisableKey", "DisabledException"), ("ScheduleKeyDeletion", "KMSInvalidStateException")]
    {
        at_east.call(operation, json!({ "KeyId": replica })).await;
        assert_eq!(at_east.call("GenerateDataKey", mint(&replica)).await.error(), error);
        assert_eq!(at_west.call("GenerateDataKey", mint(&primary)).await.outcome(), "ok");
    }
    east.advance(Duration::from_hours(30 * 24)).unwrap();
    assert_eq!(at_east.call("GenerateDataKey", mint(&replica)).await.error(), "NotFoundException");
    assert_eq!(at_west.call("GenerateDataKey", mint(&primary)).await.outcome(), "ok");
}

#[tokio::test]
async fn only_multi_region_keys_have_replicas() {
    let west = Emulator::start(EmulatorConfig::default()).await.unwrap();
    let config = EmulatorConfig { region: "us-east-1".into(), ..EmulatorConfig::default() };
    let east = Emulator::start(config).await.unwrap();
    west.ensure_key("alias/local", KeySpec::SymmetricDefault).unwrap();
    assert!(west.replicate_key("alias/local", &east).is_err());
    west.ensure_multi_region_key("alias/global").unwrap();
    west.replicate_key("alias/global", &east).unwrap();
    assert!(west.replicate_key("alias/global", &east).is_err(), "there is one already");
    assert!(west.ensure_multi_region_key("alias/local").is_err());
}
