//! The real KMS: the AWS SDK, behind [`Kms`](super::Kms).
//!
//! The SDK's own errors are never printed whole: their debug form can hold the body of an answer, and that can hold a
//! plaintext.

mod answer;
mod bounded;
mod connector;
mod credentials;
mod endpoint;
mod error;
mod input;
mod operations;
mod request_id;
pub(crate) mod sessions;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_kms::config::IdentityCache;
use aws_sdk_kms::config::retry::{RetryPartition, TokenBucket};
use key_broker_core::clock::Clock;
use key_broker_core::partition_of;
use key_broker_trail::delivery::StoreConfig;
use key_broker_trail::record::{AwsCaller, UserIdentity};

use super::AttemptLog;
use bounded::BoundedAnswers;
use credentials::CredentialsInUse;
use credentials::source::Source;
pub(super) use error::unexpected;
use sessions::{Sessions, account_of, partition_in};
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
    /// A role that the broker assumes with the credentials that it finds.
    pub role_arn: Option<String>,
    /// The name of the role sessions that the broker makes.
    pub session_name: Option<String>,
    /// Time to connect to the metadata service of an instance or a container.
    pub imds_connect_timeout: Duration,
    /// Time for one answer of it.
    pub imds_read_timeout: Duration,
}

/// Fixed credentials, for an emulator.
#[must_use]
pub(crate) fn static_credentials(access_key_id: &str, secret_access_key: &str) -> SharedCredentialsProvider {
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
    credentials: CredentialsInUse,
    sessions: Arc<Sessions>,
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
            .retry_config(RetryConfig::standard().with_max_attempts(settings.max_attempts))
            .http_client(connector::for_services())
            // They are kept, and renewed, elsewhere.
            .identity_cache(IdentityCache::no_cache())
            .no_credentials();
        if let Ok(name) = AppName::new("key-broker") {
            loader = loader.app_name(name);
        }
        let shared = loader.load().await;
        let source = Source::new(credentials, settings.clone(), &shared);
        let sessions = Arc::new(Sessions::new(settings.roles()));
        let sts = sts_client(&shared, &settings);
        let credentials = CredentialsInUse::start(source, sts, Arc::clone(&sessions), Arc::clone(&clock));
        let shared = shared
            .into_builder()
            .credentials_provider(SharedCredentialsProvider::new(credentials.clone()))
            .build();
        Self { client: kms_client(&shared, &settings), credentials, sessions, settings, clock }
    }

    /// Where in AWS the broker is: STS tells, else the configuration, if there are credentials that STS does not know of yet.
    pub async fn caller(&self) -> Result<AwsCaller, String> {
        let (account_id, partition) = match (self.credentials.session().await, self.settings.certain_role()) {
            (Ok(session), _) => {
                let arn = session.arn.as_deref().unwrap_or_default();
                (account_of(arn).to_owned(), partition_in(arn).map(str::to_owned))
            }
            (Err(error), Some(role)) if self.credentials.are_there() => {
                tracing::warn!(error, role, "the account is taken from the role's ARN");
                (account_of(&role).to_owned(), partition_in(&role).map(str::to_owned))
            }
            (Err(error), _) => return Err(error),
        };
        Ok(self.caller_of(&account_id, partition).await)
    }

    /// The same, of a trail that is this account's, while STS does not tell; none without credentials.
    pub(crate) async fn caller_in(&self, account_id: &str, partition: &str) -> Option<AwsCaller> {
        if !self.credentials.are_there() {
            return None;
        }
        Some(self.caller_of(account_id, Some(partition.to_owned())).await)
    }

    async fn caller_of(&self, account_id: &str, partition: Option<String>) -> AwsCaller {
        self.sessions.settle(account_id);
        let region = self.settings.region.clone();
        let uri = endpoint::of_kms(&self.client).await;
        let kms_host = uri.as_ref().and_then(http::Uri::host).map(str::to_owned);
        let source_address =
            tokio::task::spawn_blocking(move || endpoint::local_address_toward(&uri?)).await.ok().flatten();
        AwsCaller {
            account_id: account_id.to_owned(),
            partition: partition.unwrap_or_else(|| partition_of(&region).to_owned()),
            region,
            kms_host: kms_host.unwrap_or_default(),
            source_address: source_address.unwrap_or_else(|| "unknown".into()),
        }
    }

    /// Whose the credentials in use are, as records have it, if that is known by now.
    pub(crate) fn known_session(&self) -> Option<UserIdentity<'static>> {
        self.credentials.known_session().map(|session| UserIdentity::clone(&session))
    }

    /// The ARN that STS tells of the credentials in use.
    pub(crate) async fn arn(&self) -> Result<String, String> {
        let session = self.credentials.session().await?;
        Ok(session.arn.as_deref().unwrap_or_default().to_owned())
    }

    /// What is wrong with `kms.session_name`, as far as the credentials in use show it: whoever gives them names their sessions.
    pub(crate) async fn check_session_name(&self) -> Result<(), String> {
        let Some(name) = &self.settings.session_name else { return Ok(()) };
        match self.arn().await {
            Ok(arn) if arn.rsplit('/').next() != Some(name) => Err(format!(
                "kms.session_name is {name:?}, and the broker's credentials are {arn}: where they come from, somebody else names the \
                 sessions: leave it out, or set kms.role_arn"
            )),
            // Nobody can tell yet.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// S3 is asked with the same credentials, which are renewed here.
    pub(crate) fn give_credentials_to(&self, store: &mut StoreConfig) {
        if let StoreConfig::S3(settings) = store {
            settings.credentials = Some(SharedCredentialsProvider::new(self.credentials.clone()));
        }
    }

    /// Whose the access keys are that it signs with.
    pub(crate) fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    fn watch(&self, attempts: &AttemptLog) -> AttemptWatch {
        let (sessions, credentials) = (Arc::clone(&self.sessions), self.credentials.clone());
        AttemptWatch::new(attempts.clone(), sessions, credentials, Arc::clone(&self.clock))
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

/// Retries under way or lost, in tokens: at most 50 to 100.
const RETRY_TOKENS: usize = 500;
/// Of a retry after an answer that is an error, throttling included.
const RETRY_COST: u32 = 5;
/// Of a retry after none: it costs KMS and the caller more.
const TIMEOUT_RETRY_COST: u32 = 10;
/// One retry in five to ten seconds while nothing succeeds; full again within nine minutes.
const RETRY_TOKENS_A_SECOND: f32 = 1.0;
