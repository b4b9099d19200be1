//! Which keys the aliases that callers use stand for. Policies are about keys, and KMS's operators can move an alias.
//!
//! The broker resolves an alias with DescribeKey before policy decides, and then calls KMS with the key, not the alias:
//! so an alias that is moved meanwhile cannot lead to a key that policy does not permit. A resolved alias is used for a
//! minute; after that it is used once more while it is refreshed in the background, so that no call waits and cached
//! data keys are served while KMS cannot be asked.

mod memory;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use key_broker_core::{KeyArn, KeyId, Principal};
use key_broker_trail::record::AwsCaller;

use super::recorded::RecordedKms;
use super::{KmsError, KmsErrorKind};
use crate::error::BrokerError;
use crate::named_key::NamedKey;
use crate::operation::DescribeKeyRequest;
use crate::policy::{Permitted, own};
use memory::{AliasMemory, AliasTarget};

/// The keys that callers' aliases stand for.
#[derive(Clone)]
pub(crate) struct Aliases(Arc<Inner>);

struct Inner {
    kms: RecordedKms,
    caller: Arc<AwsCaller>,
    memory: Mutex<AliasMemory>,
}

/// The key that a call names, as far as it is known without asking KMS.
pub(crate) struct KnownKey {
    pub(crate) named: NamedKey,
    /// Whether it is old enough that KMS should be asked [again](Aliases::refresh); it may be used meanwhile.
    pub(crate) is_due: bool,
}

impl Aliases {
    /// An empty memory for this many aliases.
    #[must_use]
    pub(crate) fn new(kms: RecordedKms, caller: Arc<AwsCaller>, most: usize) -> Self {
        Self(Arc::new(Inner { kms, caller, memory: Mutex::new(AliasMemory::new(most)) }))
    }

    /// The key that `key` names, if it is known without asking KMS.
    #[must_use]
    pub(crate) fn known(&self, principal: &Principal, key: &KeyId) -> Option<KnownKey> {
        let Inner { caller, .. } = &*self.0;
        if let Some(arn) = caller.key_arn(key) {
            return Some(KnownKey { named: NamedKey { arn: Some(arn), alias: None }, is_due: false });
        }
        let alias = self.alias(key);
        let (arn, is_due) = self.usable(principal, &alias)?;
        Some(KnownKey { named: NamedKey { arn, alias: Some(alias) }, is_due })
    }

    /// Asks KMS which key `key` names, on behalf of `principal`.
    pub(crate) async fn ask(
        &self,
        principal: &Principal,
        key: &KeyId,
        deadline: Instant,
    ) -> Result<NamedKey, BrokerError> {
        let alias = self.alias(key);
        let lookup = self.memory().lookup(principal, &alias);
        let _turn = lookup.lock_owned().await;
        let arn = if let Some((arn, _)) = self.usable(principal, &alias) {
            arn
        } else {
            let permitted = own::permit_for(principal, DescribeKeyRequest::from(alias.clone()))?;
            self.describe(principal, &alias, permitted, deadline).await?
        };
        Ok(NamedKey { arn, alias: Some(alias) })
    }

    /// Resolves an alias that `principal` uses again, in the background.
    pub(crate) fn refresh(&self, principal: &Principal, key: &KeyId) {
        let (alias, now) = (self.alias(key), self.0.kms.clock().instant());
        let until = now + BACKGROUND;
        if !self.memory().begin_refresh(&alias, now, until) {
            return;
        }
        let request = DescribeKeyRequest::from(alias.clone());
        // Within the principal's share, so that one principal's many aliases do not keep others' from being refreshed.
        let Ok(permitted) = own::permit_for(principal, request) else { return };
        let (aliases, principal) = (self.clone(), principal.clone());
        self.0.kms.tasks().spawn(async move {
            if let Err(error) = aliases.describe(&principal, &alias, permitted, until).await {
                let (alias, error) = (alias.as_str(), error.describe());
                tracing::warn!(alias, error, "cannot refresh an alias from KMS: its last known key is used");
            }
        });
    }

    /// The key of an alias, unless that is unknown or too old, and whether it is to be resolved again.
    fn usable(&self, principal: &Principal, alias: &KeyId) -> Option<(Option<KeyArn>, bool)> {
        let mut memory = self.memory();
        let AliasTarget { arn, at } = memory.target(principal, alias)?;
        let now = self.0.kms.clock().instant();
        let age = now.saturating_duration_since(at);
        let (fresh, longest) = if arn.is_some() { (FRESH, LONGEST) } else { (UNKNOWN, UNKNOWN) };
        (age < longest).then(|| (arn, age >= fresh && memory.may_refresh(alias, now)))
    }

    async fn describe(
        &self,
        principal: &Principal,
        alias: &KeyId,
        permitted: Permitted<Arc<DescribeKeyRequest>>,
        deadline: Instant,
    ) -> Result<Option<KeyArn>, BrokerError> {
        // When the reply is dropped, its record joins the backlog and so is in the journal before the call's record.
        let arn = match self.0.kms.call(permitted, deadline).await.result {
            Ok(description) => Some(description.arn),
            Err(BrokerError::Kms(KmsError { kind: KmsErrorKind::NotFound, .. })) => None,
            Err(error) => return Err(error),
        };
        let target = AliasTarget { arn: arn.clone(), at: self.0.kms.clock().instant() };
        self.memory().learn(principal, alias, target);
        Ok(arn)
    }

    fn memory(&self) -> MutexGuard<'_, AliasMemory> {
        // What it holds are KMS's own answers, so a panic elsewhere does not spoil them.
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shortens an alias in the broker's own account and region, so that it has one name.
    pub(crate) fn alias(&self, key: &KeyId) -> KeyId {
        let Inner { caller, .. } = &*self.0;
        key.short_alias(&caller.region, &caller.account_id).unwrap_or_else(|| key.clone())
    }
}

/// How long a resolved alias is used without asking again.
const FRESH: Duration = Duration::from_mins(1);
/// The longest `reuse.max_age_seconds`: after it no data key is cached that could be served without KMS.
const LONGEST: Duration = Duration::from_hours(24);
/// How long an alias that does not exist is not asked for again.
const UNKNOWN: Duration = Duration::from_secs(5);
/// The time limit of a lookup in the background; the next one does not begin before.
const BACKGROUND: Duration = Duration::from_secs(10);
