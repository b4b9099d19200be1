//! Proves, with the real program: each KMS record names the session whose access key signed the very call, or the key alone until STS
//! tells; files, slow metadata services and other forms of time are taken as they come; no proxy sees a metadata service; a role for the
//! keys of another account is used for these alone; and a broker stops that would write under another account. (Renewals under load:
//! renewals.rs.)

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use key_broker_client::{Client, GenerateDataKey};
use kms_emulator::{Emulator, EmulatorConfig, KeySpec};
use rustix::process::Signal;
use serde_json::Value;
use support::Records;
use support::aws::{FakeAws, arn_of};
use support::process::Process;
use support::signing::write_key;
use tempfile::TempDir;
use tokio::net::TcpListener;

const ACCOUNT: &str = "111122223333";

/// A broker's directory, and the KMS and STS before which it is to run.
struct Place {
    emulator: Emulator,
    aws: FakeAws,
    dir: TempDir,
    config: PathBuf,
}

impl Place {
    async fn new(life: Duration, delay: Duration) -> Self {
        Self::before(EmulatorConfig::default(), life, delay).await
    }

    async fn before(config: EmulatorConfig, life: Duration, delay: Duration) -> Self {
        let emulator = Emulator::start(config).await.expect("the emulator starts");
        emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
        let aws = FakeAws::start(life, delay).await;
        let dir = tempfile::tempdir().expect("a directory");
        let config =
            support::process::write_config(dir.path(), &emulator.endpoint_url(), "[reuse]\nenabled = false");
        let text = std::fs::read_to_string(&config).expect("reads");
        let sts = format!("sts_endpoint_url = \"{}\"", aws.url);
        let old = format!("sts_endpoint_url = \"{}\"", emulator.endpoint_url());
        std::fs::write(&config, text.replace(&old, &sts)).expect("writes");
        Self { emulator, aws, dir, config }
    }

    /// Of an endpoint for containers, at a path of its own.
    fn container(&self) -> String {
        format!("{}/creds", self.aws.url)
    }

    async fn client(&self) -> Client {
        Client::unix(self.dir.path().join("broker.sock")).await.expect("the broker listens")
    }

    fn records(&self) -> Records {
        Records::read(&self.dir.path().join("journal"))
    }
}

async fn draw(client: &Client) {
    let drawn = client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await;
    drawn.expect("a renewal of credentials fails no call");
}

/// Waits until something holds, a minute at most.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1_200 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} never came to pass");
}

fn all(records: &Records) -> Vec<&Value> {
    records.kms.iter().chain(&records.resolved).collect()
}

fn text<'a>(record: &'a Value, name: &str) -> &'a str {
    record["userIdentity"][name].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_sts_is_silent_calls_go_on_and_the_trail_is_told_later() {
    let place = Place::new(Duration::from_secs(20), Duration::ZERO).await;
    let variables =
        [("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*place.container()), ("AWS_EC2_METADATA_DISABLED", "true")];
    let broker = Process::serve_with_variables(&place.config, &variables);
    broker.wait_for_log("\"serving\"");
    let client = place.client().await;
    draw(&client).await;
    place.aws.silence_sts(true);
    until("a warning", || broker.log().contains("have the access key alone")).await;
    draw(&client).await;
    place.aws.silence_sts(false);
    let reported = || place.records().activity.iter().any(|record| record["eventName"] == "ReportIdentity");
    until("a report", reported).await;
    draw(&client).await;
    broker.signal(Signal::TERM);
    assert!(broker.wait().success());
    let records = place.records();
    let (alone, named): (Vec<_>, Vec<_>) =
        all(&records).into_iter().partition(|record| record["userIdentity"]["arn"].is_null());
    let expected = serde_json::json!({ "type": "Unknown", "accessKeyId": text(alone[0], "accessKeyId") });
    assert!(alone.iter().all(|record| record["recipientAccountId"] == ACCOUNT));
    let without_invoker = |record: &Value| {
        let mut identity = record["userIdentity"].clone();
        identity.as_object_mut().expect("an object").remove("invokedBy");
        identity
    };
    assert_eq!(without_invoker(alone[0]), expected);
    for record in named {
        assert_eq!(text(record, "arn"), arn_of(ACCOUNT, text(record, "accessKeyId")));
    }
    let report =
        records.activity.iter().find(|record| record["eventName"] == "ReportIdentity").expect("a report");
    let identity = &report["additionalEventData"]["identity"];
    let key = identity["accessKeyId"].as_str().expect("text");
    assert_eq!(
        (key, identity["arn"].as_str()),
        (text(alone[0], "accessKeyId"), Some(&*arn_of(ACCOUNT, key)))
    );
}

/// Where the role is known from its configuration, STS need not tell the account before KMS is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_starts_while_sts_tells_nobody_who_it_is_and_the_trail_is_told_later() {
    let place = Place::new(Duration::from_hours(1), Duration::ZERO).await;
    let written = std::fs::read_to_string(&place.config).expect("reads");
    let role = "[kms]\nrole_arn = \"arn:aws:iam::111122223333:role/team/broker\"";
    std::fs::write(&place.config, written.replace("[kms]", role)).expect("writes");
    place.aws.silence_sts(true);
    let variables =
        [("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*place.container()), ("AWS_EC2_METADATA_DISABLED", "true")];
    let broker = Process::serve_with_variables(&place.config, &variables);
    until("it serves", || broker.log().contains("\"serving\"")).await;
    draw(&place.client().await).await;
    place.aws.silence_sts(false);
    let reported = || place.records().activity.iter().any(|record| record["eventName"] == "ReportIdentity");
    until("a report", reported).await;
    let records = place.records();
    let key = text(&records.kms[0], "accessKeyId");
    assert!(key.starts_with("ASIAROLE") && records.kms[0]["userIdentity"]["arn"].is_null());
    assert_eq!(records.kms[0]["recipientAccountId"], ACCOUNT);
    let report =
        records.activity.iter().find(|record| record["eventName"] == "ReportIdentity").expect("a report");
    let identity = &report["additionalEventData"]["identity"];
    assert_eq!(
        (identity["accessKeyId"].as_str(), identity["arn"].as_str()),
        (Some(key), Some(&*place.aws.session(key).0))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_whose_credentials_become_another_accounts_stops() {
    let place = Place::new(Duration::from_secs(4), Duration::ZERO).await;
    let variables =
        [("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*place.container()), ("AWS_EC2_METADATA_DISABLED", "true")];
    let broker = Process::serve_with_variables(&place.config, &variables);
    broker.wait_for_log("\"serving\"");
    draw(&place.client().await).await;
    place.aws.move_to("444455556666");
    until("a refusal", || broker.log().contains("444455556666")).await;
    assert!(!broker.wait().success());
    for record in all(&place.records()) {
        assert_eq!(text(record, "arn"), arn_of(ACCOUNT, text(record, "accessKeyId")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_another_account_are_asked_for_with_the_role_for_them_and_nobody_else_is_concerned() {
    const OTHER: &str = "444455556666";
    let config = EmulatorConfig { account_id: OTHER.into(), ..EmulatorConfig::default() };
    let place = Place::before(config, Duration::from_secs(3), Duration::ZERO).await;
    let key = place.emulator.ensure_key("alias/theirs", KeySpec::SymmetricDefault).expect("a key");
    write_key(place.dir.path());
    let written = std::fs::read_to_string(&place.config).expect("reads");
    let trail = "journal_dir = \"journal\"\nstore = { directory = \"trail\", bucket = \"logs\" }\nsigning = { pem_file = \"signing.pem\" }";
    let account = format!(
        "[[kms.account]]\naccount_id = \"{OTHER}\"\nrole_arn = \"arn:aws:iam::{OTHER}:role/team/keys\"\n[policy]"
    );
    let written = written.replace("journal_dir = \"journal\"", trail).replace("[policy]", &account);
    std::fs::write(&place.config, written).expect("writes");
    place.aws.let_roles_be_assumed(false);
    let variables =
        [("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*place.container()), ("AWS_EC2_METADATA_DISABLED", "true")];
    let broker = Process::serve_with_variables(&place.config, &variables);
    broker.wait_for_log("\"serving\"");
    let client = place.client().await;
    let draw = |key: &str| client.generate_data_key(GenerateDataKey::aes_256(key));
    for _ in 0..8 {
        let error = draw(&key).await.expect_err("there is no session of the role");
        assert_eq!(error.reason(), Some("BROKER_CREDENTIALS"), "{error}");
        assert!(error.retry_after().is_some());
    }
    // Others' circuit is closed.
    let own = format!("arn:aws:kms:us-west-2:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab");
    assert_eq!(draw(&own).await.expect_err("not this KMS's").reason(), Some("KMS_ACCESS_DENIED"));
    assert!(broker.log().contains("no AWS credentials for the keys of another account"));
    place.aws.let_roles_be_assumed(true);
    let theirs = format!("arn:aws:kms:us-west-2:{OTHER}:alias/theirs");
    for named in [&key, &theirs] {
        let mut drawn = Err(draw(named).await.err());
        for _ in 0..400 {
            if let Ok(()) = drawn {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            drawn = draw(named).await.map(drop).map_err(Some);
        }
        drawn.unwrap_or_else(|error| panic!("{named}: {error:?}"));
    }
    broker.signal(Signal::TERM);
    assert!(broker.wait().success());
    let calls = place.emulator.calls();
    for call in calls.iter().filter(|call| call.operation != "GetCallerIdentity" && call.error.is_none()) {
        assert!(call.access_key_id.starts_with("ASIAROLE"), "{call:?}");
    }
    let denied = calls.iter().find(|call| call.error.is_some()).expect("one");
    assert!(denied.access_key_id.starts_with("ASIASESSION"), "the broker's own, for its own account's keys");
    let records = support::trail::records(&place.dir.path().join("trail"));
    let by_role =
        all(&records).into_iter().filter(|record| text(record, "accessKeyId").starts_with("ASIAROLE"));
    for record in by_role {
        let key = text(record, "accessKeyId");
        assert_eq!(text(record, "arn"), format!("arn:aws:sts::{OTHER}:assumed-role/keys/{key}"));
        let issuer = &record["userIdentity"]["sessionContext"]["sessionIssuer"];
        assert_eq!(issuer["arn"], format!("arn:aws:iam::{OTHER}:role/team/keys"));
        assert_eq!(record["recipientAccountId"], ACCOUNT, "the trail is one account's");
    }
    support::site::Site::verify(&place.config);
}

fn write_credentials(path: &Path, access_key_id: &str) {
    let text = format!(
        "[default]\naws_access_key_id = {access_key_id}\naws_secret_access_key = s\naws_session_token = t\n"
    );
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("writes");
    std::fs::rename(&new, path).expect("renames");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credentials_file_is_read_again_when_it_changes() {
    let place = Place::new(Duration::from_hours(1), Duration::ZERO).await;
    let file = place.dir.path().join("credentials");
    write_credentials(&file, "ASIAFIRST");
    let variables = [
        ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().expect("text")),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    let broker = Process::serve_with_variables(&place.config, &variables);
    broker.wait_for_log("\"serving\"");
    let client = place.client().await;
    draw(&client).await;
    write_credentials(&file, "ASIASECOND");
    until("the second key", || broker.log().contains("ASIASECOND")).await;
    draw(&client).await;
    let records = place.records();
    let keys: Vec<_> = records.kms.iter().map(|record| text(record, "accessKeyId")).collect();
    assert_eq!(keys, ["ASIAFIRST", "ASIASECOND"]);
    assert_eq!(text(&records.kms[1], "arn"), arn_of(ACCOUNT, "ASIASECOND"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_metadata_service_is_waited_for_and_no_proxy_sees_it() {
    let place = Place::new(Duration::from_hours(1), Duration::from_millis(1_300)).await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let proxy_url = format!("http://{}", proxy.local_addr().expect("an address"));
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while proxy.accept().await.is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let variables = [
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &*place.aws.url),
        ("HTTP_PROXY", &*proxy_url),
        ("HTTPS_PROXY", &*proxy_url),
        ("ALL_PROXY", &*proxy_url),
    ];
    let broker = Process::serve_with_variables(&place.config, &variables);
    broker.wait_for_log("\"serving\"");
    draw(&place.client().await).await;
    assert_eq!(asked.load(Ordering::SeqCst), 0, "loopback and metadata services are asked without a proxy");
    assert!(place.emulator.call_count("GenerateDataKey") >= 1);
}
