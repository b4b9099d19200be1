//! The cache with the AWS SDK and an emulator, without gRPC: how often draws call KMS, and who shares a key.

use std::collections::BTreeMap;

use key_broker_core::clock::SystemClock;
use key_broker_core::{DataKeyLength, EncryptionContext, KeyArn, KeyId};
use key_broker_trail::journal::{Durability, Journal, JournalConfig, JournalThread};
use kms_emulator::{Emulator, EmulatorConfig, KeySpec};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

use super::rules::Match;
use super::*;
use crate::kms::aws::{AwsKms, AwsSettings, static_credentials};
use crate::kms::guard::{BreakerSettings, Guard, GuardSettings};
use crate::kms::recorded::{KmsRegion, Recorder};
use crate::named_key::{NamedKey, RequestedKey};
use crate::operation::GrantTokens;
use crate::policy::{Facts, Policy};

/// A cache with the emulator, without gRPC.
struct Bench {
    cache: Cache,
    emulator: Emulator,
    key: KeyArn,
    policy: Arc<Policy>,
    clock: Arc<dyn Clock>,
    _dir: TempDir,
    _journal: JournalThread,
}

impl Bench {
    async fn new(rules: Rules) -> Self {
        let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
        let arn = emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let settings = AwsSettings {
            region: "us-west-2".into(),
            endpoint_url: Some(emulator.endpoint_url()),
            sts_endpoint_url: Some(emulator.endpoint_url()),
            connect_timeout: Duration::from_secs(1),
            attempt_timeout: Duration::from_secs(3),
            max_attempts: 3,
            role_arn: None,
            session_name: None,
            imds_connect_timeout: Duration::from_secs(2),
            imds_read_timeout: Duration::from_secs(10),
            fallback_regions: Vec::new(),
            fallback_endpoint_urls: BTreeMap::new(),
            account_roles: BTreeMap::new(),
        };
        let kms =
            AwsKms::new(settings, Some(static_credentials("AKIATEST", "test")), Arc::clone(&clock)).await;
        let caller = Arc::new(kms.caller().await.expect("known"));
        let dir = tempfile::tempdir().expect("a directory");
        let config = JournalConfig::new(dir.path().into(), Durability::Write, Duration::from_secs(5));
        let (journal, thread) = Journal::open(&config, Arc::new(SystemClock)).expect("a journal");
        let recorder = Recorder { journal, caller, redaction: None };
        let guard = Guard::new(guard(), "us-west-2", Arc::clone(&clock));
        let kms = Arc::new(kms);
        let region = KmsRegion { once: kms.clone(), kms, guard, recorder };
        let kms = RecordedKms::new(region, Vec::new(), Arc::clone(&clock), TaskTracker::new());
        let policy = Policy::parse("permit(principal is Workload, action, resource);").expect("a policy");
        Self {
            cache: Cache::new(rules, kms, Arc::clone(&clock)),
            emulator,
            key: KeyArn::parse(&arn).expect("an ARN"),
            policy: Arc::new(policy),
            clock,
            _dir: dir,
            _journal: thread,
        }
    }

    async fn draw(&self, principal: &Principal, tenant: &str) -> Vec<u8> {
        let pairs = BTreeMap::from([("tenant".to_owned(), tenant.to_owned())]);
        let named = NamedKey { arn: Some(self.key.clone()), alias: None };
        let request = DataKeyRequest {
            key: RequestedKey { written: key_id("alias/dev"), resolved: Some(named) },
            length: DataKeyLength::Aes256,
            context: EncryptionContext::parse(pairs).expect("a context"),
            grant_tokens: GrantTokens::default(),
        };
        let terms = DrawTerms {
            declared: DeclaredUse { messages: 1, bytes: 0 },
            reuse: Reuse::default(),
            deadline: self.clock.instant() + Duration::from_secs(30),
        };
        let (_, permitted) =
            self.policy.permit(principal, Arc::new(request), &Arc::default(), Facts::default());
        let drawn = self.cache.draw(permitted.expect("permitted"), principal, terms).await;
        drawn.result.unwrap_or_else(|error| panic!("{error:?}")).plaintext.as_ref().to_vec()
    }
}

fn workload(uid: u32) -> Principal {
    Principal::Workload(format!("unix:uid/{uid}").into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_draws_of_a_thousand_each_cause_a_hundred_kms_calls() {
    for (refresh_at, most) in [(None, 100), (Some(0.8), 101)] {
        let bench = Arc::new(
            Bench::new(reuse(Rule {
                refresh_at,
                bounds: Bounds { max_messages: 1_000, ..rule().bounds },
                ..rule()
            }))
            .await,
        );
        let callers: Vec<_> = (0..50)
            .map(|_| {
                let bench = Arc::clone(&bench);
                tokio::spawn(async move {
                    for _ in 0..2_000 {
                        bench.draw(&workload(1), "acme").await;
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.expect("no panic");
        }
        let calls = bench.emulator.call_count("GenerateDataKey");
        assert!((100..=most).contains(&calls), "{calls} calls, refresh ahead at {refresh_at:?}");
    }
}

#[tokio::test]
async fn principals_share_a_data_key_only_where_configuration_names_a_partition() {
    let bench = Bench::new(reuse(rule())).await;
    let mine = bench.draw(&workload(1), "acme").await;
    assert_eq!(mine, bench.draw(&workload(1), "acme").await);
    assert_ne!(mine, bench.draw(&workload(2), "acme").await);
    assert_ne!(mine, bench.draw(&workload(1), "other").await);

    let shared = Rule { partition: Some("fleet".into()), ..rule() };
    let matches = |uid: u32| Match { principal: Some(format!("unix:uid/{uid}")), key: None };
    let rules = Rules { rules: vec![(matches(1), shared.clone()), (matches(2), shared)], ..reuse(rule()) };
    let bench = Bench::new(rules).await;
    let ours = bench.draw(&workload(1), "acme").await;
    assert_eq!(ours, bench.draw(&workload(2), "acme").await);
    assert_ne!(ours, bench.draw(&workload(3), "acme").await);
    // A principal with the name of a shared partition does not get into it.
    assert_ne!(ours, bench.draw(&Principal::Workload("fleet".into()), "acme").await);
}

#[tokio::test]
async fn a_full_cache_serves_on() {
    let bench = Bench::new(Rules { max_entries: 10, ..reuse(rule()) }).await;
    for n in 0..200 {
        bench.draw(&workload(n % 50), "acme").await;
    }
    let mut kept = 0;
    bench.cache.0.sweep();
    bench.cache.list(&mut |_| kept += 1);
    assert!(kept <= 10, "{kept} are kept");
}

#[tokio::test]
async fn contexts_of_one_push_out_no_kept_key_of_another() {
    let bench = Bench::new(Rules { max_entries: 10, ..reuse(rule()) }).await;
    let kept = bench.draw(&workload(1), "acme").await;
    for n in 0..100 {
        bench.draw(&workload(2), &n.to_string()).await;
    }
    assert_eq!(bench.draw(&workload(1), "acme").await, kept);
}

fn key_id(text: &str) -> KeyId {
    KeyId::parse(text).expect("a key id")
}

fn guard() -> GuardSettings {
    let (open, longest_open) = (Duration::from_secs(1), Duration::from_secs(30));
    GuardSettings {
        max_in_flight: 128,
        queue_wait: Duration::from_secs(10),
        fair_time: Duration::from_secs(3),
        breaker: BreakerSettings { failures: 5, open, longest_open },
    }
}

/// The defaults of `[reuse]`, without refresh ahead.
fn rule() -> Rule {
    let bounds = Bounds { max_age: Duration::from_mins(5), max_messages: 10_000, max_bytes: 1 << 30 };
    Rule { enabled: true, bounds, message_bounds: bounds, refresh_at: None, partition: None }
}

fn reuse(default: Rule) -> Rules {
    let kms_deadline = Duration::from_secs(10);
    Rules { default, rules: Vec::new(), max_entries: 10_000, kms_deadline, revocation_check: None }
}
