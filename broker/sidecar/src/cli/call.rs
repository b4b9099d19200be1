//! `key-broker call`: the contract's calls for people. JSON on stdout, errors on stderr.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, Subcommand, ValueEnum};
use key_broker_client::{Client, Decrypt, Error, GenerateDataKey, Provenance};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::block_on;
use super::exit::{Exit, fail};
use super::target::Target;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: CallCommand,
}

#[derive(Debug, Subcommand)]
enum CallCommand {
    /// A new data key, in plaintext and encrypted under the KMS key
    GenerateDataKey(DataKeyArguments),
    /// A new data key, encrypted under the KMS key only
    GenerateDataKeyWithoutPlaintext(DataKeyArguments),
    /// Decrypt what KMS encrypted
    Decrypt(DecryptArguments),
    /// Random bytes from KMS
    GenerateRandom(RandomArguments),
    /// What KMS knows about a key
    DescribeKey(DescribeArguments),
}

#[derive(Debug, Args)]
struct DataKeyArguments {
    /// Key id, key ARN, alias name or alias ARN
    #[arg(long, value_name = "KEY")]
    key_id: String,
    /// The data key's length by algorithm
    #[arg(
        long,
        value_enum,
        ignore_case = true,
        default_value = "AES_256",
        conflicts_with = "number_of_bytes"
    )]
    key_spec: KeySpec,
    /// The data key's length in bytes, 1 to 1,024
    #[arg(long, value_name = "N")]
    number_of_bytes: Option<u32>,
    #[command(flatten)]
    context: ContextArguments,
    #[command(flatten)]
    options: CallOptions,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum KeySpec {
    #[value(name = "AES_256")]
    Aes256,
    #[value(name = "AES_128")]
    Aes128,
}

#[derive(Debug, Args)]
struct DecryptArguments {
    /// What to decrypt: base64, or `fileb://PATH` for a file of bytes
    #[arg(long, value_name = "BASE64", value_parser = parse_bytes)]
    ciphertext_blob: CiphertextArgument,
    /// The key that encrypted it; any other is refused
    #[arg(long, value_name = "KEY")]
    key_id: Option<String>,
    #[command(flatten)]
    context: ContextArguments,
    #[command(flatten)]
    options: CallOptions,
}

#[derive(Debug, Args)]
struct RandomArguments {
    /// 1 to 1,024
    #[arg(long, value_name = "N", default_value_t = 32)]
    number_of_bytes: u32,
    #[command(flatten)]
    options: CallOptions,
}

#[derive(Debug, Args)]
struct DescribeArguments {
    /// Key id, key ARN, alias name or alias ARN
    #[arg(long, value_name = "KEY")]
    key_id: String,
    #[command(flatten)]
    options: CallOptions,
}

#[derive(Debug, Args)]
struct ContextArguments {
    /// A pair of the encryption context; may be given more than once
    #[arg(long = "context", visible_alias = "encryption-context", value_name = "NAME=VALUE", value_parser = parse_pair)]
    pairs: Vec<(String, String)>,
}

#[derive(Debug, Args)]
struct CallOptions {
    #[command(flatten)]
    target: Target,
    /// Give up after this many milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    timeout_ms: u64,
}

/// A ciphertext given on the command line.
#[derive(Debug, Clone)]
struct CiphertextArgument(Vec<u8>);

pub(super) fn run(arguments: Arguments) -> ExitCode {
    block_on(1, async {
        let reply = match call(arguments.command).await {
            Ok(reply) => reply,
            Err(error) => return fail(error),
        };
        // A reader that has closed the pipe wants no more.
        let _ = std::io::Write::write_all(&mut std::io::stdout(), format!("{reply:#}\n").as_bytes());
        Exit::Done.into()
    })
}

async fn call(command: CallCommand) -> Result<Value, String> {
    let reply = match command {
        CallCommand::GenerateDataKey(arguments) => {
            let client = arguments.options.connect().await?;
            client.generate_data_key(arguments.request()).await.map(|key| {
                json!({
                    "plaintext": BASE64.encode(key.plaintext.expose()),
                    "ciphertextBlob": BASE64.encode(&key.ciphertext_blob),
                    "keyId": key.key_id,
                    "keyMaterialId": key.key_material_id,
                    "provenance": provenance(&key.provenance),
                })
            })
        }
        CallCommand::GenerateDataKeyWithoutPlaintext(arguments) => {
            let client = arguments.options.connect().await?;
            client.generate_data_key_without_plaintext(arguments.request().into()).await.map(|key| {
                json!({
                    "ciphertextBlob": BASE64.encode(&key.ciphertext_blob),
                    "keyId": key.key_id,
                    "keyMaterialId": key.key_material_id,
                    "provenance": provenance(&key.provenance),
                })
            })
        }
        CallCommand::Decrypt(arguments) => decrypt(arguments).await?,
        CallCommand::GenerateRandom(arguments) => {
            let client = arguments.options.connect().await?;
            client.generate_random(arguments.number_of_bytes).await.map(|random| {
                json!({
                    "plaintext": BASE64.encode(random.plaintext.expose()),
                    "provenance": provenance(&random.provenance),
                })
            })
        }
        CallCommand::DescribeKey(arguments) => describe_key(arguments).await?,
    };
    reply.map_err(|error| error.to_string())
}

async fn decrypt(arguments: DecryptArguments) -> Result<Result<Value, Error>, String> {
    let client = arguments.options.connect().await?;
    let mut request = Decrypt::new(arguments.ciphertext_blob.0);
    if let Some(key_id) = arguments.key_id {
        request = request.key_id(key_id);
    }
    for (name, value) in arguments.context.pairs {
        request = request.context(name, value);
    }
    Ok(client.decrypt(request).await.map(|decrypted| {
        json!({
            "plaintext": BASE64.encode(decrypted.plaintext.expose()),
            "keyId": decrypted.key_id,
            "keyMaterialId": decrypted.key_material_id,
            "provenance": provenance(&decrypted.provenance),
        })
    }))
}

async fn describe_key(arguments: DescribeArguments) -> Result<Result<Value, Error>, String> {
    let client = arguments.options.connect().await?;
    Ok(client.describe_key(arguments.key_id).await.map(|key| {
        json!({
            "arn": key.arn,
            "keySpec": key.key_spec,
            "keyUsage": key.key_usage,
            "keyState": key.key_state,
            "multiRegion": key.multi_region,
            "origin": key.origin,
            "keyManager": key.key_manager,
            "description": key.description,
            "creationDate": key.creation_date.and_then(rfc3339),
            "provenance": provenance(&key.provenance),
        })
    }))
}

impl DataKeyArguments {
    fn request(&self) -> GenerateDataKey {
        let request = match (self.number_of_bytes, self.key_spec) {
            (Some(n), _) => GenerateDataKey::bytes(&self.key_id, n),
            (None, KeySpec::Aes256) => GenerateDataKey::aes_256(&self.key_id),
            (None, KeySpec::Aes128) => GenerateDataKey::aes_128(&self.key_id),
        };
        self.context.pairs.iter().fold(request, |request, (name, value)| request.context(name, value))
    }
}

impl CallOptions {
    async fn connect(&self) -> Result<Client, String> {
        Ok(self.target.connect().await?.with_deadline(Duration::from_millis(self.timeout_ms)))
    }
}

fn provenance(provenance: &Provenance) -> Value {
    json!({
        "servedFrom": if provenance.from_cache { "CACHE" } else { "KMS" },
        "kmsRequestId": provenance.kms_request_id,
        "kmsEventId": provenance.kms_event_id,
        "mintedAt": provenance.minted_at.and_then(rfc3339),
        "expiresAt": provenance.expires_at.and_then(rfc3339),
        "messagesUsed": provenance.messages_used,
        "messagesLimit": provenance.messages_limit,
        "bytesUsed": provenance.bytes_used,
        "bytesLimit": provenance.bytes_limit,
    })
}

fn rfc3339(at: SystemTime) -> Option<String> {
    OffsetDateTime::from(at).format(&Rfc3339).ok()
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".into()),
    }
}

/// Bytes as the AWS CLI takes them: base64, or `fileb://PATH`.
fn parse_bytes(text: &str) -> Result<CiphertextArgument, String> {
    let bytes = match text.strip_prefix("fileb://") {
        Some(path) => std::fs::read(path).map_err(|error| format!("{path}: {error}"))?,
        None => BASE64
            .decode(text.trim())
            .map_err(|error| format!("not base64 ({error}); for a file of bytes write fileb://PATH"))?,
    };
    Ok(CiphertextArgument(bytes))
}
