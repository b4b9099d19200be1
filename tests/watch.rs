//! Proves, with the real program and an emulator that tells when keys were last used: `key-broker audit watch` finds each use by somebody who
//! has the broker's credentials and leaves no record, beside a broker that is idle, and beside one that is used as long as it does not use
//! the key after him; it never rings for a broker's own use, whether that broker is drained, killed, late, or was not answered; and what
//! it cannot tell it does not take for anything.

#[path = "support/receiver.rs"]
mod receiver;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kms::primitives::Blob;
use key_broker_client::{Client, GenerateDataKey};
use kms_emulator::{Effect, Fault, KeySpec};
use receiver::Receiver;
use rustix::process::Signal;
use serde_json::Value;
use support::dev_folder::{command, text};
use support::process::Process;
use support::site::Site;

/// A broker with keys of its own, and somebody who watches them.
struct Watched {
    site: Site,
    config: PathBuf,
    broker: Option<Process>,
}

impl Watched {
    async fn start(keys: usize, more: &str) -> Self {
        let site = Site::new().await;
        for key in 0..keys {
            site.emulator.ensure_key(&alias(key), KeySpec::SymmetricDefault).expect("a key");
        }
        let config = site.config(more);
        let broker = Some(Process::serve(&config));
        Self { site, config, broker }
    }

    fn restart(&mut self) {
        self.broker = Some(Process::serve(&self.config));
    }

    /// Whatever it was doing.
    fn kill(&mut self) {
        let broker = self.broker.take().expect("it runs");
        broker.signal(Signal::KILL);
        let _ = broker.wait();
    }

    fn drain(&mut self) {
        let broker = self.broker.take().expect("it runs");
        broker.signal(Signal::TERM);
        assert!(broker.wait().success());
    }

    async fn client(&self) -> Client {
        Client::unix(self.site.socket()).await.expect("it serves")
    }

    /// A data key of the broker's: its ciphertext.
    async fn mint(&self, client: &Client, key: usize, tenant: &str) -> Vec<u8> {
        let request = GenerateDataKey::aes_256(alias(key)).context("tenant", tenant);
        client.generate_data_key(request).await.expect("a key").ciphertext_blob.to_vec()
    }

    /// Somebody with the broker's credentials.
    fn thief(&self) -> aws_sdk_kms::Client {
        let config = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-west-2"))
            .endpoint_url(self.site.emulator.endpoint_url())
            .credentials_provider(Credentials::new("AKIATESTEXAMPLE00000", "test-only", None, None, "thief"));
        aws_sdk_kms::Client::from_conf(config.build())
    }

    fn watch(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.run(&[arguments, &["--json"]].concat(), &[]);
        let json = serde_json::from_slice(&output.stdout);
        let json = json.unwrap_or_else(|_| panic!("{}\n{}", text(&output.stdout), text(&output.stderr)));
        (output.status.code().expect("it ends"), json)
    }

    fn run(&self, arguments: &[&str], variables: &[(&str, String)]) -> Output {
        let dir = self.site.dir.path();
        let mut watch = command();
        watch.args(["audit", "watch", "--skew-minutes", "0", "--config"]).arg(&self.config);
        watch.arg("--state").arg(dir.join("watch.json")).arg("--record-to").arg(dir.join("reader-records"));
        watch.args(arguments).envs(variables.iter().map(|(name, value)| (name, value)));
        watch.output().expect("it runs")
    }

    /// Watches until no use waits for a verdict: what that is.
    fn verdict(&self, arguments: &[&str]) -> (i32, Value) {
        for _ in 0..120 {
            let (code, report) = self.watch(arguments);
            if !standings(&report).contains_key("waiting") {
                return (code, report);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        panic!("no verdict: {:#}", self.watch(arguments).1)
    }
}

fn alias(key: usize) -> String {
    format!("alias/watched-{key}")
}

/// How many keys there are of each standing.
fn standings(report: &Value) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for key in report["keys"].as_object().expect("keys").values() {
        *counts.entry(key["standing"].as_str().expect("a word").to_owned()).or_default() += 1;
    }
    counts
}

fn alarms(report: &Value) -> usize {
    report["alarms"].as_array().expect("a list").len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_theft_beside_an_idle_broker_rings_until_it_is_acknowledged() {
    const KEYS: usize = 100;
    let watched = Watched::start(KEYS, "").await;
    let client = watched.client().await;
    let mut ciphertexts = Vec::new();
    for key in 0..KEYS {
        ciphertexts.push(watched.mint(&client, key, "acme").await);
    }
    let mut first = watched.watch(&[]);
    while standings(&first.1).get("before") != Some(&KEYS) {
        first = watched.watch(&[]);
    }
    assert_eq!((first.0, alarms(&first.1)), (0, 0), "{:#}", first.1);
    tokio::time::sleep(Duration::from_millis(1_100)).await;

    let thief = watched.thief();
    for ciphertext in &ciphertexts {
        let stolen = thief.decrypt().ciphertext_blob(Blob::new(ciphertext.clone()));
        stolen.encryption_context("tenant", "acme").send().await.expect("his");
    }
    let (code, report) = watched.verdict(&[]);
    assert_eq!((code, alarms(&report)), (1, KEYS), "{report:#}");
    let alarm = &report["alarms"][0];
    assert_eq!(alarm["operation"], "Decrypt");
    let call = watched
        .site
        .emulator
        .calls()
        .into_iter()
        .find(|call| alarm["kmsRequestID"] == call.request_id.as_str());
    assert!(call.is_some() && alarm["cloudTrailEventID"].is_string(), "{alarm}");

    // It rings in every run, in words too, until somebody has looked.
    let receiver = Receiver::start();
    let variables = receiver.environment("http/protobuf").map(|(name, value)| (name, value));
    let told = watched.run(&[], &variables);
    assert_eq!(told.status.code(), Some(1));
    let words = text(&told.stdout);
    assert!(
        words.contains("ALARM: no broker has a record of this use: Decrypt under arn:aws:kms:"),
        "{words}"
    );
    assert!(
        words.contains("--acknowledge ")
            && words.ends_with("ALARM: no broker has a record of 100 uses of keys\n"),
        "{words}"
    );
    assert!(receiver.text().contains("keybroker.audit.watch.alarm.timestamp"), "{}", receiver.text());
    let ids = report["alarms"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|alarm| alarm["kmsRequestID"].as_str().expect("an id"));
    let acknowledged: Vec<&str> = std::iter::once("--acknowledge").chain(ids).collect();
    let (code, report) = watched.watch(&acknowledged);
    assert_eq!((code, alarms(&report)), (0, 0), "{report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_theft_is_seen_unless_the_broker_uses_the_key_after_it() {
    const KEYS: usize = 20;
    let watched = Watched::start(KEYS, "").await;
    let client = watched.client().await;
    let mut ciphertexts = Vec::new();
    for key in 0..KEYS {
        ciphertexts.push(watched.mint(&client, key, "acme").await);
    }
    while standings(&watched.watch(&[]).1).get("before") != Some(&KEYS) {}
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let thief = watched.thief();
    for (key, ciphertext) in ciphertexts.iter().enumerate() {
        watched.mint(&client, key, "before him").await;
        let stolen = thief.decrypt().ciphertext_blob(Blob::new(ciphertext.clone()));
        stolen.encryption_context("tenant", "acme").send().await.expect("his");
        if key % 2 == 0 {
            watched.mint(&client, key, "after him").await;
        }
    }
    let (code, report) = watched.verdict(&[]);
    assert_eq!((code, alarms(&report)), (1, KEYS / 2), "{report:#}");
    assert_eq!(standings(&report)["explained"], KEYS / 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_use_of_a_brokers_rings_whatever_becomes_of_the_broker() {
    let mut watched = Watched::start(1, "").await;
    for round in 0..4 {
        {
            let client = watched.client().await;
            watched.mint(&client, 0, &format!("round {round}")).await;
        }
        match round {
            0 => {}
            1 => watched.drain(),
            2 => watched.kill(),
            // KMS has done it, its answer is lost, and the broker is killed before it asks again: nothing tells of that call.
            _ => {
                let client = watched.client().await;
                watched.site.emulator.inject(fault());
                let request = GenerateDataKey::aes_256(alias(0)).context("tenant", "cut off");
                let call = tokio::spawn(async move { client.generate_data_key(request).await });
                tokio::time::sleep(Duration::from_millis(40)).await;
                watched.kill();
                let _ = call.await;
                watched.site.emulator.clear_faults();
            }
        }
        for _ in 0..3 {
            let (code, report) = watched.watch(&["--key", &alias(0)]);
            assert_ne!(code, 1, "round {round}: {report:#}");
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        if watched.broker.is_none() {
            watched.restart();
        }
    }
    let (code, report) = watched.verdict(&["--key", &alias(0)]);
    assert_eq!((code, alarms(&report)), (2, 0), "{report:#}");
    let why = report["untold"][0]["reasons"][0]["why"].as_str().expect("words");
    assert!(why.contains("was killed about then"), "{why}");
}

fn fault() -> Fault {
    Fault {
        effect: Effect::LoseAnswer,
        operation: Some("GenerateDataKey".into()),
        times: None,
        every: None,
        chance: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_lost_is_no_theft() {
    let watched = Watched::start(1, "").await;
    let client = watched.client().await;
    watched.mint(&client, 0, "first").await;
    watched.watch(&["--key", &alias(0)]);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    watched.site.emulator.inject(fault());
    let request = GenerateDataKey::aes_256(alias(0)).context("tenant", "lost");
    client.generate_data_key(request).await.expect_err("KMS does not answer");
    watched.site.emulator.clear_faults();
    let (code, report) = watched.verdict(&["--key", &alias(0)]);
    assert_eq!((code, alarms(&report)), (2, 0), "{report:#}");
    let why = report["untold"][0]["reasons"][0]["why"].as_str().expect("words");
    assert!(why.contains("KMS may have carried it out"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kms_that_counts_dry_runs_is_told_to_be_blind() {
    let watched = Watched::start(1, "[reuse]\nrevocation_check_seconds = 1\n").await;
    watched.site.emulator.track_last_usage(Duration::ZERO, true);
    let client = watched.client().await;
    watched.mint(&client, 0, "acme").await;
    watched.watch(&["--key", &alias(0)]);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    watched.mint(&client, 0, "acme").await;
    let (code, report) = watched.verdict(&["--key", &alias(0)]);
    assert_eq!((code, standings(&report)), (0, BTreeMap::from([("blind".to_owned(), 1)])), "{report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_may_use_is_said_to_be_shared_and_what_cannot_be_asked_is_not_passed_over() {
    let watched = Watched::start(2, "").await;
    let client = watched.client().await;
    let ciphertext = watched.mint(&client, 0, "acme").await;
    watched.watch(&["--key", &alias(0), &alias(1), "--shared", &alias(0)]);
    let stolen = watched.thief().decrypt().ciphertext_blob(Blob::new(ciphertext));
    stolen.encryption_context("tenant", "acme").send().await.expect("anybody's");
    let (code, report) = watched.verdict(&["--key", &alias(0), &alias(1), "--shared", &alias(0)]);
    let expected = BTreeMap::from([("shared".to_owned(), 1), ("unused".to_owned(), 1)]);
    assert_eq!((code, standings(&report)), (0, expected), "{report:#}");
    let (code, report) = watched.watch(&["--key", "alias/none"]);
    assert_eq!((code, &report["keys"]["alias/none"]["standing"]), (2, &"notTold".into()), "{report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_is_not_ones_own_is_refused() {
    let watched = Watched::start(1, "").await;
    let state = watched.site.dir.path().join("watch.json");
    let refused = |prepare: &dyn Fn(&Path)| {
        let _ = fs::remove_file(&state);
        prepare(&state);
        watched.run(&["--key", &alias(0)], &[]).status.code()
    };
    assert_eq!(refused(&|state| fs::write(state, "{}").expect("writes")), Some(64));
    assert_eq!(refused(&|state| std::os::unix::fs::symlink("/dev/null", state).expect("links")), Some(64));
    assert_eq!(refused(&|_| {}), Some(0));
}
