//! What aliases mean: policy speaks of keys, and callers may name them by an alias, which KMS's operators can
//! move.
//!
//! An alias is asked for with DescribeKey before policy decides, and KMS is then asked for the key, not for
//! the alias: an alias that is moved meanwhile brings no key past policy. What an alias meant is believed for
//! a minute; after that it is used once more while it is refreshed in the background, so that no call waits,
//! and kept data keys are served while KMS cannot be asked.

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
pub(crate) struct Aliases(Arc<Inner>);

struct Inner {
    kms: RecordedKms,
    caller: Arc<AwsCaller>,
    entries: RwLock<HashMap<KeyId, Arc<AliasEntry>>>,
}

/// One alias, and what it means as far as that is known.
#[derive(Default)]
struct AliasEntry {
    target: Mutex<Option<AliasTarget>>,
    /// Held during the call to KMS, so that callers who miss the same alias share one.
    lookup: Arc<tokio::sync::Mutex<()>>,
}

/// What KMS said that an alias means.
#[derive(Clone)]
struct AliasTarget {
    /// None if there is no such alias.
    arn: Option<KeyArn>,
    /// When KMS said so.
    at: Instant,
}

impl Aliases {
    /// Knows nothing yet.
    #[must_use]
    pub(crate) fn new(kms: RecordedKms, caller: Arc<AwsCaller>) -> Self {
        Self(Arc::new(Inner { kms, caller, entries: RwLock::default() }))
    }

    /// What `key` names, if that is known without asking KMS.
    #[must_use]
    pub(crate) fn cached(&self, key: &KeyId) -> Option<NamedKey> {
        let Inner { caller, .. } = &*self.0;
        if let Some(arn) = key.key_arn(&caller.region, &caller.account_id) {
            return Some(NamedKey { arn: Some(arn), alias: None });
        }
        let alias = self.alias(key);
        let entry = self.entry(&alias)?;
        let AliasTarget { arn, .. } = self.target(&alias, &entry)?;
        Some(NamedKey { arn, alias: Some(alias) })
    }

    /// Asks KMS what `key` names.
    pub(crate) async fn ask(&self, key: &KeyId, deadline: Instant) -> Result<NamedKey, BrokerError> {
        let alias = self.alias(key);
        let entry = self.entry_or_new(&alias);
        let turn = Arc::clone(&entry.lookup).lock_owned().await;
        let arn = match self.target(&alias, &entry) {
            Some(AliasTarget { arn, .. }) => arn,
            None => self.describe(&alias, &entry, deadline, turn).await?,
        };
        Ok(NamedKey { arn, alias: Some(alias) })
    }

    /// What the alias means, unless that is unknown or too old. A meaning that is no longer fresh is looked
    /// up again in the background.
    fn target(&self, alias: &KeyId, entry: &Arc<AliasEntry>) -> Option<AliasTarget> {
        let known = entry.target.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let age = self.0.kms.clock().instant().saturating_duration_since(known.at);
        let (fresh, longest) = if known.arn.is_some() { (FRESH, LONGEST) } else { (UNKNOWN, UNKNOWN) };
        if age >= longest {
            return None;
        }
        if age >= fresh
            && let Ok(turn) = Arc::clone(&entry.lookup).try_lock_owned()
        {
            let (aliases, alias, entry) = (self.clone(), alias.clone(), Arc::clone(entry));
            let until = self.0.kms.clock().instant() + BACKGROUND;
            self.0.kms.tasks().spawn(async move {
                if let Err(error) = aliases.describe(&alias, &entry, until, turn).await {
                    let (alias, error) = (alias.as_str(), error.describe());
                    tracing::warn!(
                        alias,
                        error,
                        "cannot refresh an alias from KMS: its last known key is used"
                    );
                }
            });
        }
        Some(known)
    }

    async fn describe(
        &self,
        alias: &KeyId,
        entry: &AliasEntry,
        deadline: Instant,
        _turn: OwnedMutexGuard<()>,
    ) -> Result<Option<KeyArn>, BrokerError> {
        // The record of this answer joins the backlog with its drop, and is so in the journal before that of the call.
        let permitted = own::permit(DescribeKeyRequest::from(alias.clone()))?;
        let arn = match self.0.kms.call(permitted, deadline).await.result {
            Ok(description) => Some(description.arn),
            Err(BrokerError::Kms(KmsError { kind: KmsErrorKind::NotFound, .. })) => None,
            Err(error) => return Err(error),
        };
        let known = AliasTarget { arn: arn.clone(), at: self.0.kms.clock().instant() };
        *entry.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        Ok(arn)
    }

    fn entry(&self, alias: &KeyId) -> Option<Arc<AliasEntry>> {
        self.0.entries.read().unwrap_or_else(PoisonError::into_inner).get(alias).cloned()
    }

    fn entry_or_new(&self, alias: &KeyId) -> Arc<AliasEntry> {
        let mut entries = self.0.entries.write().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MAX_ALIASES && !entries.contains_key(alias) {
            entries.clear();
        }
        Arc::clone(entries.entry(alias.clone()).or_default())
    }

    /// An alias of the broker's own account and region has one name, without them.
    pub(crate) fn alias(&self, key: &KeyId) -> KeyId {
        let Inner { caller, .. } = &*self.0;
        key.short_alias(&caller.region, &caller.account_id).unwrap_or_else(|| key.clone())
    }
}

/// How long a known meaning is used without asking again.
const FRESH: Duration = Duration::from_mins(1);
/// Beyond this no data key can be kept (`reuse.max_age_seconds`), so there is nothing to serve without KMS.
const LONGEST: Duration = Duration::from_hours(24);
/// How long an alias that is not there is not asked for again.
const UNKNOWN: Duration = Duration::from_secs(5);
/// The deadline of a lookup in the background.
const BACKGROUND: Duration = Duration::from_secs(10);
/// Some 300 KiB. A caller that makes up alias after alias makes the broker forget, not grow.
const MAX_ALIASES: usize = 1_024;
