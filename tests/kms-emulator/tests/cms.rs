//! Proves that `CiphertextForRecipient` is what KMS sends, in each form, and that OpenSSL opens it.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod ber;
mod fixtures;
mod support;

use std::process::Command;

use kms_emulator::attestation::{Authority, DocumentClaims};
use kms_emulator::{Emulator, EmulatorConfig, KeySpec, RecipientForm};
use serde_json::json;

use ber::{Element, Enclave, open_content};
use support::{ALIAS, Client, base64, now};

const FORMS: [RecipientForm; 3] =
    [RecipientForm::BerConstructed, RecipientForm::BerPrimitive, RecipientForm::Der];

/// What `Decrypt` gives an enclave that asks for this plaintext.
async fn ciphertext_for(enclave: &Enclave, plaintext: &[u8], recipient_form: RecipientForm) -> Vec<u8> {
    let authority = Authority::generate();
    let config = EmulatorConfig {
        attestation_roots: vec![authority.root_der()],
        recipient_form,
        ..EmulatorConfig::default()
    };
    let emulator = Emulator::start(config).await.unwrap();
    emulator.ensure_key(ALIAS, KeySpec::SymmetricDefault).unwrap();
    let mut client = Client::connect(&emulator.endpoint_url()).await;
    let encrypt = json!({ "KeyId": ALIAS, "Plaintext": base64(plaintext) });
    let blob = client.call("Encrypt", encrypt).await.text("CiphertextBlob");
    let document = authority.document(&DocumentClaims::enclave(now()).with_public_key(enclave.public_key()));
    let recipient =
        json!({ "AttestationDocument": base64(&document), "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256" });
    let answer = client.call("Decrypt", json!({ "CiphertextBlob": blob, "Recipient": recipient })).await;
    answer.bytes("CiphertextForRecipient")
}

#[tokio::test]
async fn every_form_opens_at_every_length() {
    let enclave = Enclave::new();
    for form in FORMS {
        for length in [1, 15, 16, 17, 32, 984, 999, 1000, 4096] {
            let plaintext = vec![7; length];
            let ciphertext = ciphertext_for(&enclave, &plaintext, form).await;
            assert_eq!(enclave.open(&ciphertext), plaintext, "{form} {length}");
        }
    }
}

#[tokio::test]
async fn every_form_opens_with_openssl() {
    let enclave = Enclave::new();
    let directory = tempfile::tempdir().unwrap();
    let (key, message) = (directory.path().join("key.der"), directory.path().join("message.ber"));
    std::fs::write(&key, enclave.private_key()).unwrap();
    for (form, length) in FORMS.into_iter().flat_map(|form| [(form, 32), (form, 4096)]) {
        let plaintext = vec![0x5a; length];
        std::fs::write(&message, ciphertext_for(&enclave, &plaintext, form).await).unwrap();
        let openssl = Command::new("openssl")
            .args(["cms", "-decrypt", "-binary", "-inform", "DER", "-keyform", "DER", "-inkey"])
            .arg(&key)
            .arg("-in")
            .arg(&message)
            .output()
            .expect("openssl is installed");
        let said = String::from_utf8_lossy(&openssl.stderr);
        assert!(openssl.status.success() && openssl.stdout == plaintext, "{form} {length}: {said}");
    }
}

#[tokio::test]
async fn the_default_form_is_that_of_genuine_output() {
    // As long as what the first one holds, "hello world - goodbye world!", and what the second may hold: a data key.
    for (name, length) in [("cms/ned-kms-decrypt.ber", 28), ("cms/sdkc-input_ber.ber", 32)] {
        let genuine = fixtures::read(name);
        let ours = ciphertext_for(&Enclave::new(), &vec![7; length], RecipientForm::default()).await;
        assert_eq!(Element::read(&ours).skeleton(), Element::read(&genuine).skeleton(), "{name}");
        assert_eq!(ours.len(), genuine.len());
        let fixed = [0..33, 65..131, 387..415, 431..435];
        for range in fixed {
            assert_eq!(ours[range.clone()], genuine[range.clone()], "{name}: {range:?}");
        }
    }
}

#[test]
fn a_genuine_message_opens_with_the_reader_of_these_tests() {
    let (message, key) =
        (fixtures::read("cms/ned-kms-decrypt.ber"), fixtures::read("cms/ned-kms-decrypt.cek"));
    assert_eq!(open_content(&Element::read(&message), &key), b"hello world - goodbye world!");
}

#[tokio::test]
async fn the_other_forms_differ_where_they_must() {
    let enclave = Enclave::new();
    let constructed = Element::read(&ciphertext_for(&enclave, &[7; 2500], RecipientForm::default()).await);
    let content = constructed.at(&[1, 0, 2, 2]);
    let pieces: Vec<_> = content.children.iter().map(|piece| piece.content.len()).collect();
    assert_eq!((content.tag, content.length, pieces), (0xa0, None, vec![1000, 1000, 512]));
    let primitive = Element::read(&ciphertext_for(&enclave, &[7; 32], RecipientForm::BerPrimitive).await);
    let content = primitive.at(&[1, 0, 2, 2]);
    assert_eq!((primitive.length, content.tag, content.length), (None, 0x80, Some(48)));
    let der = Element::read(&ciphertext_for(&enclave, &[7; 32], RecipientForm::Der).await);
    assert!(!der.skeleton().contains("indefinite"), "{}", der.skeleton());
}

#[tokio::test]
async fn nothing_repeats() {
    let enclave = Enclave::new();
    let one = Element::read(&ciphertext_for(&enclave, &[7; 32], RecipientForm::default()).await);
    let two = Element::read(&ciphertext_for(&enclave, &[7; 32], RecipientForm::default()).await);
    for path in [&[1, 0, 1, 0, 3][..], &[1, 0, 2, 1, 1], &[1, 0, 2, 2]] {
        assert_ne!(one.at(path).octets(), two.at(path).octets(), "{path:?}");
    }
    assert_eq!(one.at(&[1, 0, 1, 0, 1]).content, two.at(&[1, 0, 1, 0, 1]).content, "the same key's id");
    assert_eq!(one.at(&[1, 0, 1, 0, 1]).content.len(), 32);
}
