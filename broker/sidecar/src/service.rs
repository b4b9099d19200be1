//! The RPCs: each parses its request, asks policy, draws from the cache or calls KMS, and replies. The audit layer commits the
//! record before the reply leaves.

mod attested;
mod encrypt;
mod message_format;
mod message_streams;
mod messages;
mod permit;
pub(crate) mod ruling;
pub(crate) mod wire;
mod wire_keys;

use std::sync::Arc;
use std::time::Instant;

use key_broker_core::{Action, DeclaredUse, Principal, Transport};
use key_broker_proto::v1 as pb;
use key_broker_proto::v1::key_broker_server::KeyBroker;
use key_broker_trail::record::{DataKeyData, LastAllowed, ServedFrom};
use opentelemetry::KeyValue;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::attestation::Trust;
use crate::audit::RecordBuilder;
use crate::cache::{Cache, CachedRequest, DrawOutcome, DrawTerms};
use crate::error::BrokerError;
use crate::fair_queue::FairQueue;
use crate::identity::Peer;
use crate::kms::aliases::Aliases;
use crate::kms::policy_aliases::PolicyAliases;
use crate::kms::recorded::{CallableRequest, RecordedKms};
use crate::operation::KeyedReply;
use crate::policy::Permitted;
use crate::policy::bindings::Bindings;
use crate::policy::file::Policies;
use crate::telemetry::trace::{self, ServerSpan};
use crate::telemetry::vocabulary;

/// What the service `keybroker.v1.KeyBroker` works with. It answers through a [`CallHandler`].
pub(crate) struct Service {
    /// The policies in force.
    pub policies: Arc<Policies>,
    /// The pairs that principals' encryption contexts must have.
    pub bindings: Bindings,
    /// Which attestation documents are accepted.
    pub trust: Arc<Trust>,
    /// Limits how many attestation documents are verified at a time.
    pub verifications: Arc<FairQueue<Principal>>,
    /// The keys that callers' aliases stand for.
    pub aliases: Aliases,
    /// The keys that policies' aliases stand for.
    pub policy_aliases: PolicyAliases,
    /// Data keys with bounded reuse.
    pub cache: Cache,
    /// Whether messages of suites without key commitment are decrypted.
    pub suites_without_commitment: bool,
    /// For requests that the cache does not answer.
    pub kms: RecordedKms,
}

/// The service `keybroker.v1.KeyBroker` for one call. Only the layers make one, so that there is no answer without a
/// record.
pub(crate) struct CallHandler {
    service: Arc<Service>,
    call: WorkloadCall,
}

/// What the layers around the service know about a call.
pub(crate) struct WorkloadCall {
    /// Its record.
    pub record: RecordBuilder,
    /// Its span.
    pub span: ServerSpan,
    /// Its request id.
    pub request_id: Uuid,
    /// The caller.
    pub peer: Arc<Peer>,
    /// When the caller stops waiting.
    pub deadline: Instant,
}

impl Service {
    /// The service for one call.
    #[must_use]
    pub(crate) fn handler(self: &Arc<Self>, call: WorkloadCall) -> CallHandler {
        CallHandler { service: Arc::clone(self), call }
    }

    /// Draws from the cache, within a span.
    async fn draw<R: CachedRequest>(
        &self,
        call: &WorkloadCall,
        permitted: Permitted<Arc<R>>,
        terms: DrawTerms,
    ) -> Result<(Arc<R::Reply>, DataKeyData), BrokerError>
    where
        R::Reply: KeyedReply,
    {
        let mut span = call.span.begin(vocabulary::CACHE);
        let drawn = self.cache.draw(permitted, &call.peer.principal, terms).await;
        let result = if drawn.called_kms { "miss" } else { "hit" };
        span.set(|| [KeyValue::new(vocabulary::CACHE_RESULT, result)]);
        drop(span);
        call.answered(drawn)
    }

    /// Calls KMS for a reply that is not cached.
    async fn call_kms<R: CallableRequest>(
        &self,
        call: &WorkloadCall,
        permitted: Permitted<Arc<R>>,
    ) -> Result<(Arc<R::Reply>, DataKeyData), BrokerError>
    where
        R::Reply: KeyedReply,
    {
        let reply = self.kms.call(permitted, call.deadline).await;
        call.answered(reply.into())
    }
}

#[tonic::async_trait]
impl KeyBroker for CallHandler {
    async fn encrypt_message(
        &self,
        request: Request<pb::EncryptMessageRequest>,
    ) -> Result<Response<pb::EncryptMessageResponse>, Status> {
        let Self { service, call } = self;
        call.reply(service.encrypt_message(call, request.into_inner()).await)
    }

    async fn decrypt_message(
        &self,
        request: Request<pb::DecryptMessageRequest>,
    ) -> Result<Response<pb::DecryptMessageResponse>, Status> {
        let Self { service, call } = self;
        call.reply(service.decrypt_message(call, request.into_inner()).await)
    }

    type EncryptMessageStreamStream = BoxStream<pb::EncryptMessageStreamResponse>;

    async fn encrypt_message_stream(
        &self,
        request: Request<Streaming<pb::EncryptMessageStreamRequest>>,
    ) -> Result<Response<Self::EncryptMessageStreamStream>, Status> {
        let Self { service, call } = self;
        call.reply(service.encrypt_message_stream(call, request.into_inner()).await)
    }

    type DecryptMessageStreamStream = BoxStream<pb::DecryptMessageStreamResponse>;

    async fn decrypt_message_stream(
        &self,
        request: Request<Streaming<pb::DecryptMessageStreamRequest>>,
    ) -> Result<Response<Self::DecryptMessageStreamStream>, Status> {
        let Self { service, call } = self;
        call.reply(service.decrypt_message_stream(call, request.into_inner()).await)
    }

    async fn generate_data_key(
        &self,
        request: Request<pb::GenerateDataKeyRequest>,
    ) -> Result<Response<pb::GenerateDataKeyResponse>, Status> {
        let Self { service, call } = self;
        let answer = async {
            let (request, declared, reuse, document) = wire::generate_data_key(request.into_inner())?;
            if let Some(document) = document {
                // Boxed, since most calls never come here.
                return Box::pin(service.attested_data_key(call, request, declared, document)).await;
            }
            let permitted = service.permit(call, request, Some(declared)).await?;
            let terms = DrawTerms { declared, reuse, deadline: call.deadline };
            let (data_key, source) = service.draw(call, permitted, terms).await?;
            Ok(wire::data_key(&data_key, &source))
        }
        .await;
        call.reply(answer)
    }

    async fn generate_data_key_without_plaintext(
        &self,
        request: Request<pb::GenerateDataKeyWithoutPlaintextRequest>,
    ) -> Result<Response<pb::GenerateDataKeyWithoutPlaintextResponse>, Status> {
        let Self { service, call } = self;
        let answer = async {
            let (request, declared, reuse) = wire::generate_data_key_without_plaintext(request.into_inner())?;
            let permitted = service.permit(call, request, Some(declared)).await?;
            let terms = DrawTerms { declared, reuse, deadline: call.deadline };
            let (data_key, source) = service.draw(call, permitted, terms).await?;
            Ok(wire::encrypted_data_key(&data_key, &source))
        }
        .await;
        call.reply(answer)
    }

    async fn decrypt(
        &self,
        request: Request<pb::DecryptRequest>,
    ) -> Result<Response<pb::DecryptResponse>, Status> {
        let Self { service, call } = self;
        let answer = async {
            let (request, reuse, document) = wire::decrypt(request.into_inner())?;
            if let Some(document) = document {
                return Box::pin(service.attested_decrypt(call, request, document)).await;
            }
            let permitted = service.permit(call, request, None).await?;
            let (request, named_key) = (Arc::clone(permitted.subject()), permitted.named_key());
            let terms = DrawTerms { declared: ONE_MESSAGE, reuse, deadline: call.deadline };
            let drawn = service.draw(call, permitted, terms).await;
            if let Err(BrokerError::DeniedKey(arn)) = &drawn {
                // Policy denied this key when it was to be cached; asking again records which policies did.
                service.permit_answer(call, &*request, arn).await;
            }
            let is_denied = matches!(drawn, Err(BrokerError::DeniedKey(_)));
            let (sealed, source) =
                if is_denied { Err(call.denied_the_key_of_the_answer(Action::Decrypt)) } else { drawn }?;
            let decrypted = service.open(call, &*request, named_key, &sealed).await?;
            Ok(wire::decrypted(decrypted, &source))
        }
        .await;
        call.reply(answer)
    }

    async fn encrypt(
        &self,
        request: Request<pb::EncryptRequest>,
    ) -> Result<Response<pb::EncryptResponse>, Status> {
        let Self { service, call } = self;
        call.reply(service.encrypt(call, request.into_inner()).await)
    }

    async fn re_encrypt(
        &self,
        request: Request<pb::ReEncryptRequest>,
    ) -> Result<Response<pb::ReEncryptResponse>, Status> {
        let Self { service, call } = self;
        call.reply(service.re_encrypt(call, request.into_inner()).await)
    }

    async fn generate_data_key_pair(
        &self,
        request: Request<pb::GenerateDataKeyPairRequest>,
    ) -> Result<Response<pb::GenerateDataKeyPairResponse>, Status> {
        let Self { service, call } = self;
        call.reply(service.generate_data_key_pair(call, request.into_inner()).await)
    }

    async fn generate_data_key_pair_without_plaintext(
        &self,
        request: Request<pb::GenerateDataKeyPairWithoutPlaintextRequest>,
    ) -> Result<Response<pb::GenerateDataKeyPairWithoutPlaintextResponse>, Status> {
        let Self { service, call } = self;
        call.reply(service.generate_data_key_pair_without_plaintext(call, request.into_inner()).await)
    }

    async fn generate_random(
        &self,
        request: Request<pb::GenerateRandomRequest>,
    ) -> Result<Response<pb::GenerateRandomResponse>, Status> {
        let Self { service, call } = self;
        let answer = async {
            let (request, document) = wire::generate_random(request.into_inner())?;
            if let Some(document) = document {
                return Box::pin(service.attested_random(call, request, document)).await;
            }
            let permitted = service.permit(call, request, None).await?;
            let (random, source) = service.call_kms(call, permitted).await?;
            Ok(wire::random(&random, &source))
        }
        .await;
        call.reply(answer)
    }

    async fn describe_key(
        &self,
        request: Request<pb::DescribeKeyRequest>,
    ) -> Result<Response<pb::DescribeKeyResponse>, Status> {
        let Self { service, call } = self;
        let answer = async {
            let request = wire::describe_key(&request.into_inner())?;
            let permitted = service.permit(call, request, None).await?;
            let (description, source) = service.call_kms(call, permitted).await?;
            Ok(wire::key_description(&description, &source))
        }
        .await;
        call.reply(answer)
    }
}

impl WorkloadCall {
    /// Refuses enclaves: no plaintext of theirs may get into the broker.
    fn refuse_enclaves(&self) -> Result<(), BrokerError> {
        match self.peer.details.transport {
            Transport::Vsock => Err(BrokerError::PlaintextOfEnclave),
            Transport::Unix | Transport::Tls | Transport::InsecureTcp => Ok(()),
        }
    }

    /// Records how the call ended and makes its reply.
    fn reply<T>(&self, answer: Result<T, BrokerError>) -> Result<Response<T>, Status> {
        match answer {
            Ok(message) => {
                self.record.allowed();
                Ok(Response::new(message))
            }
            Err(error) => {
                self.record.refused(&error);
                Err(wire::status(&error, self.request_id))
            }
        }
    }

    /// Records what KMS or the cache answered, even if the call is denied afterwards.
    fn answered<T: KeyedReply>(&self, drawn: DrawOutcome<T>) -> Result<(Arc<T>, DataKeyData), BrokerError> {
        let DrawOutcome { result, source, called_kms, reuse, expires_at, drawn_at, evidence, records } =
            drawn;
        if let Some(drawn_at) = drawn_at {
            self.record.drawn(drawn_at);
        }
        let refused = match &result {
            Err(BrokerError::Kms(error)) => error.request_id.as_deref().map(Arc::from),
            _ => None,
        };
        let key_arn = match &result {
            Ok(value) => value.used_key().map(|(arn, _)| arn.clone()),
            Err(BrokerError::DeniedKey(arn)) => Some(arn.clone()),
            Err(_) => None,
        };
        let data_key = DataKeyData {
            served_from: if called_kms { ServedFrom::Kms } else { ServedFrom::Cache },
            kms_request_id: source.as_ref().map(|source| Arc::clone(&source.request_id)).or(refused),
            kms_event_id: source.as_ref().map(|source| source.event_id),
            minted_at: source.as_ref().filter(|_| result.is_ok()).map(|source| source.at),
            expires_at,
            last_allowed: evidence.allowed.map(|(allowed, scope)| LastAllowed {
                time: allowed.source.at,
                kms_request_id: Arc::clone(&allowed.source.request_id),
                kms_event_id: allowed.source.event_id,
                scope,
            }),
            last_check_failed: evidence.failed,
            messages_used: reuse.map(|reuse| reuse.used.messages),
            messages_limit: reuse.map(|reuse| reuse.limit.messages),
            bytes_used: reuse.map(|reuse| reuse.used.bytes),
            bytes_limit: reuse.map(|reuse| reuse.limit.bytes),
            ciphertext_sha256: result.as_ref().ok().and_then(|reply| reply.ciphertext_sha256()).cloned(),
        };
        // A call to KMS that several calls wait for is in the trace of one of them: the others link to it.
        if let Some(minted_in) = source.and_then(|source| source.span).filter(|_| records.is_none()) {
            trace::link(&minted_in);
        }
        let new_key_arn = result.as_ref().ok().and_then(|value| value.new_key()).map(|(arn, _)| arn.clone());
        self.record.answered(records, data_key.clone(), [key_arn, new_key_arn]);
        Ok((result?, data_key))
    }
}

/// A Decrypt declares no use, so it counts as one message.
const ONE_MESSAGE: DeclaredUse = DeclaredUse { messages: 1, bytes: 0 };
