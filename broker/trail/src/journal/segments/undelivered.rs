//! Counts the bytes of the journal's files, by principal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use key_broker_core::{FairShares, Principal};

/// The bytes of all files of a journal, kept by both the writer and the delivery.
#[derive(Debug, Clone)]
pub(crate) struct UndeliveredBytes(Arc<Mutex<Ledger>>);

#[derive(Debug)]
struct Ledger {
    bytes: u64,
    /// `None` is for the broker itself and earlier processes, which use nobody's share.
    shares: FairShares<Option<Principal>>,
    /// By file number.
    files: HashMap<u64, HashMap<Principal, u64>>,
}

impl UndeliveredBytes {
    /// Starts without any; `allowed` is the bound.
    pub(super) fn new(allowed: u64) -> Self {
        let shares = FairShares::new(allowed);
        Self(Arc::new(Mutex::new(Ledger { bytes: 0, shares, files: HashMap::new() })))
    }

    /// The number.
    #[must_use]
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Whether this principal may have `more` bytes.
    pub(in crate::journal) fn admits(&self, principal: &Principal, more: u64) -> bool {
        self.lock().shares.admits(&Some(principal.clone()), more)
    }

    pub(super) fn add(&self, bytes: u64) {
        let mut ledger = self.lock();
        ledger.bytes += bytes;
        ledger.shares.take(&None, bytes);
    }

    /// Counts bytes in the file of this number against a principal.
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

    /// Subtracts the file of this number, which was removed.
    pub(crate) fn remove(&self, file: u64, bytes: u64) {
        let mut ledger = self.lock();
        // A file that was never counted, such as an operator's own, must not lead to a huge number.
        ledger.bytes = ledger.bytes.saturating_sub(bytes);
        let mut others = bytes;
        for (principal, bytes) in ledger.files.remove(&file).unwrap_or_default() {
            ledger.shares.give_back(&Some(principal), bytes);
            others = others.saturating_sub(bytes);
        }
        ledger.shares.give_back(&None, others);
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // A panic can at worst leave some bytes counted for the wrong principal.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
