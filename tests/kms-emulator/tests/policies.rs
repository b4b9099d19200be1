//! Proves who may do what: by the key's policy, by the policy of the caller's role and, where neither was put, everybody; in AWS's
//! words, by KMS's operations, by the library and by the control endpoint, and after a restart.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]
#![expect(clippy::needless_pass_by_value, reason = "JSON is written where it is passed")]

mod support;

use http::Method;
use kms_emulator::{Emulator, EmulatorConfig, KeySpec};
use serde_json::{Value, json};

use support::{ALIAS, Client, base64, start};

const BROKER: &str = "arn:aws:iam::111122223333:role/broker";
const ACCOUNT: &str = "arn:aws:iam::111122223333:root";

fn policy(statements: Value) -> String {
    json!({ "Version": "2012-10-17", "Statement": statements }).to_string()
}

/// What the key's administrators need, and this.
fn with(statement: Value) -> String {
    let administration = json!({
        "Effect": "Allow", "Principal": { "AWS": "arn:aws:iam::111122223333:role/key-broker-dev" },
        "Action": ["kms:*Policy", "kms:DescribeKey"], "Resource": "*",
    });
    policy(json!([administration, statement]))
}

fn mint(context: Value) -> Value {
    json!({ "KeyId": ALIAS, "KeySpec": "AES_256", "EncryptionContext": context })
}

#[tokio::test]
async fn a_keys_policy_is_conditioned_on_the_encryption_context() {
    let (_emulator, mut client, arn) = start().await;
    let broker = client.assume(BROKER).await;
    let blob = client
        .call_as(&broker, "GenerateDataKey", mint(json!({ "tenant": "a" })))
        .await
        .text("CiphertextBlob");
    let put = with(json!({
        "Effect": "Allow", "Principal": { "AWS": BROKER }, "Action": ["kms:GenerateDataKey", "kms:Decrypt"], "Resource": "*",
        "Condition": { "StringEquals": { "kms:EncryptionContext:tenant": ["b", "c"] } },
    }));
    client.call("PutKeyPolicy", json!({ "KeyId": arn, "PolicyName": "default", "Policy": put })).await;
    for (tenant, outcome) in [("a", "AccessDeniedException"), ("b", "ok"), ("c", "ok")] {
        let reply = client.call_as(&broker, "GenerateDataKey", mint(json!({ "tenant": tenant }))).await;
        assert_eq!(reply.outcome(), outcome, "{tenant}");
        let decrypt = json!({ "CiphertextBlob": blob, "EncryptionContext": { "tenant": tenant } });
        let reply = client.call_as(&broker, "Decrypt", decrypt).await;
        let judged = if tenant == "a" { "AccessDeniedException" } else { "InvalidCiphertextException" };
        assert_eq!(reply.outcome(), judged, "{tenant}: permission comes first");
    }
    let denied = client.call_as(&broker, "GenerateDataKey", mint(json!({}))).await;
    let words = format!(
        "User: arn:aws:sts::111122223333:assumed-role/broker/s is not authorized to perform: kms:GenerateDataKey on \
         resource: {arn} because no resource-based policy allows the kms:GenerateDataKey action"
    );
    assert_eq!(denied.message(), words);
    let other = client.call("GenerateDataKey", mint(json!({ "tenant": "b" }))).await;
    assert_eq!(other.outcome(), "AccessDeniedException", "another role");
    let got = client.call("GetKeyPolicy", json!({ "KeyId": arn })).await;
    assert_eq!((got.text("Policy"), got.text("PolicyName")), (put, "default".to_owned()));
}

#[tokio::test]
async fn a_denial_is_the_end_and_is_called_so() {
    let (emulator, mut client, arn) = start().await;
    let allowed = json!({ "Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*" });
    let denied = json!({
        "Effect": "Deny", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*",
        "Condition": { "StringNotLike": { "kms:EncryptionContext:tenant": "a*" } },
    });
    emulator.put_key_policy(ALIAS, &policy(json!([allowed, denied]))).unwrap();
    let decrypt = |tenant: &str| {
        json!({ "CiphertextBlob": "AAAA", "KeyId": arn, "EncryptionContext": { "tenant": tenant },
        "DryRun": true, "DryRunModifiers": ["IGNORE_CIPHERTEXT"] })
    };
    assert_eq!(client.call("Decrypt", decrypt("ab")).await.error(), "DryRunOperationException");
    let reply = client.call("Decrypt", decrypt("b")).await;
    assert!(reply.message().ends_with(" with an explicit deny in a resource-based policy"), "{reply:?}");

    let denying = policy(json!([
        { "Effect": "Allow", "Action": "*", "Resource": "*" },
        { "Effect": "Deny", "Action": "kms:Encrypt", "Resource": arn },
    ]));
    let role = "arn:aws:iam::111122223333:role/key-broker-dev";
    emulator.put_role_policy(role, &denying).unwrap();
    let encrypt = json!({ "KeyId": ALIAS, "Plaintext": base64(b"x") });
    let reply = client.call("Encrypt", encrypt.clone()).await;
    assert!(reply.message().ends_with(" with an explicit deny in an identity-based policy"), "{reply:?}");
    emulator.remove_role_policy(role).unwrap();
    assert_eq!(client.call("Encrypt", encrypt).await.outcome(), "ok");
}

#[tokio::test]
async fn what_a_key_leaves_to_the_account_is_up_to_the_roles_policy() {
    let (emulator, mut client, arn) = start().await;
    let other = emulator.ensure_key("alias/other", KeySpec::SymmetricDefault).unwrap();
    let (broker, auditor) = (client.assume(BROKER).await, client.assume(&format!("{BROKER}-auditor")).await);
    let mint_only = policy(json!({ "Effect": "Allow", "Action": "kms:GenerateDataKey", "Resource": arn }));
    emulator.put_role_policy(BROKER, &mint_only).unwrap();
    let asked = |key: &str| json!({ "KeyId": key, "KeySpec": "AES_256" });
    assert_eq!(client.call_as(&broker, "GenerateDataKey", asked(&arn)).await.outcome(), "ok");
    let reply = client.call_as(&broker, "GenerateDataKey", asked(&other)).await;
    assert!(
        reply.message().ends_with(" because no identity-based policy allows the kms:GenerateDataKey action"),
        "{reply:?}"
    );
    for operation in ["ListKeys", "ListAliases"] {
        assert_eq!(client.call_as(&broker, operation, json!({})).await.outcome(), "AccessDeniedException");
        assert_eq!(client.call_as(&auditor, operation, json!({})).await.outcome(), "ok", "has no policy");
    }
    let random = client.call_as(&broker, "GenerateRandom", json!({ "NumberOfBytes": 1 })).await;
    assert!(random.message().contains("kms:GenerateRandom on resource: *"), "{random:?}");

    let to_the_account =
        json!({ "Effect": "Allow", "Principal": { "AWS": ACCOUNT }, "Action": "kms:*", "Resource": "*" });
    emulator.put_key_policy(&other, &policy(to_the_account)).unwrap();
    assert_eq!(client.call_as(&auditor, "GenerateDataKey", asked(&other)).await.outcome(), "ok");
    let stranger = client.assume("arn:aws:iam::444455556666:role/x").await;
    assert_eq!(
        client.call_as(&stranger, "GenerateDataKey", asked(&other)).await.outcome(),
        "AccessDeniedException"
    );
    assert_eq!(
        client.call_as(&stranger, "GenerateDataKey", asked(&arn)).await.outcome(),
        "ok",
        "no policy at all"
    );
    let to_the_role =
        json!({ "Effect": "Allow", "Principal": { "AWS": BROKER }, "Action": "kms:*", "Resource": "*" });
    emulator.put_key_policy(&other, &policy(to_the_role)).unwrap();
    assert_eq!(
        client.call_as(&broker, "GenerateDataKey", asked(&other)).await.outcome(),
        "ok",
        "the key's word is enough"
    );
    emulator.remove_key_policy(&other).unwrap();
    assert_eq!(
        client.call_as(&broker, "GenerateDataKey", asked(&other)).await.outcome(),
        "AccessDeniedException"
    );
}

#[tokio::test]
async fn reencryption_needs_both_keys_each_with_its_context() {
    let (emulator, mut client, _) = start().await;
    let to = emulator.ensure_key("alias/to", KeySpec::SymmetricDefault).unwrap();
    let blob = client
        .call(
            "Encrypt",
            json!({ "KeyId": ALIAS, "Plaintext": base64(b"x"), "EncryptionContext": { "a": "1" } }),
        )
        .await
        .text("CiphertextBlob");
    let only = |action: &str, value: &str| {
        policy(json!({ "Effect": "Allow", "Principal": "*", "Action": action, "Resource": "*",
        "Condition": { "StringEquals": { "kms:EncryptionContext:a": value } } }))
    };
    emulator.put_key_policy(ALIAS, &only("kms:ReEncryptFrom", "1")).unwrap();
    let request = json!({ "CiphertextBlob": blob, "DestinationKeyId": to,
        "SourceEncryptionContext": { "a": "1" }, "DestinationEncryptionContext": { "a": "2" } });
    for (value, outcome) in [("1", "AccessDeniedException"), ("2", "ok")] {
        emulator.put_key_policy(&to, &only("kms:ReEncrypt*", value)).unwrap();
        assert_eq!(client.call("ReEncrypt", request.clone()).await.outcome(), outcome);
    }
    emulator.put_key_policy(ALIAS, &only("kms:ReEncryptTo", "1")).unwrap();
    assert_eq!(client.call("ReEncrypt", request).await.outcome(), "AccessDeniedException");
}

#[tokio::test]
async fn a_policy_that_is_not_understood_is_refused() {
    let (emulator, mut client, arn) = start().await;
    let put = |policy: &str| json!({ "KeyId": arn, "Policy": policy });
    let via_service = json!({ "Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*",
        "Condition": { "StringEquals": { "kms:ViaService": "s3.us-west-2.amazonaws.com" } } });
    for text in ["{", &policy(via_service)] {
        assert_eq!(client.call("PutKeyPolicy", put(text)).await.error(), "MalformedPolicyDocumentException");
        assert!(emulator.put_key_policy(ALIAS, text).is_err());
        assert!(emulator.put_role_policy(BROKER, text).is_err());
    }
    assert!(emulator.put_role_policy("arn:aws:iam::111122223333:user/a", &policy(json!([]))).is_err());
    let locked =
        policy(json!({ "Effect": "Allow", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*" }));
    let reply = client.call("PutKeyPolicy", put(&locked)).await;
    assert_eq!(
        reply.message(),
        "The new key policy will not allow you to update the key policy in the future."
    );
    let mut bypassed = put(&locked);
    bypassed["BypassPolicyLockoutSafetyCheck"] = true.into();
    assert_eq!(client.call("PutKeyPolicy", bypassed).await.outcome(), "ok");
    assert_eq!(client.call("PutKeyPolicy", put(&with(json!([])))).await.outcome(), "AccessDeniedException");
    assert_eq!(client.call("GetKeyPolicy", json!({ "KeyId": arn })).await.outcome(), "AccessDeniedException");
}

#[tokio::test]
async fn policies_are_put_by_the_control_endpoint_and_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let config =
        EmulatorConfig { state_file: Some(directory.path().join("kms.json")), ..EmulatorConfig::default() };
    let emulator = Emulator::start(config.clone()).await.unwrap();
    let arn = emulator.ensure_key(ALIAS, KeySpec::SymmetricDefault).unwrap();
    let mut client = Client::connect(&emulator.endpoint_url()).await;
    let statement =
        json!({ "Effect": "Allow", "Principal": { "AWS": BROKER }, "Action": "kms:*", "Resource": "*" });
    let keys = json!({ ALIAS: { "Statement": statement } }).to_string();
    let shown = client.send(Method::PUT, "/_emulator/key-policies", &[], &keys).await.unwrap();
    assert_eq!(shown.json(), json!({ &arn: { "Statement": statement } }));
    let roles = json!({ BROKER: { "Statement": [] }, format!("{BROKER}2"): null }).to_string();
    let shown = client.send(Method::PUT, "/_emulator/role-policies", &[], &roles).await.unwrap();
    assert_eq!(shown.json(), json!({ BROKER: { "Statement": [] } }));
    let refused =
        client.send(Method::PUT, "/_emulator/key-policies", &[], &json!({ ALIAS: {} }).to_string()).await;
    assert_eq!(refused.unwrap().status, 400);
    emulator.shutdown().await;

    let emulator = Emulator::start(config).await.unwrap();
    let mut client = Client::connect(&emulator.endpoint_url()).await;
    assert_eq!(client.call("GenerateDataKey", mint(json!({}))).await.outcome(), "AccessDeniedException");
    let broker = client.assume(BROKER).await;
    assert_eq!(client.call_as(&broker, "GenerateDataKey", mint(json!({}))).await.outcome(), "ok");
    assert_eq!(client.call_as(&broker, "ListKeys", json!({})).await.outcome(), "AccessDeniedException");
}
