//! OpenTelemetry's own Collector: it judges what is sent to it over OTLP, and what it passes on is read in `otlp_json.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::Peers;
use super::otlp_json::{Received, Series, Span};

/// OTLP's two transports, as `OTEL_EXPORTER_OTLP_PROTOCOL` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    Http,
}

impl Protocol {
    pub const ALL: [Self; 2] = [Self::Grpc, Self::Http];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http/protobuf",
        }
    }
}

/// A collector on loopback, ended with the test.
pub struct Collector {
    otelcol: Killed,
    /// Where anybody may send to, in plain text.
    open: Receiver,
    /// Where it takes TLS and a token, if it was told to.
    guarded: Option<Receiver>,
    dir: TempDir,
    received: Mutex<Received>,
}

impl Collector {
    /// Starts one, from the peer `otelcol`, on free ports of loopback.
    pub fn start(peers: &Peers) -> Self {
        Self::configured(peers, None)
    }

    /// Starts one that listens over TLS, and takes nothing without a token in the header `authorization`.
    pub fn guarded(peers: &Peers, guard: &Guard) -> Self {
        Self::configured(peers, Some(guard))
    }

    fn configured(peers: &Peers, guard: Option<&Guard>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join(CONFIG), config(dir.path(), guard).to_string()).expect("writes");
        let mut command = peers.command("otelcol/bin/otelcol");
        command.arg("--config").arg(dir.path().join(CONFIG));
        let log = || fs::OpenOptions::new().create(true).append(true).open(dir.path().join(LOG));
        command.stdout(Stdio::null()).stderr(log().expect("a log file"));
        let mut otelcol = Killed(command.spawn().expect("the Collector starts"));
        otelcol.wait_until_ready(dir.path());
        let open = Receiver::of(dir.path(), OPEN);
        let guarded = guard.map(|_| Receiver::of(dir.path(), GUARDED));
        let collector = Self { otelcol, open, guarded, dir, received: Mutex::default() };
        collector.send_mark();
        collector
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT` with the protocol `grpc`.
    pub fn grpc_endpoint(&self) -> String {
        self.endpoint(Protocol::Grpc)
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT` with the protocol `http/protobuf`: exporters append `/v1/traces`.
    pub fn http_endpoint(&self) -> String {
        self.endpoint(Protocol::Http)
    }

    pub fn endpoint(&self, protocol: Protocol) -> String {
        let address = |receiver: &Receiver| match protocol {
            Protocol::Grpc => receiver.grpc,
            Protocol::Http => receiver.http,
        };
        self.guarded.as_ref().map_or_else(
            || format!("http://{}", address(&self.open)),
            |guarded| format!("https://localhost:{}", address(guarded).port()),
        )
    }

    /// The variables by which any OpenTelemetry SDK exports to here.
    pub fn environment(&self, protocol: Protocol) -> [(&'static str, String); 2] {
        environment(&self.endpoint(protocol), protocol)
    }

    /// All spans until now, in the order in which they came.
    pub fn spans(&self) -> Vec<Span> {
        self.read().spans.clone()
    }

    /// Waits until `done` says so of all spans until now, for at most ten seconds; those spans. It blocks the thread: in an
    /// async test, a runtime of several threads has to be there for the broker.
    pub fn spans_when(&self, what: &str, mut done: impl FnMut(&[Span]) -> bool) -> Vec<Span> {
        let mut seen = None;
        for _ in 0..1_000 {
            let received = self.read();
            if seen != Some(received.spans.len()) {
                if done(&received.spans) {
                    return received.spans.clone();
                }
                seen = Some(received.spans.len());
            }
            drop(received);
            std::thread::sleep(Duration::from_millis(10));
        }
        let names: Vec<_> = self.spans().into_iter().map(|span| span.name).collect();
        panic!(
            "not within ten seconds: {what}; spans came by the names {names:?}; the Collector: {}",
            self.complaints()
        );
    }

    /// All spans, a moment after a span of the test's own has gone the whole way behind them: for tests in which something
    /// must not come. The Collector takes several requests at a time, and one may overtake another.
    pub fn settled(&self) -> Vec<Span> {
        self.send_mark();
        std::thread::sleep(Duration::from_millis(200));
        self.spans()
    }

    /// All metrics until now, each as an object `Metric` of OTLP's JSON with the resource's attributes in `resource`.
    pub fn metrics(&self) -> Vec<Value> {
        self.read().metrics.clone()
    }

    /// The last value of each counter, and the count of each histogram, by its name and the instance and attributes of its series.
    pub fn counters(&self) -> BTreeMap<String, BTreeMap<Series, u64>> {
        self.read().counters()
    }

    /// How many log lines came.
    pub fn log_lines(&self) -> usize {
        self.read().log_lines
    }

    /// Everything that was received, as text: for what must not be in it.
    pub fn text(&self) -> String {
        fs::read_to_string(self.dir.path().join(KEPT)).expect("a file")
    }

    /// What it warns of in its own log; empty where all is well. What it refuses, it tells only the sender.
    pub fn complaints(&self) -> String {
        // It answers first, and writes its log then.
        std::thread::sleep(Duration::from_millis(200));
        let log = log(self.dir.path());
        let is_fine = |line: &&str| {
            let line: Option<Value> = serde_json::from_str(line).ok();
            line.is_some_and(|line| line["level"] == "info")
        };
        log.lines().filter(|line| !is_fine(line)).collect::<Vec<_>>().join("\n")
    }

    /// Ends the collector, and keeps what it received: connections break, and nothing listens at its endpoints any more.
    pub fn vanish(&mut self) {
        self.otelcol.kill();
    }

    fn read(&self) -> std::sync::MutexGuard<'_, Received> {
        let mut received = self.received.lock().expect("nobody panics with it");
        let mut file = fs::File::open(self.dir.path().join(KEPT)).expect("its file");
        file.seek(SeekFrom::Start(received.until)).expect("seeks");
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("reads");
        received.take(&bytes);
        received
    }

    /// Sends one span that has no ids, which no SDK would do, and waits until it has come: an `ExportTraceServiceRequest` by
    /// hand.
    fn send_mark(&self) {
        const MARK: &[u8] = b"\x0a\x0a\x12\x08\x12\x06\x2a\x04mark";
        let before = self.read().marks;
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
             content-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
            self.open.http,
            MARK.len()
        );
        let mut stream = TcpStream::connect(self.open.http).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(MARK)).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        for _ in 0..1_000 {
            if self.read().marks > before {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the Collector does not pass on what it receives: {}", log(self.dir.path()));
    }
}

/// The variables by which any OpenTelemetry SDK exports to an endpoint.
pub fn environment(endpoint: &str, protocol: Protocol) -> [(&'static str, String); 2] {
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.to_owned()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.name().to_owned()),
    ]
}

/// A child that does not outlive the test.
struct Killed(Child);

impl Killed {
    fn kill(&mut self) {
        // Already gone is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Until it says so in its log.
    fn wait_until_ready(&mut self, dir: &Path) {
        for _ in 0..1_500 {
            let is_running = self.0.try_wait().expect("a child").is_none();
            if log(dir).contains("Everything is ready") {
                return;
            }
            assert!(is_running, "the Collector ended: {}", log(dir));
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the Collector does not listen within 30 seconds: {}", log(dir));
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where a receiver of the Collector listens.
#[derive(Debug, Clone, Copy)]
struct Receiver {
    grpc: SocketAddr,
    http: SocketAddr,
}

impl Receiver {
    /// The one of this name, as the Collector's log has it: it took free ports.
    fn of(dir: &Path, name: &str) -> Self {
        let log = log(dir);
        let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let at = |message: &str| {
            let line = lines
                .iter()
                .find(|line| line["msg"] == message && line["otelcol.component.id"] == name)
                .unwrap_or_else(|| panic!("{message}? {log}"));
            line["endpoint"].as_str().and_then(|text| text.parse().ok()).expect("an address")
        };
        Self { grpc: at("Starting GRPC server"), http: at("Starting HTTP server") }
    }
}

/// What a Collector demands of those who send to it.
#[derive(Debug)]
pub struct Guard {
    /// It shows this certificate, for `localhost`, in PEM.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// It wants `authorization: Bearer TOKEN`.
    pub token: &'static str,
}

/// Its configuration: no queues and no batches, so what it has answered is written.
fn config(dir: &Path, guard: Option<&Guard>) -> Value {
    let server = json!({ "endpoint": "127.0.0.1:0" });
    let mut receivers = json!({ OPEN: { "protocols": { "grpc": server, "http": server } } });
    let mut config = json!({
        "exporters": { "file": { "path": dir.join(KEPT), "flush_interval": "20ms" } },
        "service": { "telemetry": { "logs": { "encoding": "json" }, "metrics": { "level": "none" } } },
    });
    if let Some(guard) = guard {
        let tls = json!({ "cert_file": guard.certificate, "key_file": guard.key });
        let server =
            json!({ "endpoint": "127.0.0.1:0", "tls": tls, "auth": { "authenticator": "bearertokenauth" } });
        receivers[GUARDED] = json!({ "protocols": { "grpc": server, "http": server } });
        config["extensions"] = json!({ "bearertokenauth": { "token": guard.token } });
        config["service"]["extensions"] = json!(["bearertokenauth"]);
    }
    let names: Vec<_> = receivers.as_object().into_iter().flat_map(Map::keys).collect();
    let pipeline = json!({ "receivers": names, "exporters": ["file"] });
    config["service"]["pipelines"] = json!({ "traces": pipeline, "metrics": pipeline, "logs": pipeline });
    config["receivers"] = receivers;
    config
}

fn log(dir: &Path) -> String {
    fs::read_to_string(dir.join(LOG)).unwrap_or_default()
}

/// Its receivers.
const OPEN: &str = "otlp";
const GUARDED: &str = "otlp/guarded";
/// Its files: of JSON, too, since all JSON is YAML; what it received; and what it says of itself.
const CONFIG: &str = "otelcol.yaml";
const KEPT: &str = "received.jsonl";
const LOG: &str = "log";
