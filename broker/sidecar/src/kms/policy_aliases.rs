//! Which keys the aliases in policies stand for, which must be known before a policy decides about a key.
//!
//! They are separate from the aliases that callers use ([`super::aliases`]), so that no caller can add one or displace one. All are
//! resolved together when a call needs them. The result is used for a minute, and refreshed in the background after three
//! quarters of it, so that calls of a busy broker do not wait. While KMS cannot be asked, its last answer is used, for as long
//! as a data key may be cached. Aliases that KMS has never resolved are unknown: see [`AliasMeanings`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures_util::StreamExt as _;
use futures_util::stream;
use key_broker_core::{KeyArn, KeyId};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::recorded::{RecordedKms, time_to_tell};
use super::{KmsError, KmsErrorKind};
use crate::error::BrokerError;
use crate::operation::DescribeKeyRequest;
use crate::policy::{AliasMeanings, Policy, own};

/// The keys that policies' aliases stand for.
#[derive(Clone)]
pub(crate) struct PolicyAliases(Arc<Inner>);

struct Inner {
    kms: RecordedKms,
    none: Arc<AliasMeanings>,
    current: ArcSwapOption<Snapshot>,
    /// Locked while KMS is asked, so that all who wait share the answer.
    targets: Arc<Mutex<Targets>>,
}

type Targets = HashMap<KeyId, Target>;

/// The key that KMS gave for an alias: `None` if the alias does not exist.
struct Target {
    arn: Option<KeyArn>,
    at: Instant,
}

/// The answers when KMS was last asked for the aliases of these policies.
struct Snapshot {
    version: Arc<str>,
    meanings: Arc<AliasMeanings>,
    /// When to ask KMS again in the background.
    refresh_from: Instant,
    /// When calls that need the aliases begin to wait for KMS.
    good_until: Instant,
}

/// What aliases stand for, as far as it is known without waiting for KMS.
pub(crate) struct KnownMeanings {
    pub(crate) meanings: Arc<AliasMeanings>,
    /// Whether KMS should be asked [again](PolicyAliases::refresh) and is not being asked; they may be used meanwhile.
    pub(crate) is_due: bool,
}

impl PolicyAliases {
    /// Knows nothing yet.
    #[must_use]
    pub(crate) fn new(kms: RecordedKms) -> Self {
        let (none, current, targets) = (Arc::default(), ArcSwapOption::empty(), Arc::default());
        Self(Arc::new(Inner { kms, none, current, targets }))
    }

    /// What these policies' aliases stand for, if no waiting is needed.
    #[must_use]
    pub(crate) fn known(&self, policy: &Policy) -> Option<KnownMeanings> {
        if policy.aliases().is_empty() {
            return Some(KnownMeanings { meanings: Arc::clone(&self.0.none), is_due: false });
        }
        let now = self.0.kms.clock().instant();
        let current = self.0.current.load();
        let current = current.as_ref().filter(|current| current.version == *policy.version())?;
        let meanings = Arc::clone(&current.meanings);
        let is_due = now >= current.refresh_from && self.0.targets.try_lock().is_ok();
        (now < current.good_until).then_some(KnownMeanings { meanings, is_due })
    }

    /// Resolves them again in the background, unless that is under way.
    pub(crate) fn refresh(&self, policy: &Arc<Policy>) {
        if let Ok(targets) = Arc::clone(&self.0.targets).try_lock_owned() {
            self.0.kms.tasks().spawn(self.clone().refreshed_with(Arc::clone(policy), targets));
        }
    }

    /// Asks KMS about these policies' aliases and waits until `deadline`, or for a short time if earlier answers can be used.
    pub(crate) async fn ask(&self, policy: &Arc<Policy>, deadline: Instant) -> Arc<AliasMeanings> {
        let last = self.last(policy);
        let now = self.0.kms.clock().instant();
        // Leaves the time to report an error within the deadline.
        let kept = time_to_tell(deadline.saturating_duration_since(now));
        let deadline = deadline.checked_sub(kept).unwrap_or(now);
        let until = if last.is_some() { deadline.min(now + LONGEST_WAIT) } else { deadline };
        let answered = tokio::time::timeout(until.saturating_duration_since(now), self.refreshed(policy));
        match (answered.await, last) {
            (Ok(meanings), _) | (Err(_), Some(meanings)) => meanings,
            // Nothing is known, so any alias might stand for any key.
            (Err(_), None) => Arc::clone(&self.0.none),
        }
    }

    /// The last known answers, if there is one for every alias of these policies.
    fn last(&self, policy: &Policy) -> Option<Arc<AliasMeanings>> {
        let current = self.0.current.load();
        let current = current.as_ref()?;
        let all = policy.aliases().iter().all(|alias| current.meanings.is_known(alias));
        (all && current.version == *policy.version()).then(|| Arc::clone(&current.meanings))
    }

    async fn refreshed(&self, policy: &Arc<Policy>) -> Arc<AliasMeanings> {
        let targets = Arc::clone(&self.0.targets).lock_owned().await;
        // Another call may have asked meanwhile.
        let now = self.0.kms.clock().instant();
        if let Some(current) = &*self.0.current.load()
            && current.version == *policy.version()
            && now < current.good_until
        {
            return Arc::clone(&current.meanings);
        }
        // In a task of its own, so that it continues when the caller goes away.
        let refresh = self.0.kms.tasks().spawn(self.clone().refreshed_with(Arc::clone(policy), targets));
        refresh.await.unwrap_or_else(|_| Arc::clone(&self.0.none))
    }

    /// Asks KMS about aliases that are unknown or no longer fresh.
    async fn refreshed_with(
        self,
        policy: Arc<Policy>,
        mut targets: OwnedMutexGuard<Targets>,
    ) -> Arc<AliasMeanings> {
        let asked_at = self.0.kms.clock().instant();
        targets.retain(|alias, target| {
            policy.aliases().contains(alias) && asked_at.saturating_duration_since(target.at) < LONGEST
        });
        let is_due = |alias: &&KeyId| {
            let age = targets.get(alias).map(|target| asked_at.saturating_duration_since(target.at));
            age.is_none_or(|age| age >= REFRESH)
        };
        let due: Vec<KeyId> = policy.aliases().iter().filter(is_due).cloned().collect();
        let answers = stream::iter(due).map(|alias| self.describe(alias, asked_at + ASKING));
        let answers: Vec<_> = answers.buffer_unordered(AT_A_TIME).collect().await;
        let mut failed = false;
        for (alias, answer) in answers {
            match answer {
                Ok(arn) => drop(targets.insert(alias, Target { arn, at: asked_at })),
                Err(error) => {
                    failed = true;
                    let is_known = targets.contains_key(&alias);
                    let (alias, error) = (alias.as_str(), error.describe());
                    if is_known {
                        tracing::warn!(
                            alias,
                            error,
                            "cannot resolve an alias in the policies with KMS: its last known key is used"
                        );
                    } else {
                        tracing::warn!(
                            alias,
                            error,
                            "cannot resolve an alias in the policies with KMS: a forbid by it applies to every key"
                        );
                    }
                }
            }
        }
        let snapshot = self.snapshot(&policy, &targets, failed);
        let meanings = Arc::clone(&snapshot.meanings);
        self.0.current.store(Some(Arc::new(snapshot)));
        meanings
    }

    fn snapshot(&self, policy: &Policy, targets: &Targets, failed: bool) -> Snapshot {
        let now = self.0.kms.clock().instant();
        let oldest = targets.values().map(|target| target.at).min().unwrap_or(now);
        let all = policy.aliases().iter().all(|alias| targets.contains_key(alias));
        let (refresh_from, good_until) = match (failed, all) {
            (false, _) => (oldest + REFRESH, oldest + FRESH),
            (true, true) => (now + RETRY, oldest + LONGEST),
            (true, false) => (now + RETRY, now + RETRY),
        };
        let known = targets.iter().map(|(alias, target)| (alias.clone(), target.arn.clone()));
        let meanings = Arc::new(AliasMeanings::new(known.collect()));
        Snapshot { version: Arc::clone(policy.version()), meanings, refresh_from, good_until }
    }

    async fn describe(
        &self,
        alias: KeyId,
        deadline: Instant,
    ) -> (KeyId, Result<Option<KeyArn>, BrokerError>) {
        let answer = match own::permit(DescribeKeyRequest::from(alias.clone())) {
            // When the reply is dropped, its record joins the backlog and so is in the journal before the call's record.
            Ok(permitted) => match self.0.kms.call(permitted, deadline).await.result {
                Ok(description) => Ok(Some(description.arn)),
                Err(BrokerError::Kms(KmsError { kind: KmsErrorKind::NotFound, .. })) => Ok(None),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        (alias, answer)
    }
}

/// The age from which an alias is resolved again in the background.
const REFRESH: Duration = Duration::from_secs(45);
/// The age from which a call waits for an alias.
const FRESH: Duration = Duration::from_mins(1);
/// The longest `reuse.max_age_seconds`: after it no data key is cached that could be served without KMS.
const LONGEST: Duration = Duration::from_hours(24);
/// The pause after a failure.
const RETRY: Duration = Duration::from_secs(5);
/// The time limit for resolving all aliases.
const ASKING: Duration = Duration::from_secs(10);
/// How long a call waits for aliases that are known but no longer fresh.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Concurrent lookups at KMS.
const AT_A_TIME: usize = 8;
