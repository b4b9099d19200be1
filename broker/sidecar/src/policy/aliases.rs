//! The meanings of the aliases in policies: a policy about an alias is about its key, however a caller names that key.

use std::collections::HashMap;
use std::sync::Arc;

use key_broker_core::{KeyArn, KeyId};

/// What aliases mean, as far as that is known. One that is not in here may mean any key.
#[derive(Debug, Default)]
pub(crate) struct AliasMeanings {
    /// None where there is no such alias.
    targets: HashMap<KeyId, Option<KeyArn>>,
    names: HashMap<KeyArn, Arc<[KeyId]>>,
}

/// The aliases that one key is, or may be, in: of those that policies name, and the one by which the caller named it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct KeyAliases {
    /// They mean this key.
    pub known: Arc<[KeyId]>,
    /// They may mean it, and a policy may permit less if they do.
    pub open: Arc<[KeyId]>,
}

impl AliasMeanings {
    /// These aliases, each with the key that it means: none if there is no such alias.
    #[must_use]
    pub(crate) fn new(targets: HashMap<KeyId, Option<KeyArn>>) -> Self {
        let mut names = HashMap::<KeyArn, Vec<KeyId>>::new();
        for (alias, target) in &targets {
            if let Some(arn) = target {
                names.entry(arn.clone()).or_default().push(alias.clone());
            }
        }
        let sorted = |mut aliases: Vec<KeyId>| {
            aliases.sort_by(|one, other| one.as_str().cmp(other.as_str()));
            aliases.into()
        };
        let names = names.into_iter().map(|(arn, aliases)| (arn, sorted(aliases))).collect();
        Self { targets, names }
    }

    /// The key that an alias means; none if that is not known, or if it means none.
    #[must_use]
    pub(crate) fn target(&self, alias: &KeyId) -> Option<&KeyArn> {
        self.targets.get(alias)?.as_ref()
    }

    /// Whether it is known what an alias means.
    #[must_use]
    pub(crate) fn is_known(&self, alias: &KeyId) -> bool {
        self.targets.contains_key(alias)
    }

    /// The aliases of a key that its caller named by `called`, where `restricting` are those by which a policy may permit less.
    pub(super) fn of(&self, arn: &KeyArn, called: Option<&KeyId>, restricting: &[KeyId]) -> KeyAliases {
        let known = self.names.get(arn).cloned().unwrap_or_default();
        let known = match called {
            Some(alias) if !known.contains(alias) => known.iter().chain([alias]).cloned().collect(),
            _ => known,
        };
        let open = restricting.iter().filter(|alias| !self.is_known(alias) && !known.contains(alias));
        KeyAliases { open: open.cloned().collect(), known }
    }
}
