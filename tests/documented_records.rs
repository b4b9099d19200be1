//! Proves: what AWS documents of a trail under a KMS key and of a data key for an enclave happens here, too, and leaves the records
//! that AWS shows. The broker performs each event; its record is compared with AWS's, field by field, and every difference has to be
//! in `documented_records.md` with its reason.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use key_broker::AuditorKms;
use key_broker_client::GenerateDataKey;
use key_broker_core::KeyId;
use key_broker_trail::delivery::{StoreConfig, TrailConfig, names as trail_names};
use key_broker_trail::{JournalTrail, TrailNames, TrailReader};
use kms_emulator::attestation::DocumentClaims;
use serde_json::Value;
use support::clock::TestClock;
use support::enclave::Attester;
use support::{Records, Setup, TestBroker, eventually, trail};
use time::macros::datetime;

/// What AWS documents; `tests/fixtures/README.md` names the pages.
const CONFIGURE: &str = include_str!("fixtures/cloudtrail/2020-cloudtrail-details-update-configuration.json");
const PUT: &str = include_str!("fixtures/cloudtrail/cloudtrail-details-put-log-file-2.json");
const GET: &str = include_str!("fixtures/cloudtrail/cloudtrail-details-get-log-file-3.json");
const FROM_AN_ENCLAVE: &str = include_str!("fixtures/cloudtrail/ct-generate-data-key-enclave.json");
const KEY: &str = "arn:aws:kms:us-west-2:111122223333:alias/ExampleAliasForCloudTrailCMK";

#[tokio::test]
async fn configuring_a_trail_putting_a_log_file_and_getting_it_leave_the_documented_records() {
    let root = tempfile::tempdir().expect("a directory");
    let clock = TestClock::at(datetime!(2026-11-25 21:15:33 UTC));
    let config = TrailConfig {
        name: "Default".into(),
        store: StoreConfig::Directory {
            root: root.path().to_owned(),
            bucket: "example-bucket-for-CT-logs".into(),
        },
        kms_key: Some(KeyId::parse(KEY).expect("a key")),
        ..trail::config(root.path())
    };
    let setup = Setup {
        trail: Some(config.clone()),
        keys: vec!["alias/ExampleAliasForCloudTrailCMK"],
        clock: clock.clone(),
        ..Setup::default()
    };
    let broker = TestBroker::with(setup).await;

    let records = broker.records();
    let configured = record_of(&records, KEY);
    compare("Configure", &json(CONFIGURE), configured);

    broker.client().await.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect("a key");
    let journal = broker.journal_dir();
    let puts = || puts_of(&Records::read(&journal)).len();
    clock.pass(Duration::from_mins(5));
    eventually("a log file, and the record of its key", || puts() == 1).await;
    let records = broker.records();
    let put = puts_of(&records)[0];
    compare("Put", &json(PUT), put);
    let object = put["requestParameters"]["encryptionContext"]["aws:s3:arn"].as_str().expect("an ARN");
    let path = object.strip_prefix("arn:aws:s3:::").expect("an object");
    eventually("the file that the record names", || root.path().join(path).exists()).await;
    let key_arn = configured["resources"][0]["ARN"].clone();
    assert_eq!(put["requestParameters"]["keyId"], key_arn, "by the key's ARN, as there");
    let kms = support::aws_kms(support::aws_settings(&broker.emulator), clock.clone()).await;
    let caller = Arc::new(kms.caller().await.expect("known"));
    let trail = JournalTrail::try_from(&*journal).expect("the journal names it").name;
    let names = TrailNames { trail, ..trail_names(&config, &caller) };
    let store = config.store.open().await;
    let reader = tempfile::tempdir().expect("a directory");
    let own = reader.path().join("records");
    let decrypter = AuditorKms::new(Arc::new(kms), caller, own.clone());
    let key = path.split_once('/').expect("bucket and key").1;
    let trail = TrailReader::new(store, names, Some(Arc::new(decrypter)));
    let file = trail.log_file(key).await.expect("reads").expect("there");
    assert_ne!(fs::read(root.path().join(path)).expect("reads")[0], 0x1f, "not gzip: it is encrypted");
    assert!(String::from_utf8_lossy(&file).starts_with("{\"Records\":["));
    // The reader's own record: the broker knows nothing of it.
    let got = json(&fs::read_to_string(&own).expect("reads"));
    compare("Get", &json(GET), &got);
    assert!(broker.emulator.call_count("GenerateDataKey") >= 3, "configure, the workload's, and one a file");
}

#[tokio::test]
async fn generating_a_data_key_from_an_enclave_leaves_the_documented_record() {
    let documented = json(FROM_AN_ENCLAVE);
    let recipient = &documented["additionalEventData"]["recipient"];
    let attester = Attester::new();
    attester.change(|claims| {
        let image = recipient["attestationDocumentEnclaveImageDigest"].as_str().expect("a digest");
        let mut pcr0 = [0; 48];
        hex::decode_to_slice(image, &mut pcr0).expect("SHA-384");
        let module_id = recipient["attestationDocumentModuleId"].as_str().expect("an id").to_owned();
        DocumentClaims { module_id, ..claims.with_pcr(0, pcr0) }
    });
    let broker = TestBroker::with(attester.setup()).await;
    let enclave = attester.enclave(broker.client().await);
    let key_id = broker.key_arn.rsplit('/').next().expect("an id");
    let key = enclave.generate_data_key(GenerateDataKey::bytes(key_id, 32)).await.expect("a data key");
    assert_eq!(key.plaintext.expose().len(), 32);
    let records = broker.stop().await;
    assert_eq!(records.kms.len(), 1);
    compare("GenerateDataKey from an enclave", &documented, &records.kms[0]);
}

fn puts_of(records: &Records) -> Vec<&Value> {
    let is_put = |record: &&Value| {
        let object = record["requestParameters"]["encryptionContext"]["aws:s3:arn"].as_str();
        object.is_some_and(|object| object.ends_with(".json.gz"))
    };
    records.kms.iter().filter(is_put).collect()
}

fn record_of<'a>(records: &'a Records, key: &str) -> &'a Value {
    let mut found = records.kms.iter().filter(|record| record["requestParameters"]["keyId"] == key);
    let record = found.next().expect("a record");
    assert!(found.next().is_none(), "once");
    record
}

fn json(record: &str) -> Value {
    serde_json::from_str(record).expect("JSON")
}

/// Every field that differs has to be a row of the table under this heading of `tests/documented_records.md`, and every row a
/// difference.
fn compare(heading: &str, documented: &Value, ours: &Value) {
    let (documented, ours) = (fields(documented), fields(ours));
    let paths: BTreeSet<&String> = documented.keys().chain(ours.keys()).collect();
    let differing: BTreeMap<String, &str> = paths
        .into_iter()
        .filter_map(|path| match (documented.get(path), ours.get(path)) {
            (Some(documented), Some(ours)) if documented == ours => None,
            (Some(_), Some(_)) => Some((path.clone(), "another value")),
            (Some(_), None) => Some((path.clone(), "only in AWS's")),
            (None, _) => Some((path.clone(), "only in ours")),
        })
        .collect();
    let section = include_str!("documented_records.md").split_once(&format!("\n## {heading}\n"));
    let section = section.expect("a section").1.split("\n## ").next().unwrap_or_default();
    let explained: BTreeMap<String, &str> = section
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [path, how, why] = cells[..] else { return None };
            let path = path.strip_prefix('`')?.strip_suffix('`')?;
            assert!(!why.is_empty(), "{path} needs a reason");
            Some((path.to_owned(), how))
        })
        .collect();
    assert_eq!(differing, explained, "{heading}");
}

/// The fields of a record by their paths.
fn fields(record: &Value) -> BTreeMap<String, Value> {
    let mut fields = BTreeMap::new();
    let mut rest = vec![(String::new(), record)];
    while let Some((path, value)) = rest.pop() {
        let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        match value {
            Value::Object(members) => rest.extend(members.iter().map(|(name, value)| (join(name), value))),
            Value::Array(items) => {
                rest.extend(items.iter().enumerate().map(|(n, value)| (join(&n.to_string()), value)));
            }
            _ => {
                fields.insert(path, value.clone());
            }
        }
    }
    fields
}
