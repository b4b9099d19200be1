//! Iterates over the records of a log file without parsing it as a whole.

use serde_json::Deserializer;
use serde_json::value::RawValue;

use crate::record::MalformedRecord;

/// The records in the uncompressed bytes of a log file, in order.
struct Records<'a> {
    json: &'a [u8],
    /// Where the next record begins; `None` after the end, or after malformed text.
    next: Option<usize>,
}

/// Iterates over the records of a log file, which is `{"Records":[…]}` in compact JSON. After an error, which names the place, the
/// iterator ends.
pub fn records(json: &[u8]) -> impl Iterator<Item = Result<&str, MalformedRecord>> {
    Records { json, next: Some(0) }
}

/// The record at the start of these bytes.
fn first_record(json: &[u8]) -> Result<&str, String> {
    match Deserializer::from_slice(json).into_iter::<&RawValue>().next() {
        Some(Ok(record)) => Ok(record.get()),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("it ends in its records".into()),
    }
}

impl<'a> Records<'a> {
    fn step(&mut self, at: usize) -> Result<Option<&'a str>, MalformedRecord> {
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
        let record = first_record(&self.json[at..]).map_err(|why| malformed(at, &why))?;
        at += record.len();
        match self.json.get(at) {
            Some(b',') => self.next = Some(at + 1),
            _ if &self.json[at..] == TAIL => {}
            _ => return Err(malformed(at, "neither a comma nor the end ]} follows a record")),
        }
        Ok(Some(record))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<&'a str, MalformedRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.next.take()?;
        self.step(at).transpose()
    }
}

fn malformed(at: usize, why: &str) -> MalformedRecord {
    MalformedRecord(format!("at byte {at}: {why}"))
}

pub(super) const HEAD: &[u8] = b"{\"Records\":[";
pub(super) const TAIL: &[u8] = b"]}";

#[cfg(test)]
mod tests {
    //! Every record comes whole and in order; any other text leads to an error with its place.

    use proptest::prelude::*;

    use super::*;

    fn read(json: &[u8]) -> Result<Vec<&str>, MalformedRecord> {
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
            let why = read(bad).expect_err("refused").to_string();
            assert!(why.starts_with(&format!("at byte {at}: ")), "{why}: {}", String::from_utf8_lossy(bad));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&bytes);
            let _ = read(&[HEAD, &bytes].concat());
        }
    }
}
