//! What one message is encrypted with: the key that HKDF makes of data key and message id, and the commitment to the data key.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce, Tag};
use ctutils::CtEq;
use hkdf::Hkdf;
use key_broker_core::{Plaintext, secret};
use sha2::Sha512;
use zeroize::Zeroizing;

use super::{COMMITMENT_BYTES, DATA_KEY_BYTES, IV_BYTES, MessageId, SUITE, TAG_BYTES};

/// The keys of one message. Erased when dropped.
pub(super) struct MessageKeys {
    /// Erases its key schedule itself (its feature `zeroize`). Boxed, so that no move leaves a copy behind.
    aead: Box<Aes256Gcm>,
    /// Not secret.
    commitment: [u8; COMMITMENT_BYTES],
}

/// A data key of this suite has 32 bytes; this one has another number.
pub(super) struct WrongLength(pub(super) usize);

/// A tag is not that of these bytes under this key.
pub(super) struct Forged;

impl MessageKeys {
    /// Derives them (transitive-requirements.md, "HKDF Encryption Key" and "HKDF Commit Key").
    pub(super) fn derive(data_key: &Plaintext, message_id: &MessageId) -> Result<Self, WrongLength> {
        let data_key = data_key.as_ref();
        if data_key.len() != DATA_KEY_BYTES {
            return Err(WrongLength(data_key.len()));
        }
        let keys = derive(data_key, message_id);
        secret::wipe_stack();
        Ok(keys)
    }

    pub(super) fn commitment(&self) -> &[u8; COMMITMENT_BYTES] {
        &self.commitment
    }

    /// Whether `stored` commits to the data key, in constant time.
    pub(super) fn match_commitment(&self, stored: &[u8; COMMITMENT_BYTES]) -> bool {
        self.commitment.ct_eq(stored).into()
    }

    /// Encrypts `content` in place; its tag, which covers `aad` too. An IV serves once.
    pub(super) fn seal(&self, iv: [u8; IV_BYTES], aad: &[u8], content: &mut [u8]) -> [u8; TAG_BYTES] {
        let sealed = self.aead.encrypt_inout_detached(&Nonce::from(iv), aad, content.into());
        sealed.expect("AES-GCM takes up to 64 GiB, a frame is shorter than 4 GiB").into()
    }

    /// Decrypts `content` in place, or finds it or `aad` forged and leaves it as it is.
    pub(super) fn open(
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
fn derive(data_key: &[u8], message_id: &MessageId) -> MessageKeys {
    let hkdf = Hkdf::<Sha512>::new(Some(&message_id.0), data_key);
    let expand = |label: &[&[u8]], okm: &mut [u8]| {
        hkdf.expand_multi_info(label, okm).expect("HKDF-SHA512 gives up to 16,320 bytes");
    };
    let mut key = Zeroizing::new([0; DATA_KEY_BYTES]);
    expand(&[&SUITE.to_be_bytes(), b"DERIVEKEY"], key.as_mut());
    let mut commitment = [0; COMMITMENT_BYTES];
    expand(&[b"COMMITKEY"], &mut commitment);
    MessageKeys { aead: Box::new(Aes256Gcm::new((&*key).into())), commitment }
}

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    use super::*;

    /// Proves, at compile time: the features are on that make AES-GCM and SHA-512, and so HKDF, erase their state.
    #[test]
    fn derived_state_is_erased_on_drop() {
        fn erased<T: ZeroizeOnDrop>() {}
        erased::<Aes256Gcm>();
        erased::<Sha512>();
        erased::<Zeroizing<[u8; DATA_KEY_BYTES]>>();
    }

    /// Proves: only 32 bytes are a data key.
    #[test]
    fn a_data_key_of_another_length_is_refused() {
        for len in [0, 16, 31, 33, 64] {
            let refused = MessageKeys::derive(&Plaintext::new(vec![1; len]), &MessageId([0; 32])).err();
            assert_eq!(refused.map(|WrongLength(found)| found), Some(len));
        }
    }
}
