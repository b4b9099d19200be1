//! Proves that data keys, ciphertexts and signatures are real, bound to their key and context, and answered as AWS does.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    UnparsedPublicKey,
};
use kms_emulator::KeySpec;
use serde_json::json;

use support::{ALIAS, base64, start};

#[tokio::test]
async fn a_data_key_decrypts_without_a_key_id() {
    let (_emulator, mut client, arn) = start().await;
    let context = json!({ "tenant": "7", "purpose": "test" });
    let made = client
        .call(
            "GenerateDataKey",
            json!({ "KeyId": ALIAS, "KeySpec": "AES_256", "EncryptionContext": context }),
        )
        .await;
    assert_eq!(made.text("KeyId"), arn);
    assert_eq!(made.bytes("Plaintext").len(), 32);
    let material = made.text("KeyMaterialId");
    assert!(
        material.len() == 64 && material.bytes().all(|byte| b"0123456789abcdef".contains(&byte)),
        "{material}"
    );

    let opened = client
        .call(
            "Decrypt",
            json!({ "CiphertextBlob": made.text("CiphertextBlob"), "EncryptionContext": context }),
        )
        .await;
    assert_eq!(opened.bytes("Plaintext"), made.bytes("Plaintext"));
    assert_eq!(opened.text("KeyId"), arn);
    assert_eq!(opened.text("KeyMaterialId"), material);
    assert_eq!(opened.text("EncryptionAlgorithm"), "SYMMETRIC_DEFAULT");
    let described = client.call("DescribeKey", json!({ "KeyId": ALIAS })).await.json();
    assert_eq!(described["KeyMetadata"]["CurrentKeyMaterialId"], material);
}

#[tokio::test]
async fn every_length_of_data_key_is_as_asked() {
    let (_emulator, mut client, _) = start().await;
    let sizes = [
        (json!({ "KeySpec": "AES_128" }), 16),
        (json!({ "KeySpec": "AES_256" }), 32),
        (json!({ "NumberOfBytes": 1 }), 1),
        (json!({ "NumberOfBytes": 1024 }), 1024),
    ];
    for (mut request, length) in sizes {
        request["KeyId"] = ALIAS.into();
        let made = client.call("GenerateDataKey", request.clone()).await;
        assert_eq!(made.bytes("Plaintext").len(), length);
        let hidden = client.call("GenerateDataKeyWithoutPlaintext", request).await;
        assert!(hidden.json().get("Plaintext").is_none());
        assert_eq!(hidden.text("KeyMaterialId"), made.text("KeyMaterialId"));
        let opened = client.call("Decrypt", json!({ "CiphertextBlob": hidden.text("CiphertextBlob") })).await;
        assert_eq!(opened.bytes("Plaintext").len(), length);
    }
    assert_eq!(
        client.call("GenerateRandom", json!({ "NumberOfBytes": 77 })).await.bytes("Plaintext").len(),
        77
    );
}

#[tokio::test]
async fn encrypt_round_trips_through_every_form_of_key_id() {
    let (_emulator, mut client, arn) = start().await;
    let id = arn.rsplit('/').next().unwrap();
    let alias_arn = format!("arn:aws:kms:us-west-2:111122223333:{ALIAS}");
    for key_id in [id, &arn, ALIAS, &alias_arn] {
        let made = client.call("Encrypt", json!({ "KeyId": key_id, "Plaintext": base64(b"hello") })).await;
        assert_eq!(made.text("KeyId"), arn);
        assert!(made.json().get("KeyMaterialId").is_none(), "AWS has none here");
        let blob = made.text("CiphertextBlob");
        let opened = client.call("Decrypt", json!({ "KeyId": key_id, "CiphertextBlob": blob })).await;
        assert_eq!(opened.bytes("Plaintext"), b"hello");
    }
}

#[tokio::test]
async fn a_multi_region_key_works_like_any_other() {
    let (_emulator, mut client, _) = start().await;
    let made = client.call("CreateKey", json!({ "MultiRegion": true })).await.json();
    let id = made["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned();
    assert!(id.starts_with("mrk-"), "{id}");
    let blob = client
        .call("Encrypt", json!({ "KeyId": id, "Plaintext": base64(b"x") }))
        .await
        .text("CiphertextBlob");
    let opened = client.call("Decrypt", json!({ "CiphertextBlob": blob })).await;
    assert_eq!(opened.bytes("Plaintext"), b"x");
}

#[tokio::test]
async fn signatures_verify_under_the_public_key() {
    let (emulator, mut client, _) = start().await;
    let arn = emulator.ensure_key("alias/signing", KeySpec::Rsa2048).unwrap();
    let public = client.call("GetPublicKey", json!({ "KeyId": "alias/signing" })).await;
    assert_eq!((public.text("KeyId"), public.text("KeyUsage")), (arn.clone(), "SIGN_VERIFY".to_owned()));
    let public_key = public.bytes("PublicKey");
    let algorithms: [(&str, &'static RsaParameters); 6] = [
        ("RSASSA_PKCS1_V1_5_SHA_256", &RSA_PKCS1_2048_8192_SHA256),
        ("RSASSA_PKCS1_V1_5_SHA_384", &RSA_PKCS1_2048_8192_SHA384),
        ("RSASSA_PKCS1_V1_5_SHA_512", &RSA_PKCS1_2048_8192_SHA512),
        ("RSASSA_PSS_SHA_256", &RSA_PSS_2048_8192_SHA256),
        ("RSASSA_PSS_SHA_384", &RSA_PSS_2048_8192_SHA384),
        ("RSASSA_PSS_SHA_512", &RSA_PSS_2048_8192_SHA512),
    ];
    for (name, parameters) in algorithms {
        let request = json!({ "KeyId": arn, "Message": base64(b"message"), "SigningAlgorithm": name });
        let signature = client.call("Sign", request).await.bytes("Signature");
        UnparsedPublicKey::new(parameters, &public_key).verify(b"message", &signature).unwrap();
        assert!(UnparsedPublicKey::new(parameters, &public_key).verify(b"massage", &signature).is_err());
    }
}

#[tokio::test]
async fn a_digest_is_signed_as_it_is() {
    let (emulator, mut client, _) = start().await;
    let arn = emulator.ensure_key("alias/signing", KeySpec::Rsa2048).unwrap();
    let public_key = client.call("GetPublicKey", json!({ "KeyId": arn })).await.bytes("PublicKey");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"message");
    let mut request = json!({ "KeyId": arn, "Message": base64(digest.as_ref()), "MessageType": "DIGEST",
                              "SigningAlgorithm": "RSASSA_PKCS1_V1_5_SHA_256" });
    let signature = client.call("Sign", request.clone()).await.bytes("Signature");
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &public_key).verify(b"message", &signature).unwrap();

    request["Message"] = base64(b"short").into();
    let refused = client.call("Sign", request).await;
    assert_eq!(refused.message(), "Digest is invalid length for algorithm RSASSA_PKCS1_V1_5_SHA_256.");
}
