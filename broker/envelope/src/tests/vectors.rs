//! Proves: messages that AWS published are opened or refused as their publishers say. `tests/fixtures/README.md` says where each
//! is from.

use std::fs;
use std::path::Path;

use aws_lc_rs::aead;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde_json::Value;

use super::*;
use crate::HeaderReader;

/// Format 2 by the SDKs for C, Java, JavaScript and Python: both suites, with frames of 1 to 2,048 bytes and without, and commitments
/// that are wrong.
#[test]
fn commitment_test_vectors() {
    let vectors: Value = serde_json::from_slice(&file("commitment-test-vectors.json")).expect("JSON");
    let (mut opened, mut refused) = (0, 0);
    for vector in vectors["tests"].as_array().expect("a list") {
        let end = open(&base64(&vector["ciphertext"]), base64(&vector["decrypted-dek"]));
        if vector["status"] == true {
            let frames = vector["plaintext-frames"].as_array().expect("a list");
            let plaintext: String = frames.iter().filter_map(Value::as_str).collect();
            assert!(end.is_ok_and(|(opened, _)| opened == plaintext.as_bytes()), "{}", vector["comment"]);
            opened += 1;
        } else {
            assert!(matches!(end, Err(OpenError::Commitment)), "{}: {end:?}", vector["comment"]);
            refused += 1;
        }
    }
    assert_eq!((opened, refused), (41, 5));
}

/// Format 1, all nine suites, each in frames of 1, 2 and 4,096 bytes, with an empty last one, and without frames.
#[test]
fn vectors_of_the_sdk_for_c() {
    let vectors: Value = serde_json::from_slice(&file("sdk-c-vectors.json")).expect("JSON");
    let mut suites = Vec::new();
    for vector in vectors.as_array().expect("a list") {
        let message = base64(&vector["ciphertext"]);
        match open(&message, vec![0; 32]) {
            Ok((opened, suite)) => {
                assert_eq!(opened, base64(&vector["plaintext"]), "{}", vector["name"]);
                suites.push(suite);
            }
            Err(OpenError::FormatOne(id)) => assert!(![0x0178, 0x0378].contains(&id)),
            Err(error) => panic!("{}: {error}", vector["name"]),
        }
    }
    let count = |of: Suite| suites.iter().filter(|suite| **suite == of).count();
    assert_eq!((count(Suite::Uncommitted), count(Suite::UncommittedSigned), suites.len()), (5, 5, 10));
}

#[test]
fn vectors_of_the_sdk_for_javascript() {
    let vectors: Value = serde_json::from_slice(&file("sdk-javascript-vectors.json")).expect("JSON");
    let open = |name: &str| open(&base64(&vectors[name]), vec![0; 32]).map(|(opened, _)| opened);
    let counted: Vec<u8> = (0..=255).cycle().take(40_960).collect();
    for (name, plaintext) in [
        ("base64CiphertextAlgAes256GcmIv12Tag16HkdfSha384EcdsaP384", base64(&vectors["base64Plaintext"])),
        ("base64CiphertextAlgAes256GcmIv12Tag16HkdfWith4Frames", b"asdf".to_vec()),
        ("base64CiphertextAlgAes256GcmIv12Tag16HkdfSha384EcdsaP384With4Frames", b"asdf".to_vec()),
        ("base64CiphertextAlgAes256GcmIv12Tag16Hkdf3FrameLength16384", counted),
        ("base64Ciphertext4BytesWith4KFrameLength", b"asdf".to_vec()),
    ] {
        assert_eq!(open(name).expect(name), plaintext, "{name}");
    }
    let forged = open("invalidSignatureCiphertextAlgAes256GcmIv12Tag16HkdfSha384EcdsaP384");
    assert!(matches!(forged, Err(OpenError::Signature)), "{forged:?}");
}

/// Messages whose data key is under a raw AES or RSA key. Those of the SDK for .NET 4.0.0 are its mistake: it made the header's tag otherwise,
/// so that no other SDK opens them.
#[test]
fn raw_keyring_vectors() {
    let plaintext = file("raw-aes.plaintext");
    for suite in SUITES {
        for (kind, data_key) in [
            ("raw-aes", raw_aes_data_key as fn(&[u8]) -> Vec<u8>),
            ("raw-aes-128", raw_aes_128_data_key),
            ("raw-rsa", raw_rsa_data_key),
        ] {
            let message = file(&format!("{kind}-{suite}.bin"));
            let (opened, found) = open(&message, data_key(&message)).expect(suite);
            assert!(opened == plaintext && format!("{:04x}", found.id()) == suite, "{kind} {suite}");
        }
        let invalid = file(&format!("net-4.0.0-invalid-{suite}.bin"));
        let end = open(&invalid, raw_aes_data_key(&invalid));
        assert!(matches!(end, Err(OpenError::HeaderTag)), "{suite}: {end:?}");
    }
}

/// Messages that are bound to pairs which they do not contain: whoever decrypts has to know them, and a broker takes none from outside.
#[test]
fn vectors_whose_encryption_context_is_elsewhere() {
    for suite in SUITES {
        let message = file(&format!("net-4.0.1-required-{suite}.bin"));
        let in_it = context_of(&message);
        let pairs = b"\0\x04key1\0\x04val1\0\x04key2\0\x04val2";
        // Theirs are last in order: before them is the public key of a signed message.
        let count = 2 + in_it.first_chunk().map_or(0, |count| u16::from_be_bytes(*count));
        let whole = [&count.to_be_bytes(), in_it.get(2..).unwrap_or_default(), pairs].concat();
        let data_key = under_raw_aes(&message, AES_256, &whole);
        let end = open(&message, data_key);
        assert!(matches!(end, Err(OpenError::HeaderTag)), "{suite}: {end:?}");
    }
}

const SUITES: [&str; 4] = ["0178", "0378", "0478", "0578"];
/// The keys of these vectors.
const AES_256: &str = "AAECAwQFBgcICRAREhMUFRYXGBkgISIjJCUmJygpMDE=";
const AES_128: &str = "AAECAwQFBgcICRAREhMUFQ==";

fn raw_aes_data_key(message: &[u8]) -> Vec<u8> {
    under_raw_aes(message, AES_256, context_of(message))
}

fn raw_aes_128_data_key(message: &[u8]) -> Vec<u8> {
    under_raw_aes(message, AES_128, context_of(message))
}

/// The encryption context as the message has it.
fn context_of(message: &[u8]) -> &[u8] {
    let is_committed = header_of(message).facts().suite.is_committed();
    let context = &message[if is_committed { 3 + 32 } else { 4 + 16 }..];
    let length = usize::from(u16::from_be_bytes([context[0], context[1]]));
    &context[2..2 + length]
}

/// The data key of a message, as a raw AES keyring encrypts it (raw-aes-keyring.md).
fn under_raw_aes(message: &[u8], wrapping: &str, aad: &[u8]) -> Vec<u8> {
    let header = header_of(message);
    let [key] = header.encrypted_data_keys() else { panic!("one encrypted data key") };
    // The key's name, the tag's length in bits, the IV's length, the IV.
    let iv: [u8; 12] = *key.provider_info.last_chunk().expect("an IV");
    let wrapping = STANDARD.decode(wrapping).expect("base64");
    let algorithm = if wrapping.len() == 16 { &aead::AES_128_GCM } else { &aead::AES_256_GCM };
    let wrapping = aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, &wrapping).expect("its length"));
    let mut data_key = key.ciphertext.clone();
    let nonce = aead::Nonce::assume_unique_for_key(iv);
    let length = wrapping.open_in_place(nonce, aead::Aad::from(aad), &mut data_key).expect("under it").len();
    data_key.truncate(length);
    data_key
}

/// The same, as a raw RSA keyring does (raw-rsa-keyring.md), with OAEP and SHA-256.
fn raw_rsa_data_key(message: &[u8]) -> Vec<u8> {
    let header = header_of(message);
    let [key] = header.encrypted_data_keys() else { panic!("one encrypted data key") };
    let pem = String::from_utf8(file("raw-rsa.pem")).expect("text");
    let lines: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let private = PrivateDecryptingKey::from_pkcs8(&STANDARD.decode(lines).expect("base64")).expect("a key");
    let private = OaepPrivateDecryptingKey::new(private).expect("a key");
    let mut data_key = vec![0; private.min_output_size()];
    let decrypted = private.decrypt(&OAEP_SHA256_MGF1SHA256, &key.ciphertext, &mut data_key, None);
    let length = decrypted.expect("under this key").len();
    data_key.truncate(length);
    data_key
}

fn header_of(mut message: &[u8]) -> Header {
    HeaderReader::default().push(&mut message).expect("a header").expect("whole")
}

fn open(mut message: &[u8], data_key: Vec<u8>) -> Result<(Vec<u8>, Suite), OpenError> {
    let header = HeaderReader::default().push(&mut message)?.ok_or(OpenError::CutOff(0))?;
    let suite = header.facts().suite;
    Ok((header.open_whole(&Plaintext::new(data_key), message)?.to_vec(), suite))
}

fn base64(text: &Value) -> Vec<u8> {
    // One of the vectors has bits behind its last byte.
    let config = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    let engine = GeneralPurpose::new(&alphabet::STANDARD, config);
    engine.decode(text.as_str().expect("text")).expect("base64")
}

fn file(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/encryption-sdk").join(name);
    fs::read(path).expect("reads")
}
