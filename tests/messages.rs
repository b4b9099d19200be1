//! Proves: messages are encrypted and decrypted within the broker, whole and in parts, for whom policy permits it; what a record says
//! of a message is so; and what records charge to a data key is what was encrypted under it.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use key_broker_client::{Client, Decrypt, DecryptMessage, EncryptMessage, Error, GenerateDataKey};
use key_broker_core::Bounds;
use key_broker_envelope::HeaderReader;
use kms_emulator::KeySpec;
use serde_json::Value;
use support::formats::sha256_hex;
use support::{Records, Setup, TestBroker, eventually, id, reuse, rule};
use tonic::Code;

async fn broker() -> TestBroker {
    TestBroker::with(Setup { reuse: reuse(rule()), ..Setup::default() }).await
}

fn plaintext(length: usize) -> Bytes {
    (0..=250_u8).cycle().take(length).collect::<Vec<_>>().into()
}

fn encrypt(length: usize) -> EncryptMessage {
    EncryptMessage::new("alias/dev", plaintext(length)).context("tenant", "acme")
}

fn decrypt(message: &Bytes) -> DecryptMessage {
    DecryptMessage::new(message.clone()).context("tenant", "acme")
}

/// The header's SHA-256, and the ciphertext of its one data key, as whoever has the message finds them.
fn header_of(message: &[u8]) -> (String, Bytes) {
    let header = HeaderReader::default().push(&mut &message[..]).expect("a header").expect("whole");
    let (_, ciphertext) = header.encrypted_data_keys()[0].for_kms().expect("of KMS");
    (hex::encode(header.facts().sha256), Bytes::copy_from_slice(ciphertext.as_bytes()))
}

fn message_in(record: &Value) -> &Value {
    &record["additionalEventData"]["message"]
}

fn refused(error: &Error) -> (Code, &str) {
    (error.code(), error.reason().expect("a reason"))
}

#[tokio::test]
async fn what_is_encrypted_is_decrypted_and_recorded_by_its_header() {
    let broker = broker().await;
    let client = broker.client().await;
    let mut seen = Vec::new();
    for length in [0, 1, 4_095, 4_096, 4_097, 100_000, 3 << 20] {
        let encrypted = client.encrypt_message(encrypt(length)).await.expect("encrypted");
        assert_eq!(
            encrypted.provenance.messages_used,
            seen.len() as u64 + 1,
            "{length}: one data key for all"
        );
        assert_eq!(encrypted.provenance.messages_limit, 1 << 32);
        let decrypted = client.decrypt_message(decrypt(&encrypted.message)).await.expect("decrypted");
        assert!(decrypted.plaintext.expose() == plaintext(length), "{length}");
        assert_eq!(decrypted.encryption_context, BTreeMap::from([("tenant".into(), "acme".into())]));
        assert_eq!((decrypted.key_id, &encrypted.key_id), (broker.key_arn.clone(), &broker.key_arn));
        seen.push((length, encrypted.message));
    }
    assert_eq!(broker.emulator.call_count("GenerateDataKey"), 1);
    assert_eq!(broker.emulator.call_count("Decrypt"), 1, "all messages have one data key");
    let records = broker.stop().await;
    for (length, message) in &seen {
        let (header, ciphertext) = header_of(message);
        let of = |action: &str| {
            let is_its = |record: &&Value| {
                record["eventName"] == action && message_in(record)["headerSHA256"] == header.as_str()
            };
            let mut found = records.activity.iter().filter(is_its);
            (found.next().unwrap_or_else(|| panic!("no {action} of {length}")), found.next())
        };
        let ((encrypted, None), (decrypted, None)) = (of("EncryptMessage"), of("DecryptMessage")) else {
            panic!("two records of one call");
        };
        for record in [encrypted, decrypted] {
            let told = message_in(record);
            assert_eq!((&told["suite"], &told["encryptedDataKeys"]), (&"0x0478".into(), &1.into()));
            assert_eq!(told["length"], message.len());
            assert_eq!(told["plaintextLength"], *length);
        }
        assert_eq!(encrypted["requestParameters"]["use"]["bytes"], *length);
        let data_key = &encrypted["additionalEventData"]["dataKey"];
        assert_eq!(data_key["ciphertextBlobSHA256"], sha256_hex(&ciphertext));
        assert_eq!(decrypted["requestParameters"]["ciphertextBlobSHA256"], sha256_hex(&ciphertext));
    }
}

/// A message in parts of so many bytes.
async fn encrypt_in_parts(
    client: &Client,
    length: usize,
    part: usize,
    declared: Option<u64>,
) -> Result<Bytes, Error> {
    let parts: Vec<_> = plaintext(length).chunks(part).map(Bytes::copy_from_slice).collect();
    let request = EncryptMessage::new("alias/dev", "").context("tenant", "acme");
    let mut stream = client.encrypt_message_stream(&request, declared, stream::iter(parts)).await?;
    let mut message = Vec::new();
    while let Some(part) = stream.next().await? {
        message.extend_from_slice(&part);
    }
    Ok(message.into())
}

async fn decrypt_in_parts(client: &Client, message: &Bytes, part: usize) -> Result<Vec<u8>, Error> {
    let parts: Vec<_> = message.chunks(part).map(Bytes::copy_from_slice).collect();
    let request = DecryptMessage::new("").context("tenant", "acme");
    let mut stream = client.decrypt_message_stream(&request, false, stream::iter(parts)).await?;
    let mut plaintext = Vec::new();
    while let Some(part) = stream.next().await? {
        plaintext.extend_from_slice(part.expose());
    }
    Ok(plaintext)
}

#[tokio::test]
async fn a_message_in_parts_is_the_same_and_its_end_is_recorded() {
    let broker = broker().await;
    let client = broker.client().await;
    let mut messages = Vec::new();
    for (length, part, declared) in [
        (0, 1, None),
        (0, 1, Some(0)),
        (10_000, 7, None),
        (5 << 20, 65_536, Some(5 << 20)),
        (1 << 20, 500_000, None),
    ] {
        let message = encrypt_in_parts(&client, length, part, declared).await.expect("encrypted");
        for part in [1 << 16, 500_000] {
            let decrypted = decrypt_in_parts(&client, &message, part).await.expect("decrypted");
            assert!(decrypted == plaintext(length), "{length}");
        }
        messages.push((length, message, declared));
    }
    // Whole or in parts, a message is a message.
    let whole = client.decrypt_message(decrypt(&messages[2].1)).await.expect("decrypted");
    assert!(whole.plaintext.expose() == plaintext(10_000));
    // Those whose length was declared share a data key.
    assert_eq!(broker.emulator.call_count("GenerateDataKey"), 4);
    let records = broker.stop().await;
    for (length, message, declared) in &messages {
        let (header, _) = header_of(message);
        let of_it = |record: &&Value| {
            record["eventName"] == "EncryptMessage" && message_in(record)["headerSHA256"] == header.as_str()
        };
        let found: Vec<_> = records.activity.iter().filter(of_it).collect();
        let [began, ended] = found[..] else { panic!("{} records", found.len()) };
        assert_eq!(ended["additionalEventData"]["endsEventID"], began["eventID"]);
        assert_eq!(ended["requestID"], began["requestID"]);
        assert_eq!(ended["additionalEventData"]["outcome"], "Allowed");
        assert_eq!(message_in(ended)["length"], message.len());
        assert_eq!(message_in(ended)["plaintextLength"], *length);
        // Nothing is declared by leaving it out: a length of 0 is one.
        for record in [began, ended] {
            assert_eq!(record["requestParameters"]["use"]["bytes"].as_u64(), *declared);
        }
        assert!(ended["additionalEventData"]["dataKey"].is_null(), "nothing is charged twice");
    }
}

#[tokio::test]
async fn a_stream_that_is_left_says_how_far_it_came() {
    let broker = broker().await;
    let socket = broker.socket();
    // A caller of its own, that is gone at once, with its connection.
    let caller = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let client = Client::unix(socket).await.expect("the broker listens");
            let endless = stream::iter([plaintext(100_000)]).chain(stream::pending());
            let request = EncryptMessage::new("alias/dev", "").context("tenant", "acme");
            let mut stream = client.encrypt_message_stream(&request, None, endless).await.expect("begun");
            let mut came = 0;
            while came < 90_000 {
                came += stream.next().await.expect("goes on").expect("goes on").len();
            }
        });
        runtime.shutdown_background();
    });
    caller.await.expect("no panic");
    let ended = || {
        let ends = |record: &Value| !record["additionalEventData"]["endsEventID"].is_null();
        broker.records().activity.into_iter().find(ends)
    };
    eventually("its end is recorded", || ended().is_some()).await;
    let ended = ended().expect("just seen");
    assert_eq!(ended["additionalEventData"]["outcome"], "Aborted");
    assert_eq!(message_in(&ended)["plaintextLength"], 100_000);
}

#[tokio::test]
async fn another_length_than_declared_is_refused_before_more_leaves() {
    let broker = broker().await;
    let client = broker.client().await;
    for (length, declared) in [(10_000, 9_999), (10_000, 10_001), (1, 0)] {
        let error = encrypt_in_parts(&client, length, 3_000, Some(declared)).await.expect_err("refused");
        assert_eq!(refused(&error), (Code::InvalidArgument, "MALFORMED_REQUEST"), "{error}");
    }
    let records = broker.stop().await;
    for ended in records.activity.iter().filter(|r| !r["additionalEventData"]["endsEventID"].is_null()) {
        assert_eq!(ended["additionalEventData"]["outcome"], "Rejected");
        let declared = ended["requestParameters"]["use"]["bytes"].as_u64().expect("declared");
        assert!(message_in(ended)["plaintextLength"].as_u64().expect("a length") <= declared);
    }
}

#[tokio::test]
async fn a_message_that_is_not_what_is_expected_is_refused() {
    let broker = broker().await;
    let client = broker.client().await;
    let other = broker.emulator.ensure_key("alias/other", KeySpec::SymmetricDefault).expect("a key");
    let message = client.encrypt_message(encrypt(5_000)).await.expect("encrypted").message;
    let cases = [
        (DecryptMessage::new(message.clone()).context("tenant", "other"), "ENCRYPTION_CONTEXT_MISMATCH"),
        (decrypt(&message).context("purpose", "x"), "ENCRYPTION_CONTEXT_MISMATCH"),
        (decrypt(&message).key_id("alias/other"), "INCORRECT_KEY"),
        (decrypt(&message).key_id(&other), "INCORRECT_KEY"),
        (DecryptMessage::new(message.slice(..message.len() - 1)), "INVALID_MESSAGE"),
        (DecryptMessage::new(message.slice(..100)), "INVALID_MESSAGE"),
        (DecryptMessage::new("hello"), "INVALID_MESSAGE"),
        (DecryptMessage::new(""), "INVALID_MESSAGE"),
    ];
    for (request, reason) in cases {
        let error = client.decrypt_message(request).await.expect_err(reason);
        assert_eq!(refused(&error), (Code::InvalidArgument, reason), "{error}");
    }
    // Any byte that is altered. Of the encrypted data key, KMS tells.
    for place in [0, 2, 40, 60, 90, 200, 400, 700, message.len() - 20, message.len() - 1] {
        let mut altered = message.to_vec();
        altered[place] ^= 1;
        let error = client.decrypt_message(DecryptMessage::new(altered)).await.expect_err("altered");
        assert_ne!(error.code(), Code::Internal, "{place}: {error}");
    }
    for named in ["alias/dev", &broker.key_arn] {
        client.decrypt_message(decrypt(&message).key_id(named)).await.expect("its own key");
    }
    for (name, value) in [("aws-crypto-public-key", "x"), ("empty", "")] {
        let error = client.encrypt_message(encrypt(1).context(name, value)).await.expect_err(name);
        assert_eq!(refused(&error), (Code::InvalidArgument, "MALFORMED_REQUEST"), "{error}");
    }
    let error = client.encrypt_message(encrypt((3 << 20) + 1)).await.expect_err("too long");
    assert_eq!(refused(&error), (Code::InvalidArgument, "MALFORMED_REQUEST"), "{error}");
    assert!(error.to_string().contains("EncryptMessageStream"), "{error}");
    let error = client.encrypt_message(encrypt(5 << 20)).await.expect_err("far too long");
    assert_eq!(refused(&error), (Code::InvalidArgument, "REQUEST_TOO_LARGE"), "{error}");
}

#[tokio::test]
async fn policy_permits_messages_apart_from_data_keys() {
    let uid = rustix::process::geteuid().as_raw();
    let policy = format!(
        r#"permit(principal == Workload::"unix:uid/{uid}", action == Action::"EncryptMessage", resource)
             when {{ context.bytes <= 1000 && context.encryptionContext.hasTag("tenant") }};
           permit(principal == Workload::"unix:uid/{uid}", action == Action::"Decrypt", resource);"#
    );
    let broker = TestBroker::with(Setup { policy, reuse: reuse(rule()), ..Setup::default() }).await;
    let client = broker.client().await;
    let message = client.encrypt_message(encrypt(1_000)).await.expect("permitted").message;
    for request in [encrypt(1_001), EncryptMessage::new("alias/dev", "x")] {
        let error = client.encrypt_message(request).await.expect_err("denied");
        assert_eq!(refused(&error), (Code::PermissionDenied, "DENIED_BY_POLICY"), "{error}");
    }
    let error = client.decrypt_message(decrypt(&message)).await.expect_err("denied");
    assert_eq!(refused(&error), (Code::PermissionDenied, "DENIED_BY_POLICY"), "{error}");
    let error = decrypt_in_parts(&client, &message, 100).await.expect_err("denied");
    assert_eq!(refused(&error), (Code::PermissionDenied, "DENIED_BY_POLICY"), "{error}");
    let error = client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect_err("denied");
    assert_eq!(refused(&error), (Code::PermissionDenied, "DENIED_BY_POLICY"), "{error}");
    // Who may decrypt the data key by itself may decrypt the message: with an SDK, and not here.
    let (_, ciphertext) = header_of(&message);
    client.decrypt(Decrypt::new(ciphertext).context("tenant", "acme")).await.expect("permitted");
    assert_eq!(broker.emulator.call_count("GenerateDataKey"), 1);
    let records = broker.stop().await;
    assert!(records.activity_of(id(&error))["requestParameters"]["keyId"].is_string());
}

#[tokio::test]
async fn a_long_message_is_read_for_nobody_who_could_not_be_permitted() {
    let policy = r#"permit(principal, action == Action::"Decrypt", resource);"#;
    let broker = TestBroker::with(Setup { policy: policy.into(), ..Setup::default() }).await;
    let client = broker.client().await;
    for request in [encrypt(1), encrypt(3 << 20)] {
        let error = client.encrypt_message(request).await.expect_err("denied");
        assert_eq!(refused(&error), (Code::PermissionDenied, "DENIED_BY_POLICY"), "{error}");
    }
    let records = broker.stop().await;
    assert_eq!(records.outcomes(), BTreeMap::from([("Denied".into(), 2)]));
    for record in &records.activity {
        assert!(record["additionalEventData"]["policy"]["version"].is_string(), "{record}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_charged_to_a_data_key_is_what_was_encrypted_under_it() {
    let bounds = Bounds { max_messages: 7, max_bytes: 60_000, max_age: Duration::from_mins(5) };
    let narrow = key_broker::Rule { message_bounds: bounds, ..rule() };
    let broker = TestBroker::with(Setup { reuse: reuse(narrow), ..Setup::default() }).await;
    let client = broker.client().await;
    let calls: Vec<_> = (0..200_usize)
        .map(|n| {
            let (client, length) = (client.clone(), n * 7_919 % 20_000);
            tokio::spawn(async move {
                match n % 3 {
                    0 => encrypt_in_parts(&client, length, 1_000, Some(length as u64)).await,
                    1 => encrypt_in_parts(&client, length, 3_000, None).await,
                    _ => client.encrypt_message(encrypt(length)).await.map(|encrypted| encrypted.message),
                }
            })
        })
        .collect();
    let mut messages = Vec::new();
    for call in calls {
        messages.push(call.await.expect("no panic").expect("encrypted"));
    }
    // Opened, each tells under which data key how much was encrypted.
    let mut encrypted: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for message in &messages {
        let opened = client.decrypt_message(decrypt(message)).await.expect("decrypted");
        let of_key = encrypted.entry(sha256_hex(&header_of(message).1)).or_default();
        *of_key = (of_key.0 + 1, of_key.1 + opened.plaintext.expose().len() as u64);
    }
    let records = broker.stop().await;
    assert_eq!(charged(&records), encrypted);
    assert!(encrypted.values().all(|(messages, bytes)| *messages <= 7 && *bytes <= 60_000), "{encrypted:?}");
    assert!(
        encrypted.values().any(|(messages, _)| *messages > 1),
        "data keys were used again: {encrypted:?}"
    );
}

/// What the records charge to each data key. An undeclared length is told at the end of its stream.
fn charged(records: &Records) -> BTreeMap<String, (u64, u64)> {
    let mut charged: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let encrypted = records.activity.iter().filter(|record| record["eventName"] == "EncryptMessage");
    let key_of = |event_id: &Value| {
        let began = records.activity.iter().find(|record| record["eventID"] == *event_id).expect("it began");
        (
            began["additionalEventData"]["dataKey"]["ciphertextBlobSHA256"]
                .as_str()
                .expect("a hash")
                .to_owned(),
            began,
        )
    };
    for record in encrypted {
        let ends = &record["additionalEventData"]["endsEventID"];
        if ends.is_null() {
            let of_key = charged.entry(key_of(&record["eventID"]).0).or_default();
            let declared = &record["requestParameters"]["use"];
            of_key.0 += declared["messages"].as_u64().expect("messages");
            of_key.1 += declared["bytes"].as_u64().unwrap_or(0);
        } else {
            let (key, began) = key_of(ends);
            if began["requestParameters"]["use"]["bytes"].is_null() {
                charged.entry(key).or_default().1 +=
                    message_in(record)["plaintextLength"].as_u64().expect("bytes");
            }
        }
    }
    charged
}
