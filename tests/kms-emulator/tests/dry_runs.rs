//! Proves that a dry run is judged as the call would be, permission and state, on every operation that has it; and that one that ignores
//! the ciphertext is judged by permission alone.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use kms_emulator::KeySpec;
use serde_json::{Value, json};

use support::{ALIAS, base64, start};

const DENY: &str =
    r#"{ "Statement": { "Effect": "Deny", "Principal": "*", "Action": "kms:*", "Resource": "*" } }"#;

#[tokio::test]
async fn a_dry_run_is_judged_as_the_call_is() {
    let (emulator, mut client, arn) = start().await;
    let signing = emulator.ensure_key("alias/signing", KeySpec::Rsa2048).unwrap();
    let blob = client
        .call("Encrypt", json!({ "KeyId": ALIAS, "Plaintext": base64(b"x") }))
        .await
        .text("CiphertextBlob");
    let grantee = "arn:aws:iam::111122223333:role/x";
    let calls = [
        ("GenerateDataKey", json!({ "KeyId": ALIAS, "KeySpec": "AES_256" })),
        ("GenerateDataKeyWithoutPlaintext", json!({ "KeyId": ALIAS, "KeySpec": "AES_256" })),
        ("GenerateDataKeyPair", json!({ "KeyId": ALIAS, "KeyPairSpec": "ECC_NIST_P256" })),
        ("GenerateDataKeyPairWithoutPlaintext", json!({ "KeyId": ALIAS, "KeyPairSpec": "ECC_NIST_P256" })),
        ("Encrypt", json!({ "KeyId": ALIAS, "Plaintext": base64(b"x") })),
        ("Decrypt", json!({ "CiphertextBlob": blob })),
        ("ReEncrypt", json!({ "CiphertextBlob": blob, "DestinationKeyId": ALIAS })),
        ("Sign", json!({ "KeyId": signing, "Message": "AAAA", "SigningAlgorithm": "RSASSA_PSS_SHA_256" })),
        ("CreateGrant", json!({ "KeyId": arn, "GranteePrincipal": grantee, "Operations": ["Decrypt"] })),
    ];
    let dry = |request: &Value| {
        let mut dry = request.clone();
        dry["DryRun"] = true.into();
        dry
    };
    for (operation, request) in &calls {
        assert_eq!(
            client.call(operation, dry(request)).await.error(),
            "DryRunOperationException",
            "{operation}"
        );
        assert_eq!(client.call(operation, request.clone()).await.outcome(), "ok", "{operation}");
    }
    for key in [ALIAS, "alias/signing"] {
        emulator.set_enabled(key, false).unwrap();
    }
    for (operation, request) in &calls {
        assert_eq!(client.call(operation, dry(request)).await.error(), "DisabledException", "{operation}");
        assert_eq!(client.call(operation, request.clone()).await.error(), "DisabledException", "{operation}");
    }
    for key in [ALIAS, "alias/signing"] {
        emulator.put_key_policy(key, DENY).unwrap();
    }
    for (operation, request) in &calls {
        assert_eq!(
            client.call(operation, dry(request)).await.error(),
            "AccessDeniedException",
            "{operation}"
        );
        assert_eq!(
            client.call(operation, request.clone()).await.error(),
            "AccessDeniedException",
            "{operation}"
        );
    }
}

#[tokio::test]
async fn one_that_ignores_the_ciphertext_is_judged_by_permission_alone() {
    let (emulator, mut client, _) = start().await;
    let request = json!({ "KeyId": ALIAS, "DryRun": true, "DryRunModifiers": ["IGNORE_CIPHERTEXT"] });
    assert_eq!(client.call("Decrypt", request.clone()).await.error(), "DryRunOperationException");
    emulator.set_enabled(ALIAS, false).unwrap();
    assert_eq!(
        client.call("Decrypt", request.clone()).await.error(),
        "DryRunOperationException",
        "state is not looked at"
    );
    emulator.put_key_policy(ALIAS, DENY).unwrap();
    assert_eq!(client.call("Decrypt", request).await.error(), "AccessDeniedException");
    for (request, error) in [
        (json!({ "DryRun": true, "DryRunModifiers": ["IGNORE_CIPHERTEXT"] }), "ValidationException"),
        (json!({ "KeyId": ALIAS, "DryRunModifiers": ["IGNORE_CIPHERTEXT"] }), "ValidationException"),
        (json!({ "KeyId": ALIAS, "DryRun": true, "DryRunModifiers": ["IGNORE_ALL"] }), "ValidationException"),
        (
            json!({ "KeyId": "alias/none", "DryRun": true, "DryRunModifiers": ["IGNORE_CIPHERTEXT"] }),
            "NotFoundException",
        ),
    ] {
        assert_eq!(client.call("Decrypt", request.clone()).await.error(), error, "{request}");
    }
}
