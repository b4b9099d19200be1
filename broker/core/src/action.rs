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

    /// The name of the call's span.
    #[must_use]
    pub const fn span_name(self) -> &'static str {
        match self {
            Self::GenerateDataKey => "keybroker.v1.KeyBroker/GenerateDataKey",
            Self::GenerateDataKeyWithoutPlaintext => "keybroker.v1.KeyBroker/GenerateDataKeyWithoutPlaintext",
            Self::Decrypt => "keybroker.v1.KeyBroker/Decrypt",
            Self::GenerateRandom => "keybroker.v1.KeyBroker/GenerateRandom",
            Self::DescribeKey => "keybroker.v1.KeyBroker/DescribeKey",
        }
    }

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
