//! The log of calls: what tests count and compare. It never holds key material.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::context::EncryptionContext;

/// One call, as it arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Call {
    /// 1 for the first call, then one more each.
    pub seq: u64,
    /// When it arrived: unix milliseconds.
    pub at: u64,
    /// AWS's name of the operation, as sent.
    pub operation: String,
    /// The `x-amzn-RequestId` of the answer.
    pub request_id: String,
    /// The eventID in CloudTrail and in `GetKeyLastUsage`: a UUID.
    pub event_id: String,
    /// The access key that signed it; empty if it was not signed.
    pub access_key_id: String,
    /// `KeyId`, as sent.
    pub key_id: Option<String>,
    /// `EncryptionContext`; empty if there is none.
    pub encryption_context: EncryptionContext,
    /// The AWS error of the answer; nothing on success and while the call is under way.
    pub error: Option<String>,
    /// `DryRun`.
    pub dry_run: bool,
    /// Whether it has a `Recipient`: it asks for an answer that only an attested caller can open.
    pub attested: bool,
    /// The fault that was injected into the call, in the text form of an effect; none for a latency.
    pub fault: Option<String>,
}

/// The last calls, and how many there were of each operation.
#[derive(Default)]
pub(crate) struct Calls(Mutex<Log>);

#[derive(Default)]
struct Log {
    last: VecDeque<Call>,
    counts: BTreeMap<String, u64>,
    next: u64,
}

impl Calls {
    /// Notes a call on its arrival and numbers it. A call that is never answered is in the log, too.
    pub(crate) fn arrive(&self, mut call: Call) -> u64 {
        let mut log = self.lock();
        log.next += 1;
        call.seq = log.next;
        match log.counts.get_mut(&call.operation) {
            Some(count) => *count += 1,
            None => {
                log.counts.insert(call.operation.clone(), 1);
            }
        }
        if log.last.len() >= KEPT {
            log.last.pop_front();
        }
        log.last.push_back(call);
        log.next
    }

    /// Notes the error that a call is answered with.
    pub(crate) fn fail(&self, seq: u64, error: &str) {
        let mut log = self.lock();
        let first = log.last.front().map_or(0, |call| call.seq);
        let index = seq.checked_sub(first).and_then(|index| usize::try_from(index).ok());
        if let Some(call) = index.and_then(|index| log.last.get_mut(index)) {
            call.error = Some(error.to_owned());
        }
    }

    pub(crate) fn list(&self) -> Vec<Call> {
        self.lock().last.iter().cloned().collect()
    }

    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.lock().counts.clone()
    }

    pub(crate) fn count(&self, operation: &str) -> u64 {
        self.lock().counts.get(operation).copied().unwrap_or(0)
    }

    /// Forgets all calls and counts; the numbers go on.
    pub(crate) fn clear(&self) {
        let mut log = self.lock();
        log.last.clear();
        log.counts.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many calls are kept: some seconds of a benchmark, about 1 kB each. The counts are exact beyond it.
const KEPT: usize = 200_000;
