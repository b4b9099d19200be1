//! What one message is encrypted with: the key that HKDF makes of data key and message id, and the commitment to the data key.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hkdf::{HKDF_SHA256, HKDF_SHA384, HKDF_SHA512, KeyType, Salt};
use key_broker_core::{Plaintext, secret};
use zeroize::Zeroizing;

use crate::format::{DATA_KEY_BYTES, IV_BYTES, TAG_BYTES};
use crate::suite::Suite;

/// The keys of one message. Erased when dropped.
pub(crate) struct MessageKeys {
    /// AWS-LC keeps it on the heap, so that no move leaves a copy behind, and erases what it frees.
    aead: LessSafeKey,
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

    /// What the header has for it: nothing where the suite does not commit.
    pub(crate) fn commitment(&self) -> &[u8] {
        &self.commitment
    }

    /// Whether `stored` commits to the data key, in constant time.
    pub(crate) fn match_commitment(&self, stored: &[u8]) -> bool {
        verify_slices_are_equal(&self.commitment, stored).is_ok()
    }

    /// Encrypts `content` in place; its tag, which covers `aad` too. An IV serves once.
    pub(crate) fn seal(&self, iv: [u8; IV_BYTES], aad: &[u8], content: &mut [u8]) -> [u8; TAG_BYTES] {
        let nonce = Nonce::assume_unique_for_key(iv);
        let sealed = self.aead.seal_in_place_separate_tag(nonce, Aad::from(aad), content);
        let tag = sealed.expect("AES-GCM takes up to 64 GiB, a frame is shorter than 4 GiB");
        *tag.as_ref().first_chunk().expect("a tag of AES-GCM has 16 bytes")
    }

    /// Decrypts `content` into `plaintext`, which is as long, or finds it or `aad` forged and leaves zeros there.
    pub(crate) fn open(
        &self,
        iv: [u8; IV_BYTES],
        aad: &[u8],
        content: &[u8],
        tag: [u8; TAG_BYTES],
        plaintext: &mut [u8],
    ) -> Result<(), Forged> {
        let nonce = Nonce::assume_unique_for_key(iv);
        let opened = self.aead.open_separate_gather(nonce, Aad::from(aad), content, &tag, plaintext);
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
    let id = suite.id().to_be_bytes();
    // Without a salt it is zeros, which are the same to HMAC.
    let (algorithm, salt, info) = match suite {
        Suite::Committed | Suite::CommittedSigned => (HKDF_SHA512, message_id, [&id[..], b"DERIVEKEY"]),
        Suite::Uncommitted => (HKDF_SHA256, &[][..], [&id[..], message_id]),
        Suite::UncommittedSigned => (HKDF_SHA384, &[][..], [&id[..], message_id]),
    };
    let extracted = Salt::new(algorithm, salt).extract(data_key);
    let expand = |info: &[&[u8]]| {
        let mut bytes = Zeroizing::new([0; DATA_KEY_BYTES]);
        let expanded = extracted.expand(info, Derived).and_then(|okm| okm.fill(bytes.as_mut()));
        expanded.expect("HKDF gives 255 times its hash's length, which is more than 32 bytes");
        bytes
    };
    let key = UnboundKey::new(&AES_256_GCM, expand(&info).as_ref()).expect("32 bytes are a key of AES-256");
    let commitment = if suite.is_committed() { expand(&[b"COMMITKEY"]).to_vec() } else { Vec::new() };
    MessageKeys { aead: LessSafeKey::new(key), commitment }
}

/// What HKDF is to give: a key or a commitment, both of 32 bytes.
struct Derived;

impl KeyType for Derived {
    fn len(&self) -> usize {
        DATA_KEY_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
