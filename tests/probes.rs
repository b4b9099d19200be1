//! Proves: the HTTP listener tells what `grpc.health.v1` tells, through a lost journal, a silent KMS and a drain; whoever is slow
//! or asks for too much is cut off and holds up nobody.

mod support;

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use key_broker::{BreakerSettings, GuardSettings, Telemetry};
use key_broker_core::clock::{Clock as _, SystemClock};
use kms_emulator::Fault;
use support::scrape::{Scrape, ask};
use support::{Setup, TestBroker, guard};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn broker(setup: Setup) -> (TestBroker, SocketAddr) {
    let http = Some("127.0.0.1:0".parse().expect("an address"));
    let broker =
        TestBroker::with(Setup { telemetry: Telemetry { http, ..Telemetry::default() }, ..setup }).await;
    let address = broker.telemetry_address().expect("it listens");
    (broker, address)
}

/// Waits until `/readyz` says this; `/healthz` never minds, and the metric tells the same.
async fn until_ready_is(broker: &TestBroker, address: SocketAddr, line: &str) {
    let status = if line == "ready" { 200 } else { 503 };
    for _ in 0..500 {
        let answer = ask(address, "GET", "/readyz").await;
        let serving = Scrape::of(broker).await.sum("keybroker_serving", &[]);
        if (answer.status, answer.body.trim_end()) == (status, line) && (serving > 0.5) == (status == 200) {
            let alive = ask(address, "GET", "/healthz").await;
            assert_eq!((alive.status, alive.body.as_str()), (200, "alive\n"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("/readyz never says {line:?}: {:?}", ask(address, "GET", "/readyz").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_follows_the_journal() {
    let (broker, address) = broker(Setup::default()).await;
    let client = broker.client().await;
    client.generate_random(8).await.expect("serves");
    until_ready_is(&broker, address, "ready").await;
    fs::remove_dir_all(broker.journal_dir()).expect("removes");
    client.generate_random(8).await.expect_err("no journal");
    until_ready_is(&broker, address, "not ready: the journal cannot commit").await;
    assert!(!client.is_serving().await.expect("health answers"));
    let scrape = Scrape::of(&broker).await;
    assert!(scrape.sum("keybroker_audit_failures_total", &[("keybroker_audit_failure", "commit")]) >= 1.0);
    assert!(
        (scrape.sum("keybroker_audit_failures_total", &[("keybroker_audit_failure", "call")]) - 1.0).abs()
            < 0.1
    );
    fs::create_dir(broker.journal_dir()).expect("returns");
    until_ready_is(&broker, address, "ready").await;
    assert!(client.is_serving().await.expect("health answers"));
    drop(broker.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_follows_the_breaker() {
    let open = Duration::from_mins(1);
    let breaker = BreakerSettings { failures: 1, open, longest_open: open };
    let guard = GuardSettings { breaker, ..guard() };
    let (broker, address) = broker(Setup { guard, max_attempts: 1, ..Setup::default() }).await;
    broker.emulator.inject(Fault::internal_error());
    broker.client().await.generate_random(8).await.expect_err("KMS fails");
    until_ready_is(&broker, address, "not ready: KMS has not answered lately, so it is not called for now")
        .await;
    assert!(Scrape::of(&broker).await.sum("keybroker_kms_breaker_open", &[]) > 0.5);
    drop(broker.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_is_seen_until_its_end() {
    let (broker, address) = broker(Setup::default()).await;
    let client = broker.client().await;
    client.generate_random(8).await.expect("serves");
    broker.emulator.inject(Fault::latency(Duration::from_secs(2)));
    let in_flight = tokio::spawn(async move { client.generate_random(8).await });
    support::eventually("KMS is asked", || broker.emulator.call_count("GenerateRandom") == 2).await;
    broker.start_drain();
    until_ready_is(&broker, address, "not ready: draining").await;
    assert!(Scrape::of(&broker).await.sum("keybroker_calls_in_flight", &[]) > 0.5);
    in_flight.await.expect("no panic").expect("finished");
    drop(broker.stop().await);
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_answers_what_it_has_and_nothing_else() {
    let (broker, address) = broker(Setup::default()).await;
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/metrics/", 404),
        ("POST", "/unknown", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/readyz", 405),
        ("GET", "/metrics?x=1", 200),
    ] {
        assert_eq!(ask(address, method, path).await.status, status, "{method} {path}");
    }
    assert!(ask(address, "PUT", "/healthz").await.head.contains("allow: GET, HEAD"));
    let head = ask(address, "HEAD", "/metrics").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let long = format!("/{}", "x".repeat(20_000));
    assert!([414, 431].contains(&ask(address, "GET", &long).await.status));

    // Two requests on one connection.
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let mut buffer = vec![0; 4_096];
    for _ in 0..2 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: broker\r\n\r\n").await.expect("it reads");
        let read = stream.read(&mut buffer).await.expect("it answers");
        assert!(buffer[..read].starts_with(b"HTTP/1.1 200"), "kept open");
    }
    drop(broker.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_hold_up_nobody() {
    let (broker, address) = broker(Setup::default()).await;
    let mut slow = Vec::new();
    // More than it takes at a time; none ever ends its headers.
    for _ in 0..80 {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: br").await.expect("sent");
        slow.push(stream);
    }
    let began: Instant = SystemClock.instant();
    assert_eq!(ask(address, "GET", "/readyz").await.status, 200);
    let took = SystemClock.instant() - began;
    assert!(took < Duration::from_secs(15), "{took:?}");
    // A byte now and then does not help.
    let mut first = slow.remove(0);
    let _ = first.write_all(b"o").await;
    let mut left = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), first.read_to_end(&mut left)).await;
    assert!(ended.is_ok(), "cut off");
    broker.client().await.generate_random(8).await.expect("calls are served meanwhile");
    drop(broker.stop().await);
}
