//! The bytes of the journal's files, and whose records they are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use key_broker_core::{FairShares, Principal};

/// The bytes of all files of a journal, counted by who writes and by who delivers them.
#[derive(Debug, Clone)]
pub(crate) struct UndeliveredBytes(Arc<Mutex<Ledger>>);

#[derive(Debug)]
struct Ledger {
    bytes: u64,
    /// None are the broker itself and an earlier process: nobody's share is used by them.
    shares: FairShares<Option<Principal>>,
    /// By the numbers of files.
    files: HashMap<u64, HashMap<Principal, u64>>,
}

impl UndeliveredBytes {
    /// None yet, of so many that are allowed.
    pub(super) fn new(allowed: u64) -> Self {
        let shares = FairShares::new(allowed);
        Self(Arc::new(Mutex::new(Ledger { bytes: 0, shares, files: HashMap::new() })))
    }

    /// The number.
    #[must_use]
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Whether this principal may have so many more.
    pub(in crate::journal) fn admits(&self, principal: &Principal, more: u64) -> bool {
        self.lock().shares.admits(&Some(principal.clone()), more)
    }

    /// So many more are in the files.
    pub(super) fn add(&self, bytes: u64) {
        let mut ledger = self.lock();
        ledger.bytes += bytes;
        ledger.shares.take(&None, bytes);
    }

    /// So many of those, in the file of this number, are this principal's.
    pub(in crate::journal) fn attribute(&self, file: u64, principal: &Principal, bytes: u64) {
        let mut ledger = self.lock();
        ledger.shares.give_back(&None, bytes);
        ledger.shares.take(&Some(principal.clone()), bytes);
        let by_principal = ledger.files.entry(file).or_default();
        if let Some(has) = by_principal.get_mut(principal) {
            *has += bytes;
        } else {
            by_principal.insert(principal.clone(), bytes);
        }
    }

    /// The file of this number, of so many bytes, is gone.
    pub(crate) fn remove(&self, file: u64, bytes: u64) {
        let mut ledger = self.lock();
        // Who removes what was never counted, such as an operator's own file, leaves nothing, not a huge number.
        ledger.bytes = ledger.bytes.saturating_sub(bytes);
        let mut others = bytes;
        for (principal, bytes) in ledger.files.remove(&file).unwrap_or_default() {
            ledger.shares.give_back(&Some(principal), bytes);
            others = others.saturating_sub(bytes);
        }
        ledger.shares.give_back(&None, others);
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // Between any two statements its numbers are whole, or some bytes are counted for the wrong principal.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
