//! Proves: while KMS is slow, throttles, is down or refuses, every caller gets an answer or a bounded refusal; KMS is not
//! flooded, cached keys serve within their bounds only, and a refusal of KMS ends them.

#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use key_broker::{BreakerSettings, GuardSettings, Rule};
use key_broker_client::{Client, DataKey, Decrypt, Error, GenerateDataKey};
use key_broker_core::clock::{Clock as _, SystemClock};
use kms_emulator::{Effect, Emulator, EmulatorConfig, Fault};
use peers::check_records;
use support::{Setup, TestBroker, id, reuse, rule};
use tokio::task::JoinSet;
use tonic::Code;

/// No retries, so that a failing call is one call to KMS; a breaker that opens after three.
fn setup(rule: Rule) -> Setup {
    let breaker = BreakerSettings { failures: 3, open: OPEN, longest_open: OPEN };
    Setup {
        max_attempts: 1,
        guard: GuardSettings { breaker, ..support::guard() },
        reuse: reuse(rule),
        ..Setup::default()
    }
}

fn not_reused() -> Rule {
    Rule { enabled: false, ..rule() }
}

fn key_of(tenant: &str) -> GenerateDataKey {
    GenerateDataKey::aes_256("alias/dev").context("tenant", tenant)
}

async fn draw(client: &Client) -> Result<DataKey, Error> {
    client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await
}

/// Lets the breaker open and returns the last refusal.
async fn open_breaker(broker: &TestBroker, client: &Client) -> Error {
    let before = broker.emulator.call_count("GenerateRandom");
    for _ in 0..3 {
        client.generate_random(8).await.expect_err("KMS does not answer");
    }
    let error = client.generate_random(8).await.expect_err("the breaker is open");
    assert_eq!(broker.emulator.call_count("GenerateRandom") - before, 3, "the last one was not asked");
    error
}

fn assert_fails_fast(error: &Error) {
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("KMS_UNAVAILABLE")), "{error}");
    let delay = error.retry_after().expect("RetryInfo");
    assert!(!delay.is_zero() && delay <= OPEN, "{delay:?}");
    assert!(!error.is_from_kms() && error.kms_request_id().is_none());
}

#[tokio::test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn while_kms_is_down_cached_draws_go_on_to_their_bound_and_then_fail_fast() {
    let mut small = rule();
    small.bounds.max_messages = 5;
    let mut broker = TestBroker::with(setup(small)).await;
    let client = broker.client().await;
    let first = draw(&client).await.expect("KMS is up");
    let other = Emulator::start(EmulatorConfig::default()).await.expect("starts");
    std::mem::replace(&mut broker.emulator, other).shutdown().await;
    for _ in 1..5 {
        let key = draw(&client).await.expect("within its bounds");
        assert_eq!(key.plaintext.expose(), first.plaintext.expose());
    }
    let mut refusals = Vec::new();
    for _ in 0..5 {
        refusals.push(draw(&client).await.expect_err("all five messages are used"));
    }
    for error in &refusals {
        assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("KMS_UNAVAILABLE")), "{error}");
        assert!(error.retry_after().is_some());
    }
    assert_fails_fast(&refusals[4]);
    check_records(&support::journal_lines(&broker.journal_dir()));
    let records = broker.stop().await;
    assert_eq!(records.kms.len(), 1, "what KMS has not answered is no KMS record");
    assert_eq!(records.activity.len(), 10);
    for error in &refusals {
        assert_eq!(records.activity_of(id(error))["errorCode"], "KMSUnavailable");
    }
}

#[tokio::test]
async fn the_breaker_opens_probes_once_and_closes() {
    let broker = TestBroker::with(setup(not_reused())).await;
    let client = broker.client().await;
    broker.emulator.inject(Fault::new(Effect::Close));
    assert_fails_fast(&open_breaker(&broker, &client).await);
    for _ in 0..100 {
        assert_fails_fast(&client.generate_random(8).await.expect_err("open"));
    }
    assert_eq!(broker.emulator.call_count("GenerateRandom"), 3, "KMS is left alone");

    // The probe takes its time, so that all the others find it under way.
    broker.emulator.clear_faults();
    broker.emulator.inject(Fault::latency(Duration::from_millis(500)));
    tokio::time::sleep(OPEN).await;
    let mut calls = JoinSet::new();
    for _ in 0..50 {
        let client = client.clone();
        calls.spawn(async move { client.generate_random(8).await });
    }
    let results = calls.join_all().await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "the probe");
    results.iter().filter_map(|result| result.as_ref().err()).for_each(assert_fails_fast);
    assert_eq!(broker.emulator.call_count("GenerateRandom"), 4);

    broker.emulator.clear_faults();
    for _ in 0..10 {
        client.generate_random(8).await.expect("closed");
    }
    let records = broker.stop().await;
    assert_eq!((records.kms.len(), records.activity.len()), (11, 3 + 101 + 50 + 10));
    assert_eq!(records.outcomes(), BTreeMap::from([("Allowed".into(), 11), ("Failed".into(), 153)]));
}

#[tokio::test]
async fn a_callers_own_short_deadline_is_no_failure_of_kms() {
    let broker = TestBroker::with(setup(not_reused())).await;
    broker.emulator.inject(Fault::latency(Duration::from_secs(1)));
    let client = broker.client().await;
    let hurried = client.clone().with_deadline(Duration::from_millis(50));
    for _ in 0..10 {
        let error = hurried.generate_random(8).await.expect_err("too little time");
        assert!(matches!(error.code(), Code::DeadlineExceeded | Code::Cancelled), "{error}");
    }
    broker.emulator.clear_faults();
    client.generate_random(8).await.expect("the breaker is closed");
}

#[tokio::test]
async fn a_kms_that_hangs_opens_the_breaker() {
    let mut setup = setup(not_reused());
    setup.attempt_timeout = Duration::from_millis(200);
    let broker = TestBroker::with(setup).await;
    broker.emulator.inject(Fault::new(Effect::Hang));
    let client = broker.client().await;
    assert_fails_fast(&open_breaker(&broker, &client).await);
}

/// However much time its caller has, and whatever it asks for: the caller is told that KMS does not answer, and when to come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kms_that_hangs_is_told_before_the_callers_deadline_and_not_as_its_deadline() {
    let breaker = BreakerSettings { failures: 1_000, open: OPEN, longest_open: OPEN };
    for (attempt, deadline) in [(300, 60_000), (3_000, 1_000), (3_000, 2_500), (60_000, 600)] {
        let attempt_timeout = Duration::from_millis(attempt);
        let guard = GuardSettings { breaker, fair_time: attempt_timeout, ..support::guard() };
        let setup =
            Setup { attempt_timeout, guard, max_attempts: 3, reuse: reuse(rule()), ..Setup::default() };
        let broker = TestBroker::with(setup).await;
        let client = broker.client().await;
        let made = draw(&client).await.expect("KMS is up");
        broker.emulator.inject(Fault::new(Effect::Hang));
        let deadline = Duration::from_millis(deadline);
        let hasty = client.clone().with_deadline(deadline);
        let (key, fresh) = (key_of("acme"), key_of("acme").fresh());
        let decrypt = Decrypt::new(made.ciphertext_blob.clone()).key_id("alias/dev");
        let began = SystemClock.instant();
        let (kept, once, decrypted, random, unknown) = tokio::join!(
            hasty.generate_data_key(key),
            hasty.generate_data_key(fresh),
            hasty.decrypt(decrypt),
            hasty.generate_random(8),
            hasty.generate_data_key(GenerateDataKey::aes_256("alias/never-seen")),
        );
        let took = SystemClock.instant() - began;
        let errors =
            [kept.map(drop), once.map(drop), decrypted.map(drop), random.map(drop), unknown.map(drop)];
        for error in errors {
            let error = error.expect_err("KMS hangs");
            let told = (error.code(), error.reason());
            assert_eq!(told, (Code::Unavailable, Some("KMS_UNAVAILABLE")), "{deadline:?}: {error}");
            assert!(error.retry_after().is_some());
        }
        assert!(took < deadline.min(Duration::from_secs(15)), "{took:?} of {deadline:?}");
    }
}

#[tokio::test]
async fn throttling_is_passed_on_and_cached_draws_go_on() {
    let broker = TestBroker::with(setup(rule())).await;
    let client = broker.client().await;
    let kept = draw(&client).await.expect("a key");
    broker.emulator.inject(Fault::throttling());
    for _ in 0..10 {
        let error = client.generate_data_key(key_of("new")).await.expect_err("throttled");
        assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, Some("KMS_THROTTLED")));
        assert!(error.retry_after().is_some());
        assert_eq!(draw(&client).await.expect("kept").plaintext.expose(), kept.plaintext.expose());
    }
    assert!(client.is_serving().await.expect("health"), "KMS answers: the breaker stays closed");
    broker.emulator.clear_faults();
    client.generate_data_key(key_of("new")).await.expect("a key");
}

#[tokio::test]
async fn retries_end_with_their_budget() {
    const CALLS: u64 = 130;
    let broker = TestBroker::with(Setup { max_attempts: 3, ..setup(not_reused()) }).await;
    let client = broker.client().await;
    broker.emulator.inject(Fault::throttling());
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let client = client.clone();
        calls.spawn(async move { client.generate_random(8).await });
    }
    for result in calls.join_all().await {
        assert_eq!(result.expect_err("throttled").reason(), Some("KMS_THROTTLED"));
    }
    // 500 tokens, 5 for each; time brings a few more.
    let retries = broker.emulator.call_count("GenerateRandom") - CALLS;
    assert!((100..105).contains(&retries), "{retries}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_kms_has_no_more_calls_under_way_than_the_limit() {
    let mut setup = setup(rule());
    // One principal has half of them.
    setup.guard.max_in_flight = 32;
    setup.guard.queue_wait = Duration::from_secs(1);
    let broker = TestBroker::with(setup).await;
    broker.emulator.inject(Fault::latency(SLOW));
    let mut calls = JoinSet::new();
    for connection in 0..5 {
        let client = broker.client().await;
        for call in 0..100 {
            let client = client.clone();
            let tenant = format!("{connection}-{call}");
            calls.spawn(async move { client.generate_data_key(key_of(&tenant)).await });
        }
    }
    let results =
        tokio::time::timeout(Duration::from_secs(15), calls.join_all()).await.expect("nobody hangs");
    let answered = results.iter().filter(|result| result.is_ok()).count();
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, Some("KMS_BUSY")), "{error}");
        assert!(error.retry_after().is_some());
    }
    assert!(answered >= 16, "{answered}");
    // A call is under way for SLOW from its arrival on: those that arrive within less are under way together.
    let log = broker.emulator.calls();
    let arrivals: Vec<u64> =
        log.iter().filter(|call| call.operation == "GenerateDataKey").map(|call| call.at).collect();
    let within = u64::try_from(SLOW.as_millis()).expect("small") - 50;
    let most =
        arrivals.iter().map(|at| arrivals.iter().filter(|other| (*at..at + within).contains(other)).count());
    assert!(most.max().is_some_and(|most| most <= 16), "{arrivals:?}");
    assert_eq!(arrivals.len(), answered, "a refusal is not a call to KMS");
    let records = broker.stop().await;
    assert_eq!((records.kms.len(), records.activity.len()), (answered, 500));
    assert_eq!(records.outcomes()["Throttled"], 500 - answered);
}

#[tokio::test]
async fn health_tells_readiness_while_the_process_lives() {
    let broker = TestBroker::with(setup(not_reused())).await;
    let client = broker.client().await;
    let health =
        async || (client.is_alive().await.expect("answers"), client.is_serving().await.expect("answers"));
    assert_eq!(health().await, (true, true));
    broker.emulator.inject(Fault::new(Effect::Close));
    open_breaker(&broker, &client).await;
    assert_eq!(health().await, (true, false));
    // Once it may be probed it is ready again: else nobody would come to probe it.
    tokio::time::sleep(OPEN).await;
    assert_eq!(health().await, (true, true));
    client.generate_random(8).await.expect_err("the probe fails");
    assert_eq!(health().await, (true, false));
    broker.emulator.clear_faults();
    tokio::time::sleep(OPEN).await;
    client.generate_random(8).await.expect("the probe");
    assert_eq!(health().await, (true, true));
}

#[tokio::test]
async fn a_refused_decrypt_ends_every_kept_key_of_that_kms_key() {
    let broker = TestBroker::with(setup(rule())).await;
    let client = broker.client().await;
    let by_alias = draw(&client).await.expect("a key");
    client.generate_data_key(GenerateDataKey::aes_256(&broker.key_arn)).await.expect("a key");
    let other =
        broker.emulator.ensure_key("alias/other", kms_emulator::KeySpec::SymmetricDefault).expect("a key");
    let spared = client.generate_data_key(GenerateDataKey::aes_256(&other)).await.expect("a key");
    broker.emulator.set_enabled(&broker.key_arn, false).expect("known");
    draw(&client).await.expect("nothing has told the broker yet");
    let error = client.decrypt(Decrypt::new(by_alias.ciphertext_blob)).await.expect_err("disabled");
    assert_eq!(error.reason(), Some("KEY_DISABLED"));
    for key in ["alias/dev", &broker.key_arn] {
        let error = client.generate_data_key(GenerateDataKey::aes_256(key)).await.expect_err("dropped");
        assert_eq!(error.reason(), Some("KEY_DISABLED"), "{key}");
    }
    let still = client.generate_data_key(GenerateDataKey::aes_256(&other)).await.expect("another KMS key");
    assert_eq!(still.plaintext.expose(), spared.plaintext.expose());
}

#[tokio::test]
async fn a_refusal_ends_what_calls_got_that_named_no_key() {
    let broker = TestBroker::with(setup(rule())).await;
    let client = broker.client().await;
    let key = draw(&client).await.expect("KMS is up");
    let decrypt = async || {
        let unnamed = Decrypt::new(key.ciphertext_blob.clone());
        client.decrypt(unnamed).await.map(|_| broker.emulator.call_count("Decrypt"))
    };
    assert_eq!((decrypt().await.expect("KMS is up"), decrypt().await.expect("kept")), (1, 1));
    broker.emulator.inject(Fault::new(Effect::Error("DisabledException".into())).on("GenerateDataKey"));
    let fresh = GenerateDataKey::aes_256("alias/dev").fresh();
    assert_eq!(client.generate_data_key(fresh).await.expect_err("refused").reason(), Some("KEY_DISABLED"));
    assert_eq!(decrypt().await.expect("KMS is asked again"), 2);
}

#[tokio::test]
async fn access_denied_by_one_name_ends_what_is_kept_under_the_others() {
    let broker = TestBroker::with(setup(rule())).await;
    let client = broker.client().await;
    draw(&client).await.expect("a key");
    client.generate_data_key(GenerateDataKey::aes_256(&broker.key_arn)).await.expect("a key");
    // AWS's words for this name no key.
    broker.emulator.inject(Fault::access_denied());
    let error = client.generate_data_key(key_of("new")).await.expect_err("denied");
    assert_eq!(error.reason(), Some("KMS_ACCESS_DENIED"));
    for key in ["alias/dev", &broker.key_arn] {
        let error = client.generate_data_key(GenerateDataKey::aes_256(key)).await.expect_err("dropped");
        assert_eq!(error.reason(), Some("KMS_ACCESS_DENIED"), "{key}");
    }
}

/// How long the breaker is open, at most: at least half of it.
const OPEN: Duration = Duration::from_millis(1_500);
const SLOW: Duration = Duration::from_secs(2);
