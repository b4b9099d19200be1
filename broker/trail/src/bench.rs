//! Synthetic trails of any number of records, for `cargo bench --bench verify` and `--bench fleet`.

use std::collections::BTreeMap;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use key_broker_core::{
    Action, DataKeyLength, DeclaredUse, EncryptionContext, KeyArn, KeyId, Outcome, PeerDetails, PeerKind,
};
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
use crate::record::{
    ActivityEventData, ActivityRecord, DataKeyData, IdentityKind, KmsRecord, PolicyData, RequestParameters,
    ServedFrom, Text, UserIdentity, record_time,
};
use crate::signature::{PublicKey, Signer};
use crate::store::{Object, Store};

/// A sound trail.
pub struct BenchTrail {
    /// What its objects are called.
    pub names: TrailNames,
    /// What its digests are signed with.
    pub key: PublicKey,
    /// The number of its records.
    pub records: u64,
    /// The size of its log files, uncompressed.
    pub bytes: u64,
    /// That of the largest one.
    pub largest: u64,
    /// The requestIDs of the first call to KMS in it, and of the last.
    pub ends: [String; 2],
}

impl BenchTrail {
    /// Makes so many trails in `store`, signed by one key, each with at least `records`, and `records_of_a_file` in each log file.
    ///
    /// # Panics
    ///
    /// Where `store` takes no objects.
    pub async fn make(
        store: &dyn Store,
        trails: usize,
        records: u64,
        uses_of_a_key: u64,
        records_of_a_file: u64,
    ) -> Vec<Self> {
        let (signer, mut made) = (signer(), Vec::new());
        for number in 0..trails {
            let plan =
                Plan { trail: format!("bench-{number:012}"), records, uses_of_a_key, records_of_a_file };
            made.push(make(store, &plan, &signer).await);
        }
        made
    }
}

/// What to make.
struct Plan {
    trail: String,
    records: u64,
    uses_of_a_key: u64,
    records_of_a_file: u64,
}

/// What is made so far.
struct Made {
    records: u64,
    bytes: u64,
    largest: u64,
    chain: Link,
    ends: [String; 2],
}

/// A trail of one log file in five minutes, with a digest for every twelve.
async fn make(store: &dyn Store, plan: &Plan, signer: &Signer) -> BenchTrail {
    let names = names(&plan.trail);
    let start = OffsetDateTime::from_unix_timestamp(1_772_352_000).expect("a moment");
    let mut made = Made { records: 0, bytes: 0, largest: 0, chain: Link::START, ends: Default::default() };
    let mut previous: Option<(Digest, String)> = None;
    let mut at = start;
    while made.records < plan.records {
        let begin = at;
        let mut log_files = Vec::new();
        for _ in 0..12 {
            let file = log_file(&names, at, plan, &mut made);
            let json = file.1;
            log_files.push(file.0);
            let bytes = compress(&json).expect("compresses");
            let key = log_files.last().expect("one").s3_object.clone();
            assert!(
                store.put(Object { key, bytes, metadata: BTreeMap::new() }).await.expect("puts"),
                "it is new"
            );
            at += Duration::minutes(5);
        }
        let before = previous.as_ref();
        let digest = Digest {
            aws_account_id: names.account_id.clone(),
            digest_start_time: record_time(begin),
            digest_end_time: record_time(at),
            digest_s3_bucket: names.bucket.clone(),
            digest_s3_object: names.digest(at),
            digest_public_key_fingerprint: signer.public_key().fingerprint(),
            digest_signature_algorithm: SIGNATURE_ALGORITHM.into(),
            newest_event_time: log_files.iter().map(|file| file.newest_event_time.clone()).max(),
            oldest_event_time: log_files.iter().map(|file| file.oldest_event_time.clone()).min(),
            previous_digest_s3_bucket: before.map(|(digest, _)| digest.digest_s3_bucket.clone()),
            previous_digest_s3_object: before.map(|(digest, _)| digest.digest_s3_object.clone()),
            previous_digest_hash_value: before.map(|(digest, _)| sha256_hex(&digest.to_json())),
            previous_digest_hash_algorithm: before.map(|_| HASH_ALGORITHM.into()),
            previous_digest_signature: before.map(|(_, signature)| signature.clone()),
            log_files,
            key_broker: Some(OwnFields {
                version: FORMAT_VERSION,
                position: before.is_none().then_some(Position::Opening),
                digest_interval_seconds: 3_600,
                origin: None,
            }),
        };
        let json = digest.to_json();
        let signature = signer.sign(digest.string_to_sign(&json).as_bytes()).await.expect("signs");
        let signature = hex::encode(signature.0);
        let metadata = BTreeMap::from([
            (SIGNATURE_METADATA.to_owned(), signature.clone()),
            (SIGNATURE_ALGORITHM_METADATA.to_owned(), SIGNATURE_ALGORITHM.to_owned()),
        ]);
        let (key, bytes) = (digest.digest_s3_object.clone(), compress(&json).expect("compresses"));
        assert!(store.put(Object { key, bytes, metadata }).await.expect("puts"), "it is new");
        previous = Some((digest, signature));
    }
    let Made { records, bytes, largest, ends, .. } = made;
    BenchTrail { names, key: signer.public_key().clone(), records, bytes, largest, ends }
}

fn log_file(names: &TrailNames, at: OffsetDateTime, plan: &Plan, made: &mut Made) -> (LogFile, Vec<u8>) {
    let &Plan { uses_of_a_key, records_of_a_file, .. } = plan;
    let mut lines = Vec::new();
    let mut records = 0;
    while records < records_of_a_file {
        let (event_id, request_id) = (Uuid::new_v4(), Uuid::new_v4().to_string());
        mint(at, event_id, &request_id, &mut lines);
        let [first, last] = &mut made.ends;
        if first.is_empty() {
            first.clone_from(&request_id);
        }
        last.clone_from(&request_id);
        for used in 1..=uses_of_a_key {
            draw(at, event_id, &request_id, used, uses_of_a_key, &mut lines);
        }
        records += 1 + uses_of_a_key;
    }
    let mut json = b"{\"Records\":[".to_vec();
    json.extend(lines[..lines.len() - 1].iter().map(|byte| if *byte == b'\n' { b',' } else { *byte }));
    json.extend_from_slice(b"]}");
    made.records += records;
    made.bytes += json.len() as u64;
    made.largest = made.largest.max(json.len() as u64);
    let before = made.chain;
    for record in lines[..lines.len() - 1].split(|byte| *byte == b'\n') {
        made.chain = made.chain.next(record);
    }
    let key = names.log_file(at, &Uuid::new_v4().as_bytes().repeat(2).try_into().expect("32 bytes"));
    let file = LogFile {
        s3_bucket: names.bucket.clone(),
        s3_object: key,
        hash_value: sha256_hex(&json),
        hash_algorithm: HASH_ALGORITHM.into(),
        newest_event_time: record_time(at),
        oldest_event_time: record_time(at),
        journal_chain: Some(ChainSpan::new(&before, &made.chain)),
        data_key_request_id: None,
    };
    (file, json)
}

fn mint(at: OffsetDateTime, event_id: Uuid, request_id: &str, lines: &mut Vec<u8>) {
    let (key, context, arn) = (key_id(), context(), key_arn());
    let identity = UserIdentity {
        kind: IdentityKind::IAMUser.name().into(),
        principal_id: Some("EX_PRINCIPAL_ID".into()),
        arn: Some("arn:aws:iam::111122223333:user/Alice".into()),
        account_id: Some("111122223333".into()),
        access_key_id: Some("EXAMPLE_KEY_ID".into()),
        user_name: Some("Alice".into()),
        ..UserIdentity::default()
    };
    let operation = Action::GenerateDataKey.name();
    let mut record = KmsRecord::new(identity, at, operation, "us-west-2", request_id, event_id);
    record.source_ip_address = Some("192.0.2.0".into());
    record.user_agent =
        Some("aws-sdk-rust/1.7.0 ua/2.1 api/kms#1.129.0 os/linux lang/rust#1.95.0 app/key-broker".into());
    record.request_parameters = Some(parameters(&key, &context));
    record.resources = Some(vec![(&arn).into()]);
    record.append_to(lines);
}

fn draw(at: OffsetDateTime, event_id: Uuid, request_id: &str, used: u64, limit: u64, lines: &mut Vec<u8>) {
    let (key, context, arn) = (key_id(), context(), key_arn());
    let data_key: DataKeyData<Text<'_>> = DataKeyData {
        served_from: if used == 1 { ServedFrom::Kms } else { ServedFrom::Cache },
        kms_request_id: Some(request_id.into()),
        kms_event_id: Some(event_id),
        minted_at: Some(at),
        expires_at: (limit > 1).then(|| at + Duration::minutes(5)),
        last_allowed: None,
        last_check_failed: None,
        messages_used: Some(used),
        messages_limit: Some(limit),
        bytes_used: Some(0),
        bytes_limit: Some(1 << 30),
        // Another for each data key: they are what `audit find` follows.
        ciphertext_sha256: Some(format!("{0:032x}{0:032x}", event_id.as_u128()).into()),
    };
    let policies = ["policy0".to_owned()];
    let policy = PolicyData {
        determining_policies: (&policies[..]).into(),
        version: "0123456789abcdef0123456789abcdef".into(),
    };
    let mut record = ActivityRecord::new(
        UserIdentity::workload(PeerKind::UnixWorkload, "unix:uid/1000", &DETAILS),
        at,
        Action::GenerateDataKey.name(),
        "us-west-2",
        "111122223333",
        ActivityEventData { policy: Some(policy), data_key: Some(data_key), ..Outcome::Allowed.into() },
    );
    record.source_ip_address = Some("unix".into());
    record.user_agent = Some("grpc-python/1.76.0 grpc-c/51.0.0 (linux; chttp2)".into());
    let declared_use = Some(DeclaredUse { messages: 1, bytes: 0 }.into());
    record.request_parameters = Some(RequestParameters { declared_use, ..parameters(&key, &context) });
    record.request_id = Uuid::new_v4().into();
    record.event_id = Uuid::new_v4().into();
    record.resources = Some(vec![(&arn).into()]);
    record.append_to(lines);
}

fn parameters<'a>(key: &'a KeyId, context: &'a EncryptionContext) -> RequestParameters<'a> {
    RequestParameters { key_id: Some(key.into()), ..RequestParameters::default() }
        .with_context(context)
        .with_length(DataKeyLength::Aes256)
}

fn key_id() -> KeyId {
    KeyId::parse("alias/dev").expect("a key")
}

fn key_arn() -> KeyArn {
    KeyArn::parse("arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab")
        .expect("an ARN")
}

fn context() -> EncryptionContext {
    EncryptionContext::parse(BTreeMap::from([("tenant".to_owned(), "acme".to_owned())])).expect("a context")
}

fn names(trail: &str) -> TrailNames {
    TrailNames {
        account_id: "111122223333".into(),
        region: "us-west-2".into(),
        trail: trail.into(),
        bucket: "logs".into(),
        prefix: String::new(),
    }
}

fn signer() -> Signer {
    let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
    let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).expect("encodes");
    let base64 = STANDARD.encode(pkcs8.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", wrapped(&base64));
    Signer::from_pem(pem.as_bytes()).expect("reads")
}

fn wrapped(base64: &str) -> String {
    let lines: Vec<&str> =
        base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    lines.join("\n")
}

static DETAILS: PeerDetails = PeerDetails::unix(1_000, 1_000, Some(4_242));
