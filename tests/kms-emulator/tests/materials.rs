//! Proves what becomes of key material: rotated, it opens what it sealed; imported, it expires, is deleted, and comes back only as the
//! same; and that all of it survives a restart.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::time::Duration;

use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use kms_emulator::{Emulator, EmulatorConfig, KeySpec};
use serde_json::{Value, json};

use support::{ALIAS, Client, base64, start};

const MATERIAL: [u8; 32] = [7; 32];

async fn metadata(client: &mut Client, key_id: &str) -> Value {
    client.call("DescribeKey", json!({ "KeyId": key_id })).await.json()["KeyMetadata"].clone()
}

async fn mint(client: &mut Client, key_id: &str) -> support::Reply {
    client.call("GenerateDataKey", json!({ "KeyId": key_id, "KeySpec": "AES_256" })).await
}

#[tokio::test]
async fn a_rotated_key_opens_what_it_sealed_before() {
    let directory = tempfile::tempdir().unwrap();
    let config =
        EmulatorConfig { state_file: Some(directory.path().join("kms.json")), ..EmulatorConfig::default() };
    let emulator = Emulator::start(config.clone()).await.unwrap();
    let arn = emulator.ensure_key(ALIAS, KeySpec::SymmetricDefault).unwrap();
    let mut client = Client::connect(&emulator.endpoint_url()).await;
    let old = mint(&mut client, ALIAS).await;
    assert_eq!(client.call("RotateKeyOnDemand", json!({ "KeyId": arn })).await.text("KeyId"), arn);
    let new = mint(&mut client, ALIAS).await;
    assert_ne!(old.text("KeyMaterialId"), new.text("KeyMaterialId"));
    assert_eq!(metadata(&mut client, ALIAS).await["CurrentKeyMaterialId"], new.text("KeyMaterialId"));
    let third = emulator.rotate_key(ALIAS).unwrap();
    assert_eq!(mint(&mut client, ALIAS).await.text("KeyMaterialId"), third);
    emulator.shutdown().await;
    let emulator = Emulator::start(config).await.unwrap();
    let mut client = Client::connect(&emulator.endpoint_url()).await;
    for made in [old, new] {
        let opened = client.call("Decrypt", json!({ "CiphertextBlob": made.text("CiphertextBlob") })).await;
        assert_eq!(opened.bytes("Plaintext"), made.bytes("Plaintext"));
        assert_eq!(
            opened.text("KeyMaterialId"),
            made.text("KeyMaterialId"),
            "the one that it was sealed with"
        );
        let request = json!({ "CiphertextBlob": made.text("CiphertextBlob"), "DestinationKeyId": ALIAS });
        let moved = client.call("ReEncrypt", request).await;
        assert_eq!(moved.text("SourceKeyMaterialId"), made.text("KeyMaterialId"));
        assert_eq!(moved.text("DestinationKeyMaterialId"), third);
    }
    emulator.set_enabled(ALIAS, false).unwrap();
    assert!(emulator.rotate_key(ALIAS).is_err());
    emulator.ensure_key("alias/rsa", KeySpec::Rsa2048).unwrap();
    assert!(emulator.rotate_key("alias/rsa").is_err());
    emulator.ensure_multi_region_key("alias/global").unwrap();
    assert!(emulator.rotate_key("alias/global").is_err());
}

/// Imports [`MATERIAL`] or another by KMS's own operations.
async fn import(client: &mut Client, key: &str, material: &[u8], more: Value) -> support::Reply {
    let request =
        json!({ "KeyId": key, "WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048" });
    let offered = client.call("GetParametersForImport", request).await;
    let public_key = PublicEncryptingKey::from_der(&offered.bytes("PublicKey")).unwrap();
    let public_key = OaepPublicEncryptingKey::new(public_key).unwrap();
    let mut wrapped = vec![0; public_key.ciphertext_size()];
    public_key.encrypt(&OAEP_SHA256_MGF1SHA256, material, &mut wrapped, None).unwrap();
    let mut request = json!({ "KeyId": key, "ImportToken": offered.text("ImportToken"), "EncryptedKeyMaterial": base64(&wrapped) });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    client.call("ImportKeyMaterial", request).await
}

#[tokio::test]
async fn imported_material_is_taken_away_and_brought_back() {
    let (_emulator, mut client, aws) = start().await;
    let made = client.call("CreateKey", json!({ "Origin": "EXTERNAL" })).await.json();
    let key = made["KeyMetadata"]["Arn"].as_str().unwrap().to_owned();
    assert_eq!(
        (&made["KeyMetadata"]["KeyState"], &made["KeyMetadata"]["Enabled"]),
        (&json!("PendingImport"), &json!(false))
    );
    let pending = mint(&mut client, &key).await;
    assert_eq!(
        (pending.error(), pending.message()),
        ("KMSInvalidStateException".into(), format!("{key} is pending import."))
    );
    assert_eq!(client.call("DisableKey", json!({ "KeyId": key })).await.error(), "KMSInvalidStateException");

    let forever = json!({ "ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE" });
    let id = import(&mut client, &key, &MATERIAL, forever.clone()).await.text("KeyMaterialId");
    let sealed = mint(&mut client, &key).await;
    assert_eq!(sealed.text("KeyMaterialId"), id);
    let described = metadata(&mut client, &key).await;
    assert_eq!((&described["Origin"], &described["KeyState"]), (&json!("EXTERNAL"), &json!("Enabled")));
    assert_eq!(described["ExpirationModel"], "KEY_MATERIAL_DOES_NOT_EXPIRE");
    assert_eq!(
        client.call("DeleteImportedKeyMaterial", json!({ "KeyId": key })).await.text("KeyMaterialId"),
        id
    );
    let decrypt = json!({ "CiphertextBlob": sealed.text("CiphertextBlob") });
    assert_eq!(client.call("Decrypt", decrypt.clone()).await.error(), "KMSInvalidStateException");
    let other = import(&mut client, &key, &[8; 32], forever.clone()).await;
    assert_eq!(other.error(), "IncorrectKeyMaterialException", "always the same");
    assert_eq!(import(&mut client, &key, &MATERIAL, forever).await.text("KeyMaterialId"), id);
    assert_eq!(client.call("Decrypt", decrypt).await.bytes("Plaintext"), sealed.bytes("Plaintext"));
    assert_eq!(
        client.call("DeleteImportedKeyMaterial", json!({ "KeyId": aws })).await.error(),
        "UnsupportedOperationException"
    );
}

#[tokio::test]
async fn imported_material_expires() {
    let directory = tempfile::tempdir().unwrap();
    let config =
        EmulatorConfig { state_file: Some(directory.path().join("kms.json")), ..EmulatorConfig::default() };
    let emulator = Emulator::start(config.clone()).await.unwrap();
    let key = emulator.ensure_external_key(ALIAS).unwrap();
    let id = emulator.import_material(ALIAS, &MATERIAL, Some(Duration::from_hours(1))).unwrap();
    let mut client = Client::connect(&emulator.endpoint_url()).await;
    assert_eq!(mint(&mut client, ALIAS).await.text("KeyMaterialId"), id);
    let valid_to = metadata(&mut client, ALIAS).await["ValidTo"].as_f64().unwrap();
    emulator.advance(Duration::from_secs(3_500)).unwrap();
    assert_eq!(mint(&mut client, ALIAS).await.outcome(), "ok");
    emulator.advance(Duration::from_secs(100)).unwrap();
    assert_eq!(mint(&mut client, ALIAS).await.error(), "KMSInvalidStateException");
    assert_eq!(metadata(&mut client, ALIAS).await["KeyState"], "PendingImport");

    let late = import(&mut client, &key, &MATERIAL, json!({ "ValidTo": valid_to })).await;
    assert_eq!(late.error(), "ValidationException", "not in the future");
    import(&mut client, &key, &MATERIAL, json!({ "ValidTo": valid_to + 3_600.0 }))
        .await
        .text("KeyMaterialId");
    assert_eq!(mint(&mut client, ALIAS).await.outcome(), "ok");
    emulator.shutdown().await;
    let emulator = Emulator::start(config).await.unwrap();
    let mut client = Client::connect(&emulator.endpoint_url()).await;
    assert_eq!(metadata(&mut client, ALIAS).await["ValidTo"], valid_to + 3_600.0);
    emulator.delete_material(ALIAS).unwrap();
    assert_eq!(mint(&mut client, ALIAS).await.error(), "KMSInvalidStateException");
    assert_eq!(emulator.import_material(ALIAS, &MATERIAL, None).unwrap(), id);
}

#[tokio::test]
async fn imports_that_are_none() {
    let (emulator, mut client, aws) = start().await;
    let key = emulator.ensure_external_key("alias/external").unwrap();
    let forever = json!({ "ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE" });
    for (more, error) in [
        (json!({}), "ValidationException"),
        (json!({ "ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE", "ValidTo": 4e9 }), "ValidationException"),
        (
            json!({ "ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE", "ImportToken": "AAAA" }),
            "InvalidImportTokenException",
        ),
        (
            json!({ "ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE", "EncryptedKeyMaterial": "AAAA" }),
            "InvalidCiphertextException",
        ),
    ] {
        assert_eq!(import(&mut client, &key, &MATERIAL, more.clone()).await.error(), error, "{more}");
    }
    assert_eq!(import(&mut client, &key, b"short", forever).await.error(), "IncorrectKeyMaterialException");
    let parameters = |key: &str, algorithm: &str, spec: &str| json!({ "KeyId": key, "WrappingAlgorithm": algorithm, "WrappingKeySpec": spec });
    for (request, error) in [
        (parameters(&aws, "RSAES_OAEP_SHA_256", "RSA_2048"), "UnsupportedOperationException"),
        (parameters(&key, "RSAES_OAEP_SHA_1", "RSA_2048"), "UnsupportedOperationException"),
        (parameters(&key, "NONE", "RSA_2048"), "ValidationException"),
        (parameters(&key, "RSAES_OAEP_SHA_256", "SM2"), "UnsupportedOperationException"),
    ] {
        assert_eq!(client.call("GetParametersForImport", request.clone()).await.error(), error, "{request}");
    }
}

#[tokio::test]
async fn what_an_import_is_wrapped_with_is_valid_for_a_day() {
    let (emulator, mut client, _) = start().await;
    let key = emulator.ensure_external_key("alias/external").unwrap();
    let request =
        json!({ "KeyId": key, "WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048" });
    let token = client.call("GetParametersForImport", request).await.text("ImportToken");
    emulator.advance(Duration::from_hours(24)).unwrap();
    let request = json!({ "KeyId": key, "ImportToken": token, "EncryptedKeyMaterial": "AAAA",
        "ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE" });
    assert_eq!(client.call("ImportKeyMaterial", request).await.error(), "ExpiredImportTokenException");
}
