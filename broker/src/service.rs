//! The RPCs: parse -> authorize -> work(permit) -> reply. The audit layer commits the record before the reply leaves.

pub mod wire;

use std::sync::Arc;
use std::time::Instant;

use key_broker_proto::v1 as pb;
use key_broker_proto::v1::key_broker_server::KeyBroker;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::audit::Notes;
use crate::audit::record::{Action, DataKeyData, ServedFrom};
use crate::cache::{Cache, Drawn, Wish};
use crate::error::BrokerError;
use crate::identity::Peer;
use crate::kms::recorded::RecordedKms;
use crate::kms::{Asked, Uses};
use crate::policy::{Permit, Policy};

/// What the service `keybroker.v1.KeyBroker` is made of. It answers through an [`Answerer`].
pub struct Service {
    policy: Arc<Policy>,
    cache: Cache,
    kms: RecordedKms,
}

/// The service `keybroker.v1.KeyBroker` for one call: without the layers around it there is none, and so no answer without
/// a record.
pub struct Answerer {
    service: Arc<Service>,
    call: Call,
}

/// What the layers around the service know of a call.
pub struct Call {
    /// The record in the making.
    pub notes: Notes,
    /// The call's id.
    pub request_id: Uuid,
    /// Who calls.
    pub peer: Arc<Peer>,
    /// When the caller stops waiting.
    pub until: Instant,
}

impl Service {
    /// The service, under a policy, before the cache and KMS.
    #[must_use]
    pub fn new(policy: Arc<Policy>, cache: Cache, kms: RecordedKms) -> Self {
        Self { policy, cache, kms }
    }

    /// The service for one call.
    #[must_use]
    pub fn answerer(self: &Arc<Self>, call: Call) -> Answerer {
        Answerer { service: Arc::clone(self), call }
    }

    fn authorize(&self, call: &Call, action: Action, asked: &Asked) -> Result<Permit, BrokerError> {
        let answer = self.policy.authorize(&call.peer.principal, action, asked.key());
        call.notes.decided(answer.determining_policies);
        answer.permit.ok_or(BrokerError::Denied)
    }
}

#[tonic::async_trait]
impl KeyBroker for Answerer {
    async fn generate_data_key(
        &self,
        request: Request<pb::GenerateDataKeyRequest>,
    ) -> Result<Response<pb::GenerateDataKeyResponse>, Status> {
        let Self { service, call } = self;
        let answer = async {
            let (request, declared, reuse) = wire::generate_data_key(request.into_inner())?;
            let asked = Asked::DataKey(Arc::clone(&request));
            call.notes.asked(asked.clone(), Some(declared));
            let permit = service.authorize(call, Action::GenerateDataKey, &asked)?;
            let wish = Wish { declared, reuse, until: call.until };
            let drawn = service.cache.data_key(permit, &call.peer.principal, request, wish).await;
            let (data_key, source) = call.answered(drawn)?;
            Ok(wire::data_key(&data_key, &source))
        };
        call.reply(answer.await)
    }

    async fn generate_data_key_without_plaintext(
        &self,
        request: Request<pb::GenerateDataKeyWithoutPlaintextRequest>,
    ) -> Result<Response<pb::GenerateDataKeyWithoutPlaintextResponse>, Status> {
        let Self { service, call } = self;
        let answer = async {
            let (request, declared, reuse) = wire::generate_data_key_without_plaintext(request.into_inner())?;
            let asked = Asked::DataKey(Arc::clone(&request));
            call.notes.asked(asked.clone(), Some(declared));
            let permit = service.authorize(call, Action::GenerateDataKeyWithoutPlaintext, &asked)?;
            let wish = Wish { declared, reuse, until: call.until };
            let drawn = service.cache.encrypted_data_key(permit, &call.peer.principal, request, wish).await;
            let (data_key, source) = call.answered(drawn)?;
            Ok(wire::encrypted_data_key(&data_key, &source))
        };
        call.reply(answer.await)
    }

    async fn decrypt(
        &self,
        request: Request<pb::DecryptRequest>,
    ) -> Result<Response<pb::DecryptResponse>, Status> {
        let Self { service, call } = self;
        let answer = async {
            let (request, reuse) = wire::decrypt(request.into_inner())?;
            let asked = Asked::Decrypt(Arc::clone(&request));
            call.notes.asked(asked.clone(), None);
            let permit = service.authorize(call, Action::Decrypt, &asked)?;
            let wish = Wish { declared: wire::ONE_MESSAGE, reuse, until: call.until };
            let drawn = service.cache.decrypt(permit, &call.peer.principal, request, wish).await;
            let (decrypted, source) = call.answered(drawn)?;
            Ok(wire::decrypted(&decrypted, &source))
        };
        call.reply(answer.await)
    }

    async fn generate_random(
        &self,
        request: Request<pb::GenerateRandomRequest>,
    ) -> Result<Response<pb::GenerateRandomResponse>, Status> {
        let Self { service, call } = self;
        let answer = async {
            let length = wire::generate_random(&request.into_inner())?;
            let asked = Asked::Random(length);
            call.notes.asked(asked.clone(), None);
            let permit = service.authorize(call, Action::GenerateRandom, &asked)?;
            let recorded = service.kms.generate_random(permit, length, call.until).await;
            let (random, source) = call.answered(recorded.into())?;
            Ok(wire::random(&random, &source))
        };
        call.reply(answer.await)
    }

    async fn describe_key(
        &self,
        request: Request<pb::DescribeKeyRequest>,
    ) -> Result<Response<pb::DescribeKeyResponse>, Status> {
        let Self { service, call } = self;
        let answer = async {
            let key = wire::describe_key(&request.into_inner())?;
            let asked = Asked::Describe(key.clone());
            call.notes.asked(asked.clone(), None);
            let permit = service.authorize(call, Action::DescribeKey, &asked)?;
            let recorded = service.kms.describe_key(permit, key, call.until).await;
            let (description, source) = call.answered(recorded.into())?;
            Ok(wire::key_description(&description, &source))
        };
        call.reply(answer.await)
    }
}

impl Call {
    /// Notes how the call ended and makes its reply.
    fn reply<T>(&self, answer: Result<T, BrokerError>) -> Result<Response<T>, Status> {
        match answer {
            Ok(message) => {
                self.notes.allowed();
                Ok(Response::new(message))
            }
            Err(error) => {
                self.notes.refused(&error);
                Err(wire::status(&error, self.request_id))
            }
        }
    }

    /// Notes what KMS or the cache answered, whatever it was.
    fn answered<T: Uses>(&self, drawn: Drawn<T>) -> Result<(Arc<T>, DataKeyData), BrokerError> {
        let Drawn { result, source, called_kms, reuse, expires_at, records } = drawn;
        let refused = match &result {
            Err(BrokerError::Kms(error)) => error.request_id.as_deref().map(Arc::from),
            _ => None,
        };
        let key_arn = result.as_ref().ok().and_then(|value| value.used_key()).map(|(arn, _)| arn.clone());
        let data_key = DataKeyData {
            served_from: if called_kms { ServedFrom::Kms } else { ServedFrom::Cache },
            kms_request_id: source.as_ref().map(|source| Arc::clone(&source.request_id)).or(refused),
            kms_event_id: source.as_ref().map(|source| source.event_id),
            minted_at: source.as_ref().filter(|_| result.is_ok()).map(|source| source.at),
            expires_at,
            messages_used: reuse.map(|reuse| reuse.used.messages),
            messages_limit: reuse.map(|reuse| reuse.limit.messages),
            bytes_used: reuse.map(|reuse| reuse.used.bytes),
            bytes_limit: reuse.map(|reuse| reuse.limit.bytes),
        };
        self.notes.answered(records, data_key.clone(), key_arn);
        Ok((result?, data_key))
    }
}
