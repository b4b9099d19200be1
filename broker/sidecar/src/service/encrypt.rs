//! Encrypt, ReEncrypt and data key pairs, which always go to KMS.

use std::sync::Arc;

use key_broker_core::DeclaredUse;
use key_broker_proto::v1 as pb;

use super::{Service, WorkloadCall, wire_keys};
use crate::error::BrokerError;
use crate::operation::{ReEncryptFrom, ReEncryptTo};

impl Service {
    pub(super) async fn encrypt(
        &self,
        call: &WorkloadCall,
        message: pb::EncryptRequest,
    ) -> Result<pb::EncryptResponse, BrokerError> {
        let request = wire_keys::encrypt(message)?;
        let declared = DeclaredUse { messages: 1, bytes: request.plaintext.len() as u64 };
        let permitted = self.permit(call, request, Some(declared)).await?;
        let (encrypted, source) = self.call_kms(call, permitted).await?;
        Ok(wire_keys::encrypted(&encrypted, &source))
    }

    /// ReEncrypt. Policy is asked about the key that encrypts, then about the key that had encrypted.
    pub(super) async fn re_encrypt(
        &self,
        call: &WorkloadCall,
        message: pb::ReEncryptRequest,
    ) -> Result<pb::ReEncryptResponse, BrokerError> {
        let request = wire_keys::re_encrypt(message)?;
        let to = self.permit(call, ReEncryptTo(request), None).await?;
        // The record names the key that had encrypted, if the request does; otherwise KMS's answer names it.
        call.record.no_key();
        let from = ReEncryptFrom(to.subject().0.clone());
        let from = self.permit(call, from, None).await?;
        let (subject, named_key) = (Arc::clone(from.subject()), from.named_key());
        let permitted = from.and_to(&to).ok_or(BrokerError::Bug)?;
        let (sealed, source) = self.call_kms(call, permitted).await?;
        let encrypted = self.open(call, &*subject, named_key, &sealed).await?;
        Ok(wire_keys::re_encrypted(encrypted, &source))
    }

    /// GenerateDataKeyPair.
    pub(super) async fn generate_data_key_pair(
        &self,
        call: &WorkloadCall,
        message: pb::GenerateDataKeyPairRequest,
    ) -> Result<pb::GenerateDataKeyPairResponse, BrokerError> {
        let (request, document) = wire_keys::data_key_pair(message)?;
        if let Some(document) = document {
            let permitted = self.permit_attested(call, request, None, document).await?;
            let reply = self.call_attested(call, permitted).await;
            let (pair, source) = call.answered(reply.into())?;
            return Ok(wire_keys::attested_key_pair(&pair, &source));
        }
        let permitted = self.permit(call, request, None).await?;
        let (pair, source) = self.call_kms(call, permitted).await?;
        Ok(wire_keys::key_pair(&pair, &source))
    }

    /// GenerateDataKeyPairWithoutPlaintext.
    pub(super) async fn generate_data_key_pair_without_plaintext(
        &self,
        call: &WorkloadCall,
        message: pb::GenerateDataKeyPairWithoutPlaintextRequest,
    ) -> Result<pb::GenerateDataKeyPairWithoutPlaintextResponse, BrokerError> {
        let request = wire_keys::data_key_pair_without_plaintext(message)?;
        let permitted = self.permit(call, request, None).await?;
        let (pair, source) = self.call_kms(call, permitted).await?;
        Ok(wire_keys::encrypted_key_pair(&pair, &source))
    }
}
