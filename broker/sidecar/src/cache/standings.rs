//! The standings of KMS keys, for as long as any data key under them is cached.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use key_broker_core::KeyArn;
use key_broker_core::clock::Moment;

use super::partition::Asked;
use super::rules::RevocationCheck;
use super::standing::{KeyStanding, Standing};
use crate::operation::DryRunRequest;

/// Standings by KMS key, operation and region.
pub(super) struct Standings {
    check: Option<RevocationCheck>,
    by_key: Mutex<HashMap<(KeyArn, &'static str), Vec<Regional>>>,
}

/// The standings in one region: each replica of a multi-Region key has its own.
struct Regional {
    region: Arc<str>,
    key: Weak<KeyStanding>,
    contexts: HashMap<Asked, Weak<Standing>>,
}

impl Standings {
    pub(super) fn new(check: Option<RevocationCheck>) -> Self {
        Self { check, by_key: Mutex::default() }
    }

    /// The standing of `request`, which KMS in `region` has answered with the key `arn`.
    pub(super) fn of(&self, request: &DryRunRequest, arn: &KeyArn, region: &Arc<str>) -> Arc<Standing> {
        let mut by_key = self.lock();
        let regions = by_key.entry((arn.clone(), request.of.name())).or_default();
        let place = regions.iter().position(|regional| regional.region == *region).unwrap_or_else(|| {
            let (region, key, contexts) = (Arc::clone(region), Weak::new(), HashMap::new());
            regions.push(Regional { region, key, contexts });
            regions.len() - 1
        });
        let Regional { key, contexts, .. } = &mut regions[place];
        let of_key = key.upgrade().unwrap_or_else(|| {
            let new = Arc::new(KeyStanding::new(arn.clone(), Arc::clone(region), self.check));
            *key = Arc::downgrade(&new);
            new
        });
        let standing = contexts.entry(Asked::of(request)).or_default();
        standing.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Standing::new(of_key));
            *standing = Arc::downgrade(&new);
            new
        })
    }

    /// KMS has denied `request` under `key`: earlier permissions for it are void in every region, and every other context is
    /// asked about by itself.
    pub(super) fn denied(&self, request: &DryRunRequest, key: &KeyArn, now: Moment) {
        let by_key = self.lock();
        for Regional { key, contexts, .. } in
            by_key.get(&(key.clone(), request.of.name())).into_iter().flatten()
        {
            if let Some(standing) = contexts.get(&Asked::of(request)).and_then(Weak::upgrade) {
                standing.denied(now);
            } else if let Some(key) = key.upgrade() {
                key.suspend(now);
            }
        }
    }

    /// Forgets standings of which no data key is cached.
    pub(super) fn sweep(&self) {
        self.lock().retain(|_, regions| {
            regions.retain_mut(|regional| {
                regional.contexts.retain(|_, standing| standing.strong_count() > 0);
                !regional.contexts.is_empty()
            });
            !regions.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(KeyArn, &'static str), Vec<Regional>>> {
        // No panic can leave the map half changed.
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
