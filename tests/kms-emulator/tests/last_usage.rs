//! Proves that `GetKeyLastUsage` tells of the last successful use of each key: which operation, when, by which request, after a delay,
//! and of dry runs if it is told so.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::time::Duration;

use http::Method;
use kms_emulator::{EmulatorConfig, KeySpec};
use serde_json::{Value, json};

use support::{ALIAS, Client, base64, start};

async fn last(client: &mut Client, key: &str) -> Value {
    client.call("GetKeyLastUsage", json!({ "KeyId": key })).await.json()["KeyLastUsage"].clone()
}

#[tokio::test]
async fn each_use_is_told_by_the_ids_of_its_call() {
    let (emulator, mut client, arn) = start().await;
    let other = emulator.ensure_key("alias/other", KeySpec::SymmetricDefault).unwrap();
    let signing = emulator.ensure_key("alias/signing", KeySpec::Rsa2048).unwrap();
    let unused = client.call("GetKeyLastUsage", json!({ "KeyId": arn })).await;
    assert_eq!((unused.text("KeyId"), &unused.json()["KeyLastUsage"]), (arn.clone(), &json!({})));
    assert_eq!(unused.json()["TrackingStartDate"], unused.json()["KeyCreationDate"], "as old as the key");
    let blob = client
        .call("Encrypt", json!({ "KeyId": ALIAS, "Plaintext": base64(b"x") }))
        .await
        .text("CiphertextBlob");
    for (operation, key, request) in [
        ("GenerateDataKey", &arn, json!({ "KeyId": ALIAS, "KeySpec": "AES_256" })),
        ("GenerateDataKeyWithoutPlaintext", &arn, json!({ "KeyId": ALIAS, "KeySpec": "AES_256" })),
        ("GenerateDataKeyPair", &arn, json!({ "KeyId": ALIAS, "KeyPairSpec": "ECC_NIST_P256" })),
        ("Encrypt", &arn, json!({ "KeyId": ALIAS, "Plaintext": base64(b"x") })),
        ("Decrypt", &arn, json!({ "CiphertextBlob": blob })),
        ("ReEncrypt", &other, json!({ "CiphertextBlob": blob, "DestinationKeyId": other })),
        (
            "Sign",
            &signing,
            json!({ "KeyId": signing, "Message": "AAAA", "SigningAlgorithm": "RSASSA_PSS_SHA_256" }),
        ),
    ] {
        let reply = client.call(operation, request).await;
        assert_eq!(reply.outcome(), "ok", "{operation}");
        let (told, call) = (last(&mut client, key).await, emulator.calls().into_iter().rev().nth(1).unwrap());
        assert_eq!(
            (&told["Operation"], &told["KmsRequestId"]),
            (&json!(operation), &json!(reply.request_id()))
        );
        assert_eq!(told["CloudTrailEventId"], call.event_id, "{operation}");
        let at = Duration::from_secs_f64(told["Timestamp"].as_f64().unwrap());
        assert!(at.abs_diff(Duration::from_millis(call.at)) < Duration::from_secs(5), "{told}");
    }
    assert_eq!(last(&mut client, &arn).await["Operation"], "ReEncrypt", "it has two keys");
}

#[tokio::test]
async fn what_is_no_successful_use_is_not_told() {
    let (emulator, mut client, arn) = start().await;
    for (operation, request) in [
        ("GenerateDataKey", json!({ "KeyId": ALIAS, "KeySpec": "AES_256", "DryRun": true })),
        ("Decrypt", json!({ "CiphertextBlob": "AAAA", "KeyId": ALIAS })),
        ("Decrypt", json!({ "KeyId": ALIAS, "DryRun": true, "DryRunModifiers": ["IGNORE_CIPHERTEXT"] })),
        ("DescribeKey", json!({ "KeyId": ALIAS })),
    ] {
        client.call(operation, request).await;
        assert_eq!(last(&mut client, &arn).await, json!({}), "{operation}");
    }
    assert_eq!(
        client.call("GetKeyLastUsage", json!({ "KeyId": ALIAS })).await.error(),
        "NotFoundException",
        "no alias"
    );
    emulator.track_last_usage(Duration::ZERO, true);
    let dry =
        client.call("GenerateDataKey", json!({ "KeyId": ALIAS, "KeySpec": "AES_256", "DryRun": true })).await;
    assert_eq!(last(&mut client, &arn).await["KmsRequestId"], dry.request_id());
    emulator.set_enabled(ALIAS, false).unwrap();
    client.call("Encrypt", json!({ "KeyId": ALIAS, "Plaintext": base64(b"x"), "DryRun": true })).await;
    assert_eq!(
        last(&mut client, &arn).await["Operation"],
        "GenerateDataKey",
        "a dry run that is refused is none"
    );
}

#[tokio::test]
async fn a_use_is_told_after_a_delay() {
    let (emulator, mut client, arn) = start().await;
    let tracking = json!({ "delay_seconds": 3_600, "dry_runs": false });
    let shown = client.send(Method::PUT, "/_emulator/last-usage", &[], &tracking.to_string()).await.unwrap();
    assert_eq!(shown.json(), tracking);
    let mint = json!({ "KeyId": ALIAS, "KeySpec": "AES_256" });
    let first = client.call("GenerateDataKey", mint.clone()).await;
    emulator.advance(Duration::from_mins(30)).unwrap();
    let second = client.call("GenerateDataKey", mint).await;
    assert_eq!(last(&mut client, &arn).await, json!({}));
    let advance = json!({ "advance_seconds": 1_801 }).to_string();
    client.send(Method::PUT, "/_emulator/clock", &[], &advance).await.unwrap();
    assert_eq!(last(&mut client, &arn).await["KmsRequestId"], first.request_id());
    emulator.advance(Duration::from_secs(1_801)).unwrap();
    assert_eq!(last(&mut client, &arn).await["KmsRequestId"], second.request_id());
}

#[tokio::test]
async fn a_restart_forgets_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let config =
        EmulatorConfig { state_file: Some(directory.path().join("kms.json")), ..EmulatorConfig::default() };
    let emulator = kms_emulator::Emulator::start(config.clone()).await.unwrap();
    let arn = emulator.ensure_key(ALIAS, KeySpec::SymmetricDefault).unwrap();
    let mut client = Client::connect(&emulator.endpoint_url()).await;
    client.call("GenerateDataKey", json!({ "KeyId": ALIAS, "KeySpec": "AES_256" })).await;
    emulator.shutdown().await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let emulator = kms_emulator::Emulator::start(config).await.unwrap();
    let mut client = Client::connect(&emulator.endpoint_url()).await;
    let told = client.call("GetKeyLastUsage", json!({ "KeyId": arn })).await.json();
    assert_eq!(told["KeyLastUsage"], json!({}));
    assert!(told["TrackingStartDate"].as_f64() > told["KeyCreationDate"].as_f64(), "{told}");
}
