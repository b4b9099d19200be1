//! Proves the life of a key and of an alias: made, listed, disabled, scheduled for deletion, moved, removed.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::time::Duration;

use http::StatusCode;
use kms_emulator::KeySpec;
use serde_json::{Value, json};

use support::{ALIAS, Client, base64, start};

async fn metadata(client: &mut Client, key_id: &str) -> Value {
    client.call("DescribeKey", json!({ "KeyId": key_id })).await.json()["KeyMetadata"].clone()
}

#[tokio::test]
async fn a_key_is_described_as_aws_does() {
    let (_emulator, mut client, arn) = start().await;
    let described = metadata(&mut client, ALIAS).await;
    assert_eq!(described["Arn"], arn);
    for (member, value) in [
        ("AWSAccountId", json!("111122223333")),
        ("Enabled", json!(true)),
        ("KeyState", json!("Enabled")),
        ("KeyUsage", json!("ENCRYPT_DECRYPT")),
        ("KeySpec", json!("SYMMETRIC_DEFAULT")),
        ("CustomerMasterKeySpec", json!("SYMMETRIC_DEFAULT")),
        ("EncryptionAlgorithms", json!(["SYMMETRIC_DEFAULT"])),
        ("Origin", json!("AWS_KMS")),
        ("KeyManager", json!("CUSTOMER")),
        ("MultiRegion", json!(false)),
        ("Description", json!("")),
    ] {
        assert_eq!(described[member], value, "{member}");
    }
    assert!(described["CreationDate"].as_f64().unwrap() > 1.7e9, "seconds, not milliseconds");
}

#[tokio::test]
async fn a_key_goes_through_its_states() {
    let (_emulator, mut client, arn) = start().await;
    let by_arn = json!({ "KeyId": arn });
    assert_eq!(client.call("DisableKey", by_arn.clone()).await.body, "");
    assert_eq!(metadata(&mut client, ALIAS).await["KeyState"], "Disabled");
    client.call("EnableKey", by_arn.clone()).await;
    assert_eq!(metadata(&mut client, ALIAS).await["KeyState"], "Enabled");
    let early = client.call("CancelKeyDeletion", by_arn.clone()).await;
    assert_eq!(early.error(), "KMSInvalidStateException");

    let scheduled = client.call("ScheduleKeyDeletion", by_arn.clone()).await.json();
    assert_eq!(
        (&scheduled["KeyState"], &scheduled["PendingWindowInDays"]),
        (&json!("PendingDeletion"), &json!(30))
    );
    assert_eq!(metadata(&mut client, ALIAS).await["DeletionDate"], scheduled["DeletionDate"]);
    for operation in ["EnableKey", "DisableKey", "ScheduleKeyDeletion"] {
        assert_eq!(client.call(operation, by_arn.clone()).await.error(), "KMSInvalidStateException");
    }
    assert_eq!(client.call("CancelKeyDeletion", by_arn).await.text("KeyId"), arn);
    assert_eq!(metadata(&mut client, ALIAS).await["KeyState"], "Disabled");
}

#[tokio::test]
async fn a_key_is_gone_when_its_deletion_date_comes() {
    let (emulator, mut client, arn) = start().await;
    let request = json!({ "KeyId": arn, "PendingWindowInDays": 7 });
    client.call("ScheduleKeyDeletion", request).await.text("KeyId");
    emulator.advance(Duration::from_mins(7 * 24 * 60 - 1)).unwrap();
    assert_eq!(metadata(&mut client, ALIAS).await["KeyState"], "PendingDeletion");
    emulator.advance(Duration::from_mins(1)).unwrap();
    for key in [ALIAS, &arn] {
        let request = json!({ "KeyId": key, "KeySpec": "AES_256" });
        assert_eq!(client.call("GenerateDataKey", request).await.error(), "NotFoundException", "{key}");
    }
}

#[tokio::test]
async fn the_window_of_a_deletion_is_7_to_30_days() {
    let (_emulator, mut client, arn) = start().await;
    for days in [0, 6, 31, 366] {
        let request = json!({ "KeyId": arn, "PendingWindowInDays": days });
        assert_eq!(
            client.call("ScheduleKeyDeletion", request).await.error(),
            "ValidationException",
            "{days}"
        );
    }
}

#[tokio::test]
async fn states_are_changed_by_key_id_not_by_alias() {
    let (_emulator, mut client, _) = start().await;
    let reply = client.call("DisableKey", json!({ "KeyId": ALIAS })).await;
    assert_eq!(
        (reply.error().as_str(), reply.message().as_str()),
        ("NotFoundException", "Invalid keyId 'alias/test'")
    );
}

#[tokio::test]
async fn a_key_is_made_of_what_is_asked() {
    let (_emulator, mut client, _) = start().await;
    let made = client
        .call(
            "CreateKey",
            json!({ "KeySpec": "RSA_2048", "KeyUsage": "SIGN_VERIFY", "Description": "for tests" }),
        )
        .await
        .json();
    assert_eq!(made["KeyMetadata"]["Description"], "for tests");
    assert_eq!(made["KeyMetadata"]["SigningAlgorithms"].as_array().unwrap().len(), 6);
    for (request, error) in [
        (json!({ "KeySpec": "RSA_2048" }), "ValidationException"),
        (json!({ "KeySpec": "HMAC_256", "KeyUsage": "ENCRYPT_DECRYPT" }), "ValidationException"),
        (json!({ "KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "SIGN_VERIFY" }), "ValidationException"),
        (json!({ "KeySpec": "RSA_1024", "KeyUsage": "SIGN_VERIFY" }), "ValidationException"),
        (json!({ "KeySpec": "RSA_2048", "KeyUsage": "ENCRYPT_DECRYPT" }), "UnsupportedOperationException"),
        (json!({ "KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY" }), "UnsupportedOperationException"),
        (json!({ "Origin": "AWS_CLOUDHSM" }), "UnsupportedOperationException"),
        (json!({ "Origin": "EXTERNAL", "MultiRegion": true }), "UnsupportedOperationException"),
    ] {
        assert_eq!(client.call("CreateKey", request.clone()).await.error(), error, "{request}");
    }
}

#[tokio::test]
async fn an_alias_is_made_moved_and_removed() {
    let (emulator, mut client, first) = start().await;
    let second = emulator.ensure_key("alias/second", KeySpec::SymmetricDefault).unwrap();
    let moving = |target: &str| json!({ "AliasName": "alias/moving", "TargetKeyId": target });
    assert_eq!(client.call("UpdateAlias", moving(&first)).await.error(), "NotFoundException");
    assert_eq!(client.call("CreateAlias", moving(&first)).await.status, StatusCode::OK);
    assert_eq!(client.call("CreateAlias", moving(&first)).await.error(), "AlreadyExistsException");
    let request = json!({ "KeyId": "alias/moving", "Plaintext": base64(b"x") });
    let blob = client.call("Encrypt", request).await.text("CiphertextBlob");
    client.call("UpdateAlias", moving(&second)).await;
    let decrypt = json!({ "KeyId": "alias/moving", "CiphertextBlob": blob });
    assert_eq!(
        client.call("Decrypt", decrypt).await.error(),
        "IncorrectKeyException",
        "resolved before it is compared"
    );
    assert_eq!(
        client.call("DeleteAlias", json!({ "AliasName": "alias/moving" })).await.status,
        StatusCode::OK
    );
    assert_eq!(
        client.call("DescribeKey", json!({ "KeyId": "alias/moving" })).await.error(),
        "NotFoundException"
    );
}

#[tokio::test]
async fn alias_names_are_aws_names() {
    let (_emulator, mut client, arn) = start().await;
    for (name, error) in [
        ("test", "ValidationException"),
        ("alias/", "ValidationException"),
        ("alias/a b", "ValidationException"),
        ("alias/a:b", "ValidationException"),
        ("alias/aws/s3", "NotAuthorizedException"),
    ] {
        let request = json!({ "AliasName": name, "TargetKeyId": arn });
        assert_eq!(client.call("CreateAlias", request).await.error(), error, "{name}");
    }
    let chain = json!({ "AliasName": "alias/chain", "TargetKeyId": ALIAS });
    assert_eq!(client.call("CreateAlias", chain).await.message(), "Aliases must refer to keys. Not aliases");
}

#[tokio::test]
async fn a_key_has_at_most_50_aliases() {
    let (_emulator, mut client, arn) = start().await;
    for number in 1..50 {
        let request = json!({ "AliasName": format!("alias/n{number}"), "TargetKeyId": arn });
        assert_eq!(client.call("CreateAlias", request).await.status, StatusCode::OK, "{number}");
    }
    let request = json!({ "AliasName": "alias/n50", "TargetKeyId": arn });
    assert_eq!(client.call("CreateAlias", request).await.error(), "LimitExceededException");
}

#[tokio::test]
async fn lists_come_in_pages() {
    let (emulator, mut client, first) = start().await;
    for alias in ["alias/b", "alias/c"] {
        emulator.ensure_key(alias, KeySpec::SymmetricDefault).unwrap();
    }
    let mut keys = Vec::new();
    let mut request = json!({ "Limit": 1 });
    loop {
        let page = client.call("ListKeys", request.clone()).await.json();
        keys.extend(
            page["Keys"].as_array().unwrap().iter().map(|key| key["KeyArn"].as_str().unwrap().to_owned()),
        );
        if page["Truncated"] == false {
            break;
        }
        request["Marker"] = page["NextMarker"].clone();
    }
    assert_eq!(keys.len(), 3);
    assert!(keys.contains(&first));
    let all = client.call("ListAliases", json!({})).await.json();
    assert_eq!(all["Aliases"].as_array().unwrap().len(), 3);
    let one = client.call("ListAliases", json!({ "KeyId": first })).await.json();
    assert_eq!(one["Aliases"][0]["AliasName"], ALIAS);
    assert_eq!(one["Aliases"].as_array().unwrap().len(), 1);
}
