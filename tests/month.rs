//! Proves, with the real program in a time of day of its own: through a month in which certificates, sessions, tokens, policies and keys
//! come to their end and are renewed, and the clock is set back and forth by an hour each day, no call fails for longer than a renewal
//! takes, what was encrypted is decrypted all the time, and the trail is sound.
//!
//! Three days; thirty with `KEY_BROKER_LONG_TESTS=1`, in three minutes.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use key_broker_client::{Client, Decrypt, GenerateDataKey};
use key_broker_core::clock::{Clock as _, SystemClock};
use kms_emulator::{Emulator, EmulatorConfig, Fault, KeySpec};
use rustix::process::Signal;
use support::aws::FakeAws;
use support::pki::{Authority, SERVER, dns, uri};
use support::process::{Process, binary, write_config};
use support::signing::write_key;
use support::time_of_day::TimeOfDay;
use tempfile::TempDir;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::task::JoinHandle;

const HOUR: i64 = 3_600;
/// Half a second of waiting for a renewal, and what a busy machine takes.
const RENEWAL: Duration = Duration::from_secs(5);
const ORDERS: &str = "spiffe://example.org/orders";

/// Everything around a broker that comes to an end.
struct World {
    dir: TempDir,
    emulator: Emulator,
    aws: FakeAws,
    authority: Authority,
    time: TimeOfDay,
    port: u16,
    /// The ARNs of the keys that the alias has meant, or will mean.
    keys: Vec<String>,
    certificates: u32,
    policies: u32,
}

impl World {
    async fn new(days: usize) -> Self {
        let emulator = Emulator::start(EmulatorConfig::default()).await.expect("starts");
        let mut keys = vec![emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key")];
        for n in 0..=days / 2 {
            keys.push(
                emulator.ensure_key(&format!("alias/next-{n}"), KeySpec::SymmetricDefault).expect("a key"),
            );
        }
        let aws = FakeAws::start(Duration::from_hours(12), Duration::ZERO).await;
        let dir = tempfile::tempdir().expect("a directory");
        write_key(dir.path());
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("an address").port();
        let (authority, time) = (Authority::new(), TimeOfDay::new(dir.path()));
        let mut world =
            Self { dir, emulator, aws, authority, time, port, keys, certificates: 0, policies: 0 };
        world.renew_certificate();
        world.renew_token();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&mut self) -> PathBuf {
        let more = format!(
            "store = {{ directory = \"trail\", bucket = \"logs\" }}\nsigning = {{ pem_file = \"signing.pem\" }}\n\
             delivery_interval_seconds = 1\n\
             [listen.tls]\naddress = \"127.0.0.1:{}\"\ncertificate_file = \"current/tls.crt\"\n\
             key_file = \"current/tls.key\"\ntrust_bundle_file = \"current/ca.crt\"\n[reuse]\nmax_messages = 20",
            self.port
        );
        let config = write_config(self.dir.path(), &self.emulator.endpoint_url(), &more);
        let text = fs::read_to_string(&config).expect("reads");
        let sts = |url: &str| format!("sts_endpoint_url = \"{url}\"");
        fs::write(&config, text.replace(&sts(&self.emulator.endpoint_url()), &sts(&self.aws.url)))
            .expect("writes");
        self.renew_policy();
        config
    }

    /// For four days, which began an hour ago.
    fn renew_certificate(&mut self) {
        let now = self.time.now();
        let (from, until) = (now - Duration::from_hours(1), now + Duration::from_hours(96));
        let leaf = self.authority.leaf_between(vec![dns(SERVER), uri(ORDERS)], from, until);
        leaf.write(self.dir.path(), &self.authority.pem());
        self.certificates += 1;
    }

    /// For a day.
    fn renew_token(&self) {
        let text = format!("valid-until-{}", self.time.now().unix_timestamp() + 24 * HOUR);
        fs::write(self.path("token.new"), text).expect("writes");
        fs::rename(self.path("token.new"), self.path("token")).expect("renames");
    }

    /// What the alias means, and by their ARNs what it has meant and will mean.
    fn renew_policy(&mut self) {
        self.policies += 1;
        let former = self.keys.iter().map(|arn| format!("resource == Key::\"{arn}\"")).collect::<Vec<_>>();
        let text = format!(
            "// {}\npermit(principal is Workload, action, resource in Alias::\"alias/dev\");\n\
             permit(principal is Workload, action == Action::\"Decrypt\", resource) when {{ {} }};\n",
            self.policies,
            former.join(" || ")
        );
        fs::write(self.path("policy.new"), text).expect("writes");
        fs::rename(self.path("policy.new"), self.path("policy.cedar")).expect("renames");
    }

    fn move_alias(&self, turn: usize) {
        self.emulator.move_alias("alias/dev", &self.keys[turn % self.keys.len()]).expect("moves");
    }

    fn leap(&mut self, seconds: i64) {
        self.time.leap(seconds);
        self.aws.set_ahead(self.time.ahead());
    }

    fn serve(&mut self) -> Process {
        let config = self.config();
        let mut command = Process::serve_command(&config);
        self.time.apply(&mut command);
        command
            .env("AWS_WEB_IDENTITY_TOKEN_FILE", self.path("token"))
            .env("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/broker")
            .env("AWS_ENDPOINT_URL_STS", &self.aws.url);
        Process::serve_by_its_credentials(command, &config)
    }

    /// A call by a program of its own, over TLS, which has to succeed within the time of a renewal.
    fn call_over_tls(&self) {
        let began = SystemClock.instant();
        loop {
            let mut call = Command::new(binary());
            call.args(["call", "generate-data-key", "--key-id", "alias/dev", "--context", "tenant=tls"])
                .args(["--tls", &format!("127.0.0.1:{}", self.port), "--server-name", SERVER])
                .arg("--ca")
                .arg(self.path("current/ca.crt"))
                .arg("--cert")
                .arg(self.path("current/tls.crt"))
                .arg("--key")
                .arg(self.path("current/tls.key"));
            self.time.apply(&mut call);
            let output = call.output().expect("runs");
            if output.status.success() {
                return;
            }
            let why = String::from_utf8_lossy(&output.stderr);
            // The broker looks for certificates every five seconds.
            assert!(began.elapsed() < 2 * RENEWAL, "{why}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// What callers have seen.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    calls: AtomicU64,
    /// How often each error came.
    failed: Mutex<BTreeMap<String, u64>>,
    /// Of one caller without an answer in between.
    longest: Mutex<Duration>,
}

/// Draws and decrypts until it is told to stop.
fn caller(client: Client, seen: Arc<Seen>, name: u32) -> JoinHandle<()> {
    tokio::spawn(async move {
        let (mut failing, mut kept, mut turn) = (None::<Instant>, Vec::new(), 0_usize);
        while !seen.stop.load(Ordering::SeqCst) {
            turn += 1;
            let tenant = format!("{name}-{}", turn % 3);
            let draw = GenerateDataKey::aes_256("alias/dev").context("tenant", &tenant);
            let mut ended = client.generate_data_key(draw).await.map(|key| kept.push((tenant, key)));
            if let (Ok(()), Some((tenant, key))) = (&ended, kept.get(turn * 7 % kept.len().max(1))) {
                let old =
                    Decrypt::new(key.ciphertext_blob.clone()).key_id(&key.key_id).context("tenant", tenant);
                ended = client.decrypt(old).await.map(|again| {
                    assert_eq!(again.plaintext.expose(), key.plaintext.expose());
                });
            }
            kept.truncate(2_000);
            seen.calls.fetch_add(1, Ordering::SeqCst);
            match ended {
                Ok(()) => failing = None,
                Err(error) => {
                    let reason = error.reason().unwrap_or_default();
                    let name = format!("{:?} {reason}", error.code());
                    *seen.failed.lock().expect("whole").entry(name).or_default() += 1;
                    let since = failing.get_or_insert_with(|| SystemClock.instant()).elapsed();
                    let mut longest = seen.longest.lock().expect("whole");
                    *longest = (*longest).max(since);
                    assert!(since < RENEWAL, "for {since:?}: {error}");
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
}

fn days() -> usize {
    if std::env::var_os("KEY_BROKER_LONG_TESTS").is_some() { 30 } else { 3 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_month_in_which_everything_is_renewed() {
    let mut world = World::new(days()).await;
    let broker = world.serve();
    let seen = Arc::<Seen>::default();
    let mut callers = Vec::new();
    for name in 0..3 {
        let client = Client::unix(world.path("broker.sock")).await.expect("listens");
        callers.push(caller(client, Arc::clone(&seen), name));
    }
    for hour in 0..24 * days() {
        let day = hour / 24;
        match hour % 24 {
            // The clock is an hour wrong for an hour, to either side.
            9 | 11 => world.leap(-HOUR),
            10 => world.leap(3 * HOUR),
            _ => world.leap(HOUR),
        }
        match hour % 24 {
            0 | 12 => world.renew_token(),
            6 if day % 2 == 0 => world.renew_certificate(),
            14 if day % 2 == 1 => world.move_alias(day / 2 + 1),
            18 => world.renew_policy(),
            3 | 15 | 21 => tokio::task::block_in_place(|| world.call_over_tls()),
            _ => {}
        }
        assert!(
            !callers.iter().any(JoinHandle::is_finished),
            "a call failed for longer than a renewal takes"
        );
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    seen.stop.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.expect("no call failed for long");
    }
    broker.signal(Signal::TERM);
    assert!(broker.wait().success(), "everything is delivered");
    judge(&world, &seen);
}

/// A call that waited for KMS while the clock was set back has come when its time is told by the clock as it is now: its data key's end
/// is told by that clock too, and nobody reads of a use after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_back_during_a_call_leaves_the_trail_sound() {
    let mut world = World::new(0).await;
    let broker = world.serve();
    let client = Client::unix(world.path("broker.sock")).await.expect("listens");
    world.emulator.inject(Fault::latency(Duration::from_secs(1)).on("GenerateDataKeyWithoutPlaintext"));
    world.emulator.inject(Fault::latency(Duration::from_secs(1)).on("GenerateDataKey"));
    let draw = GenerateDataKey::aes_256("alias/dev").context("tenant", "one");
    let before = world.time.now();
    let call = tokio::spawn(async move { client.generate_data_key(draw).await.map(drop) });
    tokio::time::sleep(Duration::from_millis(400)).await;
    world.leap(-HOUR);
    assert!(!call.is_finished(), "KMS takes a second");
    call.await.expect("no panic").expect("drawn");
    broker.signal(Signal::TERM);
    assert!(broker.wait().success(), "everything is delivered");
    let (is_sound, told) = world.verify();
    assert!(is_sound, "{told}");
    let records = support::trail::records(&world.path("trail"));
    let record = records.activity.iter().find(|record| record["eventName"] == "GenerateDataKey");
    let record = record.expect("recorded");
    let came = OffsetDateTime::parse(record["eventTime"].as_str().expect("text"), &Rfc3339).expect("a time");
    let by_now = before - Duration::from_secs(HOUR.unsigned_abs());
    assert!((came - by_now).abs() < time::Duration::seconds(2), "{record}\n{told}");
}

/// KMS answers after the clock was set back, and by the record of its answer a data key's age is reckoned: once the clock is right again, that is
/// an hour, and neither the data key nor the permission counts any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_back_while_kms_is_asked_and_right_again_afterwards_leaves_the_trail_sound() {
    let mut world = World::new(0).await;
    let broker = world.serve();
    let client = Client::unix(world.path("broker.sock")).await.expect("listens");
    let draw = async |client: Client| {
        let request = GenerateDataKey::aes_256("alias/dev").context("tenant", "one");
        client.generate_data_key(request).await.map(drop).expect("drawn");
    };
    for operation in ["GenerateDataKeyWithoutPlaintext", "GenerateDataKey"] {
        world.emulator.inject(Fault::latency(Duration::from_millis(700)).on(operation));
    }
    let call = tokio::spawn(draw(client.clone()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.leap(-HOUR);
    assert!(!call.is_finished(), "KMS takes longer");
    call.await.expect("no panic");
    world.leap(HOUR);
    draw(client).await;
    broker.signal(Signal::TERM);
    assert!(broker.wait().success(), "everything is delivered");
    let (is_sound, told) = world.verify();
    assert!(is_sound, "{told}");
    let records = support::trail::records(&world.path("trail"));
    let draws = records.activity.iter().filter(|record| record["eventName"] == "GenerateDataKey");
    let from: Vec<_> = draws.map(|record| &record["additionalEventData"]["dataKey"]["servedFrom"]).collect();
    assert_eq!(from, ["KMS", "KMS"], "an hour is longer than any data key lives");
}

impl World {
    /// Whether the trail is sound, and what is told of it.
    fn verify(&self) -> (bool, String) {
        let mut verify = Command::new(binary());
        verify.args(["audit", "verify", "--config"]).arg(self.path("key-broker.toml"));
        verify.arg("--record-to").arg(self.path("reader-records"));
        verify.env("AWS_ACCESS_KEY_ID", "AKIATESTEXAMPLE00000").env("AWS_SECRET_ACCESS_KEY", "test-only");
        self.time.apply(&mut verify);
        let verdict = verify.output().expect("runs");
        let told = String::from_utf8_lossy(&verdict.stdout).into_owned();
        (verdict.status.success(), told + &String::from_utf8_lossy(&verdict.stderr))
    }
}

fn judge(world: &World, seen: &Seen) {
    let (is_sound, told) = world.verify();
    assert!(is_sound, "{told}");
    let records = support::trail::records(&world.path("trail"));
    let mut sessions = std::collections::BTreeSet::new();
    for record in records.kms.iter().chain(&records.resolved) {
        let key = record["userIdentity"]["accessKeyId"].as_str().expect("signed");
        assert_eq!(record["userIdentity"]["arn"], world.aws.session(key).0, "{record}");
        sessions.insert(key.to_owned());
    }
    assert!(sessions.len() >= days(), "{} sessions", sessions.len());
    let keys: std::collections::BTreeSet<_> =
        records.kms.iter().filter_map(|record| record["resources"][0]["ARN"].as_str()).collect();
    // What an alias means is believed for a minute, of which the short form has none.
    assert!(keys.len() > usize::from(days() > 20), "{} keys", keys.len());
    let reloads = |what: &str| {
        let told = records
            .activity
            .iter()
            .filter_map(|record| record["additionalEventData"]["reloads"][what].as_u64());
        told.sum::<u64>()
    };
    assert!(reloads("policy") >= u64::from(world.policies) / 2 && reloads("certificates") > 0);
    let (calls, failed) = (seen.calls.load(Ordering::SeqCst), seen.failed.lock().expect("whole"));
    eprintln!(
        "{} days: {calls} rounds of calls, failed {failed:?}, {:?} at most in a row; {} sessions, {} certificates, {} policies, {} keys, \
         {} records; {}",
        days(),
        seen.longest.lock().expect("whole"),
        sessions.len(),
        world.certificates,
        world.policies,
        keys.len(),
        records.kms.len() + records.resolved.len() + records.activity.len(),
        told.lines().rfind(|line| line.contains("SOUND")).unwrap_or_default(),
    );
}
