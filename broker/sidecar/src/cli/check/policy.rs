//! What a principal may do, by the same policy evaluation as for a call.

use std::process::ExitCode;
use std::sync::Arc;

use key_broker_core::clock::SystemClock;
use key_broker_core::{Action, EncryptionContext, InvalidValue, KeyArn, KeyId, Principal, Transport};
use serde_json::{Value, json};

use super::knowledge::{Knowledge, Named, World};
use super::{PolicyQuery, identity};
use crate::attestation::{MAX_ENCLAVE_PCR, Measurements, PlatformKind};
use crate::cli::block_on;
use crate::cli::exit::{Exit, mistake};
use crate::config::Config;
use crate::error::{BrokerError, Denial, DeniedContext, DeniedKey};
use crate::kms::aws::AwsKms;
use crate::named_key::NamedKey;
use crate::policy::bindings::Bindings;
use crate::policy::{Decision, Facts, Policy, Question};
use crate::service::ruling::{bind, ruling};

/// Prints what policy says. Of one action: whether there is a yes.
pub(super) fn run(
    config: Config,
    query: &PolicyQuery,
    context: &EncryptionContext,
    offline: bool,
    json: bool,
) -> ExitCode {
    if let (Some(Action::GenerateRandom), Some(_)) = (query.action, &query.key) {
        return mistake("GenerateRandom has no key: leave out --key");
    }
    let Some(principal) = query.principal.clone() else { return mistake("give a principal with --as") };
    let policy = Arc::clone(&config.policies.current());
    let mut notes = Vec::new();
    notes.extend(identity::unproved(&principal, &config.identities, &config.listen));
    let mut answers = Ok(Vec::new());
    block_on(1, async {
        let bindings = config.bindings.clone();
        let known = Box::pin(ask(config, &policy, query, offline, &mut notes)).await;
        answers = known.map(|(knowledge, keys)| {
            let asker = Asker {
                policy: &policy,
                query,
                principal: &principal,
                bindings: &bindings,
                context,
                knowledge: &knowledge,
            };
            asker.ask_all(&keys)
        });
        Exit::Done.into()
    });
    let answers = match answers {
        Ok(answers) => answers,
        Err(why) => return mistake(why),
    };
    if json {
        let answers: Vec<_> = answers.iter().map(Answer::json).collect();
        println!(
            "{:#}",
            json!({
                "policyVersion": &**policy.version(),
                "encryptionContext": context.pairs(),
                "notes": notes,
                "answers": answers,
            })
        );
    } else {
        println!("policy version {}", policy.version());
        if query.action.is_none_or(has_context) {
            println!("{}", asked_with(context));
        }
        for note in &notes {
            println!("note: {note}");
        }
        for answer in &answers {
            println!("{}", answer.line());
        }
    }
    end(query.action, &answers).into()
}

fn has_context(action: Action) -> bool {
    !matches!(action, Action::GenerateRandom | Action::DescribeKey)
}

/// The encryption context of the calls that policy was asked about.
fn asked_with(context: &EncryptionContext) -> String {
    let pairs: Vec<_> = context.pairs().iter().map(|(name, value)| format!("{name}={value}")).collect();
    if pairs.is_empty() {
        return "asked without an encryption context: give its pairs with --context NAME=VALUE".to_owned();
    }
    format!("asked with the encryption context {}", pairs.join(", "))
}

/// A yes is one of any key; where none is sure, one that may be is no no.
fn end(action: Option<Action>, answers: &[Answer]) -> Exit {
    let has = |word| answers.iter().any(|answer| answer.word == word);
    match action {
        Some(_) if has(Word::Allowed) => Exit::Done,
        Some(_) if !has(Word::NotKnown) => Exit::No,
        None if !has(Word::NotKnown) => Exit::Done,
        _ => Exit::CannotTell,
    }
}

/// AWS's answers, and the keys to try; `None` stands for a call without a key.
async fn ask(
    config: Config,
    policy: &Policy,
    query: &PolicyQuery,
    offline: bool,
    notes: &mut Vec<String>,
) -> Result<(Knowledge, Vec<Option<Named>>), String> {
    let region = config.kms.region.clone();
    let is_needed = query.key.as_ref().is_some_and(|key| KeyArn::parse(key.as_str()).is_none())
        || !policy.aliases().is_empty();
    let mut aws = None;
    if is_needed && !offline {
        let kms = AwsKms::new(config.kms, None, Arc::new(SystemClock)).await;
        match kms.caller().await {
            Ok(caller) => aws = Some((kms, caller)),
            Err(error) => {
                notes.push(format!("sts:GetCallerIdentity: {error}: aliases cannot be resolved"));
            }
        }
    }
    let knowledge = match &aws {
        Some((kms, caller)) => {
            policy
                .check_home(&caller.region, &caller.account_id)
                .map_err(|mistake| format!("policy.file: {mistake}"))?;
            Knowledge::ask(kms, caller, policy, |why| notes.push(format!("{why}: not known"))).await
        }
        None => Knowledge::offline(policy, &region),
    };
    let keys = match &query.key {
        Some(key) => {
            let aws = aws.as_ref().map(|(kms, caller)| (kms, caller));
            vec![Some(knowledge.name(aws, key).await?)]
        }
        None => policy.keys().iter().map(|key| Some(knowledge.of_policy(key))).chain([None]).collect(),
    };
    Ok((knowledge, keys))
}

/// Whether there are such calls.
fn is_asked(action: Action, with_key: bool) -> bool {
    match action {
        Action::GenerateRandom => !with_key,
        Action::Decrypt | Action::ReEncryptFrom => true,
        _ => with_key,
    }
}

/// Asks policy as the broker would.
struct Asker<'a> {
    policy: &'a Policy,
    query: &'a PolicyQuery,
    principal: &'a Principal,
    bindings: &'a Bindings,
    context: &'a EncryptionContext,
    knowledge: &'a Knowledge,
}

/// How such a call ends.
struct Answer {
    word: Word,
    action: Action,
    key: String,
    reason: String,
    policies: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Allowed,
    Denied,
    NotKnown,
}

impl Asker<'_> {
    fn ask_all(&self, keys: &[Option<Named>]) -> Vec<Answer> {
        let actions = self.query.action.map_or_else(|| Action::ALL.to_vec(), |action| vec![action]);
        let mut answers = Vec::new();
        for key in keys {
            for action in actions.iter().filter(|action| is_asked(**action, key.is_some())) {
                answers.push(self.answer(*action, key.as_ref()));
            }
        }
        answers
    }

    /// What such a call gets, if it is the same whatever is not known.
    fn answer(&self, action: Action, key: Option<&Named>) -> Answer {
        let of = |word, reason, policies| Answer { word, action, key: shown(key), reason, policies };
        let depends = || format!("depends on something unknown: {}", self.knowledge.open(key));
        let Some(worlds) = self.knowledge.worlds(self.policy, key) else {
            return of(Word::NotKnown, depends(), Vec::new());
        };
        let mut told: Option<(bool, String, Vec<String>)> = None;
        for world in &worlds {
            let (permits, reason, policies) = self.in_world(action, key.is_some(), world);
            match &told {
                None => told = Some((permits, reason, policies)),
                Some((other, ..)) if *other != permits => return of(Word::NotKnown, depends(), Vec::new()),
                Some(_) => {}
            }
        }
        let Some((permits, reason, policies)) = told else {
            return of(Word::NotKnown, depends(), Vec::new());
        };
        of(if permits { Word::Allowed } else { Word::Denied }, reason, policies)
    }

    fn in_world(&self, action: Action, names_a_key: bool, world: &World) -> (bool, String, Vec<String>) {
        let has_recipient = matches!(
            action,
            Action::GenerateDataKey | Action::GenerateDataKeyPair | Action::Decrypt | Action::GenerateRandom
        );
        let declares = matches!(action, Action::GenerateDataKey | Action::GenerateDataKeyWithoutPlaintext);
        let has_bytes =
            declares || matches!(action, Action::EncryptMessage | Action::DecryptMessage | Action::Encrypt);
        let mut context = has_context(action).then(|| self.context.clone());
        let bound = bind(self.bindings, self.principal, context.as_mut());
        let recipient = enclave(&self.query.pcrs).filter(|_| has_recipient);
        let facts = Facts {
            transport: self.query.transport,
            messages: if declares { self.query.messages.max(1) } else { 1 },
            bytes: if has_bytes { self.query.bytes } else { 0 },
            encryption_context: context.as_ref(),
            recipient: recipient.as_ref(),
        };
        let key = names_a_key.then_some(&world.key);
        let question = Question { principal: self.principal, action, key, meanings: &world.meanings, facts };
        let decision = self.policy.decide(&question);
        let no_key = key.filter(|key| key.arn.is_none()).map(|_| BrokerError::NoSuchKey);
        let denied = || {
            let (principal, context) = (self.principal.clone(), DeniedContext::NotLookedAt);
            BrokerError::Denied(Box::new(Denial { principal, action, key: DeniedKey::Any, context }))
        };
        let told = ruling(&decision, denied, no_key, bound);
        let policies = decision.determining_policies.to_vec();
        let reason = match &told {
            Err(error) if decision.permits => error.describe(),
            _ => by(&decision, action, names_a_key),
        };
        (told.is_ok(), reason, policies)
    }
}

impl Answer {
    fn line(&self) -> String {
        let word = match self.word {
            Word::Allowed => "Allowed",
            Word::Denied => "Denied",
            Word::NotKnown => "not known",
        };
        format!("{word:<9}  {:<35} {}  {}", self.action.name(), self.key, self.reason)
    }

    fn json(&self) -> Value {
        let word = match self.word {
            Word::Allowed => "allowed",
            Word::Denied => "denied",
            Word::NotKnown => "notKnown",
        };
        json!({
            "result": word,
            "action": self.action.name(),
            "key": self.key,
            "policies": self.policies,
            "words": self.reason,
        })
    }
}

fn shown(key: Option<&Named>) -> String {
    match key {
        None => "(no key named)".to_owned(),
        Some(Named::Unknown(name)) => format!("{} (not resolved)", name.as_str()),
        Some(Named::Known(NamedKey { arn: None, alias: Some(alias) })) => {
            format!("{} (means no key)", alias.as_str())
        }
        Some(Named::Known(NamedKey { arn, alias })) => {
            let parts = [alias.as_ref().map(KeyId::as_str), arn.as_ref().map(KeyArn::as_str)];
            parts.into_iter().flatten().collect::<Vec<_>>().join(" = ")
        }
    }
}

fn by(decision: &Decision, action: Action, names_a_key: bool) -> String {
    let by = decision.determining_policies.join(", ");
    let by = if by.is_empty() { "no policy permits it".to_owned() } else { format!("by {by}") };
    if decision.permits && matches!(action, Action::Decrypt | Action::ReEncryptFrom) && !names_a_key {
        return format!("{by}; policy is evaluated again for the key that KMS uses");
    }
    by
}

/// An enclave that measures so, if there is a measurement.
fn enclave(pcrs: &[(u8, [u8; 48])]) -> Option<Arc<Measurements>> {
    if pcrs.is_empty() {
        return None;
    }
    // Every enclave's document has the first three.
    let zeros = (0..=2).map(|index| (index, [0; 48]));
    Measurements::new("i-0-enc0", PlatformKind::Enclave, zeros.chain(pcrs.iter().copied()).collect())
        .map(Arc::new)
}

pub(super) fn parse_action(text: &str) -> Result<Action, String> {
    let found = Action::ALL.into_iter().find(|action| action.name().eq_ignore_ascii_case(text));
    found.ok_or_else(|| format!("one of {}", Action::ALL.map(Action::name).join(", ")))
}

pub(super) fn parse_transport(text: &str) -> Result<Transport, String> {
    text.parse().map_err(|InvalidValue(why)| why)
}

pub(super) fn parse_pcr(text: &str) -> Result<(u8, [u8; 48]), String> {
    let (index, value) = text.split_once('=').ok_or("write it as INDEX=HEX")?;
    let index = index
        .parse()
        .ok()
        .filter(|index| *index <= MAX_ENCLAVE_PCR)
        .ok_or("a PCR has an index of 0 to 31")?;
    let mut bytes = [0; 48];
    hex::decode_to_slice(value, &mut bytes).map_err(|_| "a PCR is 96 hex digits")?;
    Ok((index, bytes))
}
