//! The RSA key that KMS encrypts its answers to.

use std::fmt;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use zeroize::Zeroizing;

use super::cms::{Envelope, OpenError};
use crate::Plaintext;

/// A private RSA key that lives in the memory of this enclave only. It cannot be exported, printed or copied; AWS-LC erases it
/// when it is dropped.
pub struct RecipientKey {
    private: OaepPrivateDecryptingKey,
    public_spki: Vec<u8>,
}

/// There is no such key: it could not be made, or what was given is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyError(&'static str);

impl RecipientKey {
    /// A new RSA-2048 key, the size that KMS's own clients use. Takes about a tenth of a second of
    /// computation.
    pub fn generate() -> Result<Self, KeyError> {
        let unmade = |_| KeyError("an RSA-2048 key could not be made");
        Self::of(PrivateDecryptingKey::generate(KeySize::Rsa2048).map_err(unmade)?)
    }

    /// The key in `pkcs8`, a PKCS#8 (RFC 5208) private key in DER: for a document that was made beforehand, in tests.
    /// 2,048 to 8,192 bits. Whoever has `pkcs8` erases it.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, KeyError> {
        let none = |_| KeyError("not an RSA private key in PKCS#8, DER");
        Self::of(PrivateDecryptingKey::from_pkcs8(pkcs8).map_err(none)?)
    }

    /// The public key, as `SubjectPublicKeyInfo` (RFC 5280) in DER: it goes into the attestation document.
    #[must_use]
    pub fn public_key_spki(&self) -> &[u8] {
        &self.public_spki
    }

    /// Opens `ciphertext_for_recipient` as KMS returned it.
    pub fn open(&self, ciphertext_for_recipient: &[u8]) -> Result<Plaintext, OpenError> {
        let envelope = Envelope::parse(ciphertext_for_recipient)?;
        let mut space = Zeroizing::new(vec![0; self.private.min_output_size()]);
        let content_key = self
            .private
            .decrypt(&OAEP_SHA256_MGF1SHA256, envelope.encrypted_key(), &mut space, None)
            .map_err(|_| OpenError::NotOpened)?;
        Ok(envelope.open(content_key)?.into())
    }

    fn of(private: PrivateDecryptingKey) -> Result<Self, KeyError> {
        let unfit = |_| KeyError("the RSA key does not fit RSAES-OAEP");
        let public_spki = private.public_key().as_der().map_err(unfit)?.as_ref().to_vec();
        let private = OaepPrivateDecryptingKey::new(private).map_err(unfit)?;
        Ok(Self { private, public_spki })
    }
}

impl fmt::Debug for RecipientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecipientKey(…)")
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for KeyError {}
