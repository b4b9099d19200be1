//! `key-broker dev`: the KMS emulator and a broker that uses it.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use key_broker_core::secret;
use key_broker_trail::journal::Follower;
use kms_emulator::{Emulator, EmulatorConfig, EmulatorError, KeySpec};
use rustix::process::geteuid;
use serde_json::json;

use super::audit::lines::Lines;
use super::exit::{fail, mistake};
use super::hardening::harden;
use super::target::{DEV_DIR, dev_credentials};
use super::{block_on, drain_on_signal, not_started, process_limits, stopped};
use crate::app;
use crate::config::Config;
use crate::telemetry;
use crate::telemetry::export::Export;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where everything is kept; made if it is missing
    #[arg(long, value_name = "DIR", default_value = DEV_DIR)]
    dir: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let hardening = harden();
    let journal_dir = arguments.dir.join(JOURNAL);
    let mut export = Export::from_environment(|| telemetry::instance::of_journal(&journal_dir, Some(TRAIL)));
    telemetry::init(export.traces(), export.logs(), LINES);
    export.tell();
    hardening.report();
    secret::prepare();
    let code = block_on(1, async {
        let dev = match Dev::start(&arguments.dir).await {
            Ok(dev) => dev,
            Err(error) => return mistake(error),
        };
        let mut config = match Config::load(&dev.dir.join("key-broker.toml")) {
            Ok(config) => config,
            Err(error) => return mistake(error),
        };
        if let Err(error) = process_limits::fit(&mut config) {
            return mistake(error);
        }
        let signals = process_limits::survive_file_size_limit().and_then(|()| drain_on_signal());
        let drain = match signals {
            Ok(drain) => drain,
            Err(error) => return fail(format!("cannot listen to signals: {error}")),
        };
        let told = export.telemetry(config.http);
        let calls = Follower::new(&dev.dir.join(JOURNAL));
        let welcome = || {
            welcome(&arguments.dir);
            tokio::spawn(show_calls(calls));
        };
        let served = Box::pin(app::serve(config, Some(dev_credentials()), told, drain, welcome)).await;
        dev.emulator.shutdown().await;
        match served {
            Ok(remainder) => stopped(&remainder),
            Err(error) => not_started(&error),
        }
    });
    export.finish();
    code
}

struct Dev {
    dir: PathBuf,
    emulator: Emulator,
}

impl Dev {
    async fn start(dir: &Path) -> Result<Self, String> {
        let explain = |error: io::Error| format!("{}: {error}", dir.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir.join("kms")).map_err(explain)?;
        let dir = dir.canonicalize().map_err(explain)?;
        if fs::metadata(&dir).map_err(explain)?.uid() != geteuid().as_raw() {
            return Err(format!(
                "{}: it belongs to another user: give a folder of your own with --dir",
                dir.display()
            ));
        }
        let config = EmulatorConfig {
            region: REGION.into(),
            account_id: ACCOUNT.into(),
            state_file: Some(dir.join("kms/state.json")),
            ..EmulatorConfig::default()
        };
        let emulator = Emulator::start(config).await.map_err(|error| match error {
            EmulatorError::State(_) if dir.join("dev.json").exists() => format!(
                "a `key-broker dev` runs in {} already, or its keys cannot be read ({error}): stop it, or give another folder with --dir",
                dir.display()
            ),
            error => format!("the KMS emulator: {error}"),
        })?;
        let mut keys = serde_json::Map::new();
        for (alias, spec) in KEYS {
            let arn =
                emulator.ensure_key(alias, spec).map_err(|error| format!("the KMS emulator: {error}"))?;
            keys.insert(alias.into(), arn.into());
        }
        let endpoint = emulator.endpoint_url();
        let facts = json!({
            "unix": dir.join("broker.sock"),
            "admin": dir.join("admin.sock"),
            "kms_endpoint": endpoint,
            "region": REGION,
            "account": ACCOUNT,
            "keys": keys,
        });
        // Whoever tries another policy finds it again.
        write_once(&dir.join("policy.cedar"), POLICY)
            .and_then(|()| write(&dir.join("key-broker.toml"), &configuration(&endpoint)))
            .and_then(|()| write(&dir.join("dev.json"), &format!("{facts:#}\n")))
            .map_err(explain)?;
        Ok(Self { dir, emulator })
    }
}

/// Leaves what is there.
fn write_once(path: &Path, text: &str) -> io::Result<()> {
    if path.try_exists()? { Ok(()) } else { write(path, text) }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?
        .write_all(text.as_bytes())
}

fn configuration(endpoint: &str) -> String {
    format!(
        r#"# Overwritten by every start of `key-broker dev`: copy it before you change it.
# `key-broker serve --config key-broker.toml` runs with it too, while an emulator listens at endpoint_url; give it any
# AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.

[listen]
unix = {{ path = "broker.sock", mode = "0600" }}
admin = {{ path = "admin.sock" }}

[kms]
region = "{REGION}"
endpoint_url = "{endpoint}"
sts_endpoint_url = "{endpoint}"

[policy]
file = "policy.cedar"

[audit]
journal_dir = "{JOURNAL}"
# Log files under trail/, at short intervals: the defaults are five minutes for log files and an hour for digests.
store = {{ directory = "trail", bucket = "{BUCKET}" }}
trail = "{TRAIL}"
kms_key_id = "alias/dev"
signing = {{ kms_key_id = "alias/dev-signing" }}
delivery_interval_seconds = 20
digest_interval_seconds = 20
"#
    )
}

/// Scripts wait for the words `serves on`.
fn welcome(dir: &Path) {
    let program = if std::env::var_os("CARGO").is_some() { "cargo broker" } else { "key-broker" };
    let dir = dir.display();
    let mut text = String::new();
    let _ = write!(
        text,
        r#"
key-broker dev serves on {dir}/broker.sock, with a KMS emulator. No AWS account is used.

  In another terminal, encrypt a message ("hello" in base64), and get a data key:
    {program} call encrypt-message --dir {dir} --key-id alias/dev --context tenant=acme --plaintext aGVsbG8=
    {program} call generate-data-key --dir {dir} --key-id alias/dev --context tenant=acme

  In Python, from the repository, after pip install ./client/python (client/ also has Node, Go, Java and Rust):
    import key_broker
    with key_broker.connect("unix:{dir}/broker.sock") as broker:
        message = broker.encrypt(b"hello", "alias/dev", {{"tenant": "acme"}})
        print(broker.decrypt(message, {{"tenant": "acme"}}).decode())

  Every call is shown here, and recorded in {dir}/journal/ before its reply leaves. Within half a minute its records are in
  {dir}/trail/, as CloudTrail log files, encrypted and signed:
    {program} audit tail --dir {dir}
    {program} audit verify --dir {dir}

  Ctrl-C stops it; keys, policy and records stay.
"#
    );
    // No welcome without a terminal.
    let _ = io::stdout().write_all(text.as_bytes());
    let _ = io::stdout().flush();
}

/// Shows each call of a workload as its record is written.
async fn show_calls(mut follower: Follower) {
    // Those of before were shown then. What cannot be read now can be read later, or the broker says why not.
    while let Ok(Some(_)) = follower.next_record() {}
    let mut lines = Lines::new(false, false);
    loop {
        tokio::time::sleep(PAUSE).await;
        while let Ok(Some(record)) = follower.next_record() {
            if lines.show(&record).is_err() {
                // Nobody reads stdout.
                return;
            }
        }
    }
}

/// As fast as people look.
const PAUSE: Duration = Duration::from_millis(100);
/// The log filter: without deliveries, since workloads' calls are shown.
const LINES: &str = "warn,key_broker=info,key_broker_trail::delivery=warn";
const REGION: &str = "us-west-2";
const JOURNAL: &str = "journal";
const TRAIL: &str = "dev";
const BUCKET: &str = "key-broker-dev";
const ACCOUNT: &str = "111122223333";
const KEYS: [(&str, KeySpec); 2] =
    [("alias/dev", KeySpec::SymmetricDefault), ("alias/dev-signing", KeySpec::Rsa2048)];
const POLICY: &str = "// Every process that may connect to the socket may do everything: for development only.\n\
                      permit(principal is Workload, action, resource);\n";
