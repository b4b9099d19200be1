//! What aliases mean: policy speaks of keys, and callers may name them by an alias, which KMS's operators can move.
//!
//! An alias is asked for with DescribeKey before policy decides, and KMS is then asked for the key, not for the alias: an alias that
//! is moved meanwhile brings no key past policy. What an alias meant is believed for a minute; after that it is used once more while
//! it is asked for anew, so that nobody waits, and kept data keys are served while KMS cannot be asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use key_broker_core::{KeyArn, KeyId, NamedKey};
use key_broker_trail::record::AwsCaller;
use tokio::sync::OwnedMutexGuard;

use super::recorded::RecordedKms;
use super::{KmsError, KmsErrorKind};
use crate::error::BrokerError;
use crate::operation::DescribeKeyRequest;
use crate::policy::own;

/// What the aliases mean that callers name.
#[derive(Clone)]
pub struct Aliases(Arc<Inner>);

struct Inner {
    kms: RecordedKms,
    caller: Arc<AwsCaller>,
    slots: RwLock<HashMap<KeyId, Arc<Slot>>>,
}

/// One alias.
#[derive(Default)]
struct Slot {
    known: Mutex<Option<Known>>,
    /// Held by who asks KMS: callers that miss the same alias cause one call.
    asking: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone)]
struct Known {
    /// None: there is no such alias.
    arn: Option<KeyArn>,
    at: Instant,
}

impl Aliases {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(kms: RecordedKms, caller: Arc<AwsCaller>) -> Self {
        Self(Arc::new(Inner { kms, caller, slots: RwLock::default() }))
    }

    /// What `key` names, if that is known without asking KMS.
    #[must_use]
    pub fn known(&self, key: &KeyId) -> Option<NamedKey> {
        let Inner { caller, .. } = &*self.0;
        if let Some(arn) = key.key_arn(&caller.region, &caller.account_id) {
            return Some(NamedKey { arn: Some(arn), alias: None });
        }
        let alias = self.alias(key);
        let slot = self.slot(&alias)?;
        let Known { arn, .. } = self.look(&alias, &slot)?;
        Some(NamedKey { arn, alias: Some(alias) })
    }

    /// Asks KMS what `key` names.
    pub async fn ask(&self, key: &KeyId, deadline: Instant) -> Result<NamedKey, BrokerError> {
        let alias = self.alias(key);
        let slot = self.slot_or_new(&alias);
        let turn = Arc::clone(&slot.asking).lock_owned().await;
        let arn = match self.look(&alias, &slot) {
            Some(Known { arn, .. }) => arn,
            None => self.describe(&alias, &slot, deadline, turn).await?,
        };
        Ok(NamedKey { arn, alias: Some(alias) })
    }

    /// What a slot says: none if that is too old, or nothing. What is not so young is asked for anew.
    fn look(&self, alias: &KeyId, slot: &Arc<Slot>) -> Option<Known> {
        let known = slot.known.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let age = self.0.kms.clock().instant().saturating_duration_since(known.at);
        let (fresh, longest) = if known.arn.is_some() { (FRESH, LONGEST) } else { (UNKNOWN, UNKNOWN) };
        if age >= longest {
            return None;
        }
        if age >= fresh
            && let Ok(turn) = Arc::clone(&slot.asking).try_lock_owned()
        {
            let (aliases, alias, slot) = (self.clone(), alias.clone(), Arc::clone(slot));
            let until = self.0.kms.clock().instant() + BACKGROUND;
            self.0.kms.tasks().spawn(async move {
                if let Err(error) = aliases.describe(&alias, &slot, until, turn).await {
                    let (alias, error) = (alias.as_str(), error.describe());
                    tracing::warn!(
                        alias,
                        error,
                        "cannot ask KMS what an alias means: it means what it meant"
                    );
                }
            });
        }
        Some(known)
    }

    async fn describe(
        &self,
        alias: &KeyId,
        slot: &Slot,
        deadline: Instant,
        _turn: OwnedMutexGuard<()>,
    ) -> Result<Option<KeyArn>, BrokerError> {
        // The record of this answer is owed with its drop, and so in the journal before that of the call.
        let permitted = own::permit(DescribeKeyRequest::from(alias.clone()))?;
        let arn = match self.0.kms.call(permitted, deadline).await.result {
            Ok(description) => Some(description.arn),
            Err(BrokerError::Kms(KmsError { kind: KmsErrorKind::NotFound, .. })) => None,
            Err(error) => return Err(error),
        };
        let known = Known { arn: arn.clone(), at: self.0.kms.clock().instant() };
        *slot.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        Ok(arn)
    }

    fn slot(&self, alias: &KeyId) -> Option<Arc<Slot>> {
        self.0.slots.read().unwrap_or_else(PoisonError::into_inner).get(alias).cloned()
    }

    fn slot_or_new(&self, alias: &KeyId) -> Arc<Slot> {
        let mut slots = self.0.slots.write().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MAX_ALIASES && !slots.contains_key(alias) {
            slots.clear();
        }
        Arc::clone(slots.entry(alias.clone()).or_default())
    }

    /// An alias of the broker's own account and region has one name, without them.
    fn alias(&self, key: &KeyId) -> KeyId {
        let Inner { caller, .. } = &*self.0;
        key.short_alias(&caller.region, &caller.account_id).unwrap_or_else(|| key.clone())
    }
}

/// How long an alias means what it meant.
const FRESH: Duration = Duration::from_mins(1);
/// Beyond this no data key can be kept (`reuse.max_age_seconds`), so there is nothing to serve without KMS.
const LONGEST: Duration = Duration::from_hours(24);
/// How long an alias that is not there is not asked for again.
const UNKNOWN: Duration = Duration::from_secs(5);
/// Nobody waits for it.
const BACKGROUND: Duration = Duration::from_secs(10);
/// Some 300 KiB; who asks for ever new aliases makes the broker forget, not grow.
const MAX_ALIASES: usize = 1_024;
