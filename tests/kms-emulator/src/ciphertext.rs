//! The ciphertext blob: AES-256-GCM behind a header that names the key, so that `Decrypt` needs no key id.
//!
//! ```text
//! version 1 | kind of key id 1 | key id 16 | key material id 32 | nonce 12 | checksum 4 | ciphertext | tag 16
//! ```
//! All of the header and the encryption context are authenticated. The checksum over the header tells a blob of another
//! KMS (whole, but its key is unknown here) from an altered one, as AWS's answers do. AWS documents no format; like
//! AWS's, this one adds far less than the 2,048 bytes that the limits on plaintext and blob leave.

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use aws_lc_rs::digest::{SHA256, digest};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::context::{EncryptionContext, canonical};
use crate::key::MULTI_REGION_PREFIX;
use crate::random;

/// A blob taken apart, its checksum right, its tag not yet checked.
pub(crate) struct CiphertextBlob<'a> {
    /// The key that encrypted it.
    pub(crate) key_id: String,
    /// The material of that key.
    pub(crate) material_id: [u8; 32],
    header: &'a [u8],
    sealed: &'a [u8],
}

impl<'a> CiphertextBlob<'a> {
    /// Reads a blob's header; nothing if it is none, or was altered.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<CiphertextBlob<'a>> {
        let (header, sealed) = bytes.split_at_checked(HEADER_LENGTH)?;
        let (&[version, kind], rest) = header.split_first_chunk::<2>()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (material_id, _nonce_and_checksum) = rest.split_first_chunk::<32>()?;
        let key_id = match kind {
            SINGLE_REGION => Uuid::from_bytes(*id).to_string(),
            MULTI_REGION => format!("{MULTI_REGION_PREFIX}{}", Uuid::from_bytes(*id).simple()),
            _ => return None,
        };
        let (named, check) = header.split_at(CHECKSUM_AT);
        (version == VERSION && check == checksum(named)).then_some(CiphertextBlob {
            key_id,
            material_id: *material_id,
            header,
            sealed,
        })
    }

    /// The plaintext; nothing if the blob, the key or the context is not the one of encryption.
    pub(crate) fn open(&self, cipher: &Aes256Gcm, context: &EncryptionContext) -> Option<Zeroizing<Vec<u8>>> {
        let nonce: [u8; 12] = self.header.get(NONCE_AT..CHECKSUM_AT)?.try_into().ok()?;
        let aad = associated_data(self.header, context);
        let payload = Payload { msg: self.sealed, aad: &aad };
        cipher.decrypt(&Nonce::from(nonce), payload).ok().map(Zeroizing::new)
    }
}

/// Encrypts under a key, bound to a context.
pub(crate) fn seal(
    cipher: &Aes256Gcm,
    key_id: &str,
    material_id: &[u8; 32],
    context: &EncryptionContext,
    plaintext: &[u8],
) -> Vec<u8> {
    let (kind, uuid) = match key_id.strip_prefix(MULTI_REGION_PREFIX) {
        Some(hex) => (MULTI_REGION, Uuid::try_parse(hex)),
        None => (SINGLE_REGION, Uuid::try_parse(key_id)),
    };
    let uuid = uuid.expect("key ids are made by `new_id` and checked when the state file is read");
    let nonce: [u8; 12] = random::array();
    let mut blob = Vec::with_capacity(OVERHEAD + plaintext.len());
    blob.extend_from_slice(&[VERSION, kind]);
    blob.extend_from_slice(uuid.as_bytes());
    blob.extend_from_slice(material_id);
    blob.extend_from_slice(&nonce);
    let check = checksum(&blob);
    blob.extend_from_slice(&check);
    let aad = associated_data(&blob, context);
    let sealed = cipher
        .encrypt(&Nonce::from(nonce), Payload { msg: plaintext, aad: &aad })
        .expect("AES-GCM takes up to 64 GiB, a request's body is limited to far less");
    blob.extend_from_slice(&sealed);
    blob
}

fn associated_data(header: &[u8], context: &EncryptionContext) -> Vec<u8> {
    [header, &canonical(context)].concat()
}

fn checksum(named: &[u8]) -> [u8; 4] {
    let hash = digest(&SHA256, named);
    *hash.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

const VERSION: u8 = 1;
const SINGLE_REGION: u8 = 0;
const MULTI_REGION: u8 = 1;
const NONCE_AT: usize = 2 + 16 + 32;
const CHECKSUM_AT: usize = NONCE_AT + 12;
const HEADER_LENGTH: usize = CHECKSUM_AT + 4;
/// The bytes by which a ciphertext blob is longer than its plaintext.
const OVERHEAD: usize = HEADER_LENGTH + 16;

// The largest plaintext's blob is one that `Decrypt` takes.
const _: () = assert!(4096 + OVERHEAD < 6144);

#[cfg(test)]
mod tests {
    use aes_gcm::KeyInit;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;
    use crate::key::new_id;

    fn cipher() -> Aes256Gcm {
        Aes256Gcm::new(&[7; 32].into())
    }

    fn contexts() -> impl Strategy<Value = EncryptionContext> {
        btree_map("[a-z]{1,4}", "[a-z]{0,4}", 0..4)
    }

    fn opened(blob: &[u8], context: &EncryptionContext) -> Option<Vec<u8>> {
        CiphertextBlob::parse(blob)?.open(&cipher(), context).map(|plaintext| plaintext.to_vec())
    }

    proptest! {
        #[test]
        fn a_blob_opens_to_its_plaintext_and_names_its_key(
            plaintext in vec(any::<u8>(), 0..4096), context in contexts(), multi_region in any::<bool>(),
        ) {
            let id = new_id(multi_region);
            let blob = seal(&cipher(), &id, &[3; 32], &context, &plaintext);
            prop_assert_eq!(blob.len(), plaintext.len() + OVERHEAD);
            let parsed = CiphertextBlob::parse(&blob).expect("a blob just made");
            prop_assert_eq!(&parsed.key_id, &id);
            prop_assert_eq!(parsed.material_id, [3; 32]);
            prop_assert_eq!(opened(&blob, &context), Some(plaintext));
        }

        #[test]
        fn another_context_does_not_open_it(one in contexts(), other in contexts()) {
            prop_assume!(one != other);
            let blob = seal(&cipher(), &new_id(false), &[0; 32], &one, b"secret");
            prop_assert_eq!(opened(&blob, &other), None);
        }

        #[test]
        fn a_truncated_blob_does_not_open(keep in 0..OVERHEAD + 6) {
            let context = EncryptionContext::new();
            let blob = seal(&cipher(), &new_id(false), &[0; 32], &context, b"secret");
            prop_assert_eq!(opened(&blob[..keep], &context), None);
        }

        #[test]
        fn garbage_does_not_open(bytes in vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(opened(&bytes, &EncryptionContext::new()), None);
        }
    }

    #[test]
    fn no_flipped_bit_opens() {
        let context = EncryptionContext::from([("a".into(), "b".into())]);
        let blob = seal(&cipher(), &new_id(false), &[9; 32], &context, b"secret");
        for bit in 0..blob.len() * 8 {
            let mut altered = blob.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(opened(&altered, &context), None, "bit {bit}");
        }
    }
}
