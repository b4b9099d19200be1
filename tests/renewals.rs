//! Proves, with the real program, through each source of credentials: sessions that last for seconds are renewed under load without
//! one failed call, no call is signed by a session that has ended, each record of KMS names the session that signed the very call (or
//! the access key alone, and a later record whose that is), and `audit reconcile` finds every call that somebody else made with any of
//! these sessions, and no other.
//!
//! A few sessions each, two hundred with `KEY_BROKER_LONG_TESTS=1`.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use key_broker_client::{Client, GenerateDataKey};
use kms_emulator::{Emulator, EmulatorConfig, KeySpec};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::Records;
use support::aws::FakeAws;
use support::process::{Process, binary, write_config};
use support::signing::write_key;
use tempfile::TempDir;
use tokio::task::{JoinHandle, JoinSet};

/// Where credentials come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// A shared credentials file, which an agent writes anew while the session before still lasts.
    File,
    WebIdentity,
    /// As EKS Pod Identity and ECS have it.
    Container,
    Process,
    /// Of an instance.
    Metadata,
}

/// A broker whose credentials come from there.
struct Place {
    source: Source,
    emulator: Emulator,
    aws: Arc<FakeAws>,
    dir: TempDir,
    config: PathBuf,
}

impl Place {
    async fn new(source: Source) -> Self {
        let emulator = Emulator::start(EmulatorConfig::default()).await.expect("starts");
        emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
        // Whoever writes files does so in good time.
        let life = if source == Source::File { 6_000 } else { 3_000 };
        let aws = Arc::new(FakeAws::start(Duration::from_millis(life), Duration::ZERO).await);
        let dir = tempfile::tempdir().expect("a directory");
        write_key(dir.path());
        let trail = "store = { directory = \"trail\", bucket = \"logs\" }\nsigning = { pem_file = \"signing.pem\" }\n\
                     [reuse]\nenabled = false";
        let config = write_config(dir.path(), &emulator.endpoint_url(), trail);
        let text = fs::read_to_string(&config).expect("reads");
        let sts = |url: &str| format!("sts_endpoint_url = \"{url}\"");
        fs::write(&config, text.replace(&sts(&emulator.endpoint_url()), &sts(&aws.url))).expect("writes");
        Self { source, emulator, aws, dir, config }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("text").to_owned()
    }

    /// Makes what the source needs: the variables that name it.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = match self.source {
            Source::File => {
                write_credentials(&self.aws, &self.dir.path().join("credentials"));
                vec![("AWS_SHARED_CREDENTIALS_FILE", self.path("credentials"))]
            }
            Source::WebIdentity => {
                fs::write(self.path("token"), "a token").expect("writes");
                vec![
                    ("AWS_WEB_IDENTITY_TOKEN_FILE", self.path("token")),
                    ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/team/broker".into()),
                    ("AWS_ENDPOINT_URL_STS", self.aws.url.clone()),
                ]
            }
            Source::Container => {
                vec![("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/creds", self.aws.url))]
            }
            Source::Process => {
                let address = self.aws.url.strip_prefix("http://").expect("plain");
                let (host, port) = address.split_once(':').expect("a port");
                let script = format!(
                    "#!/bin/bash\nexec 3<>/dev/tcp/{host}/{port}\nprintf 'GET /creds HTTP/1.0\\r\\n\\r\\n' >&3\n\
                     while IFS= read -r line && [ \"$line\" != $'\\r' ]; do :; done <&3\ncat <&3\n"
                );
                fs::write(self.path("process"), script).expect("writes");
                let runs = fs::Permissions::from_mode(0o700);
                fs::set_permissions(self.path("process"), runs).expect("changes");
                let config = format!("[default]\ncredential_process = {}\n", self.path("process"));
                fs::write(self.path("aws-config"), config).expect("writes");
                vec![("AWS_CONFIG_FILE", self.path("aws-config"))]
            }
            Source::Metadata => vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", self.aws.url.clone())],
        };
        if self.source != Source::Metadata {
            variables.push(("AWS_EC2_METADATA_DISABLED", "true".into()));
        }
        variables
    }
}

/// As an agent does: a new session in a new file, which takes the old one's name.
fn write_credentials(aws: &FakeAws, path: &Path) {
    let key = aws.begin_session();
    let text =
        format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = s\naws_session_token = t\n");
    let new = path.with_extension("new");
    fs::write(&new, text).expect("writes");
    fs::rename(&new, path).expect("renames");
}

fn agent(place: &Place, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let (aws, stop) = (Arc::clone(&place.aws), Arc::clone(stop));
    let path = place.dir.path().join("credentials");
    tokio::spawn(async move {
        while !stop.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1_100)).await;
            write_credentials(&aws, &path);
        }
    })
}

/// Calls until it is told to stop; how many.
fn load(client: Client, stop: &Arc<AtomicBool>, made: &Arc<AtomicU64>) -> JoinHandle<()> {
    let (stop, made) = (Arc::clone(stop), Arc::clone(made));
    tokio::spawn(async move {
        while !stop.load(Ordering::SeqCst) {
            let drawn = client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await;
            drawn.expect("a renewal fails no call");
            made.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
}

fn wanted() -> u64 {
    if std::env::var_os("KEY_BROKER_LONG_TESTS").is_some() { 200 } else { 6 }
}

async fn renewed(source: Source) {
    let place = Place::new(source).await;
    let variables = place.variables();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
    let broker = Process::serve_with_variables(&place.config, &variables);
    broker.wait_for_log("\"serving\"");
    let (stop, made) = (Arc::default(), Arc::default());
    let writing = (source == Source::File).then(|| agent(&place, &stop));
    let mut callers = JoinSet::new();
    for _ in 0..4 {
        let client = Client::unix(place.dir.path().join("broker.sock")).await.expect("listens");
        callers.spawn(load(client, &stop, &made));
    }
    while place.aws.sessions() <= wanted() {
        assert!(callers.try_join_next().is_none(), "a call failed after {} sessions", place.aws.sessions());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, Ordering::SeqCst);
    for caller in callers.join_all().await {
        caller.expect("no call failed");
    }
    if let Some(writing) = writing {
        writing.await.expect("writes");
    }
    broker.signal(Signal::TERM);
    assert!(broker.wait().success(), "everything is delivered");
    let records = support::trail::records(&place.dir.path().join("trail"));
    assert_eq!(records.kms.len() as u64, made.load(Ordering::SeqCst));
    let signed_by = each_names_its_session(&place, &records);
    assert!(signed_by.len() as u64 > wanted() / 2, "{} sessions signed calls", signed_by.len());
    reconciles(&place, &records, &signed_by);
    eprintln!("{} calls by {} of {} sessions", records.kms.len(), signed_by.len(), place.aws.sessions());
}

/// Returns the access keys that signed calls.
fn each_names_its_session(place: &Place, records: &Records) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for record in records.kms.iter().chain(&records.resolved) {
        let identity = &record["userIdentity"];
        let key = identity["accessKeyId"].as_str().expect("signed by somebody");
        // Where STS took longer than the session before lasted, as on a busy machine, a later record tells whose the key is.
        let reported = || records.activity.iter().map(|told| &told["additionalEventData"]["identity"]);
        let identity = if identity["arn"].is_null() {
            reported()
                .find(|told| told["accessKeyId"] == key)
                .unwrap_or_else(|| panic!("nobody tells whose: {record}"))
        } else {
            identity
        };
        assert_eq!(identity["arn"], place.aws.session(key).0, "{record}");
        keys.insert(key.to_owned());
    }
    for call in place.emulator.calls() {
        let (_, end) = place.aws.session(&call.access_key_id);
        let at = i128::from(call.at) * 1_000_000;
        assert!(at <= end.unix_timestamp_nanos(), "signed by a session that has ended: {call:?}");
    }
    keys
}

/// AWS's own trail, with two calls of somebody else's.
fn reconciles(place: &Place, records: &Records, signed_by: &BTreeSet<String>) {
    let all = || records.kms.iter().chain(&records.resolved);
    let mut aws: Vec<Value> = all().cloned().collect();
    for (place, record) in aws.iter_mut().enumerate() {
        record["eventID"] = format!("c0000000-0000-4000-8000-{place:012}").into();
    }
    let found = |aws: &[Value]| {
        let folder = tempfile::tempdir().expect("a directory");
        fs::write(folder.path().join("aws.json"), json!({ "Records": aws }).to_string()).expect("writes");
        let output = Command::new(binary())
            .args([
                "audit",
                "reconcile",
                "--json",
                "--lag-minutes",
                "0",
                "--account",
                "111122223333",
                "--config",
            ])
            .arg(&place.config)
            .arg("--cloudtrail")
            .arg(folder.path())
            .output()
            .expect("runs");
        let told: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        let stolen = told["missingFromTrail"].as_array().expect("a list").iter();
        let ids: BTreeSet<_> =
            stolen.map(|call| call["requestID"].as_str().expect("text").to_owned()).collect();
        (output.status.code(), ids)
    };
    assert_eq!(found(&aws), (Some(0), BTreeSet::new()), "no other call");
    let mut stolen = BTreeSet::new();
    for (place, key) in signed_by.iter().enumerate() {
        let of_it = |record: &&Value| record["userIdentity"]["accessKeyId"] == **key;
        let mut record = all().find(of_it).expect("it signed calls").clone();
        let id = format!("d0000000-0000-4000-8000-{place:012}");
        (record["requestID"], record["eventID"]) = (id.clone().into(), id.replace('d', "e").into());
        stolen.insert(id);
        aws.push(record);
    }
    assert_eq!(found(&aws), (Some(1), stolen), "of every session");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_shared_credentials_file() {
    renewed(Source::File).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_web_identity() {
    renewed(Source::WebIdentity).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_container() {
    renewed(Source::Container).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_credential_process() {
    renewed(Source::Process).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_instances_metadata_service() {
    renewed(Source::Metadata).await;
}
