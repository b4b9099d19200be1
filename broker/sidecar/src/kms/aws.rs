//! The real KMS: the AWS SDK, behind [`Kms`]. Nothing else in the broker knows the SDK.
//!
//! The SDK's own errors are never printed whole: their debug form can hold the body of an answer, and that can hold a
//! plaintext.

mod answer;
mod error;
mod question;
mod watch;

use std::net::{ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_kms::config::retry::{RetryPartition, TokenBucket};
use aws_sdk_kms::operation::decrypt::builders::DecryptFluentBuilder;
use aws_sdk_kms::operation::generate_data_key::builders::GenerateDataKeyFluentBuilder;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{self, DataKeySpec, MessageType, SigningAlgorithmSpec};
use key_broker_core::clock::Clock;
use key_broker_core::{DataKeyLength, EncryptionContext, KeyId, Plaintext, RandomLength};
use time::OffsetDateTime;

use super::attested::{AttestedDataKey, AttestedPlaintext};
use super::caller::AwsCaller;
use super::{
    Answers, DataKey, DataKeyRequest, DecryptRequest, Decrypted, EncryptedDataKey, KeyDescription, Kms,
    KmsError, PublicKey, Signature,
};
use answer::{ciphertext, for_recipient, plaintext, required, used_key};
use error::{kms_error, sts_error, unexpected};
use question::{context_map, length_fields, non_empty, recipient_info};
use watch::AnswerWatch;

use crate::attestation::VerifiedRecipient;
use crate::policy::Permit;

/// How to reach KMS and STS.
#[derive(Debug, Clone)]
pub struct AwsSettings {
    /// The region of the keys.
    pub region: String,
    /// KMS's address, if not AWS's own: an emulator or a VPC endpoint.
    pub endpoint_url: Option<String>,
    /// STS's address, likewise.
    pub sts_endpoint_url: Option<String>,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Time for one attempt.
    pub attempt_timeout: Duration,
    /// Attempts in all, in the SDK's standard mode.
    pub max_attempts: u32,
}

/// Fixed credentials, for an emulator.
#[must_use]
pub fn static_credentials(access_key_id: &str, secret_access_key: &str) -> SharedCredentialsProvider {
    SharedCredentialsProvider::new(Credentials::new(
        access_key_id,
        secret_access_key,
        None,
        None,
        "key-broker",
    ))
}

/// The SDK's KMS client.
pub struct AwsKms {
    client: aws_sdk_kms::Client,
    sts: aws_sdk_sts::Client,
    settings: AwsSettings,
    clock: Arc<dyn Clock>,
}

impl AwsKms {
    /// Sets the SDK up. Credentials come from its default chain, or from `credentials` (the emulator's).
    pub async fn new(
        settings: AwsSettings,
        credentials: Option<SharedCredentialsProvider>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(settings.connect_timeout)
            .operation_attempt_timeout(settings.attempt_timeout)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(settings.region.clone()))
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(settings.max_attempts));
        if let Ok(name) = AppName::new("key-broker") {
            loader = loader.app_name(name);
        }
        if let Some(credentials) = credentials {
            loader = loader.credentials_provider(credentials);
        }
        let shared = loader.load().await;
        Self { client: kms_client(&shared, &settings), sts: sts_client(&shared, &settings), settings, clock }
    }

    /// Asks STS whom AWS takes the broker for.
    pub async fn caller(&self) -> Result<AwsCaller, String> {
        let identity = self.sts.get_caller_identity().send().await.map_err(|error| sts_error(&error))?;
        let (Some(account_id), Some(arn), Some(user_id)) = (identity.account, identity.arn, identity.user_id)
        else {
            return Err("STS's answer to GetCallerIdentity lacks Account, Arn or UserId".into());
        };
        let endpoint = self.settings.endpoint_url.clone();
        let region = self.settings.region.clone();
        let host = endpoint.unwrap_or_else(|| format!("https://kms.{region}.amazonaws.com"));
        let kms_host = host.parse::<http::Uri>().ok().and_then(|uri| Some(uri.host()?.to_owned()));
        // Name resolution blocks.
        let source_address =
            tokio::task::spawn_blocking(move || local_address_toward(&host)).await.ok().flatten();
        Ok(AwsCaller {
            account_id,
            arn,
            user_id,
            region,
            kms_host: kms_host.unwrap_or_default(),
            source_address: source_address.unwrap_or_else(|| "unknown".into()),
        })
    }

    /// Asks KMS, without doing it (`DryRun`), whether the broker may make a data key under `key`, bound to `context`.
    pub async fn dry_run_generate_data_key(
        &self,
        key: &KeyId,
        context: &EncryptionContext,
        answers: &Answers,
    ) -> Result<(), KmsError> {
        let sent = self
            .client
            .generate_data_key()
            .key_id(key.as_str())
            .key_spec(DataKeySpec::Aes256)
            .set_encryption_context(context_map(context))
            .dry_run(true)
            .customize()
            .interceptor(self.watch(answers))
            .send()
            .await;
        match sent.map_err(|error| kms_error(&error)) {
            Ok(_) => Err(unexpected("KMS made a data key although it was asked for a dry run")),
            Err(error) if error.code == "DryRunOperationException" => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn data_key_call(&self, request: &DataKeyRequest) -> GenerateDataKeyFluentBuilder {
        let (key_spec, number_of_bytes) = length_fields(request.length);
        self.client
            .generate_data_key()
            .key_id(request.key.asked.as_str())
            .set_key_spec(key_spec)
            .set_number_of_bytes(number_of_bytes)
            .set_encryption_context(context_map(&request.context))
            .set_grant_tokens(non_empty(request.grant_tokens.as_slice()))
    }

    fn decrypt_call(&self, request: &DecryptRequest) -> DecryptFluentBuilder {
        self.client
            .decrypt()
            .ciphertext_blob(Blob::new(request.ciphertext.as_bytes()))
            .set_key_id(request.key.as_ref().map(|key| key.asked.as_str().to_owned()))
            .set_encryption_context(context_map(&request.context))
            .set_grant_tokens(non_empty(request.grant_tokens.as_slice()))
    }

    fn watch(&self, answers: &Answers) -> AnswerWatch {
        AnswerWatch::new(answers.clone(), Arc::clone(&self.clock))
    }
}

#[async_trait]
impl Kms for AwsKms {
    async fn generate_data_key(
        &self,
        _permit: Permit,
        request: &DataKeyRequest,
        answers: &Answers,
    ) -> Result<DataKey, KmsError> {
        let output = self
            .data_key_call(request)
            .customize()
            .interceptor(self.watch(answers))
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        let plaintext = plaintext(output.plaintext)?;
        if plaintext.len() != length_in_bytes(request.length) {
            return Err(unexpected("the data key has another length than was asked for"));
        }
        let encrypted = EncryptedDataKey {
            ciphertext_blob: ciphertext(output.ciphertext_blob)?,
            key: used_key(Some(&request.key.asked), output.key_id.as_deref(), output.key_material_id)?,
        };
        Ok(DataKey { plaintext, encrypted })
    }

    async fn generate_data_key_without_plaintext(
        &self,
        _permit: Permit,
        request: &DataKeyRequest,
        answers: &Answers,
    ) -> Result<EncryptedDataKey, KmsError> {
        let (key_spec, number_of_bytes) = length_fields(request.length);
        let output = self
            .client
            .generate_data_key_without_plaintext()
            .key_id(request.key.asked.as_str())
            .set_key_spec(key_spec)
            .set_number_of_bytes(number_of_bytes)
            .set_encryption_context(context_map(&request.context))
            .set_grant_tokens(non_empty(request.grant_tokens.as_slice()))
            .customize()
            .interceptor(self.watch(answers))
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        Ok(EncryptedDataKey {
            ciphertext_blob: ciphertext(output.ciphertext_blob)?,
            key: used_key(Some(&request.key.asked), output.key_id.as_deref(), output.key_material_id)?,
        })
    }

    async fn decrypt(
        &self,
        _permit: Permit,
        request: &DecryptRequest,
        answers: &Answers,
    ) -> Result<Decrypted, KmsError> {
        let asked = request.key.as_ref().map(|key| &key.asked);
        let output = self
            .decrypt_call(request)
            .customize()
            .interceptor(self.watch(answers))
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        Ok(Decrypted {
            plaintext: plaintext(output.plaintext)?,
            key: used_key(asked, output.key_id.as_deref(), output.key_material_id)?,
        })
    }

    async fn generate_random(
        &self,
        _permit: Permit,
        length: RandomLength,
        answers: &Answers,
    ) -> Result<Plaintext, KmsError> {
        let output = self
            .client
            .generate_random()
            .number_of_bytes(i32::from(length.get()))
            .customize()
            .interceptor(self.watch(answers))
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        let plaintext = plaintext(output.plaintext)?;
        if plaintext.len() != usize::from(length.get()) {
            return Err(unexpected("there are more or fewer random bytes than were asked for"));
        }
        Ok(plaintext)
    }

    async fn generate_data_key_for(
        &self,
        _permit: Permit,
        recipient: &VerifiedRecipient,
        request: &DataKeyRequest,
        answers: &Answers,
    ) -> Result<AttestedDataKey, KmsError> {
        let output = self
            .data_key_call(request)
            .recipient(recipient_info(recipient))
            .customize()
            .interceptor(self.watch(answers))
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        let ciphertext_for_recipient = for_recipient(output.plaintext, output.ciphertext_for_recipient)?;
        let encrypted = EncryptedDataKey {
            ciphertext_blob: ciphertext(output.ciphertext_blob)?,
            key: used_key(Some(&request.key.asked), output.key_id.as_deref(), output.key_material_id)?,
        };
        Ok(AttestedDataKey { ciphertext_for_recipient, encrypted })
    }

    async fn decrypt_for(
        &self,
        _permit: Permit,
        recipient: &VerifiedRecipient,
        request: &DecryptRequest,
        answers: &Answers,
    ) -> Result<AttestedPlaintext, KmsError> {
        let asked = request.key.as_ref().map(|key| &key.asked);
        let output = self
            .decrypt_call(request)
            .recipient(recipient_info(recipient))
            .customize()
            .interceptor(self.watch(answers))
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        Ok(AttestedPlaintext {
            ciphertext_for_recipient: for_recipient(output.plaintext, output.ciphertext_for_recipient)?,
            key: Some(used_key(asked, output.key_id.as_deref(), output.key_material_id)?),
        })
    }

    async fn generate_random_for(
        &self,
        _permit: Permit,
        recipient: &VerifiedRecipient,
        length: RandomLength,
        answers: &Answers,
    ) -> Result<AttestedPlaintext, KmsError> {
        let output = self
            .client
            .generate_random()
            .recipient(recipient_info(recipient))
            .number_of_bytes(i32::from(length.get()))
            .customize()
            .interceptor(self.watch(answers))
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        let ciphertext_for_recipient = for_recipient(output.plaintext, output.ciphertext_for_recipient)?;
        Ok(AttestedPlaintext { ciphertext_for_recipient, key: None })
    }

    async fn describe_key(
        &self,
        _permit: Permit,
        key: &KeyId,
        answers: &Answers,
    ) -> Result<KeyDescription, KmsError> {
        let output = self
            .client
            .describe_key()
            .key_id(key.as_str())
            .customize()
            .interceptor(self.watch(answers))
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        let Some(metadata) = output.key_metadata else {
            return Err(unexpected("the answer has no KeyMetadata"));
        };
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        Ok(KeyDescription {
            arn: used_key(Some(key), metadata.arn.as_deref(), None)?.arn,
            key_spec: text(metadata.key_spec.as_ref().map(types::KeySpec::as_str)),
            key_usage: text(metadata.key_usage.as_ref().map(types::KeyUsageType::as_str)),
            key_state: text(metadata.key_state.as_ref().map(types::KeyState::as_str)),
            origin: text(metadata.origin.as_ref().map(types::OriginType::as_str)),
            key_manager: text(metadata.key_manager.as_ref().map(types::KeyManagerType::as_str)),
            description: metadata.description.unwrap_or_default(),
            multi_region: metadata.multi_region.unwrap_or_default(),
            creation_date: metadata
                .creation_date
                .and_then(|date| OffsetDateTime::from_unix_timestamp_nanos(date.as_nanos()).ok()),
        })
    }

    async fn check(&self, _permit: Permit, key: &KeyId, answers: &Answers) -> Result<(), KmsError> {
        self.dry_run_generate_data_key(key, &EncryptionContext::default(), answers).await
    }

    async fn sign(
        &self,
        _permit: Permit,
        key: &KeyId,
        digest: [u8; 32],
        answers: &Answers,
    ) -> Result<Signature, KmsError> {
        let output = self
            .client
            .sign()
            .key_id(key.as_str())
            .message(Blob::new(digest))
            .message_type(MessageType::Digest)
            .signing_algorithm(SigningAlgorithmSpec::RsassaPkcs1V15Sha256)
            .customize()
            .interceptor(self.watch(answers))
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        Ok(Signature {
            bytes: required(output.signature, "the answer has no signature")?,
            key: used_key(Some(key), output.key_id.as_deref(), None)?,
        })
    }

    async fn public_key(
        &self,
        _permit: Permit,
        key: &KeyId,
        answers: &Answers,
    ) -> Result<PublicKey, KmsError> {
        let output = self
            .client
            .get_public_key()
            .key_id(key.as_str())
            .customize()
            .interceptor(self.watch(answers))
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        Ok(PublicKey {
            spki: required(output.public_key, "the answer has no public key")?,
            key: used_key(Some(key), output.key_id.as_deref(), None)?,
        })
    }
}

fn length_in_bytes(length: DataKeyLength) -> usize {
    match length {
        DataKeyLength::Aes256 => 32,
        DataKeyLength::Aes128 => 16,
        DataKeyLength::Bytes(n) => n.get().into(),
    }
}

fn kms_client(shared: &SdkConfig, settings: &AwsSettings) -> aws_sdk_kms::Client {
    let mut config = aws_sdk_kms::config::Builder::from(shared).retry_partition(retry_budget());
    if let Some(url) = &settings.endpoint_url {
        config = config.endpoint_url(url);
    }
    aws_sdk_kms::Client::from_conf(config.build())
}

/// The budget of retries, for this client alone: the SDK's own bucket is one for the whole process and region.
///
/// Capacity and costs are those of the SDK's standard mode
/// (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html>): a retry that is answered gives its tokens
/// back, one that fails does not, and every first attempt that is answered brings one. A broker that serves from its cache
/// makes few calls to win tokens back by, so here time brings some, too.
fn retry_budget() -> RetryPartition {
    let tokens = TokenBucket::builder()
        .capacity(RETRY_TOKENS)
        .retry_cost(RETRY_COST)
        .throttling_retry_cost(RETRY_COST)
        .timeout_retry_cost(TIMEOUT_RETRY_COST)
        .refill_rate(RETRY_TOKENS_A_SECOND);
    RetryPartition::custom("key-broker").token_bucket(tokens.build()).build()
}

fn sts_client(shared: &SdkConfig, settings: &AwsSettings) -> aws_sdk_sts::Client {
    let mut config = aws_sdk_sts::config::Builder::from(shared);
    if let Some(url) = &settings.sts_endpoint_url {
        config = config.endpoint_url(url);
    }
    aws_sdk_sts::Client::from_conf(config.build())
}

/// The address this host would send from. Connecting a UDP socket sends nothing.
fn local_address_toward(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    let port = uri.port_u16().unwrap_or(443);
    let address = (uri.host()?, port).to_socket_addrs().ok()?.next()?;
    let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).ok()?;
    socket.connect(address).ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

/// Retries under way or lost, in tokens: at most 50 to 100.
const RETRY_TOKENS: usize = 500;
/// Of a retry after an answer that is an error, throttling included.
const RETRY_COST: u32 = 5;
/// Of a retry after none: it costs KMS and the caller more.
const TIMEOUT_RETRY_COST: u32 = 10;
/// One retry in five to ten seconds while nothing succeeds; full again within nine minutes.
const RETRY_TOKENS_A_SECOND: f32 = 1.0;
