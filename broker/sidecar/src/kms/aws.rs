//! The real KMS: the AWS SDK, behind [`Kms`](super::Kms).
//!
//! The SDK's own errors are never printed whole: their debug form can hold the body of an answer, and that can hold a
//! plaintext.

mod answer;
mod bounded;
mod error;
mod input;
mod operations;
mod watch;

use std::net::{ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_kms::config::retry::{RetryPartition, TokenBucket};
use key_broker_core::clock::Clock;
use key_broker_core::partition_of;
use key_broker_trail::record::AwsCaller;

use super::AttemptLog;
use bounded::BoundedAnswers;
use error::sts_error;
pub(super) use error::unexpected;
use watch::AttemptWatch;

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
        let host =
            endpoint.unwrap_or_else(|| format!("https://kms.{region}.{}", dns_suffix(partition_of(&region))));
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

    fn watch(&self, attempts: &AttemptLog) -> AttemptWatch {
        AttemptWatch::new(attempts.clone(), Arc::clone(&self.clock))
    }
}

fn kms_client(shared: &SdkConfig, settings: &AwsSettings) -> aws_sdk_kms::Client {
    let mut config = aws_sdk_kms::config::Builder::from(shared)
        .retry_partition(retry_budget())
        .interceptor(BoundedAnswers);
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
    let mut config = aws_sdk_sts::config::Builder::from(shared).interceptor(BoundedAnswers);
    if let Some(url) = &settings.sts_endpoint_url {
        config = config.endpoint_url(url);
    }
    aws_sdk_sts::Client::from_conf(config.build())
}

/// What the names of AWS's hosts end with (`partitions.json` of the AWS SDKs).
fn dns_suffix(partition: &str) -> &'static str {
    match partition {
        "aws-cn" => "amazonaws.com.cn",
        "aws-eusc" => "amazonaws.eu",
        "aws-iso" => "c2s.ic.gov",
        "aws-iso-b" => "sc2s.sgov.gov",
        "aws-iso-e" => "cloud.adc-e.uk",
        "aws-iso-f" => "csp.hci.ic.gov",
        _ => "amazonaws.com",
    }
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
