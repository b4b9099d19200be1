//! Calls of enclaves: the recipient is verified, put before policy and passed on to KMS, which encrypts its answer to
//! that recipient alone.
//!
//! They bypass the cache, which takes neither a request with a recipient nor an answer for one.

use std::sync::Arc;

use bytes::Bytes;
use key_broker_core::{DeclaredUse, KeyId};
use key_broker_proto::v1 as pb;

use super::{Service, WorkloadCall, wire};
use crate::attestation::VerifiedRecipient;
use crate::cache::{DrawOutcome, Usage};
use crate::error::{BrokerError, KmsErrorKind};
use crate::kms::recorded::{CallableRequest, RecordedReply};
use crate::operation::attested::AttestedRequest;
use crate::operation::{DataKeyRequest, DecryptRequest, RandomRequest, WorkloadRequest};
use crate::policy::Permitted;
use crate::telemetry::vocabulary;

impl Service {
    /// GenerateDataKey with a recipient.
    pub(super) async fn attested_data_key(
        &self,
        call: &WorkloadCall,
        request: DataKeyRequest,
        declared: DeclaredUse,
        document: Bytes,
    ) -> Result<pb::GenerateDataKeyResponse, BrokerError> {
        let permitted = self.permit_attested(call, request, Some(declared), document).await?;
        let reply = self.call_attested(call, permitted).await;
        // The only use of a key that is handed out once is its limit.
        let once = reply.result.is_ok().then_some(Usage { used: declared, limit: declared });
        let (data_key, source) = call.answered(DrawOutcome { reuse: once, ..reply.into() })?;
        Ok(wire::attested_data_key(&data_key, &source))
    }

    /// Decrypt with a recipient.
    pub(super) async fn attested_decrypt(
        &self,
        call: &WorkloadCall,
        request: DecryptRequest,
        document: Bytes,
    ) -> Result<pb::DecryptResponse, BrokerError> {
        let permitted = self.permit_attested(call, request, None, document).await?;
        let (request, named_key) = (Arc::clone(permitted.subject()), permitted.named_key());
        let reply = self.call_attested(call, permitted).await;
        let (sealed, source) = call.answered(reply.into())?;
        let decrypted = self.open(call, &*request, named_key, &sealed).await?;
        Ok(wire::attested_decrypted(decrypted, &source))
    }

    /// GenerateRandom with a recipient.
    pub(super) async fn attested_random(
        &self,
        call: &WorkloadCall,
        request: RandomRequest,
        document: Bytes,
    ) -> Result<pb::GenerateRandomResponse, BrokerError> {
        let permitted = self.permit_attested(call, request, None, document).await?;
        let reply = self.call_attested(call, permitted).await;
        let (random, source) = call.answered(reply.into())?;
        Ok(wire::attested_random(&random, &source))
    }

    /// Verifies the recipient of a request, then asks policy.
    pub(super) async fn permit_attested<R>(
        &self,
        call: &WorkloadCall,
        request: R,
        declared: Option<DeclaredUse>,
        document: Bytes,
    ) -> Result<Permitted<Arc<AttestedRequest<R>>>, BrokerError>
    where
        R: WorkloadRequest,
        AttestedRequest<R>: WorkloadRequest,
    {
        // So that the record says what was asked even if the document is refused.
        call.record.requested(Arc::new(request.clone()).into_kms_request(), declared);
        let recipient = self.verified(call, document).await?;
        self.permit(call, AttestedRequest { recipient, request }, declared).await
    }

    /// Calls KMS. If KMS refuses the key, evicts its data keys, unless it may have refused only the recipient.
    pub(super) async fn call_attested<R: CallableRequest>(
        &self,
        call: &WorkloadCall,
        permitted: Permitted<Arc<R>>,
    ) -> RecordedReply<R::Reply> {
        let key: Option<KeyId> = permitted.subject().sent_key().cloned();
        let reply = self.kms.call(permitted, call.deadline).await;
        if let Err(BrokerError::Kms(error)) = &reply.result
            && error.kind != KmsErrorKind::AccessDenied
        {
            self.cache.heed_refusal(error, key.as_ref());
        }
        reply
    }

    /// Verifies a document outside the runtime's threads, since that takes about a millisecond. The record shows what the document
    /// proves even if it is not accepted.
    async fn verified(&self, call: &WorkloadCall, document: Bytes) -> Result<VerifiedRecipient, BrokerError> {
        let turn = self.verifications.take(&call.peer.principal).await;
        let mut span = call.span.begin(vocabulary::ATTESTATION_VERIFY);
        let (trust, now) = (Arc::clone(&self.trust), self.kms.clock().now());
        let verified = tokio::task::spawn_blocking(move || {
            let verified = trust.verify(document, now);
            // Not earlier: a caller that goes away must not let more verifications start than are allowed.
            drop(turn);
            verified
        })
        .await;
        match verified.map_err(|_| BrokerError::Bug)? {
            Ok(recipient) => {
                call.record.attested(Arc::clone(recipient.measurements()));
                Ok(recipient)
            }
            Err(error) => {
                if let Some(measurements) = error.measurements {
                    call.record.attested(measurements);
                }
                let error = BrokerError::Attestation(error.flaw);
                let reason = error.refusal().reason;
                span.fail(reason);
                Err(error)
            }
        }
    }
}
