//! A broker as a process of its own, with a socket for each kind of peer, and who else is served there.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use key_broker_client::{Client, GenerateDataKey};
use key_broker_core::clock::{Clock as _, SystemClock};
use kms_emulator::{Emulator, EmulatorConfig, KeySpec};
use rustix::process::Signal;
use tempfile::TempDir;

use super::pki::{Authority, Leaf, SERVER, dns, uri};
use super::process::{Process, binary, write_config};
use super::scrape::ask;
use super::signing::write_key;

/// A broker with a socket for each kind of peer.
pub struct Street {
    pub emulator: Emulator,
    pub dir: TempDir,
    pub authority: Authority,
    pub broker: Process,
    config: PathBuf,
}

impl Street {
    /// A broker that serves all workloads; `more` are sections of its configuration.
    pub async fn new(more: &str) -> Self {
        Self::with(super::ALL_WORKLOADS, "", more).await
    }

    /// A broker with this policy, whose unix socket anybody may open, and a key for digests in `signing.pem`; `audit` are lines of
    /// `[audit]`.
    pub async fn with(policy: &str, audit: &str, more: &str) -> Self {
        let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
        emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
        let (dir, authority) = (in_memory(), Authority::new());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("ours");
        authority.leaf(vec![dns(SERVER)]).write(dir.path(), &authority.pem());
        write_key(dir.path());
        // A disk that the tests share.
        let audit =
            format!("commit_wait_ms = 15000\n{audit}\n[telemetry]\nhttp = \"{}\"\n{more}", free_address());
        let config = write_config(dir.path(), &emulator.endpoint_url(), &audit);
        fs::write(dir.path().join("policy.cedar"), policy).expect("writes");
        let listen = format!(
            "insecure_tcp = \"{}\"\ntls = {{ address = \"{}\", certificate_file = \"current/tls.crt\", \
             key_file = \"current/tls.key\", trust_bundle_file = \"current/ca.crt\" }}\n[kms]",
            free_address(),
            free_address()
        );
        let text = fs::read_to_string(&config).expect("reads");
        let text = text.replace("[kms]", &listen).replace("mode = \"0600\"", "mode = \"0666\"");
        fs::write(&config, text).expect("writes");
        let broker = Process::serve(&config);
        Self { emulator, dir, authority, broker, config }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("broker.sock")
    }

    /// Where it listens, as it says.
    pub fn address(&self, of: &str) -> SocketAddr {
        let log = self.broker.log();
        let line = log.lines().find(|line| line.contains("\"serving\"")).expect("it serves");
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let address = line[of].as_str().or(line["fields"][of].as_str());
        address.expect("it listens there").parse().expect("an address")
    }

    pub fn leaf(&self, name: &str) -> Leaf {
        self.authority.leaf(vec![uri(&format!("spiffe://example.org/{name}"))])
    }

    pub async fn client(&self, leaf: &Leaf) -> Client {
        let address = self.address("tls").to_string();
        Client::tls(&address, &leaf.client(&self.authority)).await.expect("connects")
    }

    /// A permitted call on a new connection, and both probes.
    pub async fn others_are_served(&self, what: &str) {
        let socket = self.socket();
        let client = Client::unix(&socket).await.expect("connects").with_deadline(PATIENCE);
        let called = client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await;
        assert!(called.is_ok(), "{what}: {:?}", called.err());
        let health = tokio::task::spawn_blocking(move || {
            let mut health = Command::new(binary());
            health.args(["health", "--live", "--timeout-ms", &PATIENCE.as_millis().to_string()]);
            health.arg("--unix").arg(socket);
            health.output().expect("it runs")
        });
        let health = health.await.expect("no panic");
        assert!(health.status.success(), "{what}: {}", String::from_utf8_lossy(&health.stderr));
        let began = SystemClock.instant();
        assert_eq!(ask(self.address("telemetry"), "GET", "/healthz").await.status, 200, "{what}");
        assert!(SystemClock.instant() - began < PATIENCE, "{what}");
        let resident = self.broker.resident_kib() >> 10;
        assert!(resident < SMALL_CONTAINER_MIB, "{what}: {resident} MiB");
    }

    /// Ends the broker in order; then there is where everything was, its configuration, and KMS.
    pub fn end(self) -> (TempDir, PathBuf, Emulator) {
        let Self { emulator, dir, broker, config, .. } = self;
        broker.signal(Signal::TERM);
        assert!(broker.wait().success());
        (dir, config, emulator)
    }
}

/// Where nobody listens; the configuration wants a port.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

/// A directory in memory where there is one: these tests are about neighbours, and what others write to a disk meanwhile holds up
/// `fdatasync` for seconds.
pub fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

/// How long others wait at most: a broker that is not optimized takes ten times as long for each call, and tests share the processors.
pub const PATIENCE: Duration = Duration::from_secs(if cfg!(debug_assertions) { 15 } else { 5 });
/// What a small container has. A program that is not optimized has larger futures, of which each connection and call is one.
pub const SMALL_CONTAINER_MIB: u64 = if cfg!(debug_assertions) { 192 } else { 128 };
