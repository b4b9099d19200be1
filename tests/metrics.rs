//! Proves: `/metrics` tells what happened, in exactly the names that the registry declares and that
//! dashboard and alerts use, and nothing that is
//! anybody's secret; Prometheus's own parsers take it; what is pushed is the same.

#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use key_broker::{Push, Telemetry, Tls, TlsFiles};
use key_broker_client::{Client, DataKey, GenerateDataKey};
use key_broker_core::clock::{Clock as _, SystemClock};
use key_broker_trail::delivery::TrailConfig;
use kms_emulator::Fault;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::{ResourceMetrics, ScopeMetrics};
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use peers::{Peers, printed, root};
use serde_json::Value;
use support::pki::{Authority, SERVER, dns, uri};
use support::registry::Registry;
use support::scrape::{Sample, Scrape};
use support::{Setup, TestBroker, reuse, rule, trail};
use tempfile::TempDir;
use time::OffsetDateTime;
use tonic::Code;

/// A broker with everything that has metrics, whose callers' names, keys and contexts are marked.
struct Site {
    broker: TestBroker,
    client: Client,
    dir: TempDir,
}

impl Site {
    async fn new() -> Self {
        let (authority, dir) = (Authority::new(), tempfile::tempdir().expect("a directory"));
        authority.leaf(vec![dns(SERVER)]).write(dir.path(), &authority.pem());
        let path = |name: &str| dir.path().join("current").join(name);
        let (certificate, key, trust_bundle) = (path("tls.crt"), path("tls.key"), path("ca.crt"));
        let tls = Tls::load(&TlsFiles { certificate, key, trust_bundle }).expect("they fit together");
        let trail = TrailConfig {
            delivery_interval: Duration::from_millis(200),
            digest_interval: Duration::from_secs(1),
            ..trail::config(&dir.path().join("trail"))
        };
        let setup = Setup {
            policy: POLICY.into(),
            tls: Some(tls),
            max_attempts: 1,
            reuse: reuse(rule()),
            trail: Some(trail),
            keys: vec![KEY],
            telemetry: Telemetry { spans_dropped: Arc::new(AtomicU64::new(7)), ..on_loopback() },
            ..Setup::default()
        };
        let broker = TestBroker::with(setup).await;
        let leaf = authority.leaf(vec![uri("spiffe://example.org/MARKER-principal")]);
        let address = broker.tcp_address().expect("it listens").to_string();
        let client = Client::tls(&address, &leaf.client(&authority)).await.expect("trusted");
        Self { broker, client, dir }
    }

    /// Calls that end in many ways; what one of them brought.
    async fn call_in_many_ways(&self) -> DataKey {
        let (client, emulator) = (&self.client, &self.broker.emulator);
        let request = || GenerateDataKey::aes_256(KEY).context("tenant", "MARKER-context");
        let key = client.generate_data_key(request()).await.expect("from KMS");
        for _ in 0..2 {
            client.generate_data_key(request()).await.expect("from the cache");
        }
        let code = |error: key_broker_client::Error| error.code();
        assert_eq!(client.describe_key(KEY).await.map_err(code).err(), Some(Code::PermissionDenied));
        assert_eq!(client.generate_random(0).await.map_err(code).err(), Some(Code::InvalidArgument));
        emulator.inject(Fault::throttling().on("GenerateRandom").times(1));
        assert_eq!(client.generate_random(8).await.map_err(code).err(), Some(Code::ResourceExhausted));
        emulator.inject(Fault::internal_error().on("GenerateRandom").times(1));
        assert_eq!(client.generate_random(8).await.map_err(code).err(), Some(Code::Unavailable));
        emulator.inject(Fault::latency(Duration::from_secs(2)).on("GenerateRandom").times(2));
        let hasty = client.clone().with_deadline(Duration::from_millis(500));
        // Whose timer is first, the client's or the broker's, the client does not tell.
        assert!(hasty.generate_random(8).await.is_err());
        let gone = tokio::time::timeout(Duration::from_millis(500), client.generate_random(8)).await;
        assert!(gone.is_err(), "the caller goes away");
        key
    }

    /// As it is once the broker has seen the caller go, KMS has answered and a digest was delivered.
    async fn settled(&self) -> Scrape {
        for _ in 0..100 {
            let scrape = Scrape::of(&self.broker).await;
            let gone = scrape.sum(CALLS, &[("rpc_method", RANDOM), ("rpc_status_code", "CANCELLED")]);
            let answered = scrape.sum(KMS_CALLS, &[("keybroker_kms_operation", "GenerateRandom")]);
            let digest = scrape.find(DIGEST, &[]).count();
            if (gone, answered, digest) == (1.0, 4.0, 1) {
                return scrape;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("not settled within ten seconds: {}", Scrape::of(&self.broker).await.text);
    }
}

fn on_loopback() -> Telemetry {
    Telemetry { http: Some("127.0.0.1:0".parse().expect("an address")), ..Telemetry::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::float_cmp, reason = "counts are whole numbers")]
async fn metrics_tell_what_happened() {
    let site = Site::new().await;
    let key = site.call_in_many_ways().await;
    let scrape = site.settled().await;

    for (method, code, calls) in [
        ("GenerateDataKey", "OK", 3.0),
        ("DescribeKey", "PERMISSION_DENIED", 1.0),
        ("GenerateRandom", "INVALID_ARGUMENT", 1.0),
        ("GenerateRandom", "RESOURCE_EXHAUSTED", 1.0),
        ("GenerateRandom", "UNAVAILABLE", 1.0),
        ("GenerateRandom", "DEADLINE_EXCEEDED", 1.0),
        ("GenerateRandom", "CANCELLED", 1.0),
    ] {
        let labels = [
            ("rpc_system_name", "grpc"),
            ("rpc_method", &*format!("keybroker.v1.KeyBroker/{method}")),
            ("rpc_status_code", code),
        ];
        assert_eq!(scrape.sum(CALLS, &labels), calls, "{method} {code}");
    }
    assert_eq!(scrape.sum(CALLS, &[]), 9.0);
    let timed_out = [("rpc_method", RANDOM), ("rpc_status_code", "DEADLINE_EXCEEDED")];
    let took = scrape.sum("rpc_server_call_duration_seconds_sum", &timed_out);
    assert!((0.4..2.0).contains(&took), "seconds: {took}");

    for (operation, outcome, calls) in [
        ("GenerateDataKey", "ok", 1.0),
        ("GenerateRandom", "throttled", 1.0),
        ("GenerateRandom", "unavailable", 1.0),
        ("GenerateRandom", "timeout", 1.0),
        ("GenerateRandom", "ok", 1.0),
        ("DescribeKey", "ok", 1.0),
        ("GetPublicKey", "ok", 1.0),
    ] {
        let labels = [("keybroker_kms_operation", operation), ("keybroker_kms_outcome", outcome)];
        assert_eq!(scrape.sum(KMS_CALLS, &labels), calls, "{operation} {outcome}");
    }
    assert!(
        scrape.sum(KMS_CALLS, &[("keybroker_kms_operation", "Sign"), ("keybroker_kms_outcome", "ok")]) >= 1.0
    );

    let one = |name: &str, labels: &[(&str, &str)]| {
        let found: Vec<Sample> = scrape.find(name, labels).cloned().collect();
        assert_eq!(found.len(), 1, "{name} {labels:?}");
        found[0].value
    };
    assert_eq!(one("keybroker_kms_requests_saved_total", &[]), 2.0);
    assert_eq!(one("keybroker_cache_uses_total", &[("keybroker_served_from", "CACHE")]), 2.0);
    assert_eq!(one("keybroker_cache_uses_total", &[("keybroker_served_from", "KMS")]), 1.0);
    assert_eq!(one("keybroker_cache_entries", &[]), 1.0);
    let bytes = 32 + u32::try_from(key.ciphertext_blob.len()).expect("small");
    assert_eq!(one("keybroker_cache_size_bytes", &[]), f64::from(bytes));
    assert_eq!(one("keybroker_cache_evictions_total", &[]), 0.0);
    // The broker's start is one of them.
    assert_eq!(one("keybroker_audit_records_total", &[("keybroker_audit_profile", "activity")]), 10.0);
    assert!(one("keybroker_audit_records_total", &[("keybroker_audit_profile", "kms")]) >= 5.0);
    assert_eq!(one("keybroker_audit_queue_depth", &[]), 0.0);
    for what in ["commit", "call", "delivery"] {
        assert_eq!(
            one("keybroker_audit_failures_total", &[("keybroker_audit_failure", what)]),
            0.0,
            "{what}"
        );
    }
    assert!(one("keybroker_audit_commit_duration_seconds_count", &[]) >= 9.0);
    assert_eq!(one("keybroker_connections", &[("keybroker_transport", "tls")]), 1.0);
    for transport in ["unix", "vsock", "insecure_tcp", "admin"] {
        assert_eq!(one("keybroker_connections", &[("keybroker_transport", transport)]), 0.0, "{transport}");
    }
    assert_eq!(one("keybroker_calls_in_flight", &[]), 0.0);
    assert_eq!(one("keybroker_serving", &[]), 1.0);
    assert_eq!(one("keybroker_kms_breaker_open", &[("cloud_region", "us-west-2")]), 0.0);
    assert_eq!(one("keybroker_build_info", &[("service_version", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert_eq!(one("keybroker_telemetry_spans_dropped_total", &[]), 7.0);
    let now = (SystemClock.now() - OffsetDateTime::UNIX_EPOCH).as_seconds_f64();
    let expires = one("keybroker_tls_certificate_expiry_timestamp_seconds", &[]) - now;
    assert!((3_000.0..3_601.0).contains(&expires), "an hour's certificate: {expires}");
    assert_eq!(one("keybroker_tls_certificate_overdue", &[]), 0.0);
    let digest = now - one("keybroker_audit_newest_digest_timestamp_seconds", &[]);
    assert!((-5.0..30.0).contains(&digest), "{digest}");
    let newest = scrape.find(DIGEST, &[]).next().expect("one");
    assert!(
        signatures(&site.dir).contains(&newest.labels["keybroker_audit_digest_signature"]),
        "as it was delivered"
    );

    let blob = &key.ciphertext_blob;
    for secret in ["MARKER", "arn:", "111122223333", &hex::encode(blob), &STANDARD.encode(blob)] {
        assert!(!scrape.text.contains(secret), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_digest_is_known_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let setup = || Setup {
        journal_dir: Some(dir.path().join("journal")),
        trail: Some(trail::config(&dir.path().join("trail"))),
        telemetry: on_loopback(),
        ..Setup::default()
    };
    let first = TestBroker::with(setup()).await;
    let signature = |scrape: &Scrape| {
        let newest = scrape.find(DIGEST, &[]).next().expect("a digest");
        newest.labels["keybroker_audit_digest_signature"].clone()
    };
    let opening = signature(&Scrape::of(&first).await);
    assert_eq!(BTreeSet::from([opening.clone()]), signatures(&dir), "nothing is served before it");
    drop(first.stop().await);
    let second = TestBroker::with(setup()).await;
    let newest = signature(&Scrape::of(&second).await);
    let delivered = signatures(&dir);
    // The first broker's opening and closing digest, and the one with which its trail goes on.
    assert!(
        delivered.len() == 3 && delivered.contains(&newest) && newest != opening,
        "{newest}: {delivered:?}"
    );
    drop(second.stop().await);
}

/// The signatures of all delivered digests.
fn signatures(dir: &TempDir) -> BTreeSet<String> {
    let objects = trail::objects(&dir.path().join("trail"));
    let digests = objects.values().map(|path| format!("{}.meta.json", path.display()));
    let read = |path: String| -> Option<String> {
        let metadata: Value = serde_json::from_str(&fs::read_to_string(path).ok()?).expect("JSON");
        Some(metadata["signature"].as_str()?.to_owned())
    };
    digests.filter_map(read).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_those_of_the_registry_and_dashboard_and_alerts_use_no_others() {
    let site = Site::new().await;
    site.call_in_many_ways().await;
    let scrape = site.settled().await;
    // Those of `audit watch` are no broker's: tests/watch.rs has them.
    let registry = Registry::read(root());
    for metric in registry.metrics.iter().filter(|metric| !metric.name.starts_with("keybroker.audit.watch."))
    {
        let name = metric.prometheus_name();
        assert_eq!(scrape.families.get(&name), Some(&metric.instrument), "{name}");
        assert!(scrape.text.contains(&format!("# HELP {name} {}\n", metric.brief)), "{name}");
        let samples = scrape.samples.iter().filter(|sample| family_of(&scrape, sample) == name);
        let labels: BTreeSet<String> =
            samples.flat_map(|sample| sample.labels.keys()).filter(|label| *label != "le").cloned().collect();
        assert_eq!(labels, metric.labels(), "{name}");
    }

    let names = scrape.samples.iter().map(|sample| sample.name.as_str());
    let labels = scrape.samples.iter().flat_map(|sample| sample.labels.keys()).map(String::as_str);
    let exposed: BTreeSet<&str> = names.chain(labels).collect();
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("it is there");
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/key-broker.json")).expect("JSON");
    let alerts = read("deploy/prometheus/alerts.yaml");
    for (place, text) in [("dashboard", &dashboard.to_string()), ("alerts", &alerts)] {
        let used = used_in(text);
        assert!(used.len() >= 10, "{place}: {used:?}");
        for name in used {
            assert!(exposed.contains(name.as_str()), "{place}: no metric or label {name}");
        }
    }
    // As the page says how to put the address of a copy there.
    let told = read("docs/runbooks/README.md");
    let command = told.lines().find_map(|line| line.strip_suffix(" > alerts.yaml")).expect("a command");
    let put = Command::new("sh").args(["-c", command]).current_dir(root()).output().expect("a shell").stdout;
    let put = String::from_utf8(put).expect("text");
    assert!(!put.contains("runbook_url: https://runbooks.example.com"), "{put}");
    let mut alerts_seen = 0;
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let page = format!("docs/runbooks/{alert}.md");
        for (told, address) in
            [(&alerts, "https://runbooks.example.com"), (&put, "https://wiki.example.com/runbooks")]
        {
            assert_eq!(
                told.matches(&format!("runbook_url: {address}/{alert}.md\n")).count(),
                1,
                "{alert} names no page"
            );
        }
        assert!(read(&page).starts_with(&format!("# {alert}\n")), "{page}");
        assert!(read("docs/runbooks/README.md").contains(&format!("[{alert}]({alert}.md)")), "{alert}");
        alerts_seen += 1;
    }
    let pages = fs::read_dir(root().join("docs/runbooks")).expect("it is there").count();
    assert_eq!(alerts_seen + 1, pages, "a page for each alert, and one for all");
}

/// The name of the family that a sample is of.
fn family_of<'a>(scrape: &'a Scrape, sample: &Sample) -> &'a str {
    let families = scrape.families.keys().filter(|family| sample.name.starts_with(family.as_str()));
    families.max_by_key(|family| family.len()).expect("its family")
}

/// The metrics and labels of the broker's own that a text speaks of.
fn used_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '_').map(str::to_owned);
    words.filter(|word| word.starts_with("keybroker_") || word.starts_with("rpc_server_")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn prometheuss_own_parser_reads_every_sample() {
    let peers = Peers::install(&["prometheus"]);
    let site = Site::new().await;
    site.call_in_many_ways().await;
    let scrape = site.settled().await;
    let mut judge = peers.command("prometheus/bin/python");
    let script = root().join("tests/peers/prometheus/judge.py");
    let judged = fed(judge.arg(script), &scrape.text);
    let samples: Vec<Value> =
        judged.lines().map(|line| serde_json::from_str(line).expect("a sample")).collect();
    assert_eq!(samples.len(), scrape.samples.len());
    for sample in &samples {
        let labels = serde_json::from_value(sample["labels"].clone()).expect("labels");
        let text = |field: &str| sample[field].as_str().expect("text").to_owned();
        let read = Sample { name: text("name"), labels, value: text("value").parse().expect("a number") };
        assert!(scrape.samples.contains(&read), "{read:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
#[cfg_attr(not(debian_x86_64), ignore = "needs Debian on x86_64")]
async fn promtool_takes_metrics_and_alerts() {
    let promtool = Peers::install(&["promtool"]);
    let site = Site::new().await;
    site.call_in_many_ways().await;
    let scrape = site.settled().await;
    let rules = root().join("deploy/prometheus");
    let mut check = promtool.command("promtool/promtool");
    assert!(printed(check.args(["check", "rules"]).arg(rules.join("alerts.yaml"))).contains("SUCCESS"));
    let mut test = promtool.command("promtool/promtool");
    printed(test.args(["test", "rules"]).arg(rules.join("alerts.test.yaml")));
    let mut lint = promtool.command("promtool/promtool");
    let said = fed(lint.args(["check", "metrics"]), &scrape.text);
    assert_eq!(said, "");
}

/// What a program says of a text on its standard input.
fn fed(program: &mut Command, text: &str) -> String {
    let mut child = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    let ended = child.wait_with_output().expect("it ends");
    [ended.stdout, ended.stderr].map(|said| String::from_utf8(said).expect("text")).concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pushed_is_the_same_and_nothing_is_without_a_reader() {
    let pushed = Pushed::default();
    let push = Push::new(pushed.clone(), Resource::builder_empty().with_service_name("key-broker").build());
    let telemetry = Telemetry { push: Some(push), ..Telemetry::default() };
    let broker = TestBroker::with(Setup { telemetry, ..Setup::default() }).await;
    assert_eq!(broker.telemetry_address(), None, "no listener unless told");
    broker.client().await.generate_random(8).await.expect("serves");
    drop(broker.stop().await);
    let names = pushed.0.lock().expect("whole").clone();
    for name in ["rpc.server.call.duration s", "keybroker.kms.request.duration s", "keybroker.cache.size By"]
    {
        assert!(names.contains(name), "{name}: {names:?}");
    }

    let silent = TestBroker::start().await;
    silent.client().await.generate_random(8).await.expect("serves");
    assert_eq!(silent.telemetry_address(), None);
    drop(silent.stop().await);
}

/// Names and units of what was pushed.
#[derive(Clone, Default)]
struct Pushed(Arc<Mutex<BTreeSet<String>>>);

impl PushMetricExporter for Pushed {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let all = metrics.scope_metrics().flat_map(ScopeMetrics::metrics);
        let names = all.map(|metric| format!("{} {}", metric.name(), metric.unit()));
        self.0.lock().expect("whole").extend(names);
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

const RANDOM: &str = "keybroker.v1.KeyBroker/GenerateRandom";
const POLICY: &str = r#"permit(principal is Workload, action, resource);
    forbid(principal, action == Action::"DescribeKey", resource);"#;
const KEY: &str = "alias/MARKER-key";
const CALLS: &str = "rpc_server_call_duration_seconds_count";
const DIGEST: &str = "keybroker_audit_newest_digest_info";
const KMS_CALLS: &str = "keybroker_kms_request_duration_seconds_count";
