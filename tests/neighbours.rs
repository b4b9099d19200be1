//! Proves, with the real program: whatever a neighbour without a permit does at the sockets, others connect, are served and probe the
//! broker meanwhile, its memory stays within a small container's, and what the neighbour holds is taken from it.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use key_broker_client::Client;
use key_broker_proto::v1 as pb;
use kms_emulator::{Emulator, EmulatorConfig, Fault};
use prost::Message as _;
use support::http2::{END_HEADERS, PREFACE, block, call, frame, no_window};
use support::process::{Process, binary, write_config};
use support::raw::{framed, hold};
use support::street::Street;
use tokio_util::sync::DropGuard;
use tonic::Code;
use tonic::transport::Endpoint;

/// Connects so often, and sends this each time.
fn connect(to: SocketAddr, times: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let connected = (0..times).filter_map(|_| {
        let mut stream = TcpStream::connect(to).ok()?;
        stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        // Whoever is cut off has sent enough.
        let _ = stream.write_all(bytes);
        Some(stream)
    });
    connected.collect()
}

/// The first of a message of so many bytes, as far as it is to be sent.
fn beginning(bytes: u32, sent: usize) -> Vec<u8> {
    let mut message = vec![0];
    message.extend(bytes.to_be_bytes());
    message.resize(sent, 0);
    message
}

/// Begins such a message on so many streams of so many connections, as a client does that heeds the windows.
async fn begin(to: SocketAddr, connections: usize, path: &str, message: Vec<u8>) -> Vec<DropGuard> {
    let mut held = Vec::new();
    for _ in 0..connections {
        let endpoint = Endpoint::from_shared(format!("http://{to}")).expect("a URI");
        let Ok(channel) = endpoint.connect().await else { continue };
        held.extend((0..100).map(|_| hold(channel.clone(), path, message.clone())));
    }
    held
}

fn request() -> Vec<u8> {
    let length = Some(pb::generate_data_key_request::Length::KeySpec(pb::KeySpec::Aes256.into()));
    pb::GenerateDataKeyRequest { key_id: "alias/dev".into(), length, ..Default::default() }.encode_to_vec()
}

fn calls(path: &str, streams: u32) -> Vec<u8> {
    let message = if path == CALL { request() } else { Vec::new() };
    (0..streams).flat_map(|n| call(path, 2 * n + 1, &message)).collect()
}

/// What a neighbour does: to which socket it connects, how often, and what it sends on each connection.
fn attacks() -> Vec<(&'static str, &'static str, usize, Vec<u8>)> {
    let after_preface = |bytes: Vec<u8>| [PREFACE, &bytes].concat();
    let many_headers: Vec<(String, String)> = (0..150).map(|n| (format!("x-{n}"), "y".into())).collect();
    let many_headers: Vec<_> = many_headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    let fat = |n: u32| frame(1, END_HEADERS, 2 * n + 1, &block(CALL, &many_headers));
    vec![
        ("connects and says nothing", "insecure_tcp", 700, Vec::new()),
        ("connects without a certificate", "tls", 700, Vec::new()),
        ("half a preface", "insecure_tcp", 600, PREFACE[..10].to_vec()),
        ("a preface and nothing else", "insecure_tcp", 600, PREFACE.to_vec()),
        ("says nothing to telemetry", "telemetry", 700, Vec::new()),
        ("half a request to telemetry", "telemetry", 700, b"GET /metrics HTTP/1.1\r\nhost: x".to_vec()),
        ("many headers", "insecure_tcp", 50, after_preface((0..100).flat_map(fat).collect())),
        (
            "calls whose replies may not be sent",
            "insecure_tcp",
            300,
            [PREFACE, &no_window(), &calls(CALL, EACH)].concat(),
        ),
        (
            "probes whose replies may not be sent",
            "insecure_tcp",
            300,
            [PREFACE, &no_window(), &calls(HEALTH, EACH)].concat(),
        ),
        ("calls whose replies are not read", "insecure_tcp", 300, after_preface(calls(CALL, 4 * EACH))),
        ("watches health", "insecure_tcp", 300, after_preface(calls(WATCH, 100))),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_neighbour_does_others_are_served() {
    let street = Street::new("").await;
    street.others_are_served("before").await;
    let before = street.broker.resident_kib() >> 10;
    for (what, socket, times, bytes) in attacks() {
        let address = street.address(socket);
        let held = tokio::task::spawn_blocking(move || connect(address, times, &bytes));
        for _ in 0..2 {
            street.others_are_served(what).await;
        }
        let held = held.await.expect("no panic");
        street.others_are_served(what).await;
        println!("{what}: {} connections, {} MiB", held.len(), street.broker.resident_kib() >> 10);
        drop(held);
    }
    street.others_are_served("after all").await;
    let is_given_back = || street.broker.resident_kib() >> 10 < before + 24;
    for _ in 0..150 {
        if is_given_back() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(is_given_back(), "{before} MiB before, and then {} KiB", street.broker.resident_kib());
    let log = street.broker.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_never_end_take_their_share_of_memory() {
    let street = Street::new("").await;
    for (what, path, connections, message) in [
        ("messages of health beyond its bound", HEALTH, 4, beginning(4_000_000, 3_900_000)),
        ("messages of health", HEALTH, 20, beginning(4_000, 3_900)),
        ("messages of reflection", REFLECTION, 20, beginning(4_000, 3_900)),
        ("large requests", CALL, 20, beginning(524_288, 500_000)),
        ("lengths of large requests", CALL, 60, beginning(524_288, 5)),
        ("small requests", CALL, 60, beginning(4_000, 3_900)),
        ("whole messages", MESSAGE, 10, beginning(4 << 20, 3_900_000)),
        ("messages in parts", MESSAGES, 20, beginning(524_288, 500_000)),
    ] {
        let held = begin(street.address("insecure_tcp"), connections, path, message).await;
        for _ in 0..3 {
            street.others_are_served(what).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        println!("{what}: {} MiB", street.broker.resident_kib() >> 10);
        drop(held);
    }
    street.others_are_served("after all").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_nothing_or_does_not_read_is_cut_off() {
    let street = Street::new("").await;
    let address = street.address("insecure_tcp");
    let cases = vec![
        ("nothing", Vec::new()),
        ("half a preface", PREFACE[..10].to_vec()),
        ("a preface", PREFACE.to_vec()),
        ("no window", [PREFACE, &no_window(), &calls(HEALTH, 1)].concat()),
        // A byte of each reply: the rest is kept until it may be sent.
        ("a window of a byte", [PREFACE, &frame(4, 0, 0, &[0, 4, 0, 0, 0, 1]), &calls(HEALTH, 1)].concat()),
    ];
    let cut_off = cases.into_iter().map(|(what, bytes)| {
        tokio::task::spawn_blocking(move || {
            let mut stream = connect(address, 1, &bytes).pop().expect("connects");
            stream.set_read_timeout(Some(Duration::from_secs(25))).expect("a timeout");
            let mut buffer = [0; 4_096];
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                    Err(error) => panic!("{what}: not within 25 s: {error}"),
                }
            }
        })
    });
    for case in cut_off.collect::<Vec<_>>() {
        case.await.expect("cut off");
    }
    let mut unread = connect(address, 1, &[PREFACE, &calls(CALL, 5_000)].concat()).pop().expect("connects");
    tokio::time::sleep(Duration::from_secs(16)).await;
    // What it was sent before is there; then it ends, with an error or without.
    unread.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    let read = std::io::copy(&mut unread, &mut std::io::sink());
    assert!(
        read.as_ref().map_or_else(|error| error.kind() != std::io::ErrorKind::WouldBlock, |read| *read > 0),
        "{read:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_none_gets_a_connection_and_who_leaves_for_it_fails_no_call() {
    let street = Street::new("[limits]\nconnections = 32\n").await;
    let (first, second) = (street.leaf("first"), street.leaf("second"));
    let mut clients = Vec::new();
    // More than there are places, all idle again and again.
    for leaf in [&first, &second, &first, &second] {
        for _ in 0..16 {
            let client = street.client(leaf).await;
            client.generate_random(8).await.expect("served");
            clients.push(client);
        }
    }
    for newcomer in 0..8 {
        let leaf = street.leaf(&format!("newcomer{newcomer}"));
        street.client(&leaf).await.generate_random(8).await.expect("a newcomer is served");
    }
    // Those that left come back, at the cost of others that are idle.
    for client in &clients {
        client.generate_random(8).await.expect("an idle client connects anew");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_principal_that_waits_for_kms_leaves_calls_to_others() {
    let street = Street::new("[limits]\ncalls_in_flight = 8\n[reuse]\nenabled = false\n").await;
    let (busy, other) = (street.leaf("busy"), street.leaf("other"));
    let client = street.client(&busy).await;
    street.emulator.inject(Fault::latency(Duration::from_secs(2)).on("GenerateRandom").times(4));
    let slow: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.generate_random(8).await.map(drop) })
        })
        .collect();
    support::eventually("KMS is asked", || street.emulator.call_count("GenerateRandom") == 4).await;
    street.others_are_served("half of all calls wait").await;
    street.client(&other).await.describe_key("alias/dev").await.expect("its own share");
    let mut answered = 0;
    for call in slow {
        match call.await.expect("no panic") {
            Ok(()) => answered += 1,
            Err(error) => {
                assert_eq!(
                    (error.code(), error.reason()),
                    (Code::ResourceExhausted, Some("TOO_MANY_OWN_CALLS"))
                );
            }
        }
    }
    assert_eq!(answered, 4, "half of all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_above_all_that_there_are_are_throttled_with_a_delay() {
    let street = Street::new("[limits]\ncalls_in_flight = 1\n[reuse]\nenabled = false\n").await;
    let (one, other) = (street.client(&street.leaf("one")).await, street.client(&street.leaf("other")).await);
    street.emulator.inject(Fault::latency(Duration::from_secs(2)).on("GenerateRandom").times(1));
    let slow = tokio::spawn(async move { one.generate_random(8).await.map(drop) });
    support::eventually("KMS is asked", || street.emulator.call_count("GenerateRandom") == 1).await;
    let error = other.generate_random(8).await.expect_err("one is all");
    assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, Some("TOO_MANY_CALLS")));
    assert!(error.retry_after().is_some());
    slow.await.expect("no panic").expect("answered");
}

#[test]
fn a_request_has_one_message_and_waits_for_bytes_of_its_principal() {
    // By hand: what tonic's client never sends.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let street = Street::new("").await;
        let uri = format!("http://{}", street.address("insecure_tcp"));
        let channel = || Endpoint::from_shared(uri.clone()).expect("a URI").connect_lazy();
        let two = [framed(0, &request()), framed(0, &request())].concat();
        let status = support::raw::send(channel(), CALL, &[], two).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        let largest = vec![0; 524_288];
        let (mut throttled, mut held) = (None, Vec::new());
        // Requests that do not go on are given up after some seconds, which a busy machine may take to begin them.
        for attempt in 0..100 {
            if attempt % 20 == 0 {
                // Half of 64 of the largest.
                held.push(begin(street.address("insecure_tcp"), 1, CALL, beginning(524_288, 5)).await);
            }
            let status = support::raw::send(channel(), CALL, &[], framed(0, &largest)).await;
            if status.code() == Code::ResourceExhausted {
                throttled = Some(key_broker_client::Error::from(status));
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let error = throttled.expect("its share is used up");
        assert_eq!(error.reason(), Some("TOO_MANY_OWN_CALLS"), "{error}");
        assert!(error.retry_after().is_some() && error.message().contains("bytes"), "{error}");
        let status = support::raw::send(channel(), CALL, &[], framed(0, &request())).await;
        assert_eq!(status.code(), Code::PermissionDenied, "small ones take none: {status}");
        street.others_are_served("bytes are used up").await;
        drop(held);
    });
}

/// The command that serves, under limits as `ulimit` sets them.
fn under(limits: &str, config: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{limits} && exec \"$0\" serve --config \"$1\"")]).arg(binary()).arg(config);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_the_process_are_looked_at_when_starting() {
    let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
    let dir = tempfile::tempdir().expect("a directory");
    let config = write_config(dir.path(), &emulator.endpoint_url(), "[reuse]\nenabled = false\n");
    let socket = dir.path().join("broker.sock");
    let client = || async { Client::unix(&socket).await.expect("listens") };

    let broker = Process::serve_by(under("ulimit -S -n 64", &config), &config);
    assert!(!broker.log().contains("RLIMIT_NOFILE"), "raised to the hard limit: {}", broker.log());
    drop(broker);

    let broker = Process::serve_by(under("ulimit -n 300", &config), &config);
    assert!(broker.log().contains("RLIMIT_NOFILE is lower"), "{}", broker.log());
    let idle: Vec<_> =
        (0..400).filter_map(|_| std::os::unix::net::UnixStream::connect(&socket).ok()).collect();
    client().await.generate_random(8).await.expect("there are descriptors for others");
    drop((idle, broker));

    let refused = under("ulimit -n 100", &config)
        .env("AWS_ACCESS_KEY_ID", "AKIATESTEXAMPLE00000")
        .env("AWS_SECRET_ACCESS_KEY", "test-only")
        .output()
        .expect("it runs");
    assert_eq!(refused.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("raise the limit of open files"));

    // 128 KiB.
    let broker = Process::serve_by(under("ulimit -f 256", &config), &config);
    assert!(broker.log().contains("RLIMIT_FSIZE is lower"), "{}", broker.log());
    let client = client().await;
    for _ in 0..150 {
        if let Err(error) = client.generate_random(8).await {
            assert_eq!(error.reason(), Some("JOURNAL_UNAVAILABLE"), "{error}");
        }
    }
    assert!(client.is_alive().await.expect("the process lives on"));
}

/// How many calls a neighbour makes at once on a connection: a broker that is not optimized takes ten times as long for each.
const EACH: u32 = if cfg!(debug_assertions) { 25 } else { 250 };
const MESSAGE: &str = "/keybroker.v1.KeyBroker/EncryptMessage";
const MESSAGES: &str = "/keybroker.v1.KeyBroker/DecryptMessageStream";
const CALL: &str = "/keybroker.v1.KeyBroker/GenerateDataKey";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// Whole messages of somebody who may send them, as many at a time as there are streams.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_permitted_neighbour_take_their_share_of_memory() {
    let policy = "permit(principal, action, resource);";
    let street = Street::with(policy, "", "").await;
    let mut held = Vec::new();
    for (path, message) in [(MESSAGE, beginning(4 << 20, 4_100_000)), (MESSAGES, beginning(524_288, 524_000))]
    {
        held.push(begin(street.address("insecure_tcp"), 10, path, message).await);
        for _ in 0..3 {
            street.others_are_served(path).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        println!("{path}: {} MiB", street.broker.resident_kib() >> 10);
    }
    drop(held);
    street.others_are_served("after all").await;
}
