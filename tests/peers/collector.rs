//! A collector that nobody here wrote, rotel: it judges what is sent to it over OTLP, and what it passes on is read here.
//!
//! rotel's own log of spans would be ambiguous: it escapes nothing. So it exports to `rotel/keep.py`, which writes down each
//! request in the JSON that protobuf defines, with OpenTelemetry's published messages. Nothing is lost on the way.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Number, Value, json};
use tempfile::TempDir;

use super::{Peers, root};

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
    rotel: Killed,
    _keeper: Killed,
    grpc: u16,
    http: u16,
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
}

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
    /// Starts one, from the peer `rotel`, on free ports of loopback.
    pub fn start(peers: &Peers) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (keeper, keeper_port) = start_keeper(peers, dir.path());
        // A port that was free may be taken before rotel has it: then rotel ends, and gets others.
        for _ in 0..5 {
            let (grpc, http) = free_ports();
            let mut rotel = start_rotel(peers, dir.path(), grpc, http, keeper_port);
            if rotel.listens_at(http) {
                let received = Mutex::default();
                let collector = Self { rotel, _keeper: keeper, grpc, http, dir, received };
                collector.send_mark();
                return collector;
            }
        }
        panic!("rotel does not listen: {}", log(dir.path()));
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT` with the protocol `grpc`.
    pub fn grpc_endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT` with the protocol `http/protobuf`: exporters append `/v1/traces`.
    pub fn http_endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    pub fn endpoint(&self, protocol: Protocol) -> String {
        match protocol {
            Protocol::Grpc => self.grpc_endpoint(),
            Protocol::Http => self.http_endpoint(),
        }
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
            "not within ten seconds: {what}; spans came by the names {names:?}; rotel: {}",
            self.complaints()
        );
    }

    /// All spans, a moment after a span of the collector's own has gone the whole way behind them: for tests in which
    /// something must not come. rotel exports several requests at a time, and now and then one overtakes another.
    pub fn settled(&self) -> Vec<Span> {
        self.send_mark();
        std::thread::sleep(Duration::from_millis(200));
        self.spans()
    }

    /// All metrics until now, each as an object `Metric` of OTLP's JSON with the resource's attributes in `resource`.
    pub fn metrics(&self) -> Vec<Value> {
        self.read().metrics.clone()
    }

    /// Everything that was received, as text: for what must not be in it. Bytes are base64 in it.
    pub fn text(&self) -> String {
        fs::read_to_string(self.dir.path().join(KEPT)).expect("a file")
    }

    /// What rotel would not take, could not read or lost; empty where all is well.
    pub fn complaints(&self) -> String {
        // rotel answers first, and another thread of it writes its log.
        std::thread::sleep(Duration::from_millis(200));
        let log = log(self.dir.path());
        let is_fine = |line: &str| {
            let level = serde_json::from_str(line).ok().and_then(|line: Value| line["level"].as_u64());
            level.is_some_and(|level| level <= INFO)
        };
        log.lines().filter(|line| !is_fine(line)).collect::<Vec<_>>().join("\n")
    }

    /// Ends the collector, and keeps what it received: connections break, and nothing listens at its endpoints any more.
    pub fn vanish(&mut self) {
        self.rotel.kill();
    }

    fn read(&self) -> std::sync::MutexGuard<'_, Received> {
        let mut received = self.received.lock().expect("nobody panics with it");
        let mut file = fs::File::open(self.dir.path().join(KEPT)).expect("the keeper's file");
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
            "POST /v1/traces HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: close\r\n\
             content-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
            self.http,
            MARK.len()
        );
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.http)).expect("rotel listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(MARK)).expect("rotel reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("rotel answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        for _ in 0..1_000 {
            if self.read().marks > before {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("rotel does not pass on what it receives: {}", log(self.dir.path()));
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
    /// One line of the keeper: the request of one export.
    fn take(&mut self, request: &Value) {
        for of_resource in list(&request["resourceSpans"]) {
            let resource = attributes(&of_resource["resource"]);
            for of_scope in list(&of_resource["scopeSpans"]) {
                let scope = text(&of_scope["scope"]["name"]);
                for span in list(&of_scope["spans"]) {
                    if span["traceId"].is_null() && span["name"] == "mark" {
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
            kind: named(&span["kind"], "SPAN_KIND_", "UNSPECIFIED"),
            trace_id: id(&span["traceId"], 16),
            span_id: id(&span["spanId"], 8),
            parent_span_id: (!span["parentSpanId"].is_null()).then(|| id(&span["parentSpanId"], 8)),
            trace_state: text(&span["traceState"]),
            start: nanoseconds(&span["startTimeUnixNano"]),
            end: nanoseconds(&span["endTimeUnixNano"]),
            attributes: attributes(span),
            links: list(&span["links"]).iter().map(Link::of).collect(),
            events: list(&span["events"]).iter().map(Event::of).collect(),
            status: Status {
                code: named(&span["status"]["code"], "STATUS_CODE_", "UNSET"),
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

/// What protobuf's JSON leaves out is what proto3 has as its default.
fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn named(value: &Value, prefix: &str, default: &str) -> String {
    let name = value.as_str().unwrap_or(default);
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}

fn nanoseconds(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no time: {value}"))
}

fn id(value: &Value, length: usize) -> String {
    let bytes = BASE64_STANDARD.decode(text(value)).expect("protobuf's JSON has bytes in base64");
    let is_id = bytes.len() == length && bytes.iter().any(|byte| *byte != 0);
    assert!(is_id, "not an id of {length} bytes: {value}");
    hex::encode(bytes)
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

    /// Whether it came so far; false if it ended.
    fn listens_at(&mut self, port: u16) -> bool {
        for _ in 0..1_500 {
            if self.0.try_wait().expect("a child").is_some() {
                return false;
            }
            // Its ports are bound together: one ends it if it is taken.
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                std::thread::sleep(Duration::from_millis(20));
                return self.0.try_wait().expect("a child").is_none();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.kill();
    }
}

fn start_keeper(peers: &Peers, dir: &Path) -> (Killed, u16) {
    let kept = dir.join(KEPT);
    let mut command = peers.command("rotel/bin/python");
    command
        .arg(root().join("tests/peers/rotel/keep.py"))
        .stdout(fs::File::create(&kept).expect("a file"))
        .stderr(appended(dir));
    let keeper = Killed(command.spawn().expect("python starts"));
    for _ in 0..1_500 {
        let text = fs::read_to_string(&kept).expect("a file");
        if let Some((line, _)) = text.split_once('\n') {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let port = line["port"].as_u64().and_then(|port| u16::try_from(port).ok());
            return (keeper, port.expect("a port"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("keep.py does not listen within 30 seconds: {}", log(dir));
}

fn start_rotel(peers: &Peers, dir: &Path, grpc: u16, http: u16, keeper: u16) -> Killed {
    let mut command = peers.command("rotel/bin/rotel-agent");
    command
        .args(["start", "--log-format", "json", "--disable-batching"])
        .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc}")])
        .args(["--otlp-http-endpoint", &format!("127.0.0.1:{http}")])
        .args(["--exporter", "otlp", "--otlp-exporter-protocol", "http"])
        .args(["--otlp-exporter-endpoint", &format!("http://127.0.0.1:{keeper}")])
        .stdout(appended(dir))
        .stderr(appended(dir));
    Killed(command.spawn().expect("rotel starts"))
}

fn appended(dir: &Path) -> Stdio {
    let options = fs::OpenOptions::new().create(true).append(true).open(dir.join(LOG));
    options.expect("a log file").into()
}

fn log(dir: &Path) -> String {
    fs::read_to_string(dir.join(LOG)).unwrap_or_default()
}

fn free_ports() -> (u16, u16) {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let (one, other) = (bind(), bind());
    let port = |listener: &TcpListener| listener.local_addr().expect("an address").port();
    (port(&one), port(&other))
}

/// What the keeper prints, and what both complain of.
const KEPT: &str = "received.jsonl";
const LOG: &str = "log";
/// The levels of rotel's log are bunyan's.
const INFO: u64 = 30;
