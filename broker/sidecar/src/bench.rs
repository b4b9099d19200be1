//! What `cargo bench --bench draw` measures: draws and decisions inside the process, without gRPC and records around them; and
//! what `--bench attestation` does.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use key_broker_core::clock::{Clock, SystemClock};
use key_broker_core::{
    Action, Bounds, DataKeyLength, DeclaredUse, EncryptionContext, GrantTokens, KeyArn, KeyId, NamedKey,
    Plaintext, Principal, RequestedKey, Reuse,
};
use key_broker_trail::journal::{Durability, Journal, JournalConfig, JournalThread};
use key_broker_trail::record::AwsCaller;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio_util::task::TaskTracker;

use crate::attestation::Trust;
use crate::cache::rules::{Rule, Rules};
use crate::cache::{Cache, DrawTerms};
use crate::kms::guard::{BreakerSettings, Guard, GuardSettings};
use crate::kms::recorded::{KmsRegion, RecordedKms, Recorder};
use crate::kms::{Attempt, AttemptLog, Kms, KmsError};
use crate::operation::{DataKey, DataKeyRequest, EncryptedDataKey, KmsReply, KmsRequest, UsedKey};
use crate::policy::{AliasMeanings, Facts, Permitted, Policy, Question};

/// A cache with one data key, before a KMS that makes nothing else.
pub struct DrawBench {
    cache: Cache,
    policy: Arc<Policy>,
    principal: Principal,
    request: Arc<DataKeyRequest>,
    deadline: Instant,
    _dir: TempDir,
    _journal: JournalThread,
}

/// The permit for one draw.
pub struct DrawPermit(Permitted<Arc<DataKeyRequest>>);

/// Policies, and a call that they permit.
pub struct PolicyBench {
    policy: Policy,
    principal: Principal,
    key: NamedKey,
    context: EncryptionContext,
}

/// Whether `trust` takes a document, at this moment.
#[must_use]
pub fn is_genuine(trust: &Trust, document: Bytes, now: OffsetDateTime) -> bool {
    trust.verify(document, now).is_ok()
}

impl DrawBench {
    /// Draws the key once. KMS takes `kms_takes` for each.
    ///
    /// # Panics
    ///
    /// Where there is no temporary directory, and outside of a tokio runtime.
    pub async fn new(max_messages: u64, kms_takes: Duration) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let dir = tempfile::tempdir().expect("a directory");
        let config = JournalConfig::new(dir.path().into(), Durability::Write, Duration::from_secs(5));
        let (journal, thread) = Journal::open(&config, Arc::new(SystemClock)).expect("a journal");
        let caller = AwsCaller {
            account_id: "111122223333".into(),
            partition: "aws".into(),
            region: "us-west-2".into(),
            kms_host: "kms.us-west-2.amazonaws.com".into(),
            source_address: "127.0.0.1".into(),
        };
        let recorder = Recorder { journal, caller: Arc::new(caller), redaction: None };
        let second = Duration::from_secs(1);
        let breaker = BreakerSettings { failures: 5, open: second, longest_open: second };
        let settings = GuardSettings { max_in_flight: 128, queue_wait: second, fair_time: second, breaker };
        let guard = Guard::new(settings, "us-west-2", Arc::clone(&clock));
        let (kms, tasks) = (Arc::new(OneKeyKms(kms_takes)), TaskTracker::new());
        let region = KmsRegion { once: kms.clone(), kms, guard, recorder };
        let kms = RecordedKms::new(region, Vec::new(), Arc::clone(&clock), tasks);
        let bounds = Bounds { max_age: Duration::from_hours(1), max_messages, max_bytes: 1 << 60 };
        let default = Rule { enabled: true, bounds, refresh_at: Some(0.8), partition: None };
        let kms_deadline = Duration::from_secs(10);
        let rules =
            Rules { default, rules: Vec::new(), max_entries: 10_000, kms_deadline, revocation_check: None };
        let named = NamedKey { arn: KeyArn::parse(ARN), alias: None };
        let request = DataKeyRequest {
            key: RequestedKey {
                written: KeyId::parse("alias/dev").expect("a key id"),
                resolved: Some(named),
            },
            length: DataKeyLength::Aes256,
            context: context(&[("tenant", "acme"), ("purpose", "orders")]),
            grant_tokens: GrantTokens::default(),
        };
        let deadline = clock.instant() + Duration::from_hours(1);
        let policy = Policy::parse("permit(principal, action, resource);").expect("a policy");
        let bench = Self {
            cache: Cache::new(rules, kms, clock),
            policy: Arc::new(policy),
            principal: Principal::Workload("unix:uid/1000".into()),
            request: Arc::new(request),
            deadline,
            _dir: dir,
            _journal: thread,
        };
        for permit in bench.permits(1) {
            bench.draw(permit, 0).await;
        }
        bench
    }

    /// Permits for so many draws: policy's work, not the draw's.
    ///
    /// # Panics
    ///
    /// Never: the policy permits everything.
    #[must_use]
    pub fn permits(&self, draws: usize) -> Vec<DrawPermit> {
        let permit = || {
            let (_, permitted) = self.policy.permit(
                &self.principal,
                Arc::clone(&self.request),
                &Arc::default(),
                Facts::default(),
            );
            DrawPermit(permitted.expect("permitted"))
        };
        (0..draws).map(|_| permit()).collect()
    }

    /// One draw for a message of `bytes` bytes. Returns how many messages the key has served.
    ///
    /// # Panics
    ///
    /// Where the draw fails: a defect.
    pub async fn draw(&self, permit: DrawPermit, bytes: u64) -> u64 {
        let terms = DrawTerms {
            declared: DeclaredUse { messages: 1, bytes },
            reuse: Reuse::default(),
            deadline: self.deadline,
        };
        let drawn = black_box(self.cache.draw(permit.0, &self.principal, terms).await);
        assert!(drawn.result.is_ok(), "kept");
        drawn.reuse.expect("kept").used.messages
    }
}

impl PolicyBench {
    /// Reads policies that permit `spiffe://example.org/99` a data key under `alias/99`.
    ///
    /// # Panics
    ///
    /// Where the text is no policy.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self {
            policy: Policy::parse(text).expect("policies"),
            principal: Principal::parse("spiffe://example.org/99").expect("a principal"),
            key: NamedKey { arn: KeyArn::parse(ARN), alias: KeyId::parse("alias/99").ok() },
            context: context(&[("tenant", "acme")]),
        }
    }

    /// Asks; whether the answer is a yes.
    #[must_use]
    pub fn permits(&self) -> bool {
        let facts = Facts { encryption_context: Some(&self.context), ..Facts::default() };
        let (principal, action, key) = (&self.principal, Action::GenerateDataKey, Some(&self.key));
        let meanings = &AliasMeanings::default();
        black_box(self.policy.decide(&Question { principal, action, key, meanings, facts })).permits
    }
}

/// A KMS with one data key that takes the given time to answer.
struct OneKeyKms(Duration);

#[async_trait]
impl Kms for OneKeyKms {
    async fn call(&self, _: Permitted<KmsRequest>, attempts: &AttemptLog) -> Result<KmsReply, KmsError> {
        tokio::time::sleep(self.0).await;
        attempts.push(Attempt {
            at: SystemClock.now(),
            request_id: "c929ebc7-094a-4ee5-839d-975205113c0f".into(),
            access_key_id: Some("AKIABENCH".into()),
            session: None,
            source_address: None,
            user_agent: String::new(),
            error: None,
        });
        let key = UsedKey { arn: KeyArn::parse(ARN).expect("an ARN"), material_id: None };
        let encrypted = EncryptedDataKey { ciphertext_blob: vec![1; 184].into(), key };
        Ok(KmsReply::DataKey(DataKey { plaintext: Plaintext::new(vec![7; 32]), encrypted }))
    }
}

fn context(pairs: &[(&str, &str)]) -> EncryptionContext {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    EncryptionContext::parse(pairs.collect::<BTreeMap<_, _>>()).expect("a context")
}

const ARN: &str = "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
