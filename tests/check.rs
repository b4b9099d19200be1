//! Proves: over a hundred generated configurations, half of them with something in the way, `check` fails where `serve` cannot serve and
//! deliver, and only there; over a hundred generated policies, `check --as` says what a real call gets; what it cannot know it does not
//! guess; and a check leaves nothing behind.

mod support;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use key_broker_client::{Client, Decrypt, Error, GenerateDataKey};
use kms_emulator::{Emulator, EmulatorConfig, Fault, KeySpec};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::dice::Dice;
use support::eventually;
use support::process::{Process, binary, write_config};
use support::signing::write_key;
use tokio::task::{JoinSet, block_in_place};
use tonic::Code;

fn check(config: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(["check", "--config"]).arg(config).args(arguments);
    command.env("AWS_ACCESS_KEY_ID", "AKIATESTEXAMPLE00000").env("AWS_SECRET_ACCESS_KEY", "test-only");
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    // What it asks is in this runtime.
    block_in_place(|| command.output()).expect("it runs")
}

fn told(output: &Output) -> String {
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{error}")
}

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

const ACTIONS: [&str; 5] =
    ["GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "Decrypt", "GenerateRandom", "DescribeKey"];

/// Policies of a few statements; about the keys of two ARNs, by ARN or by alias.
fn policies(dice: &mut Dice, arns: [&str; 2]) -> String {
    let me = format!("unix:uid/{}", rustix::process::geteuid().as_raw());
    let mut text = String::new();
    for _ in 0..=dice.below(3) {
        let pick = |dice: &mut Dice, of: &[&str]| {
            of[usize::try_from(dice.below(of.len() as u64)).expect("small")].to_owned()
        };
        let effect = pick(dice, &["permit", "permit", "permit", "forbid"]);
        let principal = pick(
            dice,
            &[
                "principal",
                "principal is Workload",
                "principal == Workload::\"me\"",
                "principal == Workload::\"unix:uid/4242\"",
            ],
        );
        let action = pick(
            dice,
            &[
                "action",
                "action",
                "action == Action::\"GenerateDataKey\"",
                "action in [Action::\"Decrypt\", Action::\"DescribeKey\", Action::\"GenerateDataKeyWithoutPlaintext\"]",
                "action == Action::\"GenerateRandom\"",
            ],
        );
        let resource = if action.contains("GenerateRandom") {
            "resource".to_owned()
        } else {
            let of = [
                "resource".to_owned(),
                format!("resource == Key::\"{}\"", arns[0]),
                format!("resource == Key::\"{}\"", arns[1]),
                "resource in Alias::\"alias/dev\"".to_owned(),
                "resource in Alias::\"alias/other\"".to_owned(),
                "resource in Alias::\"alias/nothing\"".to_owned(),
            ];
            of[usize::try_from(dice.below(6)).expect("small")].clone()
        };
        let has_context = !action.contains("Decrypt") && action != "action" && !action.contains("Random");
        let mut when = vec![
            String::new(),
            " when { context.transport == \"unix\" }".to_owned(),
            " unless { context.transport == \"tls\" }".to_owned(),
            " when { context.messages < 5 }".to_owned(),
        ];
        if !action.contains("Random") {
            when.push(format!(" unless {{ resource == Key::\"{}\" }}", arns[1]));
            when.push(" when { resource.region == \"us-west-2\" }".to_owned());
        }
        if has_context {
            when.push(" when { context.encryptionContext.hasTag(\"tenant\") }".to_owned());
            when.push(
                " when { context.encryptionContext.hasTag(\"tenant\") && context.encryptionContext.getTag(\"tenant\") == \"acme\" }"
                    .to_owned(),
            );
        }
        let when = &when[usize::try_from(dice.below(when.len() as u64)).expect("small")];
        text.push_str(
            &format!("{effect}({principal}, {action}, {resource}){when};\n")
                .replace("\"me\"", &format!("\"{me}\"")),
        );
    }
    text
}

/// Pairs that contexts are bound to, as configuration.
fn bindings(dice: &mut Dice) -> String {
    let words = match dice.below(4) {
        0 => "inject = { tenant = \"acme\" }",
        1 => "require = { tenant = \"acme\" }",
        _ => return String::new(),
    };
    let me = format!("unix:uid/{}", rustix::process::geteuid().as_raw());
    format!("[[policy.encryption_context]]\nprincipal = \"{me}\"\n{words}\n")
}

/// Whether a call came through to KMS: what KMS then says of a ciphertext that is none is no denial.
fn came_through<T>(answer: Result<T, Error>) -> bool {
    match answer {
        Ok(_) => true,
        Err(error) if error.reason() == Some("INVALID_CIPHERTEXT") => true,
        Err(error) => {
            assert!(matches!(error.code(), Code::PermissionDenied | Code::NotFound), "{error}");
            false
        }
    }
}

async fn call(client: &Client, action: &str, key: Option<&str>, context: Option<(&str, &str)>) -> bool {
    let key_id = key.unwrap_or_default();
    let mut request = GenerateDataKey::aes_256(key_id);
    let mut decrypt = Decrypt::new(vec![7; 60]);
    if let Some(key) = key {
        decrypt = decrypt.key_id(key);
    }
    if let Some((name, value)) = context {
        (request, decrypt) = (request.context(name, value), decrypt.context(name, value));
    }
    match action {
        "GenerateDataKey" => came_through(client.generate_data_key(request).await),
        "GenerateDataKeyWithoutPlaintext" => {
            came_through(client.generate_data_key_without_plaintext(request.into()).await)
        }
        "Decrypt" => came_through(client.decrypt(decrypt).await),
        "GenerateRandom" => came_through(client.generate_random(8).await),
        _ => came_through(client.describe_key(key_id).await),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn check_as_and_calls_agree_about_a_hundred_policies() {
    let mut running = JoinSet::new();
    let (mut allowed, mut denied) = (0, 0);
    for number in 0..100_u64 {
        running.spawn(agree(number));
        if running.len() >= 4 {
            let (yes, no) = running.join_next().await.expect("one").expect("agrees");
            (allowed, denied) = (allowed + yes, denied + no);
        }
    }
    while let Some(ended) = running.join_next().await {
        let (yes, no) = ended.expect("agrees");
        (allowed, denied) = (allowed + yes, denied + no);
    }
    assert!(allowed > 100 && denied > 100, "{allowed} yes, {denied} no: neither is proved by few");
}

/// Compares what is said with what is got, for one set of policies; returns the numbers of yes and no.
async fn agree(number: u64) -> (u32, u32) {
    let mut dice = Dice::new(number + 7);
    let words = bindings(&mut dice);
    let place = Place::new().await;
    let dev = place.emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
    let other = place.emulator.ensure_key("alias/other", KeySpec::SymmetricDefault).expect("a key");
    let policy = policies(&mut dice, [&dev, &other]);
    let config = place.config(&words);
    place.policy(&policy);
    let broker = block_in_place(|| Process::serve(&config));
    let client = Client::unix(place.dir.path().join("broker.sock")).await.expect("it listens");
    let context = [None, Some(("tenant", "acme")), Some(("tenant", "evil"))]
        [usize::try_from(dice.below(3)).expect("small")];
    let me = format!("unix:uid/{}", rustix::process::geteuid().as_raw());
    let (mut yes, mut no) = (0, 0);
    for key in [Some("alias/dev"), Some(&*other), Some("alias/nothing"), None] {
        let mut arguments = vec!["--json", "--as", &me];
        let pair = context.map(|(name, value)| format!("{name}={value}"));
        if let Some(pair) = &pair {
            arguments.extend(["--context", pair]);
        }
        if let Some(key) = key {
            arguments.extend(["--key", key]);
        }
        let output = check(&config, &arguments);
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        let answers: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        for action in ACTIONS {
            let is_it = |answer: &&Value| {
                answer["action"] == *action && (key.is_some() || answer["key"] == "(no key named)")
            };
            let Some(answer) = answers["answers"].as_array().expect("a list").iter().find(is_it) else {
                continue;
            };
            let gets = call(&client, action, key, context).await;
            let says = match answer["result"].as_str() {
                Some("allowed") => true,
                Some("denied") => false,
                other => panic!("{other:?}"),
            };
            assert_eq!(says, gets, "{number}: {action} {key:?} {context:?} {words}\n{policy}\n{answer}");
            (yes, no) = (yes + u32::from(gets), no + u32::from(!gets));
        }
    }
    drop(broker);
    (yes, no)
}

/// A site with an emulator: `alias/dev`, and a trail in a directory.
struct Place {
    emulator: Emulator,
    dir: tempfile::TempDir,
}

impl Place {
    async fn new() -> Self {
        let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
        emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
        emulator.ensure_key("alias/signing", KeySpec::Rsa2048).expect("a key");
        Self { emulator, dir: tempfile::tempdir().expect("a directory") }
    }

    fn config(&self, more: &str) -> PathBuf {
        write_config(self.dir.path(), &self.emulator.endpoint_url(), more)
    }

    fn policy(&self, text: &str) {
        fs::write(self.dir.path().join("policy.cedar"), text).expect("writes");
    }
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
async fn what_is_not_known_is_said_and_not_guessed() {
    let place = Place::new().await;
    let config = place.config("");
    let me = "unix:uid/1001";
    let asked = |arguments: &[&str]| {
        check(&config, &[&["--offline", "--as", me, "--action", "Decrypt"], arguments].concat()).status.code()
    };
    // By the alias it is permitted, whatever the alias means.
    place.policy("permit(principal, action, resource in Alias::\"alias/dev\");");
    assert_eq!(asked(&["--key", "alias/dev"]), Some(2), "there may be no such key");
    assert_eq!(asked(&["--key", "alias/other"]), Some(2), "it may mean the same key");
    // Whatever it means, it is denied.
    place.policy("permit(principal, action, resource); forbid(principal, action, resource);");
    assert_eq!(asked(&["--key", "alias/dev"]), Some(1));
    // What a policy says of an alias may hold for this very key.
    let arn = "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    place.policy(
        "permit(principal, action, resource); forbid(principal, action, resource in Alias::\"alias/dev\");",
    );
    assert_eq!(asked(&["--key", arn]), Some(2));
    place.policy(&format!("permit(principal, action, resource == Key::\"{arn}\");"));
    assert_eq!(asked(&["--key", arn]), Some(0));
    let none = check(&config, &["--offline", "--as", me, "--action", "GenerateRandom", "--key", "alias/dev"]);
    assert_eq!(none.status.code(), Some(64), "{}", told(&none));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offline_needs_neither_host_nor_aws() {
    let place = Place::new().await;
    let config = place.config("");
    let text = fs::read_to_string(&config).expect("reads");
    let listen = "unix = { path = \"/nowhere/broker.sock\", group = \"no-such-group\" }\n\
                  tls = { address = \"0.0.0.0:7890\", certificate_file = \"/nowhere/a\", key_file = \"/nowhere/b\", trust_bundle_file = \"/nowhere/c\" }\n";
    let text = text.replace("unix = { path = \"broker.sock\", mode = \"0600\" }\n", listen);
    let text = text.replace(&place.emulator.endpoint_url(), "http://127.0.0.1:9");
    fs::write(&config, text).expect("writes");
    let output = check(&config, &["--offline", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["exitCode"], 0);
    assert_eq!(check(&config, &["--offline", "--as", "unix:uid/1"]).status.code(), Some(0));
    // A question without an encryption context is not taken for one about every context.
    for (pairs, asked) in [(json!({}), "without an encryption context"), (json!({ "a": "b" }), "context a=b")]
    {
        let pair = ["--context", "a=b"];
        let ask = ["--offline", "--as", "unix:uid/1"].into_iter();
        let ask: Vec<_> = ask.chain(pair.into_iter().filter(|_| pairs != json!({}))).collect();
        let output = check(&config, &ask);
        assert!(told(&output).contains(asked), "{}", told(&output));
        let output = check(&config, &[&ask[..], &["--json"]].concat());
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(report["encryptionContext"], pairs);
    }
    // A mistake in the file is one everywhere.
    place.policy("permit(principal, action, resource");
    let wrong = check(&config, &["--offline", "--json"]);
    assert_eq!(wrong.status.code(), Some(64));
    let report: Value = serde_json::from_slice(&wrong.stdout).expect("JSON");
    assert_eq!(report["checks"][0]["result"], "failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_principal_that_nobody_can_be_is_told() {
    let place = Place::new().await;
    let config = place.config(
        "[identity]\ntrust_domain = \"example.org\"\n[[identity.unix]]\nuid = 0\nprincipal = \"spiffe://example.org/root\"\n",
    );
    for (principal, is_told) in [
        ("unix:uid/0", true),
        ("unix:uid/1", false),
        ("vsock:cid/16", true),
        ("spiffe://elsewhere.org/app", true),
        ("spiffe://example.org/root", false),
    ] {
        let output = check(&config, &["--as", principal]);
        assert_eq!(told(&output).contains("no caller is"), is_told, "{principal}: {}", told(&output));
    }
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
