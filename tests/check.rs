//! Proves: over a hundred generated configurations, half of them with something in the way, `check` fails where `serve` cannot serve and
//! deliver, and only there; without an encryption context, a denial by KMS is "not known"; `--offline` needs neither the host nor AWS;
//! variables that are ignored are shown; and a check leaves nothing behind.

#[path = "support/checked.rs"]
mod checked;
mod support;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use checked::{Place, check, told};
use key_broker_client::Client;
use kms_emulator::{Emulator, EmulatorConfig, Fault, KeySpec};
use rustix::process::Signal;
use serde_json::Value;
use support::dice::Dice;
use support::eventually;
use support::process::{Process, binary, write_config};
use support::signing::write_key;
use tokio::task::{JoinSet, block_in_place};

/// Each trouble once: the enumeration, and all of it in order.
macro_rules! troubles {
    ($($trouble:ident),+ $(,)?) => {
        /// What is in the way of a broker.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Trouble {
            $($trouble),+
        }

        const TROUBLES: [Trouble; 25] = [$(Trouble::$trouble),+];
    };
}

troubles!(
    SocketFolderMissing,
    SocketFolderIsAFile,
    SocketPathIsAFile,
    SocketInUse,
    AdminFolderMissing,
    PortInUse,
    PagesInUse,
    NoAddressOfOurs,
    JournalIsAFile,
    JournalBelowAFile,
    JournalCannotBeMade,
    JournalInUse,
    StateUnreadable,
    StoreIsAFile,
    StoreCannotBeMade,
    NoSigningKey,
    SigningKeyCannotSign,
    TrailKeyCannotEncrypt,
    AliasByItsArn,
    PolicyUnreadable,
    PolicyMissing,
    KeyMisspelt,
    ValueOutOfRange,
    GroupUnknown,
    NoKms,
);

use Trouble::*;

/// A configuration in a directory of its own, with what has to stay open for its trouble.
struct Case {
    dir: tempfile::TempDir,
    config: PathBuf,
    socket: PathBuf,
    _held: Vec<Box<dyn std::any::Any + Send + Sync>>,
}

impl Case {
    /// The case of this number. Each has a loopback address of its own.
    #[allow(clippy::too_many_lines, reason = "one table of troubles")]
    fn new(number: u8, endpoint: &str, trouble: Option<Trouble>) -> Self {
        let mut dice = Dice::new(u64::from(number) + 1);
        let mut likes = || dice.below(2) == 0;
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let mut held: Vec<Box<dyn std::any::Any + Send + Sync>> = Vec::new();
        let port = |port: u16| SocketAddr::from(([127, 1, number, 1], port));
        fs::create_dir(at("run")).expect("makes");
        write_key(dir.path());

        let mut socket = "run/broker.sock";
        let (mut group, mut admin, mut tcp, mut pages) =
            ("", likes().then_some("run/admin.sock"), None, None);
        if likes() {
            tcp = Some(port(7_890));
        }
        if likes() {
            pages = Some(port(9_464));
        }
        if likes() {
            // A process that is gone left it.
            drop(UnixListener::bind(at("run/broker.sock")).expect("binds"));
        }
        let mut journal = if likes() { "deep/er/journal" } else { "journal" };
        if likes() {
            fs::create_dir_all(at(journal)).expect("makes");
        }
        let mut store = if likes() { "trail" } else { "far/trail" };
        let (mut has_trail, mut signing) = (likes(), "pem_file = \"signing.pem\"");
        if likes() {
            signing = "kms_key_id = \"alias/signing\"";
        }
        let mut trail_key = likes().then_some("alias/dev");
        let mut policy = "permit(principal is Workload, action, resource);".to_owned();
        if likes() {
            policy.push_str("forbid(principal, action, resource in Alias::\"alias/none\");");
        }
        let mut more = if likes() { "[reuse]\nmax_messages = 10\n".to_owned() } else { String::new() };
        let mut endpoint = endpoint.to_owned();
        match trouble {
            None | Some(PolicyMissing) => {}
            Some(SocketFolderMissing) => socket = "nowhere/broker.sock",
            Some(SocketFolderIsAFile) => socket = "policy.cedar/broker.sock",
            Some(SocketPathIsAFile) => socket = "signing.pem",
            Some(SocketInUse) => {
                socket = "run/taken.sock";
                held.push(Box::new(UnixListener::bind(at(socket)).expect("binds")));
            }
            Some(AdminFolderMissing) => admin = Some("nowhere/admin.sock"),
            Some(PortInUse) => {
                tcp = Some(port(7_891));
                held.push(Box::new(TcpListener::bind(port(7_891)).expect("binds")));
            }
            Some(PagesInUse) => {
                pages = Some(port(9_465));
                held.push(Box::new(TcpListener::bind(port(9_465)).expect("binds")));
            }
            // Of those that are kept for documentation (RFC 5737).
            Some(NoAddressOfOurs) => pages = Some(SocketAddr::from(([192, 0, 2, 1], 9_464))),
            Some(JournalIsAFile) => journal = "signing.pem",
            Some(JournalBelowAFile) => journal = "signing.pem/journal",
            Some(JournalCannotBeMade) => journal = "/proc/key-broker/journal",
            Some(JournalInUse) => {
                journal = "locked";
                fs::create_dir(at(journal)).expect("makes");
                let lock = File::create(at("locked/lock")).expect("makes");
                lock.lock().expect("locks");
                held.push(Box::new(lock));
            }
            Some(StateUnreadable) => {
                (journal, has_trail) = ("journal", true);
                fs::create_dir_all(at(journal)).expect("makes");
                fs::write(at("journal/trail.json"), "no JSON").expect("writes");
            }
            Some(StoreIsAFile) => (store, has_trail) = ("signing.pem", true),
            Some(StoreCannotBeMade) => (store, has_trail) = ("/proc/key-broker/trail", true),
            Some(NoSigningKey) => (signing, has_trail) = ("kms_key_id = \"alias/none\"", true),
            Some(SigningKeyCannotSign) => (signing, has_trail) = ("kms_key_id = \"alias/dev\"", true),
            Some(TrailKeyCannotEncrypt) => (trail_key, has_trail) = (Some("alias/signing"), true),
            Some(AliasByItsArn) => policy.push_str(
                "forbid(principal, action, resource in Alias::\"arn:aws:kms:us-west-2:111122223333:alias/dev\");",
            ),
            Some(PolicyUnreadable) => policy.push_str("permit("),
            Some(KeyMisspelt) => more.push_str("[limits]\nconections = 5\n"),
            Some(ValueOutOfRange) => more.push_str("[limits]\ncalls_in_flight = 0\n"),
            Some(GroupUnknown) => group = ", group = \"no-such-group\"",
            // Nobody listens on the discard port of an address of this case's own.
            Some(NoKms) => endpoint = format!("http://127.1.{number}.2:9"),
        }
        let mut audit = String::new();
        if has_trail {
            audit = format!(
                "store = {{ directory = \"{store}\", bucket = \"logs\" }}\nsigning = {{ {signing} }}\n\
                 delivery_interval_seconds = 1\ndigest_interval_seconds = 1\n"
            );
            if let Some(key) = trail_key {
                writeln!(audit, "kms_key_id = \"{key}\"").expect("text");
            }
        }
        let pages = pages.map(|address| format!("[telemetry]\nhttp = \"{address}\"\n")).unwrap_or_default();
        let config = write_config(dir.path(), &endpoint, &format!("{audit}{pages}{more}"));
        let mut listen = format!("unix = {{ path = \"{socket}\"{group} }}\n");
        if let Some(admin) = admin {
            writeln!(listen, "admin = {{ path = \"{admin}\" }}").expect("text");
        }
        if let Some(tcp) = tcp {
            writeln!(listen, "insecure_tcp = \"{tcp}\"").expect("text");
        }
        let text = fs::read_to_string(&config).expect("reads");
        let text = text.replace("unix = { path = \"broker.sock\", mode = \"0600\" }\n", &listen);
        fs::write(&config, text.replace("\"journal\"", &format!("\"{journal}\""))).expect("writes");
        fs::write(at("policy.cedar"), policy).expect("writes");
        if trouble == Some(PolicyMissing) {
            fs::remove_file(at("policy.cedar")).expect("removes");
        }
        Self { socket: at(socket), config, dir, _held: held }
    }

    /// Everything in its directory, with what changes when somebody writes.
    fn files(&self) -> Vec<(PathBuf, u64)> {
        let (mut found, mut folders) = (Vec::new(), vec![self.dir.path().to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("reads") {
                let (path, metadata) = entry.map(|entry| (entry.path(), entry.metadata())).expect("an entry");
                let metadata = metadata.expect("is there");
                if metadata.is_dir() {
                    folders.push(path.clone());
                }
                found.push((path, if metadata.is_dir() { 0 } else { metadata.len() }));
            }
        }
        found.sort();
        found
    }

    /// Whether a broker serves a call with this configuration, and ends with everything delivered.
    async fn serves(&self) -> (bool, String) {
        let mut broker =
            Process::spawn(&["serve", "--config", self.config.to_str().expect("a path")], self.dir.path());
        let mut ended = None;
        eventually("it serves, ends or waits", || {
            ended = broker.try_wait();
            ended.is_some()
                || ["\"serving\"", "not serving yet"].iter().any(|said| broker.log().contains(said))
        })
        .await;
        let log = broker.log();
        if let Some(ended) = ended {
            assert_eq!(ended.code(), Some(64), "somebody has to change something: {log}");
            return (false, log);
        }
        if !log.contains("\"serving\"") {
            return (false, log);
        }
        let client = Client::unix(&self.socket).await.expect("it listens");
        client.generate_random(8).await.expect("an answer");
        broker.signal(Signal::TERM);
        let log = broker.log();
        (block_in_place(|| broker.wait()).code() == Some(0), log)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn check_and_serve_agree_about_a_hundred_configurations() {
    let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
    emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
    emulator.ensure_key("alias/signing", KeySpec::Rsa2048).expect("a key");
    let endpoint: Arc<str> = emulator.endpoint_url().into();
    let mut running = JoinSet::new();
    let mut refused = 0;
    for number in 0..100_u8 {
        let trouble = (number % 2 == 1).then(|| TROUBLES[usize::from(number / 2) % TROUBLES.len()]);
        let endpoint = Arc::clone(&endpoint);
        running.spawn(async move {
            let case = Case::new(number, &endpoint, trouble);
            let before = case.files();
            let checked = check(&case.config, &[]);
            assert_eq!(case.files(), before, "{number} {trouble:?}: a check leaves nothing behind");
            let is_well = checked.status.success();
            let (serves, log) = case.serves().await;
            let told = told(&checked);
            assert_eq!(is_well, serves, "{number} {trouble:?}: {told}\n{log}");
            assert_eq!(is_well, trouble.is_none(), "{number} {trouble:?}: {told}");
            assert!(matches!(checked.status.code(), Some(0 | 1 | 64)), "{told}");
            is_well
        });
        if running.len() >= 4 {
            let is_well = running.join_next().await.expect("one").expect("agrees");
            refused += u8::from(!is_well);
        }
    }
    while let Some(ended) = running.join_next().await {
        refused += u8::from(!ended.expect("agrees"));
    }
    assert_eq!(refused, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_without_pairs_is_not_known_and_with_pairs_it_is_one() {
    let place = Place::new().await;
    let config = place.config("");
    place.emulator.inject(Fault::access_denied().on("Decrypt").times(1));
    let without = check(&config, &["--key-id", "alias/dev"]);
    assert_eq!(without.status.code(), Some(2), "{}", told(&without));
    assert!(told(&without).contains("give it with --context"), "{}", told(&without));
    place.emulator.inject(Fault::access_denied().on("Decrypt").times(1));
    let with = check(&config, &["--key-id", "alias/dev", "--context", "tenant=acme"]);
    assert_eq!(with.status.code(), Some(1), "{}", told(&with));
    let well = check(&config, &["--key-id", "alias/dev"]);
    assert_eq!(well.status.code(), Some(0), "{}", told(&well));
    let really = place.emulator.calls().into_iter().filter(|call| !call.dry_run);
    assert!(
        really
            .into_iter()
            .all(|call| call.operation == "GetCallerIdentity" || call.operation == "DescribeKey")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offline_needs_neither_host_nor_aws() {
    let place = Place::new().await;
    let config = place.config_for_elsewhere();
    let output = check(&config, &["--offline", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["exitCode"], 0);
    assert_eq!(check(&config, &["--offline", "--as", "unix:uid/1"]).status.code(), Some(0));
    // A mistake in the file is one everywhere.
    place.policy("permit(principal, action, resource");
    let wrong = check(&config, &["--offline", "--json"]);
    assert_eq!(wrong.status.code(), Some(64));
    let report: Value = serde_json::from_slice(&wrong.stdout).expect("JSON");
    assert_eq!(report["checks"][0]["result"], "failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_that_are_ignored_are_shown() {
    let place = Place::new().await;
    let config = place.config("");
    let mut command = Command::new(binary());
    command.args(["check", "--offline", "--config"]).arg(&config);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318").env("OTEL_TRACES_SAMPLER", "foo");
    command.env("KEY_BROKER_LOG", "key_broker=loud");
    let output = command.output().expect("runs");
    let told = told(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("spans to http://collector:4318/v1/traces"), "{told}");
    assert!(told.contains("OTEL_TRACES_SAMPLER: \"foo\"") && told.contains("KEY_BROKER_LOG"), "{told}");
}
