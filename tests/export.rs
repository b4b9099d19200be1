//! Proves, with OpenTelemetry's own Collector: a broker sends spans, metrics and log lines over TLS, with the token that the Collector
//! demands; one with another token, or that does not trust the Collector's certificate, sends nothing and serves all the same; and ten
//! brokers are ten series of each counter, whose sum is the number of calls.

#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use key_broker_client::{Client, GenerateDataKey};
use kms_emulator::{Emulator, EmulatorConfig, KeySpec};
use peers::collector::{Collector, Guard, Protocol};
use peers::{Peers, printed, root};
use rcgen::SanType;
use rustix::process::Signal;
use support::pki::Authority;
use support::process::{Process, write_config};
use tempfile::TempDir;
use tokio::task::block_in_place;

/// A broker as a process of its own, which exports as the environment says.
struct Broker {
    dir: TempDir,
    process: Process,
}

impl Broker {
    fn start(emulator: &Emulator, environment: &[(&str, String)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let config = write_config(dir.path(), &emulator.endpoint_url(), "");
        let mut command = Process::serve_command(&config);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let process = block_in_place(|| Process::serve_by(command, &config));
        Self { dir, process }
    }

    async fn call(&self, times: usize) {
        let client = Client::unix(self.dir.path().join("broker.sock")).await.expect("the broker listens");
        for _ in 0..times {
            client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect("a data key");
        }
    }

    /// Drains and sends what is left; what it logged.
    fn stop(self) -> String {
        self.process.signal(Signal::TERM);
        let status = self.process.wait();
        // What it says of the last export, it says when all else has ended.
        let log = fs::read_to_string(self.dir.path().join("log")).expect("a log");
        assert!(status.success() && log.contains("\"stopped\""), "{status}: {log}");
        log
    }
}

async fn emulator() -> Emulator {
    let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
    emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
    emulator
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn a_guarded_collector_is_sent_everything_over_tls_with_its_token() {
    let (peers, emulator, files) = (Peers::install(&["otelcol"]), emulator().await, Certificates::new());
    for protocol in Protocol::ALL {
        for (authority, token, is_let_in) in [
            (&files.authority, TOKEN, true),
            (&files.authority, OTHER_TOKEN, false),
            (&files.other_authority, TOKEN, false),
        ] {
            let collector = block_in_place(|| Collector::guarded(&peers, &files.guard()));
            let environment = [
                ("SSL_CERT_FILE", authority.to_str().expect("text").to_owned()),
                ("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization=Bearer%20{token}")),
                ("OTEL_LOGS_EXPORTER", "otlp".to_owned()),
            ];
            let broker =
                Broker::start(&emulator, &[&collector.environment(protocol)[..], &environment].concat());
            broker.call(3).await;
            let log = block_in_place(|| broker.stop());
            let spans = block_in_place(|| collector.settled());
            let calls = spans.iter().filter(|span| span.kind == "SERVER").count();
            assert_eq!(calls, if is_let_in { 3 } else { 0 }, "{protocol:?}: {log}");
            assert_eq!(!collector.metrics().is_empty(), is_let_in, "{protocol:?}: {log}");
            assert_eq!(collector.log_lines() > 0, is_let_in, "{protocol:?}: {log}");
            assert_eq!(!log.contains("does not accept spans"), is_let_in, "{protocol:?}: {log}");
            assert!(!log.contains(token), "{log}");
        }
    }
}

/// The document's Collector can be started.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn the_documents_configuration_of_a_collector_is_one() {
    let peers = Peers::install(&["otelcol"]);
    let document = fs::read_to_string(root().join("docs/telemetry.md")).expect("reads");
    let (_, rest) = document.split_once("```yaml\nreceivers:").expect("it has one");
    let (rest, _) = rest.split_once("```").expect("it ends");
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("collector.yaml");
    fs::write(&config, format!("receivers:{rest}")).expect("writes");
    printed(peers.command("otelcol/bin/otelcol").arg("validate").arg("--config").arg(config));
}

/// A Collector's certificate, and whom it is to be trusted by.
struct Certificates {
    dir: TempDir,
    authority: PathBuf,
    other_authority: PathBuf,
}

impl Certificates {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: String| {
            let path = dir.path().join(name);
            fs::write(&path, text).expect("writes");
            path
        };
        let authority = Authority::new();
        let leaf = authority.leaf(vec![SanType::DnsName("localhost".try_into().expect("ascii"))]);
        write("certificate.pem", leaf.certificate);
        write("key.pem", leaf.key);
        let other_authority = write("other.pem", Authority::new().pem());
        let authority = write("authority.pem", authority.pem());
        Self { dir, authority, other_authority }
    }

    fn guard(&self) -> Guard {
        let path = |name: &str| self.dir.path().join(name);
        Guard { certificate: path("certificate.pem"), key: path("key.pem"), token: TOKEN }
    }
}

const TOKEN: &str = "what-the-collector-wants";
/// No word of a log line.
const OTHER_TOKEN: &str = "4e1f0a7c-not-this";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn ten_brokers_are_ten_series_whose_sum_is_the_number_of_calls() {
    let (peers, emulator) = (Peers::install(&["otelcol"]), emulator().await);
    let collector = block_in_place(|| Collector::start(&peers));
    let often =
        [("OTEL_METRIC_EXPORT_INTERVAL", "200".to_owned()), ("OTEL_TRACES_EXPORTER", "none".to_owned())];
    let environment = [&collector.environment(Protocol::Grpc)[..], &often].concat();
    let brokers: Vec<_> = (0..10).map(|_| Broker::start(&emulator, &environment)).collect();
    let mut calls = 0;
    for (place, broker) in brokers.iter().enumerate() {
        broker.call(10 + place).await;
        calls += 10 + place as u64;
    }
    block_in_place(|| brokers.into_iter().for_each(|broker| drop(broker.stop())));
    assert_eq!(block_in_place(|| collector.settled()), []);

    let counters = collector.counters();
    for (name, series) in &counters {
        let instances: BTreeSet<&String> = series.keys().map(|(instance, _)| instance).collect();
        assert_eq!(instances.len(), 10, "{name}: {series:?}");
    }
    for name in ["rpc.server.call.duration", "keybroker.cache.uses"] {
        assert_eq!(counters[name].values().sum::<u64>(), calls, "{name}: {:?}", counters[name]);
    }
    let records = &counters["keybroker.audit.records"];
    let of_calls =
        records.iter().filter(|((_, of), _)| of.contains(r#""keybroker.audit.profile":"activity""#));
    // Each broker has records of its own life beside them.
    assert!(of_calls.map(|(_, count)| count).sum::<u64>() >= calls, "{records:?}");
}
