//! Proves what holds over years: data that was encrypted under an alias is decrypted after the alias has moved, under a policy that names
//! the former key, and under no other; a refusal tells its caller who it is, what it asked, on which key as it wrote it, and what to
//! send, and nothing that it could not know.
//!
//! Twenty kinds of trouble that people have reported of software like this, and the tests that hold them here:
//!
//! | kind | held by |
//! |---|---|
//! | 1 records name the session before a renewal; theft of a later session goes unseen | `renewals.rs`, `reconciler/tests.rs`, `verify/tests/identities.rs` |
//! | 2 a credentials file that changed is not read again | `renewals.rs`, `aws_identity.rs` |
//! | 3 expired credentials look like a refusal of every key | `fair_kms.rs`, `kms/aws/error.rs` |
//! | 4 users without an id in the broker's user namespace are one principal | `identity.rs` of the broker, `neighbours.rs` |
//! | 5 a role's records lack fields that readers need | `trail/record/caller.rs`, `documented_records.rs`, `renewals.rs` |
//! | 6 an empty or swapped period is called sound | `verify/tests/period.rs`, `audit_commands.rs` |
//! | 7 clock skew and the beginning of a certificate | `attestation/tests.rs` of the broker |
//! | 8 a Decrypt that names no key, under a policy by alias | this file, `policy.rs` |
//! | 9 an alias that has moved | this file, `policy.rs` |
//! | 10 a slow metadata service | `aws_identity.rs` |
//! | 11 forms of AWS's records | `cli/audit/reconcile` of the broker |
//! | 12 abstract sockets | `command_line.rs`, `transport/unix.rs` |
//! | 13 long metadata | `metadata.rs` |
//! | 14 a KMS that hangs, and a caller with time | `kms_outage.rs`, `recorded/patience.rs` |
//! | 15 other partitions, FIPS, dual stack, IPv6, endpoints of one's own | `kms/aws/endpoint.rs` |
//! | 16 `Expiration` with an offset | `renewals.rs`, `aws_identity.rs` |
//! | 17 log files that readers find too long | `journal/tests/size.rs` |
//! | 18 other regions, roles for other accounts, redaction | `regions.rs`, `aws_identity.rs`, `redaction.rs` |
//! | 19 a proxy sees a metadata service | `aws_identity.rs`, `connector/route.rs` |
//! | 20 a stray broker in another's folder | `delivery/tests/stray.rs` |

mod support;

use std::time::Duration;

use key_broker_client::{Decrypt, Error, GenerateDataKey};
use kms_emulator::KeySpec;
use support::clock::TestClock;
use support::{Setup, TestBroker};
use time::macros::datetime;
use tonic::Code;

fn me() -> String {
    format!("unix:uid/{}", rustix::process::geteuid().as_raw())
}

/// The emulator keeps aliases and keys in a file, and so a broker can be started whose policy names a key.
struct Keys {
    _dir: tempfile::TempDir,
    config: kms_emulator::EmulatorConfig,
    old: String,
    new: String,
}

impl Keys {
    /// `alias/app` means the old one.
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let state_file = Some(dir.path().join("kms.json"));
        let config = kms_emulator::EmulatorConfig { state_file, ..Default::default() };
        let emulator = kms_emulator::Emulator::start(config.clone()).await.expect("starts");
        let old = emulator.ensure_key("alias/app", KeySpec::SymmetricDefault).expect("a key");
        let new = emulator.ensure_key("alias/next", KeySpec::SymmetricDefault).expect("a key");
        emulator.shutdown().await;
        Self { _dir: dir, config, old, new }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_encrypted_before_an_alias_moved_is_decrypted_where_policy_names_the_former_key() {
    for names_former in [true, false] {
        let keys = Keys::new().await;
        let by_alias = format!(
            r#"permit(principal == Workload::"{}", action in [Action::"GenerateDataKey", Action::"Decrypt"], resource in Alias::"alias/app");"#,
            me()
        );
        let former = format!(
            r#"@id("former") permit(principal == Workload::"{}", action == Action::"Decrypt", resource == Key::"{}");"#,
            me(),
            keys.old
        );
        let policy = if names_former { by_alias + &former } else { by_alias };
        let clock = TestClock::at(datetime!(2026-11-29 08:00 UTC));
        let setup = Setup { policy, emulator: keys.config.clone(), clock: clock.clone(), ..Setup::default() };
        let broker = TestBroker::with(setup).await;
        let client = broker.client().await;
        let draw = || client.generate_data_key(GenerateDataKey::aes_256("alias/app"));
        let made = draw().await.expect("permitted by the alias");
        assert_eq!(made.key_id, keys.old);
        let decrypt = |key: &str| Decrypt::new(made.ciphertext_blob.clone()).key_id(key);
        client.decrypt(decrypt("alias/app")).await.expect("the alias means it still");

        broker.emulator.move_alias("alias/app", &keys.new).expect("moves");
        clock.pass(Duration::from_mins(2));
        let mut now_means = draw().await.expect("permitted").key_id;
        for _ in 0..200 {
            if now_means == keys.new {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            now_means = draw().await.expect("permitted").key_id;
        }
        assert_eq!(now_means, keys.new, "the move is seen within about a minute");

        let by_name = client.decrypt(decrypt("alias/app")).await.expect_err("another key by now");
        assert_eq!(by_name.reason(), Some("INCORRECT_KEY"));
        assert!(by_name.message().contains("the ARN that came with the data key"), "{by_name}");
        let by_arn = client.decrypt(decrypt(&made.key_id)).await;
        if names_former {
            assert_eq!(by_arn.expect("the policy names it").plaintext.expose(), made.plaintext.expose());
            let drawn = client.generate_data_key(GenerateDataKey::aes_256(&keys.old)).await;
            assert_eq!(drawn.expect_err("nothing new under it").code(), Code::PermissionDenied);
        } else {
            // What it once meant is not learned.
            assert_eq!(by_arn.expect_err("the policy does not name it").code(), Code::PermissionDenied);
        }
    }
}

async fn refused<T>(call: impl Future<Output = Result<T, Error>>) -> String {
    let error = call.await.err().expect("refused");
    assert_eq!((error.code(), error.reason()), (Code::PermissionDenied, Some("DENIED_BY_POLICY")));
    error.message().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_tells_who_what_on_which_key_and_what_to_send() {
    let policy = format!(
        r#"permit(principal == Workload::"{}", action == Action::"Decrypt", resource in Alias::"alias/dev");"#,
        me()
    );
    let setup = Setup { policy, insecure_tcp: true, keys: vec!["alias/secret"], ..Setup::default() };
    let broker = TestBroker::with(setup).await;
    let (client, own) = (broker.client().await, me());
    let neighbour = broker.tcp_address().expect("listens").to_string();
    let neighbour = key_broker_client::Client::insecure_tcp(&neighbour).await.expect("connects");
    let rest = ", or there is no such key: ask the broker's operator for a permit";
    let none = ". The call has no encryption context, and a permit may require one";
    let other = ". A permit may require another encryption context than the call has";
    // A key that is there, one that is not, and one of another account read the same.
    let theirs = "arn:aws:kms:us-west-2:444455556666:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    for key in ["alias/dev", "alias/secret", "alias/none", theirs] {
        let denied = format!("the broker's policy does not permit {own} to GenerateDataKey with {key}{rest}");
        let asked = || GenerateDataKey::aes_256(key);
        assert_eq!(refused(client.generate_data_key(asked())).await, format!("{denied}{none}"));
        let with = asked().context("tenant", "acme");
        assert_eq!(refused(client.generate_data_key(with)).await, format!("{denied}{other}"));
        let denied = format!(
            "the broker's policy does not permit an unidentified caller (unknown) to DescribeKey with {key}{rest}"
        );
        assert_eq!(refused(neighbour.describe_key(key)).await, denied);
    }
    for key in ["alias/secret", "alias/none"] {
        let denied = format!("the broker's policy does not permit {own} to Decrypt with {key}{rest}{none}");
        assert_eq!(refused(client.decrypt(Decrypt::new(vec![1]).key_id(key))).await, denied);
    }
    let unnamed = refused(client.decrypt(Decrypt::new(vec![1]))).await;
    assert!(unnamed.contains(&own) && unnamed.contains("set key_id to the key's ARN"), "{unnamed}");
    let random = refused(client.generate_random(8)).await;
    assert!(random.contains(&own) && random.contains("to GenerateRandom:"), "{random}");
}

/// That a permit may require an encryption context is said to everybody: who has no permit does not learn from it that there is one, for
/// themselves or for others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_tells_of_contexts_the_same_whatever_is_permitted() {
    let when = r#"when { context.encryptionContext.hasTag("tenant") }"#;
    let of = |principal: &str| {
        format!(
            r#"permit(principal == Workload::"{principal}", action == Action::"GenerateDataKey", resource) {when};"#
        )
    };
    let mut told = Vec::new();
    let nothing = "forbid(principal, action, resource);".to_owned();
    for policy in [nothing, of("unix:uid/4242"), of(&me())] {
        let broker = TestBroker::with(Setup { policy, ..Setup::default() }).await;
        let client = broker.client().await;
        let ask = |pairs: &[(&str, &str)]| {
            let asked = GenerateDataKey::aes_256("alias/dev");
            pairs.iter().fold(asked, |asked, (name, value)| asked.context(*name, *value))
        };
        let without = refused(client.generate_data_key(ask(&[]))).await;
        let with = refused(client.generate_data_key(ask(&[("project", "x")]))).await;
        assert!(without != with && !with.contains("tenant") && !with.contains("project"), "{with}");
        told.push([without, with]);
    }
    assert!(told.iter().all(|words| *words == told[0]), "{told:#?}");
}

/// Of a ciphertext whose key the caller does not name, a refusal does not name the key either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_names_no_key_that_its_caller_did_not_name() {
    let policy = r#"permit(principal, action, resource);
        forbid(principal, action == Action::"Decrypt", resource in Alias::"alias/dev");"#;
    let broker = TestBroker::with(Setup { policy: policy.into(), ..Setup::default() }).await;
    let client = broker.client().await;
    let made = client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect("permitted");
    let message = refused(client.decrypt(Decrypt::new(made.ciphertext_blob))).await;
    assert!(message.contains("the key of this ciphertext") && !message.contains("arn:"), "{message}");
}
