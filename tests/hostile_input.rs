//! Proves, with the real program: whatever a caller sends (no protobuf, everything too large, tricks in names, keys of others, abuse of
//! HTTP/2), it gets the right error or loses its connection; every refused call has its record; the broker neither crashes nor
//! grows, and serves others meanwhile.

#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use key_broker_client::{Client, Error};
use key_broker_proto::v1 as pb;
use key_broker_proto::v1::generate_data_key_request::Length;
use peers::check_records;
use prost::Message as _;
use rustix::process::Signal;
use support::http2::{END_HEADERS, PREFACE, block, call, frame};
use support::process::Process;
use support::raw::{framed, send};
use support::site::Site;
use tonic::Code;
use tonic::transport::Endpoint;

/// One hostile call: what it is, the method, headers, the bytes of the body, and what must come back.
struct Case {
    name: String,
    method: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    code: Code,
    reason: &'static str,
}

impl Case {
    fn new(name: impl Into<String>, method: &'static str, message: &[u8]) -> Self {
        let (name, body) = (name.into(), framed(0, message));
        let (code, reason) = (Code::InvalidArgument, "MALFORMED_REQUEST");
        Self { name, method, headers: Vec::new(), body, code, reason }
    }

    fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn body(self, body: Vec<u8>) -> Self {
        Self { body, ..self }
    }

    fn is(self, code: Code, reason: &'static str) -> Self {
        Self { code, reason, ..self }
    }
}

fn good() -> pb::GenerateDataKeyRequest {
    pb::GenerateDataKeyRequest {
        key_id: "alias/dev".into(),
        length: Some(Length::KeySpec(pb::KeySpec::Aes256.into())),
        ..Default::default()
    }
}

fn recipient(document: Vec<u8>, algorithm: &str) -> pb::Recipient {
    pb::Recipient { attestation_document: document.into(), key_encryption_algorithm: algorithm.into() }
}

fn generate(name: &str, change: impl FnOnce(&mut pb::GenerateDataKeyRequest)) -> Case {
    let mut request = good();
    change(&mut request);
    Case::new(name, "GenerateDataKey", &request.encode_to_vec())
}

fn decrypt(name: &str, change: impl FnOnce(&mut pb::DecryptRequest)) -> Case {
    let mut request = pb::DecryptRequest { ciphertext_blob: vec![7; 100].into(), ..Default::default() };
    change(&mut request);
    Case::new(name, "Decrypt", &request.encode_to_vec())
}

#[expect(clippy::too_many_lines, reason = "one table")]
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for method in
        ["GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "Decrypt", "GenerateRandom", "DescribeKey"]
    {
        for (name, bytes) in [
            ("no protobuf", &b"\xff\xff\xff\xff"[..]),
            ("a length beyond the end", b"\x0a\x7f\x00"),
            ("a length of 2^63", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
            ("a number of eleven bytes", b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            ("field number 0", b"\x02\x01a"),
            ("a group that never ends", b"\x7b\x7b\x7b\x7b"),
            ("nothing", b""),
        ] {
            cases.push(Case::new(format!("{method}: {name}"), method, bytes));
        }
    }
    let groups = [vec![0x7b; 100_000], vec![0x7c; 100_000]].concat();
    cases.push(Case::new("100,000 nested groups", "Decrypt", &groups));
    for method in ["GenerateDataKey", "DescribeKey"] {
        cases.push(Case::new("bad UTF-8 in key_id", method, b"\x0a\x02\xff\xfe"));
    }
    cases.push(Case::new("a key_id that is a number", "DescribeKey", b"\x08\x05"));
    for key in [
        "",
        " ",
        "../../etc/passwd",
        "alias/",
        "alias/../dev",
        "alias/a b",
        "alias/a\0b",
        "alias/a\nb",
        "alias/%2e%2e",
        "key/1234",
        "ALIAS/dev",
        "alias/déjà",
        "\u{202e}ved/saila",
        "arn:aws:kms",
        "arn:aws:kms:us-west-2:111122223333:key/../1",
        "arn:aws:s3:::bucket",
        "arn:aws:kms:us-west-2:1111:key/1",
        "arn:evil:kms:us-west-2:111122223333:key/1",
        "arn:aws:kms:us-west-2:111122223333:grant/1",
        "http://169.254.169.254/",
        "{\"Ref\":\"key\"}",
        "*",
        "unknown",
    ] {
        let case = generate(&format!("key_id {key:?}"), |request| request.key_id = key.into());
        cases.push(match key {
            // It looks like a key id of one's own; there is no such key.
            "unknown" => case.is(Code::NotFound, "KEY_NOT_FOUND"),
            _ => case,
        });
    }
    for key in [
        "alias/nothing",
        "alias/aws/s3",
        "arn:aws:kms:us-west-2:444455556666:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws-cn:kms:cn-north-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws:kms:us-west-2:444455556666:alias/dev",
        "00000000-0000-0000-0000-000000000000",
    ] {
        let case =
            generate(&format!("a key of others, or none: {key}"), |request| request.key_id = key.into());
        cases.push(if key.contains("444455556666") {
            // KMS does not tell what another account has.
            case.is(Code::FailedPrecondition, "KMS_ACCESS_DENIED")
        } else {
            case.is(Code::NotFound, "KEY_NOT_FOUND")
        });
    }
    let long = |n: usize| "x".repeat(n);
    let context =
        |pairs: &[(String, String)]| pairs.iter().cloned().collect::<HashMap<_, _>>().into_iter().collect();
    let many: Vec<_> = (0..10_000).map(|n| (format!("{n}"), String::new())).collect();
    cases.extend([
        generate("key_id of 2,049 bytes", |request| request.key_id = long(2_049)),
        generate("key_id of 500,000 bytes", |request| request.key_id = long(500_000)),
        generate("10,000 pairs", |request| request.encryption_context = context(&many)),
        generate("a context of 8,193 bytes", |request| {
            request.encryption_context = context(&[("a".into(), long(8_192))]);
        }),
        generate("a pair without a name", |request| {
            request.encryption_context = context(&[(String::new(), "x".into())]);
        }),
        generate("no length", |request| request.length = None),
        generate("a key spec of the future", |request| request.length = Some(Length::KeySpec(99))),
        generate("a negative key spec", |request| request.length = Some(Length::KeySpec(-1))),
        generate("no bytes", |request| request.length = Some(Length::NumberOfBytes(0))),
        generate("1,025 bytes", |request| request.length = Some(Length::NumberOfBytes(1_025))),
        generate("2^32 - 1 bytes", |request| request.length = Some(Length::NumberOfBytes(u32::MAX))),
        generate("11 grant tokens", |request| request.grant_tokens = vec!["t".into(); 11]),
        generate("an empty grant token", |request| request.grant_tokens = vec![String::new()]),
        generate("a grant token of 8,193 bytes", |request| request.grant_tokens = vec![long(8_193)]),
        generate("an empty recipient", |request| request.recipient = Some(pb::Recipient::default())),
        generate("a document of 262,145 bytes", |request| {
            request.recipient = Some(recipient(vec![0; 262_145], ""));
        }),
        generate("a document of one byte", |request| request.recipient = Some(recipient(vec![0x84], "")))
            .is(Code::InvalidArgument, "INVALID_ATTESTATION"),
        generate("a document of arrays in arrays", |request| {
            request.recipient = Some(recipient(vec![0x84; 262_144], ""));
        })
        .is(Code::InvalidArgument, "INVALID_ATTESTATION"),
        generate("another key encryption algorithm", |request| {
            request.recipient = Some(recipient(vec![0x84], "RSAES_OAEP_SHA_1"));
        }),
        decrypt("no ciphertext", |request| request.ciphertext_blob = Vec::new().into()),
        decrypt("a ciphertext of 6,145 bytes", |request| request.ciphertext_blob = vec![0; 6_145].into()),
        decrypt("a ciphertext of nobody", |_| {}).is(Code::InvalidArgument, "INVALID_CIPHERTEXT"),
        decrypt("a bad key_id", |request| request.key_id = "alias/../dev".into()),
        Case::new("too large", "Decrypt", &vec![0; 524_289]).is(Code::InvalidArgument, "REQUEST_TOO_LARGE"),
    ]);
    let whole = framed(0, &good().encode_to_vec());
    let plain = |name: &str| Case::new(name, "GenerateDataKey", &good().encode_to_vec());
    cases.extend([
        plain("no message").body(Vec::new()),
        plain("half a message").body(whole[..whole.len() - 1].to_vec()),
        plain("half a frame").body(whole[..3].to_vec()),
        plain("a frame of 4 GiB")
            .body(vec![0, 0xff, 0xff, 0xff, 0xff])
            .is(Code::InvalidArgument, "REQUEST_TOO_LARGE"),
        plain("a flag of the future").body([&[9], &whole[1..]].concat()),
        plain("compressed without saying how").body([&[1], &whole[1..]].concat()),
        plain("compressed")
            .with_header("grpc-encoding", "gzip")
            .body([&[1], &whole[1..]].concat())
            .is(Code::Unimplemented, "COMPRESSION_NOT_SUPPORTED"),
        plain("metadata of 9 KB")
            .with_header("x-long", "x".repeat(9_000))
            .is(Code::ResourceExhausted, "METADATA_TOO_LARGE"),
        plain("a negative deadline").with_header("grpc-timeout", "-1S"),
        plain("a deadline of nine digits").with_header("grpc-timeout", "123456789S"),
        plain("a deadline of no unit").with_header("grpc-timeout", "1"),
    ]);
    cases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn every_hostile_call_gets_its_error_and_its_record() {
    let site = Site::new().await;
    let broker = serve(&site);
    let uri = format!("unix:{}", site.socket().display());
    let channel = Endpoint::from_shared(uri).expect("a URI").connect().await.expect("listens");
    let cases = cases();
    assert!(cases.len() >= 60, "{}", cases.len());
    let mut told = Vec::new();
    // Twice: what the first round left behind must not change the second, nor add up.
    let mut resident = 0;
    for round in 0..2 {
        for case in &cases {
            let headers: Vec<_> = case.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let path = format!("/keybroker.v1.KeyBroker/{}", case.method);
            let error = Error::from(send(channel.clone(), &path, &headers, case.body.clone()).await);
            let got = (error.code(), error.reason().unwrap_or_default().to_owned());
            assert_eq!(got, (case.code, case.reason.to_owned()), "{}: {error}", case.name);
            assert!(!error.message().contains('\n') && error.message().len() < 2_000, "{}", error.message());
            told.push((case, support::id(&error).to_owned()));
        }
        if round == 0 {
            resident = broker.resident_kib();
        }
    }
    let grown = broker.resident_kib().saturating_sub(resident);
    assert!(grown < 4_096, "{grown} KiB more after the same once more");
    serves(&site.socket()).await;
    stop(broker);
    let delivered = site.delivered();
    for (case, id) in &told {
        let found = delivered.activity(id);
        assert_eq!(found.len(), 1, "{}", case.name);
        assert_eq!(found[0]["eventName"], case.method, "{}", case.name);
        assert_ne!(found[0]["additionalEventData"]["outcome"], "Allowed", "{}", case.name);
        assert!(found[0]["errorCode"].is_string(), "{}: {}", case.name, found[0]);
    }
    println!("{} cases, each twice", cases.len());
    tokio::task::spawn_blocking(move || check_records(&delivered.texts)).await.expect("judged");
}

/// What is written to a connection, after the client's preface if there is one.
fn abuse() -> Vec<(&'static str, bool, Vec<u8>)> {
    let headers = |stream: u32, flags: u8, block: &[u8]| frame(1, flags, stream, block);
    let request = |stream: u32| headers(stream, END_HEADERS, &block(PATH, &[]));
    let odd = |n: u32| 2 * n + 1;
    let many = |n: u32, each: &dyn Fn(u32) -> Vec<u8>| (0..n).flat_map(each).collect::<Vec<u8>>();
    let reset = |stream: u32| frame(3, 0, stream, &[0, 0, 0, 8]);
    let long = block(PATH, &[("x-long", &"x".repeat(60_000))]);
    let parts: Vec<&[u8]> = long.chunks(16_000).collect();
    let large = parts.iter().enumerate().flat_map(|(n, part)| {
        let last = if n + 1 == parts.len() { END_HEADERS } else { 0 };
        if n == 0 { headers(1, last, part) } else { frame(9, last, 1, part) }
    });
    vec![
        ("no HTTP", false, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
        ("a TLS handshake", false, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("zeros", false, vec![0; 100_000]),
        ("half a preface", false, PREFACE[..10].to_vec()),
        ("a frame of 16 MiB", true, vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]),
        ("data on stream 0", true, frame(0, 0, 0, b"x")),
        ("headers on an even stream", true, headers(2, END_HEADERS, &block(PATH, &[]))),
        ("continuation of nothing", true, frame(9, END_HEADERS, 1, b"x")),
        ("headers of 60 KB", true, large.collect()),
        (
            "continuations without end",
            true,
            [headers(1, 0, b""), many(200_000, &|_| frame(9, 0, 1, b""))].concat(),
        ),
        ("no HPACK", true, headers(1, END_HEADERS, &[0xff; 100])),
        ("a table of 4 GiB", true, headers(1, END_HEADERS, &[0x3f, 0xff, 0xff, 0xff, 0xff, 0x0f])),
        ("rapid reset", true, many(20_000, &|n| [request(odd(n)), reset(odd(n))].concat())),
        ("settings without end", true, many(50_000, &|_| frame(4, 0, 0, &[]))),
        ("pings without end", true, many(50_000, &|_| frame(6, 0, 0, &[0; 8]))),
        ("empty data without end", true, [request(1), many(50_000, &|_| frame(0, 0, 1, &[]))].concat()),
        ("streams without end", true, many(20_000, &|n| request(odd(n)))),
        ("a window of 2^31", true, frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
        ("a window update of 0", true, frame(8, 0, 0, &[0; 4])),
        ("an odd setting", true, frame(4, 0, 0, &[0, 5, 0xff, 0xff, 0xff, 0xff])),
        ("priorities in a ring", true, many(20_000, &|n| frame(2, 0, odd(n), &[0, 0, 0, 1, 255]))),
        ("push promises", true, many(1_000, &|n| frame(5, END_HEADERS, odd(n), &[0, 0, 0, 2]))),
        ("unknown frames", true, many(50_000, &|_| frame(200, 0xff, 77, &[0; 64]))),
        ("goaway, then calls", true, [frame(7, 0, 0, &[0; 8]), request(1)].concat()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn abuse_of_http2_costs_the_abuser_its_connection_and_nobody_else() {
    let site = Site::new().await;
    let broker = serve(&site);
    let mut resident = 0;
    for round in 0..3 {
        for (name, has_preface, bytes) in abuse() {
            let socket = site.socket();
            let written = tokio::task::spawn_blocking(move || write(&socket, has_preface, &bytes));
            // Others are served meanwhile.
            serves(&site.socket()).await;
            let outcome = tokio::time::timeout(Duration::from_secs(20), written).await;
            assert!(outcome.is_ok(), "{name}: it is neither read nor cut off");
            serves(&site.socket()).await;
        }
        if round == 0 {
            resident = broker.resident_kib();
        }
    }
    let grown = broker.resident_kib().saturating_sub(resident);
    assert!(grown < 8_192, "{grown} KiB more after the same twice more");
    stop(broker);
    let delivered = site.delivered();
    tokio::task::spawn_blocking(move || check_records(&delivered.texts)).await.expect("judged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_idle_or_do_not_read_hold_up_nobody() {
    let site = Site::new().await;
    let broker = serve(&site);
    let mut idle: Vec<UnixStream> = Vec::new();
    for n in 0..200 {
        let mut stream = UnixStream::connect(site.socket()).expect("connects");
        match n % 4 {
            0 => {}
            1 => stream.write_all(&PREFACE[..12]).expect("writes"),
            2 => stream.write_all(PREFACE).expect("writes"),
            _ => {
                // Calls whose replies nobody reads.
                stream.write_all(PREFACE).expect("writes");
                let calls =
                    (0..100).flat_map(|n| call(PATH, 2 * n + 1, &good().encode_to_vec())).collect::<Vec<_>>();
                stream.write_all(&calls).expect("writes");
            }
        }
        idle.push(stream);
    }
    for _ in 0..20 {
        serves(&site.socket()).await;
    }
    drop(idle);
    serves(&site.socket()).await;
    stop(broker);
    site.delivered();
}

fn serve(site: &Site) -> Process {
    let config = site.config("");
    fs::write(site.dir.path().join("policy.cedar"), "permit(principal is Workload, action, resource);")
        .expect("writes");
    Process::serve(&config)
}

/// As a client of its own does, waiting where it is told to: the abuser is the same principal, and may have all of its share.
async fn serves(socket: &Path) {
    let client = Client::unix(socket).await.expect("listens");
    for _ in 0..100 {
        match client.generate_random(8).await {
            Ok(_) => return,
            Err(error) => {
                assert_eq!(error.reason(), Some("TOO_MANY_OWN_CALLS"), "{error}");
                tokio::time::sleep(error.retry_after().expect("a delay")).await;
            }
        }
    }
    panic!("not served within ten seconds");
}

fn stop(broker: Process) {
    assert!(!broker.log().contains("panicked"), "{}", broker.log());
    broker.signal(Signal::TERM);
    assert!(broker.wait().success());
}

/// Writes all, as far as it is read, and reads what comes back until the end, or until nothing has come for a while.
fn write(socket: &PathBuf, has_preface: bool, bytes: &[u8]) {
    let mut stream = UnixStream::connect(socket).expect("listens");
    stream.set_write_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let mut reader = stream.try_clone().expect("a second handle");
    let reading = std::thread::spawn(move || {
        let mut buffer = [0; 8_192];
        while reader.read(&mut buffer).is_ok_and(|read| read > 0) {}
    });
    // Cut off is as good as read.
    let _ = if has_preface { stream.write_all(PREFACE) } else { Ok(()) };
    let _ = stream.write_all(bytes);
    reading.join().expect("reads");
}

const PATH: &str = "/keybroker.v1.KeyBroker/GenerateDataKey";

/// A browser, curl, or a client of gRPC-Web: the answer is one that it can read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_speaks_http_1_is_told_so_in_http_1() {
    let site = Site::new().await;
    let broker = Process::serve(&site.config(""));
    for request in
        ["GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "POST /keybroker.v1.KeyBroker/Decrypt HTTP/1.0\r\n\r\n"]
    {
        let mut connection = UnixStream::connect(site.socket()).expect("listens");
        connection.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        connection.write_all(request.as_bytes()).expect("sends");
        // Whoever reads late finds all of it, though the broker has read less than was sent.
        std::thread::sleep(Duration::from_millis(300));
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("an answer, and its end");
        assert!(answer.starts_with("HTTP/1.1 505 HTTP Version Not Supported\r\n"), "{answer}");
        assert!(answer.ends_with("not HTTP/1.1\n"), "{answer}");
    }
    serves(&site.socket()).await;
    stop(broker);
}
