//! A signing key in a PEM file, made for one test.

use std::fs;
use std::path::Path;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use key_broker_trail::{PublicKey, Signer};

/// Writes `signing.pem` into `dir`, as `openssl genrsa 2048` would; returns its public half.
pub fn write_key(dir: &Path) -> PublicKey {
    let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
    let der: Pkcs8V1Der<'_> = pair.as_der().expect("encodes");
    let base64 = BASE64.encode(der.as_ref());
    let lines: Vec<&str> =
        base64.as_bytes().chunks(64).map(|line| str::from_utf8(line).expect("ASCII")).collect();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
    fs::write(dir.join("signing.pem"), &pem).expect("writes");
    Signer::from_pem(pem.as_bytes()).expect("reads").public_key().clone()
}
