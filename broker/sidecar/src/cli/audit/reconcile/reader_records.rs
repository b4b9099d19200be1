//! KMS calls of the trail's readers, from their own files of records.
//!
//! Such a file can be forged. So it explains only calls that, by AWS's own record, reading the trail takes: a Decrypt bound to this
//! trail, or a GetPublicKey of the key that signs it.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use key_broker_trail::record::ReadRecord;
use key_broker_trail::{TRAIL_ARN, open_regular};

use super::call::ComparedCall;

/// Records of readers, by requestID.
#[derive(Default)]
pub(in crate::cli::audit) struct ReaderRecords(HashMap<String, Vec<ComparedCall>>);

impl ReaderRecords {
    /// Adds a file of records, a line each. Returns the number of lines that are no records of KMS.
    pub(in crate::cli::audit) fn add_file(&mut self, path: &Path) -> std::io::Result<u64> {
        let mut reader = BufReader::new(open_regular(path)?);
        let (mut line, mut others) = (Vec::new(), 0);
        loop {
            line.clear();
            if reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
                return Ok(others);
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let text = std::str::from_utf8(&line).unwrap_or_default();
            match ReadRecord::parse(text) {
                Ok(record) if record.is_of_kms() => self.add(&record),
                _ => others += 1,
            }
        }
    }

    /// Adds one record.
    pub(super) fn add(&mut self, record: &ReadRecord<'_>) {
        self.0.entry(record.request_id.to_string()).or_default().push(record.into());
    }

    /// Whether a reader has recorded a call with this requestID.
    pub(in crate::cli::audit) fn have_request(&self, request_id: &str) -> bool {
        self.0.contains_key(request_id)
    }

    /// Whether a reader has recorded this call of AWS's, just so.
    pub(super) fn have(&self, theirs: &ReadRecord<'_>) -> bool {
        let calls = self.0.get(&*theirs.request_id);
        calls.is_some_and(|calls| {
            let theirs = ComparedCall::from(theirs);
            calls.iter().any(|call| call.is_alike(&theirs))
        })
    }
}

/// Whether this call is one that reading the trail takes, and gives nothing else.
pub(super) fn reads_the_trail(
    record: &ReadRecord<'_>,
    trail_arns: &BTreeSet<String>,
    signing_keys: &BTreeSet<String>,
) -> bool {
    match &*record.event_name {
        "Decrypt" => record
            .encryption_context()
            .rev()
            .find(|pair| pair.0 == TRAIL_ARN)
            .is_some_and(|pair| trail_arns.contains(pair.1)),
        "GetPublicKey" => record.key_arn().is_some_and(|key| signing_keys.contains(key)),
        _ => false,
    }
}

/// CloudTrail: a record has 256 KB at most.
const MAX_LINE_BYTES: u64 = 256 << 10;
