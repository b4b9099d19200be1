//! The real KMS: the AWS SDK, behind [`Kms`](super::Kms).
//!
//! The SDK's own errors are never printed whole, since their debug form can hold the body of an answer, and so a
//! plaintext.

mod answer;
mod bounded;
mod connector;
mod credentials;
mod dry_run;
mod encrypt;
mod endpoint;
mod error;
mod input;
mod operations;
mod regional;
mod request_id;
pub(crate) mod sessions;
pub(crate) mod usage;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_kms::config::IdentityCache;
use key_broker_core::clock::Clock;
use key_broker_core::partition_of;
use key_broker_trail::delivery::StoreConfig;
use key_broker_trail::record::{AwsCaller, UserIdentity};

use super::{AttemptLog, Kms, KmsError};
use crate::operation::{KmsReply, KmsRequest};
use crate::policy::Permitted;
use bounded::BoundedAnswers;
pub(crate) use connector::Encryption;
use credentials::CredentialsInUse;
use credentials::source::Source;
pub(super) use error::unexpected;
use regional::{Place, RegionalKms, Signers};
use sessions::{Sessions, account_of, partition_in};

/// How to reach KMS and STS.
#[derive(Debug, Clone)]
pub struct AwsSettings {
    /// The region of the keys.
    pub region: String,
    /// KMS's address, if it is not AWS's own: an emulator or a VPC endpoint.
    pub endpoint_url: Option<String>,
    /// STS's address, likewise.
    pub sts_endpoint_url: Option<String>,
    /// The time limit for connecting.
    pub connect_timeout: Duration,
    /// The time limit for one attempt.
    pub attempt_timeout: Duration,
    /// The most attempts of one call, in the SDK's standard mode.
    pub max_attempts: u32,
    /// A role that the broker assumes with the credentials it finds.
    pub role_arn: Option<String>,
    /// The name of role sessions that the broker creates.
    pub session_name: Option<String>,
    /// The time limit for connecting to the metadata service of an instance or a container.
    pub imds_connect_timeout: Duration,
    /// The time limit for one answer of that service.
    pub imds_read_timeout: Duration,
    /// The regions that are asked about multi-Region keys, in this order, when the region before does not answer.
    pub fallback_regions: Vec<String>,
    /// KMS's addresses in these regions, where they are not AWS's own.
    pub fallback_endpoint_urls: BTreeMap<String, String>,
    /// The ARNs of the roles that the broker assumes to use keys of other accounts, by account.
    pub account_roles: BTreeMap<String, String>,
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
    home: RegionalKms,
    fallbacks: Vec<RegionalKms>,
    credentials: CredentialsInUse,
    accounts: BTreeMap<String, CredentialsInUse>,
    sessions: Arc<Sessions>,
    settings: AwsSettings,
}

/// KMS in one region.
pub(crate) struct AskedRegion {
    /// With retries.
    pub(crate) kms: Arc<dyn Kms>,
    /// With one attempt.
    pub(crate) once: Arc<dyn Kms>,
    /// What records of calls there say.
    pub(crate) caller: AwsCaller,
}

impl AwsKms {
    /// Sets up the SDK. Credentials come from its default chain, or from `credentials` (the emulator's).
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
            // Credentials are cached, and renewed, elsewhere.
            .identity_cache(IdentityCache::no_cache())
            .no_credentials();
        if let Ok(name) = AppName::new("key-broker") {
            loader = loader.app_name(name);
        }
        let shared = loader.load().await;
        let source = Source::new(credentials, settings.clone(), &shared);
        let sessions = Arc::new(Sessions::new(settings.roles()));
        let sts = sts_client(&shared, &settings);
        let start = |source, of_role| {
            CredentialsInUse::start(source, sts.clone(), Arc::clone(&sessions), of_role, Arc::clone(&clock))
        };
        let own = start(source, None);
        let mut accounts = BTreeMap::new();
        for (account_id, role_arn) in &settings.account_roles {
            let base = SharedCredentialsProvider::new(own.clone());
            let of_role = AwsSettings { role_arn: Some(role_arn.clone()), ..settings.clone() };
            let source = Source::new(Some(base), of_role, &shared);
            let of_role = Some(account_of(role_arn).to_owned());
            accounts.insert(account_id.clone(), start(source, of_role));
        }
        let signers = Signers { own, accounts };
        let home = &settings.region;
        let at = |region, endpoint_url: Option<&String>| {
            let place = Place { region, endpoint_url: endpoint_url.map(String::as_str), home };
            RegionalKms::new(&shared, &place, &signers, &sessions, &clock)
        };
        let (regions, endpoints) = (&settings.fallback_regions, &settings.fallback_endpoint_urls);
        let fallbacks = regions.iter().map(|region| at(region, endpoints.get(region)));
        let (fallbacks, home) = (fallbacks.collect(), at(home, settings.endpoint_url.as_ref()));
        let Signers { own: credentials, accounts } = signers;
        Self { home, fallbacks, credentials, accounts, sessions, settings }
    }

    /// The broker's own account, partition and region: from STS or, if STS does not know the credentials yet, the configuration.
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

    /// The same for a trail that belongs to `account_id`, while STS does not answer; `None` without credentials.
    pub(crate) async fn caller_in(&self, account_id: &str, partition: &str) -> Option<AwsCaller> {
        if !self.credentials.are_there() {
            return None;
        }
        Some(self.caller_of(account_id, Some(partition.to_owned())).await)
    }

    async fn caller_of(&self, account_id: &str, partition: Option<String>) -> AwsCaller {
        self.sessions.settle(account_id);
        let region = self.settings.region.clone();
        let partition = partition.unwrap_or_else(|| partition_of(&region).to_owned());
        let (nowhere, account_id) = (String::new(), account_id.to_owned());
        let caller =
            AwsCaller { account_id, partition, region, kms_host: nowhere.clone(), source_address: nowhere };
        toward(&self.home, &caller).await
    }

    /// The owner of the credentials in use, as records name it, if that is known by now.
    pub(crate) fn known_session(&self) -> Option<UserIdentity<'static>> {
        self.credentials.known_session().map(|session| UserIdentity::clone(&session))
    }

    /// The broker's own region, which is that of `caller`, and the fallback regions for multi-Region keys.
    pub(crate) async fn regions(&self, caller: &AwsCaller) -> (AskedRegion, Vec<AskedRegion>) {
        let asked = |kms: &RegionalKms, caller| AskedRegion {
            once: Arc::new(kms.once()),
            kms: Arc::new(kms.clone()),
            caller,
        };
        let mut others = Vec::new();
        for kms in &self.fallbacks {
            others.push(asked(kms, toward(kms, caller).await));
        }
        (asked(&self.home, caller.clone()), others)
    }

    /// The accounts for whose keys roles are configured, each with the identity of its sessions.
    pub(crate) async fn account_roles(&self) -> Vec<(&str, Result<String, String>)> {
        let mut roles = Vec::new();
        for (account, credentials) in &self.accounts {
            let session = credentials.session().await;
            roles.push((
                &**account,
                session.map(|session| session.arn.as_deref().unwrap_or_default().to_owned()),
            ));
        }
        roles
    }

    /// The ARN of the credentials in use, from STS.
    pub(crate) async fn arn(&self) -> Result<String, String> {
        let session = self.credentials.session().await?;
        Ok(session.arn.as_deref().unwrap_or_default().to_owned())
    }

    /// Why `kms.session_name` has no effect on the credentials in use: their source names the sessions.
    pub(crate) async fn check_session_name(&self) -> Result<(), String> {
        let Some(name) = &self.settings.session_name else { return Ok(()) };
        match self.arn().await {
            Ok(arn) if arn.rsplit('/').next() != Some(name) => Err(format!(
                "kms.session_name is {name:?}, and the broker's credentials are {arn}: where they come from, somebody else names the \
                 sessions: leave it out, or set kms.role_arn"
            )),
            // The name is the configured one, or is not known yet.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Has S3 use the same credentials, which are renewed here.
    pub(crate) fn give_credentials_to(&self, store: &mut StoreConfig) {
        if let StoreConfig::S3(settings) = store {
            settings.credentials = Some(SharedCredentialsProvider::new(self.credentials.clone()));
        }
    }

    /// The sessions to which the access keys belong.
    pub(crate) fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }
}

#[async_trait]
impl Kms for AwsKms {
    async fn call(
        &self,
        request: Permitted<KmsRequest>,
        attempts: &AttemptLog,
    ) -> Result<KmsReply, KmsError> {
        self.home.call(request, attempts).await
    }
}

/// The caller as KMS in another region sees it.
async fn toward(kms: &RegionalKms, caller: &AwsCaller) -> AwsCaller {
    let uri = endpoint::of_kms(kms.client()).await;
    let kms_host = uri.as_ref().and_then(http::Uri::host).map(str::to_owned);
    let source_address =
        tokio::task::spawn_blocking(move || endpoint::local_address_toward(&uri?)).await.ok().flatten();
    AwsCaller {
        region: kms.region().to_owned(),
        kms_host: kms_host.unwrap_or_default(),
        source_address: source_address.unwrap_or_else(|| "unknown".into()),
        ..caller.clone()
    }
}

fn sts_client(shared: &SdkConfig, settings: &AwsSettings) -> aws_sdk_sts::Client {
    let mut config = aws_sdk_sts::config::Builder::from(shared).interceptor(BoundedAnswers);
    if let Some(url) = &settings.sts_endpoint_url {
        config = config.endpoint_url(url);
    }
    aws_sdk_sts::Client::from_conf(config.build())
}
