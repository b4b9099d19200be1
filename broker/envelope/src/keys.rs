//! The keys of one message: HKDF derives the encryption key and the key commitment from data key and message id.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce, Tag};
use ctutils::CtEq;
use hkdf::Hkdf;
use key_broker_core::{Plaintext, secret};
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

use crate::format::{COMMITMENT_BYTES, DATA_KEY_BYTES, IV_BYTES, TAG_BYTES};
use crate::suite::Suite;

/// The keys of one message. Erased when dropped.
pub(crate) struct MessageKeys {
    /// Erases its key schedule itself (its feature `zeroize`). Boxed, so that no move leaves a copy behind.
    aead: Box<Aes256Gcm>,
    /// Empty where the suite has none. Not secret.
    commitment: Vec<u8>,
}

/// The data key has this many bytes instead of the 32 of every suite here.
pub(crate) struct WrongLength(pub(crate) usize);

/// A tag is not that of these bytes under this key.
pub(crate) struct Forged;

impl MessageKeys {
    /// Derives them (transitive-requirements.md, "HKDF Encryption Key" and "HKDF Commit Key").
    pub(crate) fn derive(data_key: &Plaintext, suite: Suite, message_id: &[u8]) -> Result<Self, WrongLength> {
        let data_key = data_key.as_ref();
        if data_key.len() != DATA_KEY_BYTES {
            return Err(WrongLength(data_key.len()));
        }
        let keys = derive(data_key, suite, message_id);
        secret::wipe_stack();
        Ok(keys)
    }

    /// The key commitment in the header; empty if the suite has none.
    pub(crate) fn commitment(&self) -> &[u8] {
        &self.commitment
    }

    /// Whether `stored` commits to the data key, in constant time.
    pub(crate) fn match_commitment(&self, stored: &[u8]) -> bool {
        self.commitment.as_slice().ct_eq(stored).into()
    }

    /// Encrypts `content` in place; its tag, which covers `aad` too. An IV serves once.
    pub(crate) fn seal(&self, iv: [u8; IV_BYTES], aad: &[u8], content: &mut [u8]) -> [u8; TAG_BYTES] {
        let sealed = self.aead.encrypt_inout_detached(&Nonce::from(iv), aad, content.into());
        sealed.expect("AES-GCM takes up to 64 GiB, a frame is shorter than 4 GiB").into()
    }

    /// Decrypts `content` in place, or finds it or `aad` forged and leaves it as it is.
    pub(crate) fn open(
        &self,
        iv: [u8; IV_BYTES],
        aad: &[u8],
        content: &mut [u8],
        tag: [u8; TAG_BYTES],
    ) -> Result<(), Forged> {
        let opened = self.aead.decrypt_inout_detached(&Nonce::from(iv), aad, content.into(), &Tag::from(tag));
        opened.map_err(|_| Forged)
    }
}

impl Drop for MessageKeys {
    /// AES leaves parts of the key schedule in vector registers and on the stack.
    fn drop(&mut self) {
        secret::wipe_stack();
    }
}

/// Not inlined, so that all it leaves on the stack lies where the caller wipes.
#[inline(never)]
fn derive(data_key: &[u8], suite: Suite, message_id: &[u8]) -> MessageKeys {
    let mut key = Zeroizing::new([0; DATA_KEY_BYTES]);
    let mut commitment = Vec::new();
    let id = suite.id().to_be_bytes();
    let without_commitment = [&id[..], message_id];
    match suite {
        Suite::Committed | Suite::CommittedSigned => {
            let hkdf = Hkdf::<Sha512>::new(Some(message_id), data_key);
            hkdf.expand_multi_info(&[&id, b"DERIVEKEY"], key.as_mut()).expect(SHORT);
            commitment.resize(COMMITMENT_BYTES, 0);
            hkdf.expand_multi_info(&[b"COMMITKEY"], &mut commitment).expect(SHORT);
        }
        Suite::Uncommitted => {
            let hkdf = Hkdf::<Sha256>::new(None, data_key);
            hkdf.expand_multi_info(&without_commitment, key.as_mut()).expect(SHORT);
        }
        Suite::UncommittedSigned => {
            let hkdf = Hkdf::<Sha384>::new(None, data_key);
            hkdf.expand_multi_info(&without_commitment, key.as_mut()).expect(SHORT);
        }
    }
    MessageKeys { aead: Box::new(Aes256Gcm::new((&*key).into())), commitment }
}

const SHORT: &str = "HKDF gives 255 times its hash's length, which is more than 32 bytes";

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    use super::*;

    /// Proves, at compile time: the features are on that make AES-GCM and SHA-2, and so HKDF, erase their state.
    #[test]
    fn derived_state_is_erased_on_drop() {
        fn erased<T: ZeroizeOnDrop>() {}
        erased::<Aes256Gcm>();
        erased::<Sha256>();
        erased::<Sha384>();
        erased::<Sha512>();
        erased::<Zeroizing<[u8; DATA_KEY_BYTES]>>();
    }

    /// Proves: only 32 bytes are a data key.
    #[test]
    fn a_data_key_of_another_length_is_refused() {
        for len in [0, 16, 31, 33, 64] {
            let refused =
                MessageKeys::derive(&Plaintext::new(vec![1; len]), Suite::Committed, &[0; 32]).err();
            assert_eq!(refused.map(|WrongLength(found)| found), Some(len));
        }
    }
}
