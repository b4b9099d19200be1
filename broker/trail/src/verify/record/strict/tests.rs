//! The strict parser agrees with the general one on whatever it accepts, however records are altered, and accepts what brokers write.

use std::hash::RandomState;

use proptest::prelude::*;
use uuid::Uuid;

use super::super::{CheckedRecord, read, read_strictly};
use super::plain_text;
use crate::record::{CheckedScope, RevocationPromise};
use crate::verify::forge::{Mint, START, failed_check, refusal, start};

const ACCOUNT: &str = "111122223333";

/// One record of each kind.
fn written() -> Vec<String> {
    let mint = Mint::new(1, START);
    let promise = RevocationPromise {
        revocation_check_seconds: 60,
        revocation_check: CheckedScope::Key,
        unverified_max_seconds: 300,
    };
    let material = format!("\"additionalEventData\":{{\"keyMaterialId\":\"{}\"}}", "ab".repeat(32));
    vec![
        mint.record(),
        mint.record_of(Some("DryRunOperationException")),
        mint.record().replace("\"requestID\":", &format!("{material},\"requestID\":")),
        plain(&mint.draw(1).record()),
        plain(&mint.draw(2).record()),
        plain(&refusal(START)),
        start(Some(promise), START),
        start(None, START),
        failed_check("GenerateDataKey", Uuid::from_u128(7), START),
    ]
}

/// The record with its user agent free of escapes.
fn plain(record: &str) -> String {
    let plain = record.replace(" \\\"quoted\\\"", "");
    assert_ne!(plain, record, "it has no escapes");
    plain
}

fn strictly(text: &str, hashes: &RandomState) -> Option<(CheckedRecord, usize)> {
    read_strictly(text, ACCOUNT, hashes, None)
}

#[test]
fn what_brokers_write_is_read_strictly() {
    let hashes = RandomState::new();
    for record in written() {
        let (strict, length) = strictly(&record, &hashes).unwrap_or_else(|| panic!("{record}"));
        assert_eq!(length, record.len());
        let any = read(&record, ACCOUNT, &hashes, None).map_err(|flaw| flaw.why);
        assert_eq!(any, Ok(strict), "{record}");
    }
}

#[test]
fn what_is_written_otherwise_is_left_to_others() {
    let hashes = RandomState::new();
    for (from, to) in [
        ("grpc-python/1.76.0", "grpc-python/1.76.0 \\\"quoted\\\""),
        ("\"readOnly\":true", "\"readOnly\":true,\"new\":1"),
        ("\"readOnly\":true", "\"readOnly\": true"),
        ("\"messagesUsed\":1,", "\"messagesUsed\":01,"),
        ("\"messagesUsed\":1,", "\"messagesUsed\":1.0,"),
        ("\"messagesUsed\":1,", "\"messagesUsed\":1,\"messagesUsed\":1,"),
        ("\"outcome\":\"Allowed\"", "\"outcome\":\"Allowed\",\"redactedEncryptionContext\":null"),
        ("\"AES_256\"", "\"AES\\u005f256\""),
        ("\"AES_256\"", "\"AES_256"),
        ("\"AES_256\"", "\"AES_\n256\""),
    ] {
        let record = plain(&Mint::new(1, START).draw(1).record());
        assert!(record.contains(from), "{from}: {record}");
        assert!(strictly(&record.replace(from, to), &hashes).is_none(), "{to}");
    }
}

const SNIPPETS: [&str; 18] = [
    "null", "true", "false", "[]", "{}", "\"\"", "0", "01", "1.5", "-1", "1e3", " ", "\\u0041", "\\",
    "\"x\":1,", "\u{e9}", "\n", ",",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_changed_is_read_the_same_or_left_to_others(
        which in any::<prop::sample::Index>(),
        (at, length) in (any::<prop::sample::Index>(), 0..40_usize),
        (from, copied) in (any::<prop::sample::Index>(), 0..60_usize),
        snippet in prop::option::of(prop::sample::select(&SNIPPETS[..])),
        follows in any::<bool>(),
    ) {
        let (all, hashes) = (written(), RandomState::new());
        let record = which.get(&all);
        let (at, from) = (at.index(record.len()), from.index(record.len()));
        let inserted = snippet.unwrap_or_else(|| record.get(from..from + copied).unwrap_or_default());
        let end = (at + length).min(record.len());
        prop_assume!(record.is_char_boundary(at) && record.is_char_boundary(end));
        let changed = format!("{}{inserted}{}", &record[..at], &record[end..]);
        let text = if follows { format!("{changed},{record}]}}") } else { changed };
        if let Some((strict, length)) = strictly(&text, &hashes) {
            let any = read(&text[..length], ACCOUNT, &hashes, None).map_err(|flaw| flaw.why);
            prop_assert_eq!(any, Ok(strict));
        }
    }

    /// Values of fields, exchanged with those of other records.
    #[test]
    fn exchanged_values_are_read_the_same_or_left_to_others(
        which in any::<prop::sample::Index>(),
        one in any::<prop::sample::Index>(),
        other in any::<prop::sample::Index>(),
        snippet in prop::option::of(prop::sample::select(&SNIPPETS[..])),
    ) {
        let (all, hashes) = (written(), RandomState::new());
        let record = which.get(&all);
        let parts: Vec<&str> = record.split(',').collect();
        let (one, other) = (one.index(parts.len()), other.index(parts.len()));
        let mut changed = parts.clone();
        let name = parts[one].split_once(':').map_or("", |(name, _)| name);
        let value = snippet.or(parts[other].split_once(':').map(|(_, value)| value)).unwrap_or_default();
        let part = format!("{name}:{value}");
        changed[one] = &part;
        let text = changed.join(",");
        if let Some((strict, length)) = strictly(&text, &hashes) {
            let any = read(&text[..length], ACCOUNT, &hashes, None).map_err(|flaw| flaw.why);
            prop_assert_eq!(any, Ok(strict));
        }
    }

    #[test]
    fn a_text_ends_where_it_ends_byte_by_byte(text in "[a-z\"\\\\\u{1}\u{1f} !é\u{7f}#-]{0,30}") {
        let bytes = text.as_bytes();
        let odd = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
        prop_assert_eq!(plain_text(bytes), odd.filter(|at| bytes[*at] == b'"'));
    }
}
