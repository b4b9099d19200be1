//! Pairs that a principal's encryption contexts must have, so that data encrypted for one tenant cannot be requested for another.

use std::collections::BTreeMap;

use key_broker_core::{EncryptionContext, Principal};

use crate::error::BrokerError;

/// The pairs of all principals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bindings(pub Vec<Binding>);

/// Pairs for one principal, or for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The principal; `None` for all.
    pub principal: Option<Principal>,
    /// The caller must send these.
    pub require: BTreeMap<String, String>,
    /// The broker adds these; the caller may send them, too, but no other value.
    pub inject: BTreeMap<String, String>,
}

impl Bindings {
    /// The context with the principal's pairs; `None` if that is the one it came with.
    pub(crate) fn bind(
        &self,
        principal: &Principal,
        context: &EncryptionContext,
    ) -> Result<Option<EncryptionContext>, BrokerError> {
        let mut added = BTreeMap::new();
        let wrong = |name: &String| BrokerError::WrongContext(Box::new((principal.clone(), name.clone())));
        let of = |binding: &&Binding| binding.principal.as_ref().is_none_or(|of| of == principal);
        for binding in self.0.iter().filter(of) {
            for (name, value) in &binding.require {
                if context.pairs().get(name) != Some(value) {
                    return Err(wrong(name));
                }
            }
            for (name, value) in &binding.inject {
                match context.pairs().get(name) {
                    Some(sent) if sent == value => {}
                    Some(_) => return Err(wrong(name)),
                    None => {
                        added.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        if added.is_empty() {
            return Ok(None);
        }
        added.extend(context.pairs().clone());
        Ok(Some(EncryptionContext::parse(added)?))
    }
}

#[cfg(test)]
mod tests {
    //! No context leaves without its principal's pairs, and no other pair is changed.

    use proptest::prelude::*;

    use super::*;

    fn pairs() -> impl Strategy<Value = BTreeMap<String, String>> {
        prop::collection::btree_map("[abc]", "[xy]", 0..3)
    }

    proptest! {
        #[test]
        fn a_bound_context_has_every_pair(require in pairs(), inject in pairs(), sent in pairs()) {
            let principal = Principal::Workload("unix:uid/1".into());
            let other = Principal::Workload("unix:uid/2".into());
            let binding =
                Binding { principal: Some(principal.clone()), require: require.clone(), inject: inject.clone() };
            let bindings = Bindings(vec![binding]);
            let context = EncryptionContext::parse(sent.clone()).expect("a context");
            prop_assert_eq!(bindings.bind(&other, &context).expect("not bound"), None);
            let has = |context: &BTreeMap<String, String>, pairs: &BTreeMap<String, String>| {
                pairs.iter().all(|(name, value)| context.get(name) == Some(value))
            };
            let fits = has(&sent, &require)
                && inject.iter().all(|(name, value)| sent.get(name).is_none_or(|sent| sent == value));
            match bindings.bind(&principal, &context) {
                Ok(bound) => {
                    prop_assert!(fits);
                    let bound = bound.unwrap_or(context);
                    prop_assert!(has(bound.pairs(), &inject) && has(bound.pairs(), &sent));
                    let known = |name: &String| sent.contains_key(name) || inject.contains_key(name);
                    prop_assert!(bound.pairs().keys().all(known));
                }
                Err(_) => prop_assert!(!fits),
            }
        }
    }
}
