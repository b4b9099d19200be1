//! Which keys to ask KMS about, and its answers.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use futures_util::{StreamExt as _, stream};
use key_broker_core::{KeyArn, KeyId};

use super::state::WatchState;
use crate::kms::aws::AwsKms;
use crate::kms::aws::usage::{LastUse, WatchedKey};
use crate::kms::{KmsError, KmsErrorKind};

/// Which keys are watched.
pub(super) struct Wanted {
    /// The named keys or, without any, the known ones.
    pub(super) named: Vec<KeyId>,
    pub(super) shared: Vec<KeyId>,
    /// The ARNs of those that the trails' records are about.
    pub(super) known: BTreeSet<String>,
    /// The keys of the trails themselves.
    pub(super) of_trails: BTreeSet<String>,
    pub(super) with_trail_keys: bool,
}

/// KMS's answer about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// Its last use, if there was any.
    Told(Option<LastUse>),
    /// Others may use it, too.
    Shared,
    /// The key is of another account, where KMS would have to be asked.
    OfAnotherAccount,
    /// The key no longer exists.
    Gone,
    /// KMS did not say.
    Failed(String),
}

impl Wanted {
    /// The keys and aliases to ask DescribeKey about.
    fn names(&self) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = self.named.iter().map(|key| key.as_str().to_owned()).collect();
        if names.is_empty() {
            names = self.known.difference(&self.of_trails).cloned().collect();
        }
        if self.with_trail_keys {
            names.extend(self.of_trails.iter().cloned());
        }
        names
    }
}

/// Asks KMS about all keys, and about each replica of a multi-Region key, by ARN or, if that is unknown, by the given name.
pub(super) async fn ask_all(kms: &AwsKms, account_id: &str, wanted: Wanted) -> BTreeMap<String, Asked> {
    let mut asked = BTreeMap::new();
    let (shared, failed) =
        describe(kms, wanted.shared.iter().map(|key| key.as_str().to_owned()).collect()).await;
    let shared: BTreeSet<String> = shared.into_iter().map(|key| key.as_str().to_owned()).collect();
    // Whose key it is, is not known then: it might be among the others.
    asked.extend(failed);
    let is_named = |name: &str| wanted.named.iter().any(|key| key.as_str() == name);
    let (away, names): (Vec<String>, Vec<String>) = wanted.names().into_iter().partition(|name| {
        !is_named(name) && KeyArn::parse(name).is_some_and(|arn| arn.account_id() != account_id)
    });
    asked.extend(away.into_iter().map(|name| (name, Asked::OfAnotherAccount)));
    let (arns, failed) = describe(kms, names).await;
    asked.extend(failed.into_iter().map(|(name, why)| match why {
        Asked::Gone if is_named(&name) => (name, Asked::Failed("there is no such key".to_owned())),
        why => (name, why),
    }));
    let is_shared = &shared;
    let answers = stream::iter(arns).map(|arn| async move {
        let answer = if is_shared.contains(arn.as_str()) {
            Asked::Shared
        } else {
            match kms.last_use(&arn).await {
                Ok(seen) => Asked::Told(seen),
                Err(error) => Asked::Failed(told("GetKeyLastUsage", &error)),
            }
        };
        (arn.as_str().to_owned(), answer)
    });
    asked.extend(answers.buffer_unordered(AT_A_TIME).collect::<Vec<_>>().await);
    asked.extend(shared.into_iter().map(|arn| (arn, Asked::Shared)));
    asked
}

/// The keys of these names with all their replicas; and of those that KMS does not describe, why.
async fn describe(kms: &AwsKms, names: Vec<String>) -> (HashSet<KeyArn>, Vec<(String, Asked)>) {
    let described = stream::iter(names).map(|name| async {
        let described = kms.watched_key(&name).await;
        (name, described)
    });
    let (mut arns, mut failed) = (HashSet::new(), Vec::new());
    for (name, described) in described.buffer_unordered(AT_A_TIME).collect::<Vec<_>>().await {
        match described {
            Ok(WatchedKey { arns: own, is_of_aws: true }) => {
                failed.extend(own.into_iter().map(|arn| (arn.as_str().to_owned(), Asked::Shared)));
            }
            Ok(WatchedKey { arns: own, is_of_aws: false }) => arns.extend(own),
            Err(error) if error.kind == KmsErrorKind::NotFound => failed.push((name, Asked::Gone)),
            Err(error) => failed.push((name, Asked::Failed(told("DescribeKey", &error)))),
        }
    }
    (arns, failed)
}

fn told(operation: &str, error: &KmsError) -> String {
    format!("{operation}: {}: {}", error.code, error.message.as_deref().unwrap_or("KMS says no more"))
}

/// Keys that are not there any more are watched no more, once nothing of them is open.
pub(super) fn forget_gone(state: &mut WatchState, asked: &BTreeMap<String, Asked>) {
    state.keys.retain(|key, of_key| {
        asked.get(key) != Some(&Asked::Gone) || !(of_key.pending.is_empty() && of_key.alarms.is_empty())
    });
}

/// KMS takes some hundred such calls in a second.
const AT_A_TIME: usize = 8;
