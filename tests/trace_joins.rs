//! Proves, with services in four languages that OpenTelemetry instruments at its defaults, and its own Collector: of a thousand calls of each,
//! hits and misses mixed, every one leads from its caller's span to the broker's and to the requestID of KMS and its records; and of a
//! thousand that their caller does not sample, every one from its `traceparent` to its activity record and to the same requestID. The
//! counts are those of the table in `docs/telemetry.md`.

#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use kms_emulator::{Emulator, EmulatorConfig, KeySpec};
use peers::caller::{Called, Caller, Calls, Language};
use peers::collector::{Collector, Protocol};
use peers::otlp_json::Span;
use peers::{Peers, check_records, printed, root};
use rustix::process::Signal;
use serde_json::Value;
use support::process::{Process, binary, write_config};
use support::{Records, journal_lines};
use tokio::task::block_in_place;

/// What became of the calls of one caller.
struct Calling {
    language: Language,
    unsampled: Vec<Called>,
    sampled: Vec<Called>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn every_call_joins_its_records_in_four_languages_sampled_or_not() {
    let peers = Peers::install(&["otelcol", "go-otel", "java-otel", "node-otel", "python-otel"]);
    let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
    let dir = tempfile::tempdir().expect("a directory");
    let collector = block_in_place(|| Collector::start(&peers));
    let broker = block_in_place(|| start(&emulator, dir.path(), &collector));
    for language in Language::ALL {
        emulator.ensure_key(&key(language), KeySpec::SymmetricDefault).expect("a key");
    }
    let socket = dir.path().join("broker.sock");
    // At once: each has a key of its own.
    let callings = block_in_place(|| {
        thread::scope(|scope| {
            let all = Language::ALL.map(|language| {
                let (socket, peers, collector) = (&socket, &peers, &collector);
                scope.spawn(move || call(language, socket, peers, collector))
            });
            all.map(|calling| calling.join().expect("it calls"))
        })
    });
    block_in_place(|| stop(broker));

    // They are alike: judging one in twenty takes seconds, all of them a minute.
    let some: Vec<_> = journal_lines(&dir.path().join("journal")).into_iter().step_by(20).collect();
    check_records(&some);
    let records = Records::read(&dir.path().join("journal"));
    let spans = block_in_place(|| collector.settled());
    let joins = Joins::new(&records, &spans);
    let rows = callings.iter().map(|calling| joins.row(calling));
    let table = format!("\n\n{HEAD}\n{}\n\n", rows.collect::<Vec<_>>().join("\n"));
    assert_eq!(collector.complaints(), "");
    for calling in &callings {
        assert_found(&calling.unsampled[999], dir.path());
    }
    let document = fs::read_to_string(root().join("docs/telemetry.md")).expect("reads");
    let (_, counted) = document.split_once(BEGIN).expect("docs/telemetry.md has the table");
    let (counted, _) = counted.split_once(END).expect("it ends");
    assert_eq!(counted, table, "docs/telemetry.md has another table");
}

fn start(emulator: &Emulator, dir: &Path, collector: &Collector) -> Process {
    // A data key serves eight calls, however slow, and is not replaced before the ninth.
    let reuse = "[reuse]\nmax_messages = 8\nmax_age_seconds = 3600\nrefresh_at = 1\n";
    let config = write_config(dir, &emulator.endpoint_url(), reuse);
    let mut command = Process::serve_command(&config);
    command.env("OTEL_BSP_SCHEDULE_DELAY", "100").env("OTEL_BSP_MAX_QUEUE_SIZE", "65536");
    command.envs(collector.environment(Protocol::Grpc));
    Process::serve_by(command, &config)
}

/// `audit find` takes the header that the caller sent.
fn assert_found(call: &Called, dir: &Path) {
    let traceparent = format!("00-{}-{}-00", call.trace_id, call.span_id);
    let mut find = Command::new(binary());
    find.args(["audit", "find", &traceparent, "--json", "--config"]).arg(dir.join("key-broker.toml"));
    let story: Value = serde_json::from_str(&printed(&mut find)).expect("JSON");
    let mut calls = story["calls"].as_array().expect("a list").iter();
    let is_found = calls.any(|found| found["record"]["requestID"].as_str() == call.request_id.as_deref());
    assert!(is_found, "{call:?}: {story}");
}

fn stop(broker: Process) {
    broker.signal(Signal::TERM);
    broker.wait_for_log("\"stopped\"");
    let log = broker.log();
    assert!(broker.wait().success(), "{log}");
}

/// Nine of ten that may be hits, and one that is none; first those that are not sampled, so that the last data key that these leave is used
/// by the others.
fn call(language: Language, socket: &Path, peers: &Peers, collector: &Collector) -> Calling {
    let key = key(language);
    let ten = [Calls::of("generate", 9).with_key(&key), Calls::of("fresh", 1).with_key(&key)];
    let plan = ten.repeat(100);
    let caller = || Caller::of(language, peers, collector);
    let unsampled = caller().with("OTEL_TRACES_SAMPLER", "always_off").call(socket, &plan);
    let sampled = caller().call(socket, &plan);
    for calls in [&unsampled, &sampled] {
        assert_eq!(calls.len(), 1_000, "{language:?}");
        assert!(calls.iter().all(|call| call.code == "OK"), "{language:?}: {calls:?}");
    }
    Calling { language, unsampled, sampled }
}

fn key(language: Language) -> String {
    format!("alias/{}", language.peer())
}

/// Records and spans by what joins them.
struct Joins<'a> {
    /// Activity records by requestID.
    calls: BTreeMap<&'a str, &'a Value>,
    /// Activity records of calls that are not traced, by the caller's trace and span.
    by_caller: BTreeMap<(&'a str, &'a str), Vec<&'a Value>>,
    /// KMS records by requestID.
    kms: BTreeMap<&'a str, &'a Value>,
    spans: BTreeMap<&'a str, &'a Span>,
    /// Server spans by their parent.
    servers: BTreeMap<&'a str, Vec<&'a Span>>,
    /// Spans of calls to KMS by its requestID.
    of_kms: BTreeMap<&'a str, &'a Span>,
}

impl<'a> Joins<'a> {
    fn new(records: &'a Records, spans: &'a [Span]) -> Self {
        let mut by_caller = BTreeMap::<_, Vec<_>>::new();
        for record in &records.activity {
            let caller = &record["additionalEventData"]["callerTrace"];
            if !caller.is_null() {
                by_caller.entry((text(caller, "traceId"), text(caller, "spanId"))).or_default().push(record);
            }
        }
        let mut servers = BTreeMap::<_, Vec<_>>::new();
        for span in spans.iter().filter(|span| span.kind == "SERVER") {
            servers.entry(span.parent_span_id.as_deref().expect("its caller's")).or_default().push(span);
        }
        let named = |span: &'a Span| span.attribute("aws.request_id").as_str().map(|id| (id, span));
        Self {
            calls: records.activity.iter().map(|record| (text(record, "requestID"), record)).collect(),
            by_caller,
            kms: records.kms.iter().map(|record| (text(record, "requestID"), record)).collect(),
            spans: spans.iter().map(|span| (span.span_id.as_str(), span)).collect(),
            servers,
            of_kms: spans.iter().filter_map(named).collect(),
        }
    }

    /// The caller's row of the table.
    fn row(&self, calling: &Calling) -> String {
        let mut counts = BTreeMap::<&str, usize>::new();
        for call in &calling.sampled {
            *counts.entry(self.of_sampled(call, calling.language)).or_default() += 1;
        }
        for call in &calling.unsampled {
            *counts.entry(self.of_unsampled(call)).or_default() += 1;
        }
        let count = |how: &str| counts.get(how).copied().unwrap_or_default();
        let sampled = [BELOW, LINKED, NAMED].map(count);
        let unsampled = [MISS, HIT].map(count);
        let all: usize = sampled.iter().sum();
        let name = match calling.language {
            Language::Go => "Go, otelgrpc",
            Language::Java => "Java, the OpenTelemetry Java agent",
            Language::Node => "Node, @opentelemetry/instrumentation-grpc",
            Language::Python => "Python, opentelemetry-instrumentation-grpc",
        };
        let [below, linked, named] = sampled;
        let [misses, hits] = unsampled;
        format!("| {name} | {all} | {below} | {linked} | {named} | {} | {misses} | {hits} |", misses + hits)
    }

    /// How a call is joined from its caller's span to the requestID of KMS, and this to the records.
    fn of_sampled(&self, call: &Called, language: Language) -> &'static str {
        let request_id = call.request_id.as_deref().expect("every answer has one");
        let seen = call.kms_request_id.as_deref().expect("every answer is KMS's");
        let caller = self.spans[call.span_id.as_str()];
        assert_eq!((caller.kind.as_str(), &caller.trace_id), ("CLIENT", &call.trace_id));
        assert_eq!(caller.resource["service.name"], language.peer());
        let [server] = self.servers[call.span_id.as_str()][..] else { panic!("one server span: {call:?}") };
        assert!(server.is_child_of(caller), "{call:?}: {server:?}");
        assert_eq!(server.attribute("keybroker.request_id"), request_id, "{call:?}");
        assert_eq!(server.attribute("keybroker.kms.request_id"), seen, "{call:?}");
        let record = self.calls[request_id];
        let data = &record["additionalEventData"];
        assert_eq!(text(&data["trace"], "spanId"), server.span_id);
        assert_eq!(text(&data["trace"], "traceId"), server.trace_id);
        assert!(data.get("callerTrace").is_none(), "{record}");
        self.assert_told(record, seen);
        let is_hit = data["dataKey"]["servedFrom"] == "CACHE";
        match self.of_kms.get(seen) {
            Some(of_kms) if of_kms.is_child_of(server) && !is_hit => BELOW,
            Some(of_kms) if server.links_to(of_kms) && is_hit => LINKED,
            // The key was made by a call that nobody sampled: there is no span to link to.
            None if server.links.is_empty() && is_hit => NAMED,
            of_kms => panic!("{call:?}: {server:?}: {of_kms:?}"),
        }
    }

    /// The same of a call without spans, from its `traceparent`.
    fn of_unsampled(&self, call: &Called) -> &'static str {
        let seen = call.kms_request_id.as_deref().expect("every answer is KMS's");
        assert!(
            !self.spans.contains_key(call.span_id.as_str())
                && !self.servers.contains_key(call.span_id.as_str())
        );
        let [record] = self.by_caller[&(call.trace_id.as_str(), call.span_id.as_str())][..] else {
            panic!("one record: {call:?}")
        };
        assert_eq!(record["requestID"].as_str(), call.request_id.as_deref(), "{call:?}");
        assert!(record["additionalEventData"].get("trace").is_none(), "{record}");
        self.assert_told(record, seen);
        if record["additionalEventData"]["dataKey"]["servedFrom"] == "CACHE" { HIT } else { MISS }
    }

    /// The record names the answer of KMS, and that has its own.
    fn assert_told(&self, record: &Value, kms_request_id: &str) {
        let data_key = &record["additionalEventData"]["dataKey"];
        assert_eq!(data_key["kmsRequestID"], kms_request_id);
        assert_eq!(data_key["kmsEventID"], self.kms[kms_request_id]["eventID"]);
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name}: {value}"))
}

/// How calls are joined.
const BELOW: &str = "the span of the call to KMS is below the server span";
const LINKED: &str = "the server span links to it";
const NAMED: &str = "the requestID alone";
const MISS: &str = "not sampled, a miss";
const HIT: &str = "not sampled, a hit";
/// The table.
const BEGIN: &str = "<!-- joins: counted by tests/trace_joins.rs -->";
const END: &str = "<!-- end -->";
const HEAD: &str = "\
| service | sampled and joined | a KMS span below | a link to one | the request ID alone | not sampled and joined | misses | hits |
|---|---|---|---|---|---|---|---|";
