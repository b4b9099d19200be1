//! Proves, with the real program and a receiver of OTLP over both transports: spans, metrics and log lines name one broker, by the id that
//! its trail has, and where it runs; what the operator says of that wins; log lines go out as stderr has them, with
//! their trace; and a trace that begins in AWS X-Ray goes on here.

#[path = "support/receiver.rs"]
mod receiver;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use key_broker_client::{Client, GenerateDataKey};
use key_broker_proto::v1 as pb;
use key_broker_proto::v1::key_broker_client::KeyBrokerClient;
use kms_emulator::{Emulator, EmulatorConfig, Fault, KeySpec};
use receiver::Receiver;
use rustix::process::Signal;
use serde_json::Value;
use support::Records;
use support::process::{Process, write_config};
use support::registry::Registry;
use support::site::Site;
use tonic::transport::Endpoint;
use tonic::{Code, Request};
use uuid::Uuid;

const PROTOCOLS: [&str; 2] = ["grpc", "http/protobuf"];

fn start(config: &Path, environment: &[(&str, String)]) -> Process {
    let mut command = Process::serve_command(config);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    Process::serve_by(command, config)
}

/// Drains; what was logged.
fn stop(broker: Process) -> Vec<Value> {
    broker.signal(Signal::TERM);
    broker.wait_for_log("\"stopped\"");
    let log = broker.log();
    assert!(broker.wait().success(), "{log}");
    log.lines().map(|line| serde_json::from_str(line).expect("a line is an object")).collect()
}

async fn call(socket: &Path, times: usize) {
    let client = Client::unix(socket).await.expect("the broker listens");
    for _ in 0..times {
        client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect("a data key");
    }
}

/// One id leads from a dashboard to the trail, over restarts, too; and pod, namespace and node are those of the trail's first record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_signals_name_the_broker_by_its_trail() {
    let declared: BTreeSet<String> = Registry::read(&root()).resource.into_iter().collect();
    for protocol in PROTOCOLS {
        let site = Site::new().await;
        let config = site.config("");
        let mut instances = BTreeSet::new();
        for _ in 0..2 {
            let receiver = Receiver::start();
            let more = [
                ("OTEL_LOGS_EXPORTER", "otlp".to_owned()),
                ("KEY_BROKER_POD_NAME", "orders-0".to_owned()),
                ("KEY_BROKER_POD_NAMESPACE", "shop".to_owned()),
                ("KEY_BROKER_NODE_NAME", "node-7".to_owned()),
                ("OTEL_RESOURCE_ATTRIBUTES", "host.name=told,deployment.environment.name=test".to_owned()),
            ];
            let broker = start(&config, &[&receiver.environment(protocol)[..], &more].concat());
            call(&site.socket(), 3).await;
            stop(broker);
            let trail: Value =
                serde_json::from_slice(&fs::read(site.journal().join("trail.json")).expect("notes"))
                    .expect("JSON");
            for (signal, resources) in receiver.resources() {
                assert_eq!(resources.len(), 1, "{protocol}: {signal}: {resources:?}");
                let resource = resources.into_iter().next().expect("one");
                for (name, value) in [
                    ("service.name", "key-broker"),
                    ("service.instance.id", trail["trail"].as_str().expect("a name")),
                    ("k8s.pod.name", "orders-0"),
                    ("k8s.namespace.name", "shop"),
                    ("k8s.node.name", "node-7"),
                    ("host.name", "told"),
                    ("deployment.environment.name", "test"),
                    ("telemetry.sdk.language", "rust"),
                ] {
                    assert_eq!(
                        resource.get(name).map(String::as_str),
                        Some(value),
                        "{protocol}: {signal}: {name}"
                    );
                }
                let told = resource.keys().filter(|name| *name != "deployment.environment.name");
                assert!(told.clone().all(|name| declared.contains(name)), "{:?}", told.collect::<Vec<_>>());
                instances.insert(resource["service.instance.id"].clone());
            }
        }
        assert_eq!(instances.len(), 1, "a restart on one journal is one instance: {instances:?}");
        let delivered = site.delivered();
        assert!(delivered.texts.iter().any(|record| record.contains("\"pod\":\"orders-0\"")));
    }
}

/// Without a trail there is an id all the same, and the operator's word for it counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_without_a_trail_has_an_id_too() {
    let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
    emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
    let dir = tempfile::tempdir().expect("a directory");
    let config = write_config(dir.path(), &emulator.endpoint_url(), "");
    let mut found = BTreeSet::new();
    for told in ["", "", "service.instance.id=mine,service.name=orders"] {
        let receiver = Receiver::start();
        let told = [("OTEL_RESOURCE_ATTRIBUTES", told.to_owned())];
        let broker = start(&config, &[&receiver.environment("grpc")[..], &told].concat());
        call(&dir.path().join("broker.sock"), 1).await;
        stop(broker);
        let resources = receiver.resources();
        assert_eq!(resources["spans"], resources["metrics"]);
        let resource = resources["spans"].first().expect("one");
        found.insert((resource["service.name"].clone(), resource["service.instance.id"].clone()));
    }
    assert_eq!(found.len(), 3, "another one at each start: {found:?}");
    assert!(found.remove(&("orders".to_owned(), "mine".to_owned())));
    assert!(found.iter().all(|(name, id)| name == "key-broker" && Uuid::try_parse(id).is_ok()), "{found:?}");
}

/// The collector has the lines that stderr has, each with the trace and span of its call, and no secret.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_lines_go_out_as_they_are_written_with_their_trace() {
    for (protocol, sampler) in [("grpc", "always_on"), ("http/protobuf", "always_off")] {
        let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
        emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
        let dir = tempfile::tempdir().expect("a directory");
        let config = write_config(dir.path(), &emulator.endpoint_url(), "");
        let text = fs::read_to_string(&config).expect("a configuration");
        fs::write(&config, text.replace("[kms]\n", "[kms]\nbreaker_failures = 1\n")).expect("writes");
        let receiver = Receiver::start();
        let more = [("OTEL_LOGS_EXPORTER", "otlp".to_owned()), ("OTEL_TRACES_SAMPLER", sampler.to_owned())];
        let broker = start(&config, &[&receiver.environment(protocol)[..], &more].concat());
        emulator.inject(Fault::internal_error().on("GenerateDataKey"));
        let code = called_with(&dir.path().join("broker.sock"), "traceparent", TRACEPARENT).await;
        assert_ne!(code, Code::Ok, "KMS fails");
        let written = stop(broker);
        let lines = receiver.lines();
        let message = |line: &Value| line["message"].as_str().expect("text").to_owned();
        // The last one is written when nothing is exported any more.
        let sent: BTreeSet<String> = lines.iter().map(|line| line.message.clone()).collect();
        let known: BTreeSet<String> = written.iter().map(message).collect();
        assert!(sent.is_subset(&known), "{protocol}: {sent:?} {known:?}");
        for wanted in ["serving", KMS_LINE] {
            assert!(sent.contains(wanted), "{protocol}: {wanted}: {sent:?}");
        }
        for line in &lines {
            let (of_call, has_trace) = (line.message == KMS_LINE, !line.trace_id.is_empty());
            assert_eq!(of_call, has_trace, "{protocol}: {line:?}");
            assert!(
                !of_call || (line.trace_id == TRACE_ID && line.span_id.len() == 16),
                "{protocol}: {line:?}"
            );
        }
        assert!(!receiver.text().contains("acme-which-nobody-is-told"), "{protocol}");
    }
}

/// A caller behind an AWS load balancer or Lambda has X-Ray's header: its trace goes on here where the operator says so, and only there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_of_xray_goes_on_where_it_is_asked_for() {
    let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
    emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
    for (propagators, goes_on) in
        [("tracecontext,baggage,xray", true), ("xray", true), ("tracecontext", false), ("none", false)]
    {
        let dir = tempfile::tempdir().expect("a directory");
        let config = write_config(dir.path(), &emulator.endpoint_url(), "");
        let receiver = Receiver::start();
        let more = [("OTEL_PROPAGATORS", propagators.to_owned())];
        let broker = start(&config, &[&receiver.environment("grpc")[..], &more].concat());
        let code = called_with(&dir.path().join("broker.sock"), "x-amzn-trace-id", XRAY).await;
        assert_eq!(code, Code::Ok);
        stop(broker);
        assert_eq!(receiver.traces().contains(TRACE_ID), goes_on, "{propagators}");
        let records = Records::read(&dir.path().join("journal"));
        let trace = records.activity[0]["additionalEventData"]["trace"]["traceId"].as_str();
        assert_eq!(trace == Some(TRACE_ID), goes_on, "{propagators}: {trace:?}");
    }
}

/// A later client may call what this broker has not: that is counted and traced under one name, whatever the caller calls it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_method_that_is_not_there_is_other() {
    let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
    let dir = tempfile::tempdir().expect("a directory");
    let config = write_config(dir.path(), &emulator.endpoint_url(), "");
    let receiver = Receiver::start();
    let broker = start(&config, &receiver.environment("grpc"));
    let endpoint =
        Endpoint::from_shared(format!("unix:{}", dir.path().join("broker.sock").display())).expect("a URI");
    let channel = endpoint.connect().await.expect("the broker listens");
    for method in ["Verify", "Sign", "acme%20secret"] {
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.expect("ready");
        let path = format!("/keybroker.v1.KeyBroker/{method}").parse().expect("a path");
        let codec = tonic_prost::ProstCodec::<pb::DescribeKeyRequest, pb::DescribeKeyResponse>::default();
        let refused = client.unary(Request::new(pb::DescribeKeyRequest::default()), path, codec).await;
        assert_eq!(refused.expect_err("it is not there").code(), Code::Unimplemented);
    }
    stop(broker);
    let calls = &receiver.counters()["rpc.server.call.duration"];
    let counted: BTreeMap<&str, u64> =
        calls.iter().map(|((_, of), count)| (of["rpc.method"].as_str(), *count)).collect();
    assert_eq!(counted, BTreeMap::from([("_OTHER", 3)]));
    let told = receiver.text();
    assert!(told.contains("keybroker.v1.KeyBroker/Verify") && !told.contains("acme"), "{told}");
}

/// Every variable that makes no difference is told of, once and by name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_honoured_is_told_once() {
    let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
    let dir = tempfile::tempdir().expect("a directory");
    let config = write_config(dir.path(), &emulator.endpoint_url(), "");
    let set = BTreeMap::from([
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem"),
        ("OTEL_LOG_LEVEL", "debug"),
        ("OTEL_PROPAGATORS", "b3,b3,tracecontext"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "always_on"),
    ]);
    let environment: Vec<_> = set.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let log = stop(start(&config, &environment));
    for name in set.keys() {
        let told = log.iter().filter(|line| line["variable"] == *name).count();
        assert_eq!(told, 1, "{name}: {log:?}");
    }
}

/// How a call with one more header ended.
async fn called_with(socket: &Path, header: &'static str, value: &str) -> Code {
    let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display())).expect("a URI");
    let mut client = KeyBrokerClient::new(endpoint.connect().await.expect("the broker listens"));
    let mut request = Request::new(pb::GenerateDataKeyRequest {
        key_id: "alias/dev".into(),
        length: Some(pb::generate_data_key_request::Length::KeySpec(pb::KeySpec::Aes256.into())),
        encryption_context: [("tenant".to_owned(), "acme-which-nobody-is-told".to_owned())].into(),
        reuse: Some(pb::Reuse { fresh: true, ..pb::Reuse::default() }),
        ..pb::GenerateDataKeyRequest::default()
    });
    request.metadata_mut().insert(header, value.parse().expect("ascii"));
    client.generate_data_key(request).await.map_or_else(|status| status.code(), |_| Code::Ok)
}

fn root() -> std::path::PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    top.expect("a package is in its workspace").to_owned()
}

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const XRAY: &str = "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1";
const KMS_LINE: &str = "circuit open: KMS has failed too often in a row, and calls to it are refused";
