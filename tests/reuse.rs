//! Proves: data keys are reused within their bounds and no further, through real sockets, the AWS SDK and the emulator's
//! call log, and the records tell it.

#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use key_broker::Rule;
use key_broker_client::{Decrypt, GenerateDataKey};
use key_broker_core::Bounds;
use key_broker_core::clock::{Clock, SystemClock};
use kms_emulator::{Fault, KeySpec};
use peers::check_records;
use support::formats::sha256_hex;
use support::{Records, Setup, TestBroker, eventually, reuse, rule};
use tonic::Code;

fn bounded(max_age: u64, max_messages: u64, max_bytes: u64) -> Rule {
    Rule { bounds: Bounds { max_age: Duration::from_secs(max_age), max_messages, max_bytes }, ..rule() }
}

async fn broker(default: Rule) -> TestBroker {
    let mut setup = Setup { reuse: reuse(default), ..Setup::default() };
    setup.limits.calls_in_flight = 5_000;
    TestBroker::with(setup).await
}

fn request() -> GenerateDataKey {
    GenerateDataKey::aes_256("alias/dev").context("tenant", "acme")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_thousand_cold_draws_cause_one_kms_call() {
    let broker = broker(rule()).await;
    let client = broker.client().await;
    let draws: Vec<_> = (0..3_000)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.generate_data_key(request()).await.expect("a key").provenance })
        })
        .collect();
    let mut used = HashSet::new();
    let mut from_kms = 0;
    for draw in draws {
        let provenance = draw.await.expect("no panic");
        from_kms += usize::from(!provenance.from_cache);
        assert!(used.insert(provenance.messages_used), "two draws are charged the same message");
    }
    assert_eq!((from_kms, used.len(), used.iter().max()), (1, 3_000, Some(&3_000)));
    assert_eq!(broker.emulator.call_count("GenerateDataKey"), 1);
    let records = broker.stop().await;
    assert_eq!((records.kms.len(), records.activity.len()), (1, 3_000));
}

#[tokio::test]
async fn a_ciphertext_leads_to_whoever_was_given_it_and_to_the_call_that_made_it() {
    let broker = broker(rule()).await;
    let client = broker.client().await;
    let key = client.generate_data_key(request()).await.expect("a key");
    client.generate_data_key(request()).await.expect("the same");
    let other = client.generate_data_key_without_plaintext(request().into()).await.expect("another");
    client
        .decrypt(Decrypt::new(key.ciphertext_blob.to_vec()).context("tenant", "acme"))
        .await
        .expect("decrypts");
    let records = broker.stop().await;
    let given = |blob: &[u8]| -> Vec<_> {
        let hash = sha256_hex(blob);
        let keys = records.activity.iter().map(|record| &record["additionalEventData"]["dataKey"]);
        let found = keys.filter(|data_key| data_key["ciphertextBlobSHA256"] == hash.as_str());
        found.map(|data_key| data_key["kmsRequestID"].clone()).collect()
    };
    let made = key.provenance.kms_request_id.as_str();
    assert_eq!(given(&key.ciphertext_blob), [made, made]);
    assert_eq!(given(&other.ciphertext_blob), [other.provenance.kms_request_id.as_str()]);
}

#[tokio::test]
async fn a_cache_hit_is_recorded_with_the_kms_call_behind_it() {
    let broker = broker(bounded(300, 3, 1_000)).await;
    let client = broker.client().await;
    let first = client.generate_data_key(request().declare_use(1, 100)).await.expect("a key");
    let second = client.generate_data_key(request().declare_use(1, 200)).await.expect("a key");
    assert_eq!(first.plaintext.expose(), second.plaintext.expose());
    assert_eq!((first.provenance.from_cache, second.provenance.from_cache), (false, true));
    assert_eq!(first.provenance.kms_request_id, second.provenance.kms_request_id);
    assert_eq!((second.provenance.messages_used, second.provenance.messages_limit), (2, 3));
    assert_eq!((second.provenance.bytes_used, second.provenance.bytes_limit), (300, 1_000));
    let lasts = second
        .provenance
        .expires_at
        .expect("kept")
        .duration_since(second.provenance.minted_at.expect("minted"));
    assert!(lasts.expect("later") <= Duration::from_mins(5));

    let records = broker.stop().await;
    assert_eq!(records.kms.len(), 1, "a cache hit is no KMS call");
    let data_key = &records.activity[1]["additionalEventData"]["dataKey"];
    assert_eq!(data_key["servedFrom"], "CACHE");
    assert_eq!(data_key["kmsRequestID"], records.kms[0]["requestID"]);
    assert_eq!(data_key["kmsEventID"], records.kms[0]["eventID"]);
    assert_eq!((&data_key["messagesUsed"], &data_key["messagesLimit"]), (&2.into(), &3.into()));
    assert_eq!((&data_key["bytesUsed"], &data_key["bytesLimit"]), (&300.into(), &1_000.into()));
    assert!(data_key["expiresAt"].is_string());
}

#[tokio::test]
async fn each_bound_ends_a_data_key() {
    let broker = broker(bounded(1, 4, 1_000)).await;
    let client = broker.client().await;
    let calls = |broker: &TestBroker| broker.emulator.call_count("GenerateDataKey");
    for (draw, expected) in
        [((1, 0), 1), ((3, 0), 1), ((1, 0), 2), ((1, 1_000), 2), ((1, 1), 3), ((5, 0), 4), ((1, 0), 4)]
    {
        let key = client.generate_data_key(request().declare_use(draw.0, draw.1)).await.expect("a key");
        assert_eq!(calls(&broker), expected, "{draw:?}");
        assert!(key.provenance.messages_used <= key.provenance.messages_limit);
    }
    let before = client.generate_data_key(request()).await.expect("a key");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let after = client.generate_data_key(request()).await.expect("a key");
    assert_ne!(before.plaintext.expose(), after.plaintext.expose(), "older than a second");
}

#[tokio::test]
async fn a_declaration_above_the_bound_gets_a_key_of_its_own() {
    let broker = broker(bounded(300, 10, 100)).await;
    let client = broker.client().await;
    let kept = client.generate_data_key(request()).await.expect("a key");
    for request in [request().declare_use(11, 0), request().declare_use(1, 101)] {
        let own = client.generate_data_key(request).await.expect("a key");
        assert_ne!(own.plaintext.expose(), kept.plaintext.expose());
        assert_eq!(own.provenance.messages_used, own.provenance.messages_limit, "nobody else gets it");
        assert_eq!(own.provenance.expires_at, None);
    }
    let again = client.generate_data_key(request()).await.expect("a key");
    assert_eq!(again.plaintext.expose(), kept.plaintext.expose());
    assert_eq!(broker.emulator.call_count("GenerateDataKey"), 3);
}

#[tokio::test]
async fn a_caller_may_tighten_and_never_widen() {
    let broker = broker(bounded(300, 5, 1_000)).await;
    let client = broker.client().await;
    let first = client.generate_data_key(request()).await.expect("a key");
    let fresh = client.generate_data_key(request().fresh()).await.expect("a key");
    assert_ne!(fresh.plaintext.expose(), first.plaintext.expose());
    let alone = client.generate_data_key(request().max_messages(1)).await.expect("a key");
    assert_eq!((alone.provenance.messages_used, alone.provenance.messages_limit), (1, 1));
    assert_ne!(alone.plaintext.expose(), first.plaintext.expose());
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let young = client.generate_data_key(request().max_age_seconds(1)).await.expect("a key");
    assert!(!young.provenance.from_cache);
    let wide = client.generate_data_key(request().max_messages(1_000_000)).await.expect("a key");
    assert_eq!(wide.provenance.messages_limit, 5);
}

/// Proves: what one caller is promised of a data key, no later draw goes beyond.
#[tokio::test]
async fn what_a_caller_tightened_holds_for_whoever_draws_later() {
    let broker = broker(bounded(300, 100, 1_000)).await;
    let client = broker.client().await;
    let first = client.generate_data_key(request()).await.expect("a key");
    let tight = client.generate_data_key(request().max_messages(3)).await.expect("the same key");
    assert_eq!((tight.provenance.messages_used, tight.provenance.messages_limit), (2, 3));
    let third = client.generate_data_key(request()).await.expect("the same key");
    assert_eq!((third.provenance.messages_used, third.provenance.messages_limit), (3, 3));
    assert_eq!(third.plaintext.expose(), first.plaintext.expose());
    let fourth = client.generate_data_key(request()).await.expect("another key");
    assert_eq!((fourth.provenance.messages_used, fourth.provenance.messages_limit), (1, 100));
    assert_ne!(fourth.plaintext.expose(), first.plaintext.expose());
}

#[tokio::test]
async fn decrypts_are_kept_by_ciphertext_context_and_key() {
    let broker = broker(rule()).await;
    let client = broker.client().await;
    let key = client.generate_data_key(request()).await.expect("a key");
    let decrypt = || Decrypt::new(key.ciphertext_blob.clone());
    for _ in 0..5 {
        let decrypted = client.decrypt(decrypt().context("tenant", "acme")).await.expect("decrypts");
        assert_eq!(decrypted.plaintext.expose(), key.plaintext.expose());
    }
    assert_eq!(broker.emulator.call_count("Decrypt"), 1);
    for wrong in [decrypt().context("tenant", "evil"), decrypt()] {
        let error = client.decrypt(wrong).await.expect_err("another context");
        assert_eq!(error.reason(), Some("INVALID_CIPHERTEXT"));
    }
    let other = broker.emulator.ensure_key("alias/other", KeySpec::SymmetricDefault).expect("a key");
    let error =
        client.decrypt(decrypt().context("tenant", "acme").key_id(other)).await.expect_err("another key");
    assert_eq!(error.reason(), Some("INCORRECT_KEY"));
    assert_eq!(broker.emulator.call_count("Decrypt"), 4);
    let records = broker.stop().await;
    let hit = &records.activity[2]["additionalEventData"]["dataKey"];
    assert_eq!((&hit["servedFrom"], hit.get("messagesUsed")), (&"CACHE".into(), None));
}

#[tokio::test]
async fn random_bytes_and_descriptions_are_never_kept() {
    let broker = broker(rule()).await;
    let client = broker.client().await;
    for n in 1..=3 {
        client.generate_random(32).await.expect("random");
        client.describe_key("alias/dev").await.expect("known");
        let grant = client.generate_data_key(request().grant_token("dG9rZW4x")).await;
        assert_eq!(grant.expect("a key").provenance.expires_at, None);
        let calls = |operation| broker.emulator.call_count(operation);
        // One more: what the alias means was asked once.
        assert_eq!((calls("GenerateRandom"), calls("DescribeKey"), calls("GenerateDataKey")), (n, n + 1, n));
    }
}

#[tokio::test]
async fn nobody_is_served_after_kms_has_refused_the_key() {
    let broker = broker(rule()).await;
    let client = broker.client().await;
    let kept = client.generate_data_key(request()).await.expect("a key");
    let under_arn = GenerateDataKey::aes_256(&broker.key_arn);
    client.generate_data_key(under_arn.clone()).await.expect("a key");
    broker.emulator.set_enabled("alias/dev", false).expect("known");
    client.generate_data_key(request()).await.expect("KMS has not been asked yet");

    let refused = client.decrypt(Decrypt::new(kept.ciphertext_blob).context("tenant", "acme")).await;
    assert_eq!(refused.expect_err("disabled").reason(), Some("KEY_DISABLED"));
    for request in [request(), under_arn] {
        let error = client.generate_data_key(request).await.expect_err("dropped, and disabled");
        assert_eq!((error.code(), error.reason()), (Code::FailedPrecondition, Some("KEY_DISABLED")));
    }
}

#[tokio::test]
async fn callers_in_a_queue_have_their_own_deadlines() {
    let broker = broker(rule()).await;
    broker.emulator.inject(Fault::latency(Duration::from_millis(600)));
    let client = broker.client().await;
    let hurried = client.clone().with_deadline(Duration::from_millis(150));
    let leader = tokio::spawn(async move { hurried.generate_data_key(request()).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let started = SystemClock.instant();
    let patient = client.generate_data_key(request()).await.expect("the leader's deadline is not ours");
    assert!(started.elapsed() < Duration::from_secs(2));
    assert!(leader.await.expect("no panic").is_err());
    assert_eq!((patient.provenance.messages_used, broker.emulator.call_count("GenerateDataKey")), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn under_real_load_the_records_show_no_bound_crossed() {
    const MESSAGES: u64 = 50;
    const BYTES: u64 = 4_000;
    let broker = Arc::new(broker(Rule { refresh_at: Some(0.8), ..bounded(1, MESSAGES, BYTES) }).await);
    broker.emulator.inject(Fault::throttling().every(17));
    let started = SystemClock.instant();
    let mut callers = Vec::new();
    for caller in 0..24_u64 {
        let client = broker.client().await;
        let broker = Arc::clone(&broker);
        callers.push(tokio::spawn(async move {
            let mut n = caller;
            while started.elapsed() < Duration::from_secs(4) {
                n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let tenant = ["a", "b", "c"][(n >> 33) as usize % 3];
                let request = GenerateDataKey::aes_256("alias/dev").context("tenant", tenant);
                let request = request.declare_use(1 + (n >> 40) % 3, (n >> 45) % 200);
                // Some give up while they wait.
                let call = client.generate_data_key(request);
                let _ = tokio::time::timeout(Duration::from_micros(300 + (n >> 50) % 20_000), call).await;
                if caller == 0 && n % 64 == 0 {
                    broker.emulator.clear_faults();
                    broker.emulator.inject(Fault::throttling().every(17));
                }
            }
        }));
    }
    for caller in callers {
        caller.await.expect("no panic");
    }
    let broker = Arc::into_inner(broker).expect("the callers are gone");
    check_records(&support::journal_lines(&broker.journal_dir()));
    let (records, calls) = broker.stop_and_count("GenerateDataKey").await;
    assert_eq!(records.kms.len() as u64, calls, "every answer of KMS is recorded");
    let keys = charged_by_key(&records);
    assert!(keys.len() > 20, "{} keys", keys.len());
    for (event_id, uses) in keys {
        let (messages, bytes) = uses.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        assert!(messages <= MESSAGES && bytes <= BYTES, "{event_id}: {messages} messages, {bytes} bytes");
    }
}

/// For each KMS record of a key: what the activity records say was declared for it.
fn charged_by_key(records: &Records) -> BTreeMap<String, Vec<(u64, u64)>> {
    let mut keys: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    for record in &records.activity {
        let data_key = &record["additionalEventData"]["dataKey"];
        let (Some(event_id), Some(used)) =
            (data_key["kmsEventID"].as_str(), data_key["messagesUsed"].as_u64())
        else {
            continue;
        };
        assert!(used <= data_key["messagesLimit"].as_u64().expect("a limit"));
        assert!(data_key["bytesUsed"].as_u64() <= data_key["bytesLimit"].as_u64());
        let declared = &record["requestParameters"]["use"];
        let part = |name: &str| declared[name].as_u64().expect("declared");
        keys.entry(event_id.to_owned()).or_default().push((part("messages"), part("bytes")));
    }
    keys
}

#[tokio::test]
async fn a_key_whose_record_cannot_be_committed_is_not_kept() {
    let broker = broker(rule()).await;
    let client = broker.client().await;
    // The broker may write into it meanwhile.
    eventually("the journal's folder is gone", || std::fs::remove_dir_all(broker.journal_dir()).is_ok())
        .await;
    let error = client.generate_data_key(request()).await.expect_err("no journal");
    assert_eq!(error.reason(), Some("JOURNAL_UNAVAILABLE"));
    std::fs::create_dir(broker.journal_dir()).expect("returns");
    let key = client.generate_data_key(request()).await.expect("a key");
    assert!(!key.provenance.from_cache, "the key of the lost record is gone");
    let records = broker.stop().await;
    assert_eq!(records.kms_of(&key.provenance.kms_request_id)["eventName"], "GenerateDataKey");
}
