//! What workloads ask for.

use serde::{Deserialize, Serialize};

/// What workloads ask for, named as the KMS operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// A data key.
    GenerateDataKey,
    /// A data key in encrypted form only.
    GenerateDataKeyWithoutPlaintext,
    /// A decrypt.
    Decrypt,
    /// Random bytes.
    GenerateRandom,
    /// What KMS knows about a key.
    DescribeKey,
}

impl Action {
    /// Every action, in the order of the contract.
    pub const ALL: [Self; 5] = [
        Self::GenerateDataKey,
        Self::GenerateDataKeyWithoutPlaintext,
        Self::Decrypt,
        Self::GenerateRandom,
        Self::DescribeKey,
    ];

    /// The KMS operation's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::GenerateDataKey => "GenerateDataKey",
            Self::GenerateDataKeyWithoutPlaintext => "GenerateDataKeyWithoutPlaintext",
            Self::Decrypt => "Decrypt",
            Self::GenerateRandom => "GenerateRandom",
            Self::DescribeKey => "DescribeKey",
        }
    }
}
