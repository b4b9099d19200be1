//! The cache's counters.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::BrokerError;

/// Counters since the start.
#[derive(Default)]
pub(super) struct CacheCounters {
    pub(super) uses_from_cache: AtomicU64,
    pub(super) uses_from_kms: AtomicU64,
    pub(super) kms_calls: AtomicU64,
    pub(super) evictions: AtomicU64,
    pub(super) checks: CheckCounters,
}

/// Revocation checks by their outcome.
#[derive(Default)]
pub(super) struct CheckCounters {
    allowed: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    unasked: AtomicU64,
}

impl CacheCounters {
    pub(super) fn call<T>(&self, result: &Result<T, BrokerError>) {
        // These two never reached KMS.
        if !matches!(result, Err(BrokerError::KmsBusy | BrokerError::CircuitOpen(_))) {
            self.kms_calls.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn check(&self, result: &Result<(), BrokerError>) {
        let CheckCounters { allowed, refused, failed, unasked } = &self.checks;
        let counter = match result {
            Ok(()) => allowed,
            Err(BrokerError::Kms(error)) if !error.kind.is_transient() => refused,
            // KMS was not asked: workloads' calls took the room, or KMS is not called at all at present.
            Err(BrokerError::KmsBusy | BrokerError::CircuitOpen(_) | BrokerError::JournalUnavailable) => {
                unasked
            }
            Err(_) => failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn totals(&self) -> CacheTotals {
        CacheTotals {
            uses_from_cache: self.uses_from_cache.load(Ordering::Relaxed),
            uses_from_kms: self.uses_from_kms.load(Ordering::Relaxed),
            kms_calls: self.kms_calls.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
            checks: CheckTotals {
                allowed: self.checks.allowed.load(Ordering::Relaxed),
                refused: self.checks.refused.load(Ordering::Relaxed),
                failed: self.checks.failed.load(Ordering::Relaxed),
                unasked: self.checks.unasked.load(Ordering::Relaxed),
            },
        }
    }
}

/// The counters, read at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheTotals {
    /// Draws served by a call to KMS made for another draw.
    pub(crate) uses_from_cache: u64,
    /// Draws served by a call to KMS made for them.
    pub(crate) uses_from_kms: u64,
    /// Calls to KMS made for draws.
    pub kms_calls: u64,
    /// Keys dropped before they reached their bounds.
    pub evictions: u64,
    /// Revocation checks.
    pub(crate) checks: CheckTotals,
}

/// Revocation checks since the start by their outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CheckTotals {
    /// KMS still allows the use.
    pub(crate) allowed: u64,
    /// KMS refuses it.
    pub(crate) refused: u64,
    /// KMS gave neither answer.
    pub(crate) failed: u64,
    /// KMS was not asked: workloads' calls came first, or KMS is not called at all at present.
    pub(crate) unasked: u64,
}
