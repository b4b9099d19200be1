//! Proves: draws and decrypts with a multi-Region key go on while the broker's own region is stopped, throttles, hangs or is slow; each
//! record and span names the region that answered, and its replica; no region is asked for more than is its due, and none for a key
//! that is not there. To policy, partition, bounds and verification it is one key, whichever replica answered.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use key_broker::{BreakerSettings, GuardSettings, Match, Rule};
use key_broker_client::{Client, Decrypt, Error, GenerateDataKey};
use key_broker_core::Bounds;
use kms_emulator::{Effect, Emulator, EmulatorConfig, Fault};
use rustix::process::Signal;
use support::process::{Process, binary};
use support::site::Site;
use support::{Records, Setup, TestBroker, eventually, reuse, rule};
use tonic::Code;

const EAST: &str = "us-east-1";
const ALIAS: &str = "alias/global";
const PATIENCE: Duration = Duration::from_millis(400);
const OPEN: Duration = Duration::from_secs(30);

/// A broker in us-west-2, and a replica of its key in us-east-1.
struct World {
    broker: TestBroker,
    east: Emulator,
    client: Client,
    primary: String,
    replica: String,
}

async fn region(name: &str) -> Emulator {
    let config = EmulatorConfig { region: name.into(), ..EmulatorConfig::default() };
    Emulator::start(config).await.expect("starts")
}

impl World {
    async fn new(setup: Setup) -> Self {
        Self::with_patience(PATIENCE, setup).await
    }

    async fn with_patience(patience: Duration, setup: Setup) -> Self {
        let east = region(EAST).await;
        let breaker = BreakerSettings { failures: 3, open: OPEN, longest_open: OPEN };
        let broker = TestBroker::with(Setup {
            attempt_timeout: patience,
            guard: GuardSettings { breaker, fair_time: patience, ..support::guard() },
            fallbacks: BTreeMap::from([(EAST.into(), east.endpoint_url())]),
            ..setup
        })
        .await;
        let primary = broker.emulator.ensure_multi_region_key(ALIAS).expect("a key");
        let replica = broker.emulator.replicate_key(&primary, &east).expect("a replica");
        let client = broker.client().await;
        Self { broker, east, client, primary, replica }
    }

    fn home(&self) -> &Emulator {
        &self.broker.emulator
    }

    async fn draw(&self, key: &str) -> Result<key_broker_client::DataKey, Error> {
        self.client.generate_data_key(GenerateDataKey::aes_256(key)).await
    }
}

/// The KMS records of a region.
fn of_region<'a>(records: &'a Records, region: &str) -> Vec<&'a serde_json::Value> {
    records.kms.iter().filter(|record| record["awsRegion"] == region).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draws_and_decrypts_go_on_whatever_ails_the_region_and_records_name_the_one_that_answered() {
    let troubles = [
        ("stopped", Effect::Close),
        ("throttles", Effect::Error("ThrottlingException".into())),
        ("fails", Effect::Error("KMSInternalException".into())),
        ("hangs", Effect::Hang),
        ("is slow", Effect::Latency(3 * PATIENCE)),
    ];
    for (what, effect) in troubles {
        let world = World::new(Setup::default()).await;
        let early = world.draw(ALIAS).await.expect("all is well");
        assert_eq!((&early.key_id, world.east.calls().len()), (&world.primary, 0), "nobody asks elsewhere");
        let throttles = matches!(effect, Effect::Error(ref code) if code.starts_with("Throttling"));
        world.home().inject(Fault::new(effect));
        world.home().clear_calls();
        for turn in 0..10 {
            let named = [ALIAS, &world.primary, &world.replica][turn % 3];
            let key = world.draw(named).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(key.key_id, world.primary, "one key has one name");
            let again = Decrypt::new(key.ciphertext_blob).key_id(named);
            let plaintext = world.client.decrypt(again).await.expect(what).plaintext;
            assert_eq!(plaintext.expose(), key.plaintext.expose());
        }
        let old = Decrypt::new(early.ciphertext_blob.clone()).key_id(ALIAS);
        let plaintext = world.client.decrypt(old).await.expect(what).plaintext;
        assert_eq!(plaintext.expose(), early.plaintext.expose(), "of before");

        let asked_home = world.home().calls().len();
        // One question a call, which is no retry; or until the circuit opens.
        assert_eq!(asked_home, if throttles { 21 } else { 3 }, "{what}");
        assert_eq!(world.east.calls().len(), 21, "{what}");
        let World { broker, east, primary, replica, .. } = world;
        let records = broker.stop().await;
        let answered = of_region(&records, EAST);
        assert_eq!(answered.len(), 21, "{what}");
        for record in answered {
            assert_eq!(record["resources"][0]["ARN"], *replica);
            assert_eq!(record["requestParameters"]["keyId"], *replica);
            let id = record["requestID"].as_str();
            assert!(east.calls().iter().any(|call| Some(&*call.request_id) == id));
        }
        let unanswered =
            of_region(&records, "us-west-2").into_iter().filter(|call| !call["errorCode"].is_null());
        for record in unanswered {
            assert_eq!(
                record["requestParameters"]["keyId"], *primary,
                "each region is asked for its own replica"
            );
        }
        for record in &records.activity {
            assert_eq!(record["additionalEventData"]["outcome"], "Allowed");
            assert_eq!(record["resources"][0]["ARN"], *primary);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hasty_caller_is_answered_by_the_other_region_within_its_deadline() {
    let world = World::new(Setup::default()).await;
    world.home().inject(Fault::new(Effect::Hang));
    let hasty = world.client.clone().with_deadline(Duration::from_millis(600));
    // Half of its time goes to the region that hangs.
    let key = hasty.generate_data_key(GenerateDataKey::aes_256(&world.primary)).await.expect("answered");
    assert_eq!(key.key_id, world.primary);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_other_key_is_asked_for_in_its_region_only() {
    let world = World::new(Setup::default()).await;
    let single = world.broker.key_arn.clone();
    let key = world.draw("alias/dev").await.expect("all is well");
    world.home().inject(Fault::new(Effect::Close));
    for named in ["alias/dev", &*single] {
        let error = world.draw(named).await.expect_err("its region is down");
        assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("KMS_UNAVAILABLE")));
    }
    let blob = || Decrypt::new(key.ciphertext_blob.clone());
    for decrypt in [blob().key_id(&single), blob()] {
        let error = world.client.decrypt(decrypt).await.expect_err("its region is down");
        assert_eq!(
            error.code(),
            Code::Unavailable,
            "a ciphertext whose key nobody names stays in its region"
        );
    }
    world.client.generate_random(8).await.expect_err("of no key");
    world.client.describe_key(&*world.primary).await.expect_err("a question about the key in this region");
    assert_eq!(world.east.calls(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_refuses_says_nothing_about_the_key() {
    let world = World::new(Setup { reuse: reuse(rule()), ..Setup::default() }).await;
    let kept = world.draw(&world.primary).await.expect("all is well");
    world.east.set_enabled(&world.replica, false).expect("known");
    world.home().inject(Fault::throttling());
    let fresh = || GenerateDataKey::aes_256(&world.primary).fresh();
    let error = world.client.generate_data_key(fresh()).await.expect_err("the replica is disabled");
    assert_eq!(error.reason(), Some("KMS_THROTTLED"), "what its own region said");
    assert!(error.retry_after().is_some());
    let still = world.draw(&world.primary).await.expect("kept");
    assert_eq!(still.plaintext.expose(), kept.plaintext.expose(), "nothing is dropped for it");
    world.home().clear_faults();
    world.client.generate_data_key(fresh()).await.expect("its own region answers again");
    // A ciphertext is the same everywhere, and so is what is wrong with it.
    world.east.set_enabled(&world.replica, true).expect("known");
    world.home().inject(Fault::throttling());
    let spoilt = Decrypt::new(kept.ciphertext_blob.clone()).key_id(&world.primary).context("a", "b");
    let error = world.client.decrypt(spoilt).await.expect_err("another context");
    assert_eq!(error.reason(), Some("INVALID_CIPHERTEXT"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_region_has_a_circuit_and_the_broker_is_ready_while_one_is_closed() {
    let world = World::new(Setup::default()).await;
    world.home().inject(Fault::new(Effect::Close));
    for _ in 0..3 {
        world.draw(&world.primary).await.expect("the other region answers");
    }
    world.home().clear_calls();
    world.draw(&world.primary).await.expect("the other region answers");
    assert_eq!(world.home().calls(), [], "its circuit is open");
    assert!(world.client.is_serving().await.expect("answers"));
    world.east.inject(Fault::new(Effect::Close));
    for _ in 0..3 {
        let error = world.draw(&world.primary).await.expect_err("no region answers");
        assert_eq!(error.reason(), Some("KMS_UNAVAILABLE"));
    }
    world.east.clear_calls();
    world.draw(&world.primary).await.expect_err("no region is asked");
    assert_eq!((world.home().calls(), world.east.calls()), (vec![], vec![]));
    let client = world.client.clone();
    let (told, tell) = (Arc::new(Mutex::new(true)), tokio::runtime::Handle::current());
    let heard = Arc::clone(&told);
    tell.spawn(async move {
        while client.is_serving().await.expect("answers") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        *heard.lock().expect("whole") = false;
    });
    eventually("not ready", || !*told.lock().expect("whole")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_are_for_the_last_region_and_within_its_own_budget() {
    const CALLS: u64 = 60;
    // What a busy machine is late with is no throttling.
    let world = World::with_patience(Duration::from_secs(5), Setup::default()).await;
    world.home().inject(Fault::throttling());
    world.east.inject(Fault::throttling());
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..CALLS {
        let (client, key) = (world.client.clone(), world.primary.clone());
        calls.spawn(async move { client.generate_data_key(GenerateDataKey::aes_256(key)).await });
    }
    for result in calls.join_all().await {
        let error = result.expect_err("both throttle");
        assert_eq!(error.reason(), Some("KMS_THROTTLED"), "{error}");
    }
    assert_eq!(world.home().call_count("GenerateDataKey"), CALLS, "asked once for each call");
    let east = world.east.call_count("GenerateDataKey");
    assert!(east <= CALLS + 105, "{east}: 500 tokens, 5 for each retry");
}

/// A multi-Region key that is known before the broker starts: how an emulator is to be that has it, and its ARN.
async fn known_key(dir: &Path) -> (EmulatorConfig, String) {
    let config = EmulatorConfig { state_file: Some(dir.join("kms.json")), ..EmulatorConfig::default() };
    let emulator = Emulator::start(config.clone()).await.expect("starts");
    let arn = emulator.ensure_multi_region_key(ALIAS).expect("a key");
    emulator.shutdown().await;
    (config, arn)
}

fn in_east(arn: &str) -> String {
    arn.replace("us-west-2", EAST)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_policy_all_replicas_are_one_key() {
    for is_forbidden in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        let (emulator, arn) = known_key(dir.path()).await;
        let policy = if is_forbidden {
            format!(
                "permit(principal, action, resource);\nforbid(principal, action, resource == Key::\"{}\");",
                in_east(&arn)
            )
        } else {
            format!("permit(principal is Workload, action, resource == Key::\"{}\");", in_east(&arn))
        };
        let world = World::new(Setup { policy, emulator, ..Setup::default() }).await;
        let id = arn.rsplit('/').next().expect("an id");
        let mut blob = None;
        for named in [ALIAS, &*arn, &*in_east(&arn), id] {
            let drawn = world.draw(named).await;
            let code = drawn.as_ref().map(drop).map_err(Error::code);
            assert_eq!(code, if is_forbidden { Err(Code::PermissionDenied) } else { Ok(()) }, "{named}");
            blob = blob.or(drawn.ok().map(|key| key.ciphertext_blob));
        }
        if let Some(blob) = blob {
            let decrypt = Decrypt::new(blob).key_id(in_east(&arn));
            world.client.decrypt(decrypt).await.expect("permitted by the name of a replica");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_partitions_and_rules_all_replicas_are_one_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let (emulator, arn) = known_key(dir.path()).await;
    let mut rules = reuse(rule());
    let two = Rule { bounds: Bounds { max_messages: 2, ..rule().bounds }, ..rule() };
    rules.rules.push((Match { principal: None, key: Some(in_east(&arn)) }, two));
    let world = World::new(Setup { reuse: rules, emulator, ..Setup::default() }).await;
    let first = world.draw(&world.primary).await.expect("all is well");
    let second = world.draw(&world.replica).await.expect("kept");
    assert_eq!(second.plaintext.expose(), first.plaintext.expose(), "one partition");
    let third = world.draw(&world.primary).await.expect("another");
    assert_ne!(third.plaintext.expose(), first.plaintext.expose(), "by the rule for a replica");
    assert_eq!(world.home().call_count("GenerateDataKey"), 2);
    // What a replica made is kept, and served, as the key's.
    world.home().inject(Fault::new(Effect::Close));
    let tenant = |key: &str| GenerateDataKey::aes_256(key).context("tenant", "acme");
    let made =
        world.client.generate_data_key(tenant(&world.primary)).await.expect("the other region answers");
    let kept = world.client.generate_data_key(tenant(&world.replica)).await.expect("kept");
    assert_eq!(kept.plaintext.expose(), made.plaintext.expose());
    assert_eq!(world.east.call_count("GenerateDataKey"), 1);
}

/// Keeps what is posted to it.
fn collector() -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let kept = Arc::<Mutex<Vec<u8>>>::default();
    let keep = Arc::clone(&kept);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let keep = Arc::clone(&keep);
            std::thread::spawn(move || {
                let mut bytes = vec![0; 65_536];
                while let Ok(read @ 1..) = stream.read(&mut bytes) {
                    keep.lock().expect("whole").extend(&bytes[..read]);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                }
            });
        }
    });
    (url, kept)
}

/// The real program: its spans name the region, its trail is sound, and `check` tells of the regions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_name_the_region_the_trail_is_sound_and_check_tells_of_it() {
    let site = Site::new().await;
    let east = region(EAST).await;
    let primary = site.emulator.ensure_multi_region_key(ALIAS).expect("a key");
    let replica = site.emulator.replicate_key(&primary, &east).expect("a replica");
    let config = site.config("");
    let text = fs::read_to_string(&config).expect("reads");
    let regions = format!(
        "[kms]\nfallback_regions = [\"{EAST}\"]\nfallback_endpoint_urls = {{ {EAST} = \"{}\" }}",
        east.endpoint_url()
    );
    fs::write(&config, text.replace("[kms]", &regions)).expect("writes");
    let check = Command::new(binary())
        .args(["check", "--config"])
        .arg(&config)
        .args(["--key-id", ALIAS])
        .env("AWS_ACCESS_KEY_ID", "AKIATESTEXAMPLE00000")
        .env("AWS_SECRET_ACCESS_KEY", "test-only")
        .output()
        .expect("runs");
    let told = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(
        check.status.success() && told.contains("us-east-1 at 127.0.0.1, for multi-Region keys"),
        "{told}"
    );
    assert!(told.contains(&format!("may GenerateDataKey under {replica}")), "{told}");

    let (collector, spans) = collector();
    let mut command = Process::serve_command(&config);
    command.env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("{collector}/v1/traces"));
    command.env("OTEL_BSP_SCHEDULE_DELAY", "50");
    let broker = Process::serve_by(command, &config);
    let client = Client::unix(site.socket()).await.expect("listens");
    client.generate_data_key(GenerateDataKey::aes_256(&primary)).await.expect("all is well");
    let posted = |text: &str| {
        let spans = spans.lock().expect("whole");
        spans.windows(text.len()).any(|window| window == text.as_bytes())
    };
    eventually("spans of the first call", || posted("KMS.GenerateDataKey")).await;
    assert!(posted("us-west-2") && !posted(EAST));
    site.emulator.inject(Fault::throttling().on("GenerateDataKey"));
    let fresh = GenerateDataKey::aes_256(&primary).fresh();
    client.generate_data_key(fresh).await.expect("the other region answers");
    eventually("a span that names the region", || posted(EAST)).await;
    broker.signal(Signal::TERM);
    assert!(broker.wait().success());
    Site::verify(&config);
    let answered = site.delivered();
    assert!(answered.records.iter().any(|record| record["awsRegion"] == EAST));
}
