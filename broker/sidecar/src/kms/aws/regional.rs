//! KMS in one region, with the credentials for each account's keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::{Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_kms::config::retry::{RetryPartition, TokenBucket};
use key_broker_core::KeyId;
use key_broker_core::clock::Clock;

use super::bounded::BoundedAnswers;
use super::credentials::CredentialsInUse;
use super::operations::Way;
use super::sessions::Sessions;
use super::watch::AttemptWatch;
use crate::kms::{AttemptLog, Kms, KmsError, KmsErrorKind};
use crate::operation::{KmsReply, KmsRequest};
use crate::policy::Permitted;

/// KMS in one region. Cheap to clone.
#[derive(Clone)]
pub(super) struct RegionalKms {
    region: Arc<str>,
    /// The region whose ARNs the broker uses for multi-Region keys.
    home: Arc<str>,
    own: Signer,
    accounts: BTreeMap<String, Signer>,
    sessions: Arc<Sessions>,
    clock: Arc<dyn Clock>,
}

/// The credentials that sign calls for the keys of one account, and the client that uses them.
#[derive(Clone)]
struct Signer {
    client: aws_sdk_kms::Client,
    credentials: CredentialsInUse,
}

/// The credentials of a broker: its own, and those of roles for the keys of other accounts.
pub(super) struct Signers {
    pub(super) own: CredentialsInUse,
    pub(super) accounts: BTreeMap<String, CredentialsInUse>,
}

/// Where KMS is called.
pub(super) struct Place<'a> {
    pub(super) region: &'a str,
    /// KMS's address there, if it is not AWS's own.
    pub(super) endpoint_url: Option<&'a str>,
    /// The broker's own region.
    pub(super) home: &'a str,
}

impl RegionalKms {
    /// KMS at this place. `shared` has the common settings of the SDK.
    pub(super) fn new(
        shared: &SdkConfig,
        place: &Place<'_>,
        signers: &Signers,
        sessions: &Arc<Sessions>,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        // One budget for all accounts, since it protects this region's KMS.
        let budget = retry_budget(place.region);
        let signer = |credentials: &CredentialsInUse| Signer {
            client: client(shared, place, credentials, budget.clone()),
            credentials: credentials.clone(),
        };
        let accounts = signers.accounts.iter().map(|(id, credentials)| (id.clone(), signer(credentials)));
        Self {
            region: place.region.into(),
            home: place.home.into(),
            own: signer(&signers.own),
            accounts: accounts.collect(),
            sessions: Arc::clone(sessions),
            clock: Arc::clone(clock),
        }
    }

    /// The same without retries, for calls that another region may answer.
    pub(super) fn once(&self) -> Self {
        let mut once = self.clone();
        for signer in std::iter::once(&mut once.own).chain(once.accounts.values_mut()) {
            let config = signer.client.config().to_builder().retry_config(RetryConfig::disabled());
            signer.client = aws_sdk_kms::Client::from_conf(config.build());
        }
        once
    }

    pub(super) fn region(&self) -> &str {
        &self.region
    }

    /// The client that signs with the broker's own credentials.
    pub(super) fn client(&self) -> &aws_sdk_kms::Client {
        &self.own.client
    }
}

#[async_trait]
impl Kms for RegionalKms {
    async fn call(
        &self,
        request: Permitted<KmsRequest>,
        attempts: &AttemptLog,
    ) -> Result<KmsReply, KmsError> {
        let account = request.subject().operation().sent_key().and_then(account_of);
        let of_a_role = account.and_then(|account| self.accounts.get(account));
        let Signer { client, credentials } = of_a_role.unwrap_or(&self.own);
        let (sessions, clock) = (Arc::clone(&self.sessions), Arc::clone(&self.clock));
        let watch = AttemptWatch::new(attempts.clone(), sessions, credentials.clone(), clock);
        let way = Way { client, watch, region: &self.region, home: &self.home };
        way.call(request.subject()).await.map_err(|error| match error.kind {
            KmsErrorKind::Credentials if of_a_role.is_some() => {
                KmsError { kind: KmsErrorKind::AccountCredentials, ..error }
            }
            _ => error,
        })
    }
}

/// The account in the ARN of a key or alias.
fn account_of(key: &KeyId) -> Option<&str> {
    key.as_str().strip_prefix("arn:")?.split(':').nth(3)
}

fn client(
    shared: &SdkConfig,
    place: &Place<'_>,
    credentials: &CredentialsInUse,
    budget: RetryPartition,
) -> aws_sdk_kms::Client {
    let shared = shared
        .clone()
        .into_builder()
        .region(Region::new(place.region.to_owned()))
        .credentials_provider(SharedCredentialsProvider::new(credentials.clone()))
        .build();
    let mut config =
        aws_sdk_kms::config::Builder::from(&shared).retry_partition(budget).interceptor(BoundedAnswers);
    if let Some(url) = place.endpoint_url {
        config = config.endpoint_url(url);
    }
    aws_sdk_kms::Client::from_conf(config.build())
}

/// The budget of retries in one region, for this broker alone: the SDK's own bucket is shared by the whole process and region.
///
/// Capacity and costs are those of the SDK's standard mode
/// (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html>): a retry that succeeds gives its tokens
/// back, one that fails does not, and every first attempt that succeeds adds one. Since a broker that serves from its cache
/// makes few calls that could add tokens, time adds some here, too.
fn retry_budget(region: &str) -> RetryPartition {
    let tokens = TokenBucket::builder()
        .capacity(RETRY_TOKENS)
        .retry_cost(RETRY_COST)
        .throttling_retry_cost(RETRY_COST)
        .timeout_retry_cost(TIMEOUT_RETRY_COST)
        .refill_rate(RETRY_TOKENS_A_SECOND);
    RetryPartition::custom(format!("key-broker-{region}")).token_bucket(tokens.build()).build()
}

/// Tokens for retries: enough for 50 to 100.
const RETRY_TOKENS: usize = 500;
/// The cost of a retry after an error, throttling included.
const RETRY_COST: u32 = 5;
/// The cost of a retry after no answer, which takes more from KMS and the caller.
const TIMEOUT_RETRY_COST: u32 = 10;
/// A retry every five to ten seconds while nothing succeeds; full again within nine minutes.
const RETRY_TOKENS_A_SECOND: f32 = 1.0;
