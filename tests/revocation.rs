//! Proves: what KMS takes away is out of use in the time that the broker promises, by whichever way it is taken away, and what KMS still
//! allows is not lost by that, nor by a KMS that cannot be asked; the records prove both.
//!
//! Time is the test's: it passes a second between draws. The emulator decides what is refused.

#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kms::Client as Kms;
use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kms::types::GrantOperation;
use key_broker::{RevocationCheck, Rule, Rules};
use key_broker_client::{Client, Decrypt, DecryptMessage, EncryptMessage, Error, GenerateDataKey};
use key_broker_core::Bounds;
use key_broker_trail::delivery::{SigningConfig, TrailConfig};
use kms_emulator::{Effect, Emulator, Fault};
use peers::check_records;
use serde_json::Value;
use support::clock::TestClock;
use support::process::binary;
use support::signing::write_key;
use support::{REVOCATION_CHECK, Setup, TestBroker, eventually, journal_lines, reuse, rule, trail};
use tempfile::TempDir;
use time::macros::datetime;

/// A day's bounds: nothing but the checks takes a key out of use.
fn for_a_day() -> Rule {
    let bounds = Bounds { max_age: Duration::from_hours(24), ..rule().bounds };
    Rule { bounds, message_bounds: bounds, ..rule() }
}

struct Bench {
    broker: TestBroker,
    client: Client,
    clock: Arc<TestClock>,
    dir: TempDir,
}

impl Bench {
    async fn new(reuse: Rules) -> Self {
        let clock = TestClock::at(datetime!(2026-11-30 08:00 UTC));
        let dir = tempfile::tempdir().expect("a directory");
        let key = write_key(dir.path());
        fs::write(dir.path().join("public.pem"), key.to_pem()).expect("writes");
        let signing = SigningConfig::File(dir.path().join("signing.pem"));
        let trail = Some(TrailConfig { signing, ..trail::config(dir.path()) });
        let setup = Setup { reuse, trail, clock: clock.clone(), max_attempts: 1, ..Setup::default() };
        let broker = TestBroker::with(setup).await;
        let client = broker.client().await;
        Self { broker, client, clock, dir }
    }

    /// Stops the broker, and has its records judged.
    async fn finish(self) {
        self.broker.stop().await;
        let report = verified(self.dir.path());
        assert_eq!(report["verdict"], "sound", "{report:#}");
    }

    /// Whether it came from the cache.
    async fn draw(&self, key: &str, tenant: &str) -> Result<bool, Error> {
        let request = GenerateDataKey::aes_256(key).context("tenant", tenant);
        self.client.generate_data_key(request).await.map(|key| key.provenance.from_cache)
    }

    /// Lets a second pass.
    async fn tick(&self) {
        self.clock.pass(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }

    /// For how many seconds what was kept of a key is served after now.
    async fn served_for(&self, key: &str, tenant: &str, at_most: u64) -> Option<u64> {
        let mut last = 0;
        for second in 0..=at_most {
            match self.draw(key, tenant).await {
                Ok(true) => last = second,
                Ok(false) => panic!("KMS has served what was taken away"),
                Err(_) => return Some(last),
            }
            self.tick().await;
        }
        None
    }

    fn checks(&self) -> usize {
        self.broker.emulator.calls().iter().filter(|call| call.dry_run).count()
    }
}

/// Ways to take a key away.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    DisableKey,
    ScheduleKeyDeletion,
    DeleteImportedKeyMaterial,
    ImportedMaterialExpires,
    RevokeGrant,
    PolicyWithoutTheRole,
    RoleWithoutTheOperation,
    PolicyWithoutTheContext,
}

const WAYS: [Way; 8] = [
    Way::DisableKey,
    Way::ScheduleKeyDeletion,
    Way::DeleteImportedKeyMaterial,
    Way::ImportedMaterialExpires,
    Way::RevokeGrant,
    Way::PolicyWithoutTheRole,
    Way::RoleWithoutTheOperation,
    Way::PolicyWithoutTheContext,
];

const ROLE: &str = "arn:aws:iam::111122223333:role/key-broker-dev";
const ADMIN: &str =
    r#""Action":["kms:DescribeKey","kms:CreateGrant","kms:RevokeGrant","kms:ScheduleKeyDeletion"]"#;

/// A key's policy: what the broker's role may do.
fn policy(statement: &str) -> String {
    let allow = |statement: &str| {
        format!(r#"{{"Effect":"Allow","Principal":{{"AWS":"{ROLE}"}},{statement},"Resource":"*"}}"#)
    };
    format!(r#"{{"Version":"2012-10-17","Statement":[{},{}]}}"#, allow(ADMIN), allow(statement))
}

impl Way {
    /// Whether others than one context are still allowed.
    fn is_of_one_context(self) -> bool {
        self == Self::PolicyWithoutTheContext
    }

    /// A key that can be taken away so.
    async fn key(self, emulator: &Emulator) -> (String, Option<String>) {
        let key = emulator.ensure_external_key("alias/taken").expect("a key");
        emulator.import_material(&key, &[7; 32], Some(Duration::from_hours(1))).expect("imports");
        if self != Self::RevokeGrant {
            return (key, None);
        }
        emulator.put_key_policy(&key, &policy(ADMIN)).expect("a policy");
        let kms = sdk(emulator);
        let grant = kms.create_grant().key_id(&key).grantee_principal(ROLE);
        let grant = grant.operations(GrantOperation::GenerateDataKey).send().await.expect("grants");
        (key, grant.grant_id)
    }

    async fn take(self, emulator: &Emulator, key: &str, grant: Option<String>) {
        match self {
            Self::DisableKey => emulator.set_enabled(key, false).expect("known"),
            Self::ScheduleKeyDeletion => {
                sdk(emulator).schedule_key_deletion().key_id(key).send().await.expect("schedules");
            }
            Self::DeleteImportedKeyMaterial => emulator.delete_material(key).expect("imported"),
            Self::ImportedMaterialExpires => emulator.advance(Duration::from_hours(2)).expect("passes"),
            Self::RevokeGrant => {
                let revoke = sdk(emulator).revoke_grant().key_id(key).set_grant_id(grant);
                revoke.send().await.expect("revokes");
            }
            Self::PolicyWithoutTheRole => {
                emulator.put_key_policy(key, &policy(ADMIN)).expect("a policy");
            }
            Self::RoleWithoutTheOperation => {
                let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"kms:GenerateDataKey","Resource":"*"}]}"#;
                emulator.put_role_policy(ROLE, policy).expect("a policy");
            }
            Self::PolicyWithoutTheContext => {
                let other = r#""Action":"kms:GenerateDataKey","Condition":{"StringEquals":{"kms:EncryptionContext:tenant":"other"}}"#;
                emulator.put_key_policy(key, &policy(other)).expect("a policy");
            }
        }
    }
}

/// KMS as an administrator has it.
fn sdk(emulator: &Emulator) -> Kms {
    let config = aws_sdk_kms::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-west-2"))
        .credentials_provider(Credentials::new("AKIAADMINEXAMPLE", "x", None, None, "test"))
        .endpoint_url(emulator.endpoint_url());
    Kms::from_conf(config.build())
}

/// The verdict on the trail in this directory.
fn verified(dir: &Path) -> Value {
    let of = |path: &str| dir.join(path).display().to_string();
    let mut verify = Command::new(binary());
    verify.args(["audit", "verify", "--json", "--no-journal", "--store", &of(""), "--bucket", trail::BUCKET]);
    verify.args(["--account", "111122223333", "--region", "us-west-2", "--trail", "test"]);
    verify.args(["--public-key", &of("public.pem"), "--record-to", &of("reader.jsonl")]);
    let output = verify.output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_way_a_key_is_taken_away_it_is_out_of_use_in_time() {
    let by_context = RevocationCheck { by_context: true, ..REVOCATION_CHECK };
    for (mode, check) in [("key", REVOCATION_CHECK), ("context", by_context)] {
        for way in WAYS {
            let bench = Bench::new(Rules { revocation_check: Some(check), ..reuse(for_a_day()) }).await;
            let (key, grant) = way.key(&bench.broker.emulator).await;
            assert!(!bench.draw(&key, "acme").await.expect("KMS allows it"));
            assert!(!bench.draw(&key, "other").await.expect("KMS allows it"));
            // So that there has been a check, and a good part of its interval is left.
            for _ in 0..60 {
                bench.tick().await;
                assert!(bench.draw(&key, "acme").await.expect("kept"));
                assert!(bench.draw(&key, "other").await.expect("kept"));
            }
            way.take(&bench.broker.emulator, &key, grant).await;
            let served = bench.served_for(&key, "acme", 200).await;
            println!("{way:?}, revocation_check = {mode}: {served:?} s");
            if way.is_of_one_context() {
                assert!(bench.draw(&key, "other").await.expect("still allowed"), "it is kept");
            }
            // Where one context speaks for the key, the bounds of its data keys are what ends another.
            if check.by_context || !way.is_of_one_context() {
                assert!(served.is_some_and(|served| served <= 60), "{way:?}: {served:?}");
            }
            bench.finish().await;
        }
    }
}

/// Ten tenants have kept data keys, and somebody asks with a context that the key's policy denies, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_context_costs_no_other_its_data_keys() {
    let bench = Bench::new(reuse(for_a_day())).await;
    let key = bench.broker.emulator.ensure_external_key("alias/taken").expect("a key");
    bench.broker.emulator.import_material(&key, &[7; 32], None).expect("imports");
    let allowed =
        r#""Action":"kms:GenerateDataKey","Condition":{"StringLike":{"kms:EncryptionContext:tenant":"t*"}}"#;
    bench.broker.emulator.put_key_policy(&key, &policy(allowed)).expect("a policy");
    let tenants: Vec<String> = (0..10).map(|n| format!("t{n}")).collect();
    for tenant in &tenants {
        assert!(!bench.draw(&key, tenant).await.expect("allowed"));
    }
    let before = bench.checks();
    for _ in 0..20 {
        let error = bench.draw(&key, "not allowed").await.expect_err("denied");
        assert_eq!(error.reason(), Some("KMS_ACCESS_DENIED"));
        for tenant in &tenants {
            assert!(bench.draw(&key, tenant).await.expect("allowed"), "{tenant} is kept");
        }
        bench.tick().await;
    }
    assert_eq!(bench.checks() - before, 10, "each is asked about once in an interval");
    bench.finish().await;
}

/// What was decrypted is kept, too, and the data keys of messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decrypts_and_messages_end_with_their_key_too() {
    let bench = Bench::new(reuse(for_a_day())).await;
    let emulator = &bench.broker.emulator;
    let key = emulator.ensure_external_key("alias/taken").expect("a key");
    emulator.import_material(&key, &[7; 32], None).expect("imports");
    let made = bench.client.generate_data_key(GenerateDataKey::aes_256(&key)).await.expect("allowed");
    let encrypt = EncryptMessage::new(&key, b"hello".to_vec());
    let message = bench.client.encrypt_message(encrypt.clone()).await.expect("allowed").message;
    let decrypt = || bench.client.decrypt(Decrypt::new(made.ciphertext_blob.clone()).key_id(&key));
    let use_all = async || {
        let decrypted = decrypt().await.map(drop);
        let encrypted = bench.client.encrypt_message(encrypt.clone()).await.map(drop);
        let opened = bench.client.decrypt_message(DecryptMessage::new(message.clone())).await.map(drop);
        [decrypted, encrypted, opened]
    };
    for _ in 0..70 {
        for used in use_all().await {
            used.expect("kept or allowed");
        }
        bench.tick().await;
    }
    assert!(bench.checks() >= 2, "Decrypt and GenerateDataKey");
    emulator.set_enabled(&key, false).expect("known");
    let mut served = 0;
    for second in 0..=61 {
        if use_all().await.iter().any(Result::is_ok) {
            served = second;
        }
        bench.tick().await;
    }
    assert!(served <= 60, "{served}");
    bench.finish().await;
}

/// KMS is out of reach for ten minutes: what is kept is served for `unverified_max_seconds`, and again afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_kms_cannot_be_asked_what_is_kept_is_served_for_a_while_and_not_lost() {
    let bench = Bench::new(reuse(for_a_day())).await;
    for tenant in ["one", "two", "three"] {
        bench.draw("alias/dev", tenant).await.expect("allowed");
    }
    bench.broker.emulator.inject(Fault::new(Effect::Close).on("GenerateDataKey"));
    let served = bench.served_for("alias/dev", "one", 600).await.expect("not for ever");
    println!("served for {served} s without KMS");
    assert!((290..=300).contains(&served), "{served}");
    for _ in 0..300 {
        bench.tick().await;
        bench.draw("alias/dev", "two").await.expect_err("long unverified");
    }
    bench.broker.emulator.clear_faults();
    bench.clock.pass(Duration::from_secs(30));
    let mut kept = 0;
    for tenant in ["one", "two", "three"] {
        for _ in 0..100 {
            match bench.draw("alias/dev", tenant).await {
                Ok(from_cache) => {
                    kept += usize::from(from_cache);
                    break;
                }
                Err(_) => bench.tick().await,
            }
        }
    }
    // One may be replaced by the call to KMS that shows that it is back.
    assert!(kept >= 2, "{kept} of 3 are served from memory again");
    eventually("the failed checks are recorded", || {
        let records = bench.broker.records();
        records.activity.iter().any(|record| record["eventName"] == "ReportFailedCheck")
    })
    .await;
    bench.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn the_records_of_checks_are_what_the_schema_says() {
    let bench = Bench::new(reuse(for_a_day())).await;
    for _ in 0..60 {
        bench.draw("alias/dev", "acme").await.expect("allowed");
        bench.tick().await;
    }
    bench.broker.emulator.inject(Fault::new(Effect::Close).on("GenerateDataKey"));
    for _ in 0..80 {
        bench.draw("alias/dev", "acme").await.expect("kept");
        bench.tick().await;
    }
    let lines = journal_lines(&bench.broker.journal_dir());
    for word in ["lastAllowed", "lastCheckFailed", "ReportFailedCheck", "DryRunOperationException"] {
        assert!(lines.iter().any(|line| line.contains(word)), "{word}");
    }
    check_records(&lines);
    bench.finish().await;
}

/// What one role may do with a key, and nothing else.
fn only(action: &str) -> String {
    policy(&format!(r#""Action":"kms:{action}""#))
}

/// An hour: a policy conditioned on the context, a role that may only decrypt, one that may only encrypt, four minutes of throttling,
/// ten without KMS. A draw every five seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_bad_hour_nothing_that_is_still_allowed_is_lost() {
    let bench = Bench::new(reuse(for_a_day())).await;
    let emulator = &bench.broker.emulator;
    let key = |alias| {
        let key = emulator.ensure_external_key(alias).expect("a key");
        emulator.import_material(&key, &[7; 32], None).expect("imports");
        key
    };
    let (conditioned, decrypt_only, encrypt_only) = (key("alias/one"), key("alias/two"), key("alias/three"));
    let sealed = bench.client.generate_data_key(GenerateDataKey::aes_256(&decrypt_only)).await;
    let sealed = sealed.expect("allowed still").ciphertext_blob;
    let on_context =
        r#""Action":"kms:GenerateDataKey","Condition":{"StringLike":{"kms:EncryptionContext:tenant":"t*"}}"#;
    emulator.put_key_policy(&conditioned, &policy(on_context)).expect("a policy");
    emulator.put_key_policy(&decrypt_only, &only("Decrypt")).expect("a policy");
    emulator.put_key_policy(&encrypt_only, &only("GenerateDataKey")).expect("a policy");

    let (mut from_memory, mut from_kms, mut refused) = (0, 0, 0);
    for tick in 0..720_u64 {
        match tick * 5 {
            600 => emulator.inject(Fault::throttling()),
            840 => emulator.clear_faults(),
            1_200 => emulator.inject(Fault::new(Effect::Close)),
            1_800 => {
                emulator.clear_faults();
                // The circuit.
                bench.clock.pass(Duration::from_secs(30));
            }
            _ => {}
        }
        let decrypt = bench.client.decrypt(Decrypt::new(sealed.clone()).key_id(&decrypt_only)).await;
        let used = [
            bench.draw(&conditioned, "t1").await,
            bench.draw(&conditioned, "t2").await,
            bench.draw(&encrypt_only, "t1").await,
            decrypt.map(|decrypted| decrypted.provenance.from_cache),
        ];
        for used in used {
            match used {
                Ok(true) => from_memory += 1,
                Ok(false) => from_kms += 1,
                Err(_) => {
                    refused += 1;
                    assert!((1_430..1_860).contains(&(tick * 5)), "refused after {} s", tick * 5);
                }
            }
        }
        bench.clock.pass(Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("{from_memory} uses from memory, {from_kms} from KMS, {refused} refused");
    assert!((4..=7).contains(&from_kms), "each once, and each key at most once after the outage: {from_kms}");
    assert!(from_memory >= 2_500, "{from_memory}");
    bench.finish().await;
}
