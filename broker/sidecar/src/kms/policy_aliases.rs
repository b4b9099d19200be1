//! What the aliases mean that policies name, asked for before policy is asked about a key.
//!
//! They are apart from the aliases that callers name ([`super::aliases`]): no caller can add one, or make the broker forget one.
//! All of them are asked for together, when a call needs them: what is known is used for a minute, and asked for again in the
//! background from three quarters of it on, so that a busy broker's calls do not wait. While KMS cannot be asked, what it said last
//! is used, for as long as a data key can be kept. What it has never said is not known: see [`AliasMeanings`].

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

/// What the aliases mean that policies name.
#[derive(Clone)]
pub(crate) struct PolicyAliases(Arc<Inner>);

struct Inner {
    kms: RecordedKms,
    none: Arc<AliasMeanings>,
    current: ArcSwapOption<Snapshot>,
    /// Held while KMS is asked: once for all who wait.
    targets: Arc<Mutex<Targets>>,
}

type Targets = HashMap<KeyId, Target>;

/// What KMS said that an alias means: none if there is no such alias.
struct Target {
    arn: Option<KeyArn>,
    at: Instant,
}

/// What was known when KMS was last asked for the aliases of these policies.
struct Snapshot {
    version: Arc<str>,
    meanings: Arc<AliasMeanings>,
    /// From then on KMS is asked again in the background.
    refresh_from: Instant,
    /// From then on calls that need them wait for KMS.
    good_until: Instant,
}

/// What aliases mean, as it is known without waiting for KMS.
pub(crate) struct KnownMeanings {
    pub(crate) meanings: Arc<AliasMeanings>,
    /// Whether KMS is to be asked [again](PolicyAliases::refresh), and is not being asked: they are good for now.
    pub(crate) is_due: bool,
}

impl PolicyAliases {
    /// Knows nothing yet.
    #[must_use]
    pub(crate) fn new(kms: RecordedKms) -> Self {
        let (none, current, targets) = (Arc::default(), ArcSwapOption::empty(), Arc::default());
        Self(Arc::new(Inner { kms, none, current, targets }))
    }

    /// The meanings of these policies' aliases, if they are available without waiting.
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

    /// Asks KMS again in the background, unless it is being asked.
    pub(crate) fn refresh(&self, policy: &Arc<Policy>) {
        if let Ok(targets) = Arc::clone(&self.0.targets).try_lock_owned() {
            self.0.kms.tasks().spawn(self.clone().refreshed_with(Arc::clone(policy), targets));
        }
    }

    /// Asks KMS what the aliases of these policies mean, and waits for it until `deadline`; not for long where it has said so before.
    pub(crate) async fn ask(&self, policy: &Arc<Policy>, deadline: Instant) -> Arc<AliasMeanings> {
        let last = self.last(policy);
        let now = self.0.kms.clock().instant();
        // What follows has to be told within the deadline.
        let kept = time_to_tell(deadline.saturating_duration_since(now));
        let deadline = deadline.checked_sub(kept).unwrap_or(now);
        let until = if last.is_some() { deadline.min(now + LONGEST_WAIT) } else { deadline };
        let answered = tokio::time::timeout(until.saturating_duration_since(now), self.refreshed(policy));
        match (answered.await, last) {
            (Ok(meanings), _) | (Err(_), Some(meanings)) => meanings,
            // Nothing is known: no alias means anything, and any may mean any key.
            (Err(_), None) => Arc::clone(&self.0.none),
        }
    }

    /// What was last known of all aliases of these policies.
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
        // A task of its own: it goes on when its caller goes away.
        let refresh = self.0.kms.tasks().spawn(self.clone().refreshed_with(Arc::clone(policy), targets));
        refresh.await.unwrap_or_else(|_| Arc::clone(&self.0.none))
    }

    /// Asks KMS for what is not known, or not fresh.
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
            // Dropping this answer puts its record into the backlog, and so into the journal before the call's.
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

/// From then on what an alias means is asked for again in the background.
const REFRESH: Duration = Duration::from_secs(45);
/// From then on a call waits for it.
const FRESH: Duration = Duration::from_mins(1);
/// Beyond this no data key can be kept (`reuse.max_age_seconds`), so there is nothing to serve without KMS.
const LONGEST: Duration = Duration::from_hours(24);
/// The pause after a failure.
const RETRY: Duration = Duration::from_secs(5);
/// The deadline of one round of questions.
const ASKING: Duration = Duration::from_secs(10);
/// How long a call waits for what is known, but not fresh.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Questions to KMS at a time.
const AT_A_TIME: usize = 8;
