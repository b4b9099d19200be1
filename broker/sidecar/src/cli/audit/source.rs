//! Which trail to read, and with which keys and credentials.

pub(super) mod keys;
mod location;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use key_broker_core::clock::{Clock, SystemClock};
use key_broker_trail::delivery::{SigningConfig, StoreConfig, TrailConfig};
use key_broker_trail::record::AwsCaller;
use key_broker_trail::{S3Settings, TrailReader};

use super::Failure;
use crate::cache::rules::RevocationCheck;
use crate::cli::target::{DEV_DIR, dev_credentials};
use crate::config::Config;
use crate::kms::auditor::{AuditorKms, ReaderRecords};
use crate::kms::aws::{AwsKms, AwsSettings};
use crate::redaction::Digester;
use location::{TrailAccess, TrailLocation};

/// The broker whose trail it is; without any of these, that of `key-broker dev` in this directory.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct BrokerArguments {
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
    broker: BrokerArguments,
    /// The account in the names of the trail's objects [default: that of your credentials, from STS]
    #[arg(long, hide_short_help = true, value_name = "ID", value_parser = account)]
    account: Option<String>,
    /// Another KMS: a VPC endpoint, an emulator
    #[arg(long, hide_short_help = true, value_name = "URL")]
    kms_endpoint_url: Option<String>,
    /// Another STS, likewise
    #[arg(long, hide_short_help = true, value_name = "URL")]
    sts_endpoint_url: Option<String>,
    /// Where to record this command's own KMS calls: a file of yours, kept for `audit reconcile`
    /// [default: ~/.local/state/key-broker/reader-records.jsonl]
    #[arg(long, value_name = "FILE")]
    record_to: Option<PathBuf>,
    #[command(flatten)]
    standalone: StandaloneTrail,
}

/// A trail without its broker.
#[derive(Debug, Args)]
#[command(next_help_heading = "Without the broker's configuration")]
struct StandaloneTrail {
    /// The directory with the trail's bucket in it: the broker's audit.store.directory, or a copy
    #[arg(long, hide_short_help = true, value_name = "DIR", conflicts_with_all = ["dir", "config"], requires_all = ["bucket", "account", "region"])]
    store: Option<PathBuf>,
    /// The name of the bucket's folder
    #[arg(long, hide_short_help = true, value_name = "NAME", requires = "store")]
    bucket: Option<String>,
    /// The trail's S3 bucket, instead of --store and --bucket
    #[arg(long, hide_short_help = true, value_name = "NAME", conflicts_with_all = ["dir", "config", "store"], requires_all = ["account", "region"])]
    s3_bucket: Option<String>,
    /// The prefix before `AWSLogs/` in object keys
    #[arg(long, hide_short_help = true, value_name = "PREFIX", default_value = "")]
    prefix: String,
    /// The region of the trail
    #[arg(long, hide_short_help = true, value_name = "NAME")]
    region: Option<String>,
    /// The trail's name, without the id at its end if that is unambiguous. Some commands take several: * stands for any characters
    #[arg(long, hide_short_help = true, value_name = "NAME")]
    trail: Option<String>,
}

/// A trail that can be read.
pub(super) struct Source {
    pub(super) reader: TrailReader,
    /// The broker's configuration of it.
    pub(super) config: Option<TrailConfig>,
    /// How the broker asks KMS again about kept data keys, if that is known, and it does.
    pub(super) revocation_check: Option<RevocationCheck>,
    /// The journal behind it, if it is on this machine.
    pub(super) journal_dir: Option<PathBuf>,
    /// The key with which the broker redacts values.
    pub(super) redaction_key: Option<Digester>,
    signing: Option<SigningConfig>,
    pub(super) kms: Arc<AwsKms>,
    caller: Option<Arc<AwsCaller>>,
    records: Arc<ReaderRecords>,
    is_dev: bool,
    /// Whether it is in a bucket of S3, and not in a directory.
    pub(super) is_in_s3: bool,
    #[cfg(feature = "dev")]
    _emulator: Option<kms_emulator::Emulator>,
}

impl BrokerArguments {
    /// The configuration, by its file.
    fn load(&self) -> Result<(PathBuf, Config), Failure> {
        let file = self.config.clone().unwrap_or_else(|| self.dir.join("key-broker.toml"));
        if self.config.is_none() {
            match file.try_exists() {
                Ok(true) => {}
                Ok(false) => {
                    return Err(Failure::Configuration(format!(
                        "{}: no `key-broker dev` has run here: give its folder with --dir, or a broker's configuration with --config",
                        self.dir.display()
                    )));
                }
                Err(error) => {
                    return Err(Failure::Configuration(format!(
                        "{}: {error}: this user may not look into the folder of that `key-broker dev`: ask as the user whose it is",
                        self.dir.display()
                    )));
                }
            }
        }
        let config = Config::load(&file).map_err(Failure::Configuration)?;
        Ok((file, config))
    }

    /// The directory of the journal.
    pub(super) fn journal_dir(&self) -> Result<PathBuf, Failure> {
        Ok(self.load()?.1.audit.journal.dir)
    }
}

impl SourceArguments {
    /// Whether the given name is a pattern.
    pub(super) fn names_many(&self) -> bool {
        self.standalone.trail.as_ref().is_some_and(|name| name.contains('*'))
    }

    /// Whether a trail was named, and not only a broker's configuration.
    pub(super) fn names_a_trail(&self) -> bool {
        self.standalone.trail.is_some()
    }

    /// The journal of a broker that delivers no trail; none where there is one.
    pub(super) fn journal_without_trail(&self) -> Result<Option<PathBuf>, Failure> {
        if !self.standalone.is_none() {
            return Ok(None);
        }
        let audit = self.broker.load()?.1.audit;
        Ok(audit.trail.is_none().then_some(audit.journal.dir))
    }

    /// Opens the store of several trails: all, or those with the given or configured name.
    pub(super) async fn open_many(self, all: bool) -> Result<(Source, String), Failure> {
        let source = self.open_as(true).await?;
        let called = source.reader.names().trail.clone();
        let called = if all || called.is_empty() { "*".to_owned() } else { called };
        Ok((source, called))
    }

    /// The same, with how they are called; or the store of one trail.
    pub(super) async fn open_some(self, all: bool) -> Result<(Source, Option<String>), Failure> {
        if all || self.names_many() {
            let (source, called) = self.open_many(all).await?;
            return Ok((source, Some(called)));
        }
        Ok((self.open().await?, None))
    }

    /// Opens the store of one trail, and KMS if the store's objects are encrypted.
    pub(super) async fn open(self) -> Result<Source, Failure> {
        if self.standalone.trail.is_none() && !self.standalone.is_none() {
            return Err(Failure::Configuration("which trail? give its name with --trail".into()));
        }
        if self.names_many() {
            return Err(Failure::Configuration(
                "--trail: a pattern names many trails, and this is about one".into(),
            ));
        }
        self.open_as(false).await
    }

    async fn open_as(self, may_be_many: bool) -> Result<Source, Failure> {
        let dev_dir =
            (self.broker.config.is_none() && self.standalone.is_none()).then(|| self.broker.dir.clone());
        let mut location = if self.standalone.is_none() { self.of_broker()? } else { self.of_standalone()? };
        location.may_be_many = may_be_many;
        let (is_dev, own_endpoint) = (dev_dir.is_some(), self.kms_endpoint_url.is_none());
        if let Some(url) = self.kms_endpoint_url {
            location.aws.endpoint_url = Some(url);
        }
        if let Some(url) = self.sts_endpoint_url {
            location.aws.sts_endpoint_url = Some(url);
        }
        #[cfg(feature = "dev")]
        let emulator = match &dev_dir {
            Some(dir) if own_endpoint => super::dev::start_if_stopped(dir, &mut location.aws).await?,
            _ => None,
        };
        #[cfg(not(feature = "dev"))]
        let _ = (own_endpoint, dev_dir);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let kms = Arc::new(AwsKms::new(location.aws.clone(), location.credentials.clone(), clock).await);
        kms.give_credentials_to(&mut location.store);
        let records = Arc::new(ReaderRecords::new(self.record_to, location.folders_of_the_broker()));
        let is_in_s3 = matches!(location.store, StoreConfig::S3(_));
        let TrailAccess { store, names, caller, is_encrypted } = location.ask(&kms).await?;
        if is_encrypted {
            records.open().map_err(Failure::Configuration)?;
        }
        let decrypter = caller.as_ref().map(|caller| {
            Arc::new(AuditorKms::with_records(Arc::clone(&kms), Arc::clone(caller), Arc::clone(&records)))
                as _
        });
        Ok(Source {
            reader: TrailReader::new(store, names, decrypter),
            config: location.config,
            revocation_check: location.revocation_check,
            journal_dir: location.journal_dir,
            redaction_key: location.redaction_key,
            signing: location.signing,
            kms,
            caller,
            records,
            is_dev,
            is_in_s3,
            #[cfg(feature = "dev")]
            _emulator: emulator,
        })
    }

    fn of_broker(&self) -> Result<TrailLocation, Failure> {
        let (file, config) = self.broker.load()?;
        let Some(trail) = config.audit.trail else {
            return Err(Failure::Configuration(format!(
                "{}: no audit.store: this broker delivers no trail; its journal is shown by `key-broker audit tail`",
                file.display()
            )));
        };
        let is_dev = self.broker.config.is_none();
        let told = self.standalone.trail.clone();
        Ok(TrailLocation {
            is_configured: told.is_none(),
            may_be_many: false,
            name: told.unwrap_or_else(|| trail.name.clone()),
            store: trail.store.clone(),
            prefix: trail.prefix.clone(),
            signing: Some(trail.signing.clone()),
            config: Some(trail),
            revocation_check: config.reuse.revocation_check,
            journal_dir: Some(config.audit.journal.dir),
            redaction_key: config.audit.redaction.map(|redaction| redaction.digester().clone()),
            aws: config.kms,
            credentials: is_dev.then(dev_credentials),
            account: self.account.clone(),
        })
    }

    fn of_standalone(&self) -> Result<TrailLocation, Failure> {
        let StandaloneTrail { store, bucket, s3_bucket, prefix, region, trail } = &self.standalone;
        let region = region.clone().unwrap_or_default();
        let store = match (store, bucket, s3_bucket) {
            (Some(root), Some(bucket), _) => {
                if !root.join(bucket).is_dir() {
                    return Err(Failure::Configuration(format!(
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
                credentials: None,
            }),
        };
        Ok(TrailLocation {
            is_configured: false,
            may_be_many: false,
            name: trail.clone().unwrap_or_default(),
            store,
            prefix: prefix.clone(),
            signing: None,
            config: None,
            revocation_check: None,
            journal_dir: None,
            redaction_key: None,
            aws: AwsSettings {
                region,
                endpoint_url: None,
                sts_endpoint_url: None,
                connect_timeout: CONNECT_TIMEOUT,
                attempt_timeout: ATTEMPT_TIMEOUT,
                max_attempts: 3,
                role_arn: None,
                session_name: None,
                imds_connect_timeout: Duration::from_secs(2),
                imds_read_timeout: Duration::from_secs(10),
                fallback_regions: Vec::new(),
                fallback_endpoint_urls: std::collections::BTreeMap::new(),
                account_roles: std::collections::BTreeMap::new(),
            },
            credentials: None,
            account: self.account.clone(),
        })
    }
}

impl StandaloneTrail {
    fn is_none(&self) -> bool {
        self.store.is_none() && self.s3_bucket.is_none()
    }
}

impl Source {
    /// The reader's file of records of its own KMS calls, which may not exist yet.
    pub(super) fn own_records(&self) -> Option<PathBuf> {
        self.records.file()
    }

    /// The journal, if it is to be looked at: a `dev` has one, another broker's may be elsewhere.
    pub(super) fn journal_to_verify(&self) -> Option<PathBuf> {
        self.journal_dir.clone().filter(|dir| self.is_dev || dir.exists())
    }
}

fn account(text: &str) -> Result<String, String> {
    if text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(text.to_owned())
    } else {
        Err("an account is 12 digits".into())
    }
}

/// As the configuration's own defaults.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
