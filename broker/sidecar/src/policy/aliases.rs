//! What the aliases in policies stand for: a policy about an alias applies to its key, however a caller names that key.

use std::collections::HashMap;
use std::sync::Arc;

use key_broker_core::{KeyArn, KeyId};

/// The keys of aliases, as far as they are known. Any other alias might stand for any key.
#[derive(Debug, Default)]
pub(crate) struct AliasMeanings {
    /// `None` if the alias does not exist.
    targets: HashMap<KeyId, Option<KeyArn>>,
    names: HashMap<KeyArn, Arc<[KeyId]>>,
}

/// The aliases of one key, known and possible, among those that policies name, and the one by which the caller named it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct KeyAliases {
    /// They stand for this key.
    pub known: Arc<[KeyId]>,
    /// They may stand for it, and a policy may permit less if they do.
    pub open: Arc<[KeyId]>,
}

impl AliasMeanings {
    /// These aliases with their keys: `None` if an alias does not exist.
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

    /// The key of an alias; `None` if it is unknown, or the alias does not exist.
    #[must_use]
    pub(crate) fn target(&self, alias: &KeyId) -> Option<&KeyArn> {
        self.targets.get(alias)?.as_ref()
    }

    /// Whether it is known what an alias stands for.
    #[must_use]
    pub(crate) fn is_known(&self, alias: &KeyId) -> bool {
        self.targets.contains_key(alias)
    }

    /// The aliases of a key that its caller named by `called`. `restricting` are those by which a policy may permit less.
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
