//! Ciphertexts and grant tokens, as sent to KMS.

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

/// Proofs of grants that KMS has made but not yet spread: at most ten, each of 1 to 8,192 bytes.
#[derive(Clone, Default)]
pub struct GrantTokens(Vec<String>);

impl GrantTokens {
    /// Checks number and lengths.
    pub fn parse(tokens: Vec<String>) -> Result<Self, InvalidValue> {
        if tokens.len() > MAX_GRANT_TOKENS {
            return Err(InvalidValue(format!(
                "{} grant_tokens; KMS takes at most {MAX_GRANT_TOKENS}",
                tokens.len()
            )));
        }
        if tokens.iter().any(|token| token.is_empty() || token.len() > MAX_GRANT_TOKEN_BYTES) {
            return Err(InvalidValue(format!("a grant token has 1 to {MAX_GRANT_TOKEN_BYTES} bytes")));
        }
        Ok(Self(tokens))
    }

    /// The tokens.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

/// KMS: `CiphertextBlob` has 1 to 6,144 bytes.
const MAX_CIPHERTEXT_BYTES: usize = 6_144;
/// KMS: at most ten grant tokens.
const MAX_GRANT_TOKENS: usize = 10;
/// KMS: a grant token has 1 to 8,192 characters.
const MAX_GRANT_TOKEN_BYTES: usize = 8_192;

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: the limits are KMS's own.
    #[test]
    fn limits_are_those_of_kms() {
        assert!(CiphertextBlob::parse(Bytes::from(vec![0; 6_144])).is_ok());
        assert!(CiphertextBlob::parse(Bytes::from(vec![0; 6_145])).is_err());
        assert!(
            GrantTokens::parse(vec!["t".into(); 10]).is_ok()
                && GrantTokens::parse(vec!["t".into(); 11]).is_err()
        );
    }
}
