//! `key-broker admin`: status, cache entries and eviction, over the operator's socket.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use key_broker_proto::admin::v1::admin_client::AdminClient;
use key_broker_proto::admin::v1::evict_request::Which;
use key_broker_proto::admin::v1::{Entry, EvictRequest, ListEntriesRequest, StatusRequest, StatusResponse};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use super::block_on;
use super::exit::Exit;
use super::target::{CallFailure, DEV_DIR};
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    /// Status: entries, calls, journal and trail
    Status(AdminTarget),
    /// The cached data keys and decrypts without their secrets, one line of JSON each
    Entries(AdminTarget),
    /// Drop cached data keys and decrypts
    ///
    /// Calls that begin afterwards never get what was dropped. Workloads keep what they already have.
    Evict(EvictArguments),
}

/// Which broker; without any of these, that of `key-broker dev` in this directory.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct AdminTarget {
    /// The folder of a `key-broker dev`
    #[arg(long, value_name = "DIR", default_value = DEV_DIR)]
    dir: PathBuf,
    /// The operator's unix socket (`listen.admin.path`)
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// The configuration file that the broker runs with
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct EvictArguments {
    #[command(flatten)]
    which: WhichEntries,
    #[command(flatten)]
    target: AdminTarget,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct WhichEntries {
    /// All of this KMS key: by ARN or id, however callers named it; by alias, only what callers asked for by that alias
    #[arg(long, value_name = "KEY")]
    key_id: Option<String>,
    /// All of this principal
    #[arg(long, value_name = "PRINCIPAL")]
    principal: Option<String>,
    /// Everything
    #[arg(long)]
    all: bool,
}

pub(super) const EXAMPLES: &str = "Examples:\n  \
    key-broker admin status --unix /run/key-broker/admin.sock\n  \
    key-broker admin entries | jq 'select(.messagesUsed > 1000)'\n  \
    key-broker admin evict --key-id arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab\n  \
    key-broker admin evict --principal unix:uid/1000";

pub(super) fn run(arguments: Arguments) -> ExitCode {
    block_on(1, async {
        match ask(arguments.command).await {
            Ok(text) => {
                // A reader that has closed the pipe wants no more.
                let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
                Exit::Done.into()
            }
            Err(failure) => failure.end(),
        }
    })
}

async fn ask(command: AdminCommand) -> Result<String, CallFailure> {
    match command {
        AdminCommand::Status(target) => {
            let answer = target.connect().await?.status(request(StatusRequest {})).await.map_err(failed)?;
            Ok(format!("{:#}\n", status(&answer.into_inner())))
        }
        AdminCommand::Entries(target) => {
            let (mut admin, mut text, mut page_token) =
                (target.connect().await?, String::new(), String::new());
            loop {
                let page = ListEntriesRequest { page_size: 0, page_token };
                let page = admin.list_entries(request(page)).await.map_err(failed)?.into_inner();
                for found in &page.entries {
                    text.push_str(&entry(found).to_string());
                    text.push('\n');
                }
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    return Ok(text);
                }
            }
        }
        AdminCommand::Evict(EvictArguments { which, target }) => {
            let evict = EvictRequest { which: which.into_which() };
            let answer = target.connect().await?.evict(request(evict)).await.map_err(failed)?;
            Ok(format!("{:#}\n", json!({ "evicted": answer.into_inner().evicted })))
        }
    }
}

impl WhichEntries {
    fn into_which(self) -> Option<Which> {
        match (self.key_id, self.principal) {
            (Some(key), _) => Some(Which::KeyId(key)),
            (None, Some(principal)) => Some(Which::Principal(principal)),
            (None, None) => self.all.then_some(Which::All(true)),
        }
    }
}

impl AdminTarget {
    async fn connect(&self) -> Result<AdminClient<Channel>, CallFailure> {
        let path = match (&self.unix, &self.config) {
            (Some(path), _) => path.clone(),
            (None, Some(file)) => {
                let listen = Config::load_for_elsewhere(file).map_err(CallFailure::Mistake)?.listen;
                listen.admin.map(|address| address.path).ok_or_else(|| {
                    CallFailure::Mistake(format!(
                        "{}: the broker has no operator's socket: set listen.admin.path",
                        file.display()
                    ))
                })?
            }
            (None, None) => self.dir.join("admin.sock"),
        };
        let shown = path.display().to_string();
        let endpoint = Endpoint::from_shared(format!("unix:{shown}"))
            .map_err(|error| CallFailure::Mistake(format!("{shown}: {error}")))?
            .connect_timeout(PATIENCE);
        let channel = endpoint.connect().await.map_err(|error| {
            let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            CallFailure::Failed(format!(
                "cannot connect to the operator's socket {shown}: {why}: is the broker running, with listen.admin.path, and are you root or \
                 its user?"
            ))
        })?;
        Ok(AdminClient::new(channel))
    }
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

fn failed(status: tonic::Status) -> CallFailure {
    (&key_broker_client::Error::from(status)).into()
}

fn status(status: &StatusResponse) -> Value {
    json!({
        "version": status.version,
        "startedAt": status.started_at.as_ref().and_then(rfc3339),
        "entries": status.entries,
        "usesFromCache": status.uses_from_cache,
        "kmsCalls": status.kms_calls,
        "evictions": status.evictions,
        "callsInFlight": status.calls_in_flight,
        "journalHealthy": status.journal_healthy,
        "draining": status.draining,
        "undeliveredBytes": status.undelivered_bytes,
        "newestDigest": status.newest_digest,
        "newestDigestSignature": status.newest_digest_signature,
    })
}

fn entry(entry: &Entry) -> Value {
    json!({
        "owner": entry.owner,
        "isShared": entry.is_shared,
        "keyId": entry.key_id,
        "keyArn": entry.key_arn,
        "action": entry.action,
        "kmsRequestId": entry.kms_request_id,
        "kmsEventId": entry.kms_event_id,
        "mintedAt": entry.minted_at.as_ref().and_then(rfc3339),
        "expiresAt": entry.expires_at.as_ref().and_then(rfc3339),
        "messagesUsed": entry.messages_used,
        "messagesLimit": entry.messages_limit,
        "bytesUsed": entry.bytes_used,
        "bytesLimit": entry.bytes_limit,
    })
}

fn rfc3339(at: &prost_types::Timestamp) -> Option<String> {
    let seconds = OffsetDateTime::from_unix_timestamp(at.seconds).ok()?;
    seconds.replace_nanosecond(u32::try_from(at.nanos).ok()?).ok()?.format(&Rfc3339).ok()
}

const PATIENCE: Duration = Duration::from_secs(10);
