//! Messages, short plaintexts and data key pairs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, ValueEnum};
use key_broker_client::{
    DecryptMessage, Encrypt, EncryptMessage, GenerateDataKeyPair, KeyPairSpec, ReEncrypt,
};
use serde_json::{Value, json};

use super::{BytesArgument, CallOptions, ContextArguments, parse_bytes, provenance};
use crate::cli::target::{CallFailure, parse_pair, twice};

#[derive(Debug, Args)]
pub(super) struct EncryptMessageArguments {
    /// Key id, key ARN, alias name or alias ARN
    #[arg(long, value_name = "KEY")]
    key_id: String,
    /// What to encrypt: base64, or `fileb://PATH` for a file of bytes (`fileb:///dev/stdin` for stdin)
    #[arg(long, value_name = "BASE64", value_parser = parse_bytes)]
    plaintext: BytesArgument,
    #[command(flatten)]
    context: ContextArguments,
    #[command(flatten)]
    options: CallOptions,
}

#[derive(Debug, Args)]
pub(super) struct DecryptMessageArguments {
    /// What to decrypt: base64, or `fileb://PATH` for a file of bytes (`fileb:///dev/stdin` for stdin)
    #[arg(long, value_name = "BASE64", value_parser = parse_bytes)]
    message: BytesArgument,
    /// The KMS key that must have encrypted it
    #[arg(long, value_name = "KEY")]
    key_id: Option<String>,
    /// The pairs are those that the message must have; it may have more
    #[command(flatten)]
    context: ContextArguments,
    #[command(flatten)]
    options: CallOptions,
}

#[derive(Debug, Args)]
pub(super) struct EncryptArguments {
    /// Key id, key ARN, alias name or alias ARN
    #[arg(long, value_name = "KEY")]
    key_id: String,
    /// What to encrypt, 1 to 4,096 bytes: base64, or `fileb://PATH` for a file of bytes
    #[arg(long, value_name = "BASE64", value_parser = parse_bytes)]
    plaintext: BytesArgument,
    #[command(flatten)]
    context: ContextArguments,
    #[command(flatten)]
    options: CallOptions,
}

#[derive(Debug, Args)]
pub(super) struct ReEncryptArguments {
    /// What KMS encrypted: base64, or `fileb://PATH` for a file of bytes
    #[arg(long, value_name = "BASE64", value_parser = parse_bytes)]
    ciphertext_blob: BytesArgument,
    /// The key that had encrypted it; any other is refused
    #[arg(long, value_name = "KEY")]
    source_key_id: Option<String>,
    /// A pair of the encryption context that it has; may be given more than once
    #[arg(long = "source-context", value_name = "NAME=VALUE", value_parser = parse_pair)]
    source_pairs: Vec<(String, String)>,
    /// The key to encrypt under
    #[arg(long, value_name = "KEY")]
    destination_key_id: String,
    /// A pair of the encryption context that it is to have; may be given more than once
    #[arg(long = "destination-context", value_name = "NAME=VALUE", value_parser = parse_pair)]
    destination_pairs: Vec<(String, String)>,
    #[command(flatten)]
    options: CallOptions,
}

#[derive(Debug, Args)]
pub(super) struct KeyPairArguments {
    /// The key that encrypts the private key
    #[arg(long, value_name = "KEY")]
    key_id: String,
    /// The kind of the pair
    #[arg(long, value_enum, ignore_case = true)]
    key_pair_spec: PairSpec,
    #[command(flatten)]
    context: ContextArguments,
    #[command(flatten)]
    options: CallOptions,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PairSpec {
    #[value(name = "RSA_2048")]
    Rsa2048,
    #[value(name = "RSA_3072")]
    Rsa3072,
    #[value(name = "RSA_4096")]
    Rsa4096,
    #[value(name = "ECC_NIST_P256")]
    EccNistP256,
    #[value(name = "ECC_NIST_P384")]
    EccNistP384,
    #[value(name = "ECC_NIST_P521")]
    EccNistP521,
    #[value(name = "ECC_SECG_P256K1")]
    EccSecgP256k1,
}

pub(super) async fn encrypt_message(arguments: EncryptMessageArguments) -> Result<Value, CallFailure> {
    let EncryptMessageArguments { key_id, plaintext, context, options } = arguments;
    let request = EncryptMessage::new(key_id, plaintext.0);
    let request = context.checked()?.into_iter().fold(request, |request, (n, v)| request.context(n, v));
    let encrypted = options.connect().await?.encrypt_message(request).await;
    let encrypted = encrypted.map_err(|error| CallFailure::of(&error, options.timeout_ms))?;
    Ok(json!({
        "message": BASE64.encode(&encrypted.message),
        "keyId": encrypted.key_id,
        "provenance": provenance(&encrypted.provenance),
    }))
}

pub(super) async fn decrypt_message(arguments: DecryptMessageArguments) -> Result<Value, CallFailure> {
    let DecryptMessageArguments { message, key_id, context, options } = arguments;
    let request = DecryptMessage::new(message.0);
    let request = key_id.into_iter().fold(request, DecryptMessage::key_id);
    let request = context.checked()?.into_iter().fold(request, |request, (n, v)| request.context(n, v));
    let decrypted = options.connect().await?.decrypt_message(request).await;
    let decrypted = decrypted.map_err(|error| CallFailure::of(&error, options.timeout_ms))?;
    Ok(json!({
        "plaintext": BASE64.encode(decrypted.plaintext.expose()),
        "encryptionContext": decrypted.encryption_context,
        "keyId": decrypted.key_id,
        "provenance": provenance(&decrypted.provenance),
    }))
}

pub(super) async fn encrypt(arguments: EncryptArguments) -> Result<Value, CallFailure> {
    let EncryptArguments { key_id, plaintext, context, options } = arguments;
    let request = Encrypt::new(key_id, plaintext.0);
    let request = context.checked()?.into_iter().fold(request, |request, (n, v)| request.context(n, v));
    let encrypted = options.connect().await?.encrypt(request).await;
    let encrypted = encrypted.map_err(|error| CallFailure::of(&error, options.timeout_ms))?;
    Ok(json!({
        "ciphertextBlob": BASE64.encode(&encrypted.ciphertext_blob),
        "keyId": encrypted.key_id,
        "provenance": provenance(&encrypted.provenance),
    }))
}

pub(super) async fn re_encrypt(arguments: ReEncryptArguments) -> Result<Value, CallFailure> {
    for pairs in [&arguments.source_pairs, &arguments.destination_pairs] {
        if let Some(why) = twice(pairs) {
            return Err(CallFailure::Mistake(why));
        }
    }
    let request = ReEncrypt::new(arguments.ciphertext_blob.0, arguments.destination_key_id);
    let request = arguments.source_key_id.into_iter().fold(request, ReEncrypt::source_key_id);
    let request = arguments.source_pairs.into_iter().fold(request, |all, (n, v)| all.source_context(n, v));
    let request =
        arguments.destination_pairs.into_iter().fold(request, |all, (n, v)| all.destination_context(n, v));
    let options = arguments.options;
    let encrypted = options.connect().await?.re_encrypt(request).await;
    let encrypted = encrypted.map_err(|error| CallFailure::of(&error, options.timeout_ms))?;
    Ok(json!({
        "ciphertextBlob": BASE64.encode(&encrypted.ciphertext_blob),
        "sourceKeyId": encrypted.source_key_id,
        "keyId": encrypted.key_id,
        "provenance": provenance(&encrypted.provenance),
    }))
}

pub(super) async fn key_pair(
    arguments: KeyPairArguments,
    with_plaintext: bool,
) -> Result<Value, CallFailure> {
    let KeyPairArguments { key_id, key_pair_spec, context, options } = arguments;
    let request = GenerateDataKeyPair::new(key_id, key_pair_spec.into());
    let request = context.checked()?.into_iter().fold(request, |request, (n, v)| request.context(n, v));
    let client = options.connect().await?;
    let pair = if with_plaintext {
        client.generate_data_key_pair(request).await
    } else {
        client.generate_data_key_pair_without_plaintext(request).await
    };
    let pair = pair.map_err(|error| CallFailure::of(&error, options.timeout_ms))?;
    let mut shown = json!({
        "privateKeyCiphertextBlob": BASE64.encode(&pair.private_key_ciphertext_blob),
        "publicKey": BASE64.encode(&pair.public_key),
        "keyId": pair.key_id,
        "provenance": provenance(&pair.provenance),
    });
    if let Some(private_key) = &pair.private_key {
        shown["privateKeyPlaintext"] = BASE64.encode(private_key.expose()).into();
    }
    Ok(shown)
}

impl From<PairSpec> for KeyPairSpec {
    fn from(spec: PairSpec) -> Self {
        match spec {
            PairSpec::Rsa2048 => Self::Rsa2048,
            PairSpec::Rsa3072 => Self::Rsa3072,
            PairSpec::Rsa4096 => Self::Rsa4096,
            PairSpec::EccNistP256 => Self::EccNistP256,
            PairSpec::EccNistP384 => Self::EccNistP384,
            PairSpec::EccNistP521 => Self::EccNistP521,
            PairSpec::EccSecgP256k1 => Self::EccSecgP256k1,
        }
    }
}
