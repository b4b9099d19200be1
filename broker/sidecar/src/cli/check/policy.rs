//! What a principal may do: policy's part.

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
use crate::operation::{DescribeKeyRequest, KmsReply};
use crate::policy::{Facts, Policy, Question};

/// Prints what policy says; fails if one action is asked about, and there is no yes.
pub(super) fn run(config: Config, query: &PolicyQuery) -> ExitCode {
    let policy = Arc::clone(&config.policies.current());
    println!("policy version {}", policy.version());
    let context = match EncryptionContext::parse(query.context.iter().cloned().collect()) {
        Ok(context) => context,
        Err(malformed) => return fail(malformed.0),
    };
    let keys = match &query.key {
        None => policy.keys().into_iter().map(Some).chain([None]).collect(),
        Some(key) => match KeyArn::parse(key.as_str()) {
            Some(arn) => vec![Some(NamedKey { arn: Some(arn), alias: None })],
            None => vec![Some(match named(config, key) {
                Ok(named) => named,
                Err(error) => return fail(error),
            })],
        },
    };
    let actions = query.action.map_or_else(|| Action::ALL.to_vec(), |action| vec![action]);
    let mut permitted = 0;
    for key in &keys {
        for action in actions.iter().filter(|action| is_asked(**action, key.is_some())) {
            permitted += usize::from(show(&policy, query, *action, key.as_ref(), &context));
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

fn show(
    policy: &Policy,
    query: &PolicyQuery,
    action: Action,
    key: Option<&NamedKey>,
    context: &EncryptionContext,
) -> bool {
    let recipient = enclave(&query.pcrs);
    let facts = Facts {
        transport: query.transport,
        encryption_context: Some(context),
        recipient: recipient.as_ref(),
        ..Facts::default()
    };
    let principal = query.principal.as_ref().expect("asked only with a principal");
    let decision = policy.decide(&Question { principal, action, key, facts });
    let word = if decision.permits { "Allowed" } else { "Denied" };
    let key = match key {
        None => "(no key named)".to_owned(),
        Some(NamedKey { arn, alias }) => {
            let parts = [alias.as_ref().map(KeyId::as_str), arn.as_ref().map(KeyArn::as_str)];
            parts.into_iter().flatten().collect::<Vec<_>>().join(" = ")
        }
    };
    let by = decision.determining_policies.join(", ");
    let by = if by.is_empty() { "no policy permits it".to_owned() } else { format!("by {by}") };
    println!("{word:<8} {:<32} {key}  {by}", action.name());
    decision.permits
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

/// What an alias or a key id means takes KMS to tell.
fn named(config: Config, key: &KeyId) -> Result<NamedKey, String> {
    let mut found = Err(String::new());
    block_on(1, async {
        let kms = AwsKms::new(config.kms, None, Arc::new(SystemClock)).await;
        let request = DescribeKeyRequest::from(key.clone());
        found = match super::ask_kms(&kms, request, key).await {
            Ok(KmsReply::KeyDescription(described)) => {
                Ok(NamedKey { arn: Some(described.arn), alias: Some(key.clone()).filter(KeyId::is_alias) })
            }
            Ok(_) => Err(BrokerError::Bug.describe()),
            Err(why) => Err(why),
        };
        ExitCode::SUCCESS
    });
    found
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
