//! What the integration tests share: a broker before an emulator on real sockets, its journal, and the real program.
#![allow(dead_code, unreachable_pub, reason = "every test file uses another part of this one")]

pub mod aws;
pub mod bad_collector;
pub mod clock;
pub mod delivered;
pub mod dev;
pub mod dev_folder;
pub mod dice;
pub mod disk;
pub mod enclave;
pub mod faults;
pub mod formats;
pub mod http2;
pub mod load;
pub mod memory;
pub mod neighbour;
pub mod pki;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod registry;
pub mod scrape;
pub mod signing;
pub mod site;
pub mod street;
pub mod tampered;
pub mod time_of_day;
pub mod timed;
pub mod trail;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use key_broker::{
    AuditConfig, AwsKms, AwsSettings, Bindings, BreakerSettings, Broker, GuardSettings, Identities, Limits,
    Listen, Parts, Policy, RevocationCheck, Rule, Rules, ShareLimits, StartError, Telemetry, Tls, Trust,
    UnixAddress,
};
use key_broker_client::{Client, Error};
use key_broker_core::Bounds;
use key_broker_core::clock::{Clock, SystemClock};
use key_broker_proto::v1::key_broker_client::KeyBrokerClient;
use key_broker_trail::Remainder;
use key_broker_trail::delivery::TrailConfig;
use key_broker_trail::journal::{Durability, JournalConfig};
use key_broker_trail::record::AwsCaller;
use kms_emulator::{Emulator, EmulatorConfig, KeySpec};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use formats::{files, journal_line};

pub const ALL_WORKLOADS: &str = "permit(principal is Workload, action, resource);";

/// How a test's broker is to be.
pub struct Setup {
    pub policy: String,
    pub limits: Limits,
    pub commit_wait: Duration,
    pub attempt_timeout: Duration,
    pub max_attempts: u32,
    pub guard: GuardSettings,
    pub insecure_tcp: bool,
    /// Mutual TLS on a port of its own.
    pub tls: Option<Tls>,
    pub identities: Identities,
    pub bindings: Bindings,
    pub trust: Trust,
    /// Who may open the operator's socket.
    pub admin_mode: u32,
    /// How far data keys are reused: not at all, unless a test is about that.
    pub reuse: Rules,
    pub suites_without_commitment: bool,
    /// Where the journal is, if not in the broker's own directory.
    pub journal_dir: Option<PathBuf>,
    pub max_undelivered_bytes: u64,
    /// Where the journal is delivered, if a test is about that; the keys are the emulator's.
    pub trail: Option<TrailConfig>,
    /// Aliases of more symmetric keys.
    pub keys: Vec<&'static str>,
    /// Other regions, for multi-Region keys, with where they are.
    pub fallbacks: BTreeMap<String, String>,
    pub telemetry: Telemetry,
    pub clock: Arc<dyn Clock>,
    pub emulator: EmulatorConfig,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            policy: ALL_WORKLOADS.into(),
            limits: Limits {
                calls_in_flight: 1_024,
                connections: 512,
                share: ShareLimits { connections: 256, calls_in_flight: 1_024, calls_per_second: None },
                default_deadline: Duration::from_secs(10),
                deadline_floor: Duration::from_millis(1),
                drain: Duration::from_secs(10),
            },
            commit_wait: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(3),
            max_attempts: 3,
            guard: guard(),
            insecure_tcp: false,
            tls: None,
            identities: Identities::default(),
            bindings: Bindings::default(),
            trust: Trust::aws(),
            admin_mode: 0o600,
            reuse: reuse(Rule { enabled: false, ..rule() }),
            suites_without_commitment: false,
            journal_dir: None,
            max_undelivered_bytes: 1 << 30,
            trail: None,
            keys: Vec::new(),
            fallbacks: BTreeMap::new(),
            telemetry: Telemetry::default(),
            clock: Arc::new(SystemClock),
            emulator: EmulatorConfig::default(),
        }
    }
}

/// A broker in this process, before an emulator of its own (through the AWS SDK).
pub struct TestBroker {
    pub emulator: Emulator,
    pub key_arn: String,
    pub dir: TempDir,
    journal_dir: PathBuf,
    tcp: Option<SocketAddr>,
    telemetry: Option<SocketAddr>,
    drain: CancellationToken,
    serving: JoinHandle<Remainder>,
}

impl TestBroker {
    pub async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub async fn with(setup: Setup) -> Self {
        Box::pin(Self::try_start(setup)).await.expect("the broker starts")
    }

    /// A broker, or why there is none.
    pub async fn try_start(setup: Setup) -> Result<Self, StartError> {
        let emulator = Emulator::start(setup.emulator).await.expect("the emulator starts");
        let key_arn = emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
        if setup.trail.is_some() {
            emulator.ensure_key("alias/dev-signing", KeySpec::Rsa2048).expect("a key");
        }
        for alias in &setup.keys {
            emulator.ensure_key(alias, KeySpec::SymmetricDefault).expect("a key");
        }
        let dir = tempfile::tempdir().expect("a directory");
        let clock = setup.clock;
        let settings = AwsSettings {
            attempt_timeout: setup.attempt_timeout,
            max_attempts: setup.max_attempts,
            role_arn: None,
            session_name: None,
            imds_connect_timeout: Duration::from_secs(2),
            imds_read_timeout: Duration::from_secs(10),
            fallback_regions: setup.fallbacks.keys().cloned().collect(),
            fallback_endpoint_urls: setup.fallbacks,
            ..aws_settings(&emulator)
        };
        let kms = aws_kms(settings, Arc::clone(&clock)).await;
        let caller: AwsCaller = kms.caller().await.expect("the emulator knows us");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let port = setup.insecure_tcp.then_some(any);
        let journal_dir = setup.journal_dir.unwrap_or_else(|| dir.path().join("journal"));
        let parts = Parts {
            listen: Listen {
                unix: Some(UnixAddress { path: dir.path().join("broker.sock"), mode: 0o600, gid: None }),
                tls: setup.tls.map(|tls| (any, tls)),
                vsock: None,
                insecure_tcp: port,
                admin: Some(UnixAddress {
                    path: dir.path().join("admin.sock"),
                    mode: setup.admin_mode,
                    gid: None,
                }),
            },
            identities: setup.identities,
            policies: Policy::parse(&setup.policy).expect("a policy").into(),
            bindings: setup.bindings,
            trust: setup.trust,
            audit: AuditConfig {
                journal: JournalConfig {
                    max_undelivered_bytes: setup.max_undelivered_bytes,
                    ..JournalConfig::new(journal_dir.clone(), Durability::Fsync, setup.commit_wait)
                },
                trail: setup.trail,
                stdout: false,
                redaction: None,
            },
            reuse: setup.reuse,
            suites_without_commitment: setup.suites_without_commitment,
            limits: setup.limits,
            kms: Arc::new(kms),
            guard: setup.guard,
            caller,
            telemetry: setup.telemetry,
            configuration_sha256: None,
            clock,
        };
        let drain = CancellationToken::new();
        let broker = Box::pin(Broker::start(parts, drain.clone())).await?;
        let addresses = broker.addresses();
        let (tcp, telemetry) = (addresses.tls.or(addresses.insecure_tcp), addresses.telemetry);
        let serving = tokio::spawn(broker.serve());
        Ok(Self { emulator, key_arn, dir, journal_dir, tcp, telemetry, drain, serving })
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("broker.sock")
    }

    /// Of the TLS port, else of the plaintext one.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp
    }

    /// Where `/metrics` is, if `Setup::telemetry` says so.
    pub fn telemetry_address(&self) -> Option<SocketAddr> {
        self.telemetry
    }

    pub fn journal_dir(&self) -> PathBuf {
        self.journal_dir.clone()
    }

    pub async fn client(&self) -> Client {
        Client::unix(self.socket()).await.expect("the broker listens")
    }

    /// The generated stubs on tonic's own unix transport, with no options.
    pub async fn stub(&self) -> KeyBrokerClient<Channel> {
        KeyBrokerClient::new(self.channel().await)
    }

    pub async fn channel(&self) -> Channel {
        let uri = format!("unix:{}", self.socket().display());
        Endpoint::from_shared(uri).expect("a URI").connect().await.expect("the broker listens")
    }

    pub fn start_drain(&self) {
        self.drain.cancel();
    }

    /// Drains, and returns the records that are left behind.
    pub async fn stop(self) -> Records {
        self.stop_and_count("").await.0
    }

    /// The same, with the number of calls of an operation that reached KMS until then.
    pub async fn stop_and_count(self, operation: &str) -> (Records, u64) {
        self.drain.cancel();
        self.serving.await.expect("the broker does not panic");
        (Records::read(&self.journal_dir), self.emulator.call_count(operation))
    }

    pub fn records(&self) -> Records {
        Records::read(&self.journal_dir())
    }
}

/// How to reach an emulator, with the defaults of `[kms]`.
pub fn aws_settings(emulator: &Emulator) -> AwsSettings {
    AwsSettings {
        region: "us-west-2".into(),
        endpoint_url: Some(emulator.endpoint_url()),
        sts_endpoint_url: Some(emulator.endpoint_url()),
        connect_timeout: Duration::from_secs(1),
        attempt_timeout: Duration::from_secs(3),
        max_attempts: 3,
        role_arn: None,
        session_name: None,
        imds_connect_timeout: Duration::from_secs(2),
        imds_read_timeout: Duration::from_secs(10),
        fallback_regions: Vec::new(),
        fallback_endpoint_urls: BTreeMap::new(),
        account_roles: BTreeMap::new(),
    }
}

/// The AWS SDK, with credentials that every emulator takes.
pub async fn aws_kms(settings: AwsSettings, clock: Arc<dyn Clock>) -> AwsKms {
    let keys = Credentials::new("AKIATESTEXAMPLE00000", "test-only", None, None, "test");
    AwsKms::new(settings, Some(SharedCredentialsProvider::new(keys)), clock).await
}

/// The defaults of `[reuse]`, without refresh ahead.
pub fn rule() -> Rule {
    let bounds = Bounds { max_age: Duration::from_mins(5), max_messages: 10_000, max_bytes: 1 << 30 };
    let message_bounds = Bounds { max_messages: 1 << 32, max_bytes: u64::MAX >> 1, ..bounds };
    Rule { enabled: true, bounds, message_bounds, refresh_at: None, partition: None }
}

/// The defaults of `[kms]`, but for a queue that a slow machine may take its time with.
pub fn guard() -> GuardSettings {
    let (open, longest_open) = (Duration::from_secs(1), Duration::from_secs(30));
    GuardSettings {
        max_in_flight: 128,
        queue_wait: Duration::from_secs(10),
        fair_time: Duration::from_secs(3),
        breaker: BreakerSettings { failures: 5, open, longest_open },
    }
}

/// The default of `[reuse]`.
pub const REVOCATION_CHECK: RevocationCheck = RevocationCheck {
    interval: Duration::from_mins(1),
    by_context: false,
    unverified_max: Duration::from_mins(5),
};

/// Reuse by one rule for all.
pub fn reuse(default: Rule) -> Rules {
    Rules {
        default,
        rules: Vec::new(),
        max_entries: 10_000,
        kms_deadline: Duration::from_secs(10),
        revocation_check: Some(REVOCATION_CHECK),
    }
}

/// The records of a journal.
#[derive(Debug)]
pub struct Records {
    /// Of calls that workloads or the trail caused.
    pub kms: Vec<Value>,
    /// Of the broker's own questions what an alias means.
    pub resolved: Vec<Value>,
    /// Of calls, and what the broker has found out.
    pub activity: Vec<Value>,
    /// Of the broker's own life.
    pub life: Vec<Value>,
}

impl Records {
    pub fn read(journal: &Path) -> Self {
        let parsed = journal_lines(journal).into_iter();
        Self::of(parsed.map(|line| serde_json::from_str(&line).expect("every line is a record")))
    }

    /// The records that a killed broker left: its last line may be torn.
    pub fn read_whole_lines(journal: &Path) -> Self {
        Self::of(journal_lines(journal).into_iter().filter_map(|line| serde_json::from_str(&line).ok()))
    }

    pub fn of(records: impl Iterator<Item = Value>) -> Self {
        let (activity, kms): (Vec<_>, Vec<_>) =
            records.partition(|record| record["eventCategory"] == "ActivityAuditLog");
        let is_resolved = |record: &Value| {
            record["eventName"] == "DescribeKey" && record["userIdentity"]["invokedBy"] == "key-broker"
        };
        let (resolved, kms) = kms.into_iter().partition(is_resolved);
        let is_life = |record: &Value| !record["additionalEventData"]["broker"].is_null();
        let (life, activity) = activity.into_iter().partition(is_life);
        Self { kms, resolved, activity, life }
    }

    /// The one activity record of the call with this `x-request-id`.
    pub fn activity_of(&self, request_id: &str) -> &Value {
        let mut found = self.activity.iter().filter(|record| record["requestID"] == request_id);
        let record = found.next().unwrap_or_else(|| panic!("no activity record for {request_id}"));
        assert!(found.next().is_none(), "two activity records for {request_id}");
        record
    }

    /// The one KMS record with this `x-amzn-requestid`.
    pub fn kms_of(&self, request_id: &str) -> &Value {
        let mut found = self.kms.iter().filter(|record| record["requestID"] == request_id);
        let record = found.next().unwrap_or_else(|| panic!("no KMS record for {request_id}"));
        assert!(found.next().is_none(), "two KMS records for {request_id}");
        record
    }

    pub fn outcomes(&self) -> BTreeMap<String, usize> {
        let mut outcomes = BTreeMap::new();
        for record in &self.activity {
            let outcome = record["additionalEventData"]["outcome"].as_str().expect("an outcome").to_owned();
            *outcomes.entry(outcome).or_default() += 1;
        }
        outcomes
    }
}

/// The records of all files of a journal, in the order of writing. A torn last line, as of a killed broker, is none.
pub fn journal_lines(journal: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for file in files(journal).expect("a journal") {
        let bytes = fs::read(file.path).expect("readable");
        let whole = bytes.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
        let whole = whole.filter_map(|line| std::str::from_utf8(line).ok());
        lines.extend(whole.filter_map(journal_line).map(|(_, record)| record.to_owned()));
    }
    lines
}

/// The request id of a call that failed in the broker.
pub fn id(error: &Error) -> &str {
    error.request_id().expect("every refusal has an x-request-id")
}

/// Waits until `done` says so, for at most ten seconds.
pub async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within ten seconds: {what}");
}
