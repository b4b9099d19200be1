//! Grant tokens, as sent to KMS.

use key_broker_core::InvalidValue;

/// Proofs of grants that KMS has made but not yet spread: at most ten, each of 1 to 8,192 bytes.
#[derive(Clone, Default)]
pub(crate) struct GrantTokens(Vec<String>);

impl GrantTokens {
    /// Checks number and lengths.
    pub(crate) fn parse(tokens: Vec<String>) -> Result<Self, InvalidValue> {
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
    pub(crate) fn as_slice(&self) -> &[String] {
        &self.0
    }
}

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
        assert!(GrantTokens::parse(vec!["t".into(); 10]).is_ok());
        assert!(GrantTokens::parse(vec!["t".into(); 11]).is_err());
        assert!(GrantTokens::parse(vec!["t".repeat(8_192)]).is_ok());
        assert!(GrantTokens::parse(vec!["t".repeat(8_193)]).is_err());
    }
}
