//! Proves, with the real program: brokers with one configuration have a trail each, which begins before the first call and says when it
//! ends. However they end, and whatever their store does meanwhile, an auditor who has the bucket alone is told of each what it
//! vouches for, and of none more.

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use fleet::{Fleet, path};
use key_broker_client::{Client, GenerateDataKey};
use kms_emulator::Fault;
use rustix::process::Signal;
use serde_json::Value;
use support::dev_folder::text;
use support::trail::{BUCKET, objects};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_with_one_configuration_that_drain_at_once_have_a_closed_and_sound_trail_each() {
    let fleet = Fleet::new().await;
    let mut brokers = Vec::new();
    for place in 0..brokers_of_this_run() {
        let broker = fleet.start(place);
        fleet.call(place, 3).await;
        brokers.push(broker);
    }
    for broker in &brokers {
        broker.signal(Signal::TERM);
    }
    for broker in brokers {
        assert!(broker.wait().success());
    }
    let trails = fleet.trails();
    assert_eq!(trails.len(), brokers_of_this_run(), "{trails:?}");
    let closing =
        fleet.digests().iter().filter(|digest| digest["keyBroker"]["position"] == "closing").count();
    assert_eq!(closing, brokers_of_this_run());
    let page = fleet.dir.path().join("verdict.html");
    let (code, lines) = fleet.audit("verify", &["--json", "--all-trails", "--html", path(&page)]);
    let page = fs::read_to_string(page).expect("a page");
    assert!(page.contains("<h1>Sound</h1>") && page.matches("<tr>").count() == trails.len() + 1, "{page}");
    let mut judged: Vec<&str> = lines.iter().filter_map(|line| line["trail"].as_str()).collect();
    judged.sort_unstable();
    assert_eq!((code, judged), (Some(0), trails.iter().map(String::as_str).collect()), "{lines:#?}");
    for report in lines.iter().filter_map(|line| line.get("report")) {
        let found = (report["verdict"].as_str(), report["state"].as_str());
        assert_eq!(found, (Some("sound"), Some("closed")), "{report:#}");
        assert!(report["records"].as_u64() >= Some(6), "{report:#}");
    }
    let bucket = &lines.last().expect("a line")["bucket"];
    let all = brokers_of_this_run();
    assert_eq!(
        (&bucket["verdict"], &bucket["trails"]["sound"]),
        (&"sound".into(), &all.into()),
        "{bucket:#}"
    );
    assert_eq!(bucket["states"]["closed"], all, "{bucket:#}");

    let (code, lines) = fleet.audit("trails", &["--json"]);
    let pods: BTreeSet<&str> = lines.iter().filter_map(|line| line["pod"].as_str()).collect();
    assert_eq!((code, lines.len(), pods.len()), (Some(0), all, all), "{lines:#?}");

    // A run that notes what it has found sound goes on where it was killed, and says the same; another file than its own is refused.
    let resume = fleet.dir.path().join("verified.jsonl");
    let noting = ["--json", "--all-trails", "--resume", path(&resume)];
    let (code, first) = fleet.audit("verify", &noting);
    let noted = fs::read_to_string(&resume).expect("notes");
    assert_eq!((code, noted.lines().count()), (Some(0), all), "{noted}");
    let half = noted.lines().take(all / 2).collect::<Vec<_>>().join("\n") + "\n{\"trailArn\":\"arn:aw";
    fs::write(&resume, half).expect("writes");
    let (code, again) = fleet.audit("verify", &noting);
    let in_order = |mut lines: Vec<Value>| {
        lines.sort_by_key(ToString::to_string);
        lines
    };
    assert_eq!((code, in_order(again)), (Some(0), in_order(first)));
    assert_eq!(fs::read_to_string(&resume).expect("notes").lines().count(), all);
    fs::write(&resume, "{}\n").expect("writes");
    let refused = fleet.said("verify", &noting);
    assert_eq!(refused.status.code(), Some(64), "{}", text(&refused.stderr));
    fs::remove_file(&resume).expect("removes");

    // One log file is gone: that trail is no longer sound, and all others are.
    let removed = objects(&fleet.store()).into_iter().find(|(key, _)| !key.contains("Digest"));
    fs::remove_file(removed.expect("a log file").1).expect("removes");
    let (code, lines) = fleet.audit("verify", &["--json", "--all-trails"]);
    let bucket = &lines.last().expect("a line")["bucket"];
    assert_eq!((code, &bucket["verdict"]), (Some(1), &"unsound".into()), "{bucket:#}");
    assert_eq!((&bucket["trails"]["sound"], &bucket["trails"]["unsound"]), (&(all - 1).into(), &1.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_whose_volume_is_lost_leaves_an_open_trail_and_the_next_one_is_another() {
    let fleet = Fleet::new().await;
    let broker = fleet.start(0);
    fleet.call(0, 2).await;
    tokio::task::spawn_blocking(move || broker.kill()).await.expect("killed");
    fs::remove_dir_all(fleet.journal(0)).expect("the volume is lost");
    let lost = fleet.trails();

    let broker = fleet.start(0);
    fleet.call(0, 2).await;
    broker.signal(Signal::TERM);
    assert!(broker.wait().success());
    let trails = fleet.trails();
    assert_eq!((lost.len(), trails.len()), (1, 2));
    for trail in trails {
        let (code, report) = fleet.verify(&trail);
        assert_eq!((code, &report["verdict"]), (Some(0), &"sound".into()), "{report:#}");
        let state = if lost.contains(&trail) { "open" } else { "closed" };
        assert_eq!(report["state"], state, "{report:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_brokers_journal_is_delivered_under_its_own_name() {
    let fleet = Fleet::new().await;
    let broker = fleet.start(0);
    fleet.call(0, 2).await;
    // Somebody who is alive writes there.
    let refused = fleet.deliver(0);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
    assert!(
        text(&refused.stderr).contains("another process writes the journal"),
        "{}",
        text(&refused.stderr)
    );
    tokio::task::spawn_blocking(move || broker.kill()).await.expect("killed");
    let delivered = fleet.deliver(0);
    assert_eq!(delivered.status.code(), Some(0), "{}", text(&delivered.stderr));
    let trails = fleet.trails();
    assert_eq!(trails.len(), 1);
    let (code, report) = fleet.verify(&trails[0]);
    assert_eq!((code, &report["state"]), (Some(0), &"closed".into()), "{report:#}");
    assert!(report["activityRecords"].as_u64() >= Some(4), "two calls, the start and the end: {report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_down_at_the_drain_leaves_a_trail_that_is_known_and_an_exit_code() {
    let fleet = Fleet::new().await;
    let broker = fleet.start_with(0, "[limits]\ndrain_seconds = 1\n");
    fleet.call(0, 2).await;
    let bucket = fleet.store().join(BUCKET);
    let aside = fleet.dir.path().join("aside");
    fs::rename(&bucket, &aside).expect("it goes down");
    fs::write(&bucket, "not a directory").expect("writes");
    broker.signal(Signal::TERM);
    let log = fleet.dir.path().join("0/log");
    let code = tokio::task::spawn_blocking(move || broker.wait().code()).await.expect("waits");
    assert_eq!(code, Some(75));
    let log = fs::read_to_string(log).expect("a log");
    let last = log.lines().last().expect("a line");
    assert!(last.contains("are not delivered"), "{last}");
    fs::remove_file(&bucket).expect("removes");
    fs::rename(&aside, &bucket).expect("it is back");
    let trails = fleet.trails();
    assert_eq!(trails.len(), 1, "its first digest was there before the first call");
    let opening = &fleet.digests()[0];
    assert_eq!(opening["keyBroker"]["position"], "opening");
    assert!(
        opening["keyBroker"]["origin"]["host"].as_str().is_some_and(|host| !host.is_empty()),
        "{opening:#}"
    );
    assert_eq!(opening["keyBroker"]["origin"]["pod"], "orders-0");
}

/// Until the store knows of a trail, gRPC's health answers, as HTTP's does, that the broker is alive and not ready; a call waits, within its own
/// deadline, and is recorded as any other. Afterwards a start needs neither store nor STS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_served_before_the_store_knows_of_the_trail_and_afterwards_without_store_and_sts() {
    let fleet = Fleet::new().await;
    let bucket = fleet.store().join(BUCKET);
    fs::create_dir_all(fleet.store()).expect("makes");
    fs::write(&bucket, "not a directory").expect("writes");
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let config = fleet.config(0, &format!("[telemetry]\nhttp = \"{port}\"\n"));
    let broker = Fleet::spawn(0, &config);
    broker.wait_for_log("its first digest is not delivered");
    let health = |more: &[&str]| Fleet::program(&[&["health", "--config", path(&config)], more].concat());
    let not_ready = health(&[]);
    assert_eq!(not_ready.status.code(), Some(1), "{}", text(&not_ready.stderr));
    assert!(text(&not_ready.stderr).contains("NOT_SERVING"), "{}", text(&not_ready.stderr));
    assert_eq!(health(&["--live"]).status.code(), Some(0), "it is alive");
    let client = Client::unix(fleet.socket(0)).await.expect("listens");
    let hasty = client.clone().with_deadline(Duration::from_millis(300));
    let late =
        hasty.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect_err("it waits in vain");
    assert_eq!(late.reason(), Some("DEADLINE_EXCEEDED"), "{late}");
    let client = client.with_deadline(Duration::from_mins(1));
    let waiting =
        tokio::spawn(async move { client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await });
    assert!(get(&port.to_string(), "/healthz").starts_with("HTTP/1.1 200"), "it is alive");
    let ready = get(&port.to_string(), "/readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("first digest"), "{ready}");
    fs::remove_file(&bucket).expect("the store is there");
    broker.wait_for_log("\"serving\"");
    waiting.await.expect("no panic").expect("a key, now");
    assert_eq!(health(&[]).status.code(), Some(0));
    fleet.call(0, 1).await;
    tokio::task::spawn_blocking(move || broker.kill()).await.expect("killed");

    fs::rename(&bucket, fleet.dir.path().join("aside")).expect("it goes down");
    fs::write(&bucket, "not a directory").expect("writes");
    fleet.emulator.inject(Fault::access_denied().on("GetCallerIdentity"));
    let broker = Fleet::spawn(0, &config);
    broker.wait_for_log("\"serving\"");
    fleet.call(0, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_brings_everything_into_the_store_and_is_recorded() {
    let fleet = Fleet::new().await;
    let broker = fleet.start(0);
    fleet.call(0, 2).await;
    let flushed = Fleet::program(&["flush", "--config", path(&fleet.dir.path().join("0/key-broker.toml"))]);
    assert_eq!(flushed.status.code(), Some(0), "{}", text(&flushed.stderr));
    let digest = text(&flushed.stdout);
    assert!(digest.starts_with("logs/AWSLogs/") && digest.contains("CloudTrail-Digest"), "{digest}");
    tokio::task::spawn_blocking(move || broker.kill()).await.expect("killed");
    fs::remove_dir_all(fleet.journal(0)).expect("the volume is lost");
    let (code, report) = fleet.verify(&fleet.trails()[0]);
    assert_eq!((code, &report["verdict"]), (Some(0), &"sound".into()), "{report:#}");
    let names = fleet.event_names();
    assert_eq!(names.iter().filter(|name| *name == "GenerateDataKey").count(), 4, "two calls: {names:?}");
    assert!(names.contains(&"StartBroker".to_owned()) && names.contains(&"Flush".to_owned()), "{names:?}");
}

/// Twelve, or as many as `KEY_BROKER_FLEET` says.
fn brokers_of_this_run() -> usize {
    std::env::var("KEY_BROKER_FLEET").ok().and_then(|number| number.parse().ok()).unwrap_or(12)
}

/// What a server says to a probe.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("asks");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("answers");
    said
}
