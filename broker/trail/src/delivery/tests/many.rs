//! A day of many brokers with one store: every surviving record is delivered once, every trail gets the right verdict, verification reads
//! each object once, and KMS and the store get the requests that `audit cost` predicts.
//!
//! There are forty brokers, or as many as `KEY_BROKER_FLEET` says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};

use key_broker_core::clock::{Clock, SystemClock};

use super::fleet::{Asked, Day, LIFE, STEP, STEPS_OF_AN_OUTAGE, day, first_due, plan, public_key};
use crate::reader::TrailReader;
use crate::record::ReadRecord;
use crate::store::Store;
use crate::store::directory::DirectoryStore;
use crate::verify::forge::{MemoryStore, START, names};
use crate::verify::{
    BucketReport, FindingKind, PassedTrail, Report, TrailState, Verdict, VerifyOptions, trails, verify_all,
};

async fn verified(day: &Day) -> (BTreeMap<String, Report>, BucketReport) {
    let (reports, bucket, _) = verified_after(day, Vec::new()).await;
    (reports, bucket)
}

/// The same for a run that continues from an earlier one. Also returns what a later run can use.
async fn verified_after(
    day: &Day,
    earlier: Vec<PassedTrail>,
) -> (BTreeMap<String, Report>, BucketReport, Vec<PassedTrail>) {
    let now = Some(day.end + time::Duration::days(3));
    let options = VerifyOptions { keys: vec![public_key()], now, ..VerifyOptions::default() };
    let (mut reports, mut later) = (BTreeMap::new(), Vec::new());
    let bucket = verify_all(&day.reader(), "*", &options, 8, earlier, &mut |name, report, _, passed| {
        reports.insert(name.to_owned(), report.clone());
        later.extend(passed);
    })
    .await;
    (reports, bucket, later)
}

fn brokers_of_this_run() -> usize {
    std::env::var("KEY_BROKER_FLEET").ok().and_then(|n| n.parse().ok()).unwrap_or(40)
}

/// Brokers come, go and are killed, with an outage and a clock that is a day ahead. What survives is delivered once, and each trail gets
/// the right verdict.
#[tokio::test]
async fn trails_of_a_day_are_judged_together_and_each_object_is_read_once() {
    let objects = MemoryStore::default();
    let day = Box::pin(day(brokers_of_this_run(), Arc::new(objects.clone()))).await;
    check_day(&day, objects.keys().len()).await;
}

/// The same, in a directory.
#[tokio::test]
async fn trails_of_a_day_in_a_directory_are_judged_together_and_each_object_is_read_once() {
    let root = tempfile::tempdir().expect("a directory");
    let objects = Arc::new(DirectoryStore::new(root.path(), "logs"));
    let day = Box::pin(day(20, Arc::<DirectoryStore>::clone(&objects))).await;
    let keys = objects.list("").await.expect("lists");
    check_day(&day, keys.len()).await;
}

async fn check_day(day: &Day, objects: usize) {
    let (brokers, before, began) = (day.brokers.len(), day.store.log().len(), SystemClock.instant());
    assert_eq!(
        day.puts().values().map(|(log_files, digests)| log_files + digests).sum::<u64>(),
        objects as u64,
        "none twice"
    );
    let (reports, bucket) = verified(day).await;
    println!(
        "{brokers} trails, {objects} objects, {} records: {:?}",
        bucket.records,
        SystemClock.instant() - began
    );
    assert_eq!(reports.len(), brokers);
    let killed = day.killed();
    for (name, report) in &reports {
        let expected = if killed.contains(name) {
            (Verdict::CannotTell, Some(TrailState::Abandoned))
        } else {
            (Verdict::Sound, Some(TrailState::Closed))
        };
        assert_eq!((report.verdict, report.state), expected, "{name}: {report:?}");
    }
    let worst = if killed.is_empty() { Verdict::Sound } else { Verdict::CannotTell };
    assert_eq!((bucket.verdict, bucket.trails[&Verdict::Sound]), (worst, (brokers - killed.len()) as u64));
    assert!(!bucket.trails.contains_key(&Verdict::Unsound), "{bucket:?}");

    // In the store's log: two lists, and each digest and log file once.
    let mut gets = HashMap::<String, u32>::new();
    let mut lists = 0;
    for asked in day.store.log().split_off(before) {
        match asked {
            Asked::Get(key) => *gets.entry(key).or_default() += 1,
            Asked::List => lists += 1,
            Asked::Put { .. } => panic!("an auditor puts nothing"),
        }
    }
    let twice: Vec<_> = gets.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let unnamed = usize::try_from(bucket.counts.values().sum::<u64>()).expect("few");
    assert_eq!((gets.len(), lists), (objects - unnamed, 2), "all but what no digest names");

    check_records(day).await;
    let summaries =
        trails(&day.reader(), "key-broker", day.end + time::Duration::days(3)).await.expect("lists");
    let abandoned = summaries.iter().filter(|trail| trail.state == TrailState::Abandoned);
    assert_eq!(abandoned.map(|trail| trail.name.clone()).collect::<BTreeSet<_>>(), killed);
    assert_eq!(summaries.len(), brokers);
}

/// Every record that survived is there once.
async fn check_records(day: &Day) {
    let mut delivered = BTreeMap::<String, u32>::new();
    for broker in &day.brokers {
        let reader: TrailReader = day.reader().of(&broker.name);
        for digest in reader.digest_keys().await.expect("lists").own {
            for entry in reader.digest(&digest.key).await.expect("reads").expect("is there").log_files {
                let json = reader.log_file(&entry.s3_object).await.expect("reads").expect("is there");
                for record in crate::records(&json) {
                    let record = ReadRecord::parse(record.expect("a record")).expect("a record");
                    *delivered.entry(record.event_id.to_string()).or_default() += 1;
                }
            }
        }
    }
    for broker in day.brokers.iter().filter(|broker| !broker.is_killed) {
        assert!(broker.told.iter().all(|id| delivered.get(id) == Some(&1)), "{}: each once", broker.name);
    }
}

/// A run that was stopped half way continues with the remaining trails. Once all were found sound, no log file is read again, the verdict
/// is the same, and later changes are found.
#[tokio::test]
async fn what_an_earlier_run_has_found_sound_is_not_read_again() {
    let objects = MemoryStore::default();
    let day = Box::pin(day(20, Arc::new(objects.clone()))).await;
    let (reports, bucket, mut passed) = verified_after(&day, Vec::new()).await;
    assert_eq!(passed.len(), 20, "the killed one, too: it is abandoned, and nothing else");
    passed.truncate(9);
    let log_files_read = |before: usize| {
        let log = day.store.log().split_off(before);
        log.iter().filter(|asked| matches!(asked, Asked::Get(key) if !key.contains("Digest"))).count() as u64
    };
    let saved: Vec<PassedTrail> = passed
        .iter()
        .map(|passed| serde_json::from_str(&serde_json::to_string(passed).expect("writes")).expect("reads"))
        .collect();
    assert_eq!(saved, passed);
    let before = day.store.log().len();
    let resumed = verified_after(&day, saved).await;
    assert_eq!((&resumed.0, &resumed.1), (&reports, &bucket));
    let of_passed = |passed: &[PassedTrail]| {
        let arns: BTreeSet<&str> = passed.iter().map(|passed| passed.trail_arn.as_str()).collect();
        let is_passed = |name: &str| arns.iter().any(|arn| arn.ends_with(&format!("/{name}")));
        reports.iter().filter(|(name, _)| is_passed(name)).map(|(_, report)| report.log_files).sum::<u64>()
    };
    let all: u64 = reports.values().map(|report| report.log_files).sum();
    assert_eq!(log_files_read(before), all - of_passed(&passed));
    let before = day.store.log().len();
    let again = verified_after(&day, resumed.2.clone()).await;
    assert_eq!((&again.0, &again.1, log_files_read(before)), (&reports, &bucket, 0));

    // Without one of its log files, or with another digest, a trail is read anew.
    let some = |of: &str| objects.keys().into_iter().filter(|key| key.contains(of)).nth(3).expect("many");
    for key in [some("_CloudTrail_"), some(&day.brokers[0].name)] {
        let removed = objects.with(|objects| objects.remove(&key)).expect("there");
        let (_, bucket, _) = verified_after(&day, resumed.2.clone()).await;
        assert_eq!((bucket.verdict, bucket.trails[&Verdict::Unsound]), (Verdict::Unsound, 1), "{key}");
        objects.with(|objects| objects.insert(key, removed));
    }
}

/// Brokers make exactly the requests to KMS and the store that `audit cost` predicts or, if they lived through an outage, as many more as
/// their attempts in that time explain.
#[tokio::test]
async fn a_fleet_asks_of_kms_and_store_what_audit_cost_foretells() {
    let day = Box::pin(day(brokers_of_this_run(), Arc::new(MemoryStore::default()))).await;
    let (puts, mut quiet, mut asked) = (day.puts(), 0, (0, 0));
    let expected = plan(1, 1).requests(LIFE);
    for broker in &day.brokers {
        let (log_files, digests) = puts[&broker.number];
        assert_eq!((broker.data_keys, broker.signatures), (log_files, digests), "one for each object");
        match (broker.is_killed, broker.saw_outage) {
            (false, false) => {
                quiet += 1;
                asked = (asked.0 + log_files, asked.1 + digests);
                let found = (log_files, digests, broker.data_keys, broker.signatures);
                let foretold =
                    (expected.log_files, expected.digests, expected.data_keys, expected.signatures);
                assert_eq!(found, foretold, "{}", broker.name);
            }
            (false, true) => {
                let most = expected.log_files + STEPS_OF_AN_OUTAGE;
                assert!((expected.log_files - 5..=most).contains(&log_files), "{}: {log_files}", broker.name);
                assert!(digests.abs_diff(expected.digests) <= 1, "{}: {digests}", broker.name);
            }
            (true, _) => assert!(digests < expected.digests && log_files < expected.log_files),
        }
    }
    let all = plan(quiet, quiet).requests(LIFE);
    assert!(quiet > 0);
    assert_eq!(asked, (all.log_files, all.digests));
}

/// Brokers that start together neither deliver nor sign digests together.
#[tokio::test]
async fn brokers_that_begin_together_deliver_apart() {
    let mut dues = Vec::new();
    for _ in 0..8 {
        dues.push(first_due().await);
    }
    let deliveries: BTreeSet<_> = dues.iter().map(|(delivery, _)| *delivery).collect();
    let digests: BTreeSet<_> = dues.iter().map(|(_, digest)| *digest).collect();
    assert!(deliveries.len() > 4 && digests.len() > 4, "{dues:?}");
    assert!(dues.iter().all(|(delivery, digest)| *delivery > STEP && *digest > *delivery), "{dues:?}");
}

/// A log file in no digest, or in two, is a finding about the bucket and not about a trail.
#[tokio::test]
async fn what_no_trail_names_and_what_two_name_is_found_in_the_bucket() {
    let objects = MemoryStore::default();
    let mut day = Box::pin(day(6, Arc::new(objects.clone()))).await;
    for name in day.killed() {
        objects.with(|objects| objects.retain(|key, _| !key.contains(&name)));
    }
    day.store.log.lock().unwrap_or_else(PoisonError::into_inner).clear();
    day.brokers.retain(|broker| !broker.is_killed);
    // A killed broker has left log files that are in no digest.
    let unnamed: Vec<String> = {
        let (_, bucket) = verified(&day).await;
        bucket.findings.iter().map(|finding| finding.place.object.clone()).collect()
    };
    objects.with(|objects| objects.retain(|key, _| !unnamed.contains(key)));
    let (_, bucket) = verified(&day).await;
    assert_eq!((bucket.verdict, bucket.findings.len()), (Verdict::Sound, 0), "{bucket:?}");

    let planted = names().log_file(START + time::Duration::minutes(70), &[9; 32]);
    objects.insert(&planted, b"{\"Records\":[]}", BTreeMap::new());
    let (reports, bucket) = verified(&day).await;
    assert!(reports.values().all(|report| report.verdict == Verdict::Sound), "no trail is blamed");
    assert_eq!(bucket.verdict, Verdict::Unsound);
    assert_eq!(bucket.counts.keys().collect::<Vec<_>>(), [&FindingKind::LogFileUnreferenced]);
}
