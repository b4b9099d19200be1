//! Iterates over the records of a log file without parsing it as a whole.

use std::fmt;

use serde_json::Deserializer;
use serde_json::value::RawValue;

use crate::record::ReadRecord;

/// The records in the uncompressed bytes of a log file, in order.
struct Records<'a, T> {
    json: &'a [u8],
    /// Where the next record begins; `None` after the end, or after malformed text.
    next: Option<usize>,
    /// Takes one record, and says where it ends.
    take: fn(&'a [u8]) -> Taken<T>,
}

/// A record and its length, or why there is none.
type Taken<T> = Result<(T, usize), String>;

/// A record of a log file.
pub(crate) struct FoundRecord<'a> {
    pub(crate) json: &'a str,
    /// None where it is JSON, and no record.
    pub(crate) read: Option<ReadRecord<'a>>,
}

/// A log file that is not `{"Records":[…]}`, in compact JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MalformedRecords {
    /// The offset in the uncompressed bytes.
    pub(crate) at: usize,
    /// What is wrong there.
    pub(crate) why: String,
}

impl fmt::Display for MalformedRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.at, self.why)
    }
}

impl std::error::Error for MalformedRecords {}

/// Reads the records of a log file. After an error nothing more comes.
pub fn records(json: &[u8]) -> impl Iterator<Item = Result<&str, MalformedRecords>> {
    Records { json, next: Some(0), take: raw }
}

/// The same, read in the same pass that finds where they end.
pub(crate) fn read_records(json: &[u8]) -> impl Iterator<Item = Result<FoundRecord<'_>, MalformedRecords>> {
    Records { json, next: Some(0), take: read }
}

fn raw(json: &[u8]) -> Taken<&str> {
    let mut values = Deserializer::from_slice(json).into_iter::<&RawValue>();
    match values.next() {
        Some(Ok(record)) => Ok((record.get(), values.byte_offset())),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("it ends in its records".into()),
    }
}

fn read(json: &[u8]) -> Taken<FoundRecord<'_>> {
    let mut values = Deserializer::from_slice(json).into_iter::<ReadRecord<'_>>();
    if let Some(Ok(record)) = values.next()
        // What reading passes over may be no text.
        && let Ok(text) = std::str::from_utf8(&json[..values.byte_offset()])
    {
        return Ok((FoundRecord { json: text, read: Some(record) }, values.byte_offset()));
    }
    raw(json).map(|(json, end)| (FoundRecord { json, read: None }, end))
}

impl<T> Records<'_, T> {
    fn step(&mut self, at: usize) -> Result<Option<T>, MalformedRecords> {
        let mut at = at;
        if at == 0 {
            if !self.json.starts_with(HEAD) {
                return Err(malformed(0, "it does not begin with {\"Records\":["));
            }
            at = HEAD.len();
            if &self.json[at..] == TAIL {
                return Ok(None);
            }
        }
        if self.json.get(at) != Some(&b'{') {
            return Err(malformed(at, "no record begins here"));
        }
        let (record, length) = (self.take)(&self.json[at..]).map_err(|why| malformed(at, &why))?;
        at += length;
        match self.json.get(at) {
            Some(b',') => self.next = Some(at + 1),
            _ if &self.json[at..] == TAIL => {}
            _ => return Err(malformed(at, "neither a comma nor the end ]} follows a record")),
        }
        Ok(Some(record))
    }
}

impl<T> Iterator for Records<'_, T> {
    type Item = Result<T, MalformedRecords>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.next.take()?;
        self.step(at).transpose()
    }
}

fn malformed(at: usize, why: &str) -> MalformedRecords {
    MalformedRecords { at, why: why.to_owned() }
}

const HEAD: &[u8] = b"{\"Records\":[";
const TAIL: &[u8] = b"]}";

#[cfg(test)]
mod tests {
    //! Every record comes whole and in order, and other text ends with its place and an error.

    use proptest::prelude::*;

    use super::*;

    fn read(json: &[u8]) -> Result<Vec<&str>, MalformedRecords> {
        records(json).collect()
    }

    #[test]
    fn records_come_in_order() {
        assert_eq!(read(br#"{"Records":[]}"#), Ok(vec![]));
        assert_eq!(
            read(br#"{"Records":[{"a":"]},{"},{"b":[1,2]}]}"#),
            Ok(vec![r#"{"a":"]},{"}"#, r#"{"b":[1,2]}"#])
        );
    }

    #[test]
    fn other_text_is_refused_with_its_place() {
        for (bad, at) in [
            (&b""[..], 0),
            (b"{\"records\":[]}", 0),
            (b"{ \"Records\":[]}", 0),
            (b"{\"Records\":[{\"a\":1}]} ", 19),
            (b"{\"Records\":[{\"a\":1}],\"b\":1}", 19),
            (b"{\"Records\":[{\"a\":1},]}", 20),
            (b"{\"Records\":[{\"a\":1}, {\"a\":1}]}", 20),
            (b"{\"Records\":[{\"a\":1}", 19),
            (b"{\"Records\":[{\"a\":\xff}]}", 12),
        ] {
            assert_eq!(read(bad).expect_err("refused").at, at, "{}", String::from_utf8_lossy(bad));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&bytes);
            let _ = read(&[HEAD, &bytes].concat());
        }

        /// Whether they are read or not, records begin and end at the same bytes.
        #[test]
        fn both_ways_find_the_same(json in r#"\{"Records":\[(\{("[a-cé\\\\"]{0,4}":[0-9{}]{0,3},?){0,3}\},?){0,4}\]\}"#) {
            let found: Result<Vec<_>, _> = read_records(json.as_bytes()).map(|found| found.map(|found| found.json)).collect();
            prop_assert_eq!(found, read(json.as_bytes()));
        }
    }
}
