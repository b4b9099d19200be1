//! AWS's own log files, as CloudTrail puts them into a bucket.

use std::fmt;
use std::io::Read as _;

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Why a file cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

/// Gives every record of a file, as JSON, to `take`: gzip or not; a log file, `{"Records":[…]}`; the output of `lookup-events`; events of
/// `EventBridge`; lists of any of these; one after the other, on lines of their own or not. A digest has no records. Returns the number of
/// records.
pub(super) fn for_each_record(file: &[u8], mut take: impl FnMut(&str)) -> Result<usize, Unreadable> {
    let inflated;
    let json = if file.starts_with(GZIP) {
        inflated = inflate(file)?;
        &inflated
    } else {
        file
    };
    let json = json.strip_prefix(BYTE_ORDER_MARK).unwrap_or(json);
    let explain = |error: &dyn fmt::Display| Unreadable(format!("not CloudTrail's JSON: {error}"));
    let json = std::str::from_utf8(json).map_err(|error| explain(&error))?;
    let mut found = 0;
    let mut is_empty = true;
    for value in serde_json::Deserializer::from_str(json).into_iter::<&RawValue>() {
        is_empty = false;
        found += add(value.map_err(|error| explain(&error))?.get(), &mut take, 0)?;
    }
    if is_empty { Err(explain(&"it is empty")) } else { Ok(found) }
}

/// Gives the records of one JSON value to `take`.
fn add(json: &str, take: &mut dyn FnMut(&str), depth: u8) -> Result<usize, Unreadable> {
    #[derive(Deserialize)]
    struct Document<'a> {
        /// A log file.
        #[serde(rename = "Records", borrow)]
        records: Option<Vec<&'a RawValue>>,
        /// The answer of `LookupEvents`.
        #[serde(rename = "Events", borrow)]
        events: Option<Vec<&'a RawValue>>,
        /// One of its events: the record as text.
        #[serde(rename = "CloudTrailEvent")]
        event: Option<String>,
        /// An event of `EventBridge`.
        #[serde(borrow)]
        detail: Option<&'a RawValue>,
        /// A record.
        #[serde(rename = "eventID", borrow)]
        event_id: Option<&'a RawValue>,
        #[serde(rename = "digestS3Object", borrow)]
        digest: Option<&'a RawValue>,
    }
    if depth > DEEPEST {
        return Err(Unreadable("lists within lists: not CloudTrail's JSON".into()));
    }
    let explain = |error: serde_json::Error| Unreadable(format!("not CloudTrail's JSON: {error}"));
    let mut add_all = |values: Vec<&RawValue>| {
        values.into_iter().try_fold(0, |sum, value| Ok(sum + add(value.get(), take, depth + 1)?))
    };
    if json.starts_with('[') {
        return add_all(serde_json::from_str(json).map_err(explain)?);
    }
    match serde_json::from_str(json).map_err(explain)? {
        Document { event_id: Some(_), .. } => {
            take(json);
            Ok(1)
        }
        Document { records: Some(values), .. } | Document { events: Some(values), .. } => add_all(values),
        Document { event: Some(record), .. } => add(&record, take, depth + 1),
        Document { detail: Some(record), .. } => add(record.get(), take, depth + 1),
        Document { digest: Some(_), .. } => Ok(0),
        _ => Err(Unreadable(
            "neither a log file of CloudTrail, nor the output of lookup-events, an event of EventBridge, or a record".into(),
        )),
    }
}

fn inflate(file: &[u8]) -> Result<Vec<u8>, Unreadable> {
    let mut json = Vec::new();
    let read = MultiGzDecoder::new(file).take(MAX_FILE_BYTES + 1).read_to_end(&mut json);
    read.map_err(|error| Unreadable(format!("not gzip: {error}")))?;
    if json.len() as u64 > MAX_FILE_BYTES {
        return Err(Unreadable(format!("more than {MAX_FILE_BYTES} bytes: not a log file of CloudTrail")));
    }
    Ok(json)
}

const GZIP: &[u8] = &[0x1f, 0x8b];
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// A list of answers of `LookupEvents`: list, answer, event, record.
const DEEPEST: u8 = 6;
/// CloudTrail's log files have 50 MB at most; organizations' trails may have more.
const MAX_FILE_BYTES: u64 = 512 << 20;

#[cfg(test)]
mod tests {
    //! Records are found in every form of AWS's files, and other files are refused.

    use super::*;
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    fn compress(bytes: &[u8]) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(bytes).expect("compresses");
        gzip.finish().expect("compresses")
    }

    fn records(file: &[u8]) -> Result<Vec<String>, Unreadable> {
        let mut records = Vec::new();
        let number = for_each_record(file, |record| {
            records.push(record.to_owned());
        })?;
        assert_eq!(number, records.len());
        Ok(records)
    }

    #[test]
    fn all_forms() {
        let two = br#"{"Records":[{"eventID":"1"},{"eventID":"2"}]}"#;
        let expected = Ok(vec![r#"{"eventID":"1"}"#.to_owned(), r#"{"eventID":"2"}"#.to_owned()]);
        assert_eq!(records(two), expected);
        assert_eq!(records(&compress(two)), expected);
        assert_eq!(records(br#"{"eventID":"1"}"#), Ok(vec![r#"{"eventID":"1"}"#.to_owned()]));
        assert_eq!(records(br#"{"digestS3Object":"x","logFiles":[]}"#), Ok(Vec::new()));
        let looked_up = br#"{"Events":[{"EventId":"1","CloudTrailEvent":"{\"eventID\":\"1\"}"},{"EventId":"2","CloudTrailEvent":"{\"eventID\":\"2\"}"}]}"#;
        assert_eq!(records(looked_up), expected);
        let of_event_bridge = br#"{"version":"0","source":"aws.kms","detail":{"eventID":"1"}}
            {"version":"0","source":"aws.kms","detail":{"eventID":"2"}}"#;
        assert_eq!(records(of_event_bridge), expected);
        assert_eq!(records(br#"[{"eventID":"1"},{"eventID":"2"}]"#), expected);
        assert_eq!(records(b"{\"eventID\":\"1\"}\n{\"eventID\":\"2\"}\n"), expected);
        assert_eq!(records(&[BYTE_ORDER_MARK, two].concat()), expected);
        assert_eq!(
            records(&compress(br#"[{"Records":[{"eventID":"1"}]},{"Records":[{"eventID":"2"}]}]"#)),
            expected
        );
        assert_eq!(records(b"[]"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_log_file_says_so() {
        let why = |file: &[u8]| records(file).expect_err("refused").to_string();
        assert!(why(b"").contains("empty") && why(b"{\"eventID\":1} x").contains("not CloudTrail's JSON"));
        assert!(why(&[b"[".repeat(20), b"]".repeat(20)].concat()).contains("lists within lists"));
        assert!(why(b"{}").contains("neither"));
        assert!(why(&[0x1f, 0x8b, 1, 2]).contains("not gzip"));
        let whole = compress(br#"{"Records":[]}"#);
        assert!(why(&whole[..whole.len() - 9]).contains("not gzip"), "a file that was cut");
    }
}
