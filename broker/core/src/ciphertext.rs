//! Ciphertexts, as sent to KMS.

use bytes::Bytes;

use crate::invalid::InvalidValue;

/// What KMS encrypted: 1 to 6,144 bytes.
#[derive(Clone)]
pub struct CiphertextBlob(Bytes);

impl CiphertextBlob {
    /// Checks the length.
    pub fn parse(bytes: Bytes) -> Result<Self, InvalidValue> {
        match bytes.len() {
            0 => Err(InvalidValue("ciphertext_blob is empty".into())),
            1..=MAX_CIPHERTEXT_BYTES => Ok(Self(bytes)),
            n => Err(InvalidValue(format!(
                "ciphertext_blob has {n} bytes; KMS takes at most {MAX_CIPHERTEXT_BYTES}"
            ))),
        }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// KMS: `CiphertextBlob` has 1 to 6,144 bytes.
const MAX_CIPHERTEXT_BYTES: usize = 6_144;

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: the limits are KMS's own.
    #[test]
    fn limits_are_those_of_kms() {
        assert!(CiphertextBlob::parse(Bytes::from(vec![0; 6_144])).is_ok());
        assert!(CiphertextBlob::parse(Bytes::from(vec![0; 6_145])).is_err());
    }
}
