//! Forged trails for tests: any records, in log files and digests that are hashed and signed like a broker's.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use key_broker_core::{
    Action, DataKeyLength, DeclaredUse, EncryptionContext, KeyArn, KeyId, Outcome, PeerDetails, PeerKind,
};
use spki::der::pem::{LineEnding, encode_string};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::digest::{
    ChainSpan, Digest, HASH_ALGORITHM, LogFile, OwnFields, Position, SIGNATURE_ALGORITHM,
    SIGNATURE_ALGORITHM_METADATA, SIGNATURE_METADATA, sha256_hex,
};
use crate::format_version::FORMAT_VERSION;
use crate::journal::hash_chain::Link;
use crate::log_file::compress;
use crate::names::TrailNames;
use crate::reader::TrailReader;
use crate::record::{
    ActivityEventData, ActivityRecord, AllowedScope, AwsCaller, BrokerData, BrokerEvent, DataKeyData,
    FailedCheck, IdentityKind, KmsRecord, LastAllowed, PolicyData, RequestParameters, RevocationPromise,
    ServedFrom, Text, UserIdentity, record_time,
};
use crate::signature::Signer;
use crate::store::{Object, Store, StoreError};

/// The start of the first digest.
pub(crate) const START: OffsetDateTime = datetime!(2026-03-01 08:00 UTC);

/// The log files of each digest, and the records of each log file.
#[derive(Clone)]
pub(crate) struct Forge {
    pub(crate) digests: Vec<Vec<Vec<String>>>,
    /// Records lost from the journal: after how many log files, and how many.
    pub(crate) lost: Option<(usize, u64)>,
    /// Whether digests say where log files are in the journal's chain.
    pub(crate) has_chain: bool,
}

impl Default for Forge {
    fn default() -> Self {
        Self { digests: Vec::new(), lost: None, has_chain: true }
    }
}

impl Forge {
    /// A sound trail over three hours, one of them empty: two data keys, each used twice, and a refusal.
    pub(crate) fn sound() -> Self {
        let (first, second) =
            (Mint::new(1, START + Duration::minutes(2)), Mint::new(2, START + Duration::hours(2)));
        let later = START + Duration::hours(2) + Duration::seconds(9);
        let hours = vec![
            vec![vec![first.record(), first.draw(1).record()], vec![first.draw(2).record()]],
            vec![],
            vec![vec![second.record(), refusal(later), second.draw(1).record(), second.draw(2).record()]],
        ];
        Self { digests: hours, ..Self::default() }
    }

    /// One hour, with these records in one log file.
    pub(crate) fn of(records: Vec<String>) -> Self {
        Self { digests: vec![vec![records]], ..Self::default() }
    }

    /// Hashes and signs everything.
    pub(crate) async fn store(&self) -> MemoryStore {
        self.store_edited(|_| {}).await
    }

    pub(crate) async fn newest(&self) -> Digest {
        let reader = TrailReader::new(Arc::new(self.store().await), names(), None);
        let keys = reader.digest_keys().await.expect("lists").own;
        let newest = &keys.last().expect("one").key;
        reader.digest(newest).await.expect("reads").expect("is there")
    }

    /// The same with the place of the last log file edited.
    pub(crate) async fn store_edited(&self, edit: fn(&mut ChainSpan)) -> MemoryStore {
        let (store, names, signer) = (MemoryStore::default(), names(), signer());
        let mut previous: Option<(Digest, String)> = None;
        let (mut chain, mut place) = (Link::START, 0);
        let last = self.digests.iter().map(Vec::len).sum::<usize>();
        for (hour, files) in self.digests.iter().enumerate() {
            let hour = i64::try_from(hour).expect("few");
            let (start, end) = (START + Duration::hours(hour), START + Duration::hours(hour + 1));
            let mut log_files = Vec::new();
            for (minutes, records) in (0..).step_by(5).zip(files) {
                let at = start + Duration::minutes(minutes);
                let before = chain;
                log_files.push(log_file(&store, &names, at, records));
                for record in records {
                    chain = chain.next(record.as_bytes());
                }
                let mut span = ChainSpan::new(&before, &chain);
                place += 1;
                if place == last {
                    edit(&mut span);
                }
                if let Some((_, lost)) = self.lost.filter(|(after, _)| after + 1 == place) {
                    (0..lost).for_each(|_| chain = chain.next(b"lost"));
                }
                log_files.last_mut().expect("just made").journal_chain = self.has_chain.then_some(span);
            }
            let mut digest = digest(&names, start, end, log_files);
            if let Some((before, signature)) = &previous {
                digest.previous_digest_s3_bucket = Some(before.digest_s3_bucket.clone());
                digest.previous_digest_s3_object = Some(before.digest_s3_object.clone());
                digest.previous_digest_hash_value = Some(sha256_hex(&before.to_json()));
                digest.previous_digest_hash_algorithm = Some(HASH_ALGORITHM.into());
                digest.previous_digest_signature = Some(signature.clone());
                digest.key_broker.as_mut().expect("ours").position = None;
            }
            let signature = store.sign(&digest, &digest.to_json(), &signer).await;
            previous = Some((digest, signature));
        }
        store
    }
}

fn log_file(store: &MemoryStore, names: &TrailNames, at: OffsetDateTime, records: &[String]) -> LogFile {
    let json = format!("{{\"Records\":[{}]}}", records.join(","));
    let hash = sha256_hex(json.as_bytes());
    let key = names.log_file(at, &[at.minute(); 32]);
    store.insert(&key, json.as_bytes(), BTreeMap::new());
    let times = records.iter().map(|record| {
        // Broken records need a time, too.
        let time = record.split_once("\"eventTime\":\"").and_then(|(_, rest)| rest.get(..20));
        time.unwrap_or("2026-03-01T08:00:00Z").to_owned()
    });
    LogFile {
        s3_bucket: names.bucket.clone(),
        s3_object: key,
        hash_value: hash,
        hash_algorithm: HASH_ALGORITHM.into(),
        newest_event_time: times.clone().max().expect("records"),
        oldest_event_time: times.min().expect("records"),
        journal_chain: None,
        data_key_request_id: None,
    }
}

fn digest(names: &TrailNames, start: OffsetDateTime, end: OffsetDateTime, log_files: Vec<LogFile>) -> Digest {
    Digest {
        aws_account_id: names.account_id.clone(),
        digest_start_time: record_time(start),
        digest_end_time: record_time(end),
        digest_s3_bucket: names.bucket.clone(),
        digest_s3_object: names.digest(end),
        digest_public_key_fingerprint: signer().public_key().fingerprint(),
        digest_signature_algorithm: SIGNATURE_ALGORITHM.into(),
        newest_event_time: log_files.iter().map(|file| file.newest_event_time.clone()).max(),
        oldest_event_time: log_files.iter().map(|file| file.oldest_event_time.clone()).min(),
        previous_digest_s3_bucket: None,
        previous_digest_s3_object: None,
        previous_digest_hash_value: None,
        previous_digest_hash_algorithm: None,
        previous_digest_signature: None,
        log_files,
        key_broker: Some(OwnFields {
            version: FORMAT_VERSION,
            position: Some(Position::Opening),
            digest_interval_seconds: 3_600,
            origin: None,
        }),
    }
}

pub(crate) fn names() -> TrailNames {
    TrailNames {
        account_id: "111122223333".into(),
        region: "us-west-2".into(),
        trail: "key-broker".into(),
        bucket: "logs".into(),
        prefix: String::new(),
    }
}

/// The signing key of all tests here.
pub(crate) fn signer() -> Signer {
    static PEM: OnceLock<String> = OnceLock::new();
    Signer::from_pem(PEM.get_or_init(new_pem).as_bytes()).expect("reads")
}

/// A new key.
pub(crate) fn new_pem() -> String {
    let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
    let pkcs8 = pair.as_der().map(|der: Pkcs8V1Der<'_>| der.as_ref().to_vec()).expect("encodes");
    encode_string("PRIVATE KEY", LineEnding::LF, &pkcs8).expect("encodes")
}

/// A data key that KMS made.
pub(crate) struct Mint {
    event_id: Uuid,
    request_id: String,
    pub(crate) at: OffsetDateTime,
    pub(crate) tenant: &'static str,
}

impl Mint {
    pub(crate) fn new(number: u128, at: OffsetDateTime) -> Self {
        let event_id = Uuid::from_u128(0xa000_0000_0000_4000_8000_0000_0000_0000 + number);
        let request_id = Uuid::from_u128(0xb000_0000_0000_4000_8000_0000_0000_0000 + number).to_string();
        Self { event_id, request_id, at, tenant: "acme" }
    }

    pub(crate) fn record(&self) -> String {
        self.record_of(None)
    }

    /// The record of the call with this error, if any.
    pub(crate) fn record_of(&self, error: Option<&str>) -> String {
        let (key, context) = (key_id(), context(self.tenant));
        let mut record = KmsRecord::new(
            aws_identity(),
            self.at,
            Action::GenerateDataKey.name(),
            "us-west-2",
            &self.request_id,
            self.event_id,
        );
        record.source_ip_address = Some("127.0.0.1".into());
        if let Some(error) = error {
            record.fail(error, "words");
        }
        record.request_parameters = Some(parameters(&key, &context));
        let arn = key_arn();
        record.resources = Some(vec![(&arn).into()]);
        let mut line = Vec::new();
        record.append_to(&mut line);
        text(line)
    }

    /// The draw of the message with this number, three seconds after minting.
    pub(crate) fn draw(&self, message: u64) -> Draw<'_> {
        Draw {
            mint: self,
            at: self.at + Duration::seconds(3),
            expires_at: Some(self.at + Duration::minutes(5)),
            last_allowed: None,
            last_check_failed: None,
            from: if message == 1 { ServedFrom::Kms } else { ServedFrom::Cache },
            declared: DeclaredUse { messages: 1, bytes: 10 },
            used: (message, message * 10),
            limits: (10, 1_000),
            principal: "unix:uid/1000",
            error: None,
        }
    }
}

/// One use of a data key.
pub(crate) struct Draw<'a> {
    mint: &'a Mint,
    pub(crate) at: OffsetDateTime,
    pub(crate) expires_at: Option<OffsetDateTime>,
    pub(crate) last_allowed: Option<(&'a Mint, AllowedScope)>,
    pub(crate) last_check_failed: Option<Uuid>,
    pub(crate) from: ServedFrom,
    pub(crate) declared: DeclaredUse,
    pub(crate) used: (u64, u64),
    pub(crate) limits: (u64, u64),
    pub(crate) principal: &'a str,
    pub(crate) error: Option<&'a str>,
}

impl Draw<'_> {
    pub(crate) fn record(&self) -> String {
        let data_key = DataKeyData {
            served_from: self.from,
            kms_request_id: Some(self.mint.request_id.as_str().into()),
            kms_event_id: Some(self.mint.event_id),
            minted_at: Some(self.mint.at),
            expires_at: self.expires_at,
            last_allowed: self.last_allowed.map(|(mint, scope)| LastAllowed {
                time: mint.at,
                kms_request_id: mint.request_id.as_str().into(),
                kms_event_id: mint.event_id,
                scope,
            }),
            last_check_failed: self.last_check_failed,
            messages_used: Some(self.used.0),
            messages_limit: Some(self.limits.0),
            bytes_used: Some(self.used.1),
            bytes_limit: Some(self.limits.1),
            ciphertext_sha256: Some("ab".repeat(32).into()),
        };
        let (key, context) = (key_id(), context(self.mint.tenant));
        let asked =
            RequestParameters { declared_use: Some(self.declared.into()), ..parameters(&key, &context) };
        activity(self.at, self.principal, self.error, Some(asked), Some(data_key))
    }
}

/// The record of a broker's start with this promise.
pub(crate) fn start(promise: Option<RevocationPromise>, at: OffsetDateTime) -> String {
    let broker = BrokerData { reuse: promise, ..BrokerData::default() };
    let mut line = Vec::new();
    ActivityRecord::of_broker(BrokerEvent::Start, broker, None, at, &caller()).append_to(&mut line);
    text(line)
}

/// The record of a failed check of the key.
pub(crate) fn failed_check(operation: &str, event_id: Uuid, at: OffsetDateTime) -> String {
    let arn = key_arn();
    let check =
        FailedCheck { key: (&arn).into(), operation: operation.into(), reason: "KMS_UNAVAILABLE".into() };
    let mut line = Vec::new();
    ActivityRecord::of_failed_check(check, event_id, at, &caller()).append_to(&mut line);
    text(line)
}

pub(crate) fn caller() -> AwsCaller {
    AwsCaller {
        account_id: "111122223333".into(),
        partition: "aws".into(),
        region: "us-west-2".into(),
        kms_host: "kms.us-west-2.amazonaws.com".into(),
        source_address: "127.0.0.1".into(),
    }
}

/// A request that policy denied.
pub(crate) fn refusal(at: OffsetDateTime) -> String {
    activity(at, "unix:uid/1001", Some("AccessDenied"), None, None)
}

fn activity(
    at: OffsetDateTime,
    principal: &str,
    error: Option<&str>,
    asked: Option<RequestParameters<'_>>,
    data_key: Option<DataKeyData<Text<'_>>>,
) -> String {
    let (arn, policies) = (key_arn(), ["policy0".to_owned()]);
    let policy = PolicyData {
        determining_policies: (&policies[..]).into(),
        version: "0123456789abcdef0123456789abcdef".into(),
    };
    let outcome = if error.is_some() { Outcome::Denied } else { Outcome::Allowed };
    let mut record = ActivityRecord::new(
        UserIdentity::workload(PeerKind::UnixWorkload, principal, &DETAILS),
        at,
        Action::GenerateDataKey.name(),
        "us-west-2",
        "111122223333",
        ActivityEventData { policy: Some(policy), data_key, ..outcome.into() },
    );
    record.source_ip_address = Some("unix".into());
    record.user_agent = Some("grpc-python/1.76.0 \"quoted\"".into());
    if let Some(error_code) = error {
        record.fail(error_code, "no");
    }
    record.request_parameters = asked;
    record.request_id = Uuid::new_v4().into();
    record.event_id = Uuid::new_v4().into();
    record.resources = Some(vec![(&arn).into()]);
    let mut line = Vec::new();
    record.append_to(&mut line);
    text(line)
}

pub(crate) fn aws_identity() -> UserIdentity<'static> {
    UserIdentity {
        kind: IdentityKind::IAMUser.name().into(),
        principal_id: Some("EX_PRINCIPAL_ID".into()),
        arn: Some("arn:aws:iam::111122223333:user/Alice".into()),
        account_id: Some("111122223333".into()),
        access_key_id: Some("EXAMPLE_KEY_ID".into()),
        user_name: Some("Alice".into()),
        ..UserIdentity::default()
    }
}

fn parameters<'a>(key: &'a KeyId, context: &'a EncryptionContext) -> RequestParameters<'a> {
    RequestParameters { key_id: Some(key.into()), ..RequestParameters::default() }
        .with_context(context)
        .with_length(DataKeyLength::Aes256)
}

fn key_id() -> KeyId {
    KeyId::parse("alias/dev").expect("a key")
}

pub(crate) fn key_arn() -> KeyArn {
    KeyArn::parse("arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab")
        .expect("an ARN")
}

fn context(tenant: &str) -> EncryptionContext {
    EncryptionContext::parse(BTreeMap::from([("tenant".to_owned(), tenant.to_owned())])).expect("a context")
}

fn text(line: Vec<u8>) -> String {
    String::from_utf8(line).expect("text").trim_end().to_owned()
}

/// Objects in memory, shared by clones.
#[derive(Clone, Default)]
pub(crate) struct MemoryStore(Arc<Mutex<BTreeMap<String, Object>>>);

impl MemoryStore {
    /// Another store with the same objects.
    pub(crate) fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.with(|objects| objects.clone()))))
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.with(|objects| objects.keys().cloned().collect())
    }

    /// Changes an object, or removes it.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<String, Object>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn insert(&self, key: &str, uncompressed: &[u8], metadata: BTreeMap<String, String>) {
        let bytes = compress(uncompressed).expect("compresses");
        let object = Object { key: key.to_owned(), bytes, metadata };
        self.with(|objects| objects.insert(key.to_owned(), object));
    }

    /// Stores a digest with these bytes and signs it. Returns the signature.
    pub(crate) async fn sign(&self, digest: &Digest, json: &[u8], signer: &Signer) -> String {
        let signature = signer.sign(digest.string_to_sign(json).as_bytes()).await.expect("signs");
        let signature = hex::encode(signature.0);
        let metadata = BTreeMap::from([
            (SIGNATURE_METADATA.to_owned(), signature.clone()),
            (SIGNATURE_ALGORITHM_METADATA.to_owned(), SIGNATURE_ALGORITHM.to_owned()),
        ]);
        self.insert(&digest.digest_s3_object, json, metadata);
        signature
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn put(&self, object: Object) -> Result<bool, StoreError> {
        Ok(self.with(|objects| match objects.entry(object.key.clone()) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(object);
                true
            }
        }))
    }

    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        Ok(self.with(|objects| objects.get(key).cloned()))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        Ok(self.keys().into_iter().filter(|key| key.starts_with(prefix)).collect())
    }
}

static DETAILS: PeerDetails = PeerDetails::unix(1_000, 1_000, Some(4_242));
