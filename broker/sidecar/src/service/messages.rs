//! EncryptMessage and DecryptMessage: the data key stays in the broker, and only messages or their plaintexts leave it.

use std::sync::Arc;

use key_broker_core::{Action, CiphertextBlob, DeclaredUse, KeyArn, KeyId, Principal, Reuse};
use key_broker_envelope::{EncryptedDataKey, Header};
use key_broker_proto::v1 as pb;
use key_broker_trail::record::{DataKeyData, MessageData};

use super::message_format::{self, ExpectedMessage, MessageKey, TakenSuites};
use super::{Service, WorkloadCall, wire};
use crate::audit::{PolicyNote, RecordBuilder};
use crate::cache::DrawTerms;
use crate::error::{BrokerError, Denial, DeniedContext, DeniedKey};
use crate::operation::{
    DataKey, DecryptMessageRequest, DecryptRequest, EncryptMessageRequest, TypedRequest as _,
};
use crate::policy::Permitted;

/// A data key of a message to decrypt that policy permits.
struct PermittedDataKey {
    permitted: Permitted<Arc<DecryptMessageRequest>>,
    /// The policy decision for the record.
    noted: PolicyNote,
}

impl Service {
    /// Refuses principals to whom no policy permits the action with any key, and records that.
    pub(crate) fn refuse_unpermitted(
        &self,
        record: &RecordBuilder,
        principal: &Principal,
        action: Action,
    ) -> Result<(), BrokerError> {
        let policy = self.policies.current();
        if policy.denies_every_call(principal, action) {
            record.decided(Arc::default(), Arc::clone(policy.version()));
            let (principal, key, context) = (principal.clone(), DeniedKey::Any, DeniedContext::NotLookedAt);
            return Err(BrokerError::Denied(Box::new(Denial { principal, action, key, context })));
        }
        Ok(())
    }

    /// EncryptMessage.
    pub(super) async fn encrypt_message(
        &self,
        call: &WorkloadCall,
        message: pb::EncryptMessageRequest,
    ) -> Result<pb::EncryptMessageResponse, BrokerError> {
        call.refuse_enclaves()?;
        let (request, plaintext, reuse) = wire::encrypt_message(message)?;
        let declared = DeclaredUse { messages: 1, bytes: plaintext.len() as u64 };
        let (request, data_key, source) = self.data_key_for_message(call, request, declared, reuse).await?;
        let context = request.data_key().context.clone();
        let (message, facts) = message_format::seal(Arc::clone(&data_key), context, plaintext).await?;
        call.record.message(facts);
        Ok(wire::encrypted_message(message, &data_key, &source))
    }

    /// DecryptMessage.
    pub(super) async fn decrypt_message(
        &self,
        call: &WorkloadCall,
        message: pb::DecryptMessageRequest,
    ) -> Result<pb::DecryptMessageResponse, BrokerError> {
        call.refuse_enclaves()?;
        let (message, expected) = wire::decrypt_message(message)?;
        let (header, header_bytes) = message_format::read_header(&message)?;
        let length = message.len() as u64;
        call.record.message(MessageData { length: Some(length), ..message_format::facts(&header.facts()) });
        self.check_message(&header, &expected, true)?;
        let key = self.data_key_of_message(call, &header, &expected, length).await?;
        let (context, key_arn, source) =
            (header.callers_context(), key.key.subject().clone(), key.source.clone());
        let plaintext = message_format::open(header, key, message, header_bytes).await?;
        call.record.passed(length, plaintext.len() as u64);
        Ok(wire::decrypted_message(plaintext, &context, &key_arn, &source))
    }

    pub(super) async fn data_key_for_message(
        &self,
        call: &WorkloadCall,
        request: EncryptMessageRequest,
        declared: DeclaredUse,
        reuse: Reuse,
    ) -> Result<(Arc<EncryptMessageRequest>, Arc<DataKey>, DataKeyData), BrokerError> {
        let permitted = self.permit(call, request, Some(declared)).await?;
        let request = Arc::clone(permitted.subject());
        let terms = DrawTerms { declared, reuse, deadline: call.deadline };
        let (data_key, source) = self.draw(call, permitted, terms).await?;
        Ok((request, data_key, source))
    }

    /// Checks the message's encryption context against what the caller expects, and its suite against what is accepted, including
    /// signed suites if `signed`. The errors reveal nothing: the message is the caller's own.
    pub(super) fn check_message(
        &self,
        header: &Header,
        expected: &ExpectedMessage,
        signed: bool,
    ) -> Result<(), BrokerError> {
        let taken = TakenSuites { without_commitment: self.suites_without_commitment, signed };
        message_format::check_suite(header.facts().suite, taken)?;
        let has = header.context().pairs();
        match expected.context.pairs().iter().find(|(name, value)| has.get(*name) != Some(*value)) {
            Some((name, _)) => Err(BrokerError::OtherMessage(name.clone())),
            None => Ok(()),
        }
    }

    /// The first of the message's data keys that policy permits and KMS decrypts; otherwise the error of the last one.
    pub(super) async fn data_key_of_message(
        &self,
        call: &WorkloadCall,
        header: &Header,
        expected: &ExpectedMessage,
        length: u64,
    ) -> Result<MessageKey, BrokerError> {
        let declared = DeclaredUse { messages: 1, bytes: length };
        let mut refusal = BrokerError::InvalidMessage(NO_KMS_KEY.to_owned());
        let mut permitted = Vec::new();
        let data_keys = header.encrypted_data_keys().iter().filter_map(EncryptedDataKey::for_kms);
        for (key, ciphertext) in data_keys {
            if permitted.len() == MOST_DATA_KEYS {
                break;
            }
            match self.permit_data_key(call, header, expected, (&key, ciphertext), declared).await {
                Ok(data_key) => permitted.push(data_key),
                // The message's other data keys would be judged under the same name, with the same result.
                Err(error) if expected.key.is_some() && !matches!(error, BrokerError::OtherKey) => {
                    return Err(error);
                }
                Err(error) => refusal = error,
            }
        }
        for PermittedDataKey { permitted, noted } in permitted {
            let key = permitted.named_key().ok_or(BrokerError::Bug)?;
            call.record.requested(Arc::clone(permitted.subject()).into_kms_request(), Some(declared));
            call.record.key(key.subject().clone());
            call.record.decided_as(noted);
            let terms = DrawTerms { declared, reuse: expected.reuse, deadline: call.deadline };
            match self.draw(call, permitted, terms).await {
                Ok((sealed, source)) => return Ok(MessageKey { sealed, key, source }),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    /// Asks policy about one of the message's data keys, by the name that the caller gives its KMS key or, without one, by the ARN in
    /// the message.
    async fn permit_data_key(
        &self,
        call: &WorkloadCall,
        header: &Header,
        expected: &ExpectedMessage,
        (key, ciphertext): (&KeyArn, CiphertextBlob),
        declared: DeclaredUse,
    ) -> Result<PermittedDataKey, BrokerError> {
        let named = expected.key.clone().unwrap_or_else(|| KeyId::from(key));
        let request = DecryptMessageRequest::new(DecryptRequest {
            ciphertext,
            context: header.context().clone(),
            key: Some(named.into()),
            grant_tokens: expected.grant_tokens.clone(),
        });
        let permitted = self.permit(call, request, Some(declared)).await?;
        let resolved = permitted.subject().decrypt().key.as_ref().and_then(|key| key.arn());
        if !resolved.is_some_and(|arn| KeyId::from(arn).names(key)) {
            return Err(BrokerError::OtherKey);
        }
        Ok(PermittedDataKey { permitted, noted: call.record.noted_policy() })
    }
}

/// A message of AWS's SDKs has a data key for each Region or account that can read it; each may cost a call to KMS.
const MOST_DATA_KEYS: usize = 8;
const NO_KMS_KEY: &str = "none of the message's data keys is encrypted under an AWS KMS key: decrypt it with the keyring of whoever \
                          encrypted it";

#[cfg(test)]
mod tests {
    //! No plaintext of an enclave gets into the memory of its parent's broker.

    use key_broker_core::clock::{Clock as _, SystemClock};
    use uuid::Uuid;

    use super::*;
    use crate::identity::Peer;
    use crate::telemetry::trace::ServerSpan;

    #[test]
    fn messages_are_refused_over_vsock_alone() {
        let call = |peer: Peer| WorkloadCall {
            record: RecordBuilder::default(),
            span: ServerSpan::default(),
            request_id: Uuid::nil(),
            peer: Arc::new(peer),
            deadline: SystemClock.instant(),
        };
        let refused = call(Peer::vsock(16)).refuse_enclaves();
        assert!(matches!(refused, Err(BrokerError::PlaintextOfEnclave)));
        let local = Peer::insecure_tcp(std::net::Ipv4Addr::LOCALHOST.into());
        assert!(call(local).refuse_enclaves().is_ok());
    }
}
