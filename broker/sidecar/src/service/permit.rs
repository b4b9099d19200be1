//! The one path from a request to a permit: what its key means, the pairs that its context is bound to, then policy. The record
//! learns each as soon as it is known, so that a call that ends here is described as fully as one that goes on.

use std::sync::Arc;

use key_broker_core::{Action, DeclaredUse, KeyArn, NamedKey};
use tracing::field::Empty;
use tracing::{info_span, record_all};

use super::{Service, WorkloadCall};
use crate::error::BrokerError;
use crate::operation::WorkloadRequest;
use crate::policy::{AliasMeanings, Decision, Facts, Permitted, Policy, Question, SealedReply};
use crate::telemetry::vocabulary;

/// Why the key that a request names could not be resolved.
enum ResolutionError {
    /// There is no such key, or KMS does not let the broker see it. Only principals that policy would permit
    /// are told so; everyone else gets the same `PERMISSION_DENIED` as for a key that exists.
    UnknownKey(NamedKey, BrokerError),
    /// KMS could not be asked.
    Failed(BrokerError),
}

impl Service {
    /// The request, as it is permitted: its key resolved, its context bound to the principal.
    pub(super) async fn permit<R: WorkloadRequest>(
        &self,
        call: &WorkloadCall,
        mut request: R,
        declared: Option<DeclaredUse>,
    ) -> Result<Permitted<Arc<R>>, BrokerError> {
        let policy = Arc::clone(&self.policies.current());
        let meanings = match request.action() {
            // It is about no key.
            Action::GenerateRandom => Arc::default(),
            _ => self.meanings(call, &policy, &request, declared).await,
        };
        let unresolved = self.resolve(call, &mut request, declared, &meanings).await.err();
        let bound = self.bind(call, &mut request);
        let request = Arc::new(request);
        call.record.requested(Arc::clone(&request).into_kms_request(), declared);
        let facts = call.facts(declared);
        let denied = if request.action() == Action::Decrypt && request.written_key().is_none() {
            BrokerError::DeniedUnnamed
        } else {
            BrokerError::Denied
        };
        match unresolved {
            None => {}
            Some(ResolutionError::Failed(error)) => return Err(error),
            Some(ResolutionError::UnknownKey(key, error)) => {
                let facts =
                    Facts { encryption_context: request.context(), recipient: request.recipient(), ..facts };
                let (principal, action) = (&call.peer.principal, request.action());
                let question = Question { principal, action, key: Some(&key), meanings: &meanings, facts };
                let permits = call.decided(|| {
                    let decision = policy.decide(&question);
                    let permits = decision.permits;
                    (decision, permits)
                });
                return Err(if permits { error } else { denied });
            }
        }
        let permitted = call.decided(|| policy.permit(&call.peer.principal, request, &meanings, facts));
        let permitted = permitted.ok_or(denied)?;
        bound?;
        Ok(permitted)
    }

    /// Opens what KMS made with a key that policy may not have been asked about: a request that named its key was permitted for that
    /// key; of another, policy is asked again about the key that answered.
    pub(super) async fn open<'a, R: WorkloadRequest, T>(
        &self,
        call: &WorkloadCall,
        request: &R,
        named_key: Option<Permitted<KeyArn>>,
        sealed: &'a SealedReply<T>,
    ) -> Result<&'a T, BrokerError> {
        if let Some(permitted) = named_key {
            // KMS's answer is for the key that it was asked for, or none.
            return sealed.open(&permitted).ok_or(BrokerError::Bug);
        }
        let permitted = self.permit_answer(call, request, sealed.key()).await;
        sealed.open(&permitted.ok_or(BrokerError::Denied)?).ok_or(BrokerError::Bug)
    }

    /// Asks policy about the key that KMS answered with, which the request did not name.
    pub(super) async fn permit_answer<R: WorkloadRequest>(
        &self,
        call: &WorkloadCall,
        request: &R,
        arn: &KeyArn,
    ) -> Option<Permitted<KeyArn>> {
        let policy = Arc::clone(&self.policies.current());
        let meanings = self.meanings(call, &policy, request, None).await;
        let key = NamedKey { arn: Some(arn.clone()), alias: None };
        let facts = Facts {
            encryption_context: request.context(),
            recipient: request.recipient(),
            ..call.facts(None)
        };
        let (principal, action) = (&call.peer.principal, request.action());
        let question = Question { principal, action, key: Some(&key), meanings: &meanings, facts };
        call.decided(|| policy.permit_key(&question))
    }

    /// What the aliases mean that policies name.
    async fn meanings<R: WorkloadRequest>(
        &self,
        call: &WorkloadCall,
        policy: &Arc<Policy>,
        request: &R,
        declared: Option<DeclaredUse>,
    ) -> Arc<AliasMeanings> {
        if let Some(meanings) = self.policy_aliases.cached(policy) {
            return meanings;
        }
        // KMS has to be asked first: if the caller goes away meanwhile, the record already describes the request.
        call.record.requested(Arc::new(request.clone()).into_kms_request(), declared);
        let (aliases, deadline, policy) = (self.policy_aliases.clone(), call.deadline, Arc::clone(policy));
        // Boxed: most calls never come here.
        Box::pin(async move { aliases.ask(&policy, deadline).await }).await
    }

    /// Finds out which key the request names, if it names one.
    async fn resolve<R: WorkloadRequest>(
        &self,
        call: &WorkloadCall,
        request: &mut R,
        declared: Option<DeclaredUse>,
        meanings: &AliasMeanings,
    ) -> Result<(), ResolutionError> {
        let Some(key) = request.written_key().cloned() else { return Ok(()) };
        let alias = self.aliases.alias(&key);
        let named = if let Some(arn) = meanings.target(&alias) {
            NamedKey { arn: Some(arn.clone()), alias: Some(alias) }
        } else if let Some(named) = self.aliases.cached(&key) {
            named
        } else {
            // KMS has to be asked first: if the caller goes away meanwhile, the record already describes the request.
            call.record.requested(Arc::new(request.clone()).into_kms_request(), declared);
            let (aliases, deadline, wanted) = (self.aliases.clone(), call.deadline, key.clone());
            // Boxed: most calls never come here.
            match Box::pin(async move { aliases.ask(&wanted, deadline).await }).await {
                Ok(named) => named,
                Err(BrokerError::Kms(error)) if !error.kind.is_transient() => {
                    let unknown = NamedKey { arn: None, alias: Some(key) };
                    return Err(ResolutionError::UnknownKey(unknown, BrokerError::Kms(error)));
                }
                Err(error) => return Err(ResolutionError::Failed(error)),
            }
        };
        let Some(arn) = &named.arn else {
            return Err(ResolutionError::UnknownKey(named, BrokerError::NoSuchKey));
        };
        call.record.key(arn.clone());
        if let Some(key) = request.key_mut() {
            key.resolved = Some(named);
        }
        Ok(())
    }

    /// Gives the request the pairs that its principal's contexts are bound to.
    fn bind<R: WorkloadRequest>(&self, call: &WorkloadCall, request: &mut R) -> Result<(), BrokerError> {
        let Some(context) = request.context_mut() else { return Ok(()) };
        if let Some(bound) = self.bindings.bind(&call.peer.principal, context)? {
            *context = bound;
        }
        Ok(())
    }
}

impl WorkloadCall {
    /// What the call says beside its request.
    fn facts(&self, declared: Option<DeclaredUse>) -> Facts<'_> {
        let facts = Facts { transport: self.peer.details.transport, ..Facts::default() };
        match declared {
            Some(DeclaredUse { messages, bytes }) => Facts { messages, bytes, ..facts },
            None => facts,
        }
    }

    /// Asks policy within a span, and notes what it said.
    fn decided<T>(&self, decide: impl FnOnce() -> (Decision, T)) -> T {
        let span = info_span!(
            vocabulary::AUTHORIZE,
            { vocabulary::DECISION } = Empty,
            { vocabulary::POLICY_VERSION } = Empty
        );
        let (decision, decided) = decide();
        record_all!(
            span,
            { vocabulary::DECISION } = if decision.permits { "allow" } else { "deny" },
            { vocabulary::POLICY_VERSION } = &*decision.version,
        );
        drop(span);
        self.record.decided(decision.determining_policies, decision.version);
        decided
    }
}
