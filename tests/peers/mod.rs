//! Programs that nobody here wrote, for tests: installed by `tests/peers/install`, run as processes of their own.
#![allow(dead_code, unreachable_pub, reason = "every test file uses another part of this one")]

pub mod caller;
pub mod collector;
pub mod otlp_json;

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Value, json};

/// The repository.
pub fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        // The package of most tests is broker/sidecar.
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let top = package.ancestors().find(|dir| dir.join("Cargo.lock").exists());
        top.expect("a package is in its workspace").to_owned()
    });
    &ROOT
}

/// Where the installed programs are.
pub struct Peers(PathBuf);

impl Peers {
    /// Installs what is not there yet. Panics, with what to install, where that cannot be done: a test that silently proves
    /// nothing is worse than one that fails.
    pub fn install(what: &[&str]) -> Self {
        let names = what.join(" ");
        assert!(
            env::var_os("KEY_BROKER_SKIP_PEERS").is_none_or(|skip| skip != "1"),
            "KEY_BROKER_SKIP_PEERS is 1, but this test needs {names}: it is to be ignored then, as tests/peers/machine.rs says"
        );
        let dir = env::var_os("PEERS_DIR").map_or_else(|| root().join("target/peers"), PathBuf::from);
        let ran = output(Command::new(root().join("tests/peers/install")).args(what).env("PEERS_DIR", &dir));
        let why = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "tests/peers/install {names}: {}", why.trim());
        Self(dir)
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// A command that gets nothing from this process's surroundings that would change how a peer behaves.
    pub fn command(&self, path: &str) -> Command {
        plain(self.path(path))
    }
}

/// What Trivy says of manifests or Dockerfiles: it fails where it finds something that matters.
pub fn trivy(path: &Path) -> Output {
    let mut trivy = Peers::install(&["lints"]).command("lints/bin/trivy");
    trivy.args([
        "config",
        "--skip-check-update",
        "--quiet",
        "--severity",
        "HIGH,CRITICAL",
        "--exit-code",
        "1",
    ]);
    output(trivy.arg(path))
}

/// A command without proxies and options of gRPC, AWS and OpenTelemetry of the environment.
pub fn plain(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy().to_lowercase();
        let of = ["grpc_", "aws_", "otel_"];
        if of.iter().any(|start| text.starts_with(start)) || text.ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()))
}

/// Runs a command that has to succeed; what it printed.
pub fn printed(command: &mut Command) -> String {
    let ran = output(command);
    let (stdout, stderr) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", ran.status);
    stdout.into_owned()
}

/// The lines that a client printed.
pub fn cases(command: &mut Command) -> Vec<Value> {
    let text = printed(command);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

/// Asks KMS at `endpoint` in AWS's JSON 1.1 and nobody's SDK; it has to succeed.
pub fn kms(endpoint: &str, action: &str, request: &Value) -> Value {
    let headers = format!(
        "content-type: application/x-amz-json-1.1\r\nx-amz-target: TrentService.{action}\r\n\
         authorization: AWS4-HMAC-SHA256 Credential=AKIATESTEXAMPLE00000/20260101/us-west-2/kms/aws4_request, \
         SignedHeaders=host, Signature=00\r\n"
    );
    http(endpoint, "POST", "/", &headers, request)
}

/// Makes a key that is disabled; its id.
pub fn disabled_key(endpoint: &str) -> String {
    let made = kms(endpoint, "CreateKey", &json!({}));
    let id = made["KeyMetadata"]["KeyId"].as_str().expect("a key has an id").to_owned();
    kms(endpoint, "DisableKey", &json!({ "KeyId": id }));
    id
}

/// One HTTP request to loopback; the JSON of its answer, which has to be 200.
pub fn http(endpoint: &str, method: &str, path: &str, headers: &str, body: &Value) -> Value {
    let address = endpoint.strip_prefix("http://").expect("an http endpoint").trim_end_matches('/');
    let body = body.to_string();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).expect("KMS listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("KMS reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("KMS answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    assert_eq!(head.split_whitespace().nth(1), Some("200"), "{method} {path}: {answer}");
    if body.is_empty() { Value::Null } else { serde_json::from_str(body).expect("JSON") }
}

/// moto on loopback, ended with the test.
pub struct Moto {
    child: Child,
    pub endpoint: String,
}

impl Moto {
    /// Starts it on a free port; its log goes to `dir`.
    pub fn start(peers: &Peers, dir: &Path) -> Self {
        let log = dir.join("moto.log");
        let file = fs::File::create(&log).expect("a log file");
        let child = peers
            .command("moto/bin/moto_server")
            .args(["--host", "127.0.0.1", "--port", "0"])
            .env("PYTHONUNBUFFERED", "1")
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .expect("moto starts");
        let mut moto = Self { child, endpoint: String::new() };
        for _ in 0..600 {
            let text = fs::read_to_string(&log).expect("a log");
            if let Some((_, rest)) = text.split_once("Running on http://127.0.0.1:") {
                let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                moto.endpoint = format!("http://127.0.0.1:{port}");
                return moto;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("moto does not listen within 30 seconds: {}", fs::read_to_string(&log).unwrap_or_default());
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has every record judged by JSON Schema.
pub fn check_records(records: &[String]) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("records.jsonl");
    fs::write(&file, records.join("\n") + "\n").expect("writes");
    let verdict = schema_verdict(&[file]);
    assert!(verdict.contains("failures=0") && !verdict.contains("records=0"), "{verdict}");
}

/// Has every digest below `root` judged by JSON Schema: there have to be so many.
fn check_digests(root: &Path, digests: usize) {
    let files: Vec<PathBuf> = files_below(root)
        .into_iter()
        .filter(|path| path.components().any(|part| part.as_os_str() == "CloudTrail-Digest"))
        // Beside each is its metadata.
        .filter(|path| path.extension().is_some_and(|end| end == "gz"))
        .collect();
    let verdict = schema_verdict(&files);
    assert!(verdict.contains(&format!("digests={digests} failures=0")), "{verdict}");
}

fn schema_verdict(files: &[PathBuf]) -> String {
    let peers = Peers::install(&["records"]);
    printed(peers.command("records/bin/python").arg(root().join("tests/judges/check-records")).args(files))
}

/// The name of the one trail there.
fn trail_below(root: &Path) -> String {
    let names = files_below(root).into_iter().filter_map(|path| {
        let name = path.file_name()?.to_str()?;
        let (_, rest) = name.split_once("_CloudTrail-Digest_us-west-2_")?;
        Some(rest.split_once("_us-west-2_")?.0.to_owned())
    });
    let names: std::collections::BTreeSet<String> = names.collect();
    assert_eq!(names.len(), 1, "{names:?}");
    names.into_iter().next().unwrap_or_default()
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// Has a trail that lies below `root` judged by JSON Schema and by the unmodified AWS CLI: all of its digests and log files
/// have to be valid.
pub fn validate_logs(root: &Path, public_key: &str, digests: usize, log_files: usize) {
    check_digests(root, digests);
    let peers = Peers::install(&["validate-logs"]);
    let judge = self::root().join("tests/judges/aws-validate-logs");
    let dir = tempfile::tempdir().expect("a directory");
    let key = dir.path().join("key.pem");
    fs::write(&key, public_key).expect("writes");
    let verdict = printed(
        peers
            .command("validate-logs/bin/python")
            .arg(judge)
            .arg("--tree")
            .arg(root)
            .args(["--bucket", "logs", "--trail-arn"])
            .arg(format!("arn:aws:cloudtrail:us-west-2:111122223333:trail/{}", trail_below(root)))
            .arg("--public-key")
            .arg(key)
            .args(["--start", "2015-01-01T00:00:00Z", "--end", "2100-01-01T00:00:00Z"]),
    );
    for all in [
        format!("{digests}/{digests} digest files valid"),
        format!("{log_files}/{log_files} log files valid"),
    ] {
        assert!(verdict.contains(&all), "{all} is not what the AWS CLI says: {verdict}");
    }
}
