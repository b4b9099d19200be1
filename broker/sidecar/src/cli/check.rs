//! `key-broker check`: is everything there that `serve` needs? Changes nothing.

mod policy;
mod regions;
mod trail;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use key_broker_core::clock::SystemClock;
use key_broker_core::{Action, EncryptionContext, KeyId, Principal, Transport};
use key_broker_trail::record::AwsCaller;
use rustix::fs::Access;

use super::{ConfigArgument, block_on, wrong_configuration};
use crate::config::Config;
use crate::error::BrokerError;
use crate::kms::aws::AwsKms;
use crate::kms::{AttemptLog, Kms, KmsError};
use crate::operation::{DryRunRequest, KmsReply, TypedRequest};
use crate::policy::{Policy, own};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// A KMS key under which the broker must be able to make data keys; may be given more than once
    #[arg(long = "key-id", value_name = "KEY", value_parser = parse_key)]
    keys: Vec<KeyId>,
    #[command(flatten)]
    policy: PolicyQuery,
}

/// A question to policy, which is then all that is checked.
#[derive(Debug, clap::Args)]
#[command(
    next_help_heading = "What may a principal do? Asks the policy file, and AWS only what aliases mean"
)]
struct PolicyQuery {
    /// The principal as policy names it: a SPIFFE ID, unix:uid/UID, vsock:cid/CID or unknown
    #[arg(long = "as", value_name = "PRINCIPAL", value_parser = Principal::parse)]
    principal: Option<Principal>,
    /// One action, such as Decrypt; else all
    #[arg(long, requires = "principal", value_name = "ACTION", value_parser = policy::parse_action)]
    action: Option<Action>,
    /// One key: ARN, id or alias; else those that policies name, and none
    #[arg(long, requires = "principal", value_name = "KEY", value_parser = parse_key)]
    key: Option<KeyId>,
    /// A pair of the encryption context; may be given more than once
    #[arg(long, requires = "principal", value_name = "NAME=VALUE", value_parser = policy::parse_pair)]
    context: Vec<(String, String)>,
    /// The messages that a call for a data key declares
    #[arg(long, requires = "principal", value_name = "N", default_value_t = 1)]
    messages: u64,
    /// The bytes that a call for a data key declares; 0 is none
    #[arg(long, requires = "principal", value_name = "N", default_value_t = 0)]
    bytes: u64,
    /// How the call comes in: unix, tls, `insecure_tcp` or vsock
    #[arg(long, requires = "principal", default_value_t = Transport::Unix, value_parser = policy::parse_transport)]
    transport: Transport,
    /// A PCR of the enclave's attestation document, such as 0=HEX (the image); may be given more than once
    #[arg(long = "pcr", requires = "principal", value_name = "INDEX=HEX", value_parser = policy::parse_pcr)]
    pcrs: Vec<(u8, [u8; 48])>,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let path = &arguments.config.config;
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => return wrong_configuration(error),
    };
    if arguments.policy.principal.is_some() {
        return policy::run(config, &arguments.policy);
    }
    let mut report = Report { failed: false };
    report.line("configuration", &Ok(path.display().to_string()));
    let policy = Arc::clone(&config.policies.current());
    report.line(
        "policy",
        &Ok(match policy.len() {
            0 => "no policies: every call will be denied".to_owned(),
            n => format!("{n} policies"),
        }),
    );
    report.line("journal", &writable(&config.audit.journal.dir));
    block_on(1, async {
        let kms = AwsKms::new(config.kms, None, Arc::new(SystemClock)).await;
        let caller = kms.caller().await;
        report
            .line("credentials", &kms.arn().await.map_err(|error| format!("sts:GetCallerIdentity: {error}")));
        for (account, role) in kms.account_roles().await {
            report.line("account", &role.map(|arn| format!("{account}: {arn}")));
        }
        if let Ok(caller) = &caller {
            check_aliases(&policy, &kms, caller, &mut report).await;
        }
        for key in &arguments.keys {
            report.line("kms", &may_generate_data_key(&kms, key, &EncryptionContext::default()).await);
        }
        if let Ok(caller) = &caller {
            regions::check(&kms, caller, &arguments.keys, &mut report).await;
        }
        match &config.audit.trail {
            Some(trail) => trail::check(trail, &kms, caller.ok().as_ref(), &mut report).await,
            None => report.line("trail", &Ok("none: records stay in the journal".to_owned())),
        }
        if report.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    })
}

struct Report {
    failed: bool,
}

impl Report {
    fn line(&mut self, what: &str, result: &Result<String, String>) {
        self.failed |= result.is_err();
        match result {
            Ok(found) => println!("ok      {what:<13} {found}"),
            Err(error) => println!("FAILED  {what:<13} {error}"),
        }
    }
}

/// Whether it is known what the aliases mean that policies name.
async fn check_aliases(policy: &Policy, kms: &AwsKms, caller: &AwsCaller, report: &mut Report) {
    if let Err(mistake) = policy.check_home(&caller.region, &caller.account_id) {
        report.line("policy", &Err(mistake));
    }
    for alias in policy.aliases() {
        let found = policy::target(kms, alias).await.map(|target| match target {
            Some(arn) => format!("{} means {arn}", alias.as_str()),
            None => format!("there is no {}: what policies say of it holds for no key", alias.as_str()),
        });
        report.line("policy", &found);
    }
}

async fn may_generate_data_key(
    kms: &dyn Kms,
    key: &KeyId,
    context: &EncryptionContext,
) -> Result<String, String> {
    let request = DryRunRequest { key: key.clone().into(), context: context.clone() };
    ask_kms(kms, request, key).await.map(|_| format!("may GenerateDataKey under {}", key.as_str()))
}

/// Makes a call of the broker's own.
async fn ask_kms<R: TypedRequest>(kms: &dyn Kms, request: R, key: &KeyId) -> Result<KmsReply, String> {
    let operation = request.name();
    let permitted = own::permit(request).map_err(|error| error.describe())?;
    let reply = kms.call(permitted.widen(), &AttemptLog::default()).await;
    reply.map_err(|error| refused(operation, key, error))
}

fn refused(operation: &str, key: &KeyId, error: KmsError) -> String {
    format!("{operation} under {}: {}", key.as_str(), BrokerError::Kms(error).describe())
}

/// Whether files can be made in `dir`.
fn writable(dir: &Path) -> Result<String, String> {
    let (place, note) =
        if dir.exists() { (dir.to_owned(), "") } else { (first_existing(dir), " (serve will make it)") };
    if !place.is_dir() {
        return Err(format!("{} is no directory", place.display()));
    }
    rustix::fs::access(&place, Access::WRITE_OK | Access::EXEC_OK)
        .map(|()| format!("{}{note}", dir.display()))
        .map_err(|error| format!("cannot write in {}: {}", place.display(), io::Error::from(error)))
}

fn first_existing(dir: &Path) -> PathBuf {
    let found = dir.ancestors().find(|place| place.exists());
    found.filter(|place| !place.as_os_str().is_empty()).unwrap_or_else(|| Path::new(".")).to_owned()
}

fn parse_key(text: &str) -> Result<KeyId, String> {
    KeyId::parse(text).map_err(|malformed| malformed.0)
}
