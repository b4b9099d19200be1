//! What the tests of the packages under client/ share: a copy to build in, a broker that is restarted, and callers meanwhile.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::ops::Index;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use key_broker_client::{Client, DecryptMessage, EncryptMessage, Tls};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::peers::{http, root};
use crate::support::journal_lines;
use crate::support::pki::{Authority, SERVER, dns, uri};
use crate::support::process::Process;
use crate::support::street::in_memory;

/// Compilers and virtual machines: two at a time would take one another's processor, and deadlines with it.
pub(crate) fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first block of a language in the README of a package.
pub(crate) fn example(package: &str, language: &str) -> String {
    let readme = fs::read_to_string(root().join("client").join(package).join("README.md")).expect("a README");
    first_block(&readme, language)
}

pub(crate) fn first_block(text: &str, language: &str) -> String {
    let (_, rest) = text.split_once(&format!("```{language}\n")).expect("the block");
    rest.split_once("```").expect("its end").0.to_owned()
}

/// `key-broker dev` for the tests of the packages: its policy denies alias/forbidden, its KMS throttles GenerateRandom.
pub(crate) struct Dev {
    dir: TempDir,
    process: Process,
}

/// A second broker, with mutual TLS, before the KMS of a [`Dev`]; and a caller of another language, Rust.
pub(crate) struct TlsBroker {
    dir: TempDir,
    address: String,
    tls: Tls,
    process: Process,
}

impl TlsBroker {
    pub(crate) fn start(dev: &Dev) -> Self {
        let dir = in_memory();
        let authority = Authority::new();
        authority.leaf(vec![dns(SERVER)]).write(dir.path(), &authority.pem());
        // The packages find theirs in a folder of its own.
        let of_client = dir.path().join("client");
        fs::create_dir(&of_client).expect("a directory");
        let leaf = authority.leaf(vec![uri(CALLER)]);
        leaf.write(&of_client, &authority.pem());
        // Free a moment ago.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
        let address = free.to_string();
        let kms = dev.kms();
        let config = format!(
            "[listen.tls]\naddress = \"{address}\"\ncertificate_file = \"current/tls.crt\"\nkey_file = \"current/tls.key\"\n\
             trust_bundle_file = \"current/ca.crt\"\n[kms]\nregion = \"us-west-2\"\nendpoint_url = \"{kms}\"\n\
             sts_endpoint_url = \"{kms}\"\n[policy]\nfile = \"policy.cedar\"\n[audit]\njournal_dir = \"journal\"\n"
        );
        fs::write(dir.path().join("policy.cedar"), POLICY).expect("writes");
        let path = dir.path().join("key-broker.toml");
        fs::write(&path, config).expect("writes");
        // Whose collector is away: its records have the trace of a call all the same.
        let mut serve = Process::serve_command(&path);
        serve.env("OTEL_TRACES_EXPORTER", "otlp").env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        serve.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
        let process = Process::serve_by(serve, &path);
        let broker = Self { dir, address, tls: leaf.client(&authority), process };
        let message = broker.call(async |client| {
            let request = EncryptMessage::new("alias/dev", "from Rust").context("tenant", "acme");
            client.encrypt_message(request).await.expect("encrypts").message
        });
        fs::write(broker.dir.path().join("from-rust"), message).expect("writes");
        broker
    }

    fn call<T>(&self, what: impl AsyncFnOnce(Client) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { what(Client::tls(&self.address, &self.tls).await.expect("connects")).await })
    }

    /// What the tests of a package find it by.
    pub(crate) fn tell(&self, command: &mut Command) {
        command.env("KEY_BROKER_TEST_TLS_ADDRESS", &self.address);
        command.env("KEY_BROKER_TEST_TLS", self.dir.path().join("client/current"));
        command.env("KEY_BROKER_TEST_EXCHANGE", self.dir.path());
    }

    /// Ends it: the package's tests have to have been there, and to have left a message that they had encrypted at the other broker.
    pub(crate) fn was_called(self) {
        let message = fs::read(self.dir.path().join("to-rust")).expect("the tests leave a message");
        let opened = self.call(async |client| {
            let request = DecryptMessage::new(message).context("tenant", "acme");
            client.decrypt_message(request).await.expect("decrypts")
        });
        assert_eq!(opened.plaintext.expose(), b"to Rust");
        self.process.signal(Signal::TERM);
        self.process.wait();
        let lines = journal_lines(&self.dir.path().join("journal"));
        let is_call = |line: &&String| line.contains(CALLER) && line.contains("\"DescribeKey\"");
        let call = lines.iter().find(is_call).unwrap_or_else(|| panic!("no test called it: {lines:?}"));
        assert!(call.contains(TRACE), "a call without the trace of its caller: {call}");
    }
}

/// The trace in which the tests of the packages call it.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "spiffe://example.org/orders";

impl Dev {
    pub(crate) fn start() -> Self {
        let dir = in_memory();
        // It is there before the first start, and stays.
        fs::write(dir.path().join("policy.cedar"), POLICY).expect("writes");
        let process = Self::run(dir.path());
        Self { dir, process }
    }

    pub(crate) fn address(&self) -> String {
        format!("unix:{}", self.dir.path().join("broker.sock").display())
    }

    fn run(dir: &Path) -> Process {
        let process = Process::dev(dir);
        let throttled = json!([{ "effect": "throttling", "operation": "GenerateRandom" }]);
        http(&kms_of(dir), "PUT", "/_emulator/faults", "", &throttled);
        process
    }

    fn kms(&self) -> String {
        kms_of(self.dir.path())
    }

    /// The same broker again, once this one has ended by the signal.
    fn restarted(self, signal: Signal) -> Self {
        self.process.signal(signal);
        self.process.wait();
        let process = Self::run(self.dir.path());
        Self { dir: self.dir, process }
    }
}

/// Where the KMS of `dev` listens.
fn kms_of(dir: &Path) -> String {
    let text = fs::read_to_string(dir.join("dev.json")).expect("dev writes it");
    let facts: Value = serde_json::from_str(&text).expect("JSON");
    facts["kms_endpoint"].as_str().expect("an endpoint").to_owned()
}

const POLICY: &str = "permit(principal is Workload, action, resource);\n\
                      forbid(principal, action, resource in Alias::\"alias/forbidden\");";

/// What a caller saw: how many calls, how many of them failed, the first failure, the slowest call.
pub(crate) struct Seen(Value);

impl Seen {
    pub(crate) fn costs_nothing(&self) {
        assert_eq!(self["failed"], 0, "{}", self.0);
        assert!(self["calls"].as_u64() > Some(100), "too few calls to prove anything: {}", self.0);
        eprintln!("over two restarts: {}", self.0);
    }

    /// That some calls failed.
    pub(crate) fn costs_something(&self) {
        assert!(self["failed"].as_u64() > Some(0), "the restarts were none: {}", self.0);
        eprintln!("over two restarts, without the package: {}", self.0);
    }
}

impl Index<&str> for Seen {
    type Output = Value;

    fn index(&self, name: &str) -> &Value {
        &self.0[name]
    }
}

/// Runs programs that call, and restarts the broker under them: once it is told to stop, once it is killed.
pub(crate) fn restarted_under<const N: usize>(dev: Dev, loads: [Command; N]) -> [Seen; N] {
    let running = loads.map(Load::start);
    sleep(BETWEEN);
    let dev = dev.restarted(Signal::TERM);
    sleep(BETWEEN);
    let _dev = dev.restarted(Signal::KILL);
    sleep(BETWEEN);
    running.map(Load::end)
}

/// Long enough for many calls, before, between and after restarts.
const BETWEEN: Duration = Duration::from_millis(1_500);

/// A program that calls until its standard input is closed. It ends with this process, whose end closes that, too.
struct Load {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Load {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a load starts");
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        assert_eq!(line.trim(), "ready", "{command:?}");
        Self { child, output }
    }

    fn end(mut self) -> Seen {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.output.read_to_string(&mut text).expect("its last words");
        assert!(self.child.wait().expect("it ends").success(), "{text}");
        Seen(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}")))
    }
}
