//! A signing key in a PEM file, made for one test; and signatures, made and checked without the broker.

use std::fs;
use std::path::Path;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use key_broker_trail::PublicKey;
use key_broker_trail::delivery::public_key_of;

/// Writes `signing.pem` into `dir`, as `openssl genrsa 2048` would; returns its public half.
pub fn write_key(dir: &Path) -> PublicKey {
    let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
    let der: Pkcs8V1Der<'_> = pair.as_der().expect("encodes");
    let base64 = BASE64.encode(der.as_ref());
    let lines: Vec<&str> =
        base64.as_bytes().chunks(64).map(|line| str::from_utf8(line).expect("ASCII")).collect();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
    let path = dir.join("signing.pem");
    fs::write(&path, pem).expect("writes");
    public_key_of(&path).expect("reads")
}

/// RSASSA-PKCS1-v1_5 with SHA-256, by the key in this file.
pub fn sign(key: &Path, message: &[u8]) -> Vec<u8> {
    let pair = KeyPair::from_pkcs8(&der(&fs::read_to_string(key).expect("reads"))).expect("a key");
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).expect("signs");
    signature
}

/// Whether `signature` is of `key` and `message`.
pub fn verifies(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der(&key.to_pem()));
    key.verify(message, signature).is_ok()
}

/// What is between the lines that begin and end a PEM file.
fn der(pem: &str) -> Vec<u8> {
    let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    BASE64.decode(base64).expect("base64")
}
