//! Proves, with the real program before an S3 that nobody here wrote, moto: the trail in a bucket is the trail in a directory,
//! whole and once, over kills and an S3 that is down or breaks off; no object is put twice, and each is locked by the bucket's
//! retention; its objects have CloudTrail's headers; S3 is told to encrypt under the configured key with the trail in the context;
//! and the auditor's commands read it from there.

#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use key_broker_client::{Client, GenerateDataKey};
use peers::{Moto, Peers, cases, check_records, printed, validate_logs};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::dice::Dice;
use support::eventually;
use support::load::Load;
use support::process::{Process, binary};
use support::proxy::Proxy;
use support::site::Site;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn a_trail_in_s3_is_whole_over_kills_and_outages_of_s3() {
    let (bucket, site) = Bucket::new().await;
    let mut dice = Dice::of_this_run();
    let load = Load::start(&site.socket(), 4, Duration::from_millis(20), &mut dice);
    let config = site.config_with_store(&bucket.store(), "");
    for round in 0..ROUNDS {
        let broker = Process::serve(&config);
        match round % 4 {
            1 => bucket.proxy.set_up(false),
            // Within the body of a log file: some requests fit, with less to deliver.
            3 => bucket.proxy.break_after(3_000),
            _ => {}
        }
        if round % 2 == 1 {
            eventually("S3 is missed", || broker.log().contains("cannot deliver the trail")).await;
            bucket.proxy.set_up(true);
            bucket.proxy.break_after(u64::MAX);
        }
        tokio::time::sleep(Duration::from_micros(dice.below(2_000_000))).await;
        tokio::task::spawn_blocking(move || broker.kill()).await.expect("killed");
    }
    let last = Process::serve(&config);
    let client = Client::unix(site.socket()).await.expect("listens");
    client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect("a key");
    let seen = load.stop().await;
    last.signal(Signal::TERM);
    assert!(last.wait().success());
    assert!(seen.refused.is_empty(), "no outage of S3 holds up a call: {:?}", seen.refused);

    let objects = bucket.mirror(&site);
    for object in &objects {
        assert_eq!(object["contentType"], "application/json", "{object}");
        assert_eq!(object["contentEncoding"], "gzip", "{object}");
        assert_eq!(object["encryption"], Value::Null, "none was asked for: {object}");
        assert_eq!(object["lock"], "COMPLIANCE", "by the bucket's default retention: {object}");
        assert_eq!(object["versions"], 1, "it was put once, whatever broke off: {object}");
        assert_eq!(object["putAgain"], "PreconditionFailed", "this store knows If-None-Match: {object}");
    }
    let conditions = bucket.proxy.sent_headers("if-none-match");
    assert!(conditions.len() >= objects.len() && conditions.iter().all(|condition| condition == "*"));
    let delivered = site.assert_accounts_for(&seen);
    println!(
        "{} told; {} records in {} log files and {} digests",
        seen.told.len(),
        delivered.records.len(),
        delivered.log_files,
        delivered.digests
    );
    assert!(seen.answered() > 10 * ROUNDS, "there was load");
    tokio::task::spawn_blocking(move || {
        Site::verify(&config);
        check_records(&delivered.texts);
        validate_logs(&site.store(), &site.key.to_pem(), delivered.digests, delivered.log_files);
    })
    .await
    .expect("judged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn s3_is_told_to_encrypt_under_the_key_with_the_trail_in_the_context() {
    let (bucket, site) = Bucket::new().await;
    let key =
        site.emulator.ensure_key("alias/trail", kms_emulator::KeySpec::SymmetricDefault).expect("a key");
    let config = site.config_with_store(&bucket.store(), "kms_key_id = \"alias/trail\"");
    let broker = Process::serve(&config);
    let client = Client::unix(site.socket()).await.expect("listens");
    let made = client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect("a key");
    broker.signal(Signal::TERM);
    assert!(broker.wait().success());

    let objects = bucket.mirror(&site);
    assert!(objects.iter().any(|object| !is_digest(object)) && objects.iter().any(is_digest));
    for object in objects {
        assert_eq!(object["encryption"], "aws:kms", "{object}");
        assert!(
            object["kmsKey"].as_str().is_some_and(|arn| arn.starts_with("arn:") && arn.ends_with(&key)),
            "{object}"
        );
    }
    let contexts = bucket.proxy.sent_headers("x-amz-server-side-encryption-context");
    assert!(!contexts.is_empty());
    for context in contexts {
        let context: Value = serde_json::from_slice(&BASE64.decode(&context).expect("base64")).expect("JSON");
        let trail = context["aws:cloudtrail:arn"].as_str().expect("a trail");
        assert!(trail.starts_with("arn:aws:cloudtrail:us-west-2:111122223333:trail/key-broker-"), "{trail}");
        assert_eq!(context, json!({ "aws:cloudtrail:arn": trail }), "and nothing else");
    }
    // S3 decrypts for whoever may: nothing but the objects is asked for.
    tokio::task::spawn_blocking(move || {
        Site::verify(&config);
        let found = find(&config, &made.provenance.kms_request_id);
        assert_eq!((&found["verdict"], &found["callsInAll"]), (&json!("vouched"), &json!(1)), "{found:#}");
    })
    .await
    .expect("sound");
}

/// A bucket of moto's, behind a proxy.
struct Bucket {
    proxy: Proxy,
    moto: Moto,
    peers: Peers,
}

impl Bucket {
    async fn new() -> (Self, Site) {
        let peers = Peers::install(&["moto"]);
        let site = Site::new().await;
        let moto = Moto::start(&peers, site.dir.path());
        let bucket = Self { proxy: Proxy::before(&moto.endpoint).await, moto, peers };
        assert_eq!(bucket.run_mirror(&site, &["--create"]), Vec::<Value>::new());
        (bucket, site)
    }

    /// The configuration's line for it.
    fn store(&self) -> String {
        format!("store = {{ s3_bucket = \"logs\", s3_endpoint_url = \"{}\" }}", self.proxy.endpoint())
    }

    /// Copies it to where the site's store would be in a directory.
    fn mirror(&self, site: &Site) -> Vec<Value> {
        self.run_mirror(site, &[])
    }

    fn run_mirror(&self, site: &Site, more: &[&str]) -> Vec<Value> {
        let script = peers::root().join("tests/peers/moto/mirror.py");
        let mut mirror = self.peers.command("moto/bin/python");
        cases(mirror.arg(script).arg(&self.moto.endpoint).arg("logs").arg(site.store()).args(more))
    }
}

/// The story that the trail in the bucket has of an id.
fn find(config: &Path, id: &str) -> Value {
    let own = tempfile::tempdir().expect("a directory");
    let mut find = Command::new(binary());
    find.args(["audit", "find", id, "--json", "--config"]).arg(config);
    find.arg("--record-to").arg(own.path().join("records"));
    find.env("AWS_ACCESS_KEY_ID", "AKIATESTEXAMPLE00000").env("AWS_SECRET_ACCESS_KEY", "test-only");
    serde_json::from_str(&printed(&mut find)).expect("JSON")
}

fn is_digest(object: &Value) -> bool {
    object["key"].as_str().is_some_and(|key| key.contains("CloudTrail-Digest"))
}

const ROUNDS: usize = 8;
