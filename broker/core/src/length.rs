//! The length of data keys and random bytes.

use crate::invalid::InvalidValue;

/// The length of a data key, in one of the two ways KMS takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataKeyLength {
    /// 32 bytes, `AES_256`.
    Aes256,
    /// 16 bytes, `AES_128`.
    Aes128,
    /// 1 to 1,024 bytes.
    Bytes(RandomLength),
}

/// A number of random bytes that KMS makes in one call: 1 to 1,024.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RandomLength(u16);

impl RandomLength {
    /// Checks the range.
    pub fn parse(bytes: u32) -> Result<Self, InvalidValue> {
        match u16::try_from(bytes) {
            Ok(n) if (1..=MAX_RANDOM_BYTES).contains(&n) => Ok(Self(n)),
            _ => Err(InvalidValue(format!("number_of_bytes is {bytes}; KMS takes 1 to {MAX_RANDOM_BYTES}"))),
        }
    }
}

impl From<RandomLength> for u16 {
    fn from(RandomLength(bytes): RandomLength) -> Self {
        bytes
    }
}

/// KMS: `NumberOfBytes` is 1 to 1,024.
const MAX_RANDOM_BYTES: u16 = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: the range is KMS's own.
    #[test]
    fn limits_are_those_of_kms() {
        assert!(RandomLength::parse(1).is_ok() && RandomLength::parse(1_024).is_ok());
        for outside in [0, 1_025, u32::MAX] {
            assert!(RandomLength::parse(outside).is_err(), "{outside}");
        }
    }
}
