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

/// Gives every record of a log file, as JSON, to `take`: gzip or not, `{"Records":[…]}` or one record, as the documentation
/// shows them. A digest has no records. Returns the number of records.
pub(super) fn for_each_record(file: &[u8], mut take: impl FnMut(&str)) -> Result<usize, Unreadable> {
    #[derive(Deserialize)]
    struct LogFile<'a> {
        #[serde(rename = "Records", borrow)]
        records: Option<Vec<&'a RawValue>>,
        #[serde(rename = "eventID", borrow)]
        event_id: Option<&'a RawValue>,
        #[serde(rename = "digestS3Object", borrow)]
        digest: Option<&'a RawValue>,
    }
    let inflated;
    let json = if file.starts_with(GZIP) {
        inflated = inflate(file)?;
        &inflated
    } else {
        file
    };
    let explain = |error: &dyn fmt::Display| Unreadable(format!("not CloudTrail's JSON: {error}"));
    let json = std::str::from_utf8(json).map_err(|error| explain(&error))?;
    let log_file: LogFile<'_> = serde_json::from_str(json).map_err(|error| explain(&error))?;
    match log_file {
        LogFile { records: Some(records), .. } => {
            for record in &records {
                take(record.get());
            }
            Ok(records.len())
        }
        LogFile { event_id: Some(_), .. } => {
            take(json);
            Ok(1)
        }
        LogFile { digest: Some(_), .. } => Ok(0),
        _ => Err(Unreadable("neither \"Records\" nor a record: not a log file of CloudTrail".into())),
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
/// CloudTrail's log files have 50 MB at most; organizations' trails may have more.
const MAX_FILE_BYTES: u64 = 512 << 20;

#[cfg(test)]
mod tests {
    //! Every form of AWS's files gives its records; what is none says so.

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
    }

    #[test]
    fn what_is_no_log_file_says_so() {
        let why = |file: &[u8]| records(file).expect_err("refused").to_string();
        assert!(why(b"[]").contains("not CloudTrail's JSON"));
        assert!(why(b"{}").contains("neither"));
        assert!(why(&[0x1f, 0x8b, 1, 2]).contains("not gzip"));
        let whole = compress(br#"{"Records":[]}"#);
        assert!(why(&whole[..whole.len() - 9]).contains("not gzip"), "a file that was cut");
    }
}
