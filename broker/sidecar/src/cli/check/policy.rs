//! What a principal may do: policy's part.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;

use key_broker_core::clock::SystemClock;
use key_broker_core::{
    Action, EncryptionContext, InvalidValue, KeyArn, KeyId, Measurements, NamedKey, PlatformKind, Transport,
};

use super::PolicyQuery;
use crate::attestation::MAX_ENCLAVE_PCR;
use crate::cli::{block_on, fail};
use crate::config::Config;
use crate::error::BrokerError;
use crate::kms::aws::AwsKms;
use crate::kms::{AttemptLog, Kms as _, KmsError, KmsErrorKind};
use crate::operation::{DescribeKeyRequest, KmsReply};
use crate::policy::bindings::Bindings;
use crate::policy::{AliasMeanings, Decision, Facts, Policy, Question, own};

/// Prints what policy says; fails if one action is asked about, and there is no yes.
pub(super) fn run(config: Config, query: &PolicyQuery) -> ExitCode {
    let context = match EncryptionContext::parse(query.context.iter().cloned().collect()) {
        Ok(context) => context,
        Err(malformed) => return fail(malformed.0),
    };
    let policy = Arc::clone(&config.policies.current());
    println!("policy version {}", policy.version());
    let (bindings, region) = (config.bindings.clone(), config.kms.region.clone());
    let mut known = Ok(KmsAnswers::default());
    if query.key.is_some() || !policy.aliases().is_empty() {
        block_on(1, async {
            known = KmsAnswers::learn(config, &policy, query.key.as_ref()).await;
            ExitCode::SUCCESS
        });
    }
    let known = match known {
        Ok(known) => known,
        Err(error) => return fail(error),
    };
    let keys: Vec<Option<NamedKey>> = match &known.key {
        Some(key) => vec![Some(key.clone())],
        None => {
            let keys = policy.keys().iter().map(|key| Some(known.resolve(key, &region)));
            keys.chain([None]).collect()
        }
    };
    let actions = query.action.map_or_else(|| Action::ALL.to_vec(), |action| vec![action]);
    let asker = Asker { policy: &policy, query, bindings: &bindings, context: &context, known: &known };
    let mut permitted = 0;
    for key in &keys {
        for action in actions.iter().filter(|action| is_asked(**action, key.is_some())) {
            permitted += usize::from(asker.show(*action, key.as_ref()));
        }
    }
    if query.action.is_some() && permitted == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Whether there are such calls.
fn is_asked(action: Action, with_key: bool) -> bool {
    match action {
        Action::GenerateRandom => !with_key,
        Action::Decrypt => true,
        _ => with_key,
    }
}

/// Asks policy as the broker would.
struct Asker<'a> {
    policy: &'a Policy,
    query: &'a PolicyQuery,
    bindings: &'a Bindings,
    context: &'a EncryptionContext,
    known: &'a KmsAnswers,
}

impl Asker<'_> {
    /// Prints what such a call gets; whether that is a yes.
    fn show(&self, action: Action, key: Option<&NamedKey>) -> bool {
        let principal = self.query.principal.as_ref().expect("asked only with a principal");
        let has_context = !matches!(action, Action::GenerateRandom | Action::DescribeKey);
        let has_recipient =
            matches!(action, Action::GenerateDataKey | Action::Decrypt | Action::GenerateRandom);
        let declares = matches!(action, Action::GenerateDataKey | Action::GenerateDataKeyWithoutPlaintext);
        let bound = if has_context { self.bindings.bind(principal, self.context) } else { Ok(None) };
        let context = match &bound {
            Ok(Some(bound)) => bound,
            _ => self.context,
        };
        let recipient = enclave(&self.query.pcrs).filter(|_| has_recipient);
        let facts = Facts {
            transport: self.query.transport,
            messages: if declares { self.query.messages.max(1) } else { 1 },
            bytes: if declares { self.query.bytes } else { 0 },
            encryption_context: has_context.then_some(context),
            recipient: recipient.as_ref(),
        };
        let meanings = &self.known.meanings;
        let decision = self.policy.decide(&Question { principal, action, key, meanings, facts });
        let permits = decision.permits && bound.is_ok();
        let word = if permits { "Allowed" } else { "Denied" };
        println!(
            "{word:<8} {:<32} {}  {}",
            action.name(),
            shown(key),
            reason(&decision, action, key, &bound)
        );
        permits
    }
}

fn shown(key: Option<&NamedKey>) -> String {
    match key {
        None => "(no key named)".to_owned(),
        Some(NamedKey { arn: None, alias: Some(alias) }) => format!("{} (means no key)", alias.as_str()),
        Some(NamedKey { arn, alias }) => {
            let parts = [alias.as_ref().map(KeyId::as_str), arn.as_ref().map(KeyArn::as_str)];
            parts.into_iter().flatten().collect::<Vec<_>>().join(" = ")
        }
    }
}

fn reason(
    decision: &Decision,
    action: Action,
    key: Option<&NamedKey>,
    bound: &Result<Option<EncryptionContext>, BrokerError>,
) -> String {
    if let (true, Err(error)) = (decision.permits, bound) {
        return error.describe();
    }
    let by = decision.determining_policies.join(", ");
    let by = if by.is_empty() { "no policy permits it".to_owned() } else { format!("by {by}") };
    if decision.permits && action == Action::Decrypt && key.is_none() {
        return format!("{by}; policy is asked again about the key that answers");
    }
    by
}

/// What only KMS and STS can tell.
#[derive(Default)]
struct KmsAnswers {
    /// The key that is asked about.
    key: Option<NamedKey>,
    /// What the aliases mean that policies name.
    meanings: AliasMeanings,
}

impl KmsAnswers {
    async fn learn(config: Config, policy: &Policy, key: Option<&KeyId>) -> Result<Self, String> {
        let kms = AwsKms::new(config.kms, None, Arc::new(SystemClock)).await;
        let caller = kms.caller().await.map_err(|error| format!("sts:GetCallerIdentity: {error}"))?;
        let (region, account_id) = (&caller.region, &caller.account_id);
        policy.check_home(region, account_id).map_err(|mistake| format!("policy.file: {mistake}"))?;
        let mut targets = HashMap::new();
        for alias in policy.aliases() {
            match target(&kms, alias).await {
                Ok(target) => drop(targets.insert(alias.clone(), target)),
                Err(why) => eprintln!("warning: {why}: not known, and a forbid by it holds for every key"),
            }
        }
        let meanings = AliasMeanings::new(targets);
        let key = match key.map(|key| (key, caller.key_arn(key))) {
            None => None,
            Some((_, Some(arn))) => Some(NamedKey { arn: Some(arn), alias: None }),
            Some((key, None)) => {
                let alias = key.short_alias(region, account_id).unwrap_or_else(|| key.clone());
                let arn = match meanings.target(&alias) {
                    Some(arn) => Some(arn.clone()),
                    None => target(&kms, &alias).await?,
                };
                Some(NamedKey { arn, alias: Some(alias) })
            }
        };
        Ok(Self { key, meanings })
    }

    /// A key that a policy names, with what its alias means; a multi-Region key as it is known in `region`.
    fn resolve(&self, key: &NamedKey, region: &str) -> NamedKey {
        let NamedKey { arn, alias } = key;
        let meant = || self.meanings.target(alias.as_ref()?);
        let arn = arn.as_ref().or_else(meant).map(|arn| arn.in_region(region));
        NamedKey { arn, alias: alias.clone() }
    }
}

/// The key that an alias means; none if there is no such alias.
pub(super) async fn target(kms: &AwsKms, alias: &KeyId) -> Result<Option<KeyArn>, String> {
    let permitted = own::permit(DescribeKeyRequest::from(alias.clone())).map_err(|error| error.describe())?;
    match kms.call(permitted.widen(), &AttemptLog::default()).await {
        Ok(KmsReply::KeyDescription(described)) => Ok(Some(described.arn)),
        Ok(_) => Err(BrokerError::Bug.describe()),
        Err(KmsError { kind: KmsErrorKind::NotFound, .. }) => Ok(None),
        Err(error) => Err(super::refused("DescribeKey", alias, error)),
    }
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

pub(super) fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
