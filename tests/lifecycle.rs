//! Proves, with the real program in a process of its own: SIGTERM loses no call in flight and exits with 0; kill -9 at any
//! moment loses no record of a reply; one socket and one journal belong to one live process, which has its allocator's setting.

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use key_broker_client::{Client, GenerateDataKey};
use key_broker_core::clock::{Clock as _, SystemClock};
use kms_emulator::{Emulator, EmulatorConfig, Fault, KeySpec};
use rustix::process::Signal;
use support::process::{Process, write_config};
use support::{Records, TestBroker, eventually, id};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Its settings are read when a program starts, so the broker starts itself again, as the same process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_allocator_has_the_setting_that_suits_the_broker_or_the_operators_own() {
    const VARIABLE: &str = "GLIBC_TUNABLES";
    let emulator = emulator().await;
    let (suits, own) = ("glibc.malloc.tcache_count=200", "glibc.malloc.tcache_count=7");
    for (given, expected) in [
        (None, Some(suits)),
        (Some((VARIABLE, own)), Some(own)),
        // Where glibc has taken the setting away, it does not start itself for ever.
        (Some(("KEY_BROKER_STARTED_AGAIN", "1")), None),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let config = write_config(dir.path(), &emulator.endpoint_url(), "");
        // What starts within the broker sees the broker's environment, which nobody but root can read from outside.
        let script = dir.path().join("credentials.sh");
        let (environment, profiles) = (dir.path().join("environment"), dir.path().join("aws"));
        let credentials =
            r#"{"Version":1,"AccessKeyId":"AKIATESTEXAMPLE00000","SecretAccessKey":"test-only"}"#;
        fs::write(&script, format!("env > '{}'\necho '{credentials}'\n", environment.display()))
            .expect("writes");
        fs::write(&profiles, format!("[default]\ncredential_process = sh {}\n", script.display()))
            .expect("writes");
        let mut command = Process::serve_command(&config);
        command.env("AWS_CONFIG_FILE", &profiles).env_remove(VARIABLE).envs(given);
        let broker = Process::serve_by_its_credentials(command, &config);
        let environment = fs::read_to_string(environment).expect("the credentials were asked for");
        let setting = environment.lines().find_map(|line| line.strip_prefix("GLIBC_TUNABLES="));
        assert_eq!(setting, expected);
        let of_process = |file: &str| fs::read(format!("/proc/{}/{file}", broker.pid())).expect("it lives");
        assert_eq!(of_process("comm"), b"key-broker\n");
        let arguments = of_process("cmdline");
        assert!(arguments.ends_with(format!("\0serve\0--config\0{}\0", config.display()).as_bytes()));
    }
}

async fn emulator() -> Emulator {
    let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
    emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
    emulator
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_finishes_calls_in_flight_refuses_new_ones_and_exits_with_0() {
    let emulator = emulator().await;
    let dir = tempfile::tempdir().expect("a directory");
    let broker = Process::serve(&write_config(dir.path(), &emulator.endpoint_url(), NO_REUSE));
    let socket = dir.path().join("broker.sock");
    let client = Client::unix(&socket).await.expect("listens");
    client.generate_random(8).await.expect("warm");
    emulator.inject(Fault::latency(Duration::from_millis(700)));
    let in_flight: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await })
        })
        .collect();
    eventually("KMS is asked", || emulator.call_count("GenerateDataKey") == 20).await;
    broker.signal(Signal::TERM);
    broker.wait_for_log("draining");

    let late = client.generate_random(8).await.expect_err("drains");
    assert_eq!((late.code(), late.reason()), (Code::Unavailable, Some("DRAINING")), "{late}");
    assert!(late.retry_after().is_some());
    eventually("the socket is gone", || !socket.exists()).await;
    assert_eq!(Client::unix(&socket).await.expect_err("gone").code(), Code::Unavailable);
    for call in in_flight {
        call.await.expect("no panic").expect("a call in flight is finished");
    }
    let status = broker.wait();
    assert!(status.success(), "{status}");
    let records = Records::read(&dir.path().join("journal"));
    assert_eq!(records.outcomes()["Allowed"], 21);
    assert_eq!(records.activity_of(id(&late))["errorCode"], "ServiceUnavailable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_sigterm_cuts_off_no_call() {
    let emulator = emulator().await;
    let dir = tempfile::tempdir().expect("a directory");
    let broker = Process::serve(&write_config(dir.path(), &emulator.endpoint_url(), NO_REUSE));
    let client = Client::unix(dir.path().join("broker.sock")).await.expect("listens");
    emulator.inject(Fault::latency(Duration::from_millis(1_500)));
    let in_flight = tokio::spawn(async move { client.generate_random(8).await });
    eventually("KMS is asked", || emulator.call_count("GenerateRandom") == 1).await;
    broker.signal(Signal::TERM);
    broker.wait_for_log("draining");
    for signal in [Signal::TERM, Signal::TERM, Signal::INT] {
        broker.signal(signal);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    in_flight.await.expect("no panic").expect("it is finished");
    assert!(broker.wait().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_sigint_ends_it_at_once() {
    let emulator = emulator().await;
    let dir = tempfile::tempdir().expect("a directory");
    let broker = Process::serve(&write_config(dir.path(), &emulator.endpoint_url(), NO_REUSE));
    let client = Client::unix(dir.path().join("broker.sock")).await.expect("listens");
    emulator.inject(Fault::latency(Duration::from_secs(8)));
    let in_flight = tokio::spawn(async move { client.generate_random(8).await });
    eventually("KMS is asked", || emulator.call_count("GenerateRandom") == 1).await;
    broker.signal(Signal::INT);
    broker.wait_for_log("draining");
    broker.signal(Signal::INT);
    assert_eq!(broker.wait().code(), Some(130));
    in_flight.await.expect("no panic").expect_err("it is cut off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_in_its_time_whatever_hangs() {
    let emulator = emulator().await;
    let dir = tempfile::tempdir().expect("a directory");
    support::signing::write_key(dir.path());
    // A store that takes the first digest, and then connections only: it never answers again.
    let hanging = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let store = hanging.local_addr().expect("an address");
    let hanging = tokio::task::spawn_blocking(move || {
        let (mut put, _) = hanging.accept().expect("a put");
        let mut read = vec![0; 64 << 10];
        // Its headers, and then a body that is shorter than this.
        assert!(put.read(&mut read).expect("reads") > 0);
        put.write_all(b"HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .expect("answers");
        hanging
    });
    let config = write_config(
        dir.path(),
        &emulator.endpoint_url(),
        &format!(
            "store = {{ s3_bucket = \"logs\", s3_endpoint_url = \"http://{store}\" }}\n\
             signing = {{ pem_file = \"signing.pem\" }}\ndelivery_interval_seconds = 1\n\
             [limits]\ndrain_seconds = 5\n{NO_REUSE}"
        ),
    );
    let text = fs::read_to_string(&config)
        .expect("reads")
        .replace("[policy]", "attempt_timeout_ms = 60000\n[policy]");
    fs::write(&config, text).expect("writes");
    let broker = Process::serve(&config);
    let _hanging = hanging.await.expect("it has the first digest");
    let client = Client::unix(dir.path().join("broker.sock")).await.expect("listens");
    let client = client.with_deadline(Duration::from_mins(2));
    client.generate_random(8).await.expect("a record to deliver");
    emulator.inject(Fault::new("hang".parse().expect("an effect")));
    let in_flight: Vec<_> = (0..6)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.generate_random(8).await })
        })
        .collect();
    eventually("KMS is asked", || emulator.call_count("GenerateRandom") == 7).await;
    // A delivery is under way.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let began = SystemClock.instant();
    broker.signal(Signal::TERM);
    let status = tokio::task::spawn_blocking(move || broker.wait()).await.expect("waits");
    let took = SystemClock.instant() - began;
    assert_eq!(status.code(), Some(75), "something is left");
    assert!(took < Duration::from_secs(5 + 7), "{took:?}");
    for call in in_flight {
        call.await.expect("no panic").expect_err("cut off");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_health_does_not_hold_up_a_drain() {
    let broker = TestBroker::start().await;
    let mut health = HealthClient::new(broker.channel().await);
    let service = "keybroker.v1.KeyBroker".to_owned();
    let watched = health.watch(HealthCheckRequest { service }).await.expect("a stream");
    let mut watched = watched.into_inner();
    assert_eq!(
        watched.message().await.expect("an answer").map(|answer| answer.status()),
        Some(ServingStatus::Serving)
    );
    let begun = tokio::time::timeout(Duration::from_secs(8), broker.stop()).await;
    begun.expect("a drain of ten seconds is not used up by a watcher");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_under_load_loses_no_record_of_a_reply() {
    let emulator = emulator().await;
    let dir = tempfile::tempdir().expect("a directory");
    let config = write_config(dir.path(), &emulator.endpoint_url(), NO_REUSE);
    let mut replies = 0;
    for round in 0..ROUNDS {
        let broker = Process::serve(&config);
        let seen = under_load_until_killed(dir.path(), broker, round).await;
        let records = Records::read_whole_lines(&dir.path().join("journal"));
        for (kms_request_id, kms_event_id) in &seen {
            assert_eq!(records.kms_of(kms_request_id)["eventID"], kms_event_id.as_str());
            let of_this_reply = |record: &&serde_json::Value| {
                record["additionalEventData"]["dataKey"]["kmsEventID"] == kms_event_id.as_str()
            };
            assert_eq!(records.activity.iter().filter(of_this_reply).count(), 1);
        }
        replies += seen.len();
    }
    assert!(replies > ROUNDS, "there was load: {replies} replies");
    // The next start cuts what was torn, and every line is a record again.
    let broker = Process::serve(&config);
    drop(Records::read(&dir.path().join("journal")));
    broker.signal(Signal::TERM);
    assert!(broker.wait().success());
}

/// Eight callers ask as fast as they can until the broker is killed; returns what they saw.
async fn under_load_until_killed(dir: &Path, broker: Process, round: usize) -> Vec<(String, String)> {
    let stop = Arc::new(AtomicBool::new(false));
    let replies = Arc::new(AtomicUsize::new(0));
    let mut callers = Vec::new();
    for _ in 0..8 {
        let client = Client::unix(dir.join("broker.sock")).await.expect("listens");
        let (stop, replies) = (Arc::clone(&stop), Arc::clone(&replies));
        callers.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let Ok(key) = client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await else {
                    break;
                };
                seen.push((key.provenance.kms_request_id, key.provenance.kms_event_id));
                replies.fetch_add(1, Ordering::Relaxed);
            }
            seen
        }));
    }
    // Another moment each round, from the first replies on, however busy the machine is.
    eventually("two replies", || replies.load(Ordering::Relaxed) >= 2).await;
    tokio::time::sleep(Duration::from_millis(20 + 13 * round as u64)).await;
    tokio::task::spawn_blocking(move || broker.kill()).await.expect("killed");
    stop.store(true, Ordering::Relaxed);
    let mut seen = Vec::new();
    for caller in callers {
        seen.extend(caller.await.expect("no panic"));
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_broker_on_the_same_socket_or_journal_is_refused() {
    let emulator = emulator().await;
    let dir = tempfile::tempdir().expect("a directory");
    let config = write_config(dir.path(), &emulator.endpoint_url(), NO_REUSE);
    let first = Process::serve(&config);
    let log_dir = tempfile::tempdir().expect("a directory");
    let second = Process::spawn(&["serve", "--config", config.to_str().expect("a path")], log_dir.path());
    second.wait_for_log("another process writes the journal");
    assert_eq!(second.wait().code(), Some(64));

    let other = tempfile::tempdir().expect("a directory");
    let text = fs::read_to_string(&config).expect("the configuration");
    let socket = dir.path().join("broker.sock");
    let text = text.replace("broker.sock", socket.to_str().expect("a path"));
    fs::write(other.path().join("policy.cedar"), "").expect("writes");
    fs::write(other.path().join("key-broker.toml"), text).expect("writes");
    let config = other.path().join("key-broker.toml");
    let second = Process::spawn(&["serve", "--config", config.to_str().expect("a path")], log_dir.path());
    second.wait_for_log("another process listens there");
    assert_eq!(second.wait().code(), Some(64));
    Client::unix(&socket)
        .await
        .expect("the first still listens")
        .generate_random(8)
        .await
        .expect("and serves");
    drop(first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_socket_of_a_killed_broker_is_taken_over() {
    let emulator = emulator().await;
    let dir = tempfile::tempdir().expect("a directory");
    let config = write_config(dir.path(), &emulator.endpoint_url(), NO_REUSE);
    Process::serve(&config).kill();
    assert!(dir.path().join("broker.sock").exists(), "kill -9 leaves it behind");
    let second = Process::serve(&config);
    let client = Client::unix(dir.path().join("broker.sock")).await.expect("listens");
    client.generate_random(8).await.expect("serves");
    drop(second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_credentials_it_waits_says_why_and_stops_on_sigterm() {
    let emulator = emulator().await;
    emulator.inject(Fault::access_denied().on("GetCallerIdentity").times(1));
    let dir = tempfile::tempdir().expect("a directory");
    let config = write_config(dir.path(), &emulator.endpoint_url(), NO_REUSE);
    let broker = Process::spawn(&["serve", "--config", config.to_str().expect("a path")], dir.path());
    broker.wait_for_log("not serving yet");
    assert!(!dir.path().join("broker.sock").exists());
    broker.wait_for_log("\"serving\"");
    broker.signal(Signal::TERM);
    assert!(broker.wait().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_secret_reaches_log_or_journal() {
    let emulator = emulator().await;
    let dir = tempfile::tempdir().expect("a directory");
    let config = write_config(dir.path(), &emulator.endpoint_url(), NO_REUSE);
    let broker = Process::spawn_with_log_filter(&config, "trace");
    broker.wait_for_log("\"serving\"");
    let client = Client::unix(dir.path().join("broker.sock")).await.expect("listens");
    let key = client
        .generate_data_key(GenerateDataKey::aes_256("alias/dev").context("tenant", "CONTEXT-MARKER"))
        .await
        .expect("a key");
    emulator.inject(Fault::new("corrupt-body".parse().expect("an effect")));
    let _ = client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await;
    broker.signal(Signal::TERM);
    let log = broker.log();
    assert!(broker.wait().success());
    let journal = support::journal_lines(&dir.path().join("journal")).join("\n");
    for (place, text) in [("log", &log), ("journal", &journal)] {
        for (what, bytes) in [("plaintext", key.plaintext.expose()), ("ciphertext", &key.ciphertext_blob[..])]
        {
            for form in forms(bytes) {
                assert!(!text.contains(&form), "{what} in the {place}");
            }
        }
    }
    assert!(!log.contains("CONTEXT-MARKER"), "context values stay out of the log");
    assert!(journal.contains("CONTEXT-MARKER"), "and are in the records");
}

/// The ways in which bytes get into text.
fn forms(bytes: &[u8]) -> Vec<String> {
    let debug = format!("{bytes:?}");
    vec![
        hex::encode_upper(bytes),
        hex::encode(bytes),
        debug.trim_matches(['[', ']']).to_owned(),
        STANDARD_NO_PAD.encode(bytes),
    ]
}

/// Each round takes a third of a second.
const ROUNDS: usize = 15;

/// Every call goes to KMS: these tests count calls.
const NO_REUSE: &str = "[reuse]\nenabled = false\n";
