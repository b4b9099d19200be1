//! A KMS key: what AWS tells about it, and the material that never leaves.

use std::fmt::Write as _;
use std::sync::Arc;

use aes_gcm::{Aes256Gcm, KeyInit};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RsaKeyPair};
use zeroize::Zeroizing;

use crate::account::Account;
use crate::attestation::Conditions;
use crate::error::ApiError;
use crate::grant::Grant;
use crate::policy::Policy;
use crate::random;

/// The key spec. <https://docs.aws.amazon.com/kms/latest/developerguide/symm-asymm-choose-key-spec.html>
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
    /// The region of the primary key, for a replica.
    pub(crate) primary_region: Option<String>,
    /// The conditions on attestation documents for data keys and decryption.
    pub(crate) attestation: Conditions,
    /// Nothing: everything is left to the accounts that call.
    pub(crate) policy: Option<Arc<Policy>>,
    pub(crate) grants: Vec<Grant>,
    pub(crate) origin: Origin,
    /// The current key material; none before it is imported and after it is deleted.
    pub(crate) material: Option<Arc<Material>>,
    /// The key material of earlier rotations, the oldest first.
    pub(crate) former: Vec<Arc<Material>>,
}

/// The origin of a key's material.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    AwsKms,
    External {
        /// The id of the one material that it takes, once that was imported.
        material_id: Option<[u8; 32]>,
        /// When the material expires, in unix milliseconds.
        expires: Option<u64>,
    },
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

impl Key {
    /// A key that nothing was put on yet.
    pub(crate) fn new(
        account: &Account,
        spec: KeySpec,
        multi_region: bool,
        created: u64,
        material: Option<Material>,
    ) -> Key {
        let id = new_id(multi_region);
        Key {
            arn: account.arn(&format!("key/{id}")),
            id,
            spec,
            description: String::new(),
            created,
            state: KeyState::Enabled,
            primary_region: None,
            attestation: Conditions::default(),
            policy: None,
            grants: Vec::new(),
            origin: if material.is_some() { Origin::AwsKms } else { Origin::EXPECTING },
            material: material.map(Arc::new),
            former: Vec::new(),
        }
    }

    pub(crate) fn multi_region(&self) -> bool {
        self.id.starts_with(MULTI_REGION_PREFIX)
    }

    /// AWS's `KeyState`.
    pub(crate) fn status(&self, now: u64) -> &'static str {
        match self.state {
            KeyState::PendingDeletion { .. } => "PendingDeletion",
            KeyState::Enabled | KeyState::Disabled if self.current(now).is_none() => "PendingImport",
            KeyState::Enabled => "Enabled",
            KeyState::Disabled => "Disabled",
        }
    }

    /// The material that is there and has not expired.
    pub(crate) fn current(&self, now: u64) -> Option<&Material> {
        let expired =
            matches!(self.origin, Origin::External { expires: Some(expires), .. } if expires <= now);
        self.material.as_deref().filter(|_| !expired)
    }

    /// The material of a key that may be used; otherwise AWS's refusal.
    pub(crate) fn usable(&self, now: u64) -> Result<&Material, ApiError> {
        match (self.state, self.current(now)) {
            (KeyState::PendingDeletion { .. }, _) => Err(self.pending_deletion()),
            (_, None) => Err(self.pending_import()),
            (KeyState::Disabled, _) => {
                Err(ApiError::new("DisabledException", format!("{} is disabled.", self.arn)))
            }
            (KeyState::Enabled, Some(material)) => Ok(material),
        }
    }

    /// The material with an id, of those that the key has or had.
    pub(crate) fn material_of(&self, id: &[u8; 32]) -> Option<&Material> {
        self.material.iter().chain(&self.former).find(|material| material.id == *id).map(AsRef::as_ref)
    }

    pub(crate) fn pending_deletion(&self) -> ApiError {
        ApiError::invalid_state(format!("{} is pending deletion.", self.arn))
    }

    pub(crate) fn pending_import(&self) -> ApiError {
        ApiError::invalid_state(format!("{} is pending import.", self.arn))
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

impl Origin {
    /// The origin of a key that waits for its import.
    pub(crate) const EXPECTING: Origin = Origin::External { material_id: None, expires: None };
}

/// Key material, wiped when dropped.
pub(crate) struct Material {
    /// AWS's `KeyMaterialId`: 32 bytes that are random or, of imported material, a digest.
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

    /// Material that was imported into a key. The same bytes have the same id there, and another in every other key.
    pub(crate) fn import(key_id: &str, bytes: Zeroizing<Vec<u8>>) -> Result<Material, String> {
        let mut named = Zeroizing::new(key_id.as_bytes().to_vec());
        named.extend_from_slice(&bytes);
        let id = digest(&SHA256, &named);
        let id = id.as_ref().try_into().map_err(|_| "SHA-256 has 32 bytes".to_owned())?;
        Material::restore(KeySpec::SymmetricDefault, id, bytes)
    }

    /// The bytes for the state file: 32, or PKCS #8 for RSA.
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
pub(crate) const SYMMETRIC_KEY_LENGTH: usize = 32;

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
