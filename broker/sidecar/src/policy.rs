//! Authorization: Cedar policies, default deny. Only a [`Permitted`] request can reach KMS.
//!
//! A request to Cedar is `Workload::"unix:uid/1000"` (or `Unknown::"unknown"`), `Action::"Decrypt"`, `Key::"ARN"`, and details of the call
//! in `context` (see the schema and docs/policy.md). A key is in every `Alias::"alias/…"` of the policies that resolves to it, and in the
//! one by which the caller named it. If a call names no key, the resource is `Key::"*"`, which only a policy for all keys permits.

mod aliases;
pub(crate) mod bindings;
mod conditions;
pub(crate) mod file;
mod memory;
mod mistake;
mod multi_region;
mod outlook;
pub(crate) mod own;
mod permitted;
mod schema;
mod sealed;

use std::str::FromStr;
use std::sync::Arc;

use cedar_policy::{
    AuthorizationError, Authorizer, EntityUid, Policy as CedarPolicy, PolicyId, PolicySet, ValidationMode,
    ValidationWarning,
};
use key_broker_core::{Action, EncryptionContext, KeyArn, KeyId, Principal, Transport};
use sha2::{Digest, Sha256};

use crate::attestation::Measurements;
use crate::named_key::NamedKey;
use crate::operation::WorkloadRequest;
pub(crate) use aliases::AliasMeanings;
use aliases::KeyAliases;
use conditions::{ParsedPolicy, alias_of};
use memory::{DecisionCache, DecisionKey};
use mistake::Mistake;
use outlook::Outlook;
pub(crate) use permitted::Permitted;
pub(crate) use permitted::Requester;
use schema::EntityNames;
pub(crate) use sealed::SealedReply;

/// The policies in force.
pub struct Policy {
    policies: PolicySet,
    version: Arc<str>,
    /// Whether any policy reads the context.
    uses_context: bool,
    /// The keys and aliases that policies name, as they are written.
    keys: Vec<NamedKey>,
    /// The aliases among them.
    aliases: Vec<KeyId>,
    /// The aliases by which a policy may permit less.
    restricting: Vec<KeyId>,
    authorizer: Authorizer,
    names: EntityNames,
    decisions: DecisionCache,
    outlook: Outlook,
}

/// A question to policy.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// The action.
    pub action: Action,
    /// The key, if the call names one.
    pub key: Option<&'a NamedKey>,
    /// What the aliases in policies stand for.
    pub meanings: &'a AliasMeanings,
    /// Further facts of the call.
    pub facts: Facts<'a>,
}

/// What policies can read about a call.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// How the call came in.
    pub transport: Transport,
    /// The messages declared for a data key; 1 for other actions.
    pub messages: u64,
    /// The declared bytes; 0 if none are declared.
    pub bytes: u64,
    /// The encryption context; `None` for calls without one.
    pub encryption_context: Option<&'a EncryptionContext>,
    /// What a verified attestation document proves; `None` without a recipient.
    pub recipient: Option<&'a Arc<Measurements>>,
}

/// Policy's decision and the policies behind it, in the same detail for a denial as for a permit.
#[derive(Clone)]
pub(crate) struct Decision {
    /// Whether it permits.
    pub permits: bool,
    /// The ids of the policies that decided; empty when no policy permits.
    pub determining_policies: Arc<[String]>,
    /// The version of the policies.
    pub version: Arc<str>,
}

#[derive(Clone)]
struct CedarDecision {
    permits: bool,
    determining_policies: Arc<[String]>,
}

/// Policy about the key in KMS's answer, for a request that named no key.
pub(super) struct AnswerPolicy {
    policy: Arc<Policy>,
    meanings: Arc<AliasMeanings>,
    principal: Principal,
    action: Action,
    transport: Transport,
    encryption_context: Option<EncryptionContext>,
    recipient: Option<Arc<Measurements>>,
}

impl Policy {
    /// Parses and validates policies in Cedar's own syntax (<https://docs.cedarpolicy.com/policies/syntax-policy.html>). A policy that can never
    /// apply, or would fail for every call, is an error. The error begins with `LINE:COLUMN: ` if it has a single place.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::read(text).map_err(|mistake| mistake.to_string())
    }

    fn read(text: &str) -> Result<Self, Mistake> {
        let written = PolicySet::from_str(text).map_err(|errors| Mistake::of_cedar(text, &errors))?;
        if written.templates().next().is_some() {
            return Err(Mistake::of_all(
                "a policy has a slot (?principal, ?resource): write the principal and the key out",
            ));
        }
        let (policies, version) = (checked(text, &written)?, version_of(text.as_bytes()));
        let keys = keys_in(&policies);
        let (mut uses_context, mut aliases, mut restricting) = (false, Vec::new(), Vec::new());
        for policy in policies.policies() {
            let parsed = ParsedPolicy::of(policy).map_err(Mistake::of_all)?;
            parsed.check_comparisons().map_err(|why| at(text, &written, policy, why))?;
            uses_context |= parsed.reads_context();
            aliases.extend(policy.entity_literals().iter().filter_map(alias_of));
            restricting.extend(parsed.restricting_aliases());
        }
        for list in [&mut aliases, &mut restricting] {
            list.sort_by(|one, other| one.as_str().cmp(other.as_str()));
            list.dedup();
        }
        let (authorizer, names, decisions) =
            (Authorizer::new(), EntityNames::new(), DecisionCache::default());
        let mut asked = PolicySet::new();
        for policy in policies.policies() {
            let policy = multi_region::with_one_name(policy, schema::KEY).map_err(Mistake::of_all)?;
            asked.add(policy).map_err(|error| Mistake::of_all(mistake::one_line(&error)))?;
        }
        let outlook = Outlook::of(&asked).map_err(Mistake::of_all)?;
        Ok(Self {
            policies: asked,
            version,
            uses_context,
            keys,
            aliases,
            restricting,
            authorizer,
            names,
            decisions,
            outlook,
        })
    }

    /// Refuses aliases of the broker's own account and region that are written as ARNs, so that each alias has one name.
    pub(crate) fn check_home(&self, region: &str, account_id: &str) -> Result<(), String> {
        for alias in self.aliases.iter().filter(|alias| alias.as_str().starts_with("arn:")) {
            if let Some(short) = alias.short_alias(region, account_id) {
                let (long, short) = (alias.as_str(), short.as_str());
                return Err(format!(
                    "Alias::\"{long}\": the alias is of the broker's own account and region: write Alias::\"{short}\""
                ));
            }
        }
        Ok(())
    }

    /// The aliases that policies name, which must be resolved before policy is asked about a key.
    #[must_use]
    pub(crate) fn aliases(&self) -> &[KeyId] {
        &self.aliases
    }

    /// The number of policies.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.policies.policies().count()
    }

    /// Whether there are no policies, so that everything is denied.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// The version of the policies: the first half of the SHA-256 of their text, in hex.
    #[must_use]
    pub(crate) fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// The keys and aliases that policies name.
    #[must_use]
    pub(crate) fn keys(&self) -> &[NamedKey] {
        &self.keys
    }

    /// Whether the principal may do this. Any error is a denial.
    #[must_use]
    pub(crate) fn decide(&self, question: &Question<'_>) -> Decision {
        let aliases = self.aliases_of(question);
        let wanted = DecisionKey::of(question, aliases, self.uses_context);
        let CedarDecision { permits, determining_policies } =
            self.decisions.find(&wanted).unwrap_or_else(|| {
                let (decision, is_sound) = self.ask_whatever_they_mean(question, wanted.aliases());
                if is_sound {
                    self.decisions.keep(wanted, decision.clone());
                }
                decision
            });
        Decision { permits, determining_policies, version: Arc::clone(&self.version) }
    }

    fn aliases_of(&self, question: &Question<'_>) -> KeyAliases {
        let Some(NamedKey { arn, alias }) = question.key else { return KeyAliases::default() };
        // Other aliases make no difference to any policy.
        let called = alias.as_ref().filter(|alias| self.aliases.contains(alias));
        match arn {
            _ if self.aliases.is_empty() => KeyAliases::default(),
            Some(arn) => question.meanings.of(arn, called, &self.restricting),
            // It stands for no key; only the caller's name for it is known.
            None => KeyAliases { known: called.into_iter().cloned().collect(), open: Arc::default() },
        }
    }

    /// Asks whether the principal may make this request, whose key is resolved. If the request names no key, policy must permit any key,
    /// and is asked again about the key that KMS used.
    pub(crate) fn permit<R: WorkloadRequest>(
        self: &Arc<Self>,
        principal: &Principal,
        request: Arc<R>,
        meanings: &Arc<AliasMeanings>,
        facts: Facts<'_>,
    ) -> (Decision, Option<Permitted<Arc<R>>>) {
        let key = request.key();
        let question = Question {
            principal,
            action: request.action(),
            key: key.and_then(|key| key.resolved.as_ref()),
            meanings,
            facts: Facts { encryption_context: request.context(), recipient: request.recipient(), ..facts },
        };
        let decision = self.decide(&question);
        let is_resolved = key.is_none_or(|key| key.arn().is_some());
        if !decision.permits || !is_resolved {
            return (decision, None);
        }
        let answer = key.is_none().then(|| {
            Arc::new(AnswerPolicy {
                policy: Arc::clone(self),
                meanings: Arc::clone(meanings),
                principal: principal.clone(),
                action: question.action,
                transport: facts.transport,
                encryption_context: request.context().cloned(),
                recipient: request.recipient().cloned(),
            })
        });
        let share_of = Some(principal.clone());
        (decision, Some(Permitted::new(request, Requester::Workload, share_of, answer)))
    }

    /// Asks whether the principal may do this with the key in KMS's answer.
    #[must_use]
    pub(crate) fn permit_key(&self, question: &Question<'_>) -> (Decision, Option<Permitted<KeyArn>>) {
        let decision = self.decide(question);
        let arn = question.key.and_then(|key| key.arn.clone()).filter(|_| decision.permits);
        let share_of = Some(question.principal.clone());
        (decision, arn.map(|arn| Permitted::new(arn, Requester::Workload, share_of, None)))
    }

    /// Asks Cedar. If it is unknown whether some aliases stand for the key, the call must be permitted in every case. The second value is
    /// whether there was no error.
    fn ask_whatever_they_mean(&self, question: &Question<'_>, aliases: &KeyAliases) -> (CedarDecision, bool) {
        let KeyAliases { known, open } = aliases;
        let (mut decision, mut is_sound) = self.ask_cedar(question, known);
        if open.is_empty() || !decision.permits {
            return (decision, is_sound);
        }
        if open.len() > MAX_OPEN_ALIASES {
            return (CedarDecision { permits: false, determining_policies: Arc::default() }, true);
        }
        for meant in 1_u32..(1 << open.len()) {
            let meant = open.iter().enumerate().filter(|(place, _)| meant >> place & 1 == 1);
            let parents: Vec<KeyId> = known.iter().chain(meant.map(|(_, alias)| alias)).cloned().collect();
            let (other, other_is_sound) = self.ask_cedar(question, &parents);
            is_sound &= other_is_sound;
            if !other.permits {
                decision = other;
                break;
            }
        }
        (decision, is_sound)
    }

    /// Asks Cedar about a key in these aliases. The second value is whether there was no error; after an error the answer is a denial, since
    /// what failed may have been a `forbid`.
    fn ask_cedar(&self, question: &Question<'_>, aliases: &[KeyId]) -> (CedarDecision, bool) {
        let Some((request, entities)) = self.names.request(question, aliases) else {
            return (CedarDecision { permits: false, determining_policies: Arc::default() }, false);
        };
        let response = self.authorizer.is_authorized(&request, &self.policies, &entities);
        let mut failed = Vec::new();
        for error in response.diagnostics().errors() {
            tracing::warn!(%error, "a policy cannot be evaluated: the call is denied");
            let AuthorizationError::PolicyEvaluationError(error) = error;
            failed.push(error.policy_id().to_string());
        }
        if !failed.is_empty() {
            return (
                CedarDecision { permits: false, determining_policies: sorted(failed.into_iter()) },
                false,
            );
        }
        let decided = CedarDecision {
            permits: response.decision() == cedar_policy::Decision::Allow,
            determining_policies: sorted(response.diagnostics().reason().map(ToString::to_string)),
        };
        (decided, true)
    }
}

impl AnswerPolicy {
    fn permits(&self, key: &KeyArn) -> bool {
        let key = NamedKey { arn: Some(key.clone()), alias: None };
        let facts = Facts {
            transport: self.transport,
            encryption_context: self.encryption_context.as_ref(),
            recipient: self.recipient.as_ref(),
            ..Facts::default()
        };
        let (principal, action, key) = (&self.principal, self.action, Some(&key));
        let meanings = &*self.meanings;
        self.policy.decide(&Question { principal, action, key, meanings, facts }).permits
    }
}

impl Default for Facts<'_> {
    fn default() -> Self {
        Self { transport: Transport::Unix, messages: 1, bytes: 0, encryption_context: None, recipient: None }
    }
}

/// The keys and aliases that policies name, each once.
fn keys_in(policies: &PolicySet) -> Vec<NamedKey> {
    let mut keys = Vec::new();
    for literal in policies.policies().flat_map(CedarPolicy::entity_literals) {
        let id = literal.id().unescaped();
        let key = match literal.type_name().basename() {
            schema::KEY => NamedKey { arn: KeyArn::parse(id), alias: None },
            schema::ALIAS => NamedKey { arn: None, alias: KeyId::parse(id).ok() },
            _ => continue,
        };
        if (key.arn.is_some() || key.alias.is_some()) && !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// The policies by id, each strictly validated against the schema.
fn checked(text: &str, written: &PolicySet) -> Result<PolicySet, Mistake> {
    let mut policies = PolicySet::new();
    for policy in written.policies() {
        check_names(text, policy)?;
        let parsed = ParsedPolicy::of(policy).map_err(Mistake::of_all)?;
        parsed.check_entities().map_err(|why| Mistake::of_policy(text, policy, "", why))?;
        let id = policy.annotation("id").map_or_else(|| policy.id().clone(), PolicyId::new);
        let named = policy.new_id(id.clone());
        policies.add(named).map_err(|_| {
            let words = format!("@id({:?}): two policies have this id", id.to_string());
            Mistake::of_policy(text, policy, "", words)
        })?;
    }
    let result = schema::VALIDATOR.validate(&policies, ValidationMode::Strict);
    // Cedar reports them in any order.
    let mistakes = result.validation_errors().map(|error| Mistake::of_cedar(text, error));
    if let Some(first) = mistakes.min_by_key(ToString::to_string) {
        return Err(first);
    }
    let mut never = Vec::new();
    for warning in result.validation_warnings() {
        match warning {
            ValidationWarning::ImpossiblePolicy(_) | ValidationWarning::InvalidActionApplication(_) => {
                let id = warning.policy_id();
                never.push((
                    id,
                    format!("{id}: no call can meet it: write what a call can meet, or leave it out"),
                ));
            }
            warning => tracing::warn!(%warning, "policy"),
        }
    }
    let first = never.into_iter().min();
    match first.and_then(|(id, why)| Some((policies.policy(id)?, why))) {
        Some((policy, why)) => Err(at(text, written, policy, why)),
        None => Ok(policies),
    }
}

/// A mistake in a policy as a whole, which is known by its `@id`.
fn at(text: &str, written: &PolicySet, policy: &CedarPolicy, words: String) -> Mistake {
    let is_it = |other: &&CedarPolicy| {
        other.annotation("id").map_or_else(|| other.id() == policy.id(), |id| id == policy.id().to_string())
    };
    match written.policies().find(is_it) {
        Some(written) => Mistake::of_policy(text, written, "", words),
        None => Mistake::of_all(words),
    }
}

/// Cedar names policies in any order.
fn sorted(ids: impl Iterator<Item = String>) -> Arc<[String]> {
    let mut ids: Vec<_> = ids.collect();
    ids.sort();
    ids.into()
}

fn version_of(text: &[u8]) -> Arc<str> {
    hex::encode(&Sha256::digest(text)[..VERSION_BYTES]).into()
}

/// Rejects a policy that names what cannot exist, since it would never apply.
fn check_names(text: &str, policy: &CedarPolicy) -> Result<(), Mistake> {
    for literal in policy.entity_literals() {
        check_name(&literal).map_err(|why| {
            let words = format!("{}: {literal}: {why}", policy.id());
            Mistake::of_policy(text, policy, &literal.to_string(), words)
        })?;
    }
    Ok(())
}

fn check_name(literal: &EntityUid) -> Result<(), String> {
    let id = literal.id().unescaped();
    match literal.type_name().basename() {
        schema::WORKLOAD => match Principal::parse(id)? {
            Principal::Workload(_) => Ok(()),
            Principal::Unknown => Err("write Unknown::\"unknown\"".into()),
        },
        schema::KEY if id != schema::ANY_KEY && KeyArn::parse(id).is_none() => {
            Err("a key is named by its ARN; by an alias: resource in Alias::\"alias/NAME\"".into())
        }
        schema::ALIAS => {
            match KeyId::parse(id) {
                Ok(key) if key.is_alias() => Ok(()),
                _ => Err("an alias is named alias/NAME, or by its ARN if it is of another account or region"
                    .into()),
            }
        }
        schema::UNKNOWN if id != Principal::Unknown.as_str() => Err(
            "write Unknown::\"unknown\": that is every caller that neither certificate nor kernel identifies"
                .into(),
        ),
        schema::ENCRYPTION_CONTEXT => {
            Err("the encryption context of a call is not written out: write context.encryptionContext".into())
        }
        _ => Ok(()),
    }
}

const VERSION_BYTES: usize = 16;
/// Aliases that may be unknown at a time, which leads to 16 questions to Cedar. With more, the call is denied.
const MAX_OPEN_ALIASES: usize = 4;

#[cfg(test)]
mod tests;
