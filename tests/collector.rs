//! Proves that OpenTelemetry's own Collector, as the tests run it, tells what it was sent, all of it, over both transports; that the
//! instrumented caller of the tests tells what it did; and that collectors that are to be bad are.

#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use peers::caller::{Caller, Calls, script};
use peers::collector::{Collector, Protocol, environment};
use peers::otlp_json::Span;
use peers::{Peers, cases, printed};
use serde_json::{Map, Value, json};
use support::bad_collector::{Hanging, Refusing, Vanishing};
use support::dev::all_records;
use support::process::Process;

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn the_collector_tells_what_it_was_sent() {
    let (peers, collector) = start();
    let mut sent = Vec::new();
    for protocol in Protocol::ALL {
        sent.append(&mut cases(spans(&peers, &collector.endpoint(protocol), protocol).arg("3000")));
    }
    let received = collector.spans_when("every span", |spans| spans.len() >= sent.len());
    assert_eq!(received.len(), sent.len());
    let received: BTreeMap<_, _> = received.iter().map(|span| (span.span_id.as_str(), span)).collect();
    for sent in &sent {
        let id = hex(&sent["context"]["span_id"]);
        let span = received.get(id.as_str()).unwrap_or_else(|| panic!("not received: {sent}"));
        assert_eq!(as_the_sdk_writes(span), of_interest(sent));
    }
    assert_eq!(collector.complaints(), "");
    // What links and children are told by.
    let named = |name: &str| {
        let found: Vec<_> = received.values().filter(|span| span.name == name).collect();
        let [one, other] = found[..] else { panic!("one {name} of each transport") };
        [*one, *other]
    };
    for (client, server) in pairs(named("client"), named("server")) {
        assert!(client.is_child_of(server) && !server.is_child_of(client));
    }
    for (hit, client) in pairs(named("hit"), named("client")) {
        assert!(hit.links_to(client) && !client.links_to(hit));
        assert!(client.start <= client.events[0].time && client.events[2].time <= client.end);
    }
    for called in named("called") {
        assert_eq!((called.trace_id.as_str(), called.trace_state.as_str()), (REMOTE, "vendor=opaque"));
    }
    assert!(collector.text().contains("ThrottlingException"));
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn the_collector_refuses_what_it_cannot_read_and_can_vanish() {
    let (peers, mut collector) = start();
    assert_eq!(collector.settled(), []);
    assert_eq!(collector.complaints(), "");
    let address: SocketAddr =
        collector.http_endpoint().strip_prefix("http://").expect("http").parse().expect("one");
    let garbage = "POST /v1/traces HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/x-protobuf\r\n\
                   content-length: 7\r\n\r\ngarbage";
    let mut stream = TcpStream::connect(address).expect("it listens");
    std::io::Write::write_all(&mut stream, garbage.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(collector.settled(), []);

    cases(spans(&peers, &collector.grpc_endpoint(), Protocol::Grpc).arg("0"));
    let before = collector.spans_when("seven spans", |spans| spans.len() == 7);
    collector.vanish();
    assert_eq!(
        TcpStream::connect(address).map_err(|error| error.kind()).err(),
        Some(ErrorKind::ConnectionRefused)
    );
    assert_eq!(collector.spans(), before);
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn the_instrumented_caller_tells_what_it_did() {
    let (peers, collector) = start();
    let dir = tempfile::tempdir().expect("a directory");
    let broker = Process::dev(dir.path());
    let plan = [
        Calls::of("generate", 2),
        Calls::of("fresh", 1),
        Calls::of("without_plaintext", 1),
        Calls::of("decrypt", 8).at_once(),
        Calls::of("wrong_context", 1),
        Calls::of("generate", 1).with_key("00000000-0000-4000-8000-000000000000"),
        Calls::of("random", 1),
        Calls::of("describe", 1),
        Calls::of("no_length", 1),
    ];
    let checkout =
        Caller::new(&peers, &collector, Protocol::Grpc).run(&dir.path().join("broker.sock"), &plan);
    broker.signal(rustix::process::Signal::TERM);
    let status = broker.wait();
    assert!(status.success(), "{status}");

    let expected: Vec<_> = plan.iter().flat_map(|calls| vec![calls.kind; calls.times]).collect();
    assert_eq!(checkout.calls.iter().map(|call| call.kind.as_str()).collect::<Vec<_>>(), expected);
    let of_kind = |kind: &str| checkout.calls.iter().rfind(|call| call.kind == kind).expect("called");
    let outcomes = [
        ("decrypt", "OK", None),
        ("wrong_context", "INVALID_ARGUMENT", Some("INVALID_CIPHERTEXT")),
        ("generate", "NOT_FOUND", Some("KEY_NOT_FOUND")),
        ("describe", "OK", None),
        ("no_length", "INVALID_ARGUMENT", Some("MALFORMED_REQUEST")),
    ];
    for (kind, code, reason) in outcomes {
        let call = of_kind(kind);
        assert_eq!((call.code.as_str(), call.reason.as_deref()), (code, reason), "{call:?}");
    }
    let records = all_records(dir.path());
    for call in &checkout.calls {
        records.activity_of(call.request_id.as_deref().expect("every answer has one"));
        assert_eq!(call.kms_request_id.is_some(), call.kind != "no_length", "{call:?}");
    }

    let spans = collector.spans_when("the caller's spans", |spans| {
        spans.iter().filter(|span| span.resource["service.name"] == "shop").count() > checkout.calls.len()
    });
    let parent = spans.iter().find(|span| span.name == "checkout").expect("the parent");
    assert_eq!((&parent.trace_id, &parent.span_id), (&checkout.trace_id, &checkout.span_id));
    for call in &checkout.calls {
        let span = spans.iter().find(|span| span.span_id == call.span_id).expect("the call's span");
        assert!(span.is_child_of(parent) && span.trace_id == call.trace_id, "{span:?}");
        assert_eq!(span.kind, "CLIENT");
        assert_eq!(span.attribute("rpc.service"), "keybroker.v1.KeyBroker");
        assert_eq!(span.status.code == "ERROR", call.code != "OK", "{span:?}");
    }
    let ids: BTreeSet<_> = checkout.calls.iter().map(|call| &call.span_id).collect();
    assert_eq!(ids.len(), checkout.calls.len());
    assert_eq!(collector.complaints(), "");
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn bad_collectors_are_bad() {
    let hanging = Hanging::start();
    let mut stream = TcpStream::connect(address(&hanging.endpoint())).expect("accepts");
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let silence = stream.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(silence, Err(ErrorKind::WouldBlock));
    assert_eq!(hanging.connections(), 1);

    let refusing = Refusing::start();
    assert!(is_refused(&refusing.endpoint()));

    let peers = Peers::install(&["python-otel"]);
    for protocol in Protocol::ALL {
        let vanishing = Vanishing::start();
        assert!(!vanishing.has_vanished());
        // The SDK waits for its answer.
        printed(spans(&peers, &vanishing.endpoint(), protocol).arg("0"));
        for _ in 0..500 {
            if vanishing.has_vanished() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(vanishing.has_vanished() && is_refused(&vanishing.endpoint()), "{protocol:?}");
        assert_eq!(vanishing.exports(), 1, "{protocol:?}");
    }
}

/// The trace that `spans.py` takes up as if it came in a `traceparent`.
const REMOTE: &str = "80000000000000000000000000000000";

fn start() -> (Peers, Collector) {
    let peers = Peers::install(&["otelcol", "python-otel"]);
    let collector = Collector::start(&peers);
    (peers, collector)
}

fn spans(peers: &Peers, endpoint: &str, protocol: Protocol) -> Command {
    let mut command = script(peers, "spans.py");
    command.envs(environment(endpoint, protocol)).env("OTEL_SERVICE_NAME", protocol.name());
    command
}

fn address(endpoint: &str) -> SocketAddr {
    endpoint.strip_prefix("http://").expect("http").parse().expect("an address")
}

fn is_refused(endpoint: &str) -> bool {
    TcpStream::connect(address(endpoint)).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// The spans of each transport with one another: every trace has one of each name.
fn pairs<'a>(ones: [&'a Span; 2], others: [&'a Span; 2]) -> impl Iterator<Item = (&'a Span, &'a Span)> {
    let other = move |one: &Span| *others.iter().find(|span| span.resource == one.resource).expect("a pair");
    ones.into_iter().map(move |one| (one, other(one)))
}

/// A span in the words of the Python SDK's `to_json`, but for times, which it rounds.
fn as_the_sdk_writes(span: &Span) -> Value {
    let status = match span.status.message.as_str() {
        "" => json!({ "status_code": span.status.code }),
        message => json!({ "status_code": span.status.code, "description": message }),
    };
    let context = |trace_id: &str, span_id: &str| json!([trace_id, span_id]);
    json!({
        "name": span.name,
        "context": context(&span.trace_id, &span.span_id),
        "kind": format!("SpanKind.{}", span.kind),
        "parent_id": span.parent_span_id,
        "status": status,
        "attributes": span.attributes,
        "events": span.events.iter().map(|event| json!([event.name, event.attributes])).collect::<Value>(),
        "links": span.links.iter().map(|link| {
            json!([context(&link.trace_id, &link.span_id), link.attributes])
        }).collect::<Value>(),
        "resource": span.resource,
    })
}

/// The same of what `to_json` gave.
fn of_interest(sent: &Value) -> Value {
    let context = |of: &Value| json!([hex(&of["trace_id"]), hex(&of["span_id"])]);
    let list = |name: &str| sent[name].as_array().expect("a list").iter();
    let mut of_interest = Map::new();
    for name in ["name", "kind", "status", "attributes"] {
        of_interest.insert(name.to_owned(), sent[name].clone());
    }
    let parent = Some(&sent["parent_id"]).filter(|parent| !parent.is_null()).map(hex);
    of_interest.extend([
        ("context".to_owned(), context(&sent["context"])),
        ("parent_id".to_owned(), json!(parent)),
        (
            "events".to_owned(),
            list("events").map(|event| json!([event["name"], event["attributes"]])).collect(),
        ),
        (
            "links".to_owned(),
            list("links").map(|link| json!([context(&link["context"]), link["attributes"]])).collect(),
        ),
        ("resource".to_owned(), sent["resource"]["attributes"].clone()),
    ]);
    Value::Object(of_interest)
}

fn hex(id: &Value) -> String {
    id.as_str().and_then(|id| id.strip_prefix("0x")).expect("the SDK writes 0x").to_owned()
}
