//! Proves, through real sockets: the operator sees what is kept and nothing secret; what is evicted is never served to a draw
//! that begins afterwards, not even where a KMS call was under way; each socket serves its own service; and nobody but root
//! and the broker's own user administers.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use key_broker::{Match, Rule, Rules};
use key_broker_client::{Client, DataKey, Decrypt, GenerateDataKey};
use key_broker_proto::admin::v1::admin_client::AdminClient;
use key_broker_proto::admin::v1::evict_request::Which;
use key_broker_proto::admin::v1::{
    Entry, EvictRequest, FlushRequest, ListEntriesRequest, ListEntriesResponse, StatusRequest,
};
use key_broker_proto::v1::key_broker_client::KeyBrokerClient;
use key_broker_proto::v1::{DescribeKeyRequest, GenerateRandomRequest};
use kms_emulator::{Fault, KeySpec};
use prost::Message;
use serde_json::json;
use support::process::Process;
use support::{Setup, TestBroker, eventually, reuse, rule};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_types::StatusExt;

type Admin = AdminClient<Channel>;

async fn broker() -> TestBroker {
    TestBroker::with(Setup { reuse: reuse(rule()), ..Setup::default() }).await
}

async fn channel(socket: &Path) -> Channel {
    let uri = format!("unix:{}", socket.display());
    Endpoint::from_shared(uri).expect("a URI").connect().await.expect("the broker listens")
}

async fn admin(broker: &TestBroker) -> Admin {
    AdminClient::new(channel(&broker.dir.path().join("admin.sock")).await)
}

async fn list(admin: &mut Admin, page_size: u32, page_token: &str) -> ListEntriesResponse {
    let request = ListEntriesRequest { page_size, page_token: page_token.into() };
    admin.list_entries(request).await.expect("a list").into_inner()
}

async fn evict(admin: &mut Admin, which: Which) -> u64 {
    admin.evict(EvictRequest { which: Some(which) }).await.expect("evicts").into_inner().evicted
}

async fn draw(client: &Client, key: &str) -> DataKey {
    client.generate_data_key(GenerateDataKey::aes_256(key)).await.expect("a data key")
}

fn me() -> String {
    format!("unix:uid/{}", rustix::process::geteuid().as_raw())
}

/// The ways to name what was drawn with `alias/dev` by this process.
fn all_ways(broker: &TestBroker) -> [Which; 5] {
    let id = broker.key_arn.rsplit('/').next().expect("an id").to_owned();
    [
        Which::KeyId(broker.key_arn.clone()),
        Which::KeyId(id),
        Which::KeyId("alias/dev".into()),
        Which::Principal(me()),
        Which::All(true),
    ]
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

#[tokio::test]
async fn a_list_shows_what_was_drawn_and_nothing_secret() {
    let broker = broker().await;
    let (client, mut admin) = (broker.client().await, admin(&broker).await);
    assert_eq!(list(&mut admin, 0, "").await, ListEntriesResponse::default());
    let request =
        || GenerateDataKey::aes_256("alias/dev").context("tenant", "CONTEXT-MARKER").declare_use(7, 1_000);
    client.generate_data_key(request()).await.expect("a data key");
    let key = client.generate_data_key(request()).await.expect("the same");
    let encrypted = GenerateDataKey::aes_128(&broker.key_arn);
    let encrypted = client.generate_data_key_without_plaintext(encrypted.into()).await.expect("a data key");
    let blob = key.ciphertext_blob.clone();
    let decrypted =
        client.decrypt(Decrypt::new(blob).context("tenant", "CONTEXT-MARKER")).await.expect("decrypts");

    let all = list(&mut admin, 0, "").await;
    let shown: Vec<_> = all.entries.iter().map(|entry| (&*entry.action, &*entry.key_id)).collect();
    assert_eq!(
        shown,
        [
            ("GenerateDataKey", "alias/dev"),
            ("GenerateDataKeyWithoutPlaintext", &*broker.key_arn),
            ("Decrypt", "")
        ]
    );
    for (entry, from) in
        all.entries.iter().zip([&key.provenance, &encrypted.provenance, &decrypted.provenance])
    {
        assert_eq!((&*entry.owner, entry.is_shared, &*entry.key_arn), (&*me(), false, &*broker.key_arn));
        assert_eq!(entry.kms_request_id, from.kms_request_id);
        assert_eq!(entry.kms_event_id, from.kms_event_id);
        assert_eq!(
            (entry.messages_used, entry.messages_limit, entry.bytes_used, entry.bytes_limit),
            (from.messages_used, from.messages_limit, from.bytes_used, from.bytes_limit)
        );
        let (minted, expires) = (entry.minted_at.expect("minted"), entry.expires_at.expect("expires"));
        assert!((295..=300).contains(&(expires.seconds - minted.seconds)), "five minutes from the call on");
    }
    assert_eq!((all.entries[0].messages_used, all.entries[0].bytes_used), (14, 2_000));

    let bytes = all.encode_to_vec();
    let holds = |secret: &[u8]| bytes.windows(8).any(|window| secret.windows(8).any(|part| part == window));
    assert!(holds(broker.key_arn.as_bytes()), "this would find it");
    for secret in [key.plaintext.expose(), &key.ciphertext_blob, &encrypted.ciphertext_blob] {
        assert!(!holds(secret), "key material in the list");
    }
    assert!(!holds(b"CONTEXT-MARKER"), "the encryption context in the list");

    let (mut paged, mut token) = (Vec::<Entry>::new(), String::new());
    for _ in 0..3 {
        let page = list(&mut admin, 1, &token).await;
        paged.extend(page.entries);
        token = page.next_page_token;
    }
    assert_eq!((paged, &*token), (all.entries, ""));
    let request = ListEntriesRequest { page_size: 1, page_token: "no token".into() };
    let refused = admin.list_entries(request).await.expect_err("refused");
    assert_eq!((refused.code(), &*reason(&refused)), (Code::InvalidArgument, "MALFORMED_REQUEST"));
    assert!(refused.metadata().contains_key("x-request-id"));
}

#[tokio::test]
async fn after_an_eviction_the_next_draw_is_a_new_call_to_kms() {
    let broker = broker().await;
    let (client, mut admin) = (broker.client().await, admin(&broker).await);
    for which in all_ways(&broker) {
        let before = draw(&client, "alias/dev").await;
        assert_eq!(
            draw(&client, "alias/dev").await.plaintext.expose(),
            before.plaintext.expose(),
            "it is kept"
        );
        let calls = broker.emulator.call_count("GenerateDataKey");
        assert_eq!(evict(&mut admin, which.clone()).await, 1, "{which:?}");
        let after = draw(&client, "alias/dev").await;
        assert_ne!(after.plaintext.expose(), before.plaintext.expose(), "{which:?}");
        assert!(!after.provenance.from_cache);
        assert_eq!(broker.emulator.call_count("GenerateDataKey"), calls + 1, "{which:?}");
    }
}

#[tokio::test]
async fn an_eviction_takes_what_it_names_and_nothing_else() {
    let shared = Rule { partition: Some(me()), ..rule() };
    let matches = Match { principal: None, key: Some("alias/shared".into()) };
    let rules = Rules { rules: vec![(matches, shared)], ..reuse(rule()) };
    let broker = TestBroker::with(Setup { reuse: rules, ..Setup::default() }).await;
    let other = broker.emulator.ensure_key("alias/other", KeySpec::SymmetricDefault).expect("a key");
    broker.emulator.ensure_key("alias/shared", KeySpec::SymmetricDefault).expect("a key");
    let (client, mut admin) = (broker.client().await, admin(&broker).await);
    for key in ["alias/dev", &*broker.key_arn, "alias/other", "alias/shared"] {
        let blob = draw(&client, key).await.ciphertext_blob;
        client.decrypt(Decrypt::new(blob).key_id(key)).await.expect("decrypts");
    }
    assert_eq!(list(&mut admin, 0, "").await.entries.iter().filter(|entry| entry.is_shared).count(), 2);
    for (which, evicted) in [
        (Which::KeyId("alias/nobody-asked".into()), 0),
        (Which::Principal("unix:uid/4294967294".into()), 0),
        // By the words of the caller: its other name stays.
        (Which::KeyId("alias/dev".into()), 2),
        (Which::KeyId(other), 2),
        // A partition with the name of a principal is not that principal's.
        (Which::Principal(me()), 2),
        (Which::All(true), 2),
    ] {
        assert_eq!(evict(&mut admin, which.clone()).await, evicted, "{which:?}");
    }
    for which in [
        None,
        Some(Which::All(false)),
        Some(Which::KeyId("no key".into())),
        Some(Which::Principal(String::new())),
    ] {
        let refused = admin.evict(EvictRequest { which }).await.expect_err("refused");
        assert_eq!((refused.code(), &*reason(&refused)), (Code::InvalidArgument, "MALFORMED_REQUEST"));
    }
    let long = Some(Which::Principal("x".repeat(600_000)));
    let refused = admin.evict(EvictRequest { which: long }).await.expect_err("refused");
    assert_eq!((refused.code(), &*reason(&refused)), (Code::InvalidArgument, "REQUEST_TOO_LARGE"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kms_was_asked_for_before_an_eviction_is_never_served() {
    for way in 0..5 {
        let broker = broker().await;
        let which = all_ways(&broker)[way].clone();
        let (client, mut admin) = (broker.client().await, admin(&broker).await);
        let early = asked(&broker, &client).await;
        // Nothing is kept yet.
        assert_eq!(evict(&mut admin, which.clone()).await, 0);
        broker.emulator.clear_faults();
        let late = draw(&client, "alias/dev").await;
        let early = early.await.expect("no panic");
        let calls = broker.emulator.calls();
        let first = calls.iter().find(|call| call.operation == "GenerateDataKey").expect("a call");
        let first = &*first.request_id;
        assert_ne!(late.provenance.kms_request_id, first, "{which:?}");
        assert_ne!(
            early.provenance.kms_request_id, first,
            "{which:?}: it waited still, so it gets the new one"
        );
        assert_eq!(broker.emulator.call_count("GenerateDataKey"), 2);
        assert_eq!(early.plaintext.expose(), late.plaintext.expose(), "one call for both");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eviction_of_another_key_leaves_alone_what_is_under_way() {
    let broker = broker().await;
    let other = broker.emulator.ensure_key("alias/other", KeySpec::SymmetricDefault).expect("a key");
    let (client, mut admin) = (broker.client().await, admin(&broker).await);
    let early = asked(&broker, &client).await;
    evict(&mut admin, Which::KeyId(other)).await;
    evict(&mut admin, Which::KeyId("alias/other".into())).await;
    let early = early.await.expect("no panic");
    assert_eq!(draw(&client, "alias/dev").await.plaintext.expose(), early.plaintext.expose());
    assert_eq!(broker.emulator.call_count("GenerateDataKey"), 1);
}

/// A draw whose KMS call is under way, and stays so for a second.
async fn asked(broker: &TestBroker, client: &Client) -> tokio::task::JoinHandle<DataKey> {
    broker.emulator.inject(Fault::latency(Duration::from_secs(1)).on("GenerateDataKey"));
    let client = client.clone();
    let early = tokio::spawn(async move { draw(&client, "alias/dev").await });
    eventually("KMS is asked", || broker.emulator.call_count("GenerateDataKey") == 1).await;
    early
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_no_draw_after_an_eviction_gets_an_older_key() {
    let broker = broker().await;
    let (client, mut admin) = (broker.client().await, admin(&broker).await);
    broker.emulator.inject(Fault::latency(Duration::from_millis(5)).on("GenerateDataKey"));
    for round in 0..50 {
        let ways = all_ways(&broker);
        evict(&mut admin, Which::All(true)).await;
        let load: Vec<_> = (0..8)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { draw(&client, "alias/dev").await.provenance.kms_request_id })
            })
            .collect();
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(Duration::from_millis(round % 7)).await;
        }
        // Whatever KMS has been asked for by now is forbidden to the next draw.
        let asked = broker.emulator.call_count("GenerateDataKey");
        evict(&mut admin, ways[usize::try_from(round % 5).expect("small")].clone()).await;
        let next = draw(&client, "alias/dev").await.provenance.kms_request_id;
        for drawn in load {
            drawn.await.expect("no panic");
        }
        // In the order in which KMS was asked: records of calls that are answered together may come in another one.
        let calls = broker.emulator.calls();
        let mut draws = calls.iter().filter(|call| call.operation == "GenerateDataKey");
        let place = draws.position(|call| call.request_id == *next).expect("KMS was asked for it");
        assert!(place as u64 >= asked, "round {round}: an evicted key is served");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_counts_and_answers_while_the_broker_drains() {
    let broker = broker().await;
    let (client, mut admin) = (broker.client().await, admin(&broker).await);
    for _ in 0..5 {
        draw(&client, "alias/dev").await;
    }
    client.generate_data_key(GenerateDataKey::aes_256("alias/dev").fresh()).await.expect("a data key");
    let status = admin.status(StatusRequest {}).await.expect("a status").into_inner();
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
    assert!(status.started_at.is_some_and(|at| at.seconds > 1_700_000_000));
    assert_eq!((status.entries, status.uses_from_cache, status.kms_calls, status.evictions), (1, 4, 2, 0));
    assert_eq!((status.calls_in_flight, status.journal_healthy, status.draining), (0, true, false));

    evict(&mut admin, Which::All(true)).await;
    broker.emulator.inject(Fault::latency(Duration::from_secs(1)).on("GenerateRandom"));
    let in_flight = tokio::spawn(async move { client.generate_random(8).await });
    eventually("KMS is asked", || broker.emulator.call_count("GenerateRandom") == 1).await;
    broker.start_drain();
    let status = admin.status(StatusRequest {}).await.expect("a status").into_inner();
    assert_eq!((status.entries, status.evictions), (0, 1));
    assert_eq!((status.calls_in_flight, status.draining), (1, true));
    in_flight.await.expect("no panic").expect("a call in flight is finished");
    let records = broker.stop().await;
    let (of_operators, of_workloads): (Vec<_>, Vec<_>) =
        records.activity.iter().partition(|record| record["eventName"] == "Evict");
    assert_eq!((of_operators.len(), of_workloads.len()), (1, 7), "to ask how it is leaves no record");
    let evicted = of_operators[0];
    assert_eq!(
        evicted["additionalEventData"]["operator"],
        json!({ "target": "all", "evicted": 1 }),
        "{evicted}"
    );
    assert_eq!(evicted["userIdentity"]["details"]["pid"], std::process::id(), "{evicted}");
    assert_eq!(evicted["userIdentity"]["principalId"], me(), "{evicted}");
}

#[tokio::test]
async fn without_a_trail_there_is_nothing_to_flush() {
    let broker = broker().await;
    let refused = admin(&broker).await.flush(FlushRequest {}).await.expect_err("refused");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "NO_TRAIL"));
}

#[tokio::test]
async fn each_socket_serves_its_own_service_and_health() {
    let broker = broker().await;
    let (workload, operator) = (broker.channel().await, channel(&broker.dir.path().join("admin.sock")).await);
    let mut wrong = AdminClient::new(workload.clone());
    for refused in [
        wrong.list_entries(ListEntriesRequest::default()).await.expect_err("refused"),
        wrong.evict(EvictRequest { which: Some(Which::All(true)) }).await.expect_err("refused"),
        wrong.status(StatusRequest {}).await.expect_err("refused"),
        wrong.flush(FlushRequest {}).await.expect_err("refused"),
    ] {
        assert_eq!(refused.code(), Code::Unimplemented);
    }
    let mut wrong = KeyBrokerClient::new(operator.clone());
    for refused in [
        wrong
            .generate_random(GenerateRandomRequest { number_of_bytes: 8, recipient: None })
            .await
            .expect_err("refused")
            .code(),
        wrong
            .describe_key(DescribeKeyRequest { key_id: "alias/dev".into() })
            .await
            .expect_err("refused")
            .code(),
    ] {
        assert_eq!(refused, Code::Unimplemented);
    }
    for channel in [workload, operator] {
        HealthClient::new(channel).check(HealthCheckRequest::default()).await.expect("health");
    }
    assert_eq!(broker.stop().await.activity.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(capability = "setuid"), ignore = "needs root: CAP_SETUID, to become other users")]
async fn another_user_is_refused_even_if_it_may_open_the_socket() {
    let broker = TestBroker::with(Setup { admin_mode: 0o666, ..Setup::default() }).await;
    fs::set_permissions(broker.dir.path(), fs::Permissions::from_mode(0o711)).expect("a mode");
    let child = |uid: u32| {
        // Its own path may lead through directories that are closed to other users.
        let mut command = Command::new("/proc/self/exe");
        command.args(["--exact", "a_child_of_another_user", "--nocapture"]);
        command.env(CHILD_SOCKET, broker.dir.path().join("admin.sock")).current_dir("/").uid(uid).gid(uid);
        tokio::task::spawn_blocking(move || {
            let output = command.output().expect("the child runs");
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    };
    let refused = child(65_534).await.expect("no panic");
    let expected =
        "PermissionDenied NOT_AN_ADMINISTRATOR user 65534 may not administer this broker: run as root";
    assert!(refused.contains(expected), "{refused}");
    let admitted = child(0).await.expect("no panic");
    assert!(admitted.contains("admitted"), "{admitted}");
    let records = broker.stop().await.activity;
    let told: Vec<_> = records
        .iter()
        .map(|record| {
            let uid = record["userIdentity"]["details"]["uid"].as_u64();
            (record["eventName"].as_str(), uid, record["additionalEventData"]["outcome"].as_str())
        })
        .collect();
    let (name, denied, allowed) = (Some("ListEntries"), Some("Denied"), Some("Allowed"));
    assert_eq!(told, [(name, Some(65_534), denied), (name, Some(0), allowed)]);
}

#[tokio::test]
async fn a_child_of_another_user() {
    // Does something only where the test above starts it.
    let Some(socket) = std::env::var_os(CHILD_SOCKET) else { return };
    let mut admin = AdminClient::new(channel(Path::new(&socket)).await);
    match admin.list_entries(ListEntriesRequest::default()).await {
        Ok(_) => println!("admitted"),
        Err(status) => println!("{:?} {} {}", status.code(), reason(&status), status.message()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_says_who_evicted_what() {
    let dir = tempfile::tempdir().expect("a directory");
    let dev = Process::dev(dir.path());
    let facts = fs::read_to_string(dir.path().join("dev.json")).expect("dev writes it");
    let facts: serde_json::Value = serde_json::from_str(&facts).expect("JSON");
    let socket = facts["admin"].as_str().expect("a path");
    assert_eq!(fs::metadata(socket).expect("it is there").permissions().mode() & 0o777, 0o600);
    let client = Client::unix(dir.path().join("broker.sock")).await.expect("listens");
    let key = draw(&client, "alias/dev").await;
    let mut admin = AdminClient::new(channel(Path::new(socket)).await);
    let request = EvictRequest { which: Some(Which::KeyId("alias/dev".into())) };
    let reply = admin.evict(request).await.expect("evicts");
    let request_id = reply.metadata().get("x-request-id").expect("an id").to_str().expect("text");
    dev.wait_for_log(request_id);
    let log = dev.log();
    let line = log.lines().find(|line| line.contains(request_id)).expect("a line");
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
    assert_eq!((&line["level"], &line["message"]), (&"INFO".into(), &"evicted".into()));
    assert_eq!((&line["what"], &line["evicted"]), (&"alias/dev".into(), &1.into()));
    assert_eq!(line["uid"], rustix::process::geteuid().as_raw());
    assert_eq!(line["pid"], std::process::id());
    assert!(!log.contains(&hex::encode(key.plaintext.expose())));
}

const CHILD_SOCKET: &str = "KEY_BROKER_TEST_ADMIN_SOCKET";

/// Reflection lists what is served on the socket that is asked, and knows the details that errors come with.
#[tokio::test]
async fn reflection_lists_what_a_socket_serves_and_knows_errors() {
    let broker = broker().await;
    let standard = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ];
    for (socket, own) in
        [("broker.sock", "keybroker.v1.KeyBroker"), ("admin.sock", "keybroker.admin.v1.Admin")]
    {
        let mut client = ServerReflectionClient::new(channel(&broker.dir.path().join(socket)).await);
        let ask = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
        let questions = [
            ask(MessageRequest::ListServices(String::new())),
            ask(MessageRequest::FileContainingSymbol("google.rpc.ErrorInfo".into())),
            ask(MessageRequest::FileContainingSymbol("google.rpc.RetryInfo".into())),
        ];
        let answers = client.server_reflection_info(stream(questions)).await.expect("answers");
        let mut answers = answers.into_inner();
        let mut next = async || answers.message().await.expect("goes on").expect("one each").message_response;
        let Some(MessageResponse::ListServicesResponse(list)) = next().await else { panic!("no list") };
        let mut listed: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
        listed.sort();
        let mut expected: Vec<_> =
            standard.iter().map(|name| (*name).to_owned()).chain([own.to_owned()]).collect();
        expected.sort();
        assert_eq!(listed, expected, "{socket}");
        for _ in 0..2 {
            let answer = next().await;
            assert!(matches!(answer, Some(MessageResponse::FileDescriptorResponse(_))), "{answer:?}");
        }
    }
    broker.stop().await;
}

fn stream<T: Send + 'static, const N: usize>(
    messages: [T; N],
) -> impl futures_util::Stream<Item = T> + Send + 'static {
    futures_util::stream::iter(messages)
}
