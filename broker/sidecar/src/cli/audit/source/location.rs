//! The location of a trail, and access to it once the account and the reader are known from AWS.

use std::path::PathBuf;
use std::sync::Arc;

use aws_credential_types::provider::SharedCredentialsProvider;
use key_broker_trail::delivery::{SigningConfig, StoreConfig, TrailConfig};
use key_broker_trail::record::AwsCaller;
use key_broker_trail::{JournalTrail, Store, StoreError, TrailNames, TrailReader};

use crate::cache::rules::RevocationCheck;
use crate::cli::audit::Failure;
use crate::kms::aws::{AwsKms, AwsSettings};
use crate::redaction::Digester;

/// Where a trail is, from arguments and configuration alone.
pub(super) struct TrailLocation {
    /// The trail's name, or what the configuration calls it, to which its journal adds an id.
    pub(super) name: String,
    pub(super) store: StoreConfig,
    pub(super) prefix: String,
    pub(super) signing: Option<SigningConfig>,
    pub(super) config: Option<TrailConfig>,
    /// How the broker asks KMS again about kept data keys, if that is known, and it does.
    pub(super) revocation_check: Option<RevocationCheck>,
    pub(super) journal_dir: Option<PathBuf>,
    pub(super) redaction_key: Option<Digester>,
    pub(super) aws: AwsSettings,
    pub(super) credentials: Option<SharedCredentialsProvider>,
    pub(super) account: Option<String>,
    /// Whether the name is the configuration's, and not a given one.
    pub(super) is_configured: bool,
    /// Whether several trails may be called so.
    pub(super) may_be_many: bool,
}

/// An open store, the names in it, and the reader's AWS identity if needed.
pub(super) struct TrailAccess {
    pub(super) store: Arc<dyn Store>,
    pub(super) names: TrailNames,
    pub(super) caller: Option<Arc<AwsCaller>>,
    /// Whether the store's objects have to be decrypted by KMS.
    pub(super) is_encrypted: bool,
}

impl TrailLocation {
    /// Asks AWS what it alone knows: the account, and who reads.
    pub(super) async fn ask(&self, kms: &AwsKms) -> Result<TrailAccess, Failure> {
        let store = self.store.open().await;
        let is_directory = matches!(self.store, StoreConfig::Directory { .. });
        let mut names = TrailNames {
            account_id: self.account.clone().unwrap_or_default(),
            region: self.aws.region.clone(),
            trail: self.name.clone(),
            bucket: self.bucket().to_owned(),
            prefix: self.prefix.clone(),
        };
        let mut caller = None;
        // Without its account, an older trail's names are not known yet.
        let mut is_encrypted =
            is_directory && self.account.is_some() && self.is_encrypted(&*store, &names).await?;
        if self.account.is_none() || is_encrypted {
            caller = Some(Arc::new(kms.caller().await.map_err(|error| {
                let next = if self.account.is_some() {
                    "this trail is encrypted: give AWS credentials that may decrypt under its KMS key"
                } else {
                    "give AWS credentials; --account does, too, for a trail that is in S3 or is not encrypted"
                };
                Failure::Unavailable(format!("sts:GetCallerIdentity: {error}: {next}"))
            })?));
        }
        if let (None, Some(caller)) = (&self.account, &caller) {
            names.account_id.clone_from(&caller.account_id);
            is_encrypted = is_directory && self.is_encrypted(&*store, &names).await?;
        }
        names.trail = self.trail_name(&store, &names).await?;
        Ok(TrailAccess { store, names, caller, is_encrypted })
    }

    /// The full name of the trail: from the journal if it is here, otherwise of the one trail in the store with this name.
    async fn trail_name(&self, store: &Arc<dyn Store>, names: &TrailNames) -> Result<String, Failure> {
        if self.may_be_many {
            return Ok(self.name.clone());
        }
        let journal = self.journal_dir.as_deref().map(JournalTrail::try_from);
        if let Some(Ok(journal)) = journal
            && self.is_configured
        {
            return Ok(journal.name);
        }
        let reader = TrailReader::new(Arc::clone(store), names.clone(), None);
        let found = reader.trail_names(&self.name).await;
        let found = found.map_err(|error| Failure::Unavailable(format!("the trail's store: {error}")))?;
        match &found[..] {
            [] => Ok(self.name.clone()),
            [name] => Ok(name.clone()),
            [first, .., last] => Err(Failure::Configuration(format!(
                "{} trails here are called {}: give the name of one with --trail, such as {first} or {last}",
                found.len(),
                self.name
            ))),
        }
    }

    /// The folders in which only the broker writes.
    pub(super) fn folders_of_the_broker(&self) -> Vec<PathBuf> {
        let store = match &self.store {
            StoreConfig::Directory { root, .. } => Some(root.clone()),
            StoreConfig::S3(_) => None,
        };
        self.journal_dir.iter().cloned().chain(store).collect()
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
        let unavailable = |error: StoreError| Failure::Unavailable(format!("the trail's store: {error}"));
        let Some(newest) = store.list(&names.log_folder()).await.map_err(unavailable)?.pop() else {
            return Ok(false);
        };
        let object = store.get(&newest).await.map_err(unavailable)?;
        Ok(object.is_some_and(|object| !object.bytes.starts_with(GZIP)))
    }
}

const GZIP: &[u8] = &[0x1f, 0x8b];
