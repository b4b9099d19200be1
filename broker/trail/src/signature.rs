//! Signing digests, and the public keys that verify them.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use key_broker_core::{KeyArn, KeyId};
use md5::Md5;
use sha2::{Digest as _, Sha256};
use spki::SubjectPublicKeyInfoRef;
use spki::der::Decode as _;
use spki::der::pem::{LineEnding, decode_vec, encode_string};
use zeroize::Zeroizing;

use crate::keys::TrailKeys;

/// The public half of a signing key: RSA, 2,048 to 8,192 bits.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// RFC 8017, A.1.1: CloudTrail's fingerprint is of this form.
    pkcs1: Vec<u8>,
}

impl PublicKey {
    /// Reads an X.509 `SubjectPublicKeyInfo` in DER, as KMS gives it.
    pub fn from_spki(der: &[u8]) -> Result<Self, String> {
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| not_rsa())?;
        if info.algorithm.oid != RSA_ENCRYPTION {
            return Err(not_rsa());
        }
        let pkcs1 = info.subject_public_key.as_bytes().ok_or_else(not_rsa)?;
        Ok(Self { pkcs1: pkcs1.to_vec() })
    }

    /// Reads PEM: `PUBLIC KEY` (X.509) or `RSA PUBLIC KEY` (PKCS#1).
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let (label, der) = decode_vec(pem).map_err(|error| format!("not PEM: {error}"))?;
        match label {
            "PUBLIC KEY" => Self::from_spki(&der),
            "RSA PUBLIC KEY" => Ok(Self { pkcs1: der }),
            other => Err(format!("a PEM of {other:?}: give a PUBLIC KEY or RSA PUBLIC KEY")),
        }
    }

    /// As PEM, `RSA PUBLIC KEY`.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "nothing can fail")]
    pub fn to_pem(&self) -> String {
        encode_string("RSA PUBLIC KEY", LineEnding::LF, &self.pkcs1)
            .expect("the label is one, and memory takes what is written")
    }

    /// CloudTrail's name of the key: MD5, in hex, of its PKCS#1 DER.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex::encode(Md5::digest(&self.pkcs1))
    }

    /// Whether `signature` of `message` is by this key: RSASSA-PKCS1-v1_5 with SHA-256.
    #[must_use]
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.pkcs1);
        key.verify(message, signature).is_ok()
    }
}

/// Signs digests.
pub(crate) struct Signer {
    key: SigningKey,
    public: PublicKey,
}

enum SigningKey {
    /// KMS signs: no private key is on this host.
    Kms(Arc<dyn TrailKeys>, KeyId),
    /// The private key was in a file.
    Local(Box<RsaKeyPair>),
}

impl Signer {
    /// A key of KMS, with its public half as KMS gave it.
    #[must_use]
    pub(crate) fn kms(keys: Arc<dyn TrailKeys>, key: &KeyArn, public: PublicKey) -> Self {
        Self { key: SigningKey::Kms(keys, key.into()), public }
    }

    /// Reads a private key from PEM: `PRIVATE KEY` (PKCS#8) or `RSA PRIVATE KEY` (PKCS#1), not encrypted.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let (label, der) = decode_vec(pem).map_err(|error| format!("not PEM: {error}"))?;
        let der = Zeroizing::new(der);
        let pair = match label {
            "PRIVATE KEY" => RsaKeyPair::from_pkcs8(&der),
            "RSA PRIVATE KEY" => RsaKeyPair::from_der(&der),
            other => {
                return Err(format!(
                    "a PEM of {other:?}: give an unencrypted PRIVATE KEY or RSA PRIVATE KEY, as `openssl genrsa 2048` makes"
                ));
            }
        };
        let pair = pair.map_err(|_| not_rsa())?;
        check_size(pair.public_modulus_len())?;
        let public = PublicKey { pkcs1: pair.public_key().as_ref().to_vec() };
        Ok(Self { key: SigningKey::Local(Box::new(pair)), public })
    }

    /// The key that verifies its signatures.
    #[must_use]
    pub(crate) fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Signs with RSASSA-PKCS1-v1_5 and SHA-256, so that a repetition makes the same signature. Also returns KMS's requestID, if KMS signs.
    pub(crate) async fn sign(&self, message: &[u8]) -> Result<(Vec<u8>, Option<String>), String> {
        let (signature, request_id) = match &self.key {
            SigningKey::Local(pair) => (sign_locally(pair, message)?, None),
            SigningKey::Kms(keys, key) => {
                let signed = keys.sign(key, Sha256::digest(message).into()).await;
                signed.map_err(|error| error.words)?
            }
        };
        if self.public.verifies(message, &signature) {
            Ok((signature, request_id))
        } else {
            Err("the signature does not fit the public key: the key behind the alias has changed?".to_owned())
        }
    }
}

fn check_size(signature_bytes: usize) -> Result<(), String> {
    if signature_bytes <= MAX_SIGNATURE_BYTES {
        return Ok(());
    }
    Err("an RSA key of more than 4,096 bits, whose signatures S3 cannot keep beside an object: give one of 2,048 to 4,096 bits".to_owned())
}

fn sign_locally(pair: &RsaKeyPair, message: &[u8]) -> Result<Vec<u8>, String> {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
        .map_err(|_| "signing fails".to_owned())?;
    Ok(signature)
}

/// The error for an unusable key, with what to give instead.
fn not_rsa() -> String {
    "not an RSA key of 2,048 to 8,192 bits, which is what CloudTrail's readers check digests with".to_owned()
}

/// The length with KMS's largest RSA keys. S3 allows 2 KB of metadata with an object, where the signature is in hex
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html>).
const MAX_SIGNATURE_BYTES: usize = 512;
/// RFC 8017, A.1: `rsaEncryption`.
const RSA_ENCRYPTION: spki::ObjectIdentifier = spki::ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

#[cfg(test)]
mod tests {
    //! Keys of all forms are accepted, others are refused with what to give instead, and only the right signature verifies.

    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
    use aws_lc_rs::rsa::{KeyPair, KeySize};

    use super::*;

    fn pem(label: &str, der: &[u8]) -> Vec<u8> {
        encode_string(label, LineEnding::LF, der).expect("encodes").into_bytes()
    }

    #[tokio::test]
    async fn a_key_signs_and_its_public_half_checks_in_every_form() {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
        let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).expect("encodes");
        let signer = Signer::from_pem(&pem("PRIVATE KEY", pkcs8.as_ref())).expect("reads");
        let signature = signer.sign(b"message").await.expect("signs").0;
        assert_eq!(signer.sign(b"message").await.expect("signs").0, signature, "the same again");
        let public = signer.public_key();
        assert!(public.verifies(b"message", &signature));
        assert!(!public.verifies(b"massage", &signature));
        assert!(PublicKey::from_pem(public.to_pem().as_bytes()).expect("reads") == *public);
        let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).expect("encodes");
        assert!(PublicKey::from_spki(spki.as_ref()).expect("reads") == *public);
        assert_eq!(public.fingerprint().len(), 32);
    }

    #[test]
    fn what_is_no_rsa_key_is_refused_with_what_to_give() {
        let refused = |text: &[u8]| Signer::from_pem(text).err().expect("refused");
        assert!(refused(b"nonsense").contains("not PEM"));
        assert!(refused(&pem("CERTIFICATE", b"x")).contains("openssl genrsa"));
        assert!(refused(&pem("PRIVATE KEY", b"x")).contains("RSA"));
        assert!(PublicKey::from_pem(&pem("PUBLIC KEY", b"x")).is_err());
        assert_eq!(check_size(4_096 / 8), Ok(()));
        assert!(check_size(8_192 / 8).is_err_and(|error| error.contains("4,096")));
    }
}
