//! Proves: a call whose metadata is longer than is read, or that is compressed, is refused as gRPC has it, with its record, and costs no
//! other call on its connection anything; beyond what is read at all, the connection ends, and the log says so once in a while.

mod support;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use key_broker_client::Error;
use key_broker_proto::v1 as pb;
use prost::Message as _;
use rustix::process::Signal;
use support::http2::{END_HEADERS, PREFACE, block, frame};
use support::process::Process;
use support::raw::{framed, send};
use support::site::Site;
use support::{TestBroker, raw};
use tonic::Code;

const GENERATE: &str = "/keybroker.v1.KeyBroker/GenerateDataKey";

fn request() -> Vec<u8> {
    let request = pb::GenerateDataKeyRequest { key_id: "alias/dev".into(), ..Default::default() };
    framed(
        0,
        &pb::GenerateDataKeyRequest {
            length: Some(pb::generate_data_key_request::Length::KeySpec(pb::KeySpec::Aes256.into())),
            ..request
        }
        .encode_to_vec(),
    )
}

#[tokio::test]
async fn long_metadata_is_refused_with_the_limit_and_a_record_and_costs_no_other_call() {
    let broker = TestBroker::start().await;
    let channel = broker.channel().await;
    // A call that is under way on the same connection through all of it.
    let held = raw::hold(channel.clone(), GENERATE, request()[..9].to_vec());
    for length in [8_000, 15_000, 17_000, 64_000, 200_000, 255_000] {
        let value = "v".repeat(length);
        let headers =
            [("x-jwt", &*value), ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")];
        let error = Error::from(send(channel.clone(), GENERATE, &headers, request()).await);
        assert_eq!(
            (error.code(), error.reason()),
            (Code::ResourceExhausted, Some("METADATA_TOO_LARGE")),
            "{length}"
        );
        assert!(error.message().contains("8,192 bytes") && error.retry_after().is_none(), "{error}");
        let records = broker.records();
        let record = records.activity_of(support::id(&error));
        assert_eq!(record["additionalEventData"]["outcome"], "Rejected");
        assert!(record.to_string().len() < 4_000, "nothing of it is recorded");
        assert_eq!(send(channel.clone(), GENERATE, &[], request()).await.code(), Code::Ok, "the next call");
        for path in [
            "/grpc.health.v1.Health/Check",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/x/y",
        ] {
            let status = send(channel.clone(), path, &headers, framed(0, b"")).await;
            assert_eq!(status.code(), Code::ResourceExhausted, "{path}");
        }
    }
    // Many pairs count, too, each with 32 bytes.
    let names: Vec<_> = (0..220).map(|n| format!("x-{n}")).collect();
    let many: Vec<_> = names.iter().map(|name| (&**name, "y")).collect();
    let error = Error::from(send(channel.clone(), GENERATE, &many, request()).await);
    assert_eq!(error.reason(), Some("METADATA_TOO_LARGE"));
    let value = "v".repeat(7_000);
    assert_eq!(
        send(channel.clone(), GENERATE, &[("x-jwt", &*value)], request()).await.code(),
        Code::Ok,
        "is read"
    );
    drop(held);
}

/// As <https://github.com/grpc/grpc/blob/master/doc/compression.md> has it.
#[tokio::test]
async fn compressed_requests_are_unimplemented_and_told_what_is_accepted() {
    let broker = TestBroker::start().await;
    let channel = broker.channel().await;
    for encoding in ["gzip", "deflate", "zstd", "snappy", "unheard-of"] {
        let status =
            send(channel.clone(), GENERATE, &[("grpc-encoding", encoding)], framed(1, b"\x1f\x8b")).await;
        let accepted = status.metadata().get("grpc-accept-encoding").cloned();
        assert_eq!(accepted.expect("told"), "identity");
        let error = Error::from(status);
        assert_eq!((error.code(), error.reason()), (Code::Unimplemented, Some("COMPRESSION_NOT_SUPPORTED")));
        assert!(error.message().contains("uncompressed"), "{error}");
        let records = broker.records();
        assert_eq!(records.activity_of(support::id(&error))["additionalEventData"]["outcome"], "Rejected");
    }
    let plain = [("grpc-encoding", "identity"), ("grpc-accept-encoding", "identity,deflate,gzip")];
    assert_eq!(send(channel, GENERATE, &plain, request()).await.code(), Code::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_beyond_all_bounds_ends_its_connection_with_goaway_and_few_lines() {
    let site = Site::new().await;
    let broker = Process::serve(&site.config(""));
    let long = block(GENERATE, &[("x-long", &"x".repeat(400_000))]);
    let parts: Vec<&[u8]> = long.chunks(16_000).collect();
    let frames = parts.iter().enumerate().flat_map(|(n, part)| {
        let flags = if n + 1 == parts.len() { END_HEADERS } else { 0 };
        frame(if n == 0 { 1 } else { 9 }, flags, 1, part)
    });
    let bytes = [PREFACE.to_vec(), frames.collect()].concat();
    for _ in 0..20 {
        let (socket, bytes) = (site.socket(), bytes.clone());
        let kinds = tokio::task::spawn_blocking(move || {
            answered(UnixStream::connect(socket).expect("listens"), &bytes)
        });
        let kinds = kinds.await.expect("no panic");
        assert!(kinds.contains_key(&GOAWAY), "{kinds:?}");
    }
    broker.wait_for_log("one call's metadata exceeds the limit");
    let told = broker.log().matches("one call's metadata exceeds the limit").count();
    assert!((1..=10).contains(&told), "{told} lines for 20 connections");
    let client = key_broker_client::Client::unix(site.socket()).await.expect("listens");
    client.generate_random(8).await.expect("others are served");
    broker.signal(Signal::TERM);
    assert!(broker.wait().success());
}

/// Blocks that do not end take a share of bytes: of many, only some are kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_metadata_takes_a_share_and_is_bounded() {
    let site = Site::new().await;
    let broker = Process::serve(&site.config(""));
    let before = broker.resident_kib();
    // Fields of two bytes, each of which costs a reader a hundred.
    let indexed = [&[0x40, 1, b'x', 0][..], &[0xbe; 16_000]].concat();
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut stream = UnixStream::connect(site.socket()).expect("listens");
        stream.set_write_timeout(Some(Duration::from_secs(2))).expect("a timeout");
        let _ = stream.write_all(PREFACE);
        // Whether it is read or cut off.
        let _ = stream.write_all(&frame(1, 0, 1, &indexed));
        let _ = stream.write_all(&frame(9, 0, 1, &[0xbe; 16_000]));
        held.push(stream);
    }
    let client = key_broker_client::Client::unix(site.socket()).await.expect("listens");
    for _ in 0..10 {
        client.generate_random(8).await.expect("others are served");
    }
    let grown = broker.resident_kib().saturating_sub(before);
    assert!(grown < 48 << 10, "{grown} KiB for 200 unfinished blocks");
    drop(held);
    broker.signal(Signal::TERM);
    assert!(broker.wait().success());
}

/// The kinds of frames that come back before the connection ends, and how many of each.
fn answered(mut stream: UnixStream, bytes: &[u8]) -> BTreeMap<u8, usize> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let mut writer = stream.try_clone().expect("a second handle");
    let bytes = bytes.to_vec();
    // Cut off is as good as read.
    let writing = std::thread::spawn(move || drop(writer.write_all(&bytes)));
    let mut read = Vec::new();
    let _ = stream.read_to_end(&mut read);
    writing.join().expect("writes");
    let (mut kinds, mut rest) = (BTreeMap::new(), &read[..]);
    while let [l0, l1, l2, kind, ..] = rest {
        *kinds.entry(*kind).or_default() += 1;
        let length = u32::from_be_bytes([0, *l0, *l1, *l2]) as usize;
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    kinds
}

const GOAWAY: u8 = 7;
