//! Entry points for `cargo bench --bench draw` (draws and policy decisions inside the process, without gRPC and records) and
//! `--bench attestation`.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use key_broker_core::clock::{Clock, SystemClock};
use key_broker_core::{
    Action, Bounds, DataKeyLength, DeclaredUse, EncryptionContext, KeyArn, KeyId, Plaintext, Principal, Reuse,
};
use key_broker_trail::journal::{Durability, Journal, JournalConfig};
use key_broker_trail::record::AwsCaller;
use time::OffsetDateTime;
use tokio_util::task::TaskTracker;

use crate::attestation::Trust;
use crate::cache::rules::{RevocationCheck, Rule, Rules};
use crate::cache::{Cache, DrawTerms};
use crate::kms::guard::{BreakerSettings, Guard, GuardSettings};
use crate::kms::recorded::{KmsRegion, RecordedKms, Recorder};
use crate::kms::{Attempt, AttemptLog, Kms, KmsError};
use crate::named_key::{NamedKey, RequestedKey};
use crate::operation::{
    DataKey, DataKeyRequest, EncryptedDataKey, GrantTokens, KmsReply, KmsRequest, UsedKey,
};
use crate::policy::{AliasMeanings, Facts, Permitted, Policy, Question};

/// Whether `trust` takes a document, at this moment.
#[must_use]
pub fn is_genuine(trust: &Trust, document: Bytes, now: OffsetDateTime) -> bool {
    trust.verify(document, now).is_ok()
}

/// Draws of one kept data key, for messages of `bytes` bytes: each call makes so many, permitted and ready to be awaited. A draw
/// tells how many messages the key has served by then. KMS takes `kms_takes` for each key, and is asked again as `check` says.
///
/// # Panics
///
/// Where there is no temporary directory, outside of a tokio runtime, and where a draw fails: a defect.
pub async fn draws(
    max_messages: u64,
    bytes: u64,
    kms_takes: Duration,
    check: Option<RevocationCheck>,
) -> impl Fn(usize) -> Vec<Draw> {
    let rules = Rules { revocation_check: check, ..rules(max_messages) };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let dir = tempfile::tempdir().expect("a directory");
    let config = JournalConfig::new(dir.path().into(), Durability::Write, Duration::from_secs(5));
    let (journal, thread) = Journal::open(&config, Arc::new(SystemClock)).expect("a journal");
    let cache = Arc::new(Cache::new(rules, kms(kms_takes, journal, &clock), Arc::clone(&clock)));
    let policy = Arc::new(Policy::parse("permit(principal, action, resource);").expect("a policy"));
    let principal = Principal::Workload("unix:uid/1000".into());
    let request = Arc::new(request());
    let deadline = clock.instant() + Duration::from_hours(1);
    let draws = move |draws| {
        let _kept_open = (&dir, &thread);
        let draw = || {
            let (_, permitted) =
                policy.permit(&principal, Arc::clone(&request), &Arc::default(), Facts::default());
            let (permitted, cache, principal) =
                (permitted.expect("permitted"), Arc::clone(&cache), principal.clone());
            let draw: Draw = Box::pin(async move {
                let declared = DeclaredUse { messages: 1, bytes };
                let terms = DrawTerms { declared, reuse: Reuse::default(), deadline };
                let drawn = black_box(cache.draw(permitted, &principal, terms).await);
                assert!(drawn.result.is_ok(), "kept");
                drawn.reuse.expect("kept").used.messages
            });
            draw
        };
        (0..draws).map(|_| draw()).collect::<Vec<_>>()
    };
    for draw in draws(1) {
        draw.await;
    }
    draws
}

/// A draw that is ready to be awaited.
type Draw = Pin<Box<dyn Future<Output = u64>>>;

fn rules(max_messages: u64) -> Rules {
    let bounds = Bounds { max_age: Duration::from_hours(1), max_messages, max_bytes: 1 << 60 };
    let default =
        Rule { enabled: true, bounds, message_bounds: bounds, refresh_at: Some(0.8), partition: None };
    let kms_deadline = Duration::from_secs(10);
    Rules { default, rules: Vec::new(), max_entries: 10_000, kms_deadline, revocation_check: None }
}

fn kms(takes: Duration, journal: Journal, clock: &Arc<dyn Clock>) -> RecordedKms {
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
    let guard = Guard::new(settings, "us-west-2", Arc::clone(clock));
    let kms = Arc::new(OneKeyKms(takes));
    let region = KmsRegion { once: kms.clone(), kms, guard, recorder };
    RecordedKms::new(region, Vec::new(), Arc::clone(clock), TaskTracker::new())
}

fn request() -> DataKeyRequest {
    let named = NamedKey { arn: KeyArn::parse(ARN), alias: None };
    DataKeyRequest {
        key: RequestedKey { written: KeyId::parse("alias/dev").expect("a key id"), resolved: Some(named) },
        length: DataKeyLength::Aes256,
        context: context(&[("tenant", "acme"), ("purpose", "orders")]),
        grant_tokens: GrantTokens::default(),
    }
}

/// Asks `policies` whether `spiffe://example.org/99` may have a data key under `alias/99`: each call asks once.
///
/// # Panics
///
/// Where the text is no policy.
pub fn question(policies: &str) -> impl Fn() -> bool {
    let policy = Policy::parse(policies).expect("policies");
    let principal = Principal::parse("spiffe://example.org/99").expect("a principal");
    let key = NamedKey { arn: KeyArn::parse(ARN), alias: KeyId::parse("alias/99").ok() };
    let context = context(&[("tenant", "acme")]);
    move || {
        let facts = Facts { encryption_context: Some(&context), ..Facts::default() };
        let (principal, action, key) = (&principal, Action::GenerateDataKey, Some(&key));
        let meanings = &AliasMeanings::default();
        black_box(policy.decide(&Question { principal, action, key, meanings, facts })).permits
    }
}

/// A KMS with one data key that takes the given time to answer.
struct OneKeyKms(Duration);

#[async_trait]
impl Kms for OneKeyKms {
    async fn call(&self, asked: Permitted<KmsRequest>, attempts: &AttemptLog) -> Result<KmsReply, KmsError> {
        tokio::time::sleep(self.0).await;
        attempts.push(Attempt {
            at: SystemClock.now(),
            request_id: "c929ebc7-094a-4ee5-839d-975205113c0f".into(),
            access_key_id: Some("AKIABENCH".into()),
            session: None,
            source_address: None,
            user_agent: String::new(),
            encryption: None,
            error: None,
        });
        if matches!(asked.subject(), KmsRequest::DryRun(_)) {
            return Ok(KmsReply::Permitted);
        }
        let key = UsedKey { arn: KeyArn::parse(ARN).expect("an ARN"), material_id: None };
        let encrypted = EncryptedDataKey::new(vec![1; 184].into(), key);
        Ok(KmsReply::DataKey(DataKey { plaintext: Plaintext::new(vec![7; 32]), encrypted }))
    }
}

fn context(pairs: &[(&str, &str)]) -> EncryptionContext {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    EncryptionContext::parse(pairs.collect::<BTreeMap<_, _>>()).expect("a context")
}

const ARN: &str = "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
