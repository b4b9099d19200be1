//! A full journal: no fill level, and no sequence of outages, load, kills and restarts, leads to a state that the broker cannot leave by
//! itself. Log files are encrypted under a KMS key, and every call to KMS is recorded in the same journal.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use key_broker_core::clock::Clock;
use key_broker_core::{CiphertextBlob, EncryptionContext, KeyArn, KeyId, Plaintext};
use proptest::prelude::*;
use tempfile::TempDir;
use uuid::Uuid;

use super::resume;
use super::site::{FaultyStore, HandClock};
use crate::announcer::Announcer;
use crate::delivery::Trail;
use crate::delivery::encryption::Encryption;
use crate::ending::close;
use crate::journal::{Durability, Journal, JournalConfig, JournalThread, JournalUnavailable};
use crate::keys::{DataKey, Decrypter, KeysError, KeysErrorKind, KmsPublicKey, TrailKeys};
use crate::names::TrailNames;
use crate::origin::Origin;
use crate::reader::TrailReader;
use crate::record::{KmsRecord, ReadRecord, RequestParameters};
use crate::records;
use crate::verify::forge::{START, aws_identity, caller, key_arn, names, refusal, signer};
use crate::verify::{Verdict, VerifyOptions, verify};

#[derive(Debug, Clone)]
enum Step {
    /// This many calls.
    Call(u8),
    /// Calls until one is refused.
    Fill,
    /// Records in the backlog: answers of KMS, and refusals.
    Defer(u8),
    Deliver,
    Digest,
    StoreFails,
    StoreIsBack,
    KmsFails,
    KmsIsBack,
    Stop,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..20_u8).prop_map(Step::Call),
        4 => Just(Step::Fill),
        2 => (1..30_u8).prop_map(Step::Defer),
        4 => Just(Step::Deliver),
        1 => Just(Step::Digest),
        2 => Just(Step::StoreFails),
        1 => Just(Step::StoreIsBack),
        1 => Just(Step::KmsFails),
        1 => Just(Step::KmsIsBack),
        2 => Just(Step::Stop),
        2 => Just(Step::Kill),
    ]
}

/// KMS, with the records of its answers.
#[derive(Default)]
struct Kms {
    journal: Mutex<Option<Journal>>,
    is_down: AtomicBool,
}

impl Kms {
    async fn answer(&self, record: Vec<u8>) -> Result<(), KeysError> {
        let journal = self.journal.lock().expect("whole").clone().expect("it runs");
        let passing = || KeysError { kind: KeysErrorKind::Passing, words: "not now".into() };
        if self.is_down.load(Ordering::Relaxed) || journal.is_overdrawn(true) {
            return Err(passing());
        }
        match journal.append_for_the_trail(record).wait().await {
            Ok(()) => Ok(()),
            Err(JournalUnavailable(Some(record))) => {
                journal.defer_for_the_trail(&record);
                Ok(())
            }
            Err(JournalUnavailable(None)) => Err(passing()),
        }
    }

    fn record(context: &EncryptionContext) -> Vec<u8> {
        let (arn, request_id) = (key_arn(), Uuid::new_v4().to_string());
        let key = KeyId::from(&arn);
        let identity =
            crate::record::UserIdentity { invoked_by: Some("key-broker".into()), ..aws_identity() };
        let mut record =
            KmsRecord::new(identity, START, "GenerateDataKey", "us-west-2", &request_id, Uuid::new_v4());
        record.source_ip_address = Some("127.0.0.1".into());
        let parameters = RequestParameters { key_id: Some((&key).into()), ..RequestParameters::default() };
        record.request_parameters =
            Some(parameters.with_context(context).with_length(key_broker_core::DataKeyLength::Aes256));
        record.resources = Some(vec![(&arn).into()]);
        let mut line = Vec::new();
        record.append_to(&mut line);
        line
    }
}

#[async_trait]
impl TrailKeys for Kms {
    async fn data_key(&self, _: &KeyId, context: &EncryptionContext) -> Result<DataKey, KeysError> {
        self.answer(Self::record(context)).await?;
        let ciphertext = CiphertextBlob::parse(vec![7; 100].into()).expect("a ciphertext");
        Ok(DataKey { key: key_arn(), plaintext: Plaintext::new(vec![7; 32]), ciphertext, request_id: None })
    }

    async fn sign(&self, _: &KeyId, _: [u8; 32]) -> Result<(Vec<u8>, Option<String>), KeysError> {
        unreachable!("a file signs")
    }

    async fn public_key(&self, _: &KeyId) -> Result<KmsPublicKey, KeysError> {
        unreachable!("a file signs")
    }
}

#[async_trait]
impl Decrypter for Kms {
    async fn decrypt(
        &self,
        _: CiphertextBlob,
        _: &KeyArn,
        _: EncryptionContext,
    ) -> Result<Plaintext, KeysError> {
        Ok(Plaintext::new(vec![7; 32]))
    }
}

struct Site {
    dir: TempDir,
    store: FaultyStore,
    clock: Arc<HandClock>,
    kms: Arc<Kms>,
    names: TrailNames,
    running: Option<(Trail, JournalThread, Announcer)>,
    acknowledged: BTreeSet<String>,
}

impl Site {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut site = Self {
            dir,
            store: FaultyStore::default(),
            clock: Arc::new(HandClock(Mutex::new(START))),
            kms: Arc::default(),
            names: names(),
            running: None,
            acknowledged: BTreeSet::new(),
        };
        assert!(site.start().await, "KMS answers");
        site
    }

    /// Asks KMS whether the key may be used, as a start does. Without an answer, the broker does not serve.
    async fn start(&mut self) -> bool {
        let dir = self.dir.path().join("journal");
        let config = JournalConfig {
            max_undelivered_bytes: BOUND,
            ..JournalConfig::new(dir.clone(), Durability::Write, Duration::from_secs(10))
        };
        let clock: Arc<dyn Clock> = Arc::<HandClock>::clone(&self.clock);
        let (journal, thread) = Journal::open(&config, Arc::clone(&clock)).expect("the journal opens");
        *self.kms.journal.lock().expect("whole") = Some(journal.clone());
        let context = crate::encryption_context::path_context(&names()).expect("a context");
        if self.kms.data_key(&(&key_arn()).into(), &context).await.is_err() {
            thread.close().expect("no defect");
            return false;
        }
        let keys: Arc<dyn TrailKeys> = Arc::<Kms>::clone(&self.kms);
        let encryption = Some(Encryption::new(keys, key_arn()));
        let (caller, origin) = (Arc::new(caller()), Origin::default());
        let announcer = Announcer { journal, journal_dir: dir, caller, origin, clock };
        let trail = resume(Arc::new(self.store.clone()), encryption, &announcer).expect("starts");
        self.names = trail.names().clone();
        self.running = Some((trail, thread, announcer));
        true
    }

    /// Returns whether the call was answered.
    async fn call(&mut self) -> bool {
        self.clock.pass();
        let Some((_, _, announcer)) = &self.running else { return false };
        let record = refusal(self.clock.now());
        let id = ReadRecord::parse(&record).expect("a record").event_id.to_string();
        let is_answered = announcer.journal.append(format!("{record}\n").into_bytes()).wait().await.is_ok();
        if is_answered {
            self.acknowledged.insert(id);
        }
        is_answered
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Call(times) => {
                for _ in 0..*times {
                    self.call().await;
                }
            }
            Step::Fill => while self.call().await {},
            Step::Defer(times) => {
                let Some((_, _, announcer)) = &self.running else { return };
                let context = crate::encryption_context::path_context(&names()).expect("a context");
                for _ in 0..*times {
                    announcer.journal.defer(&Kms::record(&context));
                    announcer.journal.defer(format!("{}\n", refusal(self.clock.now())).as_bytes());
                }
            }
            Step::Deliver => self.deliver().await,
            Step::Digest => {
                if let Some((trail, ..)) = &mut self.running {
                    let _ = trail.digest().await;
                }
            }
            Step::StoreFails => self.store.fail(true),
            Step::StoreIsBack => self.store.fail(false),
            Step::KmsFails => self.kms.is_down.store(true, Ordering::Relaxed),
            Step::KmsIsBack => self.kms.is_down.store(false, Ordering::Relaxed),
            Step::Stop | Step::Kill => {
                let Some((trail, thread, announcer)) = self.running.take() else { return };
                if matches!(step, Step::Stop) {
                    trail.finish(Duration::from_millis(30)).await;
                    let remainder = close(thread, &announcer, Some(&self.names));
                    assert_eq!(remainder.lost.records, 0, "the backlog has its reserve: {remainder}");
                } else {
                    drop(trail);
                    thread.close().expect("no defect");
                }
                self.start().await;
            }
        }
    }

    async fn deliver(&mut self) {
        self.clock.pass();
        if let Some((trail, ..)) = &mut self.running {
            // Store and KMS may be down.
            let _ = trail.deliver().await;
        }
    }

    /// Once store and KMS work again, deliveries and restarts alone lead to an answered call.
    async fn check_leaves(&mut self) -> Result<(), TestCaseError> {
        self.store.fail(false);
        self.kms.is_down.store(false, Ordering::Relaxed);
        if self.running.is_none() {
            prop_assert!(self.start().await, "it starts once KMS answers");
        }
        for _ in 0..20 {
            self.deliver().await;
            if self.call().await {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let held = self.running.as_ref().map(|(_, _, announcer)| announcer.journal.undelivered().bytes());
        Err(TestCaseError::fail(format!("refused for good, with {held:?} bytes undelivered")))
    }

    async fn check_sound(mut self) -> Result<(), TestCaseError> {
        let (trail, thread, announcer) = self.running.take().expect("it runs");
        trail.finish(Duration::from_secs(20)).await;
        close(thread, &announcer, Some(&self.names));
        let decrypter: Arc<dyn Decrypter> = Arc::<Kms>::clone(&self.kms);
        let reader =
            TrailReader::new(Arc::new(self.store.objects.clone()), self.names.clone(), Some(decrypter));
        let keys = vec![signer().public_key().clone()];
        let journal_dir = Some(self.dir.path().join("journal"));
        let options = VerifyOptions { keys, journal_dir, ..VerifyOptions::default() };
        let report = verify(&reader, &options, &mut |_| {}).await;
        prop_assert_eq!(report.verdict, Verdict::Sound, "{:?}", report);
        let mut delivered = BTreeSet::new();
        for key in reader.log_file_keys().await.expect("lists") {
            let json = reader.log_file(&key).await.expect("reads").expect("is there");
            delivered.extend(records(&json).map(|record| {
                ReadRecord::parse(record.expect("a record")).expect("a record").event_id.to_string()
            }));
        }
        prop_assert!(self.acknowledged.is_subset(&delivered), "nothing is lost");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_journal_at_its_bound_always_drains(steps in prop::collection::vec(step(), 1..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut site = Site::new().await;
            for step in &steps {
                site.step(step).await;
            }
            site.check_leaves().await?;
            site.check_sound().await
        })?;
    }
}

#[tokio::test]
async fn a_full_journal_of_an_encrypted_trail_serves_again_once_the_store_is_back() {
    for rest in [&[][..], &[Step::Kill], &[Step::Stop, Step::Fill]] {
        let mut site = Site::new().await;
        for step in [Step::StoreFails, Step::Fill, Step::Deliver, Step::Fill].iter().chain(rest) {
            site.step(step).await;
        }
        site.check_leaves().await.expect("serves again");
        site.check_sound().await.expect("sound");
    }
}

/// About eighty records.
const BOUND: u64 = 64 << 10;
