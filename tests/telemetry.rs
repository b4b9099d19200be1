//! Proves, with OpenTelemetry's own caller and its own Collector, over both transports: a call is one trace from its
//! caller to KMS; every record has its span, and every span of a call or of an answer of KMS its record; a kept key's uses link to
//! the call to KMS that made it; nothing goes out that is not meant to; and a collector that hangs, refuses or vanishes costs no
//! call anything.

#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use key_broker_client::{Client, GenerateDataKey};
use kms_emulator::{Emulator, EmulatorConfig, Fault, KeySpec};
use peers::caller::{Called, Caller, Calls};
use peers::check_records;
use peers::collector::{Collector, Protocol};
use peers::otlp_json::Span;
use peers::{Peers, root};
use rustix::process::Signal;
use serde_json::Value;
use support::bad_collector::{Hanging, Refusing, Vanishing};
use support::process::{Process, write_config};
use support::registry::Registry;
use support::{Records, journal_lines};
use tempfile::TempDir;

/// A broker as a process of its own, which exports what it does, before an emulator.
struct Site {
    emulator: Emulator,
    dir: TempDir,
    broker: Process,
}

impl Site {
    async fn start(environment: &[(&str, String)], more: &str) -> Self {
        let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
        for alias in ["alias/dev", "alias/coalesced", "alias/refreshed"] {
            emulator.ensure_key(alias, KeySpec::SymmetricDefault).expect("a key");
        }
        emulator.ensure_key("alias/dev-signing", KeySpec::Rsa2048).expect("a key");
        let dir = tempfile::tempdir().expect("a directory");
        let config = write_config(dir.path(), &emulator.endpoint_url(), more);
        let mut command = Process::serve_command(&config);
        command.env("OTEL_BSP_SCHEDULE_DELAY", "100").env("OTEL_BSP_MAX_QUEUE_SIZE", "65536");
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let broker = Process::serve_by(command, &config);
        Self { emulator, dir, broker }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("broker.sock")
    }

    /// Drains; what is left are its records and what it logged.
    fn stop(self) -> (Emulator, TempDir, String) {
        self.broker.signal(Signal::TERM);
        self.broker.wait_for_log("\"stopped\"");
        let log = self.broker.log();
        let status = self.broker.wait();
        assert!(status.success(), "{status}: {log}");
        (self.emulator, self.dir, log)
    }
}

/// An address that nobody listens at.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

/// The metrics as Prometheus reads them.
fn scrape(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).expect("listens");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n").expect("writes");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("reads");
    text
}

/// The spans of the broker.
fn of_broker(spans: &[Span]) -> Vec<&Span> {
    spans.iter().filter(|span| span.resource["service.name"] == "key-broker").collect()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name}: {value}"))
}

/// The text of a span's attribute.
fn text_of<'a>(span: &'a Span, name: &str) -> &'a str {
    span.attribute(name).as_str().unwrap_or_else(|| panic!("no {name}: {span:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn a_thousand_calls_are_a_thousand_traces_from_caller_to_kms_and_every_record_joins_one_span() {
    let peers = Peers::install(&["otelcol"]);
    let python = Peers::install(&["python-otel"]);
    for protocol in Protocol::ALL {
        let collector = Collector::start(&peers);
        let site = Site::start(&collector.environment(protocol), "").await;
        let calls = thousand_calls(&site, &Caller::new(&python, &collector, protocol));
        let socket = site.socket();
        let (emulator, dir, log) = site.stop();
        assert!(!socket.exists());
        let records = Records::read(&dir.path().join("journal"));
        check_records(&journal_lines(&dir.path().join("journal")));
        assert!(calls.len() >= 1_000, "{}", calls.len());
        assert_eq!(records.activity.len(), calls.len());

        let spans = collector.spans_when("the last spans", |spans| {
            of_broker(spans).iter().filter(|span| span.kind == "SERVER").count() == calls.len()
        });
        let spans = of_broker(&spans);
        assert!(spans.iter().all(|span| span.dropped == 0 && span.scope == "key-broker"));
        spans_are_declared(&spans);
        activity_joins(&records, &spans);
        kms_joins(&records, &spans, &emulator);
        for call in &calls {
            caller_joins(call, &records, &spans);
        }
        hits_link_to_the_call_that_made_the_key(&records, &spans);
        nothing_is_told_that_is_not_meant_to(&collector, &log, &emulator);
        let metrics: BTreeSet<_> =
            collector.metrics().iter().map(|metric| text(metric, "name").to_owned()).collect();
        for name in ["rpc.server.call.duration", "keybroker.kms.request.duration", "keybroker.audit.records"]
        {
            assert!(metrics.contains(name), "{name}: {metrics:?}");
        }
        assert_eq!(collector.complaints(), "");
    }
}

/// Every span, each of its attributes and each value of a closed set is in the registry.
fn spans_are_declared(spans: &[&Span]) {
    let registry = Registry::read(root());
    for span in spans {
        let declared = registry.span(&span.name).unwrap_or_else(|| panic!("{} is not declared", span.name));
        assert_eq!(span.kind.to_lowercase(), declared.kind, "{}", span.name);
        for (name, value) in &span.attributes {
            assert!(declared.attributes.contains(name), "{}: {name}", span.name);
            registry.check(name, value);
        }
        for (name, value) in span.events.iter().flat_map(|event| &event.attributes) {
            registry.check(name, value);
        }
    }
}

/// Of every kind and outcome; the emulator throttles some, once or for good, and does not answer others.
fn thousand_calls(site: &Site, caller: &Caller<'_>) -> Vec<Called> {
    let run = |plan: &[Calls<'_>]| caller.run(&site.socket(), plan).calls;
    let mut calls = run(&[
        Calls::of("generate", 500),
        Calls::of("fresh", 100),
        Calls::of("decrypt", 100),
        Calls::of("wrong_context", 50),
        Calls::of("without_plaintext", 50),
        Calls::of("random", 50),
        Calls::of("describe", 50),
        Calls::of("no_length", 20),
        Calls::of("fresh", 10).with_key("alias/none"),
    ]);
    // Once throttled: the SDK tries again, and KMS answers twice.
    site.emulator.inject(Fault::throttling().on("GenerateDataKey").times(5).every(2));
    calls.extend(run(&[Calls::of("fresh", 10)]));
    site.emulator.clear_faults();
    site.emulator.inject(Fault::throttling().on("GenerateRandom"));
    calls.extend(run(&[Calls::of("random", 2)]));
    site.emulator.clear_faults();
    site.emulator.inject(Fault::new(kms_emulator::Effect::Hang).on("GenerateRandom"));
    calls.extend(run(&[Calls::of("random", 1)]));
    site.emulator.clear_faults();
    // All at once, of a key that takes KMS a while: one call to KMS.
    site.emulator.inject(Fault::latency(Duration::from_millis(500)).on("GenerateDataKey"));
    calls.extend(run(&[Calls::of("generate", 100).at_once().with_key("alias/coalesced")]));
    site.emulator.clear_faults();
    calls
}

/// Every activity record names its server span, and that names the record; there are no others.
fn activity_joins(records: &Records, spans: &[&Span]) {
    let servers: BTreeMap<&str, &&Span> =
        spans.iter().filter(|span| span.kind == "SERVER").map(|span| (span.span_id.as_str(), span)).collect();
    assert_eq!(servers.len(), records.activity.len());
    for record in &records.activity {
        let trace = &record["additionalEventData"]["trace"];
        let span = servers[text(trace, "spanId")];
        assert_eq!(span.trace_id, text(trace, "traceId"));
        assert_eq!(span.name, format!("keybroker.v1.KeyBroker/{}", text(record, "eventName")));
        assert_eq!(span.attribute("keybroker.event_id"), &record["eventID"]);
        assert_eq!(span.attribute("keybroker.request_id"), &record["requestID"]);
        assert_eq!(span.attribute("keybroker.outcome"), &record["additionalEventData"]["outcome"]);
        assert_eq!(span.attribute("rpc.system.name"), "grpc");
        assert_eq!(span.attribute("rpc.method"), &*span.name);
        assert_eq!(span.attribute("keybroker.transport"), "unix");
        let kms_request_id = &record["additionalEventData"]["dataKey"]["kmsRequestID"];
        assert_eq!(span.attribute("keybroker.kms.request_id"), kms_request_id);
        let code = text_of(span, "rpc.status_code");
        assert_eq!(code == "OK", record.get("errorCode").is_none(), "{span:?}");
        // A caller's mistake is no error of the server.
        let is_error = SERVER_ERRORS.contains(&code);
        assert_eq!(span.status.code == "ERROR", is_error, "{span:?}");
        assert_eq!(span.attribute("error.type").as_str(), is_error.then_some(code));
        let children: BTreeSet<_> =
            spans.iter().filter(|child| child.is_child_of(span)).map(|child| child.name.as_str()).collect();
        assert!(children.contains("audit.commit"), "{children:?}");
        let was_decided = record["additionalEventData"].get("policy").is_some();
        assert_eq!(children.contains("authorize"), was_decided, "{children:?}");
    }
}

/// Every answer of KMS is a record, and on one span; and every call that KMS answered is in the emulator's log.
fn kms_joins(records: &Records, spans: &[&Span], emulator: &Emulator) {
    let mut told: BTreeMap<String, &Span> = BTreeMap::new();
    let of_kms: Vec<_> = spans.iter().filter(|span| span.name.starts_with("KMS.")).collect();
    for span in &of_kms {
        assert_eq!((span.kind.as_str(), span.attribute("rpc.system.name")), ("CLIENT", &"aws-api".into()));
        assert_eq!(
            Some(span.name.as_str()),
            span.attribute("rpc.method").as_str().map(|method| method.replace('/', ".")).as_deref()
        );
        assert_eq!(span.attribute("cloud.region"), "us-west-2");
        assert_eq!(span.attribute("server.address"), "127.0.0.1");
        let last = span.attribute("aws.request_id").as_str().map(str::to_owned);
        let attempts = span.events.iter().filter(|event| event.name == "attempt");
        let ids: BTreeSet<String> = attempts
            .map(|event| event.attributes["aws.request_id"].as_str().expect("an id").to_owned())
            .chain(last)
            .collect();
        if ids.len() > 1 {
            assert_eq!(span.attribute("http.request.resend_count"), ids.len() - 1);
            assert_eq!(span.events.len(), ids.len(), "each attempt is an event");
            assert_eq!(span.events[0].attributes["error.type"], "ThrottlingException");
        }
        for id in ids {
            assert!(told.insert(id, span).is_none(), "on one span only");
        }
    }
    let recorded: Vec<_> = records.kms.iter().chain(&records.resolved).collect();
    assert_eq!(told.len(), recorded.len());
    for record in recorded {
        let span = told[text(record, "requestID")];
        assert_eq!(text_of(span, "rpc.method"), format!("KMS/{}", text(record, "eventName")));
        if span.attribute("aws.request_id") == &record["requestID"] {
            assert_eq!(span.attribute("keybroker.event_id"), &record["eventID"]);
        }
    }
    let calls = emulator.calls();
    let answered = calls.iter().filter(|call| call.operation != "GetCallerIdentity");
    let answered = answered.filter(|call| call.fault.as_deref() != Some("hang"));
    assert_eq!(answered.clone().count(), told.len());
    for call in answered {
        let span = told[&call.request_id];
        if span.attribute("aws.request_id") == call.request_id.as_str() {
            let error = call.error.as_deref();
            assert_eq!(span.attribute("error.type").as_str(), error, "{call:?}");
            assert_eq!(span.status.code == "ERROR", error.is_some());
        }
    }
    // Not answered: no requestID, and an error all the same.
    let silent: Vec<_> = of_kms.iter().filter(|span| span.attribute("aws.request_id").is_null()).collect();
    assert!(!silent.is_empty() && silent.iter().all(|span| span.status.code == "ERROR"), "{silent:?}");
}

/// From the caller's span to the requestID that the caller saw.
fn caller_joins(call: &Called, records: &Records, spans: &[&Span]) {
    let request_id = call.request_id.as_deref().expect("every answer has one");
    let record = records.activity_of(request_id);
    let server =
        spans.iter().find(|span| span.attribute("keybroker.request_id") == request_id).expect("a span");
    assert_eq!((&server.trace_id, server.parent_span_id.as_ref()), (&call.trace_id, Some(&call.span_id)));
    let seen = call.kms_request_id.as_deref();
    assert_eq!(server.attribute("keybroker.kms.request_id").as_str(), seen, "{call:?}");
    assert_eq!(record["additionalEventData"]["dataKey"]["kmsRequestID"].as_str(), seen);
    if matches!(call.kind.as_str(), "fresh" | "random" | "describe" | "wrong_context") && seen.is_some() {
        let of_kms = spans
            .iter()
            .find(|span| span.is_child_of(server) && span.attribute("aws.request_id").as_str() == seen);
        let linked = spans
            .iter()
            .find(|span| server.links_to(span) && span.attribute("aws.request_id").as_str() == seen);
        assert!(of_kms.or(linked).is_some(), "{call:?}: the answer is KMS's, and in this trace");
    }
}

fn hits_link_to_the_call_that_made_the_key(records: &Records, spans: &[&Span]) {
    let of_request: BTreeMap<&str, &&Span> =
        spans.iter().filter_map(|span| Some((span.attribute("aws.request_id").as_str()?, span))).collect();
    let mut hits = 0;
    let mut of_coalesced = BTreeSet::new();
    for record in &records.activity {
        let data_key = &record["additionalEventData"]["dataKey"];
        let request_id = text(record, "requestID");
        let server =
            spans.iter().find(|span| span.attribute("keybroker.request_id") == request_id).expect("a span");
        if record["requestParameters"]["keyId"] == "alias/coalesced" {
            let linked: Vec<_> = spans.iter().filter(|span| server.links_to(span)).collect();
            let [linked] = linked[..] else { panic!("one link of each: {server:?}") };
            of_coalesced.insert(linked.span_id.clone());
        }
        if data_key["servedFrom"] == "CACHE" {
            hits += 1;
            assert_eq!(server.attribute("keybroker.served_from"), "CACHE");
            let minted_in = of_request[text(data_key, "kmsRequestID")];
            assert!(server.links_to(minted_in), "{server:?}");
            assert!(!spans.iter().any(|span| span.is_child_of(server) && span.name.starts_with("KMS.Gen")));
        }
    }
    assert!(hits > 600, "{hits}");
    assert_eq!(of_coalesced.len(), 1, "a hundred callers, one call to KMS");
}

fn nothing_is_told_that_is_not_meant_to(collector: &Collector, log: &str, emulator: &Emulator) {
    let key_arn = emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
    let uid = format!("uid/{}", rustix::process::getuid().as_raw());
    for (what, told) in [("spans", collector.text()), ("log", log.to_owned())] {
        for secret in
            ["acme-which-nobody-is-told", "alias/dev", "alias/none", &key_arn, &uid, "AKIATESTEXAMPLE"]
        {
            assert!(!told.contains(secret), "{what} hold {secret:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn what_nobody_waits_for_is_a_trace_of_its_own() {
    let peers = Peers::install(&["otelcol"]);
    let collector = Collector::start(&peers);
    let trail = "store = { directory = \"trail\" }\ntrail = \"dev\"\nkms_key_id = \"alias/dev\"\n\
                 signing = { kms_key_id = \"alias/dev-signing\" }\ndelivery_interval_seconds = 1\n\
                 digest_interval_seconds = 1\n[reuse]\nmax_messages = 10\nrefresh_at = 0.5\n";
    let site = Site::start(&collector.environment(Protocol::Grpc), trail).await;
    let client = Client::unix(site.socket()).await.expect("listens");
    for _ in 0..8 {
        client.generate_data_key(GenerateDataKey::aes_256("alias/refreshed")).await.expect("a data key");
    }
    let roots = ["cache.refresh", "audit.deliver", "audit.digest"];
    let children = ["KMS.GenerateDataKey", "KMS.GenerateDataKey", "KMS.Sign"];
    let spans = tokio::task::block_in_place(|| {
        collector.spans_when("refresh, delivery, digest", |spans| {
            roots.iter().all(|name| spans.iter().any(|span| span.name == *name))
        })
    });
    for (root, child) in roots.into_iter().zip(children) {
        let mut found = spans.iter().filter(|span| span.name == root);
        assert!(found.clone().all(|span| span.parent_span_id.is_none()), "{root} hangs from nothing");
        let with_child =
            found.find(|root| spans.iter().any(|span| span.is_child_of(root) && span.name == child));
        assert!(with_child.is_some(), "{root} has {child}");
    }
    let digest = spans.iter().find(|span| span.name == "audit.digest").expect("one");
    let signature = digest.attribute("keybroker.audit.digest_signature").as_str().expect("a signature");
    assert_eq!(signature.len(), 512, "RSA with 2,048 bits, in hex");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_collector_costs_no_call_anything() {
    let (hanging, refusing, vanishing) = (Hanging::start(), Refusing::start(), Vanishing::start());
    let bad = [hanging.endpoint(), refusing.endpoint(), vanishing.endpoint()];
    for protocol in Protocol::ALL {
        for endpoint in &bad {
            let environment = peers::collector::environment(endpoint, protocol);
            let small = [
                ("OTEL_BSP_MAX_QUEUE_SIZE", "100".to_owned()),
                ("OTEL_BSP_EXPORT_TIMEOUT", "500".to_owned()),
            ];
            let address = free_address();
            let http = format!("[telemetry]\nhttp = \"{address}\"\n");
            let site = Site::start(&[environment.as_slice(), &small].concat(), &http).await;
            let client = Client::unix(site.socket()).await.expect("listens");
            for _ in 0..1_000 {
                client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect("a data key");
            }
            let told = tokio::task::block_in_place(|| scrape(address));
            let dropped =
                told.lines().find_map(|line| line.strip_prefix("keybroker_telemetry_spans_dropped_total "));
            let dropped: f64 = dropped.and_then(|count| count.parse().ok()).expect("the counter");
            assert!(dropped > 900.0, "{dropped}: a hundred spans are queued, all other calls are counted");
            let (_, dir, log) = site.stop();
            assert_eq!(Records::read(&dir.path().join("journal")).activity.len(), 1_000);
            let complaints = log.matches("does not accept spans").count();
            assert!(complaints <= 3, "{complaints}: told of, not again and again");
        }
    }
    assert!(hanging.connections() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn what_is_not_sampled_has_no_span_and_what_is_off_has_none() {
    let peers = Peers::install(&["otelcol"]);
    for variable in [
        ("OTEL_TRACES_SAMPLER", "always_off"),
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
    ] {
        let collector = Collector::start(&peers);
        let off = [(variable.0, variable.1.to_owned())];
        let environment = collector.environment(Protocol::Http);
        let site = Site::start(&[environment.as_slice(), &off].concat(), "").await;
        let client = Client::unix(site.socket()).await.expect("listens");
        for _ in 0..10 {
            client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect("a data key");
        }
        let (_, dir, _) = site.stop();
        let records = Records::read(&dir.path().join("journal"));
        assert!(records.activity.iter().all(|record| record["additionalEventData"].get("trace").is_none()));
        assert_eq!(tokio::task::block_in_place(|| collector.settled()), []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_that_make_no_sense_are_told_once_and_keep_nobody_from_serving() {
    let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
    let mut told = Vec::new();
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_TRACES_SAMPLER", "foo"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "abc"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "no url"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem"),
        ("OTEL_SDK_DISABLED", "yes"),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let config = write_config(dir.path(), &emulator.endpoint_url(), "");
        let mut command = Process::serve_command(&config);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1").env(name, value);
        let broker = tokio::task::block_in_place(|| Process::serve_by(command, &config));
        let log = broker.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("has an invalid value")).collect();
        let why = |line: &&str| serde_json::from_str::<Value>(line).expect("JSON")["why"].to_string();
        told.push(format!("{name}: {}", lines.iter().map(why).collect::<Vec<_>>().join("; ")));
        assert!(!log.contains("secret"), "{log}");
    }
    insta::assert_snapshot!(told.join("\n"));
}

/// Of a server, by the semantic conventions for gRPC.
const SERVER_ERRORS: [&str; 6] =
    ["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"];
