//! The RPCs: parse -> authorize -> work(permit) -> reply. The audit layer commits the record before the reply leaves.

pub mod wire;

use std::sync::Arc;
use std::time::Instant;

use key_broker_proto::v1 as pb;
use key_broker_proto::v1::key_broker_server::KeyBroker;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::audit::Notes;
use crate::audit::record::{Action, DataKeyData, DeclaredUse};
use crate::error::BrokerError;
use crate::identity::Peer;
use crate::kms::recorded::{Recorded, RecordedKms};
use crate::kms::{Asked, Uses};
use crate::policy::{Permit, Policy};

/// The service `keybroker.v1.KeyBroker`.
#[derive(Clone)]
pub struct Service {
    policy: Arc<Policy>,
    kms: RecordedKms,
}

/// What the layers around the service know of a call; they put it into the request's extensions.
#[derive(Clone)]
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
    /// The service, under a policy, before KMS.
    #[must_use]
    pub fn new(policy: Arc<Policy>, kms: RecordedKms) -> Self {
        Self { policy, kms }
    }

    fn authorize(&self, call: &Call, action: Action, asked: &Asked) -> Result<Permit, BrokerError> {
        let answer = self.policy.authorize(&call.peer.principal, action, asked.key());
        call.notes.decided(answer.determining_policies);
        answer.permit.ok_or(BrokerError::Denied)
    }
}

#[tonic::async_trait]
impl KeyBroker for Service {
    async fn generate_data_key(
        &self,
        request: Request<pb::GenerateDataKeyRequest>,
    ) -> Result<Response<pb::GenerateDataKeyResponse>, Status> {
        let call = Call::of(&request)?;
        call.reply(async {
            let (request, declared) = wire::generate_data_key(request.into_inner())?;
            let asked = Asked::DataKey(Arc::clone(&request));
            call.notes.asked(asked.clone(), Some(declared));
            let permit = self.authorize(&call, Action::GenerateDataKey, &asked)?;
            let recorded = self.kms.generate_data_key(permit, request, call.until).await;
            let (data_key, source) = call.answered(recorded, Some(declared))?;
            Ok(wire::data_key(data_key, &source))
        })
        .await
    }

    async fn generate_data_key_without_plaintext(
        &self,
        request: Request<pb::GenerateDataKeyWithoutPlaintextRequest>,
    ) -> Result<Response<pb::GenerateDataKeyWithoutPlaintextResponse>, Status> {
        let call = Call::of(&request)?;
        call.reply(async {
            let (request, declared) = wire::generate_data_key_without_plaintext(request.into_inner())?;
            let asked = Asked::DataKey(Arc::clone(&request));
            call.notes.asked(asked.clone(), Some(declared));
            let permit = self.authorize(&call, Action::GenerateDataKeyWithoutPlaintext, &asked)?;
            let recorded = self.kms.generate_data_key_without_plaintext(permit, request, call.until).await;
            let (data_key, source) = call.answered(recorded, Some(declared))?;
            Ok(wire::encrypted_data_key(data_key, &source))
        })
        .await
    }

    async fn decrypt(
        &self,
        request: Request<pb::DecryptRequest>,
    ) -> Result<Response<pb::DecryptResponse>, Status> {
        let call = Call::of(&request)?;
        call.reply(async {
            let request = wire::decrypt(request.into_inner())?;
            let asked = Asked::Decrypt(Arc::clone(&request));
            call.notes.asked(asked.clone(), None);
            let permit = self.authorize(&call, Action::Decrypt, &asked)?;
            let recorded = self.kms.decrypt(permit, request, call.until).await;
            let (decrypted, source) = call.answered(recorded, None)?;
            Ok(wire::decrypted(decrypted, &source))
        })
        .await
    }

    async fn generate_random(
        &self,
        request: Request<pb::GenerateRandomRequest>,
    ) -> Result<Response<pb::GenerateRandomResponse>, Status> {
        let call = Call::of(&request)?;
        call.reply(async {
            let length = wire::generate_random(&request.into_inner())?;
            let asked = Asked::Random(length);
            call.notes.asked(asked.clone(), None);
            let permit = self.authorize(&call, Action::GenerateRandom, &asked)?;
            let recorded = self.kms.generate_random(permit, length, call.until).await;
            let (random, source) = call.answered(recorded, None)?;
            Ok(wire::random(random, &source))
        })
        .await
    }

    async fn describe_key(
        &self,
        request: Request<pb::DescribeKeyRequest>,
    ) -> Result<Response<pb::DescribeKeyResponse>, Status> {
        let call = Call::of(&request)?;
        call.reply(async {
            let key = wire::describe_key(&request.into_inner())?;
            let asked = Asked::Describe(key.clone());
            call.notes.asked(asked.clone(), None);
            let permit = self.authorize(&call, Action::DescribeKey, &asked)?;
            let recorded = self.kms.describe_key(permit, key, call.until).await;
            let (description, source) = call.answered(recorded, None)?;
            Ok(wire::key_description(description, &source))
        })
        .await
    }
}

impl Call {
    fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        // Without the layers there is no record, so there is no answer.
        request.extensions().get::<Self>().cloned().ok_or_else(|| Status::internal("no audit scope"))
    }

    /// Notes how the call ended and makes its reply.
    async fn reply<T>(
        &self,
        work: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<Response<T>, Status> {
        match work.await {
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

    /// Notes what KMS answered, whatever it was.
    fn answered<T: Uses>(
        &self,
        recorded: Recorded<T>,
        declared: Option<DeclaredUse>,
    ) -> Result<(T, DataKeyData), BrokerError> {
        let Recorded { result, source, records } = recorded;
        let key_arn = result.as_ref().ok().and_then(Uses::used_key).map(|(arn, _)| arn.clone());
        // A data key that is handed out once has its use as its limit.
        let charged = declared.filter(|_| result.is_ok());
        let data_key = DataKeyData {
            served_from: "KMS",
            kms_request_id: source.as_ref().map(|source| source.request_id.clone()),
            kms_event_id: source.as_ref().map(|source| source.event_id),
            minted_at: source.as_ref().filter(|_| result.is_ok()).map(|source| source.at),
            messages_used: charged.map(|declared| declared.messages),
            messages_limit: charged.map(|declared| declared.messages),
            bytes_used: charged.map(|declared| declared.bytes),
            bytes_limit: charged.map(|declared| declared.bytes),
        };
        self.notes.kms_answered(records, data_key.clone(), key_arn);
        Ok((result?, data_key))
    }
}
