//! The requests for data keys of messages: to KMS a data key or a decrypt, to policy an action of its own, since these data keys never
//! leave the broker.

use std::sync::Arc;

use key_broker_core::{Action, EncryptionContext};
use key_broker_trail::record::RequestParameters;

use super::{DataKeyRequest, DecryptRequest, KmsRequest, Operation, TypedRequest, WorkloadRequest};
use crate::named_key::RequestedKey;

/// The data key of a message that is to be encrypted.
#[derive(Clone)]
pub(crate) struct EncryptMessageRequest(Arc<DataKeyRequest>);

/// The data key of a message that is to be decrypted. It names the KMS key.
#[derive(Clone)]
pub(crate) struct DecryptMessageRequest(Arc<DecryptRequest>);

impl EncryptMessageRequest {
    /// `data_key` asks for 32 bytes.
    #[must_use]
    pub(crate) fn new(data_key: DataKeyRequest) -> Self {
        Self(Arc::new(data_key))
    }

    /// What KMS is asked for.
    #[must_use]
    pub(crate) fn data_key(&self) -> &DataKeyRequest {
        &self.0
    }
}

impl DecryptMessageRequest {
    /// `decrypt` is of one of the message's encrypted data keys.
    #[must_use]
    pub(crate) fn new(decrypt: DecryptRequest) -> Self {
        Self(Arc::new(decrypt))
    }

    /// What KMS is asked for.
    #[must_use]
    pub(crate) fn decrypt(&self) -> &DecryptRequest {
        &self.0
    }
}

/// Like the inner request, except for the action.
macro_rules! messages {
    ($($request:ty => $action:ident, $variant:ident);+ $(;)?) => {
        $(impl Operation for $request {
            fn name(&self) -> &'static str {
                self.0.name()
            }

            fn key(&self) -> Option<&RequestedKey> {
                self.0.key()
            }

            fn parameters(&self) -> Option<RequestParameters<'_>> {
                self.0.parameters()
            }

            fn ciphertext(&self) -> Option<&[u8]> {
                self.0.ciphertext()
            }
        }

        impl WorkloadRequest for $request {
            fn action(&self) -> Action {
                Action::$action
            }

            fn key_mut(&mut self) -> Option<&mut RequestedKey> {
                // Nobody has it yet: nothing is copied.
                Arc::make_mut(&mut self.0).key_mut()
            }

            fn context(&self) -> Option<&EncryptionContext> {
                self.0.context()
            }

            fn context_mut(&mut self) -> Option<&mut EncryptionContext> {
                Arc::make_mut(&mut self.0).context_mut()
            }
        }

        impl TypedRequest for $request {
            fn into_kms_request(self: Arc<Self>) -> KmsRequest {
                KmsRequest::$variant(Arc::clone(&self.0))
            }
        })+
    };
}

messages! {
    EncryptMessageRequest => EncryptMessage, DataKey;
    DecryptMessageRequest => DecryptMessage, Decrypt;
}
