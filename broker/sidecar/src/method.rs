//! The methods of `keybroker.v1.KeyBroker`: their wire names, and the actions that policy must permit.

use key_broker_core::Action;

/// A method that workloads call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    EncryptMessage,
    DecryptMessage,
    EncryptMessageStream,
    DecryptMessageStream,
    GenerateDataKey,
    GenerateDataKeyWithoutPlaintext,
    Decrypt,
    Encrypt,
    ReEncrypt,
    GenerateDataKeyPair,
    GenerateDataKeyPairWithoutPlaintext,
    GenerateRandom,
    DescribeKey,
}

impl Method {
    /// Every method, in the order of the contract.
    pub(crate) const ALL: [Self; 13] = [
        Self::EncryptMessage,
        Self::DecryptMessage,
        Self::EncryptMessageStream,
        Self::DecryptMessageStream,
        Self::GenerateDataKey,
        Self::GenerateDataKeyWithoutPlaintext,
        Self::Decrypt,
        Self::Encrypt,
        Self::ReEncrypt,
        Self::GenerateDataKeyPair,
        Self::GenerateDataKeyPairWithoutPlaintext,
        Self::GenerateRandom,
        Self::DescribeKey,
    ];

    /// The method of this name in the path of a request, below the service's.
    #[must_use]
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.full_name().strip_prefix(SERVICE) == Some(name))
    }

    /// Its name with its service, as in the path of a request, in `rpc.method` and as the name of its span.
    #[must_use]
    pub(crate) const fn full_name(self) -> &'static str {
        match self {
            Self::EncryptMessage => "keybroker.v1.KeyBroker/EncryptMessage",
            Self::DecryptMessage => "keybroker.v1.KeyBroker/DecryptMessage",
            Self::EncryptMessageStream => "keybroker.v1.KeyBroker/EncryptMessageStream",
            Self::DecryptMessageStream => "keybroker.v1.KeyBroker/DecryptMessageStream",
            Self::GenerateDataKey => "keybroker.v1.KeyBroker/GenerateDataKey",
            Self::GenerateDataKeyWithoutPlaintext => "keybroker.v1.KeyBroker/GenerateDataKeyWithoutPlaintext",
            Self::Decrypt => "keybroker.v1.KeyBroker/Decrypt",
            Self::Encrypt => "keybroker.v1.KeyBroker/Encrypt",
            Self::ReEncrypt => "keybroker.v1.KeyBroker/ReEncrypt",
            Self::GenerateDataKeyPair => "keybroker.v1.KeyBroker/GenerateDataKeyPair",
            Self::GenerateDataKeyPairWithoutPlaintext => {
                "keybroker.v1.KeyBroker/GenerateDataKeyPairWithoutPlaintext"
            }
            Self::GenerateRandom => "keybroker.v1.KeyBroker/GenerateRandom",
            Self::DescribeKey => "keybroker.v1.KeyBroker/DescribeKey",
        }
    }

    /// What policy is asked for. A stream is the same action as one message; of ReEncrypt, policy is asked for `ReEncryptTo`, too.
    #[must_use]
    pub(crate) const fn action(self) -> Action {
        match self {
            Self::EncryptMessage | Self::EncryptMessageStream => Action::EncryptMessage,
            Self::DecryptMessage | Self::DecryptMessageStream => Action::DecryptMessage,
            Self::GenerateDataKey => Action::GenerateDataKey,
            Self::GenerateDataKeyWithoutPlaintext => Action::GenerateDataKeyWithoutPlaintext,
            Self::Decrypt => Action::Decrypt,
            Self::Encrypt => Action::Encrypt,
            Self::ReEncrypt => Action::ReEncryptFrom,
            Self::GenerateDataKeyPair => Action::GenerateDataKeyPair,
            Self::GenerateDataKeyPairWithoutPlaintext => Action::GenerateDataKeyPairWithoutPlaintext,
            Self::GenerateRandom => Action::GenerateRandom,
            Self::DescribeKey => Action::DescribeKey,
        }
    }

    /// `eventName` in its records.
    #[must_use]
    pub(crate) const fn event_name(self) -> &'static str {
        match self {
            Self::ReEncrypt => "ReEncrypt",
            _ => self.action().name(),
        }
    }

    /// How long one request may be, in bytes: see LIMITS in `key_broker.proto`.
    #[must_use]
    pub(crate) const fn most_request_bytes(self) -> usize {
        match self {
            Self::EncryptMessage | Self::DecryptMessage => LARGEST_MESSAGE_REQUEST_BYTES,
            _ => LARGEST_REQUEST_BYTES,
        }
    }

    /// Whether requests and answers come in parts.
    #[must_use]
    pub(crate) const fn is_stream(self) -> bool {
        matches!(self, Self::EncryptMessageStream | Self::DecryptMessageStream)
    }
}

/// The longest request of most methods.
pub(crate) const LARGEST_REQUEST_BYTES: usize = 524_288;
/// The longest request with a message: a plaintext of 3 MiB is a message of less than 3.04 MiB, and a request that brings an encryption
/// context and grant tokens beside it is less than 4 MiB.
pub(crate) const LARGEST_MESSAGE_REQUEST_BYTES: usize = 4 << 20;
const SERVICE: &str = "keybroker.v1.KeyBroker/";
