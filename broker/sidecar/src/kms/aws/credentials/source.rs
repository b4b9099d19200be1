//! The source of credentials: the SDK's chain of providers, made anew each time so that it reads every file and variable again; and a
//! role that is assumed with the chain's credentials.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::web_identity_token::{StaticConfiguration, WebIdentityTokenCredentialsProvider};
use aws_config::{Region, SdkConfig, imds};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use tokio::time::timeout;

use super::super::AwsSettings;
use super::super::connector::{self, Patience};
use super::super::error::chain;

impl AwsSettings {
    /// The ARNs of roles that sessions may belong to, as far as they are configured.
    pub(in super::super) fn roles(&self) -> Vec<String> {
        let of_accounts = self.account_roles.values();
        self.role_arn.iter().chain(of_accounts).cloned().chain(variable("AWS_ROLE_ARN")).collect()
    }

    /// The ARN of the role of every session, if that is certain.
    pub(in super::super) fn certain_role(&self) -> Option<String> {
        let by_web_identity = || {
            let is_first = variable("AWS_ACCESS_KEY_ID").is_none() && variable("AWS_PROFILE").is_none();
            variable("AWS_WEB_IDENTITY_TOKEN_FILE").filter(|_| is_first)?;
            variable("AWS_ROLE_ARN")
        };
        self.role_arn.clone().or_else(by_web_identity)
    }

    fn patience(&self) -> Patience {
        Patience { connect: self.imds_connect_timeout, read: self.imds_read_timeout }
    }
}

/// Provides credentials.
pub(in super::super) struct Source {
    given: Option<SharedCredentialsProvider>,
    settings: AwsSettings,
    /// Settings for STS, without credentials.
    sts: SdkConfig,
    http: SharedHttpClient,
}

impl Source {
    /// Uses `given` or else the SDK's chain, and then the role in `settings`. `shared` has the settings for STS.
    pub(in super::super) fn new(
        given: Option<SharedCredentialsProvider>,
        settings: AwsSettings,
        shared: &SdkConfig,
    ) -> Self {
        let mut sts = shared.clone().into_builder();
        if let Some(url) = &settings.sts_endpoint_url {
            sts.set_endpoint_url(Some(url.to_owned()));
        }
        let http = connector::for_credentials(settings.patience());
        Self { given, settings, sts: sts.build(), http }
    }

    /// Asks for credentials. An error has one line.
    pub(super) async fn load(&self) -> Result<Credentials, String> {
        let load = async {
            match &self.given {
                Some(given) => self.in_role(given.clone()).await,
                None => self.in_role(SharedCredentialsProvider::new(self.chain())).await,
            }
        };
        match timeout(LONGEST_LOAD, load).await {
            Ok(loaded) => loaded,
            Err(_) => Err(format!("no credentials within {} seconds", LONGEST_LOAD.as_secs())),
        }
    }

    async fn in_role(&self, base: SharedCredentialsProvider) -> Result<Credentials, String> {
        let Some(role_arn) = &self.settings.role_arn else {
            return base.provide_credentials().await.map_err(|error| chain(&error));
        };
        let mut role = AssumeRoleProvider::builder(role_arn).configure(&self.sts);
        if let Some(name) = &self.settings.session_name {
            role = role.session_name(name);
        }
        let role = role.build_from_provider(base).await;
        let assumed = role.provide_credentials().await;
        assumed.map_err(|error| format!("cannot assume {role_arn}: {}", chain(&error)))
    }

    /// The SDK's default chain, with the broker's time limits and session name.
    fn chain(&self) -> CredentialsProviderChain {
        // It caches the files that it has read.
        let config = &ProviderConfig::without_region()
            .with_region(self.sts.region().map(|region| Region::new(region.to_string())))
            .with_use_fips(self.sts.use_fips())
            .with_use_dual_stack(self.sts.use_dual_stack())
            .with_http_client(self.http.clone());
        let mut web_identity = WebIdentityTokenCredentialsProvider::builder().configure(config);
        if let (Some(session_name), None) = (&self.settings.session_name, &self.settings.role_arn)
            && let (Some(file), Some(role_arn)) =
                (variable("AWS_WEB_IDENTITY_TOKEN_FILE"), variable("AWS_ROLE_ARN"))
        {
            web_identity = web_identity.static_configuration(StaticConfiguration {
                web_identity_token_file: file.into(),
                role_arn,
                session_name: session_name.clone(),
            });
        }
        let metadata = imds::Client::builder()
            .configure(config)
            .connect_timeout(self.settings.imds_connect_timeout)
            .read_timeout(self.settings.imds_read_timeout)
            .operation_attempt_timeout(self.settings.imds_connect_timeout + self.settings.imds_read_timeout)
            .operation_timeout(LONGEST_LOAD)
            .build();
        CredentialsProviderChain::first_try("Environment", EnvironmentVariableCredentialsProvider::new())
            .or_else("Profile", ProfileFileCredentialsProvider::builder().configure(config).build())
            .or_else("WebIdentityToken", web_identity.build())
            .or_else("EcsContainer", EcsCredentialsProvider::builder().configure(config).build())
            .or_else(
                "Ec2InstanceMetadata",
                ImdsCredentialsProvider::builder().configure(config).imds_client(metadata).build(),
            )
    }

    /// The present versions of the credentials files. A hanging home directory delays nothing else.
    pub(super) async fn files(&self) -> Files {
        if self.given.is_some() {
            return Files::default();
        }
        let home = variable("HOME").map(PathBuf::from);
        let in_home = |name: &str| home.as_ref().map(|home| home.join(".aws").join(name));
        let paths = [
            variable("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from).or_else(|| in_home("credentials")),
            variable("AWS_CONFIG_FILE").map(PathBuf::from).or_else(|| in_home("config")),
        ];
        let look = move || Files(paths.map(|path| path.and_then(|path| Stamp::of(&path))));
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }
}

/// Which files exist, and their versions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Files([Option<Stamp>; 2]);

/// Differs for another file or other contents.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

impl Stamp {
    fn of(path: &std::path::Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self { modified: metadata.modified().ok(), bytes: metadata.len(), inode: metadata.ino() })
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Enough for several attempts at a metadata service; a `credential_process` may ask a person.
const LONGEST_LOAD: Duration = Duration::from_mins(1);
