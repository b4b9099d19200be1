//! Proves, through real sockets: whoever is permitted nothing causes no call to KMS, and makes the broker forget nothing that others
//! use; what one principal asks of KMS keeps no other from it; and as many keys are made at a time as callers wait for.

mod support;

use std::time::Duration;

use key_broker::Rule;
use key_broker_client::{Client, DataKey, Decrypt, Error, GenerateDataKey};
use key_broker_core::Bounds;
use kms_emulator::{Effect, Fault, KeySpec};
use support::{Setup, TestBroker, reuse, rule};
use tokio::task::JoinSet;
use tonic::Code;

const EVERYBODY: &str = "permit(principal, action, resource);";

/// A broker with a neighbour on its plaintext port: the principal `unknown`.
async fn street(setup: Setup) -> (TestBroker, Client, Client) {
    let broker =
        TestBroker::with(Setup { insecure_tcp: true, max_attempts: 1, reuse: reuse(rule()), ..setup }).await;
    let address = broker.tcp_address().expect("it listens").to_string();
    let neighbour = Client::insecure_tcp(&address).await.expect("connects");
    let victim = broker.client().await;
    (broker, victim, neighbour)
}

fn dev() -> GenerateDataKey {
    GenerateDataKey::aes_256("alias/dev")
}

/// Asks for a data key by each of these aliases, so many calls at a time.
async fn ask_for_all(client: &Client, aliases: Vec<String>) -> Vec<Result<DataKey, Error>> {
    let mut answers = Vec::new();
    for some in aliases.chunks(50) {
        let mut calls = JoinSet::new();
        for alias in some {
            let (client, request) = (client.clone(), GenerateDataKey::aes_256(alias));
            calls.spawn(async move { client.generate_data_key(request).await });
        }
        answers.extend(calls.join_all().await);
    }
    answers
}

/// The neighbour asks for keys by names that it makes up, all of which are refused so.
async fn make_up_names(neighbour: &Client, names: std::ops::Range<usize>, code: Code) {
    let aliases = names.map(|name| format!("alias/made-up-{name}")).collect();
    for answer in ask_for_all(neighbour, aliases).await {
        let error = answer.expect_err("there is no such alias");
        assert_eq!(error.code(), code, "{error}");
    }
}

/// Proves: made-up aliases of who is permitted nothing reach no KMS, whether or not policies name aliases, and a kept key is served
/// while KMS is down, whatever names were made up before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_permitted_nothing_asks_kms_nothing_and_makes_nobody_forget() {
    let by_alias = r#"permit(principal is Workload, action, resource in Alias::"alias/dev");"#;
    for policy in [support::ALL_WORKLOADS, by_alias] {
        let (broker, victim, neighbour) = street(Setup { policy: policy.into(), ..Setup::default() }).await;
        make_up_names(&neighbour, 0..50, Code::PermissionDenied).await;
        assert_eq!(broker.emulator.call_count("DescribeKey"), 0);
        let kept = victim.generate_data_key(dev()).await.expect("permitted");
        assert_eq!(broker.emulator.call_count("DescribeKey"), 1);
        broker.emulator.inject(Fault::new(Effect::Close));
        make_up_names(&neighbour, 50..1_150, Code::PermissionDenied).await;
        let again = victim.generate_data_key(dev()).await.expect("it is kept");
        assert_eq!(again.plaintext.expose(), kept.plaintext.expose());
        assert_eq!(broker.emulator.call_count("DescribeKey"), 1);
        let records = broker.stop().await;
        assert_eq!((records.kms.len(), records.resolved.len()), (1, 1));
        let denied = records.activity.iter().filter(|record| record["errorCode"] == "AccessDenied");
        let calls =
            denied.map(|record| record["additionalEventData"]["refusals"]["count"].as_u64().unwrap_or(1));
        assert_eq!(calls.sum::<u64>(), 1_150);
        let one =
            records.activity.iter().find(|record| record["errorCode"] == "AccessDenied").expect("a record");
        let asked = one["requestParameters"]["keyId"].as_str().expect("a denial is described like a permit");
        assert!(asked.starts_with("alias/made-up-"), "{one}");
    }
}

/// Proves: names that a permitted neighbour makes up, and aliases that it uses, push out none that another uses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_one_makes_up_push_out_none_of_anothers() {
    let (broker, victim, neighbour) = street(Setup { policy: EVERYBODY.into(), ..Setup::default() }).await;
    let kept = victim.generate_data_key(dev()).await.expect("permitted");
    make_up_names(&neighbour, 0..1_100, Code::NotFound).await;
    broker.emulator.inject(Fault::new(Effect::Close));
    let again = victim.generate_data_key(dev()).await.expect("it is kept");
    assert_eq!(again.plaintext.expose(), kept.plaintext.expose());
    broker.stop().await;
}

/// Proves: more than a thousand aliases in use are asked for once each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_many_aliases_is_asked_for_once() {
    const ALIASES: usize = 1_200;
    let (broker, client, _) = street(Setup::default()).await;
    let aliases: Vec<_> = (0..ALIASES).map(|name| format!("alias/honest-{name}")).collect();
    for alias in &aliases {
        broker.emulator.ensure_key(alias, KeySpec::SymmetricDefault).expect("a key");
    }
    for _ in 0..2 {
        for answer in ask_for_all(&client, aliases.clone()).await {
            answer.expect("permitted");
        }
    }
    let asked = ["DescribeKey", "GenerateDataKey"].map(|operation| broker.emulator.call_count(operation));
    assert_eq!(asked, [ALIASES as u64; 2]);
    broker.stop().await;
}

/// Proves: who has as many calls to KMS under way as it may have keeps nobody else waiting for one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_one_to_a_slow_kms_keep_nobody_else_waiting() {
    let mut setup = Setup { policy: EVERYBODY.into(), ..Setup::default() };
    setup.guard.queue_wait = Duration::from_millis(500);
    setup.attempt_timeout = Duration::from_secs(9);
    let (broker, victim, neighbour) = street(setup).await;
    broker.emulator.inject(Fault::latency(Duration::from_secs(3)));
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let neighbour = neighbour.clone();
        calls.spawn(async move { neighbour.generate_random(8).await });
    }
    support::eventually("the neighbour has its half", || broker.emulator.call_count("GenerateRandom") >= 64)
        .await;
    victim.generate_random(8).await.expect("a slot is there");
    let answers = calls.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 64);
    for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        assert_eq!(error.reason(), Some("KMS_BUSY"), "{error}");
    }
    broker.stop().await;
}

/// Proves: keys that serve one message each are made for all callers at once, not one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_keys_are_made_at_a_time_as_callers_wait_for() {
    const CALLERS: usize = 40;
    let once = Rule { bounds: Bounds { max_messages: 1, ..rule().bounds }, ..rule() };
    let broker = TestBroker::with(Setup { reuse: reuse(once), max_attempts: 1, ..Setup::default() }).await;
    let client = broker.client().await;
    client.generate_data_key(dev()).await.expect("KMS is up");
    broker.emulator.inject(Fault::latency(Duration::from_secs(2)).on("GenerateDataKey"));
    let mut calls = JoinSet::new();
    for _ in 0..CALLERS {
        let client = client.clone();
        calls.spawn(async move { client.generate_data_key(dev()).await.expect("a key") });
    }
    // The first of them is answered after two seconds.
    let arrived = || broker.emulator.call_count("GenerateDataKey") > CALLERS as u64;
    support::eventually("each has its call", arrived).await;
    let keys: std::collections::BTreeSet<_> =
        calls.join_all().await.iter().map(|key| key.plaintext.expose().to_vec()).collect();
    assert_eq!(keys.len(), CALLERS, "one message each");
    assert_eq!(broker.emulator.call_count("GenerateDataKey"), CALLERS as u64 + 1);
    let calls = broker.emulator.calls();
    let at: Vec<u64> =
        calls.iter().filter(|call| call.operation == "GenerateDataKey").skip(1).map(|call| call.at).collect();
    let (first, last) = (at.iter().min().expect("calls"), at.iter().max().expect("calls"));
    assert!(last - first < 2_000, "they were under way together: {at:?}");
    broker.stop().await;
}

/// Proves: where AWS does not take the broker's own credentials, or its clock, callers are told so, no kept key is dropped, and the
/// broker is not ready.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_with_the_brokers_own_credentials_drops_no_kept_key() {
    for code in ["ExpiredTokenException", "UnrecognizedClientException", "InvalidSignatureException"] {
        let (broker, client, _) = street(Setup::default()).await;
        let kept = client.generate_data_key(dev()).await.expect("KMS is up");
        broker.emulator.inject(Fault::new(Effect::Error(code.into())));
        let error = client.generate_data_key(dev().fresh()).await.expect_err("no credentials");
        assert_eq!(
            (error.code(), error.reason()),
            (Code::Unavailable, Some("BROKER_CREDENTIALS")),
            "{error}"
        );
        assert!(error.retry_after().is_some() && error.is_from_kms());
        let again = client.generate_data_key(dev()).await.expect("it is kept");
        assert_eq!(again.plaintext.expose(), kept.plaintext.expose(), "{code}");
        for _ in 1..5 {
            client.generate_data_key(dev().fresh()).await.expect_err("no credentials");
        }
        assert!(!client.is_serving().await.expect("answers"), "{code}");
        client.generate_data_key(dev()).await.expect("it is kept");
        let records = broker.stop().await;
        assert_eq!(records.activity_of(support::id(&error))["errorCode"], code);
        assert_eq!(records.outcomes()["Failed"], 5);
    }
}

/// Proves: nothing is handed out, or kept, of an answer that can have no record; the trail tells that there was one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_a_request_id_is_refused() {
    let (broker, client, _) = street(Setup::default()).await;
    let key = client.generate_data_key(dev()).await.expect("KMS is up");
    broker.emulator.inject(Fault::new(Effect::NoRequestId));
    let decrypt = Decrypt::new(key.ciphertext_blob.clone()).key_id("alias/dev");
    let refused = [
        client.generate_data_key(dev().fresh()).await.map(drop),
        client.generate_data_key(dev().context("another", "partition")).await.map(drop),
        client.decrypt(decrypt).await.map(drop),
        client.generate_random(8).await.map(drop),
    ];
    let records = broker.records();
    for error in refused.map(|result| result.expect_err("refused")) {
        assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("KMS_UNAVAILABLE")), "{error}");
        let record = records.activity_of(support::id(&error));
        assert_eq!(record["errorCode"], "KMSUnexpectedAnswer");
        assert!(record["additionalEventData"]["dataKey"].get("kmsRequestID").is_none(), "{record}");
    }
    let asked = broker.emulator.calls().iter().filter(|call| call.operation.starts_with("Gen")).count();
    assert_eq!((records.kms.len(), asked), (1, 4), "{records:?}");
    broker.emulator.clear_faults();
    client.generate_data_key(dev().context("another", "partition")).await.expect("nothing is in the way");
    // The journal tells it at the latest at the end.
    let records = broker.stop().await;
    let told = records
        .activity
        .iter()
        .filter_map(|record| record["additionalEventData"]["journal"]["unrecordedKmsAnswers"].as_u64());
    assert_eq!(told.sum::<u64>(), 4, "{records:?}");
}

/// Proves: an answer that is longer than any of KMS's is not read to its end, and none with more in it than KMS sends is used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_too_long_is_refused() {
    let (broker, client, _) = street(Setup::default()).await;
    for effect in [Effect::LongAnswer, Effect::LongCiphertext] {
        broker.emulator.inject(Fault::new(effect.clone()).on("GenerateDataKey"));
        for request in [dev(), dev().fresh()] {
            let error = client.generate_data_key(request).await.expect_err("too long");
            assert_eq!(
                (error.code(), error.reason()),
                (Code::Unavailable, Some("KMS_UNAVAILABLE")),
                "{error}"
            );
            let records = broker.records();
            assert_eq!(
                records.activity_of(support::id(&error))["errorCode"],
                "KMSUnexpectedAnswer",
                "{effect}"
            );
        }
        broker.emulator.clear_faults();
    }
    client.generate_data_key(dev()).await.expect("nothing is in the way");
    broker.stop().await;
}

/// Proves: a KMS that answers for other keys is not one that is down: nobody else is refused for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_for_another_key_open_no_circuit() {
    let (broker, client, _) = street(Setup::default()).await;
    client.generate_data_key(dev()).await.expect("KMS is up");
    broker.emulator.inject(Fault::new(Effect::WrongKeyId).on("GenerateDataKey"));
    for _ in 0..10 {
        client.generate_data_key(dev().fresh()).await.expect_err("for another key");
    }
    client.generate_random(8).await.expect("the circuit is closed");
    broker.stop().await;
}
