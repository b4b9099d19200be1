//! Proves: what the journal holds is delivered once and for all, whatever the store, the clock or somebody's hand does
//! meanwhile, and calls never wait for it.

mod peers;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use key_broker::{StartError, Telemetry};
use key_broker_client::{Client, GenerateDataKey};
use key_broker_core::KeyId;
use key_broker_trail::PublicKey;
use key_broker_trail::delivery::{SigningConfig, TrailConfig};
use serde_json::{Value, json};
use support::clock::TestClock;
use support::formats::{Digest, files};
use support::scrape::Scrape;
use support::trail::{self, checked_digests, log_files, records};
use support::{Records, Setup, TestBroker, eventually};
use tempfile::TempDir;
use time::macros::datetime;

const FORGED: &str = "00000000-0000-4000-8000-000000000000";
const DELIVERY: Duration = Duration::from_mins(5);

/// A broker whose trail and time are the test's.
struct Trailed {
    broker: TestBroker,
    client: Client,
    clock: Arc<TestClock>,
    root: TempDir,
    /// The eventIDs of the KMS records behind what was answered.
    answered: BTreeSet<String>,
}

impl Trailed {
    async fn start() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let config = trail::config(root.path());
        Self::with(root, Setup { trail: Some(config), ..Setup::default() }).await
    }

    async fn with(root: TempDir, setup: Setup) -> Self {
        let clock = TestClock::at(datetime!(2026-11-25 23:40:00 UTC));
        let http = Some("127.0.0.1:0".parse().expect("an address"));
        let telemetry = Telemetry { http, ..Telemetry::default() };
        let broker = TestBroker::with(Setup { clock: clock.clone(), telemetry, ..setup }).await;
        let client = broker.client().await;
        Self { broker, client, clock, root, answered: BTreeSet::new() }
    }

    async fn call(&mut self, times: usize) {
        for _ in 0..times {
            let key =
                self.client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect("a key");
            assert!(self.answered.insert(key.provenance.kms_event_id));
        }
    }

    /// The store takes nothing, and gives nothing.
    fn break_store(&self) {
        let bucket = self.root.path().join("logs");
        fs::rename(&bucket, self.root.path().join("aside")).expect("renames");
        fs::write(&bucket, "not a directory").expect("writes");
    }

    fn mend_store(&self) {
        let bucket = self.root.path().join("logs");
        fs::remove_file(&bucket).expect("removes");
        fs::rename(self.root.path().join("aside"), &bucket).expect("returns");
    }

    async fn delivered(&self, log_files: usize) {
        let (root, journal) = (self.root.path(), self.broker.journal_dir());
        let closed = || files(&journal).expect("files").iter().any(|file| file.closed_at.is_some());
        eventually("delivered", || trail::log_files(root).len() >= log_files && !closed()).await;
    }

    /// Waits until a delivery has failed: what it read of the journal, it does not store any more.
    async fn delivery_has_failed(&self) {
        for _ in 0..1_000 {
            let scrape = Scrape::of(&self.broker).await;
            if scrape.sum("keybroker_audit_failures_total", &[("keybroker_audit_failure", "delivery")]) > 0.5
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no delivery fails within ten seconds");
    }

    async fn public_key(&self) -> PublicKey {
        let endpoint = self.broker.emulator.endpoint_url();
        let asked = json!({ "KeyId": "alias/dev-signing" });
        let answer = tokio::task::spawn_blocking(move || peers::kms(&endpoint, "GetPublicKey", &asked));
        let answer = answer.await.expect("KMS answers");
        let spki = BASE64.decode(answer["PublicKey"].as_str().expect("a key")).expect("base64");
        PublicKey::from_spki(&spki).expect("RSA")
    }

    /// Drains, and checks that every answered call is in exactly one log file, with all digests in order.
    async fn stop(self) -> Records {
        self.stop_with_digests().await.0
    }

    async fn stop_with_digests(self) -> (Records, Vec<Digest>) {
        let key = self.public_key().await;
        drop(self.broker.stop().await);
        let digests = checked_digests(self.root.path(), &key);
        assert!(!digests.is_empty());
        let records = records(self.root.path());
        let minted = |record: &Value| record["additionalEventData"]["dataKey"]["kmsEventID"].clone();
        for event_id in &self.answered {
            assert_eq!(records.activity.iter().filter(|record| minted(record) == **event_id).count(), 1);
            assert_eq!(records.kms.iter().filter(|record| record["eventID"] == **event_id).count(), 1);
        }
        let ids = records.kms.iter().chain(&records.activity).map(|record| record["eventID"].to_string());
        let (all, distinct) =
            (records.kms.len() + records.activity.len(), ids.collect::<BTreeSet<_>>().len());
        assert_eq!(all, distinct, "no record twice");
        (records, digests)
    }
}

fn notices(records: &Records) -> Vec<&Value> {
    records
        .activity
        .iter()
        .map(|record| &record["additionalEventData"]["journal"])
        .filter(|n| !n.is_null())
        .collect()
}

fn journal_bytes(dir: &Path) -> u64 {
    // A file that was delivered meanwhile has none.
    files(dir)
        .expect("files")
        .iter()
        .filter_map(|file| fs::metadata(&file.path).ok())
        .map(|file| file.len())
        .sum()
}

#[tokio::test]
async fn every_record_is_in_one_log_file_and_every_log_file_in_one_digest() {
    let mut trailed = Trailed::start().await;
    for round in 1..=15 {
        trailed.call(4).await;
        trailed.clock.pass(DELIVERY);
        trailed.delivered(round).await;
    }
    let names: Vec<String> = log_files(trailed.root.path()).into_keys().collect();
    assert!(names[0].starts_with("AWSLogs/111122223333/CloudTrail/us-west-2/2026/11/25/"), "{}", names[0]);
    assert!(names[14].contains("/2026/11/26/111122223333_CloudTrail_us-west-2_20261126T00"), "{}", names[14]);
    let (records, digests) = trailed.stop_with_digests().await;
    assert_eq!((records.activity.len(), notices(&records).len()), (60, 0));
    assert_eq!(digests.len(), 3, "one before the first call, one after an hour, one at the drain");
}

#[tokio::test]
async fn an_interval_without_records_makes_no_log_file_but_its_digest() {
    let mut trailed = Trailed::start().await;
    trailed.call(1).await;
    trailed.clock.pass(DELIVERY);
    trailed.delivered(1).await;
    // The configured key was asked for once at the start, and signs once an hour: those are records, too.
    for _ in 0..3 {
        trailed.clock.pass(Duration::from_hours(1));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let (_, digests) = trailed.stop_with_digests().await;
    assert!(digests.len() >= 3);
    for digest in &digests[1..] {
        assert!(digest.log_files.len() <= 1);
    }
}

/// Each log file is encrypted under a data key of its own, whose record would make another log file, for ever.
#[tokio::test]
async fn a_trail_that_nobody_uses_does_not_keep_itself_busy() {
    let root = tempfile::tempdir().expect("a directory");
    let config = trail::encrypted(root.path());
    let mut trailed = Trailed::with(root, Setup { trail: Some(config), ..Setup::default() }).await;
    trailed.call(1).await;
    trailed.clock.pass(DELIVERY);
    trailed.delivered(1).await;
    // No digest is due in less than half an hour: the first comes after half an interval at the earliest, by jitter.
    for _ in 0..4 {
        trailed.clock.pass(DELIVERY);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let count = || trail::log_files(trailed.root.path()).len();
    assert_eq!(count(), 1, "what is left of a delivery waits for the next digest");
    assert!(journal_bytes(&trailed.broker.journal_dir()) > 0);
    trailed.clock.pass(Duration::from_mins(40));
    eventually("with the digest", || count() == 2).await;
    trailed.call(1).await;
    trailed.clock.pass(DELIVERY);
    trailed.delivered(3).await;
    trailed.broker.stop().await;
}

#[tokio::test]
async fn a_store_that_is_down_for_an_hour_holds_up_no_call_and_gets_everything_afterwards() {
    let mut trailed = Trailed::start().await;
    trailed.call(2).await;
    trailed.clock.pass(DELIVERY);
    trailed.delivered(1).await;
    trailed.break_store();
    for _ in 0..12 {
        trailed.call(2).await;
        trailed.clock.pass(DELIVERY);
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    assert!(trailed.client.is_serving().await.expect("health answers"));
    assert!(journal_bytes(&trailed.broker.journal_dir()) > 20_000, "the records wait in the journal");
    trailed.mend_store();
    trailed.clock.pass(DELIVERY);
    let dir = trailed.broker.journal_dir();
    eventually("caught up", || journal_bytes(&dir) < 5_000).await;
    trailed.call(1).await;
    assert_eq!(trailed.stop().await.activity.len(), 27);
}

#[tokio::test]
async fn a_clock_that_goes_back_neither_stops_the_trail_nor_tangles_its_digests() {
    let mut trailed = Trailed::start().await;
    for round in 1..=6 {
        trailed.call(3).await;
        trailed.clock.pass(Duration::from_mins(40));
        trailed.delivered(round).await;
        if round == 3 {
            trailed.clock.set_back(Duration::from_hours(3));
        }
    }
    assert_eq!(trailed.stop().await.activity.len(), 18);
}

#[tokio::test]
async fn a_journal_file_that_somebody_edited_is_evidence_and_the_trail_tells() {
    let mut trailed = Trailed::start().await;
    let dir = trailed.broker.journal_dir();
    trailed.break_store();
    trailed.call(3).await;
    trailed.clock.pass(DELIVERY);
    trailed.delivery_has_failed().await;
    let closed = files(&dir).expect("files").remove(0).path;
    let text = fs::read_to_string(&closed).expect("text");
    // The last call's two records do not fit any more.
    let last = trailed.answered.iter().max_by_key(|id| text.find(id.as_str())).expect("three").clone();
    fs::write(&closed, text.replace(&last, FORGED)).expect("writes");
    trailed.mend_store();
    trailed.clock.pass(Duration::from_mins(5));
    trailed.delivered(1).await;
    trailed.answered.remove(&last);
    trailed.call(1).await;
    // The journal lets go of a file once that is noted which is delivered.
    let evidence = dir.join("journal-00000001.damaged");
    eventually("evidence", || evidence.exists()).await;
    assert!(fs::read_to_string(evidence).expect("evidence").contains(FORGED));
    let records = trailed.stop().await;
    assert!(notices(&records)[0]["damagedBytes"].as_u64().expect("a number") > 500);
    assert!(
        records.activity.iter().all(|record| record["requestID"] != "00000000-0000-4000-8000-000000000000")
    );
}

#[tokio::test]
async fn a_journal_file_that_somebody_removed_is_missed_and_the_trail_tells() {
    let mut trailed = Trailed::start().await;
    let dir = trailed.broker.journal_dir();
    trailed.call(1).await;
    trailed.clock.pass(DELIVERY);
    trailed.delivered(1).await;
    trailed.break_store();
    let before = trailed.answered.clone();
    trailed.call(2).await;
    trailed.clock.pass(DELIVERY);
    trailed.delivery_has_failed().await;
    for file in files(&dir).expect("files").iter().filter(|file| file.closed_at.is_some()) {
        fs::remove_file(&file.path).expect("removes");
    }
    trailed.answered = before;
    trailed.mend_store();
    trailed.call(1).await;
    trailed.clock.pass(DELIVERY);
    trailed.delivered(2).await;
    trailed.call(1).await;
    let records = trailed.stop().await;
    // Two calls, each with the record of its call to KMS; the first one's tells what the alias means, too.
    let missing = notices(&records)[0]["missingRecords"].as_u64().expect("a number");
    assert!((4..=5).contains(&missing), "{missing}");
}

#[tokio::test]
async fn a_full_journal_refuses_calls_until_its_records_are_delivered() {
    let root = tempfile::tempdir().expect("a directory");
    let config = trail::config(root.path());
    let setup = Setup { trail: Some(config), max_undelivered_bytes: 30_000, ..Setup::default() };
    let mut trailed = Trailed::with(root, setup).await;
    trailed.break_store();
    let refused = loop {
        assert!(trailed.answered.len() < 100);
        match trailed.client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await {
            Ok(key) => assert!(trailed.answered.insert(key.provenance.kms_event_id)),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.reason(), Some("JOURNAL_UNAVAILABLE"));
    trailed.mend_store();
    trailed.clock.pass(DELIVERY);
    trailed.delivered(1).await;
    // One principal alone may fill half of the journal: the broker was ready for others all the time.
    assert!(trailed.client.is_serving().await.expect("health answers"));
    for _ in 0..500 {
        let scrape = Scrape::of(&trailed.broker).await;
        if scrape.sum("keybroker_audit_undelivered_bytes", &[]) < 10_000.0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    trailed.call(3).await;
    let records = trailed.stop().await;
    assert_eq!(records.outcomes()["Failed"], 1, "the refusal was in the backlog");
}

#[tokio::test]
async fn a_key_that_cannot_do_its_part_is_refused_at_start_with_the_reason() {
    let root = tempfile::tempdir().expect("a directory");
    let key = |id: &str| KeyId::parse(id).expect("a key");
    let plain = trail::config(root.path());
    for (config, setting, words) in [
        (
            TrailConfig { kms_key: Some(key("alias/dev-signing")), ..plain.clone() },
            "audit.kms_key_id: alias/dev-signing",
            "asymmetric and HMAC keys cannot encrypt a trail",
        ),
        (
            TrailConfig { kms_key: Some(key("alias/none")), ..plain.clone() },
            "audit.kms_key_id: KMS refuses alias/none",
            "NotFoundException",
        ),
        (
            TrailConfig { signing: SigningConfig::Kms(key("alias/dev")), ..plain.clone() },
            "audit.signing.kms_key_id",
            "alias/dev",
        ),
    ] {
        let setup = Setup { trail: Some(config), ..Setup::default() };
        let error = TestBroker::try_start(setup).await.err().expect("refused");
        let StartError::Trail(error) = error else { panic!("another reason: {error}") };
        let error = error.to_string();
        assert!(error.contains(setting) && error.contains(words), "{error}");
    }
}
