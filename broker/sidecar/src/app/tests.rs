//! Proves: a defect in the broker is an internal error with fixed text and a record, and the broker lives on.

use std::fs;

use async_trait::async_trait;
use key_broker_client::{Client, GenerateDataKey};
use key_broker_core::Bounds;
use key_broker_core::clock::SystemClock;
use key_broker_trail::journal::{Durability, JournalConfig};
use serde_json::Value;
use tonic::Code;

use super::*;
use crate::cache::rules::Rule;
use crate::error::KmsError;
use crate::kms::aws::{AskedRegion, AwsSettings, static_credentials};
use crate::kms::guard::BreakerSettings;
use crate::kms::{AttemptLog, Kms};
use crate::limits::ShareLimits;
use crate::operation::{KmsReply, KmsRequest};
use crate::policy::{Permitted, Policy};
use crate::transport::unix::UnixAddress;

#[tokio::test]
async fn a_panic_is_an_internal_error_with_fixed_text_and_a_record() {
    let dir = tempfile::tempdir().expect("a directory");
    let (socket, journal) = (dir.path().join("broker.sock"), dir.path().join("journal"));
    let unix = UnixAddress { path: socket.clone(), mode: 0o600, gid: None };
    let drain = CancellationToken::new();
    let parts = parts(unix, JournalConfig::new(journal.clone(), Durability::Fsync, SECONDS)).await;
    let kms: Arc<dyn Kms> = Arc::new(PanickingKms);
    let region = AskedRegion { once: Arc::clone(&kms), kms, caller: parts.caller.clone() };
    let started = Box::pin(Broker::start_before(region, Vec::new(), parts, drain.clone())).await;
    let serving = tokio::spawn(started.expect("it starts").serve());
    let client = Client::unix(&socket).await.expect("it listens");

    let error = client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect_err("panics");
    assert_eq!((error.code(), error.reason()), (Code::Internal, Some("INTERNAL")));
    assert!(!error.message().contains("SECRET"), "{error}");
    let id = error.request_id().expect("every refusal has one").to_owned();
    let error = client.describe_key("alias/dev").await.expect_err("panics");
    assert_eq!(error.reason(), Some("INTERNAL"), "the broker lives on");

    drain.cancel();
    serving.await.expect("no panic");
    let records = records(&journal);
    let outcomes: Vec<_> = records.iter().map(|record| &record["additionalEventData"]["outcome"]).collect();
    assert_eq!(outcomes, ["Failed", "Failed"]);
    assert_eq!((&records[0]["requestID"], &records[0]["errorCode"]), (&id.into(), &"InternalFailure".into()));
}

/// A KMS that is a defect.
struct PanickingKms;

#[async_trait]
impl Kms for PanickingKms {
    async fn call(&self, _: Permitted<KmsRequest>, _: &AttemptLog) -> Result<KmsReply, KmsError> {
        panic!("SECRET")
    }
}

/// What `journal` holds.
fn records(journal: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(journal.join("journal-00000001.open")).expect("reads");
    // `SEQUENCE HASH RECORD`, after a first line of another kind.
    let lines = text.lines().skip(1).filter_map(|line| line.splitn(3, ' ').last());
    let records = lines.map(|record| serde_json::from_str(record).expect("a record"));
    // What the broker tells of its own life is no call.
    records.filter(|record: &Value| record["userIdentity"]["type"] != "Broker").collect()
}

async fn parts(unix: UnixAddress, journal: JournalConfig) -> Parts {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let nowhere = AwsSettings {
        region: "us-west-2".into(),
        endpoint_url: None,
        sts_endpoint_url: None,
        connect_timeout: SECONDS,
        attempt_timeout: SECONDS,
        max_attempts: 1,
        role_arn: None,
        session_name: None,
        imds_connect_timeout: Duration::from_secs(2),
        imds_read_timeout: Duration::from_secs(10),
        fallback_regions: Vec::new(),
        fallback_endpoint_urls: std::collections::BTreeMap::new(),
        account_roles: std::collections::BTreeMap::new(),
    };
    let kms = AwsKms::new(nowhere, Some(static_credentials("AKIATEST", "test")), Arc::clone(&clock)).await;
    let bounds = Bounds { max_age: SECONDS, max_messages: 1, max_bytes: 1 };
    Parts {
        listen: Listen { unix: Some(unix), tls: None, vsock: None, insecure_tcp: None, admin: None },
        identities: Identities::default(),
        policies: Policy::parse("permit(principal, action, resource);").expect("a policy").into(),
        bindings: Bindings::default(),
        trust: Trust::aws(),
        audit: AuditConfig { journal, trail: None, stdout: false, redaction: None },
        suites_without_commitment: false,
        reuse: Rules {
            default: Rule {
                enabled: false,
                bounds,
                message_bounds: bounds,
                refresh_at: None,
                partition: None,
            },
            rules: Vec::new(),
            max_entries: 1,
            kms_deadline: SECONDS,
            revocation_check: None,
        },
        limits: Limits {
            calls_in_flight: 8,
            connections: 8,
            share: ShareLimits { connections: 8, calls_in_flight: 8, calls_per_second: None },
            default_deadline: SECONDS,
            deadline_floor: Duration::from_millis(1),
            drain: SECONDS,
        },
        kms: Arc::new(kms),
        guard: GuardSettings {
            max_in_flight: 8,
            queue_wait: SECONDS,
            fair_time: SECONDS,
            breaker: BreakerSettings { failures: 5, open: SECONDS, longest_open: SECONDS },
        },
        caller: AwsCaller {
            account_id: "111122223333".into(),
            partition: "aws".into(),
            region: "us-west-2".into(),
            kms_host: "kms.us-west-2.amazonaws.com".into(),
            source_address: "127.0.0.1".into(),
        },
        telemetry: Telemetry::default(),
        configuration_sha256: None,
        clock,
    }
}

const SECONDS: Duration = Duration::from_secs(5);
