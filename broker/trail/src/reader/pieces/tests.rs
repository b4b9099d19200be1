//! Reading in pieces gives the same records as reading the whole, wherever pieces end, and rejects what is no log file of a broker.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::super::records::records;
use super::{PIECE, Pieces, ReadWhole};
use crate::digest::sha256_hex;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(text).expect("memory takes everything");
    gzip.finish().expect("memory takes everything")
}

/// The result. Records without a backslash are taken at once if they are whole.
fn read(gzip: &[u8]) -> Result<(Vec<String>, String), ReadWhole> {
    let (mut pieces, mut found) = (Pieces::new(gzip), Vec::new());
    pieces.for_each_record(|text, is_alone| {
        let length = if is_alone {
            text.len()
        } else {
            text.find('}').filter(|end| !text[..*end].contains('\\'))? + 1
        };
        found.push(text[..length].to_owned());
        Some(length)
    })?;
    Ok((found, pieces.hash()))
}

fn log_file(records: &[String]) -> String {
    format!("{{\"Records\":[{}]}}", records.join(","))
}

#[test]
fn a_record_may_be_longer_than_a_piece_but_not_without_end() {
    let long =
        |length: usize| log_file(&["{\"a\":1}".into(), format!("{{\"b\":\"{}\"}}", "é".repeat(length / 2))]);
    let text = long(3 * PIECE);
    assert_eq!(read(&gzip(text.as_bytes())).map(|(found, _)| found.len()), Ok(2));
    assert_eq!(read(&gzip(long(3 << 20).as_bytes())), Err(ReadWhole));
}

#[test]
fn what_is_no_log_file_is_read_whole() {
    let good = log_file(&["{\"a\":1}".into(), "{\"b\":2}".into()]);
    assert!(read(&gzip(good.as_bytes())).is_ok());
    assert_eq!(read(&gzip(b"{\"Records\":[]}")).map(|(found, _)| found.len()), Ok(0));
    for bad in [
        &b""[..],
        b"{\"Records\":[",
        b"{\"Records\":[]",
        b"{\"Records\":[]} ",
        b"{\"records\":[]}",
        b"{ \"Records\":[]}",
        b"{\"Records\":[{\"a\":1}",
        b"{\"Records\":[{\"a\":1},]}",
        b"{\"Records\":[{\"a\":1}, {\"a\":1}]}",
        b"{\"Records\":[{\"a\":1}],\"b\":1}",
        b"{\"Records\":[{\"a\":\xff}]}",
        b"{\"Records\":[{\"a\":1}]}\xc3",
    ] {
        assert_eq!(read(&gzip(bad)), Err(ReadWhole), "{}", String::from_utf8_lossy(bad));
    }
    let whole = gzip(good.as_bytes());
    assert_eq!(read(&whole[..whole.len() - 1]), Err(ReadWhole), "cut off");
    assert_eq!(read(&[&whole[..], b"x"].concat()), Err(ReadWhole), "something follows");
    assert_eq!(read(&whole.repeat(2)), Err(ReadWhole), "a second member follows");
    let mut wrong = whole.clone();
    let crc = whole.len() - 8;
    wrong[crc] ^= 1;
    assert_eq!(read(&wrong), Err(ReadWhole), "the checksum is another");
}

proptest! {
    #[test]
    fn as_of_the_whole(
        kinds in prop::collection::vec((0..3_usize, 0..40_000_usize), 1..40),
        shift in 0..9_usize,
    ) {
        let mut all = vec![format!("{{\"s\":\"{}\"}}", "x".repeat(shift))];
        all.extend(kinds.into_iter().map(|(kind, length)| {
            let part = ["plain", "é€😀", "\\\"}\\n"][kind];
            format!("{{\"a\":\"{}\"}}", part.repeat(length / part.len()))
        }));
        let text = log_file(&all);
        let (found, hash) = read(&gzip(text.as_bytes())).expect("a log file");
        let whole: Vec<String> = records(text.as_bytes()).map(|record| record.expect("a record").to_owned()).collect();
        prop_assert_eq!(found, whole);
        prop_assert_eq!(hash, sha256_hex(text.as_bytes()));
    }
}
