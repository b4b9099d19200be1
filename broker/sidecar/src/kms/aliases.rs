//! What aliases mean: policy speaks of keys, and callers may name them by an alias, which KMS's operators can
//! move.
//!
//! An alias is asked for with DescribeKey before policy decides, and KMS is then asked for the key, not for
//! the alias: an alias that is moved meanwhile brings no key past policy. What an alias meant is believed for
//! a minute; after that it is used once more while it is refreshed in the background, so that no call waits,
//! and kept data keys are served while KMS cannot be asked.

mod memory;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use key_broker_core::{KeyArn, KeyId, NamedKey, Principal};
use key_broker_trail::record::AwsCaller;

use super::recorded::RecordedKms;
use super::{KmsError, KmsErrorKind};
use crate::error::BrokerError;
use crate::operation::DescribeKeyRequest;
use crate::policy::{Permitted, own};
use memory::{AliasMemory, AliasTarget};

/// What the aliases mean that callers name.
#[derive(Clone)]
pub(crate) struct Aliases(Arc<Inner>);

struct Inner {
    kms: RecordedKms,
    caller: Arc<AwsCaller>,
    memory: Mutex<AliasMemory>,
}

/// The key that a call names, as it is known without asking KMS.
pub(crate) struct KnownKey {
    pub(crate) named: NamedKey,
    /// Whether KMS is to be asked for it [again](Aliases::refresh): it is good for now.
    pub(crate) is_due: bool,
}

impl Aliases {
    /// Starts empty, and remembers the meanings of this many aliases.
    #[must_use]
    pub(crate) fn new(kms: RecordedKms, caller: Arc<AwsCaller>, most: usize) -> Self {
        Self(Arc::new(Inner { kms, caller, memory: Mutex::new(AliasMemory::new(most)) }))
    }

    /// What `key` names, if that is known without asking KMS.
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

    /// Asks KMS what `key` names, for `principal`.
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

    /// Asks KMS again in the background what an alias means that `principal` uses.
    pub(crate) fn refresh(&self, principal: &Principal, key: &KeyId) {
        let (alias, now) = (self.alias(key), self.0.kms.clock().instant());
        let until = now + BACKGROUND;
        if !self.memory().begin_refresh(&alias, now, until) {
            return;
        }
        let request = DescribeKeyRequest::from(alias.clone());
        // From the user's share: one principal's many aliases do not keep others' from being refreshed.
        let Ok(permitted) = own::permit_for(principal, request) else { return };
        let (aliases, principal) = (self.clone(), principal.clone());
        self.0.kms.tasks().spawn(async move {
            if let Err(error) = aliases.describe(&principal, &alias, permitted, until).await {
                let (alias, error) = (alias.as_str(), error.describe());
                tracing::warn!(alias, error, "cannot refresh an alias from KMS: its last known key is used");
            }
        });
    }

    /// What the alias means, unless that is unknown or too old, and whether it is to be asked for again.
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
        // The record of this answer joins the backlog with its drop, and is so in the journal before that of the call.
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
        // A panic in it is a defect; what it holds are KMS's own answers.
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
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
/// The deadline of a lookup in the background; another does not begin before.
const BACKGROUND: Duration = Duration::from_secs(10);
