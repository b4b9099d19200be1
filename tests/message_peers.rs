//! Proves: what a broker encrypts, whole and in parts, the AWS Encryption SDKs for Python, JavaScript, Java and Go open with the KMS key alone;
//! and what they encrypt, with each suite that a broker takes, framed and not, under several keys, a broker decrypts.

#[path = "peers/mod.rs"]
mod peers;
#[path = "peers/sdks.rs"]
mod sdks;
mod support;

use std::collections::BTreeMap;
use std::fs;

use bytes::Bytes;
use futures_util::stream;
use key_broker_client::{Client, DecryptMessage, EncryptMessage, Error};
use sdks::{Bench, Sdk, Wish, plaintext};
use serde_json::json;
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn the_sdk_for_python_opens_what_a_broker_encrypts() {
    opens_what_a_broker_encrypts(Sdk::Python).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn a_broker_decrypts_what_the_sdk_for_python_encrypts() {
    encrypts_what_a_broker_decrypts(Sdk::Python).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn the_sdk_for_javascript_opens_what_a_broker_encrypts() {
    opens_what_a_broker_encrypts(Sdk::JavaScript).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn a_broker_decrypts_what_the_sdk_for_javascript_encrypts() {
    encrypts_what_a_broker_decrypts(Sdk::JavaScript).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn the_sdk_for_java_opens_what_a_broker_encrypts() {
    opens_what_a_broker_encrypts(Sdk::Java).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn a_broker_decrypts_what_the_sdk_for_java_encrypts() {
    encrypts_what_a_broker_decrypts(Sdk::Java).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn the_sdk_for_go_opens_what_a_broker_encrypts() {
    opens_what_a_broker_encrypts(Sdk::Go).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn a_broker_decrypts_what_the_sdk_for_go_encrypts() {
    encrypts_what_a_broker_decrypts(Sdk::Go).await;
}

async fn opens_what_a_broker_encrypts(sdk: Sdk) {
    let bench = Bench::start(false).await;
    let client = bench.broker.client().await;
    let mut messages = Vec::new();
    for (length, context) in WHOLE.map(|length| (length, pairs())).into_iter().chain([(10, long_context(0))])
    {
        let request = with(EncryptMessage::new("alias/dev", plaintext(length)), &context);
        let message = client.encrypt_message(request).await.expect("encrypted").message;
        messages.push((bench.write(&format!("whole-{length}"), &message), length, context));
    }
    for (length, context) in [(0, pairs()), (4_097, long_context(0)), (100 << 20, pairs())] {
        let message = in_parts(&client, length, &context).await.expect("encrypted");
        messages.push((bench.write(&format!("parts-{length}"), &message), length, context));
    }
    let paths: Vec<_> = messages.iter().map(|(path, ..)| path.as_path()).collect();
    let seen = bench.open(sdk, &paths).await;
    assert_eq!(seen.len(), messages.len());
    for (case, (path, length, context)) in seen.iter().zip(&messages) {
        assert_eq!(case["suite"], sdk.suites()[0], "{}", path.display());
        assert_eq!(case["context"], json!(context), "{}", path.display());
        let opened = fs::read(format!("{}.opened", path.display())).expect("it was opened");
        assert!(opened == plaintext(*length), "{}", path.display());
    }
}

async fn encrypts_what_a_broker_decrypts(sdk: Sdk) {
    let bench = Bench::start(true).await;
    let client = bench.broker.client().await;
    // The broker knows one of the two keys: what it may not use, or KMS does not have, it passes over.
    let other = bench.broker.emulator.ensure_key("alias/other", kms_emulator::KeySpec::SymmetricDefault);
    let (dev, other) = (bench.broker.key_arn.as_str(), other.expect("a key"));
    let wishes = wishes(&bench, sdk);
    bench.seal(sdk, &[&other, dev], &wishes).await;
    for wish in &wishes {
        let case = wish.name();
        let message = Bytes::from(fs::read(&wish.to).expect("sealed"));
        if wish.length <= LONGEST_WHOLE {
            decrypts_whole(&client, &message, wish, dev).await;
        }
        let in_parts = |signed| decrypt_in_parts(&client, &message, signed);
        if wish.frame_length == 0 && wish.length > LONGEST_UNFRAMED_IN_PARTS {
            let error = in_parts(true).await.expect_err(&case);
            assert_eq!(reason(&error), (Code::InvalidArgument, "INVALID_MESSAGE"), "{case}: {error}");
            continue;
        }
        if wish.is_signed() {
            let error = in_parts(false).await.expect_err("without consent");
            assert_eq!(reason(&error), (Code::FailedPrecondition, "SUITE_NOT_ALLOWED"), "{case}: {error}");
        }
        let opened = in_parts(wish.is_signed()).await.unwrap_or_else(|error| panic!("{case}: {error}"));
        assert!(opened == plaintext(wish.length), "{case}");
    }
}

/// What an SDK is to write: each suite, in frames of several lengths and in none, around the ends of frames, and long ones.
fn wishes(bench: &Bench, sdk: Sdk) -> Vec<Wish> {
    let mut wishes = Vec::new();
    for (place, suite) in sdk.suites().into_iter().enumerate() {
        let unframed = sdk.writes_unframed().then_some(0);
        for frame_length in [4_096].into_iter().chain(unframed) {
            let wish = |length| bench.wish(suite, frame_length, length, &pairs());
            wishes.extend(WHOLE.map(wish));
            // The key that proves a signature is in the context, too.
            let public_key = if suite.contains("ECDSA") { PUBLIC_KEY_PAIR } else { 0 };
            wishes.push(bench.wish(suite, frame_length, 10, &long_context(public_key)));
        }
        // Streams have no longest: this many bytes of the suite that a broker writes, and by one SDK of each that it reads.
        let long = if place == 0 || sdk == Sdk::Python { 100 << 20 } else { LONGEST_WHOLE + 1 };
        for (frame_length, length) in [(128, 1_000), (1 << 20, LONGEST_WHOLE), (4_096, long)] {
            wishes.push(bench.wish(suite, frame_length, length, &pairs()));
        }
    }
    wishes
}

/// In one call, whichever key is named; and not if its last byte is another.
async fn decrypts_whole(client: &Client, message: &Bytes, wish: &Wish, key: &str) {
    let case = wish.name();
    let request = || with_expected(DecryptMessage::new(message.clone()), &wish.context);
    let decrypted = client.decrypt_message(request()).await.unwrap_or_else(|e| panic!("{case}: {e}"));
    assert!(decrypted.plaintext.expose() == plaintext(wish.length), "{case}");
    assert_eq!(decrypted.encryption_context, wish.context, "{case}: without what the SDK keeps for itself");
    if wish.length == LONGEST_WHOLE {
        return;
    }
    let named = client.decrypt_message(request().key_id("alias/dev")).await.expect("one of its keys");
    assert_eq!(named.key_id, key, "{case}");
    // The end of a signature, or of a tag, that is another's is found, and nothing of it leaves.
    let mut forged = message.to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let error = client.decrypt_message(DecryptMessage::new(forged)).await.expect_err("forged");
    assert_eq!(reason(&error), (Code::InvalidArgument, "INVALID_MESSAGE"), "{case}: {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn suites_without_commitment_are_off() {
    let bench = Bench::start(false).await;
    let client = bench.broker.client().await;
    let [_, _, plain, signed] = Sdk::Python.suites();
    let wishes =
        [plain, signed, "AES_256_GCM_IV12_TAG16"].map(|suite| bench.wish(suite, 4_096, 1_000, &pairs()));
    bench.seal(Sdk::Python, &[&bench.broker.key_arn], &wishes).await;
    for wish in &wishes {
        let message = fs::read(&wish.to).expect("sealed");
        let error = client.decrypt_message(DecryptMessage::new(message)).await.expect_err("refused");
        assert_eq!(
            reason(&error),
            (Code::FailedPrecondition, "SUITE_NOT_ALLOWED"),
            "{}: {error}",
            wish.name()
        );
    }
    assert_eq!(bench.broker.emulator.call_count("Decrypt"), 0);
}

async fn in_parts(
    client: &Client,
    length: usize,
    context: &BTreeMap<String, String>,
) -> Result<Bytes, Error> {
    let all = Bytes::from(plaintext(length));
    let parts: Vec<_> =
        (0..length).step_by(500_000).map(|at| all.slice(at..(at + 500_000).min(length))).collect();
    let request = with(EncryptMessage::new("alias/dev", ""), context);
    let mut stream = client.encrypt_message_stream(&request, None, stream::iter(parts)).await?;
    let mut message = Vec::new();
    while let Some(part) = stream.next().await? {
        message.extend_from_slice(&part);
    }
    Ok(message.into())
}

async fn decrypt_in_parts(client: &Client, message: &Bytes, signed: bool) -> Result<Vec<u8>, Error> {
    let parts: Vec<_> = message.chunks(65_536).map(Bytes::copy_from_slice).collect();
    let request = DecryptMessage::new("");
    let mut stream = client.decrypt_message_stream(&request, signed, stream::iter(parts)).await?;
    let mut plaintext = Vec::new();
    while let Some(part) = stream.next().await? {
        plaintext.extend_from_slice(part.expose());
    }
    Ok(plaintext)
}

fn with(request: EncryptMessage, pairs: &BTreeMap<String, String>) -> EncryptMessage {
    pairs.iter().fold(request, |request, (name, value)| request.context(name, value))
}

fn with_expected(request: DecryptMessage, pairs: &BTreeMap<String, String>) -> DecryptMessage {
    pairs.iter().fold(request, |request, (name, value)| request.context(name, value))
}

/// With letters beyond ASCII.
fn pairs() -> BTreeMap<String, String> {
    BTreeMap::from([("tenant".into(), "acme".into()), ("purpose".into(), "épreuve".into())])
}

/// As long as KMS takes it, but for so many bytes.
fn long_context(less: usize) -> BTreeMap<String, String> {
    BTreeMap::from([("name".to_owned(), "x".repeat(8_192 - 4 - less))])
}

fn reason(error: &Error) -> (Code, &str) {
    (error.code(), error.reason().expect("a reason"))
}

/// Nothing, and around the end of a frame; and as much as goes in one call.
const WHOLE: [usize; 6] = [0, 1, 4_095, 4_096, 4_097, LONGEST_WHOLE];
const LONGEST_WHOLE: usize = 3 << 20;
/// What has no frames is held in memory.
const LONGEST_UNFRAMED_IN_PARTS: usize = 1 << 20;
/// `aws-crypto-public-key`, and a point of the curve P-384 in Base64.
const PUBLIC_KEY_PAIR: usize = 21 + 68;
