//! Proves each fault on the wire, the three ways to inject one, and the log of calls.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::time::Duration;

use http::{Method, StatusCode};
use kms_emulator::{Effect, Emulator, Fault};
use serde_json::{Value, json};
use tokio::time::timeout;

use support::{ALIAS, AUTHORIZATION, Client, Reply, start};

/// A request that succeeds without faults.
fn request() -> Value {
    json!({ "KeyId": ALIAS, "KeySpec": "AES_256", "EncryptionContext": { "a": "b" } })
}

async fn control(emulator: &Emulator, method: Method, path: &str, body: &str) -> Reply {
    let mut client = Client::connect(&emulator.endpoint_url()).await;
    client.send(method, &format!("/_emulator/{path}"), &[], body).await.unwrap()
}

#[tokio::test]
async fn errors_have_their_status_and_words() {
    let (emulator, mut client, _) = start().await;
    for (fault, status, error) in [
        (Fault::throttling(), 400, "ThrottlingException"),
        (Fault::internal_error(), 500, "KMSInternalException"),
        (Fault::access_denied(), 400, "AccessDeniedException"),
        (Fault::error("KeyUnavailableException"), 500, "KeyUnavailableException"),
        (Fault::error("UnrecognizedClientException"), 400, "UnrecognizedClientException"),
        (Fault::error("LimitExceededException"), 400, "LimitExceededException"),
    ] {
        emulator.clear_faults();
        emulator.inject(fault);
        let reply = client.call("GenerateDataKey", request()).await;
        assert_eq!((reply.status.as_u16(), reply.error().as_str()), (status, error));
        assert_eq!(emulator.calls().last().unwrap().error.as_deref(), Some(error));
    }
    emulator.clear_faults();
    emulator.inject(Fault::throttling());
    let message = client.call("GenerateDataKey", request()).await.message();
    assert_eq!(
        message,
        "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls."
    );
}

#[tokio::test]
async fn a_fault_befalls_only_what_it_is_narrowed_to() {
    let (emulator, mut client, _) = start().await;
    emulator.inject(Fault::throttling().on("GenerateDataKey").every(2).times(2));
    assert_eq!(client.call("DescribeKey", request()).await.status, StatusCode::OK);
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(client.call("GenerateDataKey", request()).await.status.as_u16());
    }
    assert_eq!(statuses, [200, 400, 200, 400, 200, 200]);
    assert_eq!(emulator.faults()[0].times, Some(0));
}

#[tokio::test]
async fn a_latency_delays_and_changes_nothing() {
    let (emulator, mut client, arn) = start().await;
    emulator.inject(Fault::latency(Duration::from_millis(300)));
    let early = timeout(Duration::from_millis(100), client.call("GenerateDataKey", request())).await;
    assert!(early.is_err(), "an answer before its time");
    let mut client = Client::connect(&emulator.endpoint_url()).await;
    assert_eq!(client.call("GenerateDataKey", request()).await.text("KeyId"), arn);
}

#[tokio::test]
async fn an_outage_closes_or_hangs() {
    let (emulator, _, _) = start().await;
    let headers = [("x-amz-target", "TrentService.GenerateDataKey"), ("authorization", AUTHORIZATION)];
    let body = request().to_string();
    for effect in [Effect::Close, Effect::LoseAnswer] {
        emulator.clear_faults();
        emulator.inject(Fault::new(effect.clone()));
        let mut client = Client::connect(&emulator.endpoint_url()).await;
        let error = client.send(Method::POST, "/", &headers, &body).await.unwrap_err();
        assert!(error.is_incomplete_message(), "{error}");
        assert_eq!(emulator.calls().last().unwrap().fault, Some(effect.to_string()));
    }
    emulator.clear_faults();
    emulator.inject(Fault::new(Effect::Hang));
    let mut client = Client::connect(&emulator.endpoint_url()).await;
    let answer = timeout(Duration::from_millis(200), client.send(Method::POST, "/", &headers, &body)).await;
    assert!(answer.is_err(), "an answer");
    assert_eq!(emulator.call_count("GenerateDataKey"), 3, "unanswered calls count, too");
    timeout(Duration::from_secs(5), emulator.shutdown()).await.expect("a hanging call does not hold it up");
}

#[tokio::test]
async fn answers_can_be_wrong() {
    let (emulator, mut client, arn) = start().await;
    emulator.inject(Fault::new(Effect::WrongKeyId).times(2));
    let wrong = client.call("GenerateDataKey", request()).await.text("KeyId");
    assert!(wrong != arn && wrong.starts_with("arn:aws:kms:us-west-2:111122223333:key/"), "{wrong}");
    let described = client.call("DescribeKey", request()).await.json();
    assert_ne!(described["KeyMetadata"]["Arn"], arn);

    emulator.inject(Fault::new(Effect::MissingPlaintext).times(1));
    let reply = client.call("GenerateDataKey", request()).await;
    assert!(reply.status == StatusCode::OK && reply.json().get("Plaintext").is_none());

    emulator.inject(Fault::new(Effect::CorruptBody).times(1));
    let reply = client.call("GenerateDataKey", request()).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert!(serde_json::from_slice::<Value>(&reply.body).is_err());
    assert_eq!(client.call("GenerateDataKey", request()).await.text("KeyId"), arn);
}

#[tokio::test]
async fn a_request_brings_its_own_fault() {
    let (_emulator, mut client, arn) = start().await;
    let body = request().to_string();
    let headers = [("x-emulator-fault", "latency=1, throttling")];
    assert_eq!(client.call_with("GenerateDataKey", &body, &headers).await.error(), "ThrottlingException");
    let nonsense = [("x-emulator-fault", "explode")];
    let reply = client.call_with("GenerateDataKey", &body, &nonsense).await;
    assert_eq!(
        (reply.error().as_str(), reply.message().as_str()),
        ("ValidationException", "x-emulator-fault: unknown effect \"explode\"")
    );
    assert_eq!(client.call("GenerateDataKey", request()).await.text("KeyId"), arn);
}

#[tokio::test]
async fn another_process_arranges_faults_and_reads_calls() {
    let (emulator, mut client, _) = start().await;
    let faults = json!([{ "effect": "throttling", "operation": "GenerateDataKey", "times": 1 }, { "effect": "latency=1",
        "every": 2, "chance": { "of": 0.5, "seed": 1 } }]);
    let put = control(&emulator, Method::PUT, "faults", &faults.to_string()).await;
    assert_eq!(put.status, StatusCode::OK, "{put:?}");
    assert_eq!(emulator.faults()[0], Fault::throttling().on("GenerateDataKey").times(1));
    assert_eq!(client.call("GenerateDataKey", request()).await.error(), "ThrottlingException");
    assert_eq!(control(&emulator, Method::GET, "faults", "").await.json()[0]["times"], 0);
    control(&emulator, Method::DELETE, "faults", "").await;
    assert_eq!(emulator.faults(), []);
    for wrong in [
        "{}",
        r#"[{"effect":"explode"}]"#,
        r#"[{"effect":"hang","evry":2}]"#,
        r#"[{"effect":"hang","every":0}]"#,
    ] {
        assert_eq!(
            control(&emulator, Method::PUT, "faults", wrong).await.status,
            StatusCode::BAD_REQUEST,
            "{wrong}"
        );
    }

    let calls = control(&emulator, Method::GET, "calls", "").await.json();
    assert_eq!(calls["counts"], json!({ "GenerateDataKey": 1 }));
    assert_eq!(calls["calls"][0]["error"], "ThrottlingException");
    control(&emulator, Method::DELETE, "calls", "").await;
    assert_eq!(emulator.calls(), []);
    assert_eq!(control(&emulator, Method::GET, "health", "").await.json()["region"], "us-west-2");
    assert_eq!(control(&emulator, Method::POST, "calls", "").await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(control(&emulator, Method::GET, "else", "").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_log_has_every_call_as_it_was_sent() {
    let (emulator, mut client, _) = start().await;
    let made = client.call("GenerateDataKey", request()).await;
    client.call("DescribeKey", json!({ "KeyId": "alias/none" })).await;
    let mut dry = request();
    dry["DryRun"] = true.into();
    client.call("GenerateDataKey", dry).await;
    let calls = emulator.calls();
    let [first, second, third] = calls.as_slice() else { panic!("{calls:?}") };
    assert_eq!((first.seq, second.seq, third.seq), (1, 2, 3));
    assert_eq!(first.operation, "GenerateDataKey");
    assert_eq!(first.request_id, made.request_id());
    assert_eq!(first.access_key_id, "AKIDEXAMPLE");
    assert_eq!(first.key_id.as_deref(), Some(ALIAS));
    assert_eq!(first.encryption_context.get("a").map(String::as_str), Some("b"));
    assert_eq!((first.error.as_deref(), first.dry_run), (None, false));
    assert!(first.at > 1_700_000_000_000, "milliseconds");
    assert_eq!(second.error.as_deref(), Some("NotFoundException"));
    assert_eq!((third.error.as_deref(), third.dry_run), (Some("DryRunOperationException"), true));
    assert_eq!(emulator.call_count("GenerateDataKey"), 2);
    assert_eq!(emulator.call_count("Decrypt"), 0);
    let log = format!("{calls:?}");
    assert!(!log.contains(&made.text("Plaintext")), "key material in the log");
    emulator.clear_calls();
    assert_eq!(emulator.call_count("GenerateDataKey"), 0);
}
