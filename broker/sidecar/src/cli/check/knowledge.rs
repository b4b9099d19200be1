//! What a policy decision depends on and only AWS knows: the keys behind names and behind the aliases in policies. Where that is unknown,
//! policy is evaluated for every possibility, and the answer counts only if it is the same for all.

use std::collections::{BTreeSet, HashMap};

use key_broker_core::{KeyArn, KeyId, partition_of};
use key_broker_trail::record::AwsCaller;

use super::keys::{ask_kms, refused};
use crate::error::BrokerError;
use crate::kms::aws::AwsKms;
use crate::kms::{KmsError, KmsErrorKind};
use crate::named_key::NamedKey;
use crate::operation::{DescribeKeyRequest, KmsReply};
use crate::policy::{AliasMeanings, Policy};

/// What is known, and where the broker is, as far as that is known.
pub(super) struct Knowledge {
    region: String,
    account_id: Option<String>,
    /// Of the aliases that policies name: none where there is no such alias.
    targets: HashMap<KeyId, Option<KeyArn>>,
    /// The aliases that policies name, and of which nothing is known.
    unknown: Vec<KeyId>,
}

/// A key as a call names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    Known(NamedKey),
    /// An alias that could not be resolved, or an id in an unknown account.
    Unknown(KeyId),
}

/// One way in which things may be.
pub(super) struct World {
    /// The key.
    pub(super) key: NamedKey,
    /// What aliases mean.
    pub(super) meanings: AliasMeanings,
}

impl Knowledge {
    /// Nobody is asked.
    pub(super) fn offline(policy: &Policy, region: &str) -> Self {
        let unknown = policy.aliases().to_vec();
        Self { region: region.to_owned(), account_id: None, targets: HashMap::new(), unknown }
    }

    /// Asks KMS; passes what could not be found out to `note`.
    pub(super) async fn ask(
        kms: &AwsKms,
        caller: &AwsCaller,
        policy: &Policy,
        mut note: impl FnMut(String),
    ) -> Self {
        let (mut targets, mut unknown) = (HashMap::new(), Vec::new());
        for alias in policy.aliases() {
            match target(kms, alias).await {
                Ok(target) => drop(targets.insert(alias.clone(), target)),
                Err(why) => {
                    note(why);
                    unknown.push(alias.clone());
                }
            }
        }
        let AwsCaller { region, account_id, .. } = caller;
        Self { region: region.clone(), account_id: Some(account_id.clone()), targets, unknown }
    }

    /// The key that a caller names by `key`. Of an alias that no policy names, KMS is asked, if there is one.
    pub(super) async fn name(
        &self,
        kms: Option<(&AwsKms, &AwsCaller)>,
        key: &KeyId,
    ) -> Result<Named, String> {
        if let Some(arn) = KeyArn::parse(key.as_str()) {
            return Ok(Named::Known(NamedKey { arn: Some(arn), alias: None }));
        }
        let Some((kms, caller)) = kms else { return Ok(self.of_alias(key)) };
        if let Some(arn) = caller.key_arn(key) {
            return Ok(Named::Known(NamedKey { arn: Some(arn), alias: None }));
        }
        let alias = key.short_alias(&caller.region, &caller.account_id).unwrap_or_else(|| key.clone());
        match self.of_alias(&alias) {
            Named::Unknown(alias) if !self.unknown.contains(&alias) => {
                Ok(Named::Known(NamedKey { arn: target(kms, &alias).await?, alias: Some(alias) }))
            }
            named => Ok(named),
        }
    }

    /// A key that a policy names.
    pub(super) fn of_policy(&self, key: &NamedKey) -> Named {
        match &key.alias {
            Some(alias) => self.of_alias(alias),
            // A multi-Region key is known as it is here.
            None => Named::Known(NamedKey {
                arn: key.arn.as_ref().map(|arn| arn.in_region(&self.region)),
                alias: None,
            }),
        }
    }

    fn of_alias(&self, alias: &KeyId) -> Named {
        match self.targets.get(alias) {
            Some(arn) => Named::Known(NamedKey { arn: arn.clone(), alias: Some(alias.clone()) }),
            None => Named::Unknown(alias.clone()),
        }
    }

    /// All ways in which things may be for this key; none if there are too many.
    pub(super) fn worlds(&self, policy: &Policy, key: Option<&Named>) -> Option<Vec<World>> {
        let keys = match key {
            None => {
                // Whatever aliases mean, no key is in them.
                let meanings = AliasMeanings::new(self.targets.clone());
                return Some(vec![World { key: NamedKey { arn: None, alias: None }, meanings }]);
            }
            Some(Named::Known(key)) => vec![key.clone()],
            Some(Named::Unknown(name)) => self.candidates(policy, name),
        };
        if self.unknown.len() > MOST_UNKNOWN {
            return None;
        }
        let mut worlds = Vec::new();
        for key in keys {
            // Those of the unknown ones that mean this very key; the others mean another.
            for chosen in 0_u32..(1 << self.unknown.len()) {
                let mut targets = self.targets.clone();
                for (place, alias) in self.unknown.iter().enumerate() {
                    let is_chosen = chosen >> place & 1 == 1 && key.arn.is_some();
                    targets.insert(alias.clone(), key.arn.clone().filter(|_| is_chosen));
                }
                let called = key.alias.as_ref().filter(|alias| self.unknown.contains(alias));
                if called.is_none_or(|alias| targets.get(alias) == Some(&key.arn)) {
                    worlds.push(World { key: key.clone(), meanings: AliasMeanings::new(targets) });
                }
            }
        }
        Some(worlds)
    }

    /// The unresolved aliases, as text.
    pub(super) fn open(&self, key: Option<&Named>) -> String {
        let mut names: BTreeSet<&str> = self.unknown.iter().map(KeyId::as_str).collect();
        if let Some(Named::Unknown(name)) = key {
            names.insert(name.as_str());
        }
        names.into_iter().collect::<Vec<_>>().join(", ")
    }

    /// The keys that a name may mean: each that policies name, any other one, and none.
    fn candidates(&self, policy: &Policy, name: &KeyId) -> Vec<NamedKey> {
        let alias = name.is_alias().then(|| name.clone());
        let mut arns: Vec<KeyArn> =
            policy.keys().iter().filter_map(|key| Some(key.arn.as_ref()?.in_region(&self.region))).collect();
        let account = self.account_id.as_deref().unwrap_or(NO_ACCOUNT);
        let partition = partition_of(&self.region);
        let other = format!("arn:{partition}:kms:{}:{account}:key/{NO_KEY}", self.region);
        arns.extend(KeyArn::parse(&other));
        if alias.is_none() {
            // An id is that of its key, wherever that is.
            arns.retain(|arn| name.names(arn) || arn.as_str().ends_with(NO_KEY));
        }
        let keys = arns.into_iter().map(|arn| NamedKey { arn: Some(arn), alias: alias.clone() });
        let none = alias.iter().map(|_| NamedKey { arn: None, alias: alias.clone() });
        keys.chain(none).collect()
    }
}

/// The key that an alias means; none if there is no such alias.
pub(super) async fn target(kms: &AwsKms, alias: &KeyId) -> Result<Option<KeyArn>, String> {
    match ask_kms(kms, DescribeKeyRequest::from(alias.clone())).await {
        Ok(KmsReply::KeyDescription(described)) => Ok(Some(described.arn)),
        Ok(_) => Err(BrokerError::Bug.describe()),
        Err(BrokerError::Kms(KmsError { kind: KmsErrorKind::NotFound, .. })) => Ok(None),
        Err(error) => Err(refused("DescribeKey", alias, &error)),
    }
}

/// 64 ways for each key.
const MOST_UNKNOWN: usize = 6;
/// A key that no policy names, in an account that no policy names.
const NO_KEY: &str = "00000000-0000-0000-0000-000000000000";
const NO_ACCOUNT: &str = "000000000000";
