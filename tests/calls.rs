//! Proves: the five calls work end to end (client, unix socket, broker, AWS SDK, KMS), every refusal has the code and
//! reason of the contract's table, and each leaves the records that it should.

#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::time::Duration;

use key_broker_client::{Client, Decrypt, Error, GenerateDataKey};
use kms_emulator::{Effect, Fault, KeySpec};
use peers::check_records;
use support::{Setup, TestBroker, id};
use tonic::Code;

#[tokio::test]
async fn a_data_key_comes_back_by_decrypt() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let key = client
        .generate_data_key(GenerateDataKey::aes_256("alias/dev").context("tenant", "acme"))
        .await
        .expect("a key");
    assert_eq!(key.plaintext.expose().len(), 32);
    assert_eq!(key.key_id, broker.key_arn);
    assert_eq!(key.key_material_id.len(), 64);

    let decrypt = Decrypt::new(key.ciphertext_blob.clone()).context("tenant", "acme");
    for request in [decrypt.clone(), decrypt.clone().key_id("alias/dev"), decrypt.key_id(&broker.key_arn)] {
        let decrypted = client.decrypt(request).await.expect("the context is right");
        assert_eq!(decrypted.plaintext.expose(), key.plaintext.expose());
        assert_eq!(
            (decrypted.key_id, decrypted.key_material_id),
            (key.key_id.clone(), key.key_material_id.clone())
        );
    }
    assert_eq!(broker.emulator.call_count("Decrypt"), 3);
}

#[tokio::test]
async fn lengths_are_as_asked_for() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    for (request, length) in [
        (GenerateDataKey::aes_128("alias/dev"), 16),
        (GenerateDataKey::bytes("alias/dev", 1), 1),
        (GenerateDataKey::bytes("alias/dev", 1_024), 1_024),
    ] {
        assert_eq!(client.generate_data_key(request).await.expect("a key").plaintext.expose().len(), length);
    }
    let (first, second) = (
        client.generate_random(64).await.expect("random"),
        client.generate_random(64).await.expect("random"),
    );
    assert_eq!(first.plaintext.expose().len(), 64);
    assert_ne!(first.plaintext.expose(), second.plaintext.expose());
}

#[tokio::test]
async fn a_data_key_without_plaintext_decrypts_too() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let request = GenerateDataKey::aes_256("alias/dev").context("tenant", "acme");
    let key = client.generate_data_key_without_plaintext(request.into()).await.expect("a key");
    let decrypted =
        client.decrypt(Decrypt::new(key.ciphertext_blob).context("tenant", "acme")).await.expect("decrypts");
    assert_eq!(decrypted.plaintext.expose().len(), 32);
}

#[tokio::test]
async fn describe_key_says_what_kms_knows() {
    let broker = TestBroker::start().await;
    let key = broker.client().await.describe_key("alias/dev").await.expect("known");
    assert_eq!(key.arn, broker.key_arn);
    let facts = [key.key_spec, key.key_usage, key.key_state, key.origin, key.key_manager];
    assert_eq!(facts, ["SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "Enabled", "AWS_KMS", "CUSTOMER"]);
    assert!(key.creation_date.is_some());
}

#[tokio::test]
async fn provenance_joins_reply_and_records() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let key = client
        .generate_data_key(GenerateDataKey::aes_256("alias/dev").declare_use(7, 1_000))
        .await
        .expect("a key");
    let from = key.provenance;
    assert!(!from.from_cache && from.minted_at.is_some() && from.expires_at.is_none());
    assert_eq!(
        (from.messages_used, from.messages_limit, from.bytes_used, from.bytes_limit),
        (7, 7, 1_000, 1_000)
    );
    let records = broker.stop().await;
    let kms = records.kms_of(&from.kms_request_id);
    assert_eq!(kms["eventID"], from.kms_event_id.as_str());
    assert_eq!(
        records.activity[0]["additionalEventData"]["dataKey"]["kmsEventID"],
        from.kms_event_id.as_str()
    );
    assert_eq!(records.activity[0]["requestParameters"]["use"]["messages"], 7);
}

/// One line of the contract's table, made to happen.
struct Case {
    name: &'static str,
    error: Error,
    code: Code,
    reason: &'static str,
    outcome: &'static str,
    error_code: &'static str,
    from_kms: bool,
    retries: bool,
}

#[tokio::test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn refusals_have_the_code_reason_and_record_of_the_table() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let mut cases = kms_says_no(&broker, &client).await;
    cases.extend(the_broker_says_no(&client).await);
    cases.extend(kms_fails(&broker, &client).await);
    check_records(&support::journal_lines(&broker.journal_dir()));
    let records = broker.stop().await;
    for case in cases {
        let Case { name, error, code, reason, outcome, error_code, from_kms, retries } = case;
        assert_eq!((error.code(), error.reason()), (code, Some(reason)), "{name}: {error}");
        assert_eq!((error.is_from_kms(), error.retry_after().is_some()), (from_kms, retries), "{name}");
        let record = records.activity_of(id(&error));
        assert_eq!(record["additionalEventData"]["outcome"], outcome, "{name}");
        assert_eq!(record["errorCode"], error_code, "{name}");
        if from_kms {
            let kms = records
                .kms_of(error.kms_request_id().unwrap_or_else(|| panic!("{name}: no x-amzn-requestid")));
            assert_eq!(kms["errorCode"], error_code, "{name}");
            assert!(
                !error.message().contains("arn:"),
                "{name}: KMS's own words are not for the caller: {error}"
            );
        }
    }
}

async fn kms_says_no(broker: &TestBroker, client: &Client) -> Vec<Case> {
    let key = client
        .generate_data_key(GenerateDataKey::aes_256("alias/dev").context("tenant", "acme"))
        .await
        .expect("a key");
    let other = broker.emulator.ensure_key("alias/other", KeySpec::SymmetricDefault).expect("a key");
    let signing = broker.emulator.ensure_key("alias/signing", KeySpec::Rsa2048).expect("a key");
    let mut flipped = key.ciphertext_blob.to_vec();
    *flipped.last_mut().expect("not empty") ^= 1;

    let wrong_context =
        client.decrypt(Decrypt::new(key.ciphertext_blob.clone()).context("tenant", "evil")).await;
    let flipped = client.decrypt(Decrypt::new(flipped).context("tenant", "acme")).await;
    let wrong_key =
        client.decrypt(Decrypt::new(key.ciphertext_blob).context("tenant", "acme").key_id(&other)).await;
    let unknown = client.generate_data_key(GenerateDataKey::aes_256("alias/none")).await;
    let wrong_usage = client.generate_data_key(GenerateDataKey::aes_256(&signing)).await;
    broker.emulator.set_enabled(&other, false).expect("known");
    let disabled = client.generate_data_key(GenerateDataKey::aes_256(&other)).await;
    let case = |name, error, code, reason, outcome, error_code| Case {
        name,
        error,
        code,
        reason,
        outcome,
        error_code,
        from_kms: true,
        retries: false,
    };
    vec![
        case(
            "wrong context",
            wrong_context.expect_err("refused"),
            Code::InvalidArgument,
            "INVALID_CIPHERTEXT",
            "Rejected",
            "InvalidCiphertextException",
        ),
        case(
            "flipped bit",
            flipped.expect_err("refused"),
            Code::InvalidArgument,
            "INVALID_CIPHERTEXT",
            "Rejected",
            "InvalidCiphertextException",
        ),
        case(
            "wrong key",
            wrong_key.expect_err("refused"),
            Code::InvalidArgument,
            "INCORRECT_KEY",
            "Rejected",
            "IncorrectKeyException",
        ),
        // A non-existing alias: the broker knows itself, once KMS has said so.
        Case {
            from_kms: false,
            ..case(
                "unknown key",
                unknown.expect_err("refused"),
                Code::NotFound,
                "KEY_NOT_FOUND",
                "Failed",
                "NotFoundException",
            )
        },
        case(
            "wrong usage",
            wrong_usage.expect_err("refused"),
            Code::FailedPrecondition,
            "KEY_INVALID_USAGE",
            "Failed",
            "InvalidKeyUsageException",
        ),
        case(
            "disabled key",
            disabled.expect_err("refused"),
            Code::FailedPrecondition,
            "KEY_DISABLED",
            "Failed",
            "DisabledException",
        ),
    ]
}

async fn the_broker_says_no(client: &Client) -> Vec<Case> {
    let rejected = |name, result: Result<key_broker_client::DataKey, Error>| Case {
        name,
        error: result.expect_err("refused"),
        code: Code::InvalidArgument,
        reason: "MALFORMED_REQUEST",
        outcome: "Rejected",
        error_code: "ValidationException",
        from_kms: false,
        retries: false,
    };
    vec![
        rejected("no key", client.generate_data_key(GenerateDataKey::aes_256("")).await),
        rejected(
            "no such form",
            client.generate_data_key(GenerateDataKey::aes_256("../../etc/passwd")).await,
        ),
        rejected("0 bytes", client.generate_data_key(GenerateDataKey::bytes("alias/dev", 0)).await),
        rejected("1,025 bytes", client.generate_data_key(GenerateDataKey::bytes("alias/dev", 1_025)).await),
        rejected(
            "long context",
            client
                .generate_data_key(GenerateDataKey::aes_256("alias/dev").context("k", "v".repeat(8_192)))
                .await,
        ),
        rejected(
            "empty name",
            client.generate_data_key(GenerateDataKey::aes_256("alias/dev").context("", "v")).await,
        ),
        rejected(
            "empty grant token",
            client.generate_data_key(GenerateDataKey::aes_256("alias/dev").grant_token("")).await,
        ),
    ]
}

async fn kms_fails(broker: &TestBroker, client: &Client) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, effect, code, reason, outcome, error_code, from_kms, retries) in [
        (
            "throttled",
            "throttling",
            Code::ResourceExhausted,
            "KMS_THROTTLED",
            "Throttled",
            "ThrottlingException",
            true,
            true,
        ),
        (
            "KMS fails",
            "internal-error",
            Code::Unavailable,
            "KMS_UNAVAILABLE",
            "Failed",
            "KMSInternalException",
            true,
            true,
        ),
        (
            "KMS closes",
            "close",
            Code::Unavailable,
            "KMS_UNAVAILABLE",
            "Failed",
            "KMSUnavailable",
            false,
            true,
        ),
        (
            "KMS denies us",
            "access-denied",
            Code::FailedPrecondition,
            "KMS_ACCESS_DENIED",
            "Failed",
            "AccessDenied",
            true,
            false,
        ),
        (
            "pending deletion",
            "error=KMSInvalidStateException",
            Code::FailedPrecondition,
            "KEY_INVALID_STATE",
            "Failed",
            "KMSInvalidStateException",
            true,
            false,
        ),
        (
            "bad grant token",
            "error=InvalidGrantTokenException",
            Code::InvalidArgument,
            "INVALID_GRANT_TOKEN",
            "Rejected",
            "InvalidGrantTokenException",
            true,
            false,
        ),
        (
            "KMS validates",
            "error=ValidationException",
            Code::InvalidArgument,
            "KMS_VALIDATION",
            "Rejected",
            "ValidationException",
            true,
            false,
        ),
    ] {
        broker.emulator.inject(Fault::new(effect.parse().expect("an effect")));
        let error = client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect_err(name);
        broker.emulator.clear_faults();
        cases.push(Case { name, error, code, reason, outcome, error_code, from_kms, retries });
    }
    cases
}

#[tokio::test]
async fn answers_of_kms_that_make_no_sense_are_not_passed_on() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let before = broker.emulator.calls().len();
    for effect in [Effect::MissingPlaintext, Effect::WrongKeyId, Effect::CorruptBody] {
        broker.emulator.inject(Fault::new(effect.clone()));
        let error =
            client.generate_data_key(GenerateDataKey::aes_256(&broker.key_arn)).await.expect_err("no sense");
        broker.emulator.clear_faults();
        assert_eq!(
            (error.code(), error.reason()),
            (Code::Unavailable, Some("KMS_UNAVAILABLE")),
            "{effect}: {error}"
        );
    }
    let answered = broker.emulator.calls().len() - before;
    let records = broker.stop().await;
    assert_eq!(records.kms.len(), answered, "KMS answered, so there is a KMS record");
    assert_eq!(records.outcomes()["Failed"], 3);
    let error_codes: Vec<_> = records.activity.iter().map(|record| record["errorCode"].as_str()).collect();
    assert_eq!(error_codes, [Some("KMSUnexpectedAnswer"); 3]);
}

#[tokio::test]
async fn each_answer_of_a_retried_call_is_a_record() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    broker.emulator.inject(Fault::throttling().on("GenerateDataKey").times(2));
    let key =
        client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect("the third attempt");
    let asked: Vec<String> = broker
        .emulator
        .calls()
        .into_iter()
        .filter(|call| call.operation == "GenerateDataKey")
        .map(|call| call.request_id)
        .collect();
    let records = broker.stop().await;
    assert_eq!(asked.len(), 3);
    let recorded: Vec<_> =
        records.kms.iter().map(|record| record["requestID"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(recorded, asked, "the records tell what the emulator's log tells");
    let codes: Vec<_> = records.kms.iter().map(|record| record["errorCode"].as_str()).collect();
    assert_eq!(codes, [Some("ThrottlingException"), Some("ThrottlingException"), None]);
    assert_eq!(key.provenance.kms_request_id, asked[2]);
    assert_eq!(records.kms[0]["userIdentity"]["accessKeyId"], "AKIATESTEXAMPLE00000");
}

#[tokio::test]
async fn policy_denies_before_kms_is_asked() {
    let policy =
        r#"permit(principal is Workload, action == Action::"Decrypt", resource in Alias::"alias/dev");"#;
    let broker = TestBroker::with(Setup { policy: policy.into(), ..Setup::default() }).await;
    let client = broker.client().await;
    let denied = [
        client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect_err("denied"),
        client.generate_data_key(GenerateDataKey::aes_256("alias/no-such-key")).await.expect_err("denied"),
        client.decrypt(Decrypt::new(vec![1])).await.expect_err("denied: no key named"),
        client.generate_random(1).await.expect_err("denied"),
        client.describe_key("alias/dev").await.expect_err("denied"),
    ];
    // But for what the alias means that the policy names, once a call may be permitted by it.
    let own = ["GetCallerIdentity", "DescribeKey"];
    assert_eq!(broker.emulator.calls().iter().filter(|call| !own.contains(&&*call.operation)).count(), 0);
    assert_eq!(broker.emulator.call_count("DescribeKey"), 1);
    let records = broker.stop().await;
    for (place, error) in denied.iter().enumerate() {
        assert_eq!((error.code(), error.reason()), (Code::PermissionDenied, Some("DENIED_BY_POLICY")));
        if place == 2 {
            assert!(
                error.message().contains("set key_id"),
                "the request alone tells this: {}",
                error.message()
            );
        } else {
            // A denied key and an unknown one read the same.
            let key = ["alias/dev", "alias/no-such-key", "", "", "alias/dev"][place];
            let (message, wanted) = (error.message(), format!(" with {key}, or there is no such key: ask"));
            assert!(message.contains(&wanted) || key.is_empty(), "{message}");
        }
        let record = records.activity_of(id(error));
        assert_eq!(record["additionalEventData"]["outcome"], "Denied");
        assert_eq!(record["errorCode"], "AccessDenied");
        assert!(record["requestParameters"].is_object(), "a denial is described as fully as a permit");
    }
    assert!(records.kms.is_empty());
}

#[tokio::test]
async fn insecure_tcp_callers_are_unknown_and_get_what_policy_says_of_the_unknown() {
    let setup = |policy: &str| Setup { policy: policy.into(), insecure_tcp: true, ..Setup::default() };
    for (policy, permitted) in
        [(support::ALL_WORKLOADS, false), ("permit(principal is Unknown, action, resource);", true)]
    {
        let broker = TestBroker::with(setup(policy)).await;
        let address = broker.tcp_address().expect("listens on TCP").to_string();
        let client = Client::insecure_tcp(&address).await.expect("connects");
        let answer = client.with_deadline(Duration::from_secs(5)).generate_random(8).await;
        assert_eq!(answer.is_ok(), permitted, "{policy}");
        let records = broker.stop().await;
        assert_eq!(records.activity[0]["userIdentity"]["type"], "Unknown");
        assert_eq!(records.activity[0]["userIdentity"]["details"]["transport"], "insecure_tcp");
        assert_eq!(records.activity[0]["sourceIPAddress"], "127.0.0.1");
    }
}
