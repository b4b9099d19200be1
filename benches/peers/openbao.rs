//! OpenBao as a process: its transit engine, with a file audit device, on a unix socket without TLS.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixStream;

use crate::common::Failure;
use crate::common::load::Target;
use crate::common::process::Process;
use crate::install::command;

/// A running server, and who has its data keys.
pub(crate) struct OpenBao {
    pub(crate) version: String,
    pub(crate) keys: DataKeys,
    /// Ended with this.
    _process: Process,
    /// With the audit device's file.
    _dir: TempDir,
}

/// Data keys of the transit engine, over connections that are kept: as many as there are calls in flight, since HTTP/1.1 has one call at a
/// time on each.
#[derive(Clone)]
pub(crate) struct DataKeys {
    socket: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
    token: HeaderValue,
}

type Connection = SendRequest<Full<Bytes>>;

impl OpenBao {
    /// Starts it in memory, unsealed, with a key and with a token that may have data keys of it.
    pub(crate) async fn start(program: &Path, dir: &Path) -> Result<Self, Failure> {
        let dir = tempfile::tempdir_in(dir)?;
        let (socket, config) = (dir.path().join("s"), dir.path().join("bao.hcl"));
        fs::write(&config, configuration(dir.path()))?;
        let version = command(program).arg("version").output()?;
        let version = String::from_utf8_lossy(&version.stdout);
        let version = version.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        let log = File::create(dir.path().join("log"))?;
        let mut server = command(program);
        server
            .args(["server", "-dev", "-dev-no-store-token", "-dev-listen-address=127.0.0.1:0"])
            .arg(format!("-dev-root-token-id={ROOT}"))
            .arg(format!("-config={}", config.display()))
            .env("HOME", dir.path())
            .stdout(Stdio::null())
            .stderr(log);
        let process = Process::spawn(&mut server)?;
        let mut admin = serving(&socket).await?;
        let root = HeaderValue::from_static(ROOT);
        let mut ask = async |path: &str, body: Value| post(&mut admin, path, &root, body.to_string()).await;
        ask("/v1/sys/mounts/transit", json!({ "type": "transit" })).await?;
        ask("/v1/transit/keys/bench", json!({})).await?;
        let policy = format!(r#"path "{}" {{ capabilities = ["update"] }}"#, DATA_KEY.replace("/v1/", ""));
        ask("/v1/sys/policies/acl/bench", json!({ "policy": policy })).await?;
        let made = ask("/v1/auth/token/create", json!({ "policies": ["bench"] })).await?;
        let token = made["auth"]["client_token"].as_str().ok_or("a token")?;
        let keys = DataKeys { socket, idle: Arc::default(), token: token.parse()? };
        Ok(Self { version, keys, _process: process, _dir: dir })
    }
}

impl Target for DataKeys {
    async fn call(&mut self) {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => connect(&self.socket).await.expect("the server listens"),
        };
        let body = r#"{"bits":256}"#.to_owned();
        let answered = post(&mut connection, DATA_KEY, &self.token, body).await;
        let answered = answered.expect("every call is answered");
        assert!(answered["data"]["plaintext"].is_string(), "a data key");
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}

/// Dev mode has storage in memory and a listener on loopback; to them come what callers take, and the audit device.
fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "listener \"unix\" {{\n  address = \"{dir}/s\"\n}}\n\
         audit \"file\" \"file\" {{\n  options {{\n    file_path = \"{dir}/audit.log\"\n  }}\n}}\n"
    )
}

/// A connection to it once it is unsealed.
async fn serving(socket: &Path) -> Result<Connection, Failure> {
    for _ in 0..ATTEMPTS {
        if let Ok(mut connection) = connect(socket).await {
            let asked = Request::get("/v1/sys/health").header("host", "bao").body(Full::default())?;
            if connection.send_request(asked).await.is_ok_and(|reply| reply.status() == StatusCode::OK) {
                // Whose body is left unread.
                return connect(socket).await;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err("OpenBao does not serve within twenty seconds".into())
}

async fn connect(socket: &Path) -> Result<Connection, Failure> {
    let stream = UnixStream::connect(socket).await?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // It ends with the server.
    tokio::spawn(connection);
    Ok(sender)
}

async fn post(
    connection: &mut Connection,
    path: &str,
    token: &HeaderValue,
    body: String,
) -> Result<Value, Failure> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header("host", "bao")
        .header("content-type", "application/json")
        .header("x-vault-token", token)
        .body(Full::new(Bytes::from(body)))?;
    connection.ready().await?;
    let reply = connection.send_request(request).await?;
    let status = reply.status();
    let body = reply.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        return Err(format!("{path}: {status}: {}", String::from_utf8_lossy(&body)).into());
    }
    Ok(if body.is_empty() { Value::Null } else { serde_json::from_slice(&body)? })
}

/// Of a server that is gone with the bench.
const ROOT: &str = "root";
const DATA_KEY: &str = "/v1/transit/datakey/plaintext/bench";
const ATTEMPTS: u32 = 1_000;
const PAUSE: Duration = Duration::from_millis(20);
