//! The one path from a request to a permit: resolve its key, bind its encryption context, then ask policy. Each result is recorded
//! as soon as it is known, so that a call that ends here is described as fully as one that goes on.

use std::sync::Arc;

use key_broker_core::{Action, DeclaredUse, KeyArn, KeyId};
use opentelemetry::KeyValue;

use super::ruling::{bind, ruling};
use super::{Service, WorkloadCall};
use crate::error::{BrokerError, Denial, DeniedContext, DeniedKey};
use crate::kms::aliases::KnownKey;
use crate::kms::policy_aliases::KnownMeanings;
use crate::named_key::NamedKey;
use crate::operation::WorkloadRequest;
use crate::policy::{AliasMeanings, Decision, Facts, Permitted, Policy, Question, SealedReply};
use crate::telemetry::vocabulary;

/// Why the key of a request could not be resolved.
enum ResolutionError {
    /// There is no such key, or KMS does not let the broker see it. Only principals whom policy would permit are
    /// told so; all others get the same `PERMISSION_DENIED` as for a key that exists.
    UnknownKey(NamedKey, BrokerError),
    /// KMS could not be asked.
    Failed(BrokerError),
}

/// What is known about a request's key without asking KMS.
struct RequestFacts {
    /// The keys that policies' aliases stand for; `None` if KMS must be asked.
    meanings: Option<KnownMeanings>,
    key: KeyName,
}

/// The key that a request names.
enum KeyName {
    /// The request names none.
    None,
    Known(KnownKey),
    /// KMS must be asked.
    Unknown(KeyId),
}

impl RequestFacts {
    fn is_to_be_asked(&self) -> bool {
        self.meanings.is_none() || matches!(self.key, KeyName::Unknown(_))
    }

    fn is_due(&self) -> bool {
        self.meanings.as_ref().is_some_and(|meanings| meanings.is_due)
            || matches!(self.key, KeyName::Known(KnownKey { is_due: true, .. }))
    }
}

impl Service {
    /// Resolves the request's key, binds its context and asks policy. KMS is never asked on behalf of a call that is denied whatever
    /// its key turns out to be.
    pub(super) async fn permit<R: WorkloadRequest>(
        &self,
        call: &WorkloadCall,
        mut request: R,
        declared: Option<DeclaredUse>,
    ) -> Result<Permitted<Arc<R>>, BrokerError> {
        let policy = Arc::clone(&self.policies.current());
        // As it was sent: what is added to it is not told.
        let sent = DeniedContext::from(request.context());
        let bound = bind(&self.bindings, &call.peer.principal, request.context_mut());
        let known = self.known(call, &policy, &request);
        if known.is_due() || known.is_to_be_asked() {
            let facts = call.facts_of(&request, declared);
            match policy.denies_every_key(&call.peer.principal, request.action(), facts) {
                None => self.refresh(call, &policy, &known),
                Some(decision) if known.is_to_be_asked() => {
                    let denied = call.denied(&request, sent);
                    call.record.requested(Arc::new(request).into_kms_request(), declared);
                    call.decided(|| (decision, ()));
                    return Err(denied);
                }
                Some(_) => {}
            }
        }
        let meanings = match known.meanings {
            Some(KnownMeanings { meanings, .. }) => meanings,
            None => self.ask_meanings(call, &policy, &request, declared).await,
        };
        let unresolved = self.resolve(call, &mut request, declared, known.key, &meanings).await.err();
        let request = Arc::new(request);
        call.record.requested(Arc::clone(&request).into_kms_request(), declared);
        let asked = Arc::clone(&request);
        let denied = || call.denied(&*asked, sent);
        match unresolved {
            None => {}
            Some(ResolutionError::Failed(error)) => return Err(error),
            Some(ResolutionError::UnknownKey(key, error)) => {
                let facts = call.facts_of(&*request, declared);
                let (principal, action) = (&call.peer.principal, request.action());
                let question = Question { principal, action, key: Some(&key), meanings: &meanings, facts };
                return Err(call.decided(|| {
                    let decision = policy.decide(&question);
                    let told = ruling(&decision, denied, Some(error), bound);
                    (decision, told.err().unwrap_or(BrokerError::NoSuchKey))
                }));
            }
        }
        let facts = call.facts(declared);
        call.decided(|| {
            let (decision, permitted) = policy.permit(&call.peer.principal, request, &meanings, facts);
            let told = ruling(&decision, denied, None, bound);
            // Policy permits nobody an unresolved key.
            let permit = told.and_then(|()| permitted.ok_or_else(denied));
            (decision, permit)
        })
    }

    /// Opens KMS's answer. If the request named its key, the permit for that key suffices; otherwise policy is asked about the key that
    /// KMS used.
    pub(super) async fn open<'a, R: WorkloadRequest, T>(
        &self,
        call: &WorkloadCall,
        request: &R,
        named_key: Option<Permitted<KeyArn>>,
        sealed: &'a SealedReply<T>,
    ) -> Result<&'a T, BrokerError> {
        if let Some(permitted) = named_key {
            // KMS answers with the key that the request named, or with an error.
            return sealed.open(&permitted).ok_or(BrokerError::Bug);
        }
        let permitted = self.permit_answer(call, request, sealed.key()).await;
        let permitted = permitted.ok_or_else(|| call.denied_the_key_of_the_answer(request.action()))?;
        sealed.open(&permitted).ok_or(BrokerError::Bug)
    }

    /// Asks policy about the key in KMS's answer, which the request did not name.
    pub(super) async fn permit_answer<R: WorkloadRequest>(
        &self,
        call: &WorkloadCall,
        request: &R,
        arn: &KeyArn,
    ) -> Option<Permitted<KeyArn>> {
        let policy = Arc::clone(&self.policies.current());
        let meanings = match self.policy_aliases.known(&policy) {
            Some(KnownMeanings { meanings, .. }) => meanings,
            None => self.ask_meanings(call, &policy, request, None).await,
        };
        let key = NamedKey { arn: Some(arn.clone()), alias: None };
        let facts = call.facts_of(request, None);
        let (principal, action) = (&call.peer.principal, request.action());
        let question = Question { principal, action, key: Some(&key), meanings: &meanings, facts };
        call.decided(|| policy.permit_key(&question))
    }

    /// What is known about the request's key without asking KMS.
    fn known<R: WorkloadRequest>(&self, call: &WorkloadCall, policy: &Policy, request: &R) -> RequestFacts {
        let meanings = match request.action() {
            // It concerns no key.
            Action::GenerateRandom => Some(KnownMeanings { meanings: Arc::default(), is_due: false }),
            _ => self.policy_aliases.known(policy),
        };
        let Some(written) = request.written_key() else {
            return RequestFacts { meanings, key: KeyName::None };
        };
        let alias = self.aliases.alias(written);
        let meant = meanings.as_ref().and_then(|known| known.meanings.target(&alias)).cloned();
        let key = match meant {
            Some(arn) => KeyName::Known(KnownKey {
                named: NamedKey { arn: Some(arn), alias: Some(alias) },
                is_due: false,
            }),
            None => match self.aliases.known(&call.peer.principal, written) {
                Some(known) => KeyName::Known(known),
                None => KeyName::Unknown(written.clone()),
            },
        };
        RequestFacts { meanings, key }
    }

    /// Refreshes in the background what is known but due for it.
    fn refresh(&self, call: &WorkloadCall, policy: &Arc<Policy>, known: &RequestFacts) {
        if known.meanings.as_ref().is_some_and(|meanings| meanings.is_due) {
            self.policy_aliases.refresh(policy);
        }
        if let KeyName::Known(KnownKey { named: NamedKey { alias: Some(alias), .. }, is_due: true }) =
            &known.key
        {
            self.aliases.refresh(&call.peer.principal, alias);
        }
    }

    /// Asks KMS about the aliases in policies.
    async fn ask_meanings<R: WorkloadRequest>(
        &self,
        call: &WorkloadCall,
        policy: &Arc<Policy>,
        request: &R,
        declared: Option<DeclaredUse>,
    ) -> Arc<AliasMeanings> {
        // So that the record describes the request even if the caller goes away meanwhile.
        call.record.requested(Arc::new(request.clone()).into_kms_request(), declared);
        let (aliases, deadline, policy) = (self.policy_aliases.clone(), call.deadline, Arc::clone(policy));
        // Boxed, since most calls never come here.
        Box::pin(async move { aliases.ask(&policy, deadline).await }).await
    }

    /// Resolves the key that the request names, if it names one.
    async fn resolve<R: WorkloadRequest>(
        &self,
        call: &WorkloadCall,
        request: &mut R,
        declared: Option<DeclaredUse>,
        key: KeyName,
        meanings: &AliasMeanings,
    ) -> Result<(), ResolutionError> {
        let named = match key {
            KeyName::None => return Ok(()),
            KeyName::Known(known) => known.named,
            KeyName::Unknown(key) => {
                let alias = self.aliases.alias(&key);
                match meanings.target(&alias) {
                    Some(arn) => NamedKey { arn: Some(arn.clone()), alias: Some(alias) },
                    None => self.ask_key(call, request, declared, key).await?,
                }
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

    /// Asks KMS which key a name stands for.
    async fn ask_key<R: WorkloadRequest>(
        &self,
        call: &WorkloadCall,
        request: &R,
        declared: Option<DeclaredUse>,
        key: KeyId,
    ) -> Result<NamedKey, ResolutionError> {
        // So that the record describes the request even if the caller goes away meanwhile.
        call.record.requested(Arc::new(request.clone()).into_kms_request(), declared);
        let (aliases, deadline, wanted) = (self.aliases.clone(), call.deadline, key.clone());
        let principal = call.peer.principal.clone();
        // Boxed, since most calls never come here.
        match Box::pin(async move { aliases.ask(&principal, &wanted, deadline).await }).await {
            Ok(named) => Ok(named),
            Err(BrokerError::Kms(error)) if !error.kind.is_transient() => {
                let unknown = NamedKey { arn: None, alias: Some(key) };
                Err(ResolutionError::UnknownKey(unknown, BrokerError::Kms(error)))
            }
            Err(error) => Err(ResolutionError::Failed(error)),
        }
    }
}

impl WorkloadCall {
    /// The error for an action that policy denies the caller.
    fn denied<R: WorkloadRequest>(&self, request: &R, context: DeniedContext) -> BrokerError {
        let key = request.written_key().map_or(DeniedKey::Any, |key| DeniedKey::Named(key.clone()));
        let (principal, action) = (self.peer.principal.clone(), request.action());
        BrokerError::Denied(Box::new(Denial { principal, action, key, context }))
    }

    /// The same where the request named no key and policy denies the key that KMS used.
    pub(super) fn denied_the_key_of_the_answer(&self, action: Action) -> BrokerError {
        let (principal, key) = (self.peer.principal.clone(), DeniedKey::OfTheAnswer);
        let context = DeniedContext::NotLookedAt;
        BrokerError::Denied(Box::new(Denial { principal, action, key, context }))
    }

    /// What policy sees of the call apart from its request.
    fn facts(&self, declared: Option<DeclaredUse>) -> Facts<'_> {
        let facts = Facts { transport: self.peer.details.transport, ..Facts::default() };
        match declared {
            Some(DeclaredUse { messages, bytes }) => Facts { messages, bytes, ..facts },
            None => facts,
        }
    }

    /// The same with what policy sees of the request.
    fn facts_of<'a, R: WorkloadRequest>(&self, request: &'a R, declared: Option<DeclaredUse>) -> Facts<'a> {
        let Facts { transport, messages, bytes, .. } = self.facts(declared);
        Facts {
            transport,
            messages,
            bytes,
            encryption_context: request.context(),
            recipient: request.recipient(),
        }
    }

    /// Asks policy within a span, and records the decision.
    fn decided<T>(&self, decide: impl FnOnce() -> (Decision, T)) -> T {
        let mut span = self.span.begin(vocabulary::AUTHORIZE);
        let (decision, decided) = decide();
        span.set(|| {
            [
                KeyValue::new(vocabulary::DECISION, if decision.permits { "allow" } else { "deny" }),
                KeyValue::new(vocabulary::POLICY_VERSION, Arc::clone(&decision.version)),
            ]
        });
        drop(span);
        self.record.decided(decision.determining_policies, decision.version);
        decided
    }
}
