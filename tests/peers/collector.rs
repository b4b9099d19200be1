//! OpenTelemetry's own Collector: it judges what is sent to it over OTLP, and what it passes on is read here. Its exporter writes each
//! request as a line of OTLP's JSON.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Map, Number, Value, json};
use tempfile::TempDir;

use super::Peers;

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

#[derive(Default)]
struct Received {
    /// How far the file has been read: whole lines only.
    until: u64,
    /// Spans of [`Collector::send_mark`].
    marks: usize,
    spans: Vec<Span>,
    metrics: Vec<Value>,
    log_lines: usize,
}

/// A `service.instance.id`, and attributes in JSON.
pub type Series = (String, String);

/// A span as it was received. Ids are lowercase hexadecimal, as `traceparent` has them.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_field_names, reason = "OpenTelemetry's names")]
pub struct Span {
    pub name: String,
    /// INTERNAL, SERVER, CLIENT, PRODUCER or CONSUMER.
    pub kind: String,
    pub trace_id: String,
    pub span_id: String,
    pub parent_span_id: Option<String>,
    /// As the header `tracestate` has it.
    pub trace_state: String,
    /// In nanoseconds since 1970.
    pub start: u64,
    pub end: u64,
    pub attributes: BTreeMap<String, Value>,
    pub links: Vec<Link>,
    pub events: Vec<Event>,
    pub status: Status,
    /// The name of the instrumentation scope.
    pub scope: String,
    /// The attributes of the resource.
    pub resource: BTreeMap<String, Value>,
    /// How many attributes, events and links the sender says that it left out.
    pub dropped: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    pub trace_id: String,
    pub span_id: String,
    pub trace_state: String,
    pub attributes: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub name: String,
    pub time: u64,
    pub attributes: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// UNSET, OK or ERROR.
    pub code: String,
    pub message: String,
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
        let mut counters = BTreeMap::<String, BTreeMap<_, _>>::new();
        for metric in &self.read().metrics {
            let (data, count) = match &metric["sum"] {
                Value::Null => (&metric["histogram"], "count"),
                sum if sum["isMonotonic"] == true => (sum, "asInt"),
                _ => continue,
            };
            for point in list(&data["dataPoints"]) {
                let instance = metric["resource"]["service.instance.id"].to_string();
                let value = text(&point[count]).parse().expect("64-bit numbers are text");
                // They are cumulative: the last one counts.
                let series = counters.entry(text(&metric["name"])).or_default();
                series.insert((instance, json!(attributes(point)).to_string()), value);
            }
        }
        counters
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
        for line in bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            received.until += u64::try_from(line.len()).expect("a length");
            received.take(&serde_json::from_slice(line).expect("a line of JSON"));
        }
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

impl Received {
    /// One line of the file: the request of one export.
    fn take(&mut self, request: &Value) {
        for of_resource in list(&request["resourceSpans"]) {
            let resource = attributes(&of_resource["resource"]);
            for of_scope in list(&of_resource["scopeSpans"]) {
                let scope = text(&of_scope["scope"]["name"]);
                for span in list(&of_scope["spans"]) {
                    if text(&span["traceId"]).is_empty() && span["name"] == "mark" {
                        self.marks += 1;
                    } else {
                        self.spans.push(Span::of(span, &scope, &resource));
                    }
                }
            }
        }
        for of_resource in list(&request["resourceMetrics"]) {
            let resource = json!(attributes(&of_resource["resource"]));
            for metric in list(&of_resource["scopeMetrics"]).iter().flat_map(|scope| list(&scope["metrics"]))
            {
                let mut metric = metric.clone();
                metric["resource"] = resource.clone();
                self.metrics.push(metric);
            }
        }
        for scope in
            list(&request["resourceLogs"]).iter().flat_map(|of_resource| list(&of_resource["scopeLogs"]))
        {
            self.log_lines += list(&scope["logRecords"]).len();
        }
    }
}

impl Span {
    /// The value of an attribute; null where it has none.
    pub fn attribute(&self, name: &str) -> &Value {
        self.attributes.get(name).unwrap_or(&Value::Null)
    }

    pub fn is_child_of(&self, parent: &Self) -> bool {
        self.trace_id == parent.trace_id && self.parent_span_id.as_ref() == Some(&parent.span_id)
    }

    pub fn links_to(&self, other: &Self) -> bool {
        self.links.iter().any(|link| (&link.trace_id, &link.span_id) == (&other.trace_id, &other.span_id))
    }

    fn of(span: &Value, scope: &str, resource: &BTreeMap<String, Value>) -> Self {
        let counts = ["droppedAttributesCount", "droppedEventsCount", "droppedLinksCount"];
        Self {
            name: text(&span["name"]),
            kind: named(&span["kind"], &KINDS),
            trace_id: id(&span["traceId"], 16),
            span_id: id(&span["spanId"], 8),
            parent_span_id: (!text(&span["parentSpanId"]).is_empty()).then(|| id(&span["parentSpanId"], 8)),
            trace_state: text(&span["traceState"]),
            start: nanoseconds(&span["startTimeUnixNano"]),
            end: nanoseconds(&span["endTimeUnixNano"]),
            attributes: attributes(span),
            links: list(&span["links"]).iter().map(Link::of).collect(),
            events: list(&span["events"]).iter().map(Event::of).collect(),
            status: Status {
                code: named(&span["status"]["code"], &CODES),
                message: text(&span["status"]["message"]),
            },
            scope: scope.to_owned(),
            resource: resource.clone(),
            dropped: counts.iter().filter_map(|count| span[*count].as_u64()).sum(),
        }
    }
}

impl Link {
    fn of(link: &Value) -> Self {
        Self {
            trace_id: id(&link["traceId"], 16),
            span_id: id(&link["spanId"], 8),
            trace_state: text(&link["traceState"]),
            attributes: attributes(link),
        }
    }
}

impl Event {
    fn of(event: &Value) -> Self {
        Self {
            name: text(&event["name"]),
            time: nanoseconds(&event["timeUnixNano"]),
            attributes: attributes(event),
        }
    }
}

/// What OTLP's JSON leaves out is what proto3 has as its default.
fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// An enum is a number.
fn named(value: &Value, names: &[&str]) -> String {
    let number = value.as_u64().unwrap_or(0);
    let name = usize::try_from(number).ok().and_then(|number| names.get(number));
    (*name.unwrap_or_else(|| panic!("neither of {names:?}: {value}"))).to_owned()
}

fn nanoseconds(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no time: {value}"))
}

/// OTLP's JSON has ids in hexadecimal, and not in base64 as other bytes.
fn id(value: &Value, length: usize) -> String {
    let id = text(value);
    let bytes = hex::decode(&id).unwrap_or_default();
    let is_id = bytes.len() == length && bytes.iter().any(|byte| *byte != 0);
    assert!(is_id, "not an id of {length} bytes: {value}");
    id
}

/// OTLP forbids the same key twice.
fn attributes(of: &Value) -> BTreeMap<String, Value> {
    let mut attributes = BTreeMap::new();
    for pair in list(&of["attributes"]) {
        let before = attributes.insert(text(&pair["key"]), value(&pair["value"]));
        assert!(before.is_none(), "the same attribute twice: {of}");
    }
    attributes
}

/// `AnyValue` as plain JSON: whole numbers stay apart from doubles; bytes become `{"base64": …}`.
fn value(any: &Value) -> Value {
    let Some((kind, inner)) = any.as_object().and_then(|object| object.iter().next()) else {
        return Value::Null;
    };
    match kind.as_str() {
        "intValue" => text(inner).parse::<i64>().expect("64-bit numbers are text").into(),
        // NaN and the infinities are text.
        "doubleValue" => {
            inner.as_f64().and_then(Number::from_f64).map_or_else(|| inner.clone(), Value::Number)
        }
        "arrayValue" => list(&inner["values"]).iter().map(value).collect(),
        "kvlistValue" => {
            let pairs = list(&inner["values"]).iter();
            Value::Object(
                pairs.map(|pair| (text(&pair["key"]), value(&pair["value"]))).collect::<Map<_, _>>(),
            )
        }
        "bytesValue" => json!({ "base64": inner }),
        _ => inner.clone(),
    }
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
            text(&line["endpoint"]).parse().expect("an address")
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
/// By OTLP's numbers.
const KINDS: [&str; 6] = ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"];
const CODES: [&str; 3] = ["UNSET", "OK", "ERROR"];
