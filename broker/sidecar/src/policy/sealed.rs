//! Replies made with a key that policy may not have permitted yet.

use key_broker_core::KeyArn;

use super::Permitted;
use crate::operation::KeyedReply;

/// A reply whose key only KMS named. It opens once policy has permitted that key.
pub(crate) struct SealedReply<T> {
    value: T,
    key: KeyArn,
    bytes: usize,
}

impl<T> SealedReply<T> {
    /// Seals a reply of `bytes` bytes that KMS made with `key`.
    #[must_use]
    pub(crate) fn new(value: T, key: KeyArn, bytes: usize) -> Self {
        Self { value, key, bytes }
    }

    /// The key that KMS used.
    #[must_use]
    pub(crate) fn key(&self) -> &KeyArn {
        &self.key
    }

    /// The number of bytes in it, which is not secret.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The value, given a permit for the key that KMS used.
    #[must_use]
    pub(crate) fn open(&self, permitted: &Permitted<KeyArn>) -> Option<&T> {
        (*permitted.subject() == self.key).then_some(&self.value)
    }
}

impl<T: KeyedReply> KeyedReply for SealedReply<T> {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        Some((&self.key, None))
    }

    fn new_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        self.value.new_key()
    }
}
