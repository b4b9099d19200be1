//! A sound trail is sound, and no changed one is: whether a byte of any object was changed, or something that only the holder of the
//! signing key can change. What cannot be read is not called sound.

mod folder;
mod identities;
mod journal;
mod matrix;
mod period;
mod resume;
mod revocation;

use proptest::prelude::*;

use super::forge::{Draw, Forge, MemoryStore, Mint, START, names, refusal, signer};
use super::*;
use crate::names::TrailNames;
use crate::record::ServedFrom;
use crate::store::Object;
use time::Duration;

async fn verified(store: &MemoryStore) -> Report {
    verified_with(
        store,
        VerifyOptions { keys: vec![signer().public_key().clone()], ..VerifyOptions::default() },
    )
    .await
}

async fn verified_with(store: &MemoryStore, options: VerifyOptions) -> Report {
    let reader = TrailReader::new(std::sync::Arc::new(store.clone()), names(), None);
    verify(&reader, &options, &mut |_| {}).await
}

fn kinds(report: &Report) -> Vec<FindingKind> {
    let worst = report.findings.iter().filter(|finding| finding.severity != Severity::Note);
    let mut kinds: Vec<_> = worst.map(|finding| finding.kind).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

/// A sound trail, made once and copied.
async fn sound() -> MemoryStore {
    static SOUND: tokio::sync::OnceCell<MemoryStore> = tokio::sync::OnceCell::const_new();
    SOUND.get_or_init(|| async { Forge::sound().store().await }).await.copy()
}

/// The findings in an hour with these records, hashed and signed by the key's owner.
async fn found(records: Vec<String>) -> Vec<FindingKind> {
    let report = verified(&Forge::of(records).store().await).await;
    assert_eq!(report.verdict == Verdict::Sound, kinds(&report).is_empty(), "{report:?}");
    kinds(&report)
}

fn mint() -> Mint {
    Mint::new(1, START + Duration::minutes(2))
}

#[tokio::test]
async fn a_sound_trail_is_sound_and_counted() {
    let report = verified(&sound().await).await;
    assert_eq!((report.verdict, &report.findings[..]), (Verdict::Sound, &[][..]));
    assert_eq!((report.digests, report.log_files, report.records), (3, 3, 7));
    assert_eq!((report.kms_records, report.activity_records, report.keys_used), (2, 5, 2));
    assert_eq!((report.from, report.to), (Some(START), Some(START + Duration::hours(3))));
    assert!(report.newest_signature.is_some());
}

#[tokio::test]
async fn nothing_is_not_sound() {
    let report = verified(&MemoryStore::default()).await;
    assert_eq!((report.verdict, kinds(&report)), (Verdict::CannotTell, vec![FindingKind::NoDigest]));
    let report = verified_with(&sound().await, VerifyOptions::default()).await;
    assert_eq!((report.verdict, kinds(&report)), (Verdict::CannotTell, vec![FindingKind::DigestOtherKey]));
}

/// A public key that signs nothing here.
fn stranger() -> PublicKey {
    use aws_lc_rs::encoding::AsDer as _;
    use aws_lc_rs::signature::KeyPair as _;
    let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect("a key");
    let spki: aws_lc_rs::encoding::PublicKeyX509Der<'_> = pair.public_key().as_der().expect("encodes");
    PublicKey::from_spki(spki.as_ref()).expect("reads")
}

#[tokio::test]
async fn a_trail_of_another_key_altogether_is_not_sound() {
    let options = VerifyOptions { keys: vec![stranger()], ..VerifyOptions::default() };
    let report = verified_with(&sound().await, options).await;
    assert_eq!((report.verdict, kinds(&report)), (Verdict::Unsound, vec![FindingKind::DigestOtherKey]));
}

#[tokio::test]
async fn what_a_rule_has_deleted_is_told_and_the_rest_is_verified_by_itself() {
    let store = sound().await;
    for key in store.keys().iter().filter(|key| key.contains("T08") || key.contains("T0900")) {
        store.with(|objects| objects.remove(key));
    }
    let report = verified(&store).await;
    assert_eq!((report.verdict, kinds(&report)), (Verdict::CannotTell, vec![FindingKind::BeginningMissing]));
    for (minutes, verdict) in [(59, Verdict::CannotTell), (60, Verdict::Sound), (61, Verdict::Sound)] {
        let from = Some(START + Duration::minutes(minutes));
        let options =
            VerifyOptions { keys: vec![signer().public_key().clone()], from, ..VerifyOptions::default() };
        assert_eq!(verified_with(&store, options).await.verdict, verdict, "{minutes}");
    }
}

#[tokio::test]
async fn a_use_that_comes_hours_after_its_key_is_not_called_sound() {
    let first = mint();
    let late = first.draw(2).record();
    let mut forge = Forge::of(vec![first.record(), first.draw(1).record()]);
    let hour = |n: u128| {
        let mint = Mint::new(n, START + Duration::hours(i64::try_from(n).expect("few")));
        vec![vec![mint.record(), mint.draw(1).record()]]
    };
    forge.digests.extend([hour(2), hour(3)]);
    assert_eq!(verified(&forge.store().await).await.verdict, Verdict::Sound);
    forge.digests[2][0].push(late);
    let report = verified(&forge.store().await).await;
    assert_eq!((report.verdict, kinds(&report)), (Verdict::CannotTell, vec![FindingKind::UsedTooLate]));
}

#[tokio::test]
async fn a_kept_signature_shows_that_the_newest_digest_is_gone() {
    let store = sound().await;
    let kept = verified(&store).await.newest_signature;
    let options = || VerifyOptions {
        keys: vec![signer().public_key().clone()],
        newest_signature: kept.clone(),
        ..VerifyOptions::default()
    };
    assert_eq!(verified_with(&store, options()).await.verdict, Verdict::Sound);
    let newest = store.keys().into_iter().rfind(|key| key.contains("-Digest")).expect("digests");
    store.with(|objects| objects.remove(&newest));
    let report = verified_with(&store, options()).await;
    assert!(kinds(&report).contains(&FindingKind::NewestMissing), "{report:?}");
}

#[tokio::test]
async fn each_removed_object_is_missed() {
    let keys = sound().await.keys();
    // Only a signature kept elsewhere shows that the newest digest is gone.
    let newest = keys.iter().rfind(|key| key.contains("-Digest")).expect("digests");
    for key in keys.iter().filter(|key| *key != newest) {
        let store = sound().await;
        store.with(|objects| objects.remove(key));
        let report = verified(&store).await;
        assert_ne!(report.verdict, Verdict::Sound, "{key}: {report:?}");
    }
}

#[tokio::test]
async fn keys_are_not_used_beyond_their_bounds() {
    let mint = mint();
    assert_eq!(found(vec![mint.record(), mint.draw(2).record(), mint.draw(1).record()]).await, []);

    let mut late = mint.draw(2);
    late.at = mint.at + Duration::seconds(300);
    assert_eq!(found(vec![mint.record(), mint.draw(1).record(), late.record()]).await, []);
    late.at = mint.at + Duration::seconds(301);
    assert_eq!(found(vec![mint.record(), late.record()]).await, [FindingKind::UsedTooLate]);

    let mut over = mint.draw(11);
    assert_eq!(found(vec![mint.record(), over.record()]).await, [FindingKind::MessagesExceeded]);
    over = mint.draw(2);
    over.used.1 = 1_001;
    assert_eq!(found(vec![mint.record(), over.record()]).await, [FindingKind::BytesExceeded]);

    let twice = [mint.record(), mint.draw(2).record(), mint.draw(2).record()].to_vec();
    assert_eq!(found(twice).await, [FindingKind::ChargedTwice]);
    let mut large = mint.draw(3);
    (large.declared.messages, large.from) = (4, ServedFrom::Cache);
    assert_eq!(found(vec![mint.record(), large.record()]).await, [FindingKind::ChargedTwice]);
    let mut wide = mint.draw(1);
    (wide.limits.0, wide.expires_at) = (1 << 33, Some(mint.at + Duration::hours(48)));
    assert_eq!(found(vec![mint.record(), wide.record()]).await, [FindingKind::LimitTooWide]);
}

#[tokio::test]
async fn what_one_draw_was_promised_holds_for_all_after_it() {
    let mint = mint();
    let with_limit = |message, limit| {
        let mut draw = mint.draw(message);
        draw.limits.0 = limit;
        draw.record()
    };
    let tightened = vec![mint.record(), with_limit(1, 10), with_limit(3, 5), with_limit(2, 10)];
    assert_eq!(found(tightened).await, []);
    // Each record is within its own limit, whatever their order.
    for records in [
        vec![mint.record(), with_limit(2, 5), with_limit(3, 10)],
        vec![mint.record(), with_limit(3, 10), with_limit(2, 5)],
    ] {
        assert_eq!(found(records).await, [FindingKind::LimitTooWide]);
    }
    let bytes: Vec<_> = [(1, 500), (2, 1_000)]
        .map(|(message, limit)| {
            let mut draw = mint.draw(message);
            draw.limits.1 = limit;
            draw.record()
        })
        .into();
    assert_eq!(found([vec![mint.record()], bytes].concat()).await, [FindingKind::LimitTooWide]);
    // Also a limit that nobody exceeded at the time.
    let mut records = vec![mint.record(), with_limit(1, 2)];
    records.extend((2..=4).map(|message| with_limit(message, 9)));
    assert_eq!(found(records).await, [FindingKind::MessagesExceeded, FindingKind::LimitTooWide]);
}

#[tokio::test]
async fn bytes_that_were_handed_out_are_added_up() {
    let mint = mint();
    let mut records = vec![mint.record()];
    for message in 1..=9 {
        let mut draw = mint.draw(message);
        // Each record is within its own limit.
        (draw.declared.bytes, draw.used.1) = (200, 200);
        records.push(draw.record());
    }
    assert_eq!(found(records).await, [FindingKind::BytesExceeded, FindingKind::ChargedTwice]);
}

#[tokio::test]
async fn uses_without_a_record_are_told() {
    let mint = mint();
    for (messages, told) in [(vec![1, 2, 3], None), (vec![1, 3], Some(&1)), (vec![2, 3], Some(&1))] {
        let mut records = vec![mint.record()];
        records.extend(messages.iter().map(|message| mint.draw(*message).record()));
        let report = verified(&Forge::of(records).store().await).await;
        assert_eq!(report.verdict, Verdict::Sound);
        assert_eq!(report.counts.get(&FindingKind::UsesMissing), told, "{messages:?}");
    }
}

#[tokio::test]
async fn a_key_that_is_handed_out_once_is_not_handed_out_again() {
    let mint = mint();
    let mut once = mint.draw(1);
    (once.expires_at, once.limits) = (None, (1, 10));
    assert_eq!(found(vec![mint.record(), once.record()]).await, []);
    // Also before its KMS record comes, and mixed with cached uses.
    for records in [
        vec![mint.record(), once.record(), once.record()],
        vec![once.record(), once.record(), mint.record()],
        vec![mint.record(), once.record(), mint.draw(2).record()],
        vec![mint.record(), mint.draw(2).record(), once.record()],
    ] {
        assert_eq!(found(records).await, [FindingKind::UsedAgain]);
    }
}

#[tokio::test]
async fn uses_fit_each_other_and_their_kms_record() {
    let mint = mint();
    let draw = |n: u64| mint.draw(n).record();
    assert_eq!(found(vec![draw(1)]).await, [FindingKind::KmsRecordMissing]);
    assert_eq!(found(vec![draw(1), mint.record()]).await, []);
    let mut other = Mint::new(1, mint.at);
    other.tenant = "other";
    assert_eq!(found(vec![mint.record(), other.draw(1).record()]).await, [FindingKind::KmsRecordMismatch]);
    let mixed = found(vec![draw(1), other.draw(2).record(), mint.record()]).await;
    assert_eq!(mixed, [FindingKind::PartitionMixed]);
    let earlier = Mint::new(1, mint.at - Duration::SECOND);
    assert_eq!(found(vec![mint.record(), earlier.draw(1).record()]).await, [FindingKind::KmsRecordMismatch]);
    let id = draw(1).replace("b0000000-", "c0000000-");
    assert_eq!(found(vec![mint.record(), id.clone()]).await, [FindingKind::KmsRecordMismatch]);
    assert_eq!(found(vec![id, mint.record()]).await, [FindingKind::KmsRecordMismatch]);
    let refused = mint
        .record()
        .replace("\"requestParameters\"", "\"errorCode\":\"DisabledException\",\"requestParameters\"");
    assert_eq!(found(vec![refused, draw(1)]).await, [FindingKind::KmsRecordMismatch]);
    let mut again = mint.draw(2);
    again.from = ServedFrom::Kms;
    assert_eq!(found(vec![mint.record(), draw(1), again.record()]).await, [FindingKind::MintedTwice]);
}

/// The same draw as the broker's own, for a message of which so much was encrypted.
fn of_message(draw: &Draw<'_>, plaintext_length: u64) -> String {
    let message = format!(
        r#""outcome":"Allowed","message":{{"headerSHA256":"{}","suite":"0x0478","encryptedDataKeys":1,"length":900,"plaintextLength":{plaintext_length}}}"#,
        "0a".repeat(32)
    );
    let record = draw.record().replace("GenerateDataKey", "EncryptMessage");
    record.replace(r#""outcome":"Allowed""#, &message)
}

#[tokio::test]
async fn a_data_key_of_messages_is_given_to_nobody() {
    let mint = mint();
    let [first, second] = [1, 2].map(|message| mint.draw(message));
    let messages = vec![mint.record(), of_message(&first, 10), of_message(&second, 10)];
    assert_eq!(found(messages).await, []);
    // Whoever came first.
    for records in [
        vec![mint.record(), of_message(&first, 10), second.record()],
        vec![mint.record(), first.record(), of_message(&second, 10)],
    ] {
        assert_eq!(found(records).await, [FindingKind::PartitionMixed]);
    }
}

#[tokio::test]
async fn no_more_is_encrypted_than_was_declared_and_nothing_is_a_length_too() {
    let mint = mint();
    let declared = |bytes: u64| {
        let mut draw = mint.draw(1);
        (draw.declared.bytes, draw.used.1) = (bytes, bytes);
        draw
    };
    for (bytes, length, is_sound) in [(10, 10, true), (10, 11, false), (0, 0, true), (0, 1, false)] {
        let kinds = found(vec![mint.record(), of_message(&declared(bytes), length)]).await;
        assert_eq!(kinds.is_empty(), is_sound, "{bytes} declared, {length} encrypted: {kinds:?}");
    }
    // Of any length are only messages whose data key nobody else gets.
    for (expires_at, is_sound) in [(None, true), (mint.draw(1).expires_at, false)] {
        let mut draw = declared(0);
        (draw.expires_at, draw.limits) = (expires_at, (1, 0));
        let undeclared = of_message(&draw, 5).replace(r#""messages":1,"bytes":0"#, r#""messages":1"#);
        let kinds = found(vec![mint.record(), undeclared]).await;
        assert_eq!(kinds.is_empty(), is_sound, "{expires_at:?}: {kinds:?}");
    }
}

#[tokio::test]
async fn key_materials_are_followed_through_rotation() {
    let mint = |number: u128, minutes: i64, material: &str| {
        let told = format!(
            "\"additionalEventData\":{{\"keyMaterialId\":\"{}\"}},\"requestID\"",
            material.repeat(32)
        );
        Mint::new(number, START + Duration::minutes(minutes)).record().replace("\"requestID\"", &told)
    };
    assert_eq!(
        found(vec![mint(1, 0, "0a"), mint(2, 20, "0b"), mint(3, 24, "0a"), mint(4, 40, "0b")]).await,
        []
    );
    let back = Forge {
        digests: vec![vec![vec![mint(1, 0, "0a"), mint(2, 20, "0b")]], vec![vec![mint(3, 81, "0a")]]],
        ..Forge::default()
    };
    let report = verified(&back.store().await).await;
    assert_eq!(report.counts.keys().collect::<Vec<_>>(), [&FindingKind::MaterialWentBack], "{report:?}");
    assert_eq!(report.verdict, Verdict::Unsound);
}

#[tokio::test]
async fn principals_that_share_a_key_are_noted() {
    let mint = mint();
    let mut other = mint.draw(2);
    other.principal = "unix:uid/1001";
    let report =
        verified(&Forge::of(vec![mint.record(), mint.draw(1).record(), other.record()]).store().await).await;
    assert_eq!((report.verdict, report.counts.get(&FindingKind::Shared)), (Verdict::Sound, Some(&1)));
}

#[tokio::test]
async fn ids_come_once_and_losses_that_records_tell_are_found() {
    let (mint, no) = (mint(), refusal(START));
    assert_eq!(found(vec![no.clone(), no.clone()]).await, [FindingKind::EventIdTwice]);
    let again = mint.record().replace("a0000000-", "d0000000-");
    assert_eq!(found(vec![mint.record(), again]).await, [FindingKind::RequestIdTwice]);
    let told = |journal: &str| no.replace("\"outcome\"", &format!("\"journal\":{{{journal}}},\"outcome\""));
    assert_eq!(found(vec![told("\"tornBytes\":9")]).await, []);
    for lost in ["\"missingRecords\":3", "\"damagedBytes\":3"] {
        assert_eq!(found(vec![told(lost)]).await, [FindingKind::RecordsLost]);
    }
}

#[tokio::test]
async fn a_failed_call_is_named_by_its_request() {
    let refused = mint()
        .record()
        .replace("\"requestParameters\"", "\"errorCode\":\"DisabledException\",\"requestParameters\"");
    let data_key =
        "\"dataKey\":{\"servedFrom\":\"KMS\",\"kmsRequestID\":\"b0000000-0000-4000-8000-000000000001\"}";
    let failed = refusal(START).replace("\"outcome\"", &format!("{data_key},\"outcome\""));
    assert_eq!(found(vec![refused.clone(), failed.clone()]).await, []);
    assert_eq!(found(vec![failed.clone(), refused]).await, []);
    assert_eq!(found(vec![failed]).await, [FindingKind::KmsRecordMissing]);
}

async fn report_digest(store: &MemoryStore, place: usize) -> DigestFile {
    let reader = TrailReader::new(std::sync::Arc::new(store.clone()), names(), None);
    let keys = reader.digest_keys().await.expect("lists").own;
    reader.digest_file(&keys[place].key).await.expect("reads").expect("is there")
}

/// Digests that only the holder of the signing key can make.
#[tokio::test]
async fn signed_digests_that_do_not_follow_one_another_are_found() {
    type Edit = fn(&mut crate::digest::Digest);
    let edits: [(Edit, FindingKind); 8] = [
        (|digest| digest.previous_digest_hash_value = Some("0".repeat(64)), FindingKind::PreviousHash),
        (|digest| digest.previous_digest_signature = Some("00".repeat(256)), FindingKind::PreviousSignature),
        (|digest| digest.digest_start_time = "2026-03-01T10:00:01Z".into(), FindingKind::ChainGap),
        (
            |digest| {
                digest.previous_digest_s3_bucket = None;
                digest.previous_digest_s3_object = None;
                digest.previous_digest_hash_value = None;
                digest.previous_digest_hash_algorithm = None;
                digest.previous_digest_signature = None;
            },
            FindingKind::ChainGap,
        ),
        (
            |digest| {
                let first = names().digest(START + Duration::hours(1));
                digest.previous_digest_s3_object = Some(first);
            },
            FindingKind::ChainGap,
        ),
        (
            |digest| digest.log_files[0].newest_event_time = "2026-03-01T10:00:10Z".into(),
            FindingKind::LogFileTimes,
        ),
        (|digest| digest.log_files[0].s3_object.push('x'), FindingKind::LogFileName),
        (|digest| digest.log_files.push(digest.log_files[0].clone()), FindingKind::LogFileTwice),
    ];
    for (edit, kind) in edits {
        let store = sound().await;
        let mut digest = report_digest(&store, 2).await.digest;
        edit(&mut digest);
        digest.newest_event_time = digest.log_files.iter().map(|file| file.newest_event_time.clone()).max();
        let json = digest.to_json();
        store.sign(&digest, &json, &signer()).await;
        let report = verified(&store).await;
        assert_eq!(report.verdict, Verdict::Unsound);
        assert!(kinds(&report).contains(&kind), "{kind}: {report:?}");
    }
}

#[tokio::test]
async fn a_digest_that_is_not_written_as_a_broker_writes_it_is_found() {
    let store = sound().await;
    let digest = report_digest(&store, 2).await.digest;
    let json = serde_json::to_vec_pretty(&digest).expect("JSON");
    store.sign(&digest, &json, &signer()).await;
    assert_eq!(kinds(&verified(&store).await), [FindingKind::DigestMalformed]);
}

#[test]
fn every_kind_of_finding_is_explained() {
    let (_, kinds) = include_str!("finding.rs").split_once("pub enum FindingKind {").expect("the kinds");
    let (kinds, _) = kinds.split_once("\n}").expect("their end");
    let names = kinds.lines().filter_map(|line| line.trim().strip_suffix(','));
    let explained = include_str!("../../../../docs/audit.md");
    let missing: Vec<_> = names.clone().filter(|name| !explained.contains(&format!("`{name}`"))).collect();
    assert!(names.count() > 40 && missing.is_empty(), "not in docs/audit.md: {missing:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Any byte of any object, and any character of a signature.
    #[test]
    fn no_changed_byte_is_sound(place in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let store = sound().await;
            let keys = store.keys();
            let key = &keys[place.index(keys.len())];
            let reader = TrailReader::new(std::sync::Arc::new(store.clone()), names(), None);
            let mut text = reader.log_file(key).await.expect("reads").expect("is there");
            let byte = at.index(text.len());
            text[byte] ^= flip;
            let metadata = store.with(|objects| objects[key].metadata.clone());
            store.insert(key, &text, metadata);
            let report = verified(&store).await;
            prop_assert_ne!(report.verdict, Verdict::Sound, "{}: byte {}", key, byte);
            Ok(())
        })?;
    }

    #[test]
    fn no_changed_signature_is_sound(digest in 0..3_usize, at in 0..512_usize, letter in "[0-9a-fA-Fx]") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let store = sound().await;
            let key = report_digest(&store, digest).await.key;
            let is_changed = store.with(|objects| {
                let signature = objects.get_mut(&key).and_then(|object| object.metadata.get_mut("signature"));
                let signature = signature.expect("signed");
                let before = std::mem::take(signature);
                *signature = format!("{}{letter}{}", &before[..at], &before[at + 1..]);
                *signature != before
            });
            let report = verified(&store).await;
            prop_assert_eq!(report.verdict == Verdict::Sound, !is_changed, "{:?}", report);
            Ok(())
        })?;
    }

    /// Any bytes as an object.
    #[test]
    fn no_bytes_make_it_panic(
        place in any::<prop::sample::Index>(),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        is_compressed in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let store = sound().await;
            let keys = store.keys();
            let key = keys[place.index(keys.len())].clone();
            if is_compressed {
                store.insert(&key, &bytes, std::collections::BTreeMap::new());
            } else {
                let object = Object { key: key.clone(), bytes, metadata: std::collections::BTreeMap::new() };
                store.with(|objects| objects.insert(key, object));
            }
            prop_assert_ne!(verified(&store).await.verdict, Verdict::Sound);
            Ok(())
        })?;
    }

    /// Any text as a record, in a trail that is hashed and signed.
    #[test]
    fn no_text_makes_it_panic(text in ".{0,80}", cut in any::<prop::sample::Index>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let whole = mint().draw(1).record();
            let cut = whole.floor_char_boundary(cut.index(whole.len()));
            let store = Forge::of(vec![mint().record(), text.clone()]).store().await;
            prop_assert_ne!(verified(&store).await.verdict, Verdict::Sound);
            // In any place where text may be.
            let record = format!("{}{text}{}", &whole[..cut], &whole[cut..]);
            verified(&Forge::of(vec![mint().record(), record]).store().await).await;
            Ok(())
        })?;
    }
}
