//! One draw of a kept data key inside the process, without gRPC and records around it: nanoseconds and allocations; and
//! what a draw takes where one key ends and the next, made ahead, begins.
//!
//! `cargo bench --bench draw`

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use key_broker::attestation::VerifiedRecipient;
use key_broker::audit::journal::{Durability, Journal, JournalConfig, JournalThread};
use key_broker::audit::record::{Action, DeclaredUse};
use key_broker::cache::bounds::{Bounds, Reuse};
use key_broker::cache::rules::{Rule, Rules};
use key_broker::cache::{Cache, Wish};
use key_broker::clock::{Clock, SystemClock};
use key_broker::identity::Principal;
use key_broker::key::{DataKeyLength, EncryptionContext, GrantTokens, KeyArn, KeyId, NamedKey, RandomLength};
use key_broker::kms::attested::{AttestedDataKey, AttestedPlaintext};
use key_broker::kms::caller::AwsCaller;
use key_broker::kms::guard::{BreakerSettings, Guard, GuardSettings};
use key_broker::kms::recorded::{RecordedKms, Recorder};
use key_broker::kms::{
    Answer, Answers, DataKey, DataKeyRequest, DecryptRequest, Decrypted, EncryptedDataKey, KeyDescription,
    Kms, KmsError, PublicKey, Signature, UsedKey,
};
use key_broker::policy::{Facts, Permit, Policy, Question};
use key_broker::secret::Plaintext;
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

fn main() {
    one_draw();
    boundary();
    policy();
}

/// What policy takes of a call: remembered, and asked anew.
fn policy() {
    let one = |n| {
        format!(
            r#"permit(principal == Workload::"spiffe://example.org/{n}", action == Action::"GenerateDataKey",
                      resource in Alias::"alias/{n}")
               when {{ context.encryptionContext.hasTag("tenant") && context.messages < 100 }};"#
        )
    };
    let text = (0..100).map(one).collect::<Vec<_>>().concat();
    let (permit_all, hundred) = ("permit(principal, action, resource);", text.as_str());
    let pairs = BTreeMap::from([("tenant".to_owned(), "acme".to_owned())]);
    let context = EncryptionContext::parse(pairs).expect("a context");
    let principal = Principal::parse("spiffe://example.org/99").expect("a principal");
    let arn = "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let key = NamedKey { arn: KeyArn::parse(arn), alias: KeyId::parse("alias/99").ok() };
    for (name, text) in
        [("one policy", permit_all), ("100 policies that look at the encryption context", hundred)]
    {
        let policy = Policy::parse(text).expect("policies");
        let ask = |messages| {
            let facts = Facts { messages, encryption_context: Some(&context), ..Facts::default() };
            let (action, key) = (Action::GenerateDataKey, Some(&key));
            black_box(policy.authorize(&Question { principal: &principal, action, key, facts }))
                .permit
                .is_some()
        };
        let each = |asked: u32, ask: &dyn Fn(u32)| {
            let started = SystemClock.instant();
            (0..asked).for_each(ask);
            started.elapsed().as_nanos() / u128::from(asked)
        };
        assert!(ask(1));
        let remembered = each(200_000, &|_| assert!(ask(1)));
        // With other policies nothing is remembered.
        let parsed: Vec<Policy> = (0..200).map(|_| Policy::parse(text).expect("policies")).collect();
        let asked_anew = each(200, &|n| {
            let facts = Facts { encryption_context: Some(&context), ..Facts::default() };
            let (action, key) = (Action::GenerateDataKey, Some(&key));
            let question = Question { principal: &principal, action, key, facts };
            assert!(black_box(parsed[n as usize].authorize(&question)).permit.is_some());
        });
        println!("{name}: {remembered} ns remembered, {asked_anew} ns asked of Cedar");
    }
}

fn one_draw() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let bench = runtime.block_on(Bench::new(1 << 32, Duration::ZERO));
    let mut best = Duration::MAX;
    let mut allocations = 0;
    for _ in 0..ROUNDS {
        let permits = bench.permits();
        let started = SystemClock.instant();
        let counted = allocation_counter::measure(|| runtime.block_on(bench.draw(permits)));
        best = best.min(started.elapsed());
        // The vector of permits is not the draw's.
        allocations = counted.count_total;
    }
    println!("one draw of a kept data key: {} ns (best of {ROUNDS} rounds)", best.as_nanos() / DRAWS as u128);
    println!("allocations in {DRAWS} draws: {allocations}");
}

/// Refresh ahead at 0.8 of 50,000 messages, before a KMS that takes 2 ms: 10,000 draws pass meanwhile.
fn boundary() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (mut near, mut elsewhere) = runtime.block_on(async {
        let bench = Bench::new(MESSAGES, Duration::from_millis(2)).await;
        bench.latencies().await
    });
    let p99 = |latencies: &mut Vec<u64>| {
        latencies.sort_unstable();
        latencies[latencies.len() * 99 / 100]
    };
    println!(
        "p99 of a draw within {NEAR} draws of a boundary: {} ns, elsewhere: {} ns ({} and {} draws)",
        p99(&mut near),
        p99(&mut elsewhere),
        near.len(),
        elsewhere.len()
    );
}

struct Bench {
    cache: Cache,
    policy: Policy,
    principal: Principal,
    request: Arc<DataKeyRequest>,
    until: Instant,
    _dir: TempDir,
    _journal: JournalThread,
}

impl Bench {
    async fn new(max_messages: u64, kms_takes: Duration) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let dir = tempfile::tempdir().expect("a directory");
        let config = JournalConfig::new(dir.path().into(), Durability::Write, Duration::from_secs(5));
        let (journal, thread) = Journal::open(&config, Arc::new(SystemClock)).expect("a journal");
        let caller = AwsCaller {
            account_id: "111122223333".into(),
            arn: "arn:aws:iam::111122223333:user/bench".into(),
            user_id: "AIDABENCH".into(),
            region: "us-west-2".into(),
            kms_host: "kms.us-west-2.amazonaws.com".into(),
            source_address: "127.0.0.1".into(),
        };
        let recorder = Recorder { journal, caller: Arc::new(caller) };
        let second = Duration::from_secs(1);
        let breaker = BreakerSettings { failures: 5, open: second, longest_open: second };
        let settings = GuardSettings { max_in_flight: 64, queue_wait: second, fair_time: second, breaker };
        let guard = Guard::new(settings, Arc::clone(&clock));
        let kms = RecordedKms::new(
            Arc::new(OneKey(kms_takes)),
            guard,
            recorder,
            Arc::clone(&clock),
            TaskTracker::new(),
        );
        let bounds = Bounds { max_age: Duration::from_hours(1), max_messages, max_bytes: 1 << 60 };
        let default = Rule { enabled: true, bounds, refresh_at: Some(0.8), partition: None };
        let rules = Rules {
            default,
            rules: Vec::new(),
            max_entries: 10_000,
            kms_deadline: Duration::from_secs(10),
            revocation_check: None,
        };
        let pairs = [("tenant", "acme"), ("purpose", "orders")];
        let request = DataKeyRequest {
            key: KeyId::parse("alias/dev").expect("a key id").into(),
            length: DataKeyLength::Aes256,
            context: EncryptionContext::parse(BTreeMap::from(
                pairs.map(|(n, v)| (n.to_owned(), v.to_owned())),
            ))
            .expect("a context"),
            grant_tokens: GrantTokens::default(),
        };
        let until = clock.instant() + Duration::from_hours(1);
        let bench = Self {
            cache: Cache::new(rules, kms, clock),
            policy: Policy::parse("permit(principal, action, resource);").expect("a policy"),
            principal: Principal::Workload("unix:uid/1000".into()),
            request: Arc::new(request),
            until,
            _dir: dir,
            _journal: thread,
        };
        bench.draw(bench.permits()).await;
        bench
    }

    /// Policy's work, not the draw's.
    fn permits(&self) -> Vec<Permit> {
        let (action, facts) = (Action::GenerateDataKey, Facts::default());
        let question = Question { principal: &self.principal, action, key: None, facts };
        let authorize = || self.policy.authorize(&question);
        (0..DRAWS).map(|_| authorize().permit.expect("permitted")).collect()
    }

    /// Nanoseconds of draws near a boundary, and of the others.
    async fn latencies(&self) -> (Vec<u64>, Vec<u64>) {
        let (mut near, mut elsewhere) = (Vec::new(), Vec::new());
        let declared = DeclaredUse { messages: 1, bytes: 0 };
        let wish = Wish { declared, reuse: Reuse::default(), waiting: self.until.into() };
        for permit in std::iter::repeat_with(|| self.permits()).take(ROUNDS).flatten() {
            let started = SystemClock.instant();
            let drawn =
                self.cache.data_key(permit, &self.principal, Arc::clone(&self.request), wish.clone()).await;
            let took = u64::try_from(started.elapsed().as_nanos()).expect("no draw takes centuries");
            let used = drawn.reuse.expect("kept").used.messages;
            if used <= NEAR || used > MESSAGES - NEAR { near.push(took) } else { elsewhere.push(took) }
        }
        (near, elsewhere)
    }

    async fn draw(&self, permits: Vec<Permit>) {
        let declared = DeclaredUse { messages: 1, bytes: 1_024 };
        let wish = Wish { declared, reuse: Reuse::default(), waiting: self.until.into() };
        for permit in permits {
            let drawn =
                self.cache.data_key(permit, &self.principal, Arc::clone(&self.request), wish.clone()).await;
            assert!(black_box(drawn).result.is_ok(), "kept");
        }
    }
}

/// A KMS that has one data key, and takes so long.
struct OneKey(Duration);

#[async_trait]
impl Kms for OneKey {
    async fn generate_data_key(
        &self,
        _: Permit,
        _: &DataKeyRequest,
        answers: &Answers,
    ) -> Result<DataKey, KmsError> {
        tokio::time::sleep(self.0).await;
        answers.push(Answer {
            at: SystemClock.now(),
            request_id: "c929ebc7-094a-4ee5-839d-975205113c0f".into(),
            access_key_id: None,
            user_agent: String::new(),
            error: None,
        });
        let arn = KeyArn::parse("arn:aws:kms:us-west-2:111122223333:key/1234abcd").expect("an ARN");
        let key = UsedKey { arn, material_id: None };
        let encrypted = EncryptedDataKey { ciphertext_blob: vec![1; 184].into(), key };
        Ok(DataKey { plaintext: Plaintext::new(vec![7; 32]), encrypted })
    }

    async fn generate_data_key_without_plaintext(
        &self,
        _: Permit,
        _: &DataKeyRequest,
        _: &Answers,
    ) -> Result<EncryptedDataKey, KmsError> {
        unreachable!("the bench draws data keys")
    }

    async fn decrypt(&self, _: Permit, _: &DecryptRequest, _: &Answers) -> Result<Decrypted, KmsError> {
        unreachable!("the bench draws data keys")
    }

    async fn generate_random(&self, _: Permit, _: RandomLength, _: &Answers) -> Result<Plaintext, KmsError> {
        unreachable!("the bench draws data keys")
    }

    async fn generate_data_key_for(
        &self,
        _: Permit,
        _: &VerifiedRecipient,
        _: &DataKeyRequest,
        _: &Answers,
    ) -> Result<AttestedDataKey, KmsError> {
        unreachable!("the bench draws data keys")
    }

    async fn decrypt_for(
        &self,
        _: Permit,
        _: &VerifiedRecipient,
        _: &DecryptRequest,
        _: &Answers,
    ) -> Result<AttestedPlaintext, KmsError> {
        unreachable!("the bench draws data keys")
    }

    async fn generate_random_for(
        &self,
        _: Permit,
        _: &VerifiedRecipient,
        _: RandomLength,
        _: &Answers,
    ) -> Result<AttestedPlaintext, KmsError> {
        unreachable!("the bench draws data keys")
    }

    async fn describe_key(&self, _: Permit, _: &KeyId, _: &Answers) -> Result<KeyDescription, KmsError> {
        unreachable!("the bench draws data keys")
    }

    async fn check(&self, _: Permit, _: &KeyId, _: &Answers) -> Result<(), KmsError> {
        unreachable!("the bench draws data keys")
    }

    async fn sign(&self, _: Permit, _: &KeyId, _: [u8; 32], _: &Answers) -> Result<Signature, KmsError> {
        unreachable!("the bench draws data keys")
    }

    async fn public_key(&self, _: Permit, _: &KeyId, _: &Answers) -> Result<PublicKey, KmsError> {
        unreachable!("the bench draws data keys")
    }
}

const ROUNDS: usize = 10;
const DRAWS: usize = 100_000;
const MESSAGES: u64 = 50_000;
const NEAR: u64 = 50;
