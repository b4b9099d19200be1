//! The key that a call names: as its caller wrote it, and what that stands for.

use key_broker_core::{KeyArn, KeyId};

/// The key of a request: as the caller wrote it, and what that was resolved to before policy was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestedKey {
    /// The id as the caller wrote it. Records and the rules of reuse use this one.
    pub written: KeyId,
    /// The key that this names; none while it is not resolved, and for what the broker asks for itself.
    pub resolved: Option<NamedKey>,
}

impl RequestedKey {
    /// The key as KMS is asked for it: by its ARN once it is resolved, so that an alias that is moved meanwhile brings no key
    /// past policy.
    #[must_use]
    pub(crate) fn sent(&self) -> &KeyId {
        self.arn().map_or(&self.written, KeyArn::as_key_id)
    }

    /// The ARN that the key was resolved to.
    #[must_use]
    pub(crate) fn arn(&self) -> Option<&KeyArn> {
        self.resolved.as_ref()?.arn.as_ref()
    }
}

impl From<KeyId> for RequestedKey {
    fn from(key: KeyId) -> Self {
        Self { written: key, resolved: None }
    }
}

/// A key that a call names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct NamedKey {
    /// The key itself; none if the name means none, as far as the broker can know.
    pub arn: Option<KeyArn>,
    /// The alias by which the caller named it, if it did.
    pub alias: Option<KeyId>,
}
