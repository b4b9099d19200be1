//! Proves: Encrypt, ReEncrypt and data key pairs are KMS's own, each with its permit, its records and its errors; of a ReEncrypt,
//! policy is asked for both sides, and a key that the request does not name is permitted before anything made with it leaves.

mod support;

use std::collections::BTreeMap;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};
use key_broker_client::{Decrypt, Encrypt, Error, GenerateDataKeyPair, KeyPairSpec, ReEncrypt};
use kms_emulator::KeySpec;
use serde_json::json;
use support::{Records, Setup, TestBroker, id, reuse, rule};
use tonic::Code;

async fn broker() -> TestBroker {
    TestBroker::with(Setup { keys: vec!["alias/other"], reuse: reuse(rule()), ..Setup::default() }).await
}

fn refused(error: &Error) -> (Code, &str) {
    (error.code(), error.reason().expect("a reason"))
}

#[tokio::test]
async fn what_kms_encrypts_it_decrypts_and_encrypts_anew() {
    let broker = broker().await;
    let client = broker.client().await;
    for length in [1, 4_096] {
        let request = || Encrypt::new("alias/dev", vec![7; length]).context("tenant", "acme");
        let encrypted = client.encrypt(request()).await.expect("encrypted");
        assert_ne!(
            encrypted.ciphertext_blob,
            client.encrypt(request()).await.expect("again").ciphertext_blob
        );
        assert_eq!(encrypted.key_id, broker.key_arn);
        let again = ReEncrypt::new(encrypted.ciphertext_blob, "alias/other")
            .source_context("tenant", "acme")
            .destination_context("tenant", "new");
        let named =
            client.re_encrypt(again.clone().source_key_id("alias/dev")).await.expect("encrypted anew");
        let unnamed = client.re_encrypt(again.clone()).await.expect("encrypted anew");
        assert_eq!((&named.source_key_id, &unnamed.source_key_id), (&broker.key_arn, &broker.key_arn));
        assert_ne!(named.key_id, broker.key_arn);
        let error =
            client.re_encrypt(again.clone().source_key_id("alias/other")).await.expect_err("another key");
        assert_eq!(refused(&error), (Code::InvalidArgument, "INCORRECT_KEY"));
        let error =
            client.re_encrypt(again.source_context("tenant", "x")).await.expect_err("another context");
        assert_eq!(refused(&error), (Code::InvalidArgument, "INVALID_CIPHERTEXT"));
        let opened = Decrypt::new(named.ciphertext_blob).context("tenant", "new").key_id("alias/other");
        let opened = client.decrypt(opened).await.expect("decrypted");
        assert_eq!(opened.plaintext.expose(), vec![7; length]);
    }
    for length in [0, 4_097] {
        let error = client.encrypt(Encrypt::new("alias/dev", vec![7; length])).await.expect_err("no length");
        assert_eq!(refused(&error), (Code::InvalidArgument, "MALFORMED_REQUEST"));
    }
}

#[tokio::test]
async fn records_have_what_cloudtrail_has() {
    let broker = broker().await;
    let client = broker.client().await;
    let encrypted = client.encrypt(Encrypt::new("alias/dev", "x").context("tenant", "acme")).await;
    let encrypted = encrypted.expect("encrypted");
    let again = ReEncrypt::new(encrypted.ciphertext_blob, "alias/other")
        .source_context("tenant", "acme")
        .destination_context("tenant", "new");
    let again = client.re_encrypt(again).await.expect("encrypted anew");
    let pair = GenerateDataKeyPair::new("alias/dev", KeyPairSpec::EccNistP384).context("tenant", "acme");
    let pair = client.generate_data_key_pair_without_plaintext(pair).await.expect("a pair");
    let key_arn = broker.key_arn.clone();
    let records = broker.stop().await;
    let asked = |provenance: &key_broker_client::Provenance| {
        records.kms_of(&provenance.kms_request_id)["requestParameters"].clone()
    };
    let context = json!({ "tenant": "acme" });
    assert_eq!(
        asked(&encrypted.provenance),
        json!({ "encryptionAlgorithm": "SYMMETRIC_DEFAULT", "keyId": key_arn, "encryptionContext": context })
    );
    assert_eq!(
        asked(&pair.provenance),
        json!({ "keyPairSpec": "ECC_NIST_P384", "keyId": key_arn, "encryptionContext": context })
    );
    assert_eq!(
        asked(&again.provenance),
        json!({
            "sourceEncryptionAlgorithm": "SYMMETRIC_DEFAULT", "sourceEncryptionContext": context,
            "destinationKeyId": again.key_id, "destinationEncryptionAlgorithm": "SYMMETRIC_DEFAULT",
            "destinationEncryptionContext": { "tenant": "new" },
        })
    );
    let kms = records.kms_of(&again.provenance.kms_request_id);
    let arns: Vec<_> = kms["resources"].as_array().expect("two").iter().map(|key| &key["ARN"]).collect();
    assert_eq!(arns, [&json!(key_arn), &json!(again.key_id)]);
    for material in ["sourceKeyMaterialId", "destinationKeyMaterialId"] {
        assert!(kms["additionalEventData"][material].is_string(), "{kms}");
    }
    let activity =
        records.activity.iter().find(|record| record["eventName"] == "ReEncrypt").expect("a record");
    assert_eq!(activity["requestParameters"]["destinationKeyId"], "alias/other", "as the caller wrote it");
    assert_eq!(activity["resources"], kms["resources"]);
}

#[tokio::test]
async fn a_pair_is_one_and_its_private_key_is_decrypted() {
    let broker = broker().await;
    let client = broker.client().await;
    let request = |spec| GenerateDataKeyPair::new("alias/dev", spec).context("tenant", "acme");
    for spec in [
        KeyPairSpec::EccNistP256,
        KeyPairSpec::EccNistP384,
        KeyPairSpec::EccNistP521,
        KeyPairSpec::EccSecgP256k1,
        KeyPairSpec::Rsa2048,
    ] {
        let pair = client.generate_data_key_pair(request(spec)).await.expect("a pair");
        let private = pair.private_key.as_ref().expect("a private key");
        let opened = Decrypt::new(pair.private_key_ciphertext_blob.clone()).context("tenant", "acme");
        let opened = client.decrypt(opened).await.expect("decrypted");
        assert_eq!(opened.plaintext.expose(), private.expose(), "{spec:?}");
        assert!(!pair.provenance.from_cache);
        if spec == KeyPairSpec::EccNistP256 {
            let signer =
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, private.expose()).expect("PKCS #8");
            let signature = signer.sign(&aws_lc_rs::rand::SystemRandom::new(), b"hello").expect("signs");
            let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &pair.public_key);
            public.verify(b"hello", signature.as_ref()).expect("the two are a pair");
            let _: aws_lc_rs::encoding::EcPrivateKeyRfc5915Der<'_> =
                signer.private_key().as_der().expect("a private key");
        }
    }
    let pair = client.generate_data_key_pair_without_plaintext(request(KeyPairSpec::EccNistP256)).await;
    assert!(pair.expect("a pair").private_key.is_none());
    let error = client.generate_data_key_pair(request(KeyPairSpec::Unspecified)).await.expect_err("no kind");
    assert_eq!(refused(&error), (Code::InvalidArgument, "MALFORMED_REQUEST"));
}

#[tokio::test]
async fn policy_is_asked_for_each_and_for_both_sides() {
    let me = format!("unix:uid/{}", rustix::process::geteuid().as_raw());
    let permit = |action: &str, key: &str| {
        format!(
            r#"permit(principal == Workload::"{me}", action == Action::"{action}", resource in Alias::"{key}");"#
        )
    };
    let policy = [
        permit("Encrypt", "alias/dev"),
        permit("Encrypt", "alias/other"),
        permit("ReEncryptFrom", "alias/dev"),
        permit("ReEncryptTo", "alias/other"),
    ];
    let setup = Setup { policy: policy.concat(), keys: vec!["alias/other"], ..Setup::default() };
    let broker = TestBroker::with(setup).await;
    let client = broker.client().await;
    let of =
        async |key: &str| client.encrypt(Encrypt::new(key, "x")).await.expect("permitted").ciphertext_blob;
    let (dev, other) = (of("alias/dev").await, of("alias/other").await);
    let ways = [
        (ReEncrypt::new(dev.clone(), "alias/other").source_key_id("alias/dev"), true),
        (ReEncrypt::new(dev.clone(), "alias/dev").source_key_id("alias/dev"), false),
        (ReEncrypt::new(other.clone(), "alias/other").source_key_id("alias/other"), false),
        // Who names no key has to be permitted any.
        (ReEncrypt::new(dev, "alias/other"), false),
        (ReEncrypt::new(other, "alias/other"), false),
    ];
    for (place, (request, is_permitted)) in ways.into_iter().enumerate() {
        match client.re_encrypt(request).await {
            Ok(_) => assert!(is_permitted, "{place}"),
            Err(error) => {
                assert_eq!(refused(&error), (Code::PermissionDenied, "DENIED_BY_POLICY"), "{place}: {error}");
                assert!(!is_permitted, "{place}");
            }
        }
    }
    let pair = GenerateDataKeyPair::new("alias/dev", KeyPairSpec::EccNistP256);
    let error = client.generate_data_key_pair(pair.clone()).await.expect_err("denied");
    assert_eq!(refused(&error), (Code::PermissionDenied, "DENIED_BY_POLICY"));
    let error = client.generate_data_key_pair_without_plaintext(pair).await.expect_err("denied");
    assert_eq!(refused(&error), (Code::PermissionDenied, "DENIED_BY_POLICY"));
    assert_eq!(broker.emulator.call_count("ReEncrypt"), 1, "KMS is asked for what is permitted");
    let records = broker.stop().await;
    assert_eq!(records.activity_of(id(&error))["eventName"], "GenerateDataKeyPairWithoutPlaintext");
    assert_eq!(
        outcomes_of(&records, "ReEncrypt"),
        BTreeMap::from([("Allowed".into(), 1), ("Denied".into(), 4)])
    );
}

#[tokio::test]
async fn a_key_that_the_request_did_not_name_is_permitted_before_anything_leaves() {
    let setup = Setup {
        policy: r#"permit(principal, action, resource);
                   forbid(principal, action == Action::"ReEncryptFrom", resource in Alias::"alias/other");"#
            .into(),
        keys: vec!["alias/other"],
        ..Setup::default()
    };
    let broker = TestBroker::with(setup).await;
    let client = broker.client().await;
    broker.emulator.ensure_key("alias/third", KeySpec::SymmetricDefault).expect("a key");
    let blob = client.encrypt(Encrypt::new("alias/other", "x")).await.expect("permitted").ciphertext_blob;
    let error = client.re_encrypt(ReEncrypt::new(blob, "alias/dev")).await.expect_err("denied");
    assert_eq!(refused(&error), (Code::PermissionDenied, "DENIED_BY_POLICY"));
    let records = broker.stop().await;
    assert_eq!(outcomes_of(&records, "ReEncrypt"), BTreeMap::from([("Denied".into(), 1)]));
}

fn outcomes_of(records: &Records, event_name: &str) -> BTreeMap<String, usize> {
    let mut outcomes = BTreeMap::new();
    for record in records.activity.iter().filter(|record| record["eventName"] == event_name) {
        let outcome = record["additionalEventData"]["outcome"].as_str().expect("an outcome");
        *outcomes.entry(outcome.to_owned()).or_default() += 1;
    }
    outcomes
}
