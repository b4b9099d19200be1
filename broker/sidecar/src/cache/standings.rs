//! What is known of the KMS keys behind what is kept, for as long as anything is kept that is under them.

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

/// Those of one region: each replica of a multi-Region key is a key by itself.
struct Regional {
    region: Arc<str>,
    key: Weak<KeyStanding>,
    contexts: HashMap<Asked, Weak<Standing>>,
}

impl Standings {
    pub(super) fn new(check: Option<RevocationCheck>) -> Self {
        Self { check, by_key: Mutex::default() }
    }

    /// Of what KMS has answered in `region`, with the key `arn`, to the like of `request`.
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

    /// KMS has denied the like of `request` under `key`: what it allowed of it before is void, in every region, and every other context
    /// is asked about by itself.
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

    /// Forgets those of which nothing is kept.
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
        // Between any two statements it is whole.
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
