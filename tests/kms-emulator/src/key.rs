//! A KMS key: what AWS tells about it, and the material that never leaves.

use std::fmt::Write as _;
use std::sync::Arc;

use aes_gcm::{Aes256Gcm, KeyInit};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RsaKeyPair};
use zeroize::Zeroizing;

use crate::attestation::Conditions;
use crate::error::ApiError;
use crate::random;

/// What a key is made of. <https://docs.aws.amazon.com/kms/latest/developerguide/symm-asymm-choose-key-spec.html>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySpec {
    /// 256 bits for AES-GCM: encrypts, decrypts, makes data keys.
    SymmetricDefault,
    /// RSA with 2048 bits, for signing.
    Rsa2048,
    /// RSA with 3072 bits, for signing.
    Rsa3072,
    /// RSA with 4096 bits, for signing.
    Rsa4096,
    /// 256 bits for HMAC. Nothing here uses it: it is a key of the wrong type.
    Hmac256,
}

impl KeySpec {
    /// Every spec there is.
    pub const ALL: [KeySpec; 5] =
        [KeySpec::SymmetricDefault, KeySpec::Rsa2048, KeySpec::Rsa3072, KeySpec::Rsa4096, KeySpec::Hmac256];

    /// AWS's name for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            KeySpec::SymmetricDefault => "SYMMETRIC_DEFAULT",
            KeySpec::Rsa2048 => "RSA_2048",
            KeySpec::Rsa3072 => "RSA_3072",
            KeySpec::Rsa4096 => "RSA_4096",
            KeySpec::Hmac256 => "HMAC_256",
        }
    }

    /// AWS's `KeyUsage` of such a key.
    #[must_use]
    pub fn usage(self) -> &'static str {
        match self {
            KeySpec::SymmetricDefault => "ENCRYPT_DECRYPT",
            KeySpec::Rsa2048 | KeySpec::Rsa3072 | KeySpec::Rsa4096 => "SIGN_VERIFY",
            KeySpec::Hmac256 => "GENERATE_VERIFY_MAC",
        }
    }

    pub(crate) fn named(name: &str) -> Option<KeySpec> {
        KeySpec::ALL.into_iter().find(|spec| spec.as_str() == name)
    }
}

/// One KMS key. A change makes a new value; the material is shared.
#[derive(Clone)]
pub(crate) struct Key {
    /// The UUID, or `mrk-` and 32 hex digits.
    pub(crate) id: String,
    /// The full ARN.
    pub(crate) arn: String,
    pub(crate) spec: KeySpec,
    pub(crate) description: String,
    /// Unix milliseconds.
    pub(crate) created: u64,
    pub(crate) state: KeyState,
    /// Of a replica: the region of the primary key.
    pub(crate) primary_region: Option<String>,
    /// What an attestation document must have for data keys and decryption.
    pub(crate) attestation: Conditions,
    pub(crate) material: Arc<Material>,
}

impl Key {
    pub(crate) fn multi_region(&self) -> bool {
        self.id.starts_with(MULTI_REGION_PREFIX)
    }

    /// The key, if it is enabled; otherwise AWS's refusal.
    pub(crate) fn enabled(&self) -> Result<&Key, ApiError> {
        match self.state {
            KeyState::Enabled => Ok(self),
            KeyState::Disabled => {
                Err(ApiError::new("DisabledException", format!("{} is disabled.", self.arn)))
            }
            KeyState::PendingDeletion { .. } => Err(self.pending_deletion()),
        }
    }

    pub(crate) fn pending_deletion(&self) -> ApiError {
        ApiError::invalid_state(format!("{} is pending deletion.", self.arn))
    }

    /// The refusal of a key whose `KeyUsage` does not fit the operation.
    pub(crate) fn wrong_usage(&self, operation: &str) -> ApiError {
        let usage = self.spec.usage();
        ApiError::new(
            "InvalidKeyUsageException",
            format!("{} key usage is {usage} which is not valid for {operation}.", self.arn),
        )
    }
}

/// Whether a key may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyState {
    Enabled,
    Disabled,
    /// Scheduled for deletion at `deletion` (unix milliseconds), after `window` days.
    PendingDeletion {
        deletion: u64,
        window: u16,
    },
}

/// What a key works with, wiped when dropped.
pub(crate) struct Material {
    /// AWS's `KeyMaterialId`: 32 random bytes that say nothing about the material.
    pub(crate) id: [u8; 32],
    pub(crate) secret: Secret,
}

/// The secret part, ready for use.
pub(crate) enum Secret {
    Symmetric { bytes: Zeroizing<Vec<u8>>, cipher: Box<Aes256Gcm> },
    Rsa { pkcs8: Zeroizing<Vec<u8>>, pair: RsaKeyPair },
    Hmac { bytes: Zeroizing<Vec<u8>> },
}

impl Material {
    /// New material. RSA takes from 50 ms (2048 bits) to a second (4096 bits): not for an async runtime's thread.
    pub(crate) fn generate(spec: KeySpec) -> Result<Material, String> {
        let secret = match spec {
            KeySpec::SymmetricDefault | KeySpec::Hmac256 => random::secret(SYMMETRIC_KEY_LENGTH),
            KeySpec::Rsa2048 => rsa(KeySize::Rsa2048)?,
            KeySpec::Rsa3072 => rsa(KeySize::Rsa3072)?,
            KeySpec::Rsa4096 => rsa(KeySize::Rsa4096)?,
        };
        Material::restore(spec, random::array(), secret)
    }

    /// Material from the bytes that [`Material::bytes`] gave.
    pub(crate) fn restore(
        spec: KeySpec,
        id: [u8; 32],
        bytes: Zeroizing<Vec<u8>>,
    ) -> Result<Material, String> {
        let secret = match spec {
            KeySpec::SymmetricDefault => {
                let cipher = Aes256Gcm::new_from_slice(&bytes).map_err(|error| error.to_string())?;
                Secret::Symmetric { bytes, cipher: Box::new(cipher) }
            }
            KeySpec::Hmac256 => Secret::Hmac { bytes },
            KeySpec::Rsa2048 | KeySpec::Rsa3072 | KeySpec::Rsa4096 => {
                let pair = RsaKeyPair::from_pkcs8(&bytes).map_err(|error| error.to_string())?;
                Secret::Rsa { pkcs8: bytes, pair }
            }
        };
        Ok(Material { id, secret })
    }

    /// What the state file keeps: 32 bytes, or PKCS #8 for RSA.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.secret {
            Secret::Symmetric { bytes, .. } | Secret::Hmac { bytes } | Secret::Rsa { pkcs8: bytes, .. } => {
                bytes
            }
        }
    }

    /// The id as AWS writes it: 64 lower-case hex digits.
    pub(crate) fn id_hex(&self) -> String {
        hex(&self.id)
    }

    /// The public key (DER `SubjectPublicKeyInfo`), if there is one.
    pub(crate) fn public_key(&self) -> Option<Vec<u8>> {
        let Secret::Rsa { pair, .. } = &self.secret else { return None };
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
        Some(der.as_ref().to_vec())
    }
}

/// How the id of a multi-Region key begins.
pub(crate) const MULTI_REGION_PREFIX: &str = "mrk-";

/// AES-256 and HMAC-SHA-256 keys, in bytes.
const SYMMETRIC_KEY_LENGTH: usize = 32;

/// A new key id of either form.
pub(crate) fn new_id(multi_region: bool) -> String {
    let uuid = random::uuid();
    if multi_region { format!("{MULTI_REGION_PREFIX}{}", uuid.simple()) } else { uuid.to_string() }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String does not fail");
        text
    })
}

fn rsa(size: KeySize) -> Result<Zeroizing<Vec<u8>>, String> {
    let pair = RsaKeyPair::generate(size).map_err(|error| error.to_string())?;
    let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|error| error.to_string())?;
    Ok(Zeroizing::new(der.as_ref().to_vec()))
}
