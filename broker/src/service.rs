//! The RPCs: parse -> authorize -> work(permit) -> reply. The audit layer commits the record before the reply leaves.

mod attested;
pub mod wire;

use std::sync::Arc;

use key_broker_proto::v1 as pb;
use key_broker_proto::v1::key_broker_server::KeyBroker;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use tracing::field::Empty;
use tracing::{info_span, record_all};
use uuid::Uuid;

use crate::attestation::{Measurements, Trust};
use crate::audit::Notes;
use crate::audit::record::{Action, DataKeyData, DeclaredUse, ServedFrom};
use crate::cache::{Cache, Drawn, Wish};
use crate::error::BrokerError;
use crate::identity::Peer;
use crate::key::{KeyId, NamedKey, RequestedKey};
use crate::kms::aliases::Aliases;
use crate::kms::recorded::{RecordedKms, Waiting};
use crate::kms::{Asked, DataKeyRequest, DecryptRequest, Uses};
use crate::policy::bindings::Bindings;
use crate::policy::file::Policies;
use crate::policy::{Facts, Permit, Question};
use crate::telemetry::{trace, vocabulary};

/// What the service `keybroker.v1.KeyBroker` is made of. It answers through an [`Answerer`].
pub struct Service {
    /// Who may do what.
    pub policies: Arc<Policies>,
    /// What principals' encryption contexts must have.
    pub bindings: Bindings,
    /// Which attestation documents count.
    pub trust: Arc<Trust>,
    /// So many of them are verified at a time.
    pub verifications: Arc<Semaphore>,
    /// What aliases mean.
    pub aliases: Aliases,
    /// What is kept.
    pub cache: Cache,
    /// What is not.
    pub kms: RecordedKms,
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
    /// Until when the caller waits.
    pub waiting: Waiting,
}

impl Service {
    /// The service for one call.
    #[must_use]
    pub fn answerer(self: &Arc<Self>, call: Call) -> Answerer {
        Answerer { service: Arc::clone(self), call }
    }

    /// What the key of a call names. `asked` tells the record, in case KMS has to be asked first.
    async fn named(
        &self,
        call: &Call,
        action: Action,
        key: &KeyId,
        recipient: Option<&Arc<Measurements>>,
        asked: impl FnOnce() -> Asked,
    ) -> Result<NamedKey, BrokerError> {
        if let Some(named) = self.aliases.known(key) {
            return Ok(named);
        }
        call.notes.asked(asked(), None);
        let (aliases, waiting) = (self.aliases.clone(), call.waiting.clone());
        // Boxed: most calls never come here.
        match Box::pin(async move { aliases.ask(key, waiting).await }).await {
            Err(BrokerError::Kms(error)) if !error.kind.is_passing() => {
                // Whether KMS lets the broker see a key is not for everybody.
                let named = NamedKey { arn: None, alias: Some(key.clone()) };
                match self.authorize(call, action, Some(&named), call.facts(recipient)) {
                    Err(BrokerError::NoSuchKey) => Err(BrokerError::Kms(error)),
                    Err(denied) => Err(denied),
                    Ok(_) => Err(BrokerError::Bug),
                }
            }
            asked => asked,
        }
    }

    /// Asks policy. What is permitted with a key that is none is told so; to others, it reads as a denial.
    fn authorize(
        &self,
        call: &Call,
        action: Action,
        key: Option<&NamedKey>,
        facts: Facts<'_>,
    ) -> Result<Permit, BrokerError> {
        let question = Question { principal: &call.peer.principal, action, key, facts };
        let span = info_span!(
            vocabulary::AUTHORIZE,
            { vocabulary::DECISION } = Empty,
            { vocabulary::POLICY_VERSION } = Empty
        );
        let answer = self.policies.current().authorize(&question);
        record_all!(
            span,
            { vocabulary::DECISION } = if answer.permit.is_some() { "allow" } else { "deny" },
            { vocabulary::POLICY_VERSION } = &*answer.version,
        );
        drop(span);
        call.notes.decided(answer.determining_policies, answer.version);
        let permit = answer.permit.ok_or(BrokerError::Denied)?;
        if key.is_some_and(|key| key.arn.is_none()) { Err(BrokerError::NoSuchKey) } else { Ok(permit) }
    }

    /// A request for a data key, as it is permitted to be: its key named, its context bound.
    async fn permitted_data_key(
        &self,
        call: &Call,
        action: Action,
        mut request: DataKeyRequest,
        declared: DeclaredUse,
        recipient: Option<&Arc<Measurements>>,
    ) -> Result<(Permit, Arc<DataKeyRequest>), BrokerError> {
        let asked = || Asked::DataKey(Arc::new(request.clone()));
        let named = self.named(call, action, &request.key.written, recipient, asked).await;
        if let Ok(NamedKey { arn: Some(arn), .. }) = &named {
            call.notes.named(arn.clone());
            request.key.asked = arn.into();
        }
        let bound = self.bindings.bind(&call.peer.principal, &request.context);
        if let Ok(Some(context)) = &bound {
            request.context = context.clone();
        }
        let request = Arc::new(request);
        call.notes.asked(Asked::DataKey(Arc::clone(&request)), Some(declared));
        let named = named?;
        let DeclaredUse { messages, bytes } = declared;
        let facts =
            Facts { messages, bytes, encryption_context: Some(&request.context), ..call.facts(recipient) };
        let permit = self.authorize(call, action, Some(&named), facts)?;
        bound?;
        Ok((permit, request))
    }

    /// A request for a decrypt, as it is permitted to be.
    async fn permitted_decrypt(
        &self,
        call: &Call,
        mut request: DecryptRequest,
        recipient: Option<&Arc<Measurements>>,
    ) -> Result<(Permit, Arc<DecryptRequest>), BrokerError> {
        let named = match &request.key {
            Some(key) => {
                let asked = || Asked::Decrypt(Arc::new(request.clone()));
                Some(self.named(call, Action::Decrypt, &key.written, recipient, asked).await).transpose()
            }
            None => Ok(None),
        };
        if let (Ok(Some(NamedKey { arn: Some(arn), .. })), Some(key)) = (&named, &mut request.key) {
            call.notes.named(arn.clone());
            key.asked = arn.into();
        }
        let bound = self.bindings.bind(&call.peer.principal, &request.context);
        if let Ok(Some(context)) = &bound {
            request.context = context.clone();
        }
        let request = Arc::new(request);
        call.notes.asked(Asked::Decrypt(Arc::clone(&request)), None);
        let named = named?;
        let facts = Facts { encryption_context: Some(&request.context), ..call.facts(recipient) };
        let permit = self.authorize(call, Action::Decrypt, named.as_ref(), facts)?;
        bound?;
        Ok((permit, request))
    }
}

/// A draw within its span.
async fn traced<T>(draw: impl Future<Output = Drawn<T>>) -> Drawn<T> {
    let span = info_span!(vocabulary::CACHE, { vocabulary::CACHE_RESULT } = Empty);
    let drawn = draw.await;
    span.record(vocabulary::CACHE_RESULT, if drawn.called_kms { "miss" } else { "hit" });
    drawn
}

#[tonic::async_trait]
impl KeyBroker for Answerer {
    async fn generate_data_key(
        &self,
        request: Request<pb::GenerateDataKeyRequest>,
    ) -> Result<Response<pb::GenerateDataKeyResponse>, Status> {
        let Self { service, call } = self;
        let answer = async {
            let (request, declared, reuse, document) = wire::generate_data_key(request.into_inner())?;
            if let Some(document) = document {
                // Boxed: most calls never come here.
                return Box::pin(service.attested_data_key(call, request, declared, document)).await;
            }
            let (permit, request) =
                service.permitted_data_key(call, Action::GenerateDataKey, request, declared, None).await?;
            let wish = Wish { declared, reuse, waiting: call.waiting.clone() };
            let drawn =
                traced(service.cache.data_key(permit, &call.peer.principal, request, wish)).await;
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
            let action = Action::GenerateDataKeyWithoutPlaintext;
            let (permit, request) = service.permitted_data_key(call, action, request, declared, None).await?;
            let wish = Wish { declared, reuse, waiting: call.waiting.clone() };
            let drawn =
                traced(service.cache.encrypted_data_key(permit, &call.peer.principal, request, wish))
                    .await;
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
            let (request, reuse, document) = wire::decrypt(request.into_inner())?;
            if let Some(document) = document {
                return Box::pin(service.attested_decrypt(call, request, document)).await;
            }
            let (permit, request) = service.permitted_decrypt(call, request, None).await?;
            let wish = Wish { declared: wire::ONE_MESSAGE, reuse, waiting: call.waiting.clone() };
            let drawn =
                traced(service.cache.decrypt(permit, &call.peer.principal, request, wish)).await;
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
            let (length, document) = wire::generate_random(request.into_inner())?;
            call.notes.asked(Asked::Random(length), None);
            if let Some(document) = document {
                return Box::pin(service.attested_random(call, length, document)).await;
            }
            let permit = service.authorize(call, Action::GenerateRandom, None, call.facts(None))?;
            let recorded = service.kms.generate_random(permit, length, call.waiting.clone()).await;
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
            let written = wire::describe_key(&request.into_inner())?;
            let mut key = RequestedKey::from(written.clone());
            let asked = || Asked::Describe(key.clone());
            let named = service.named(call, Action::DescribeKey, &written, None, asked).await;
            if let Ok(NamedKey { arn: Some(arn), .. }) = &named {
                call.notes.named(arn.clone());
                key.asked = arn.into();
            }
            call.notes.asked(Asked::Describe(key.clone()), None);
            let permit = service.authorize(call, Action::DescribeKey, Some(&named?), call.facts(None))?;
            let recorded = service.kms.describe_key(permit, key, call.waiting.clone()).await;
            let (description, source) = call.answered(recorded.into())?;
            Ok(wire::key_description(&description, &source))
        };
        call.reply(answer.await)
    }
}

impl Call {
    /// What the call says without its request.
    fn facts<'a>(&'a self, recipient: Option<&'a Arc<Measurements>>) -> Facts<'a> {
        Facts { transport: self.peer.details.transport, recipient, ..Facts::default() }
    }

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
        // A call that another call waits for, too, is in the trace of one of them: the others link to it.
        if let Some(minted_in) = source.and_then(|source| source.span).filter(|_| records.is_none()) {
            trace::link(&minted_in);
        }
        self.notes.answered(records, data_key.clone(), key_arn);
        Ok((result?, data_key))
    }
}
