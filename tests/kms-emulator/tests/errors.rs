//! Proves that each refusal has AWS's type, message and status, and that every answer has a request id.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::collections::HashSet;

use http::{Method, StatusCode};
use kms_emulator::{Fault, KeySpec};
use serde_json::{Map, Value, json};

use support::{ALIAS, Client, base64, start};

/// A refusal: type, message, status 400.
async fn refused(client: &mut Client, operation: &str, request: Value, error: &str, message: &str) {
    let reply = client.call(operation, request.clone()).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{operation} {request}: {reply:?}");
    assert_eq!((reply.error().as_str(), reply.message().as_str()), (error, message), "{operation} {request}");
}

#[tokio::test]
async fn limits_are_aws_limits() {
    let (_emulator, mut client, _) = start().await;
    let long_id = "a".repeat(2049);
    let tokens = vec!["AAAA"; 11];
    let cases = [
        ("GenerateDataKey", json!({ "NumberOfBytes": 0 }), "Value '0' at 'numberOfBytes' failed to satisfy constraint: Member must have value greater than or equal to 1".to_owned()),
        ("GenerateDataKey", json!({ "NumberOfBytes": 1025 }), "Value '1025' at 'numberOfBytes' failed to satisfy constraint: Member must have value less than or equal to 1024".to_owned()),
        ("GenerateRandom", json!({ "NumberOfBytes": 1025 }), "Value '1025' at 'numberOfBytes' failed to satisfy constraint: Member must have value less than or equal to 1024".to_owned()),
        ("GenerateDataKey", json!({ "KeySpec": "AES_512" }), "Value 'AES_512' at 'keySpec' failed to satisfy constraint: Member must satisfy enum value set: [AES_256, AES_128]".to_owned()),
        ("GenerateDataKey", json!({ "KeyId": "", "KeySpec": "AES_256" }), "Value '' at 'keyId' failed to satisfy constraint: Member must have length greater than or equal to 1".to_owned()),
        ("DescribeKey", json!({ "KeyId": long_id }), format!("Value '{long_id}' at 'keyId' failed to satisfy constraint: Member must have length less than or equal to 2048")),
        ("DescribeKey", json!({ "KeyId": null }), "Value null at 'keyId' failed to satisfy constraint: Member must not be null".to_owned()),
        ("Decrypt", json!({}), "Value null at 'ciphertextBlob' failed to satisfy constraint: Member must not be null".to_owned()),
        ("Decrypt", json!({ "CiphertextBlob": base64(&[0; 6145]) }), "Value at 'ciphertextBlob' failed to satisfy constraint: Member must have length less than or equal to 6144".to_owned()),
        ("Encrypt", json!({ "Plaintext": base64(&[0; 4097]) }), "Value at 'plaintext' failed to satisfy constraint: Member must have length less than or equal to 4096".to_owned()),
        ("Encrypt", json!({ "Plaintext": "" }), "Value at 'plaintext' failed to satisfy constraint: Member must have length greater than or equal to 1".to_owned()),
        ("GenerateDataKey", json!({ "KeySpec": "AES_256", "GrantTokens": tokens }), format!("Value '{tokens:?}' at 'grantTokens' failed to satisfy constraint: Member must have length less than or equal to 10")),
    ];
    for (operation, request, broken) in cases {
        let mut members = Map::from_iter([("KeyId".to_owned(), Value::from(ALIAS))]);
        members.extend(request.as_object().unwrap().clone());
        let message = format!("1 validation error detected: {broken}");
        refused(&mut client, operation, members.into(), "ValidationException", &message).await;
    }
    let both = client.call("GenerateDataKey", json!({ "KeyId": "", "NumberOfBytes": 0 })).await;
    assert!(
        both.message().starts_with("2 validation errors detected: Value '' at 'keyId'"),
        "{}",
        both.message()
    );
}

#[tokio::test]
async fn exactly_one_length_is_asked_for() {
    let (_emulator, mut client, _) = start().await;
    for request in
        [json!({ "KeyId": ALIAS }), json!({ "KeyId": ALIAS, "KeySpec": "AES_256", "NumberOfBytes": 32 })]
    {
        let message = "Please specify either number of bytes or key spec.";
        refused(&mut client, "GenerateDataKey", request, "ValidationException", message).await;
    }
    refused(&mut client, "GenerateRandom", json!({}), "ValidationException", "NumberOfBytes is required.")
        .await;
}

#[tokio::test]
async fn a_context_may_have_8192_bytes() {
    let (_emulator, mut client, _) = start().await;
    for (length, status) in [(8191, StatusCode::OK), (8192, StatusCode::BAD_REQUEST)] {
        let context = json!({ "k": "v".repeat(length) });
        let request = json!({ "KeyId": ALIAS, "KeySpec": "AES_256", "EncryptionContext": context });
        assert_eq!(client.call("GenerateDataKey", request).await.status, status, "{length}");
    }
}

#[tokio::test]
async fn keys_that_are_not_here() {
    let (_emulator, mut client, arn) = start().await;
    let id = arn.rsplit('/').next().unwrap();
    let nobody = "00000000-0000-4000-8000-000000000000";
    let root = "arn:aws:kms:us-west-2:111122223333";
    let here = |resource: &str| format!("{root}:{resource}");
    let cases = [
        (nobody.to_owned(), "NotFoundException", format!("Key '{root}:key/{nobody}' does not exist")),
        (
            here(&format!("key/{nobody}")),
            "NotFoundException",
            format!("Key '{root}:key/{nobody}' does not exist"),
        ),
        ("fake-key-id".to_owned(), "NotFoundException", "Invalid keyId 'fake-key-id'".to_owned()),
        ("mrk-fake".to_owned(), "NotFoundException", "Invalid keyId 'mrk-fake'".to_owned()),
        ("alias/none".to_owned(), "NotFoundException", format!("Alias {root}:alias/none is not found.")),
        (here("alias/none"), "NotFoundException", format!("Alias {root}:alias/none is not found.")),
        (arn.replace("us-west-2", "eu-west-1"), "NotFoundException", "Invalid arn eu-west-1".to_owned()),
        ("arn:aws:kms".to_owned(), "InvalidArnException", "Invalid arn arn:aws:kms".to_owned()),
        (here("bucket/x"), "InvalidArnException", format!("Invalid arn {root}:bucket/x")),
    ];
    for (key_id, error, message) in cases {
        let request = json!({ "KeyId": key_id, "KeySpec": "AES_256" });
        refused(&mut client, "GenerateDataKey", request, error, &message).await;
        refused(&mut client, "DescribeKey", json!({ "KeyId": key_id }), error, &message).await;
    }
    let foreign = format!("arn:aws:kms:us-west-2:999999999999:key/{id}");
    let denied = client.call("Encrypt", json!({ "KeyId": foreign, "Plaintext": base64(b"x") })).await;
    assert_eq!(denied.error(), "AccessDeniedException");
    assert!(denied.message().contains("is not authorized to perform: kms:Encrypt"), "{}", denied.message());
    assert!(denied.json().get("Message").is_some(), "IAM spells it with a capital");
}

#[tokio::test]
async fn ciphertexts_that_do_not_open() {
    let (emulator, mut client, arn) = start().await;
    emulator.ensure_key("alias/other", KeySpec::SymmetricDefault).unwrap();
    let request = json!({ "KeyId": ALIAS, "Plaintext": base64(b"x"), "EncryptionContext": { "a": "b" } });
    let blob = client.call("Encrypt", request).await.bytes("CiphertextBlob");
    let mut altered = blob.clone();
    *altered.last_mut().unwrap() ^= 1;
    for (bytes, context) in [
        (blob.clone(), json!({})),
        (blob.clone(), json!({ "a": "B" })),
        (altered, json!({ "a": "b" })),
        (b"garbage".to_vec(), json!({})),
    ] {
        let request = json!({ "CiphertextBlob": base64(&bytes), "EncryptionContext": context });
        let reply = client.call("Decrypt", request).await;
        assert_eq!(reply.body, r#"{"__type":"InvalidCiphertextException"}"#, "no message, as from AWS");
    }
    let mut request =
        json!({ "CiphertextBlob": base64(&blob), "EncryptionContext": { "a": "b" }, "KeyId": "alias/other" });
    let message = "The key ID in the request does not identify a CMK that can perform this operation.";
    refused(&mut client, "Decrypt", request.clone(), "IncorrectKeyException", message).await;
    request["KeyId"] = arn.into();
    assert_eq!(client.call("Decrypt", request).await.bytes("Plaintext"), b"x");

    let (_elsewhere, mut stranger, _) = start().await;
    let request = json!({ "CiphertextBlob": base64(&blob), "EncryptionContext": { "a": "b" } });
    assert_eq!(stranger.call("Decrypt", request).await.error(), "AccessDeniedException");
}

#[tokio::test]
async fn keys_that_may_not_be_used() {
    let (emulator, mut client, arn) = start().await;
    let blob = client
        .call("Encrypt", json!({ "KeyId": ALIAS, "Plaintext": base64(b"x") }))
        .await
        .text("CiphertextBlob");
    let calls = [
        ("GenerateDataKey", json!({ "KeyId": ALIAS, "KeySpec": "AES_256" })),
        ("GenerateDataKeyWithoutPlaintext", json!({ "KeyId": ALIAS, "KeySpec": "AES_256" })),
        ("Encrypt", json!({ "KeyId": ALIAS, "Plaintext": base64(b"x") })),
        ("Decrypt", json!({ "CiphertextBlob": blob })),
    ];
    emulator.set_enabled(ALIAS, false).unwrap();
    for (operation, request) in calls.clone() {
        let message = format!("{arn} is disabled.");
        refused(&mut client, operation, request, "DisabledException", &message).await;
    }
    client.call("ScheduleKeyDeletion", json!({ "KeyId": arn, "PendingWindowInDays": 7 })).await.text("KeyId");
    for (operation, request) in calls {
        let message = format!("{arn} is pending deletion.");
        refused(&mut client, operation, request, "KMSInvalidStateException", &message).await;
    }
}

#[tokio::test]
async fn keys_of_the_wrong_usage() {
    let (emulator, mut client, arn) = start().await;
    let signing = emulator.ensure_key("alias/signing", KeySpec::Rsa2048).unwrap();
    let hmac = emulator.ensure_key("alias/mac", KeySpec::Hmac256).unwrap();
    for (key, usage) in [(&signing, "SIGN_VERIFY"), (&hmac, "GENERATE_VERIFY_MAC")] {
        let message = format!("{key} key usage is {usage} which is not valid for GenerateDataKey.");
        let request = json!({ "KeyId": key, "KeySpec": "AES_256" });
        refused(&mut client, "GenerateDataKey", request, "InvalidKeyUsageException", &message).await;
    }
    let sign = |key: &str, algorithm: &str| json!({ "KeyId": key, "Message": "AAAA", "SigningAlgorithm": algorithm });
    let message = format!("{arn} key usage is ENCRYPT_DECRYPT which is not valid for Sign.");
    refused(&mut client, "Sign", sign(&arn, "RSASSA_PSS_SHA_256"), "InvalidKeyUsageException", &message)
        .await;
    let message = "Algorithm ECDSA_SHA_256 is incompatible with key spec RSA_2048.";
    refused(&mut client, "Sign", sign(&signing, "ECDSA_SHA_256"), "InvalidKeyUsageException", message).await;
    let request = json!({ "KeyId": ALIAS });
    assert_eq!(client.call("GetPublicKey", request).await.error(), "UnsupportedOperationException");
}

#[tokio::test]
async fn a_dry_run_succeeds_by_failing() {
    let (_emulator, mut client, _) = start().await;
    let blob = client
        .call("Encrypt", json!({ "KeyId": ALIAS, "Plaintext": base64(b"x") }))
        .await
        .text("CiphertextBlob");
    let message = "The request would have succeeded, but the DryRun option is set.";
    for (operation, request) in [
        ("GenerateDataKey", json!({ "KeyId": ALIAS, "KeySpec": "AES_256", "DryRun": true })),
        ("Encrypt", json!({ "KeyId": ALIAS, "Plaintext": base64(b"x"), "DryRun": true })),
        ("Decrypt", json!({ "CiphertextBlob": blob, "DryRun": true })),
    ] {
        refused(&mut client, operation, request, "DryRunOperationException", message).await;
    }
    let garbage = json!({ "CiphertextBlob": "AAAA", "DryRun": true });
    assert_eq!(client.call("Decrypt", garbage).await.error(), "InvalidCiphertextException");
}

#[tokio::test]
async fn requests_that_are_none() {
    let (_emulator, mut client, _) = start().await;
    for body in ["{", "[]x", r#"{"KeyId":7}"#, r#"{"KeyId":"k","EncryptionContext":{"a":1}}"#] {
        let reply = client.call_with("GenerateDataKey", body, &[]).await;
        assert_eq!(reply.body, r#"{"__type":"SerializationException"}"#, "{body}");
    }
    let reply = client.call_with("Encrypt", r#"{"KeyId":"k","Plaintext":"***"}"#, &[]).await;
    assert_eq!(reply.error(), "SerializationException");
    assert_eq!(client.call("GenerateMischief", json!({})).await.error(), "UnknownOperationException");
    let tokens = json!({ "KeyId": ALIAS, "KeySpec": "AES_256", "GrantTokens": ["not base64!"] });
    assert_eq!(client.call("GenerateDataKey", tokens).await.error(), "InvalidGrantTokenException");
    let large = "x".repeat((1 << 20) + 1);
    let reply = client.call_with("Encrypt", &large, &[]).await;
    assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn requests_of_nobody() {
    let (_emulator, mut client, _) = start().await;
    let target = ("x-amz-target", "TrentService.ListKeys");
    let missing = client.send(Method::POST, "/", &[target], "{}").await.unwrap();
    assert_eq!(missing.error(), "MissingAuthenticationTokenException");
    assert_eq!(missing.message(), "Missing Authentication Token");
    for header in
        ["Basic abc", "AWS4-HMAC-SHA256 Credential=/d/r/kms/aws4_request", "AWS4-HMAC-SHA256 SignedHeaders=x"]
    {
        let reply = client.send(Method::POST, "/", &[target, ("authorization", header)], "{}").await.unwrap();
        assert_eq!(reply.error(), "IncompleteSignatureException", "{header}");
    }
}

#[tokio::test]
async fn every_answer_has_its_own_request_id() {
    let (emulator, mut client, _) = start().await;
    let mut ids = HashSet::new();
    for operation in ["ListKeys", "DescribeKey", "GenerateMischief", "GenerateDataKey"] {
        emulator.inject(Fault::error("KMSInternalException").on("GenerateDataKey"));
        let reply = client.call(operation, json!({})).await;
        let id = reply.request_id();
        let hyphens: Vec<usize> = id.match_indices('-').map(|(at, _)| at).collect();
        assert!(id.len() == 36 && hyphens == [8, 13, 18, 23] && id.to_lowercase() == id, "{id}");
        assert!(ids.insert(id.to_owned()));
    }
}
