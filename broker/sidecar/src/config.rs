//! Configuration: one TOML file, parsed into `ConfigFile`, then checked into [`Config`], which holds only valid values. A mistake names
//! its key.

mod attestation;
pub(crate) mod audit;
mod bounds;
mod group;
mod identity;
mod kms;
mod limits;
mod messages;
mod mistake;
mod redact;
mod reuse;
mod telemetry;
mod tls;
mod vsock;

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::attestation::Trust;
use crate::cache::rules::Rules;
use crate::identity::Identities;
use crate::kms::aws::AwsSettings;
use crate::kms::guard::GuardSettings;
use crate::limits::Limits;
use crate::policy::bindings::Bindings;
use crate::policy::file::Policies;
use crate::transport::opening::Listen;
use crate::transport::unix::UnixAddress;
use attestation::AttestationSection;
use audit::{Audit, AuditSection};
use bounds::{milliseconds, within};
use identity::{BindingSection, IdentitySection};
use kms::KmsSection;
pub(crate) use kms::is_unlikely_region;
use limits::LimitsSection;
use messages::MessagesSection;
use reuse::ReuseSection;
use telemetry::TelemetrySection;
use tls::TlsSection;
use vsock::VsockSection;

/// Everything `serve` needs, checked.
pub(crate) struct Config {
    /// Where to listen.
    pub(crate) listen: Listen,
    /// How to reach KMS.
    pub(crate) kms: AwsSettings,
    /// The limits of calls to KMS, and the circuit breaker.
    pub(crate) guard: GuardSettings,
    /// Rules that map connections to workloads.
    pub(crate) identities: Identities,
    /// The policies.
    pub(crate) policies: Policies,
    /// The pairs that principals' encryption contexts must contain.
    pub(crate) bindings: Bindings,
    /// Which attestation documents are accepted.
    pub(crate) trust: Trust,
    /// The journal and the trail.
    pub(crate) audit: Audit,
    /// The bounds of reuse of data keys.
    pub(crate) reuse: Rules,
    /// Whether messages of suites without key commitment are decrypted.
    pub(crate) suites_without_commitment: bool,
    /// The limits of calls and principals.
    pub(crate) limits: Limits,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub(crate) http: Option<SocketAddr>,
    /// The number of threads that serve calls.
    pub(crate) worker_threads: usize,
    /// SHA-256, in hex, of the file.
    pub(crate) sha256: String,
}

impl Config {
    /// Reads and checks the file, and the policy it names. The error says where the mistake is, and what to do.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        Self::parse(&read(path)?, path)
    }

    /// The same for another machine: what only the broker's own host can have is not looked at (groups, certificates and keys in files,
    /// variables), and where it would listen for certificates is left out.
    pub(crate) fn load_for_elsewhere(path: &Path) -> Result<Self, String> {
        Self::parse_on(Host::Elsewhere, &read(path)?, path)
    }

    /// Checks `text`, the contents of the file at `path`. Relative paths in it start at that file's directory.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, String> {
        Self::parse_on(Host::Here, text, path)
    }

    fn parse_on(host: Host, text: &str, path: &Path) -> Result<Self, String> {
        let file: ConfigFile = toml::from_str(text).map_err(|error| mistake::told(text, path, &error))?;
        let base = path.parent().unwrap_or_else(|| Path::new("."));
        let mut config =
            file.check(base, host).map_err(|mistake| format!("{}: {mistake}", path.display()))?;
        config.sha256 = hex::encode(Sha256::digest(text));
        Ok(config)
    }
}

/// On which machine the broker is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    Here,
    /// On another machine, whose files and variables are not available here.
    Elsewhere,
}

fn read(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let bytes = fs::read(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            format!("{shown}: no such file: give the configuration with --config")
        }
        ErrorKind::IsADirectory => format!("{shown}: is a folder: give the file in it with --config"),
        _ => format!("{shown}: {error}"),
    })?;
    String::from_utf8(bytes).map_err(|_| format!("{shown}: is not UTF-8, as TOML is"))
}

/// The file as people write it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct ConfigFile {
    listen: ListenSection,
    #[serde(default)]
    identity: IdentitySection,
    kms: KmsSection,
    policy: PolicySection,
    #[serde(default)]
    attestation: AttestationSection,
    audit: AuditSection,
    #[serde(default)]
    reuse: ReuseSection,
    #[serde(default)]
    messages: MessagesSection,
    #[serde(default)]
    limits: LimitsSection,
    #[serde(default)]
    telemetry: TelemetrySection,
    #[serde(default)]
    runtime: RuntimeSection,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct ListenSection {
    unix: Option<UnixSection>,
    tls: Option<TlsSection>,
    vsock: Option<VsockSection>,
    insecure_tcp: Option<SocketAddr>,
    admin: Option<UnixSection>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table: { path = \"…\" }")]
struct UnixSection {
    path: PathBuf,
    mode: Option<String>,
    group: Option<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a group's number, or its name in quotes")]
enum Group {
    Id(u32),
    Name(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct PolicySection {
    file: PathBuf,
    #[serde(default)]
    encryption_context: Vec<BindingSection>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct RuntimeSection {
    worker_threads: usize,
}

impl Default for RuntimeSection {
    fn default() -> Self {
        // Measured: on two cores that the callers share, one thread serves more than two (docs/performance.md).
        Self { worker_threads: 1 }
    }
}

impl ConfigFile {
    fn check(self, base: &Path, host: Host) -> Result<Config, String> {
        let listen = self.listen.check(base, host)?;
        let (kms, guard) = self.kms.check(host)?;
        let identities = self.identity.check()?;
        let (policies, bindings) = self.policy.check(base)?;
        let trust = self.attestation.check(base, host)?;
        let audit = self.audit.check(base, &kms.region, host)?;
        let limits = self.limits.check()?;
        let reuse = self.reuse.check(&self.messages, limits.default_deadline)?;
        let http = self.telemetry.check()?;
        let worker_threads = within("runtime.worker_threads", self.runtime.worker_threads, 1, 64)?;
        Ok(Config {
            listen,
            kms,
            guard,
            identities,
            policies,
            bindings,
            trust,
            audit,
            reuse,
            suites_without_commitment: self.messages.suites_without_commitment,
            limits,
            http,
            worker_threads,
            sha256: String::new(),
        })
    }
}

impl ListenSection {
    fn check(self, base: &Path, host: Host) -> Result<Listen, String> {
        let for_workloads =
            [self.unix.is_some(), self.tls.is_some(), self.vsock.is_some(), self.insecure_tcp.is_some()];
        if !for_workloads.contains(&true) {
            return Err("listen: nowhere to listen: set listen.unix.path, listen.tls or listen.vsock".into());
        }
        if let Some(address) = self.insecure_tcp
            && !address.ip().is_loopback()
        {
            return Err(format!(
                "listen.insecure_tcp: {address} is not a loopback address: plaintext never leaves this machine"
            ));
        }
        let checked = |section: Option<UnixSection>, name, mode| {
            section.map(|section| section.check(name, mode, base, host)).transpose()
        };
        let unix = checked(self.unix, "listen.unix", WORKLOAD_MODE)?;
        let admin = checked(self.admin, "listen.admin", ADMIN_MODE)?;
        if let (Some(unix), Some(admin)) = (&unix, &admin)
            && unix.path == admin.path
        {
            return Err(
                "listen.admin.path: is listen.unix.path: workloads never share the operator's socket".into(),
            );
        }
        let tls = self.tls.filter(|_| host == Host::Here).map(|section| section.check(base)).transpose()?;
        let vsock = self.vsock.map(VsockSection::check).transpose()?;
        Ok(Listen { unix, tls, vsock, insecure_tcp: self.insecure_tcp, admin })
    }
}

impl UnixSection {
    /// Checks the section that is called `name`, whose mode is `mode` unless it says so.
    fn check(self, name: &str, mode: u32, base: &Path, host: Host) -> Result<UnixAddress, String> {
        let mode = match &self.mode {
            None => mode,
            Some(text) => {
                u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777).ok_or_else(|| {
                    format!("{name}.mode: {text:?} is not an octal mode such as \"{mode:04o}\"")
                })?
            }
        };
        let gid = match self.group {
            None => None,
            Some(Group::Id(gid)) => Some(gid),
            Some(Group::Name(_)) if host == Host::Elsewhere => None,
            Some(Group::Name(group)) => Some(group::id_of(&group).ok_or_else(|| {
                let next = if group.parse::<u32>().is_ok() {
                    format!("a number has no quotes, group = {group}")
                } else {
                    "give its number".to_owned()
                };
                format!("{name}.group: /etc/group has no group {group:?}: {next}")
            })?),
        };
        UnixAddress::refuse_what_is_no_path(&self.path).map_err(|why| format!("{name}.path: {why}"))?;
        let path = base.join(self.path);
        // unix(7): sun_path has 108 bytes with its terminator; binding adds a dot and the process id for a moment.
        if path.as_os_str().len() > MAX_SOCKET_PATH_BYTES {
            return Err(format!(
                "{name}.path: {} has more than {MAX_SOCKET_PATH_BYTES} bytes: choose a shorter path",
                path.display()
            ));
        }
        Ok(UnixAddress { path, mode, gid })
    }
}

impl PolicySection {
    fn check(self, base: &Path) -> Result<(Policies, Bindings), String> {
        let policies =
            Policies::load(&base.join(self.file)).map_err(|error| format!("policy.file: {error}"))?;
        let sections = self.encryption_context.into_iter().enumerate();
        let bindings = sections.map(|(place, section)| section.check(place)).collect::<Result<_, _>>()?;
        Ok((policies, Bindings(bindings)))
    }
}

/// Owner and group may connect.
const WORKLOAD_MODE: u32 = 0o660;
/// The owner may connect.
const ADMIN_MODE: u32 = 0o600;
/// unix(7): 108 bytes with the terminating zero, less `.` and a process id of up to seven digits.
const MAX_SOCKET_PATH_BYTES: usize = 99;

#[cfg(test)]
mod tests {
    //! A good file becomes values; every mistake is one line that names its key or line.

    use std::time::Duration;

    use super::*;
    use key_broker_trail::journal::Durability;

    use crate::transport::vsock::VsockAddress;

    const GOOD: &str = r#"
[listen]
unix = { path = "broker.sock" }
[kms]
region = "us-west-2"
[policy]
file = "policy.cedar"
[audit]
journal_dir = "journal"
"#;

    fn parse(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().expect("dir");
        fs::write(dir.path().join("policy.cedar"), "permit(principal is Workload, action, resource);")
            .expect("writes");
        let path = dir.path().join("key-broker.toml");
        Config::parse(text, &path).map_err(|error| error.replace(dir.path().to_str().expect("text"), "DIR"))
    }

    #[test]
    fn defaults_and_relative_paths() {
        let config = parse(GOOD).expect("good");
        let unix = config.listen.unix.expect("unix");
        assert!(unix.path.is_absolute() && unix.path.ends_with("broker.sock"));
        assert_eq!((unix.mode, unix.gid), (0o660, None));
        assert_eq!(config.listen.admin, None);
        let with_admin = GOOD.replace("[kms]", "admin = { path = \"admin.sock\" }\n[kms]");
        let config = parse(&with_admin).expect("good");
        let admin = config.listen.admin.expect("admin");
        assert_eq!((admin.path.ends_with("admin.sock"), admin.mode, admin.gid), (true, 0o600, None));
        assert_eq!(config.audit.journal.commit, Durability::Fsync);
        assert!(config.audit.trail.is_none());
        assert_eq!(
            (config.limits.calls_in_flight, config.worker_threads, config.policies.current().len()),
            (1_024, 1, 1)
        );
    }

    #[test]
    fn attestation_is_awss_unless_told() {
        let config = parse(GOOD).expect("good");
        assert_eq!((config.trust, config.listen.vsock), (Trust::aws(), None));
        let text = vsock("vsock = { cids = [16, 17] }");
        let more = "[attestation]\nmax_document_age_seconds = 60\nclock_skew_seconds = 0\ninsecure_allow_debug = true";
        let config = parse(&format!("{text}{more}")).expect("good");
        assert_eq!(config.listen.vsock, Some(VsockAddress { port: 7_890, cids: vec![16, 17] }));
        let (max_age, clock_skew) = (Duration::from_mins(1), Duration::ZERO);
        assert_eq!(config.trust, Trust { max_age, clock_skew, allow_debug: true, ..Trust::aws() });
    }

    fn vsock(line: &str) -> String {
        GOOD.replace("unix = { path = \"broker.sock\" }", line)
    }

    fn audit(more: &str) -> String {
        GOOD.replace("\"journal\"", &format!("\"journal\"\n{more}"))
    }

    fn trail(more: &str) -> String {
        audit(&format!("signing = {{ kms_key_id = \"alias/signing\" }}\n{more}"))
    }

    #[test]
    fn a_trail_has_cloudtrails_intervals_and_its_own_names() {
        let text =
            trail("store = { directory = \"trail\", bucket = \"logs\" }\nkms_key_id = \"alias/trail\"");
        let config = parse(&text).expect("good");
        let trail = config.audit.trail.expect("a trail");
        assert_eq!((trail.delivery_interval.as_secs(), trail.digest_interval.as_secs()), (300, 3_600));
        assert_eq!((trail.name.as_str(), trail.prefix.as_str()), ("key-broker", ""));
    }

    #[test]
    fn mistakes_name_their_place() {
        let cases = [
            "",
            "listen = 1",
            &GOOD.replace("unix = { path = \"broker.sock\" }", "unix = \"broker.sock\""),
            &GOOD.replace("\"us-west-2\"", "\"us-west-2\"\nmax_attempts = \"3\""),
            &format!("{GOOD}[reuse]\nmax_age_seconds = \"5m\""),
            &format!("{GOOD}[[reuse.rule]]\nkey_id = \"alias/a\"\nmax_byte = 5"),
            &GOOD.replace("[policy]\nfile = \"policy.cedar\"", "[policy]"),
            &audit("store = { directory = \"trail\", s3_bucket = \"logs\" }"),
            &GOOD.replace("region", "regoin"),
            &GOOD.replace("\"us-west-2\"", "\"us west\""),
            &GOOD.replace("unix = { path = \"broker.sock\" }", ""),
            &GOOD.replace("unix = { path = \"broker.sock\" }", "insecure_tcp = \"0.0.0.0:7890\""),
            &GOOD.replace("unix = { path = \"broker.sock\" }", "tls = \"127.0.0.1:7890\""),
            &GOOD.replace("[kms]", "tcp = { address = \"127.0.0.1:7890\" }\n[kms]"),
            &GOOD.replace("[kms]", "[listen.tcp]\naddress = \"127.0.0.1:7890\"\n[kms]"),
            &GOOD.replace("\"broker.sock\"", "\"broker.sock\", mode = \"rw\""),
            &GOOD.replace("\"broker.sock\"", "\"broker.sock\", group = \"no-such-group\""),
            &GOOD.replace("broker.sock", &"x".repeat(108)),
            &GOOD.replace("broker.sock", "@broker"),
            &GOOD.replace("broker.sock", "unix:///run/broker.sock"),
            &GOOD.replace("[kms]", "admin = { path = \"unix-abstract:admin\" }\n[kms]"),
            &GOOD.replace("[kms]", "admin = { path = \"admin.sock\", mode = \"0800\" }\n[kms]"),
            &GOOD.replace("[kms]", "admin = { path = \"admin.sock\", group = \"2345\" }\n[kms]"),
            &GOOD.replace("[kms]", "admin = { path = \"broker.sock\" }\n[kms]"),
            &GOOD.replace("unix =", "admin ="),
            &vsock("vsock = { port = 7890 }"),
            &vsock("vsock = { cids = [] }"),
            &vsock("vsock = { cids = [16, 3] }"),
            &vsock("vsock = { cids = [4294967295] }"),
            &vsock("vsock = { port = 0, cids = [16] }"),
            &format!("{GOOD}[attestation]\nroots = []"),
            &format!("{GOOD}[attestation]\nroots = [\"none.pem\"]"),
            &format!("{GOOD}[attestation]\nroots = [\"policy.cedar\"]"),
            &format!("{GOOD}[attestation]\nmax_document_age_seconds = 10801"),
            &format!("{GOOD}[attestation]\nclock_skew_seconds = 301"),
            &format!("{GOOD}[attestation]\nallow_debug = true"),
            &GOOD.replace("policy.cedar", "missing.cedar"),
            &GOOD.replace("\"journal\"", "\"journal\"\ncommit = \"never\""),
            &GOOD.replace("\"journal\"", "\"journal\"\ncommit_wait_ms = 0"),
            &GOOD.replace("\"us-west-2\"", "\"us-west-2\"\nendpoint_url = \"localhost\""),
            &audit("redact = { encryption_context = [\"tenant\"] }"),
            &audit("redact = { encryption_context = [], plain = true }"),
            &audit("redact = { encryption_context = [\"a\", \"a\"], plain = true }"),
            &audit("redact = { encryption_context = [\"aws:cloudtrail:arn\"], plain = true }"),
            &audit("redact = { encryption_context = [\"a\"], plain = true, key_file = \"policy.cedar\" }"),
            &audit("redact = { encryption_context = [\"a\"], key_file = \"none.key\" }"),
            &audit("max_undelivered_bytes = 1000"),
            &audit("max_log_file_bytes = 999999"),
            &audit("max_log_file_bytes = 50000001"),
            &audit("trail = \"a-trail\""),
            &audit("store = { directory = \"trail\" }"),
            &audit("store = { directory = \"trail\" }\nsigning = {}"),
            &audit("store = { directory = \"trail\" }\nsigning = { pem_file = \"none.pem\" }"),
            &audit("store = { directory = \"trail\" }\nsigning = { pem_file = \"policy.cedar\" }"),
            &trail("store = { }"),
            &trail("store = { directory = \"trail\", s3_bucket = \"logs\" }"),
            &trail("store = { directory = \"trail\", bucket = \"Logs\" }"),
            &trail("store = { s3_bucket = \"logs\", s3_endpoint_url = \"localhost\" }"),
            &trail("store = { directory = \"trail\" }\ntrail = \"-\""),
            &trail("store = { directory = \"trail\" }\nprefix = \"/a\""),
            &trail("store = { directory = \"trail\" }\nprefix = \"a/../b\""),
            &trail("store = { directory = \"trail\" }\ndelivery_interval_seconds = 0"),
            &trail("store = { directory = \"trail\" }\nkms_key_id = \"no key\""),
            &format!("{GOOD}[limits]\ncalls_in_flight = 0"),
            &GOOD.replace("\"us-west-2\"", "\"us-west-2\"\nmax_in_flight = 0"),
            &GOOD.replace("\"us-west-2\"", "\"us-west-2\"\nbreaker_longest_open_ms = 10"),
            &format!("{GOOD}[reuse]\nrevocation_check_seconds = -1"),
            &format!("{GOOD}[kms]\nregion = \"us-west-2\""),
            &format!("{GOOD}[telemetry]\nhttp = \"localhost:9464\""),
            &format!("{GOOD}[telemetry]\nhttp = \"0.0.0.0:0\""),
            &format!("{GOOD}[telemetry]\nmetrics = true"),
            &format!("{GOOD}[runtime]\nworker_threads = 65"),
            &format!("{GOOD}[reuse]\nmax_messages = 4294967297"),
            &format!("{GOOD}[reuse]\nmax_age_seconds = 0"),
            &format!("{GOOD}[reuse]\nrefresh_at = 1.5"),
            &format!("{GOOD}[[reuse.rule]]\nmax_age_seconds = 60"),
            &format!("{GOOD}[[reuse.rule]]\nkey_id = \"alias/a\"\nmax_bytes = 0"),
            &format!(
                "{GOOD}[[reuse.rule]]\nkey_id = \"alias/a\"\n[[reuse.rule]]\nkey_id = \"alias/a\"\nenabled = false"
            ),
            &format!(
                "{GOOD}[[reuse.rule]]\nkey_id = \"alias/a\"\n[[reuse.rule]]\nkey_id = \"alias/a\"\nprincipal = \"unix:uid/1\""
            ),
            &format!("{GOOD}[[reuse.rule]]\nkey_id = \"alias/a\"\nenabled = false\nmax_messages = 5"),
            &format!("{GOOD}[[reuse.rule]]\nkey_id = \"no key\""),
        ];
        let mistakes: Vec<String> = cases
            .iter()
            .map(|text| parse(text).err().unwrap_or_else(|| format!("accepted: {text}")))
            .map(|line| line.split("/.tmp").next().unwrap_or_default().to_owned())
            .collect();
        insta::assert_snapshot!(mistakes.join("\n"));
    }
}
