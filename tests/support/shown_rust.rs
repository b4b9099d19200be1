//! The examples in Rust that documents show, as code: what is not shown is what surrounds them.
#![allow(dead_code, unreachable_pub, reason = "every test file uses another part of this one")]

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use kms_emulator::attestation::{Authority, DocumentClaims};
use kms_emulator::{Emulator, EmulatorConfig, Fault, KeySpec};

use super::documents::Block;

/// Whether the block is code of this file, line by line. Where it has a comment in place of code, there may be any.
pub fn is_compiled(block: &Block) -> Result<(), String> {
    let source: Vec<_> = include_str!("shown_rust.rs").lines().map(str::trim).collect();
    let shown: Vec<_> = block.text.lines().map(str::trim).collect();
    if (0..source.len()).any(|begin| is_at(&source[begin..], &shown)) {
        Ok(())
    } else {
        Err("tests/support/shown_rust.rs, which compiles the examples, has another one".to_owned())
    }
}

fn is_at(source: &[&str], shown: &[&str]) -> bool {
    let (mut rest, mut is_left_out) = (source, false);
    for line in shown {
        let found = if is_left_out { rest.iter().position(|it| it == line) } else { Some(0) };
        let Some(rest_of_it) = found.map(|place| &rest[place..]) else { return false };
        if rest_of_it.first() != Some(line) {
            return false;
        }
        (rest, is_left_out) = (&rest_of_it[1..], line.starts_with("// …"));
    }
    !shown.is_empty()
}

/// An application in an enclave. It is compiled only: it takes a Nitro enclave; `tests/enclave_guest.rs` runs one that is emulated.
#[rustfmt::skip]
pub async fn application_in_an_enclave() -> Result<(), Box<dyn Error>> {
    use key_broker_client::enclave::{Enclave, Nsm};
    use key_broker_client::{Client, GenerateDataKey};
    const KEY_ARN: &str = "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    let client = Client::vsock(Client::PARENT_CID, Client::DEFAULT_VSOCK_PORT).await?;
    let enclave = Enclave::new(client, Nsm::open()?)?;
    let data_key = enclave.generate_data_key(GenerateDataKey::aes_256(KEY_ARN).context("purpose", "orders")).await?;

    drop(data_key);
    Ok(())
}

/// A test of others, with the emulator: it is throttled three times, then answers.
#[rustfmt::skip]
pub async fn test_with_the_emulator() -> Result<(), Box<dyn Error>> {
    let kms = Emulator::start(EmulatorConfig::default()).await?;
    let arn = kms.ensure_key("alias/orders", KeySpec::SymmetricDefault)?;
    kms.inject(Fault::throttling().on("GenerateDataKey").times(3));
    // … an SDK pointed at kms.endpoint_url() …
    let endpoint = kms.endpoint_url();
    for wanted in ["400", "400", "400", "200"] {
        assert_eq!(tokio::task::block_in_place(|| status_of_a_call(&endpoint, &arn))?, wanted);
    }
    assert_eq!(kms.call_count("GenerateDataKey"), 4);

    key_taken_away(&kms)?;
    kms.shutdown().await;
    Ok(())
}

#[rustfmt::skip]
fn key_taken_away(kms: &Emulator) -> Result<(), Box<dyn Error>> {
    let policy = r#"{ "Statement": { "Effect": "Allow", "Action": "kms:Decrypt", "Resource": "*" } }"#;

    kms.put_key_policy("alias/orders", r#"{ "Statement": {
        "Effect": "Allow", "Principal": { "AWS": "arn:aws:iam::111122223333:role/key-broker-dev" },
        "Action": ["kms:GenerateDataKey", "kms:Decrypt"], "Resource": "*",
        "Condition": { "StringEquals": { "kms:EncryptionContext:tenant": ["acme", "umbrella"] } } } }"#)?;
    kms.put_role_policy("arn:aws:iam::111122223333:role/key-broker-dev", policy)?;
    kms.rotate_key("alias/orders")?;
    kms.set_enabled("alias/orders", false)?;
    kms.ensure_external_key("alias/imported")?;
    kms.import_material("alias/imported", &[7; 32], Some(Duration::from_hours(1)))?;
    kms.delete_material("alias/imported")?;
    kms.advance(Duration::from_hours(1))?;

    Ok(())
}

/// An emulator that believes an authority of its own.
#[rustfmt::skip]
pub async fn attested_callers(unix_millis: u64, rsa_public_key_der: Vec<u8>) -> Result<Vec<u8>, Box<dyn Error>> {
    let authority = Authority::generate();
    let roots = vec![authority.root_der()];
    let kms = Emulator::start(EmulatorConfig { attestation_roots: roots, ..EmulatorConfig::default() }).await?;
    kms.ensure_key("alias/orders", KeySpec::SymmetricDefault)?;
    kms.require_attestation("alias/orders", &[("kms:RecipientAttestation:PCR0", &"01".repeat(48))])?;
    let document = authority.document(&DocumentClaims::enclave(unix_millis).with_public_key(rsa_public_key_der));

    kms.shutdown().await;
    Ok(document)
}

/// The HTTP status of a GenerateDataKey.
fn status_of_a_call(endpoint: &str, key_id: &str) -> Result<String, Box<dyn Error>> {
    let address = endpoint.strip_prefix("http://").ok_or("no http endpoint")?;
    let body = format!(r#"{{"KeyId":"{key_id}","KeySpec":"AES_256"}}"#);
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/x-amz-json-1.1\r\n\
         x-amz-target: TrentService.GenerateDataKey\r\nauthorization: AWS4-HMAC-SHA256 \
         Credential=AKIATESTEXAMPLE00000/20260101/us-west-2/kms/aws4_request, SignedHeaders=host, Signature=00\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_whitespace().nth(1).unwrap_or_default().to_owned())
}
