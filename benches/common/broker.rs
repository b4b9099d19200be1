//! The broker as a process, configured as for real but for KMS.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use key_broker_proto::v1::key_broker_client::KeyBrokerClient;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use super::Failure;
use super::kms::{ACCESS_KEY_ID, Emulator, SECRET_ACCESS_KEY};
use super::load::Grpc;
use super::process::Process;
use super::programs::Programs;

/// What differs between the measured brokers.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) program: &'static str,
    pub(crate) commit: &'static str,
    pub(crate) worker_threads: usize,
    pub(crate) policies: Policies,
    pub(crate) telemetry: Telemetry,
}

/// What is told of calls, beside their records.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Telemetry {
    /// Nothing.
    Off,
    /// Metrics, for whoever scrapes them.
    Metrics,
    /// Spans of one call in a hundred.
    Sampled,
    /// Spans of every call.
    Always,
}

/// What a call is held to.
#[derive(Clone, Copy)]
pub(crate) enum Policies {
    /// One policy that permits all.
    One,
    /// A hundred that look at principal, action, alias, encryption context and declared use; the last one permits.
    Hundred,
}

impl Policies {
    fn text(self) -> String {
        let one = |principal: String, alias: &str| {
            format!(
                r#"permit(principal == Workload::"{principal}", action == Action::"GenerateDataKey", resource in Alias::"{alias}")
                   when {{ context.encryptionContext.hasTag("tenant") && context.messages < 100 }};"#
            )
        };
        match self {
            Self::One => "permit(principal is Workload, action, resource);".into(),
            Self::Hundred => {
                let others = (0..99).map(|n| one(format!("spiffe://example.org/{n}"), "alias/other"));
                let ours = one(format!("unix:uid/{}", rustix::process::geteuid().as_raw()), "alias/bench");
                others.chain([ours]).collect::<Vec<_>>().concat()
            }
        }
    }
}

impl Telemetry {
    fn environment(self, collector: &str) -> Vec<(&'static str, String)> {
        let ratio = match self {
            Self::Off | Self::Metrics => return Vec::new(),
            Self::Sampled => "0.01",
            Self::Always => "1",
        };
        vec![
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("{collector}/v1/traces")),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".into()),
            ("OTEL_TRACES_SAMPLER_ARG", ratio.into()),
        ]
    }

    fn section(self) -> Result<String, Failure> {
        if self != Self::Metrics {
            return Ok(String::new());
        }
        // Nobody scrapes it: what counts is that it is counted.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        Ok(format!("[telemetry]\nhttp = \"{address}\"\n"))
    }
}

impl Default for Setup {
    /// The broker's own defaults.
    fn default() -> Self {
        Self {
            program: "key-broker",
            commit: "fsync",
            worker_threads: 1,
            policies: Policies::One,
            telemetry: Telemetry::Off,
        }
    }
}

/// A running broker.
pub(crate) struct Broker {
    pub(crate) process: Process,
    /// With configuration, journal and log.
    dir: TempDir,
}

impl Broker {
    /// Starts it and waits until callers can connect.
    pub(crate) async fn start(
        programs: &Programs,
        emulator: &Emulator,
        setup: Setup,
    ) -> Result<Self, Failure> {
        Self::start_with(programs, emulator, setup, "").await
    }

    /// The same, with a collector for its spans.
    pub(crate) async fn start_with(
        programs: &Programs,
        emulator: &Emulator,
        setup: Setup,
        collector: &str,
    ) -> Result<Self, Failure> {
        let broker = Self::spawn_with(programs, emulator, setup, collector)?;
        connect(&broker.socket()).await?;
        Ok(broker)
    }

    /// Starts it, and does not wait.
    pub(crate) fn spawn(programs: &Programs, emulator: &Emulator, setup: Setup) -> Result<Self, Failure> {
        Self::spawn_with(programs, emulator, setup, "")
    }

    fn spawn_with(
        programs: &Programs,
        emulator: &Emulator,
        setup: Setup,
        collector: &str,
    ) -> Result<Self, Failure> {
        let dir = tempfile::tempdir_in(programs.dir())?;
        fs::write(dir.path().join("policy.cedar"), setup.policies.text())?;
        let config = dir.path().join("key-broker.toml");
        fs::write(&config, configuration(&emulator.endpoint, &programs.signing_key()?, setup)?)?;
        let mut command = Command::new(programs.path(setup.program));
        command
            .args(["serve", "--config"])
            .arg(&config)
            // Nothing of whoever runs this: no profile, no region, no log filter.
            .env_clear()
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(setup.telemetry.environment(collector))
            .stdout(Stdio::null())
            .stderr(File::create(dir.path().join("log"))?);
        Ok(Self { process: Process::spawn(&mut command)?, dir })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    pub(crate) async fn client(&self) -> Result<KeyBrokerClient<Channel>, Failure> {
        Ok(KeyBrokerClient::new(connect(&self.socket()).await?))
    }

    pub(crate) async fn target(&self) -> Result<Grpc, Failure> {
        Ok(Grpc { client: self.client().await?, request: super::kms::request() })
    }

    /// Completes a command whose last part so far is the program: it verifies the trail of the broker whose files are in `dir`.
    pub(crate) fn verify(program: &mut Command, dir: &Path) {
        program
            .args(["audit", "verify", "--config"])
            .arg(dir.join("key-broker.toml"))
            .arg("--record-to")
            .arg(dir.join("reader-records.jsonl"))
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
            .env("AWS_EC2_METADATA_DISABLED", "true");
    }

    /// With `key-broker.toml`, `journal` and `trail`.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

/// A channel to whoever listens, or soon will listen, at `socket`.
pub(crate) async fn connect(socket: &Path) -> Result<Channel, Failure> {
    for _ in 0..ATTEMPTS {
        if UnixStream::connect(socket).is_ok() {
            return Ok(Endpoint::from_shared(format!("unix:{}", socket.display()))?.connect().await?);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err("nobody listens within ten seconds".into())
}

fn configuration(endpoint: &str, signing_key: &str, setup: Setup) -> Result<String, Failure> {
    let Setup { commit, worker_threads, .. } = setup;
    Ok(format!(
        r#"
[listen]
unix = {{ path = "s", mode = "0600" }}
[kms]
region = "us-west-2"
endpoint_url = "{endpoint}"
sts_endpoint_url = "{endpoint}"
[policy]
file = "policy.cedar"
[audit]
journal_dir = "journal"
commit = "{commit}"
store = {{ directory = "trail" }}
signing = {{ pem_file = "{signing_key}" }}
[runtime]
worker_threads = {worker_threads}
{}"#,
        setup.telemetry.section()?
    ))
}

const ATTEMPTS: u32 = 1_000;
const PAUSE: Duration = Duration::from_millis(10);
