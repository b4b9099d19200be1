//! Proves: a request that is not one (not protobuf, too large, compressed, empty, of no known method) is refused with the
//! contract's code and reason, leaves a record where it names an action, and the broker serves on.

#[path = "peers/mod.rs"]
mod peers;
mod support;

use key_broker_client::Error;
use peers::check_records;
use support::raw::framed;
use support::{TestBroker, raw};
use tonic::{Code, Status};

const DECRYPT: &str = "/keybroker.v1.KeyBroker/Decrypt";

async fn send(broker: &TestBroker, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Status {
    raw::send(broker.channel().await, path, headers, body).await
}

/// What is wrong, the headers and body that are sent, and the reason that must come back.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Vec<u8>, &'a str);

#[tokio::test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn what_is_no_request_is_rejected_and_recorded() {
    let broker = TestBroker::start().await;
    let cases: [Case; 8] = [
        ("not protobuf", &[], framed(0, b"\xff\xff\xff\xff"), "MALFORMED_REQUEST"),
        ("string that is not UTF-8", &[], framed(0, b"\x1a\x02\xff\xfe"), "MALFORMED_REQUEST"),
        ("length beyond the end", &[], framed(0, b"\x0a\x7f\x00"), "MALFORMED_REQUEST"),
        ("half a frame", &[], vec![0, 0, 0, 0, 9, 1], "MALFORMED_REQUEST"),
        ("no message", &[], Vec::new(), "MALFORMED_REQUEST"),
        ("an empty message", &[], framed(0, b""), "MALFORMED_REQUEST"),
        ("compressed without saying how", &[], framed(1, b"\x1f\x8b"), "MALFORMED_REQUEST"),
        ("too large", &[], framed(0, &vec![0; 524_289]), "REQUEST_TOO_LARGE"),
    ];
    for (name, headers, body, reason) in cases {
        let error = Error::from(send(&broker, DECRYPT, headers, body).await);
        assert_eq!((error.code(), error.reason()), (Code::InvalidArgument, Some(reason)), "{name}: {error}");
        let records = broker.records();
        let record = records.activity_of(support::id(&error));
        assert_eq!(record["additionalEventData"]["outcome"], "Rejected", "{name}");
        assert_eq!(record["eventName"], "Decrypt");
    }
    assert_eq!(broker.emulator.call_count("Decrypt"), 0);
    check_records(&support::journal_lines(&broker.journal_dir()));
    broker.client().await.generate_random(8).await.expect("the broker serves on");
}

#[tokio::test]
async fn a_request_of_the_largest_size_passes() {
    let broker = TestBroker::start().await;
    // 524,288 bytes with field 15 unknown: skipped as protobuf wants, then refused for its empty ciphertext.
    let mut bytes = vec![0x7a, 0xfc, 0xff, 0x1f];
    bytes.resize(524_288, 0);
    let error = Error::from(send(&broker, DECRYPT, &[], framed(0, &bytes)).await);
    assert_eq!(error.message(), "ciphertext_blob is empty");
}

#[tokio::test]
async fn unknown_methods_and_services_are_unimplemented() {
    let broker = TestBroker::start().await;
    for path in [
        "/keybroker.v1.KeyBroker/Sign",
        "/keybroker.v1.KeyBroker/",
        "/keybroker.v2.KeyBroker/Decrypt",
        "/",
        "/x",
    ] {
        assert_eq!(send(&broker, path, &[], framed(0, b"")).await.code(), Code::Unimplemented, "{path}");
    }
    let records = broker.stop().await;
    assert!(records.activity.is_empty(), "there is no action to record");
}

#[tokio::test]
async fn health_and_reflection_answer_without_records() {
    let broker = TestBroker::start().await;
    assert!(broker.client().await.is_serving().await.expect("health"));
    let list_services = b"\x3a\x01*";
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    assert_eq!(send(&broker, path, &[], framed(0, list_services)).await.code(), Code::Ok);
    assert!(broker.stop().await.activity.is_empty());
}

#[tokio::test]
async fn long_user_agents_and_contexts_fit_into_records() {
    let broker = TestBroker::start().await;
    let agent = "é".repeat(1_000);
    let error = Error::from(
        send(&broker, DECRYPT, &[("user-agent", "x".repeat(4_000).as_str())], framed(0, b"")).await,
    );
    let records = broker.records();
    // What a refused caller wrote is cut shorter.
    assert_eq!(records.activity_of(support::id(&error))["userAgent"].as_str().map(str::len), Some(128));
    let client = broker.client().await;
    let request =
        key_broker_client::GenerateDataKey::aes_256("alias/dev").context("k\"\\\n", agent.repeat(4));
    client.generate_data_key(request).await.expect("8,004 bytes are allowed");
    assert_eq!(
        broker.records().activity[1]["requestParameters"]["encryptionContext"]["k\"\\\n"],
        agent.repeat(4)
    );
}
