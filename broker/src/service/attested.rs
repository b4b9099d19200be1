//! Calls of enclaves: the recipient is verified, put before policy, and passed on to KMS, which answers to nobody else.
//!
//! They go around the cache, which takes no request with a recipient and no answer for one.

use std::sync::Arc;

use bytes::Bytes;
use key_broker_proto::v1 as pb;
use tracing::field::Empty;
use tracing::{info_span, record_all};

use super::{Call, Service, wire};
use crate::attestation::VerifiedRecipient;
use crate::audit::record::{Action, DeclaredUse};
use crate::cache::{Drawn, Reused};
use crate::error::{BrokerError, KmsErrorKind};
use crate::key::{KeyId, RandomLength};
use crate::kms::recorded::Recorded;
use crate::kms::{Asked, DataKeyRequest, DecryptRequest};
use crate::telemetry::vocabulary;

impl Service {
    /// GenerateDataKey with a recipient.
    pub(super) async fn attested_data_key(
        &self,
        call: &Call,
        request: DataKeyRequest,
        declared: DeclaredUse,
        document: Bytes,
    ) -> Result<pb::GenerateDataKeyResponse, BrokerError> {
        call.notes.asked(Asked::DataKey(Arc::new(request.clone())), Some(declared));
        let recipient = self.verified(call, document).await?;
        let measured = Some(recipient.measurements());
        let action = Action::GenerateDataKey;
        let (permit, request) = self.permitted_data_key(call, action, request, declared, measured).await?;
        let key = request.key.asked.clone();
        let recorded = self.kms.generate_data_key_for(permit, recipient, request, call.waiting.clone()).await;
        self.heed(&recorded, Some(&key));
        // Handed out once: its use is its limit.
        let once = recorded.result.is_ok().then_some(Reused { used: declared, limit: declared });
        let (data_key, source) = call.answered(Drawn { reuse: once, ..recorded.into() })?;
        Ok(wire::attested_data_key(&data_key, &source))
    }

    /// Decrypt with a recipient.
    pub(super) async fn attested_decrypt(
        &self,
        call: &Call,
        request: DecryptRequest,
        document: Bytes,
    ) -> Result<pb::DecryptResponse, BrokerError> {
        call.notes.asked(Asked::Decrypt(Arc::new(request.clone())), None);
        let recipient = self.verified(call, document).await?;
        let measured = Some(recipient.measurements());
        let (permit, request) = self.permitted_decrypt(call, request, measured).await?;
        let key = request.key.as_ref().map(|key| key.asked.clone());
        let recorded = self.kms.decrypt_for(permit, recipient, request, call.waiting.clone()).await;
        self.heed(&recorded, key.as_ref());
        let (decrypted, source) = call.answered(recorded.into())?;
        Ok(wire::attested_decrypted(&decrypted, &source))
    }

    /// GenerateRandom with a recipient.
    pub(super) async fn attested_random(
        &self,
        call: &Call,
        length: RandomLength,
        document: Bytes,
    ) -> Result<pb::GenerateRandomResponse, BrokerError> {
        let recipient = self.verified(call, document).await?;
        let facts = call.facts(Some(recipient.measurements()));
        let permit = self.authorize(call, Action::GenerateRandom, None, facts)?;
        let recorded = self.kms.generate_random_for(permit, recipient, length, call.waiting.clone()).await;
        let (random, source) = call.answered(recorded.into())?;
        Ok(wire::attested_random(&random, &source))
    }

    /// Verifies a document beside the runtime's threads, which it would hold for about a millisecond. What it proves goes into
    /// the record, whether or not the document is taken.
    async fn verified(&self, call: &Call, document: Bytes) -> Result<VerifiedRecipient, BrokerError> {
        let turn = Arc::clone(&self.verifications).acquire_owned().await.map_err(|_| BrokerError::Bug)?;
        let span = info_span!(
            vocabulary::ATTESTATION_VERIFY,
            { vocabulary::ERROR_TYPE } = Empty,
            otel.status_code = Empty
        );
        let (trust, now) = (Arc::clone(&self.trust), self.kms.clock().now());
        let verified = tokio::task::spawn_blocking(move || {
            let verified = trust.verify(document, now);
            // Not before: a caller that goes away does not make room for another.
            drop(turn);
            verified
        })
        .await;
        match verified.map_err(|_| BrokerError::Bug)? {
            Ok(recipient) => {
                call.notes.attested(Arc::clone(recipient.measurements()));
                Ok(recipient)
            }
            Err(error) => {
                if let Some(measurements) = error.measurements {
                    call.notes.attested(measurements);
                }
                let error = BrokerError::Attestation(error.flaw);
                let reason = error.refusal().reason;
                record_all!(span, { vocabulary::ERROR_TYPE } = reason, otel.status_code = "ERROR");
                Err(error)
            }
        }
    }

    /// Drops what is kept of a key that KMS refuses; not where it may have refused the recipient only.
    fn heed<T>(&self, recorded: &Recorded<T>, key: Option<&KeyId>) {
        if let Err(BrokerError::Kms(error)) = &recorded.result
            && error.kind != KmsErrorKind::AccessDenied
        {
            self.cache.heed_refusal(error, key);
        }
    }
}
