//! Proves, with the real program: brokers with one configuration have a trail each, which begins before the first call and says when it
//! ends. However they end, and whatever their store does meanwhile, an auditor who has the bucket alone is told of each what it
//! vouches for, and of none more.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use key_broker_client::{Client, DecryptMessage, EncryptMessage, Error, GenerateDataKey};
use key_broker_envelope::HeaderReader;
use kms_emulator::{Emulator, EmulatorConfig, Fault, KeySpec};
use rustix::process::Signal;
use serde_json::Value;
use support::dev_folder::{command, text};
use support::process::{Process, write_config};
use support::signing::write_key;
use support::trail::{BUCKET, objects};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_with_one_configuration_that_drain_at_once_have_a_closed_and_sound_trail_each() {
    let fleet = Fleet::new().await;
    let mut brokers = Vec::new();
    for place in 0..brokers_of_this_run() {
        let broker = fleet.start(place);
        fleet.call(place, 3).await;
        brokers.push(broker);
    }
    for broker in &brokers {
        broker.signal(Signal::TERM);
    }
    for broker in brokers {
        assert!(broker.wait().success());
    }
    let trails = fleet.trails();
    assert_eq!(trails.len(), brokers_of_this_run(), "{trails:?}");
    let closing =
        fleet.digests().iter().filter(|digest| digest["keyBroker"]["position"] == "closing").count();
    assert_eq!(closing, brokers_of_this_run());
    let page = fleet.dir.path().join("verdict.html");
    let (code, lines) = fleet.audit("verify", &["--json", "--all-trails", "--html", path(&page)]);
    let page = fs::read_to_string(page).expect("a page");
    assert!(page.contains("<h1>Sound</h1>") && page.matches("<tr>").count() == trails.len() + 1, "{page}");
    let mut judged: Vec<&str> = lines.iter().filter_map(|line| line["trail"].as_str()).collect();
    judged.sort_unstable();
    assert_eq!((code, judged), (Some(0), trails.iter().map(String::as_str).collect()), "{lines:#?}");
    for report in lines.iter().filter_map(|line| line.get("report")) {
        let found = (report["verdict"].as_str(), report["state"].as_str());
        assert_eq!(found, (Some("sound"), Some("closed")), "{report:#}");
        assert!(report["records"].as_u64() >= Some(6), "{report:#}");
    }
    let bucket = &lines.last().expect("a line")["bucket"];
    let all = brokers_of_this_run();
    assert_eq!(
        (&bucket["verdict"], &bucket["trails"]["sound"]),
        (&"sound".into(), &all.into()),
        "{bucket:#}"
    );
    assert_eq!(bucket["states"]["closed"], all, "{bucket:#}");

    let (code, lines) = fleet.audit("trails", &["--json"]);
    let pods: BTreeSet<&str> = lines.iter().filter_map(|line| line["pod"].as_str()).collect();
    assert_eq!((code, lines.len(), pods.len()), (Some(0), all, all), "{lines:#?}");

    // A run that notes what it has found sound goes on where it was killed, and says the same; another file than its own is refused.
    let resume = fleet.dir.path().join("verified.jsonl");
    let noting = ["--json", "--all-trails", "--resume", path(&resume)];
    let (code, first) = fleet.audit("verify", &noting);
    let noted = fs::read_to_string(&resume).expect("notes");
    assert_eq!((code, noted.lines().count()), (Some(0), all), "{noted}");
    let half = noted.lines().take(all / 2).collect::<Vec<_>>().join("\n") + "\n{\"trailArn\":\"arn:aw";
    fs::write(&resume, half).expect("writes");
    let (code, again) = fleet.audit("verify", &noting);
    let in_order = |mut lines: Vec<Value>| {
        lines.sort_by_key(ToString::to_string);
        lines
    };
    assert_eq!((code, in_order(again)), (Some(0), in_order(first)));
    assert_eq!(fs::read_to_string(&resume).expect("notes").lines().count(), all);
    fs::write(&resume, "{}\n").expect("writes");
    let refused = fleet.said("verify", &noting);
    assert_eq!(refused.status.code(), Some(64), "{}", text(&refused.stderr));
    fs::remove_file(&resume).expect("removes");

    // One log file is gone: that trail is no longer sound, and all others are.
    let removed = objects(&fleet.store()).into_iter().find(|(key, _)| !key.contains("Digest"));
    fs::remove_file(removed.expect("a log file").1).expect("removes");
    let (code, lines) = fleet.audit("verify", &["--json", "--all-trails"]);
    let bucket = &lines.last().expect("a line")["bucket"];
    assert_eq!((code, &bucket["verdict"]), (Some(1), &"unsound".into()), "{bucket:#}");
    assert_eq!((&bucket["trails"]["sound"], &bucket["trails"]["unsound"]), (&(all - 1).into(), &1.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_whose_volume_is_lost_leaves_an_open_trail_and_the_next_one_is_another() {
    let fleet = Fleet::new().await;
    let broker = fleet.start(0);
    fleet.call(0, 2).await;
    tokio::task::spawn_blocking(move || broker.kill()).await.expect("killed");
    fs::remove_dir_all(fleet.journal(0)).expect("the volume is lost");
    let lost = fleet.trails();

    let broker = fleet.start(0);
    fleet.call(0, 2).await;
    broker.signal(Signal::TERM);
    assert!(broker.wait().success());
    let trails = fleet.trails();
    assert_eq!((lost.len(), trails.len()), (1, 2));
    for trail in trails {
        let (code, report) = fleet.verify(&trail);
        assert_eq!((code, &report["verdict"]), (Some(0), &"sound".into()), "{report:#}");
        let state = if lost.contains(&trail) { "open" } else { "closed" };
        assert_eq!(report["state"], state, "{report:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_brokers_journal_is_delivered_under_its_own_name() {
    let fleet = Fleet::new().await;
    let broker = fleet.start(0);
    fleet.call(0, 2).await;
    // Somebody who is alive writes there.
    let refused = fleet.deliver(0);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
    assert!(
        text(&refused.stderr).contains("another process writes the journal"),
        "{}",
        text(&refused.stderr)
    );
    tokio::task::spawn_blocking(move || broker.kill()).await.expect("killed");
    let delivered = fleet.deliver(0);
    assert_eq!(delivered.status.code(), Some(0), "{}", text(&delivered.stderr));
    let trails = fleet.trails();
    assert_eq!(trails.len(), 1);
    let (code, report) = fleet.verify(&trails[0]);
    assert_eq!((code, &report["state"]), (Some(0), &"closed".into()), "{report:#}");
    assert!(report["activityRecords"].as_u64() >= Some(4), "two calls, the start and the end: {report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_down_at_the_drain_leaves_a_trail_that_is_known_and_an_exit_code() {
    let fleet = Fleet::new().await;
    let broker = fleet.start_with(0, "[limits]\ndrain_seconds = 1\n");
    fleet.call(0, 2).await;
    let bucket = fleet.store().join(BUCKET);
    let aside = fleet.dir.path().join("aside");
    fs::rename(&bucket, &aside).expect("it goes down");
    fs::write(&bucket, "not a directory").expect("writes");
    broker.signal(Signal::TERM);
    let log = fleet.dir.path().join("0/log");
    let code = tokio::task::spawn_blocking(move || broker.wait().code()).await.expect("waits");
    assert_eq!(code, Some(75));
    let log = fs::read_to_string(log).expect("a log");
    let last = log.lines().last().expect("a line");
    assert!(last.contains("are not delivered"), "{last}");
    fs::remove_file(&bucket).expect("removes");
    fs::rename(&aside, &bucket).expect("it is back");
    let trails = fleet.trails();
    assert_eq!(trails.len(), 1, "its first digest was there before the first call");
    let opening = &fleet.digests()[0];
    assert_eq!(opening["keyBroker"]["position"], "opening");
    assert!(
        opening["keyBroker"]["origin"]["host"].as_str().is_some_and(|host| !host.is_empty()),
        "{opening:#}"
    );
    assert_eq!(opening["keyBroker"]["origin"]["pod"], "orders-0");
}

/// Until the store knows of a trail, gRPC's health answers, as HTTP's does, that the broker is alive and not ready; a call waits, within its own
/// deadline, and is recorded as any other. Afterwards a start needs neither store nor STS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_served_before_the_store_knows_of_the_trail_and_afterwards_without_store_and_sts() {
    let fleet = Fleet::new().await;
    let bucket = fleet.store().join(BUCKET);
    fs::create_dir_all(fleet.store()).expect("makes");
    fs::write(&bucket, "not a directory").expect("writes");
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let config = fleet.config(0, &format!("[telemetry]\nhttp = \"{port}\"\n"));
    let broker = Fleet::spawn(0, &config);
    broker.wait_for_log("its first digest is not delivered");
    let health = |more: &[&str]| Fleet::program(&[&["health", "--config", path(&config)], more].concat());
    let not_ready = health(&[]);
    assert_eq!(not_ready.status.code(), Some(1), "{}", text(&not_ready.stderr));
    assert!(text(&not_ready.stderr).contains("NOT_SERVING"), "{}", text(&not_ready.stderr));
    assert_eq!(health(&["--live"]).status.code(), Some(0), "it is alive");
    let client = Client::unix(fleet.socket(0)).await.expect("listens");
    let hasty = client.clone().with_deadline(Duration::from_millis(300));
    let late =
        hasty.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect_err("it waits in vain");
    assert_eq!(late.reason(), Some("DEADLINE_EXCEEDED"), "{late}");
    let client = client.with_deadline(Duration::from_mins(1));
    let waiting =
        tokio::spawn(async move { client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await });
    assert!(get(&port.to_string(), "/healthz").starts_with("HTTP/1.1 200"), "it is alive");
    let ready = get(&port.to_string(), "/readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("first digest"), "{ready}");
    fs::remove_file(&bucket).expect("the store is there");
    broker.wait_for_log("\"serving\"");
    waiting.await.expect("no panic").expect("a key, now");
    assert_eq!(health(&[]).status.code(), Some(0));
    fleet.call(0, 1).await;
    tokio::task::spawn_blocking(move || broker.kill()).await.expect("killed");

    fs::rename(&bucket, fleet.dir.path().join("aside")).expect("it goes down");
    fs::write(&bucket, "not a directory").expect("writes");
    fleet.emulator.inject(Fault::access_denied().on("GetCallerIdentity"));
    let broker = Fleet::spawn(0, &config);
    broker.wait_for_log("\"serving\"");
    fleet.call(0, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_brings_everything_into_the_store_and_is_recorded() {
    let fleet = Fleet::new().await;
    let broker = fleet.start(0);
    fleet.call(0, 2).await;
    let flushed = Fleet::program(&["flush", "--config", path(&fleet.dir.path().join("0/key-broker.toml"))]);
    assert_eq!(flushed.status.code(), Some(0), "{}", text(&flushed.stderr));
    let digest = text(&flushed.stdout);
    assert!(digest.starts_with("logs/AWSLogs/") && digest.contains("CloudTrail-Digest"), "{digest}");
    tokio::task::spawn_blocking(move || broker.kill()).await.expect("killed");
    fs::remove_dir_all(fleet.journal(0)).expect("the volume is lost");
    let (code, report) = fleet.verify(&fleet.trails()[0]);
    assert_eq!((code, &report["verdict"]), (Some(0), &"sound".into()), "{report:#}");
    let names = fleet.event_names();
    assert_eq!(names.iter().filter(|name| *name == "GenerateDataKey").count(), 4, "two calls: {names:?}");
    assert!(names.contains(&"StartBroker".to_owned()) && names.contains(&"Flush".to_owned()), "{names:?}");
}

/// What one broker encrypts the other decrypts, whole and in parts; the second is told to stop, and later killed, under this load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_pass_between_two_brokers_while_one_of_them_is_restarted() {
    let fleet = Fleet::new().await;
    let [first, second] = [0, 1].map(|place| fleet.start_reusing(place));
    let (callers, stop) = fleet.exchange(4);
    tokio::time::sleep(BETWEEN).await;
    let second = fleet.restarted(second, |broker| {
        broker.signal(Signal::TERM);
        assert!(broker.wait().success());
    });
    tokio::time::sleep(BETWEEN).await;
    let second = fleet.restarted(second, Process::kill);
    tokio::time::sleep(BETWEEN).await;
    stop.cancel();
    let mut messages = Vec::new();
    for caller in callers {
        messages.extend(caller.await.expect("every call is answered"));
    }
    assert!(messages.len() > 50, "{} messages are too few to prove anything", messages.len());
    // Also by the broker that had been killed, long after.
    for place in [0, 1] {
        let mut broker = fleet.caller(place);
        for Exchanged { message, length } in &messages {
            assert!(broker.decrypt(message).await == plaintext(*length), "at {place}, {length} bytes");
        }
    }
    for broker in [first, second] {
        broker.signal(Signal::TERM);
        assert!(broker.wait().success());
    }
    let trails = fleet.trails();
    assert_eq!(trails.len(), 2);
    for trail in &trails {
        let (code, report) = fleet.verify(trail);
        let found = (code, report["verdict"].as_str(), report["state"].as_str());
        assert_eq!(found, (Some(0), Some("sound"), Some("closed")), "{report:#}");
    }
    // One record of the encryption, and three of decryptions: one was under way, two were after it.
    let recorded = fleet.messages_recorded();
    for Exchanged { message, length } in &messages {
        let [encrypted, decrypted] = recorded[&header_of(message)];
        assert!(encrypted >= 1 && decrypted >= 3, "{length} bytes: {encrypted} and {decrypted} records");
    }
}

/// A message that one broker encrypted and another decrypted.
struct Exchanged {
    message: Bytes,
    /// Of its plaintext.
    length: usize,
}

/// Somebody who calls a broker, and again if it is away.
struct Caller {
    socket: PathBuf,
    client: Option<Client>,
}

impl Caller {
    async fn encrypt(&mut self, length: usize, is_in_parts: bool) -> Bytes {
        let request = |plaintext| EncryptMessage::new("alias/dev", plaintext).context("tenant", "acme");
        self.persistently(async |client| {
            if !is_in_parts {
                return Ok(client.encrypt_message(request(plaintext(length))).await?.message);
            }
            let parts: Vec<_> = plaintext(length).chunks(3_000).map(Bytes::copy_from_slice).collect();
            let declared = Some(length as u64);
            let parts = stream::iter(parts);
            let mut stream = client.encrypt_message_stream(&request(Bytes::new()), declared, parts).await?;
            let mut message = Vec::new();
            while let Some(part) = stream.next().await? {
                message.extend_from_slice(&part);
            }
            Ok(message.into())
        })
        .await
    }

    async fn decrypt(&mut self, message: &Bytes) -> Vec<u8> {
        self.persistently(async |client| {
            let request = DecryptMessage::new(message.clone()).context("tenant", "acme");
            Ok(client.decrypt_message(request).await?.plaintext.expose().to_vec())
        })
        .await
    }

    /// As the packages do: a call is made again whose connection broke, or whose broker drains.
    async fn persistently<T>(&mut self, call: impl AsyncFn(&Client) -> Result<T, Error>) -> T {
        for _ in 0..1_000 {
            if self.client.is_none() {
                self.client = Client::unix(&self.socket).await.ok();
            }
            if let Some(client) = &self.client {
                match call(client).await {
                    Ok(answer) => return answer,
                    Err(error) if error.reason().is_none() || error.code() == Code::Unavailable => {
                        self.client = None;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} is away for long", self.socket.display());
    }
}

fn plaintext(length: usize) -> Bytes {
    (0..=250_u8).cycle().take(length).collect::<Vec<_>>().into()
}

/// The SHA-256 of a message's header, by which records name it.
fn header_of(message: &[u8]) -> String {
    let header = HeaderReader::default().push(&mut &message[..]).expect("a header").expect("whole");
    hex::encode(header.facts().sha256)
}

/// Long enough for many calls, before, between and after restarts.
const BETWEEN: Duration = Duration::from_secs(1);

/// Brokers with one configuration, each in a directory of its own, before one KMS and one store.
struct Fleet {
    emulator: Emulator,
    dir: TempDir,
}

impl Fleet {
    async fn new() -> Self {
        let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
        emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
        let dir = tempfile::tempdir().expect("a directory");
        write_key(dir.path());
        Self { emulator, dir }
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("trail")
    }

    fn journal(&self, place: usize) -> PathBuf {
        self.dir.path().join(format!("{place}/journal"))
    }

    fn socket(&self, place: usize) -> PathBuf {
        self.dir.path().join(format!("{place}/broker.sock"))
    }

    /// The configuration that all have; paths in it begin where it is.
    fn config(&self, place: usize, more: &str) -> PathBuf {
        let dir = self.dir.path().join(place.to_string());
        fs::create_dir_all(&dir).expect("makes");
        let audit = format!(
            "store = {{ directory = \"../trail\", bucket = \"{BUCKET}\" }}\nsigning = {{ pem_file = \"../signing.pem\" }}\n{more}\
             [reuse]\nenabled = false\n"
        );
        let config = write_config(&dir, &self.emulator.endpoint_url(), &audit);
        let text = fs::read_to_string(&config).expect("reads");
        let text = text.replace("[kms]", "admin = { path = \"admin.sock\" }\n[kms]");
        fs::write(&config, text).expect("writes");
        config
    }

    fn start(&self, place: usize) -> Process {
        self.start_with(place, "")
    }

    fn start_with(&self, place: usize, more: &str) -> Process {
        let config = self.config(place, more);
        let broker = Self::spawn(place, &config);
        broker.wait_for_log("\"serving\"");
        broker
    }

    /// Starts one that gives out data keys more than once.
    fn start_reusing(&self, place: usize) -> Process {
        let config = self.config(place, "");
        let text = fs::read_to_string(&config).expect("reads").replace("[reuse]\nenabled = false\n", "");
        fs::write(&config, text).expect("writes");
        let broker = Self::spawn(place, &config);
        broker.wait_for_log("\"serving\"");
        broker
    }

    /// The second broker again, once it has ended.
    fn restarted(&self, broker: Process, end: impl FnOnce(Process)) -> Process {
        tokio::task::block_in_place(|| {
            end(broker);
            self.start_reusing(1)
        })
    }

    fn caller(&self, place: usize) -> Caller {
        Caller { socket: self.socket(place), client: None }
    }

    /// So many callers that have one broker encrypt and the other decrypt, by turns, until they are told to stop. They return the messages.
    fn exchange(&self, callers: usize) -> (Vec<JoinHandle<Vec<Exchanged>>>, CancellationToken) {
        let stop = CancellationToken::new();
        let exchange = async |mut brokers: [Caller; 2], first: usize, stop: CancellationToken| {
            let mut messages = Vec::new();
            while !stop.is_cancelled() {
                brokers.swap(0, 1);
                let number = first + messages.len();
                let length = number * 7_919 % 20_000;
                let message = brokers[0].encrypt(length, number.is_multiple_of(3)).await;
                assert!(brokers[1].decrypt(&message).await == plaintext(length), "{length} bytes");
                messages.push(Exchanged { message, length });
            }
            messages
        };
        let callers = (0..callers).map(|caller| {
            let (brokers, stop) = ([self.caller(0), self.caller(1)], stop.clone());
            // A thread for each, so that none waits for a broker that is started.
            tokio::task::spawn_blocking(move || Handle::current().block_on(exchange(brokers, caller, stop)))
        });
        (callers.collect(), stop)
    }

    /// How often records tell that a message was encrypted and decrypted, by the SHA-256 of its header.
    fn messages_recorded(&self) -> BTreeMap<String, [u64; 2]> {
        let mut recorded: BTreeMap<String, [u64; 2]> = BTreeMap::new();
        let files = self.of_kind(false);
        for record in files.iter().flat_map(|file| file["Records"].as_array().expect("records")) {
            let data = &record["additionalEventData"];
            let Some(header) = data["message"]["headerSHA256"].as_str() else { continue };
            let place = usize::from(record["eventName"] == "DecryptMessage");
            recorded.entry(header.to_owned()).or_default()[place] += u64::from(data["outcome"] == "Allowed");
        }
        recorded
    }

    /// Starts it, as a pod of its own.
    fn spawn(place: usize, config: &Path) -> Process {
        let pod = format!("orders-{place}");
        let variables = [
            ("AWS_ACCESS_KEY_ID", "AKIATESTEXAMPLE00000"),
            ("AWS_SECRET_ACCESS_KEY", "test-only"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("KEY_BROKER_POD_NAME", pod.as_str()),
            ("KEY_BROKER_POD_NAMESPACE", "orders"),
        ];
        Process::serve_with_variables(config, &variables)
    }

    async fn call(&self, place: usize, times: usize) {
        let client = Client::unix(self.socket(place)).await.expect("listens");
        for _ in 0..times {
            client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect("a key");
        }
    }

    fn program(arguments: &[&str]) -> Output {
        let mut program: Command = command();
        program.args(arguments).output().expect("runs")
    }

    fn deliver(&self, place: usize) -> Output {
        let (journal, config) =
            (self.journal(place), self.dir.path().join(format!("{place}/key-broker.toml")));
        Self::program(&["audit", "deliver", "--journal", path(&journal), "--config", path(&config)])
    }

    /// The verdict of somebody who has the bucket alone.
    fn verify(&self, trail: &str) -> (Option<i32>, Value) {
        let (code, mut report) = self.audit("verify", &["--json", "--trail", trail]);
        (code, report.swap_remove(0))
    }

    /// What one of the commands for auditors says of the bucket.
    fn said(&self, command: &str, more: &[&str]) -> Output {
        let key = self.dir.path().join("public.pem");
        let public =
            key_broker_trail::delivery::public_key_of(&self.dir.path().join("signing.pem")).expect("a key");
        fs::write(&key, public.to_pem()).expect("writes");
        let store = self.store();
        let mut arguments = vec!["audit", command, "--store", path(&store), "--bucket", BUCKET];
        arguments.extend(["--account", "111122223333", "--region", "us-west-2"]);
        if command == "verify" {
            arguments.extend(["--public-key", path(&key)]);
        }
        arguments.extend(more);
        Self::program(&arguments)
    }

    /// The same, in lines of JSON.
    fn audit(&self, command: &str, more: &[&str]) -> (Option<i32>, Vec<Value>) {
        let said = self.said(command, more);
        let lines: Result<Vec<Value>, _> =
            serde_json::Deserializer::from_slice(&said.stdout).into_iter().collect();
        let code = said.status.code();
        (
            code,
            lines.ok().filter(|lines| !lines.is_empty()).unwrap_or_else(|| panic!("{}", text(&said.stderr))),
        )
    }

    fn of_kind(&self, is_digest: bool) -> Vec<Value> {
        let all = objects(&self.store()).into_iter();
        let wanted = all.filter(|(key, _)| key.contains("CloudTrail-Digest") == is_digest);
        wanted
            .map(|(_, path)| serde_json::from_slice(&support::trail::inflated(&path)).expect("JSON"))
            .collect()
    }

    fn digests(&self) -> Vec<Value> {
        self.of_kind(true)
    }

    /// The names of the trails in the store.
    fn trails(&self) -> Vec<String> {
        let digests = self.digests();
        let keys = digests.iter().map(|digest| digest["digestS3Object"].as_str().expect("a key"));
        let mut names: Vec<String> = keys
            .map(|key| {
                let (_, rest) = key.split_once("_CloudTrail-Digest_us-west-2_").expect("a digest");
                rest.split_once("_us-west-2_").expect("a trail").0.to_owned()
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn event_names(&self) -> Vec<String> {
        let files = self.of_kind(false);
        let records = files.iter().flat_map(|file| file["Records"].as_array().expect("records"));
        records.map(|record| record["eventName"].as_str().expect("a name").to_owned()).collect()
    }
}

/// Twelve, or as many as `KEY_BROKER_FLEET` says.
fn brokers_of_this_run() -> usize {
    std::env::var("KEY_BROKER_FLEET").ok().and_then(|number| number.parse().ok()).unwrap_or(12)
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// What a server says to a probe.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("asks");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("answers");
    said
}
