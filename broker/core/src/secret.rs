//! Key material in memory: types that erase themselves and cannot be printed, copied, compared or serialized.
//!
//! A plaintext lives in a slot of pages that are locked (never swapped out), left out of core dumps and wiped
//! in forked children. The slot is zeroed when the last user of the plaintext drops it.

mod pages;
mod pool;

use bytes::Bytes;
use zeroize::{Zeroize, Zeroizing, optimization_barrier};

use pool::POOL;

/// A plaintext: a data key, a decrypted ciphertext or random bytes. Erased when it and the last reply made from it are dropped.
///
/// A handle on the slot, counted by `Bytes`; there is no way to the bytes that copies them.
pub struct Plaintext(Bytes);

/// Maps the first pages for data keys, so that a limit on locked memory is seen at the start and not at the first call.
pub fn prepare() {
    drop(Plaintext::new(vec![0; 32]));
}

/// Overwrites what calls that have returned left on the stack of this thread. To be called where the answer of KMS has come
/// back: libraries that read it spill it from vector registers.
#[inline(never)]
#[expect(clippy::large_stack_arrays, reason = "the stack is what is to be overwritten")]
pub fn wipe_stack() {
    // A variable: a mere `&[0; N]` would be a constant, and not on the stack.
    let zeros = [0_u8; STACK_BYTES];
    optimization_barrier(&zeros);
}

impl Plaintext {
    /// Moves `bytes` into locked memory and erases them where they were.
    #[must_use]
    pub fn new(mut bytes: Vec<u8>) -> Self {
        let Some(slot) = POOL.take(&bytes) else {
            // Longer than any answer of KMS.
            return Self(Bytes::from_owner(Zeroizing::new(bytes)));
        };
        bytes.zeroize();
        Self(Bytes::from_owner(slot))
    }

    /// The number of bytes. It is not secret.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes as a reply carries them: neither copied nor allocated for. They outlive an eviction, and no more than that:
    /// the last to let go of them erases them.
    #[must_use]
    pub fn reply(&self) -> Bytes {
        self.0.clone()
    }
}

impl AsRef<[u8]> for Plaintext {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// More than the AWS SDK uses of it below its caller (without optimization, far more), and a small part of the 2 MiB that tokio
/// gives its threads.
const STACK_BYTES: usize = if cfg!(debug_assertions) { 256 << 10 } else { 64 << 10 };

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: a reply carries the bytes of the slot themselves, whatever their number, and keeps them when the plaintext is
    /// gone. That the last one zeroes them is proved where the slots are.
    #[test]
    fn what_is_evicted_lives_until_its_last_reply_has_left() {
        for len in [0, 1, 16, 32, 64, 1_024, 4_096, 4_097, 100_000] {
            let plaintext = Plaintext::new(vec![0x5A; len]);
            assert_eq!((plaintext.len(), plaintext.is_empty()), (len, len == 0));
            let place = plaintext.as_ref().as_ptr();
            let replies = [plaintext.reply(), plaintext.reply()];
            drop(plaintext);
            for reply in replies {
                assert_eq!(reply, vec![0x5A; len]);
                assert_eq!(reply.as_ptr(), place, "{len}");
            }
        }
    }
}
