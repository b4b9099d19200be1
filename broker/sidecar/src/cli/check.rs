//! `key-broker check`: tries everything that `serve` needs, and leaves nothing behind.

mod host;
mod identity;
mod keys;
mod knowledge;
mod policy;
mod regions;
mod report;
mod trail;

use std::process::ExitCode;
use std::sync::Arc;

use key_broker_core::clock::SystemClock;
use key_broker_core::{Action, EncryptionContext, KeyId, Principal, Transport};
use key_broker_trail::record::AwsCaller;

use super::exit::{Exit, mistake};
use super::target::{parse_pair, twice};
use super::{ConfigArgument, block_on};
use crate::cache::rules::Rules;
use crate::cli::revocation::{PRICE_PER_10000, words_of_cost};
use crate::config::Config;
use crate::kms::aws::AwsKms;
use crate::policy::Policy;
use report::{Finding, Report};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// A KMS key under which the broker must be able to make data keys and decrypt; may be given more than once
    #[arg(long = "key-id", value_name = "KEY", value_parser = parse_key)]
    keys: Vec<KeyId>,
    /// A pair of the encryption context for --key-id or --as; may be given more than once
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    context: Vec<(String, String)>,
    /// Try to put an object into the trail's S3 bucket, outside of AWSLogs/, unless it is there from an earlier check
    #[arg(long, conflicts_with_all = ["offline", "principal"])]
    write: bool,
    /// Make no requests, and check nothing that only the broker's host has: for CI, or beside a running broker
    #[arg(long, conflicts_with = "keys")]
    offline: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    policy: PolicyQuery,
}

/// A question to policy, which is then all that is checked.
#[derive(Debug, clap::Args)]
#[command(
    next_help_heading = "What may a principal do? Reads the policy file, and asks AWS only to resolve aliases"
)]
struct PolicyQuery {
    /// The principal as in policies: a SPIFFE ID, unix:uid/UID, vsock:cid/CID or unknown
    #[arg(long = "as", value_name = "PRINCIPAL", value_parser = Principal::parse)]
    principal: Option<Principal>,
    /// One action, such as Decrypt [default: all]
    #[arg(long, requires = "principal", value_name = "ACTION", value_parser = policy::parse_action)]
    action: Option<Action>,
    /// One key: ARN, id or alias [default: those that policies name, and no key]
    #[arg(long, requires = "principal", value_name = "KEY", value_parser = parse_key)]
    key: Option<KeyId>,
    /// The messages that a call for a data key declares
    #[arg(long, requires = "principal", value_name = "N", default_value_t = 1)]
    messages: u64,
    /// The bytes that a call for a data key declares, or that are encrypted or decrypted in the broker
    #[arg(long, requires = "principal", value_name = "N", default_value_t = 0)]
    bytes: u64,
    /// The transport of the call: unix, tls, `insecure_tcp` or vsock
    #[arg(long, requires = "principal", default_value_t = Transport::Unix, value_parser = policy::parse_transport)]
    transport: Transport,
    /// A PCR of the enclave's attestation document, such as 0=HEX (the image); may be given more than once
    #[arg(long = "pcr", requires = "principal", value_name = "INDEX=HEX", value_parser = policy::parse_pcr)]
    pcrs: Vec<(u8, [u8; 48])>,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let context = match context(&arguments.context) {
        Ok(context) => context,
        Err(why) => return mistake(why),
    };
    let (path, is_query) = (&arguments.config.config, arguments.policy.principal.is_some());
    if let (true, Some(key)) = (is_query, arguments.keys.first()) {
        return mistake(format_args!("--key-id is for asking KMS: with --as, write --key {}", key.as_str()));
    }
    // Policy is the same on every machine.
    let is_elsewhere = arguments.offline || is_query;
    let loaded = if is_elsewhere { Config::load_for_elsewhere(path) } else { Config::load(path) };
    let mut report = Report::new(arguments.json);
    let config = match loaded {
        Ok(config) => config,
        Err(error) if arguments.json && !is_query => {
            report.add("configuration", Finding::Failed(error));
            return report.print(Exit::Mistake);
        }
        Err(error) => return mistake(error),
    };
    if is_query {
        return policy::run(config, &arguments.policy, &context, arguments.offline, arguments.json);
    }
    report.add("configuration", Finding::Ok(path.display().to_string()));
    check_policy(&config.policies.current(), &mut report);
    report.add("reuse", reuse(&config.reuse));
    host::check_environment(&config, &mut report);
    if arguments.offline {
        report.add("host, AWS", Finding::Skipped("--offline".to_owned()));
    } else {
        block_on(1, async {
            Box::pin(check_here(config, arguments, &context, &mut report)).await;
            Exit::Done.into()
        });
    }
    let exit = report.end();
    report.print(exit)
}

/// Checks that need the broker's host, or AWS.
async fn check_here(
    mut config: Config,
    arguments: &Arguments,
    context: &EncryptionContext,
    report: &mut Report,
) {
    host::check(&mut config, report).await;
    if let Some(trail) = &config.audit.trail {
        trail::check_directory(trail, report);
    }
    let policy = Arc::clone(&config.policies.current());
    let kms = AwsKms::new(config.kms, None, Arc::new(SystemClock)).await;
    let caller = kms.caller().await;
    report.add(
        "credentials",
        match kms.arn().await {
            Ok(arn) => Finding::Ok(arn),
            Err(error) => Finding::Failed(format!("sts:GetCallerIdentity: {error}")),
        },
    );
    if let Err(mistake) = kms.check_session_name().await {
        report.add("credentials", Finding::Failed(mistake));
    }
    for (account, role) in kms.account_roles().await {
        report.add("account", role.map(|arn| format!("{account}: {arn}")));
    }
    if let Ok(caller) = &caller {
        check_aliases(&policy, &kms, caller, report).await;
    }
    let context = keys::context_of(context, &config.bindings);
    for key in &arguments.keys {
        keys::check(&kms, key, &context, report).await;
    }
    if let Ok(caller) = &caller {
        regions::check(&kms, caller, &arguments.keys, &context, report).await;
    }
    match &mut config.audit.trail {
        Some(trail) => {
            kms.give_credentials_to(&mut trail.store);
            trail::check(trail, &kms, caller.ok().as_ref(), arguments.write, report).await;
        }
        None => report.add("trail", Finding::Note("none: records stay in the journal".to_owned())),
    }
}

fn check_policy(policy: &Policy, report: &mut Report) {
    let finding = match policy.len() {
        0 => Finding::Note("no policies: every call will be denied".to_owned()),
        1 => Finding::Ok("1 policy".to_owned()),
        n => Finding::Ok(format!("{n} policies")),
    };
    report.add("policy", finding);
}

/// How long cached keys outlive their KMS key, and what the checks cost.
fn reuse(rules: &Rules) -> Finding {
    let is_used = rules.default.enabled || rules.rules.iter().any(|(_, rule)| rule.enabled);
    match rules.revocation_check {
        _ if !is_used => Finding::Ok("nothing is cached".to_owned()),
        None => Finding::Note(
            "no revocation checks: a KMS key that is taken away is used until its data keys reach their limits".to_owned(),
        ),
        Some(check) => Finding::Ok(format!(
            "a KMS key that is taken away is out of use after {} s, or {} s while KMS cannot be asked. {}",
            check.interval.as_secs(),
            check.unverified_max.as_secs(),
            words_of_cost(check, PRICE_PER_10000)
        )),
    }
}

/// Whether it is known what the aliases mean that policies name.
async fn check_aliases(policy: &Policy, kms: &AwsKms, caller: &AwsCaller, report: &mut Report) {
    if let Err(mistake) = policy.check_home(&caller.region, &caller.account_id) {
        report.add("policy", Finding::Failed(format!("policy.file: {mistake}")));
    }
    for alias in policy.aliases() {
        let found = match knowledge::target(kms, alias).await {
            Ok(Some(arn)) => Finding::Ok(format!("{} means {arn}", alias.as_str())),
            Ok(None) => {
                Finding::Note(format!("there is no {}: policies by it apply to no key", alias.as_str()))
            }
            // A broker that cannot ask serves: a forbid by the alias holds for every key then.
            Err(why) => Finding::NotKnown(why),
        };
        report.add("policy", found);
    }
}

fn context(pairs: &[(String, String)]) -> Result<EncryptionContext, String> {
    if let Some(why) = twice(pairs) {
        return Err(why);
    }
    EncryptionContext::parse(pairs.iter().cloned().collect()).map_err(|malformed| malformed.0)
}

fn parse_key(text: &str) -> Result<KeyId, String> {
    KeyId::parse(text).map_err(|malformed| malformed.0)
}
