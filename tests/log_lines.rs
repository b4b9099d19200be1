//! Proves: a log line of what a call does names the trace of the call, also where a task does it: the caller's trace whether or not
//! the call is sampled, the broker's own where the caller has none; and a line of a call without a trace names none.

mod support;

use std::fs;
use std::path::PathBuf;

use key_broker_client::{Client, GenerateDataKey};
use key_broker_proto::v1 as pb;
use key_broker_proto::v1::key_broker_client::KeyBrokerClient;
use kms_emulator::{Emulator, EmulatorConfig, Fault, KeySpec};
use rustix::process::Signal;
use serde_json::Value;
use support::Records;
use support::bad_collector::Refusing;
use support::process::{Process, write_config};
use tempfile::TempDir;
use tonic::Request;
use tonic::transport::Endpoint;

/// A broker whose policy file makes it log a line at each call for two messages, which it denies, and which no longer asks KMS after one failure.
struct Site {
    emulator: Emulator,
    dir: TempDir,
    broker: Process,
}

impl Site {
    async fn start(environment: &[(&str, &str)]) -> Self {
        let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
        emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
        let dir = tempfile::tempdir().expect("a directory");
        let config = write_config(dir.path(), &emulator.endpoint_url(), "");
        let text = fs::read_to_string(&config).expect("a configuration");
        fs::write(&config, text.replace("[kms]\n", "[kms]\nbreaker_failures = 1\n")).expect("writes");
        fs::write(dir.path().join("policy.cedar"), POLICY).expect("writes");
        let mut command = Process::serve_command(&config);
        command.envs(environment.iter().copied());
        let broker = Process::serve_by(command, &config);
        Self { emulator, dir, broker }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("broker.sock")
    }

    /// Calls without a trace, then with one while KMS fails, each time for two messages first; what was logged and recorded.
    async fn call(self) -> (Vec<Value>, Records) {
        let endpoint = Endpoint::from_shared(format!("unix:{}", self.socket().display())).expect("a URI");
        let mut client = KeyBrokerClient::new(endpoint.connect().await.expect("the broker listens"));
        let request = || {
            Request::new(pb::GenerateDataKeyRequest {
                key_id: "alias/dev".into(),
                length: Some(pb::generate_data_key_request::Length::KeySpec(pb::KeySpec::Aes256.into())),
                ..pb::GenerateDataKeyRequest::default()
            })
        };
        let for_two = |mut request: Request<pb::GenerateDataKeyRequest>| {
            request.get_mut().r#use = Some(pb::Use { messages: 2, ..pb::Use::default() });
            request
        };
        client.generate_data_key(for_two(request())).await.expect_err("a policy fails");
        client.generate_data_key(request()).await.expect("a data key");
        self.emulator.inject(Fault::internal_error().on("GenerateDataKey"));
        let traced = || {
            let mut traced = request();
            traced.get_mut().reuse = Some(pb::Reuse { fresh: true, ..pb::Reuse::default() });
            traced.metadata_mut().insert("traceparent", TRACEPARENT.parse().expect("ascii"));
            traced
        };
        client.generate_data_key(for_two(traced())).await.expect_err("a policy fails");
        client.generate_data_key(traced()).await.expect_err("KMS fails");
        self.broker.signal(Signal::TERM);
        self.broker.wait_for_log("\"stopped\"");
        let log = self.broker.log();
        assert!(self.broker.wait().success(), "{log}");
        let lines =
            log.lines().map(|line| serde_json::from_str(line).expect("a line is an object")).collect();
        (lines, Records::read(&self.dir.path().join("journal")))
    }
}

/// The traces that the lines with this message name.
fn traces<'a>(lines: &'a [Value], message: &str) -> Vec<Option<&'a str>> {
    let about = lines.iter().filter(|line| line["message"] == message);
    about.map(|line| line.get("trace_id").map(|id| id.as_str().expect("text"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_not_sampled_names_the_trace_of_its_caller() {
    let refusing = Refusing::start();
    let endpoint = refusing.endpoint();
    let never = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_TRACES_SAMPLER", "always_off")];
    for environment in [&[][..], &never] {
        let (lines, records) = Site::start(environment).await.call().await;
        assert_eq!(traces(&lines, POLICY_LINE), [None, Some(TRACE_ID)]);
        // Of the task that calls KMS.
        assert_eq!(traces(&lines, KMS_LINE), [Some(TRACE_ID)]);
        assert!(records.activity.iter().all(|record| record["additionalEventData"].get("trace").is_none()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_sampled_names_its_own_trace() {
    let refusing = Refusing::start();
    let (lines, records) =
        Site::start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &*refusing.endpoint())]).await.call().await;
    let recorded: Vec<_> = records
        .activity
        .iter()
        .filter(|record| record["additionalEventData"]["outcome"] == "Denied")
        .map(|record| record["additionalEventData"]["trace"]["traceId"].as_str())
        .collect();
    assert!(recorded[0].is_some());
    assert_eq!(recorded[1], Some(TRACE_ID));
    assert_eq!(traces(&lines, POLICY_LINE), recorded);
    assert_eq!(traces(&lines, KMS_LINE), [Some(TRACE_ID)]);
    assert_eq!(traces(&lines, "serving"), [None]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_does_not_count_is_not_named() {
    let (lines, _) = Site::start(&[("OTEL_PROPAGATORS", "none")]).await.call().await;
    assert_eq!(traces(&lines, POLICY_LINE), [None, None]);
    assert_eq!(traces(&lines, KMS_LINE), [None]);
}

/// Proves: however many calls cause a line of one kind, a bounded number of them is written, and the next one tells how many are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_one_kind_are_bounded_and_counted() {
    let site = Site::start(&[]).await;
    let client = Client::unix(site.socket()).await.expect("the broker listens");
    let left_out = |log: &str| {
        // The last one may be half written.
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter_map(|line| line["lines_left_out"].as_u64()).sum::<u64>()
    };
    let mut calls: u64 = 0;
    // Several intervals, at the pace of the machine: until something was left out, and told.
    while left_out(&site.broker.log()) == 0 {
        for _ in 0..100 {
            let for_two = GenerateDataKey::aes_256("alias/dev").declare_use(2, 0);
            client.generate_data_key(for_two).await.expect_err("a policy fails");
            calls += 1;
        }
        assert!(calls < 100_000, "none is left out");
    }
    let log = site.broker.log();
    let written = log.lines().filter(|line| line.contains(POLICY_LINE)).count() as u64;
    assert!(written + left_out(&log) <= calls && written < calls, "{written} of {calls}");
}

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// The first one overflows for two messages.
const POLICY: &str = r#"
permit(principal is Workload, action == Action::"GenerateDataKey", resource)
    when { context.messages + 9223372036854775806 > 0 };
permit(principal is Workload, action, resource);
"#;
const POLICY_LINE: &str = "a policy cannot be evaluated: the call is denied";
const KMS_LINE: &str = "circuit open: KMS has failed too often in a row, and calls to it are refused";
