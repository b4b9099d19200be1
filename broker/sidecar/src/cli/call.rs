//! `key-broker call`: the RPCs from the command line. JSON on stdout, errors on stderr.

mod encrypt;

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, Subcommand, ValueEnum};
use key_broker_client::{Client, Decrypt, GenerateDataKey, KeyDescription, Provenance};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::block_on;
use super::exit::Exit;
use super::target::{CallFailure, Target, parse_pair, twice};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: CallCommand,
}

#[derive(Debug, Subcommand)]
enum CallCommand {
    /// Encrypt a message, in the AWS Encryption SDK's format
    EncryptMessage(encrypt::EncryptMessageArguments),
    /// Decrypt a message of encrypt-message or of an AWS Encryption SDK
    DecryptMessage(encrypt::DecryptMessageArguments),
    /// Get a data key, in plaintext and encrypted under the KMS key
    GenerateDataKey(DataKeyArguments),
    /// Get a data key, encrypted under the KMS key only
    GenerateDataKeyWithoutPlaintext(DataKeyArguments),
    /// Decrypt a KMS ciphertext
    Decrypt(DecryptArguments),
    /// Encrypt up to 4,096 bytes directly under the KMS key
    Encrypt(encrypt::EncryptArguments),
    /// Re-encrypt a KMS ciphertext under another key or encryption context
    ReEncrypt(encrypt::ReEncryptArguments),
    /// Get a new data key pair
    GenerateDataKeyPair(encrypt::KeyPairArguments),
    /// Get a new data key pair, its private key only encrypted
    GenerateDataKeyPairWithoutPlaintext(encrypt::KeyPairArguments),
    /// Get random bytes from KMS
    GenerateRandom(RandomArguments),
    /// Describe a key
    DescribeKey(DescribeArguments),
}

#[derive(Debug, Args)]
struct DataKeyArguments {
    #[command(flatten)]
    key: KeyToMake,
    #[command(flatten)]
    context: ContextArguments,
    #[command(flatten)]
    options: CallOptions,
}

/// The key that is asked for.
#[derive(Debug, Args)]
struct KeyToMake {
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
    ciphertext_blob: BytesArgument,
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

/// Bytes given on the command line.
#[derive(Debug, Clone)]
struct BytesArgument(Vec<u8>);

pub(super) fn run(arguments: Arguments) -> ExitCode {
    block_on(1, async {
        let reply = match call(arguments.command).await {
            Ok(reply) => reply,
            Err(failure) => return failure.end(),
        };
        // A reader that has closed the pipe wants no more.
        let _ = std::io::Write::write_all(&mut std::io::stdout(), format!("{reply:#}\n").as_bytes());
        Exit::Done.into()
    })
}

async fn call(command: CallCommand) -> Result<Value, CallFailure> {
    let (options, answer) = match command {
        CallCommand::EncryptMessage(arguments) => return encrypt::encrypt_message(arguments).await,
        CallCommand::DecryptMessage(arguments) => return encrypt::decrypt_message(arguments).await,
        CallCommand::Encrypt(arguments) => return encrypt::encrypt(arguments).await,
        CallCommand::ReEncrypt(arguments) => return encrypt::re_encrypt(arguments).await,
        CallCommand::GenerateDataKeyPair(arguments) => return encrypt::key_pair(arguments, true).await,
        CallCommand::GenerateDataKeyPairWithoutPlaintext(arguments) => {
            return encrypt::key_pair(arguments, false).await;
        }
        CallCommand::GenerateDataKey(DataKeyArguments { key, context, options }) => {
            let request = key.request(context.checked()?);
            let client = options.connect().await?;
            let answer = client.generate_data_key(request).await.map(|key| {
                json!({
                    "plaintext": BASE64.encode(key.plaintext.expose()),
                    "ciphertextBlob": BASE64.encode(&key.ciphertext_blob),
                    "keyId": key.key_id,
                    "keyMaterialId": key.key_material_id,
                    "provenance": provenance(&key.provenance),
                })
            });
            (options, answer)
        }
        CallCommand::GenerateDataKeyWithoutPlaintext(DataKeyArguments { key, context, options }) => {
            let request = key.request(context.checked()?);
            let client = options.connect().await?;
            let answer = client.generate_data_key_without_plaintext(request.into()).await.map(|key| {
                json!({
                    "ciphertextBlob": BASE64.encode(&key.ciphertext_blob),
                    "keyId": key.key_id,
                    "keyMaterialId": key.key_material_id,
                    "provenance": provenance(&key.provenance),
                })
            });
            (options, answer)
        }
        CallCommand::Decrypt(DecryptArguments { ciphertext_blob, key_id, context, options }) => {
            let request = decrypt_request(ciphertext_blob, key_id, context.checked()?);
            let answer = options.connect().await?.decrypt(request).await.map(|decrypted| {
                json!({
                    "plaintext": BASE64.encode(decrypted.plaintext.expose()),
                    "keyId": decrypted.key_id,
                    "keyMaterialId": decrypted.key_material_id,
                    "provenance": provenance(&decrypted.provenance),
                })
            });
            (options, answer)
        }
        CallCommand::GenerateRandom(RandomArguments { number_of_bytes, options }) => {
            let answer = options.connect().await?.generate_random(number_of_bytes).await.map(|random| {
                json!({
                    "plaintext": BASE64.encode(random.plaintext.expose()),
                    "provenance": provenance(&random.provenance),
                })
            });
            (options, answer)
        }
        CallCommand::DescribeKey(DescribeArguments { key_id, options }) => {
            let answer = options.connect().await?.describe_key(key_id).await.map(|key| description(&key));
            (options, answer)
        }
    };
    answer.map_err(|error| CallFailure::of(&error, options.timeout_ms))
}

fn decrypt_request(
    ciphertext: BytesArgument,
    key_id: Option<String>,
    pairs: Vec<(String, String)>,
) -> Decrypt {
    let request = Decrypt::new(ciphertext.0);
    let request = match key_id {
        Some(key_id) => request.key_id(key_id),
        None => request,
    };
    pairs.into_iter().fold(request, |request, (name, value)| request.context(name, value))
}

fn description(key: &KeyDescription) -> Value {
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
}

impl KeyToMake {
    fn request(&self, pairs: Vec<(String, String)>) -> GenerateDataKey {
        let request = match (self.number_of_bytes, self.key_spec) {
            (Some(n), _) => GenerateDataKey::bytes(&self.key_id, n),
            (None, KeySpec::Aes256) => GenerateDataKey::aes_256(&self.key_id),
            (None, KeySpec::Aes128) => GenerateDataKey::aes_128(&self.key_id),
        };
        pairs.into_iter().fold(request, |request, (name, value)| request.context(name, value))
    }
}

impl ContextArguments {
    fn checked(self) -> Result<Vec<(String, String)>, CallFailure> {
        match twice(&self.pairs) {
            Some(why) => Err(CallFailure::Mistake(why)),
            None => Ok(self.pairs),
        }
    }
}

impl CallOptions {
    async fn connect(&self) -> Result<Client, CallFailure> {
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

/// Bytes as the AWS CLI takes them: base64, or `fileb://PATH`.
fn parse_bytes(text: &str) -> Result<BytesArgument, String> {
    let bytes = match text.strip_prefix("fileb://") {
        Some(path) => std::fs::read(path).map_err(|error| format!("{path}: {error}"))?,
        None => BASE64
            .decode(text.trim())
            .map_err(|error| format!("not base64 ({error}); for a file of bytes write fileb://PATH"))?,
    };
    Ok(BytesArgument(bytes))
}
