//! Proves that a grant lets its grantee do what it says under the encryption context that it says, until it is revoked or retired.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]
#![expect(clippy::needless_pass_by_value, reason = "JSON is written where it is passed")]

mod support;

use kms_emulator::{Emulator, EmulatorConfig, KeySpec};
use serde_json::{Value, json};

use support::{ALIAS, Client, start};

const BROKER: &str = "arn:aws:iam::111122223333:role/broker";

/// A key whose policy lets the configured caller administer it and nobody use it.
async fn closed() -> (Emulator, Client, String, String) {
    let (emulator, mut client, arn) = start().await;
    close(&emulator);
    let broker = client.assume(BROKER).await;
    (emulator, client, arn, broker)
}

fn close(emulator: &Emulator) {
    let policy = json!({ "Statement": {
        "Effect": "Allow", "Principal": { "AWS": "arn:aws:iam::111122223333:role/key-broker-dev" },
        "Action": ["kms:*Grant*", "kms:Disable*", "kms:Enable*"], "Resource": "*",
    } });
    emulator.put_key_policy(ALIAS, &policy.to_string()).unwrap();
}

fn mint(context: Value) -> Value {
    json!({ "KeyId": ALIAS, "KeySpec": "AES_256", "EncryptionContext": context })
}

#[tokio::test]
async fn a_grant_lets_its_grantee_and_ends() {
    let (_emulator, mut client, arn, broker) = closed().await;
    let request =
        json!({ "KeyId": arn, "GranteePrincipal": BROKER, "Operations": ["GenerateDataKey", "DescribeKey"] });
    assert_eq!(
        client.call_as(&broker, "GenerateDataKey", mint(json!({}))).await.outcome(),
        "AccessDeniedException"
    );
    let mut dry = request.clone();
    dry["DryRun"] = true.into();
    assert_eq!(client.call("CreateGrant", dry.clone()).await.error(), "DryRunOperationException");
    assert_eq!(client.call_as(&broker, "CreateGrant", dry).await.error(), "AccessDeniedException");
    let made = client.call("CreateGrant", request).await;
    let id = made.text("GrantId");
    let mut with_token = mint(json!({ "a": "b" }));
    with_token["GrantTokens"] = json!([made.text("GrantToken")]);
    for request in [mint(json!({})), with_token] {
        assert_eq!(client.call_as(&broker, "GenerateDataKey", request).await.outcome(), "ok");
    }
    assert_eq!(client.call_as(&broker, "DescribeKey", json!({ "KeyId": arn })).await.outcome(), "ok");
    assert_eq!(
        client.call("GenerateDataKey", mint(json!({}))).await.outcome(),
        "AccessDeniedException",
        "not the grantee"
    );

    let by_id = json!({ "KeyId": arn, "GrantId": id });
    let mut dry = by_id.clone();
    dry["DryRun"] = true.into();
    assert_eq!(client.call("RevokeGrant", dry).await.error(), "DryRunOperationException");
    assert_eq!(client.call("ListGrants", json!({ "KeyId": arn })).await.json()["Grants"][0]["GrantId"], id);
    assert_eq!(client.call("RevokeGrant", by_id.clone()).await.outcome(), "ok");
    assert_eq!(
        client.call_as(&broker, "GenerateDataKey", mint(json!({}))).await.outcome(),
        "AccessDeniedException"
    );
    assert_eq!(client.call("RevokeGrant", by_id).await.error(), "NotFoundException");
    assert_eq!(client.call("ListGrants", json!({ "KeyId": arn })).await.json()["Grants"], json!([]));
}

#[tokio::test]
async fn a_grant_is_bound_to_an_encryption_context() {
    let (_emulator, mut client, arn, broker) = closed().await;
    for (constraint, allowed, denied) in [
        (
            "EncryptionContextEquals",
            [json!({ "a": "1" }), json!({ "a": "1" })],
            [json!({ "a": "1", "b": "2" }), json!({})],
        ),
        (
            "EncryptionContextSubset",
            [json!({ "a": "1" }), json!({ "a": "1", "b": "2" })],
            [json!({ "b": "2" }), json!({ "a": "2" })],
        ),
    ] {
        let request = json!({ "KeyId": arn, "GranteePrincipal": BROKER, "Operations": ["GenerateDataKey", "DescribeKey"],
            "Constraints": { constraint: { "a": "1" } } });
        let id = client.call("CreateGrant", request).await.text("GrantId");
        for context in allowed {
            assert_eq!(client.call_as(&broker, "GenerateDataKey", mint(context)).await.outcome(), "ok");
        }
        for context in denied {
            let reply = client.call_as(&broker, "GenerateDataKey", mint(context)).await;
            assert_eq!(reply.outcome(), "AccessDeniedException", "{constraint}");
        }
        assert_eq!(
            client.call_as(&broker, "DescribeKey", json!({ "KeyId": arn })).await.outcome(),
            "ok",
            "has no context"
        );
        let listed = client.call("ListGrants", json!({ "KeyId": arn, "GrantId": id })).await.json();
        assert_eq!(listed["Grants"][0]["Constraints"], json!({ constraint: { "a": "1" } }));
        client.call("RevokeGrant", json!({ "KeyId": arn, "GrantId": id })).await;
    }
}

#[tokio::test]
async fn a_grant_is_retired_by_whom_it_names() {
    let (_emulator, mut client, arn, broker) = closed().await;
    let auditor = client.assume("arn:aws:iam::111122223333:role/auditor").await;
    let request = |operations: Value| {
        json!({ "KeyId": arn, "GranteePrincipal": BROKER, "Operations": operations,
        "RetiringPrincipal": "arn:aws:iam::111122223333:role/auditor" })
    };
    let made = client.call("CreateGrant", request(json!(["Decrypt"]))).await;
    let by_token = json!({ "GrantToken": made.text("GrantToken") });
    assert_eq!(
        client.call_as(&broker, "RetireGrant", by_token.clone()).await.outcome(),
        "AccessDeniedException"
    );
    assert_eq!(client.call_as(&auditor, "RetireGrant", by_token.clone()).await.outcome(), "ok");
    assert_eq!(
        client.call_as(&auditor, "RetireGrant", by_token).await.outcome(),
        "InvalidGrantTokenException"
    );
    let made = client.call("CreateGrant", request(json!(["RetireGrant"]))).await;
    let by_id = json!({ "KeyId": arn, "GrantId": made.text("GrantId") });
    assert_eq!(client.call_as(&broker, "RetireGrant", by_id).await.outcome(), "ok", "the grant says so");
}

#[tokio::test]
async fn grants_that_are_none() {
    let (emulator, mut client, arn, _) = closed().await;
    let request = |grantee: &str, operations: Value, constraints: Value| {
        json!({ "KeyId": arn, "GranteePrincipal": grantee,
        "Operations": operations, "Constraints": constraints })
    };
    for (request, error) in [
        (request("broker", json!(["Decrypt"]), json!({})), "InvalidArnException"),
        (request(BROKER, json!(["Destroy"]), json!({})), "ValidationException"),
        (request(BROKER, json!(["Decrypt"]), json!({ "SourceArn": "x" })), "SerializationException"),
        (
            request(
                BROKER,
                json!(["Decrypt"]),
                json!({ "EncryptionContextEquals": {}, "EncryptionContextSubset": {} }),
            ),
            "ValidationException",
        ),
        (
            json!({ "KeyId": ALIAS, "GranteePrincipal": BROKER, "Operations": ["Decrypt"] }),
            "NotFoundException",
        ),
    ] {
        assert_eq!(client.call("CreateGrant", request.clone()).await.error(), error, "{request}");
    }
    emulator.set_enabled(ALIAS, false).unwrap();
    let request = request(BROKER, json!(["Decrypt"]), json!({}));
    assert_eq!(client.call("CreateGrant", request).await.error(), "DisabledException");
}

#[tokio::test]
async fn a_grant_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let config =
        EmulatorConfig { state_file: Some(directory.path().join("kms.json")), ..EmulatorConfig::default() };
    let emulator = Emulator::start(config.clone()).await.unwrap();
    let arn = emulator.ensure_key(ALIAS, KeySpec::SymmetricDefault).unwrap();
    close(&emulator);
    let mut client = Client::connect(&emulator.endpoint_url()).await;
    let request = json!({ "KeyId": arn, "GranteePrincipal": BROKER, "Operations": ["GenerateDataKey"], "Name": "kept",
        "Constraints": { "EncryptionContextSubset": { "a": "1" } } });
    client.call("CreateGrant", request).await.text("GrantId");
    let listed = client.call("ListGrants", json!({ "KeyId": arn })).await.body;
    emulator.shutdown().await;
    let emulator = Emulator::start(config).await.unwrap();
    let mut client = Client::connect(&emulator.endpoint_url()).await;
    assert_eq!(client.call("ListGrants", json!({ "KeyId": arn })).await.body, listed);
    let broker = client.assume(BROKER).await;
    assert_eq!(client.call_as(&broker, "GenerateDataKey", mint(json!({ "a": "1" }))).await.outcome(), "ok");
}
