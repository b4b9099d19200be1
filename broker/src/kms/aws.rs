//! The real KMS: the AWS SDK, behind [`Kms`]. Nothing else in the broker knows the SDK.
//!
//! The SDK's own errors are never printed whole: their debug form can hold the body of an answer, and that can hold a
//! plaintext.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::net::{ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{self, DataKeySpec};
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use bytes::Bytes;
use serde::Deserialize;
use time::OffsetDateTime;

use super::caller::AwsCaller;
use super::{
    Answer, Answers, DataKey, DataKeyRequest, DecryptRequest, Decrypted, EncryptedDataKey, KeyDescription,
    Kms, KmsError, KmsErrorKind, UsedKey,
};
use crate::clock::Clock;
use crate::key::{DataKeyLength, EncryptionContext, KeyArn, KeyId, RandomLength};
use crate::policy::Permit;
use crate::secret::Plaintext;

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
        // Name resolution blocks.
        let source_address =
            tokio::task::spawn_blocking(move || local_address_toward(&host)).await.ok().flatten();
        Ok(AwsCaller {
            account_id,
            arn,
            user_id,
            region,
            source_address: source_address.unwrap_or_else(|| "unknown".into()),
        })
    }

    /// Asks KMS, without doing it (`DryRun`), whether the broker may make a data key under `key`.
    pub async fn dry_run_generate_data_key(&self, key: &KeyId) -> Result<(), KmsError> {
        let sent = self
            .client
            .generate_data_key()
            .key_id(key.as_str())
            .key_spec(DataKeySpec::Aes256)
            .dry_run(true)
            .send()
            .await;
        match sent.map_err(|error| kms_error(&error)) {
            Ok(_) => Err(unexpected("KMS made a data key although it was asked for a dry run")),
            Err(error) if error.code == "DryRunOperationException" => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn watch(&self, answers: &Answers) -> AnswerWatch {
        AnswerWatch { answers: answers.clone(), clock: Arc::clone(&self.clock), sent: Mutex::default() }
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
        let (key_spec, number_of_bytes) = length_fields(request.length);
        let output = self
            .client
            .generate_data_key()
            .key_id(request.key.as_str())
            .set_key_spec(key_spec)
            .set_number_of_bytes(number_of_bytes)
            .set_encryption_context(context_map(&request.context))
            .set_grant_tokens(non_empty(request.grant_tokens.as_slice()))
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
            key: used_key(Some(&request.key), output.key_id.as_deref(), output.key_material_id)?,
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
            .key_id(request.key.as_str())
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
            key: used_key(Some(&request.key), output.key_id.as_deref(), output.key_material_id)?,
        })
    }

    async fn decrypt(
        &self,
        _permit: Permit,
        request: &DecryptRequest,
        answers: &Answers,
    ) -> Result<Decrypted, KmsError> {
        let output = self
            .client
            .decrypt()
            .ciphertext_blob(Blob::new(request.ciphertext.as_bytes()))
            .set_key_id(request.key.as_ref().map(|key| key.as_str().to_owned()))
            .set_encryption_context(context_map(&request.context))
            .set_grant_tokens(non_empty(request.grant_tokens.as_slice()))
            .customize()
            .interceptor(self.watch(answers))
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        Ok(Decrypted {
            plaintext: plaintext(output.plaintext)?,
            key: used_key(request.key.as_ref(), output.key_id.as_deref(), output.key_material_id)?,
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
}

/// Notes every answer of KMS during one call, that of each attempt.
struct AnswerWatch {
    answers: Answers,
    clock: Arc<dyn Clock>,
    /// What the attempt under way was sent with: the request is gone once it is sent.
    sent: Mutex<Sent>,
}

#[derive(Default)]
struct Sent {
    access_key_id: Option<String>,
    user_agent: String,
}

impl fmt::Debug for AnswerWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswerWatch")
    }
}

impl Intercept for AnswerWatch {
    fn name(&self) -> &'static str {
        "AnswerWatch"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let headers = context.request().headers();
        *self.sent.lock().unwrap_or_else(PoisonError::into_inner) = Sent {
            access_key_id: headers.get("authorization").and_then(access_key_id),
            user_agent: headers.get("user-agent").unwrap_or_default().to_owned(),
        };
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let Some(response) = context.response() else { return Ok(()) };
        // An answer without a requestID is some proxy's, not KMS's.
        let Some(request_id) = response.headers().get(REQUEST_ID_HEADER) else { return Ok(()) };
        let sent = std::mem::take(&mut *self.sent.lock().unwrap_or_else(PoisonError::into_inner));
        self.answers.push(Answer {
            at: self.clock.now(),
            request_id: request_id.to_owned(),
            access_key_id: sent.access_key_id,
            user_agent: sent.user_agent,
            error: (!response.status().is_success()).then(|| error_in(response)),
        });
        Ok(())
    }
}

/// The access key in `AWS4-HMAC-SHA256 Credential=AKID/date/region/service/aws4_request, …` (AWS Signature Version 4).
fn access_key_id(authorization: &str) -> Option<String> {
    let (_, credential) = authorization.split_once("Credential=")?;
    credential.split('/').next().map(str::to_owned)
}

/// Name and words of an error answer (AWS JSON 1.1 protocol, "Operation error serialization").
fn error_in(response: &HttpResponse) -> (String, String) {
    #[derive(Deserialize, Default)]
    struct Body {
        #[serde(rename = "__type", default)]
        kind: String,
        #[serde(alias = "Message", default)]
        message: Option<String>,
    }
    let body: Body =
        response.body().bytes().and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default();
    let kind = body.kind.rsplit('#').next().unwrap_or_default();
    let code = if kind.is_empty() { format!("HTTP{}", response.status().as_u16()) } else { kind.to_owned() };
    (code, body.message.unwrap_or_default())
}

fn kms_error<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> KmsError {
    let request_id = error.raw_response().and_then(|response| response.headers().get(REQUEST_ID_HEADER));
    let request_id = request_id.map(str::to_owned);
    let of = |kind, code: &str, message: Option<String>| KmsError {
        kind,
        code: code.to_owned(),
        message,
        request_id,
    };
    match error {
        SdkError::ServiceError(service) => {
            let metadata = service.err().meta();
            match metadata.code() {
                Some(code) => of(kind_of(code), code, metadata.message().map(str::to_owned)),
                None => of(KmsErrorKind::Unavailable, UNEXPECTED, Some(UNREADABLE.into())),
            }
        }
        SdkError::ResponseError(_) => of(KmsErrorKind::Unavailable, UNEXPECTED, Some(UNREADABLE.into())),
        SdkError::TimeoutError(_) => {
            of(KmsErrorKind::Unavailable, UNREACHED, Some("KMS did not answer in time".into()))
        }
        SdkError::DispatchFailure(failure) => {
            of(KmsErrorKind::Unavailable, UNREACHED, failure.as_connector_error().map(|error| chain(error)))
        }
        SdkError::ConstructionFailure(_) => of(
            KmsErrorKind::Unavailable,
            "NoCredentials",
            Some("no usable AWS credentials were found".into()),
        ),
        _ => of(KmsErrorKind::Unavailable, UNREACHED, None),
    }
}

/// KMS's names of errors (AWS KMS API reference, each operation's "Errors", and "Common Errors").
fn kind_of(code: &str) -> KmsErrorKind {
    match code {
        "NotFoundException" => KmsErrorKind::NotFound,
        "DisabledException" => KmsErrorKind::Disabled,
        "KMSInvalidStateException" => KmsErrorKind::InvalidState,
        "InvalidKeyUsageException" | "UnsupportedOperationException" => KmsErrorKind::InvalidKeyUsage,
        "InvalidCiphertextException" => KmsErrorKind::InvalidCiphertext,
        "IncorrectKeyException" => KmsErrorKind::IncorrectKey,
        "InvalidGrantTokenException" => KmsErrorKind::InvalidGrantToken,
        "ValidationException" | "InvalidArnException" => KmsErrorKind::Validation,
        "ThrottlingException" | "Throttling" | "LimitExceededException" => KmsErrorKind::Throttled,
        "AccessDeniedException"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationTokenException"
        | "MissingAuthenticationToken"
        | "ExpiredTokenException"
        | "OptInRequired"
        | "NotAuthorized" => KmsErrorKind::AccessDenied,
        _ => KmsErrorKind::Unavailable,
    }
}

fn unexpected(message: &str) -> KmsError {
    KmsError {
        kind: KmsErrorKind::Unavailable,
        code: UNEXPECTED.into(),
        message: Some(message.into()),
        request_id: None,
    }
}

/// The display forms of an error and its causes. Never the debug form: see the top of this file.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn sts_error<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> String {
    let error = kms_error(error);
    format!("{}: {}", error.code, error.message.unwrap_or_default())
}

fn plaintext(blob: Option<Blob>) -> Result<Plaintext, KmsError> {
    match blob.map(|blob| Plaintext::new(blob.into_inner())) {
        Some(plaintext) if !plaintext.is_empty() => Ok(plaintext),
        _ => Err(unexpected("the answer has no plaintext")),
    }
}

fn ciphertext(blob: Option<Blob>) -> Result<Bytes, KmsError> {
    match blob.map(Blob::into_inner) {
        Some(bytes) if !bytes.is_empty() => Ok(bytes.into()),
        _ => Err(unexpected("the answer has no ciphertext")),
    }
}

/// The key of an answer, which must be the key that was asked for.
fn used_key(
    asked: Option<&KeyId>,
    key_id: Option<&str>,
    material_id: Option<String>,
) -> Result<UsedKey, KmsError> {
    let Some(arn) = key_id.and_then(KeyArn::parse) else {
        return Err(unexpected("the answer names no key ARN"));
    };
    if asked.is_some_and(|key| !key.may_be(&arn)) {
        return Err(unexpected("the answer is for another key than was asked for"));
    }
    Ok(UsedKey { arn, material_id })
}

fn length_fields(length: DataKeyLength) -> (Option<DataKeySpec>, Option<i32>) {
    match length {
        DataKeyLength::Aes256 => (Some(DataKeySpec::Aes256), None),
        DataKeyLength::Aes128 => (Some(DataKeySpec::Aes128), None),
        DataKeyLength::Bytes(n) => (None, Some(n.get().into())),
    }
}

fn length_in_bytes(length: DataKeyLength) -> usize {
    match length {
        DataKeyLength::Aes256 => 32,
        DataKeyLength::Aes128 => 16,
        DataKeyLength::Bytes(n) => n.get().into(),
    }
}

fn context_map(context: &EncryptionContext) -> Option<HashMap<String, String>> {
    (!context.is_empty())
        .then(|| context.pairs().iter().map(|(name, value)| (name.clone(), value.clone())).collect())
}

fn non_empty(tokens: &[String]) -> Option<Vec<String>> {
    (!tokens.is_empty()).then(|| tokens.to_vec())
}

fn kms_client(shared: &SdkConfig, settings: &AwsSettings) -> aws_sdk_kms::Client {
    let mut config = aws_sdk_kms::config::Builder::from(shared);
    if let Some(url) = &settings.endpoint_url {
        config = config.endpoint_url(url);
    }
    aws_sdk_kms::Client::from_conf(config.build())
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

/// `x-amzn-RequestId`, on every answer of KMS. Header names are lower-case here.
const REQUEST_ID_HEADER: &str = "x-amzn-requestid";
/// KMS could not be reached.
const UNREACHED: &str = "KMSUnavailable";
/// KMS's answer makes no sense.
const UNEXPECTED: &str = "KMSUnexpectedAnswer";
const UNREADABLE: &str = "the answer cannot be read";
