//! Which trail, and with what it is read.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::provider::SharedCredentialsProvider;
use clap::Args;

use super::Failure;
use crate::audit::inbox;
use crate::audit::names::TrailNames;
use crate::audit::reader::{Decrypter, TrailReader};
use crate::audit::record::Action;
use crate::audit::signature::PublicKey;
use crate::audit::store::Store;
use crate::audit::store::directory::DirectoryStore;
use crate::audit::store::s3::{S3Settings, S3Store};
use crate::audit::trail::{SigningConfig, StoreConfig, TrailConfig, signer_from};
use crate::cli::target::{DEV_DIR, dev_credentials};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::error::BrokerError;
use crate::key::KeyId;
use crate::kms::aws::{AwsKms, AwsSettings};
use crate::kms::caller::AwsCaller;
use crate::kms::{Answers, Asked, Kms as _, Uses as _};
use crate::policy::Permit;

/// The broker whose trail it is; without any of these, that of `key-broker dev` in this directory.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct Broker {
    /// The folder of a `key-broker dev`, running or not
    #[arg(long, value_name = "DIR", default_value = DEV_DIR)]
    dir: PathBuf,
    /// The configuration file that the broker runs with
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Where a trail is.
#[derive(Debug, Args)]
pub(super) struct SourceArguments {
    #[command(flatten)]
    broker: Broker,
    /// The public half of the key that signs digests, as PEM; else KMS or the configured file is asked for it
    #[arg(long, hide_short_help = true, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// The account in the names of the trail's objects; else AWS is asked whose credentials these are
    #[arg(long, hide_short_help = true, value_name = "ID", value_parser = account)]
    account: Option<String>,
    /// Another KMS: a VPC endpoint, an emulator
    #[arg(long, hide_short_help = true, value_name = "URL")]
    kms_endpoint_url: Option<String>,
    /// Another STS, likewise
    #[arg(long, hide_short_help = true, value_name = "URL")]
    sts_endpoint_url: Option<String>,
    #[command(flatten)]
    elsewhere: Elsewhere,
}

/// A trail without its broker.
#[derive(Debug, Args)]
#[command(next_help_heading = "Without the broker's configuration")]
struct Elsewhere {
    /// The directory with the trail's bucket in it: the broker's audit.store.directory, or a copy
    #[arg(long, hide_short_help = true, value_name = "DIR", conflicts_with_all = ["dir", "config"], requires_all = ["bucket", "account", "region", "trail"])]
    store: Option<PathBuf>,
    /// The name of the bucket's folder
    #[arg(long, hide_short_help = true, value_name = "NAME", requires = "store")]
    bucket: Option<String>,
    /// The bucket of S3 that the trail is in, instead of --store and --bucket
    #[arg(long, hide_short_help = true, value_name = "NAME", conflicts_with_all = ["dir", "config", "store"], requires_all = ["account", "region", "trail"])]
    s3_bucket: Option<String>,
    /// What stands before AWSLogs/ in the keys
    #[arg(long, hide_short_help = true, value_name = "PREFIX", default_value = "")]
    prefix: String,
    /// The region of the trail
    #[arg(long, hide_short_help = true, value_name = "NAME")]
    region: Option<String>,
    /// The name of the trail
    #[arg(long, hide_short_help = true, value_name = "NAME")]
    trail: Option<String>,
    /// The KMS key that signs digests, where there is no --public-key
    #[arg(long, hide_short_help = true, value_name = "KEY", value_parser = key)]
    signing_key_id: Option<KeyId>,
}

/// A trail that can be read.
pub(super) struct Source {
    pub(super) reader: TrailReader,
    /// The broker's configuration of it.
    pub(super) config: Option<TrailConfig>,
    /// The journal behind it, where that is on this machine.
    pub(super) journal_dir: Option<PathBuf>,
    signing: Option<SigningConfig>,
    public_key: Option<PathBuf>,
    kms: Arc<AwsKms>,
    caller: Option<Arc<AwsCaller>>,
    #[cfg(feature = "dev")]
    _emulator: Option<kms_emulator::Emulator>,
}

impl Broker {
    /// The configuration, by its file.
    fn load(&self) -> Result<(PathBuf, Config), Failure> {
        let file = self.config.clone().unwrap_or_else(|| self.dir.join("key-broker.toml"));
        if self.config.is_none() && !file.exists() {
            return Err(Failure::Configuration(format!(
                "{}: no `key-broker dev` has run here: give its folder with --dir, or a broker's configuration with --config",
                self.dir.display()
            )));
        }
        let config = Config::load(&file).map_err(|error| Failure::Configuration(error.to_string()))?;
        Ok((file, config))
    }

    /// The directory of the journal.
    pub(super) fn journal_dir(&self) -> Result<PathBuf, Failure> {
        Ok(self.load()?.1.audit.journal.dir)
    }
}

/// What is known of a trail before anybody is asked.
struct Located {
    name: String,
    store: StoreConfig,
    prefix: String,
    signing: Option<SigningConfig>,
    config: Option<TrailConfig>,
    journal_dir: Option<PathBuf>,
    aws: AwsSettings,
    credentials: Option<SharedCredentialsProvider>,
    account: Option<String>,
}

impl SourceArguments {
    /// Opens the store, and KMS where what is in the store is encrypted.
    pub(super) async fn open(self) -> Result<Source, Failure> {
        let dev_dir =
            (self.broker.config.is_none() && self.elsewhere.is_none()).then(|| self.broker.dir.clone());
        let mut located = if self.elsewhere.is_none() { self.of_broker()? } else { self.of_elsewhere()? };
        let own_endpoint = self.kms_endpoint_url.is_none();
        if let Some(url) = self.kms_endpoint_url {
            located.aws.endpoint_url = Some(url);
        }
        if let Some(url) = self.sts_endpoint_url {
            located.aws.sts_endpoint_url = Some(url);
        }
        #[cfg(feature = "dev")]
        let emulator = match &dev_dir {
            Some(dir) if own_endpoint => super::dev::start_if_stopped(dir, &mut located.aws).await?,
            _ => None,
        };
        #[cfg(not(feature = "dev"))]
        let _ = (own_endpoint, dev_dir);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let kms = Arc::new(AwsKms::new(located.aws.clone(), located.credentials.clone(), clock).await);
        let (store, names, caller) = located.ask(&kms).await?;
        let decrypter = caller.as_ref().map(|caller| {
            Decrypter::new(Arc::clone(&kms) as _, Arc::clone(caller), located.journal_dir.clone())
        });
        Ok(Source {
            reader: TrailReader::new(store, names, decrypter),
            config: located.config,
            journal_dir: located.journal_dir,
            signing: located.signing,
            public_key: self.public_key,
            kms,
            caller,
            #[cfg(feature = "dev")]
            _emulator: emulator,
        })
    }

    fn of_broker(&self) -> Result<Located, Failure> {
        let (file, config) = self.broker.load()?;
        let Some(trail) = config.audit.trail else {
            return Err(Failure::Configuration(format!(
                "{}: no audit.store: this broker delivers no trail; its journal is shown by `key-broker audit tail`",
                file.display()
            )));
        };
        let is_dev = self.broker.config.is_none();
        Ok(Located {
            name: trail.name.clone(),
            store: trail.store.clone(),
            prefix: trail.prefix.clone(),
            signing: Some(trail.signing.clone()),
            config: Some(trail),
            journal_dir: Some(config.audit.journal.dir),
            aws: config.kms,
            credentials: is_dev.then(dev_credentials),
            account: self.account.clone(),
        })
    }

    fn of_elsewhere(&self) -> Result<Located, Failure> {
        let Elsewhere { store, bucket, s3_bucket, prefix, region, trail, signing_key_id } = &self.elsewhere;
        let region = region.clone().unwrap_or_default();
        let store = match (store, bucket, s3_bucket) {
            (Some(root), Some(bucket), _) => {
                if !root.join(bucket).is_dir() {
                    return Err(Failure::Unavailable(format!(
                        "{}: no such directory: --store is the folder that holds the bucket's folder",
                        root.join(bucket).display()
                    )));
                }
                StoreConfig::Directory { root: root.clone(), bucket: bucket.clone() }
            }
            (_, _, bucket) => StoreConfig::S3(S3Settings {
                bucket: bucket.clone().unwrap_or_default(),
                region: region.clone(),
                endpoint_url: None,
            }),
        };
        Ok(Located {
            name: trail.clone().unwrap_or_default(),
            store,
            prefix: prefix.clone(),
            signing: signing_key_id.clone().map(SigningConfig::Kms),
            config: None,
            journal_dir: None,
            aws: AwsSettings {
                region,
                endpoint_url: None,
                sts_endpoint_url: None,
                connect_timeout: CONNECT_TIMEOUT,
                attempt_timeout: ATTEMPT_TIMEOUT,
                max_attempts: 3,
            },
            credentials: None,
            account: self.account.clone(),
        })
    }
}

impl Elsewhere {
    fn is_none(&self) -> bool {
        self.store.is_none() && self.s3_bucket.is_none()
    }
}

impl Located {
    /// Asks AWS what it alone knows: the account, and who reads.
    async fn ask(
        &self,
        kms: &AwsKms,
    ) -> Result<(Arc<dyn Store>, TrailNames, Option<Arc<AwsCaller>>), Failure> {
        let store: Arc<dyn Store> = match &self.store {
            StoreConfig::Directory { root, bucket } => Arc::new(DirectoryStore::new(root, bucket)),
            StoreConfig::S3(settings) => Arc::new(S3Store::new(settings, None).await),
        };
        let is_directory = matches!(self.store, StoreConfig::Directory { .. });
        let mut names = TrailNames {
            account_id: self.account.clone().unwrap_or_default(),
            region: self.aws.region.clone(),
            trail: self.name.clone(),
            bucket: self.bucket().to_owned(),
            prefix: self.prefix.clone(),
        };
        let mut caller = None;
        if self.account.is_none() || (is_directory && self.is_encrypted(&*store, &names).await?) {
            caller = Some(Arc::new(kms.caller().await.map_err(|error| {
                Failure::Unavailable(format!(
                    "sts:GetCallerIdentity: {error}: reading this trail takes AWS credentials that may decrypt under its KMS key{}",
                    if self.account.is_none() { ", or --account if it is not encrypted" } else { "" }
                ))
            })?));
        }
        if let (None, Some(caller)) = (&self.account, &caller) {
            names.account_id.clone_from(&caller.account_id);
        }
        Ok((store, names, caller))
    }

    fn bucket(&self) -> &str {
        match &self.store {
            StoreConfig::Directory { bucket, .. } => bucket,
            StoreConfig::S3(settings) => &settings.bucket,
        }
    }

    /// Whether log files are encrypted: as configured, or as the newest one is.
    async fn is_encrypted(&self, store: &dyn Store, names: &TrailNames) -> Result<bool, Failure> {
        if self.config.as_ref().is_some_and(|config| config.kms_key.is_some()) {
            return Ok(true);
        }
        let unavailable = |error: crate::audit::store::StoreError| {
            Failure::Unavailable(format!("the trail's store: {error}"))
        };
        let Some(newest) = store.list(&names.log_folder()).await.map_err(unavailable)?.pop() else {
            return Ok(false);
        };
        let object = store.get(&newest).await.map_err(unavailable)?;
        Ok(object.is_some_and(|object| !object.bytes.starts_with(GZIP)))
    }
}

impl Source {
    /// What digests are checked with.
    pub(super) async fn public_key(&self) -> Result<PublicKey, Failure> {
        if let Some(file) = &self.public_key {
            return from_file(file);
        }
        match &self.signing {
            Some(SigningConfig::File(path)) => {
                let signer = signer_from(path).map_err(|error| Failure::Unavailable(error.to_string()))?;
                Ok(signer.public_key().clone())
            }
            Some(SigningConfig::Kms(key)) => self.from_kms(key).await,
            None => Err(Failure::Unavailable(
                "no key to check digests with: give --public-key FILE (as `key-broker audit public-key` prints it) or --signing-key-id KEY"
                    .into(),
            )),
        }
    }

    /// Asks KMS, and leaves the record of that for the broker.
    async fn from_kms(&self, key: &KeyId) -> Result<PublicKey, Failure> {
        let answers = Answers::default();
        let permit = Permit::for_own_use(Action::DescribeKey);
        let result = self.kms.public_key(permit, key, &answers).await;
        if let (Some(caller), Some(journal_dir)) =
            (&self.caller, self.journal_dir.as_ref().filter(|dir| dir.is_dir()))
        {
            let used_key = result.as_ref().ok().and_then(|answer| answer.used_key());
            for answer in answers.take() {
                let mut line = Vec::new();
                let _ = caller.record(
                    &mut line,
                    "GetPublicKey",
                    &Asked::PublicKey(key.clone()),
                    &answer,
                    used_key,
                );
                if let Err(error) = inbox::leave(journal_dir, &line) {
                    super::output::note(format_args!(
                        "the record of GetPublicKey cannot be left for the broker: {error}"
                    ));
                }
            }
        }
        let answer = result.map_err(|error| {
            Failure::Unavailable(format!(
                "kms:GetPublicKey of {}: {}: check the key, your AWS credentials and your way to KMS, or give --public-key FILE",
                key.as_str(),
                BrokerError::Kms(error).describe()
            ))
        })?;
        PublicKey::from_spki(&answer.spki)
            .map_err(|error| Failure::Unavailable(format!("{}: {error}", key.as_str())))
    }
}

fn from_file(file: &Path) -> Result<PublicKey, Failure> {
    let explain = |error: &dyn std::fmt::Display| {
        Failure::Unavailable(format!("--public-key {}: {error}", file.display()))
    };
    let pem = fs::read(file).map_err(|error| explain(&error))?;
    PublicKey::from_pem(&pem).map_err(|error| explain(&error))
}

fn account(text: &str) -> Result<String, String> {
    if text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(text.to_owned())
    } else {
        Err("an account is 12 digits".into())
    }
}

fn key(text: &str) -> Result<KeyId, String> {
    KeyId::parse(text).map_err(|malformed| malformed.0)
}

/// As the configuration's own defaults.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
const GZIP: &[u8] = &[0x1f, 0x8b];
