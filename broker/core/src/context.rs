//! Encryption contexts.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::invalid::InvalidValue;

/// The facts bound to a ciphertext. Not secret. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct EncryptionContext(Arc<BTreeMap<String, String>>);

impl EncryptionContext {
    /// Checks KMS's limit of 8,192 bytes and the broker's of 1,024 pairs.
    pub fn parse(pairs: BTreeMap<String, String>) -> Result<Self, InvalidValue> {
        if pairs.len() > MAX_CONTEXT_PAIRS {
            return Err(InvalidValue(format!(
                "encryption_context has {} pairs; the broker takes at most {MAX_CONTEXT_PAIRS}",
                pairs.len()
            )));
        }
        let bytes: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > MAX_CONTEXT_BYTES {
            return Err(InvalidValue(format!(
                "encryption_context has {bytes} bytes of names and values; KMS takes at most {MAX_CONTEXT_BYTES}"
            )));
        }
        if pairs.keys().any(String::is_empty) {
            return Err(InvalidValue("encryption_context has a pair with an empty name".into()));
        }
        Ok(Self(Arc::new(pairs)))
    }

    /// The pairs in the order of their names.
    #[must_use]
    pub fn pairs(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

/// KMS: an encryption context is at most 8,192 bytes (KMS developer guide, "Encryption context").
const MAX_CONTEXT_BYTES: usize = 8_192;
/// Ours: with KMS's byte limit a context of more pairs would have names and values of under eight bytes.
const MAX_CONTEXT_PAIRS: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: the limit is KMS's own, to the byte.
    #[test]
    fn limits_are_those_of_kms() {
        let context =
            |bytes: usize| EncryptionContext::parse(BTreeMap::from([("k".into(), "v".repeat(bytes - 1))]));
        assert!(context(8_192).is_ok() && context(8_193).is_err());
    }
}
