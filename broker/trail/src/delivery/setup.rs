//! The start of a trail, before any call is served: tests its keys, and finds where an earlier process stopped.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use key_broker_core::clock::Clock;
use key_broker_core::{KeyArn, KeyId};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::encryption::Encryption;
use super::jitter::with_jitter;
use super::{SigningConfig, Trail, TrailConfig, oldest_place, whole_second};
use crate::announcer::Announcer;
use crate::encryption_context::path_context;
use crate::journal::Journal;
use crate::journal::hash_chain::Link;
use crate::keys::{KeysError, KeysErrorKind, TrailKeys};
use crate::names::TrailNames;
use crate::origin::Origin;
use crate::record::{AwsCaller, BrokerData, RevocationPromise, UserIdentity, record_time};
use crate::signature::{PublicKey, Signer};
use crate::state::{Account, State};
use crate::store::directory::DirectoryStore;
use crate::store::s3::{S3Settings, S3Store, ServerSideEncryption};
use crate::store::{Store, StoreError};
use crate::trail_name;

/// The store to deliver to.
#[derive(Debug, Clone)]
pub enum StoreConfig {
    /// A directory, with objects at `ROOT/BUCKET/KEY`.
    Directory {
        /// The root.
        root: PathBuf,
        /// The name of a folder in it, in place of an S3 bucket.
        bucket: String,
    },
    /// A bucket of S3.
    S3(S3Settings),
}

impl StoreConfig {
    /// Opens the store for reading. S3 itself decrypts the objects in it.
    pub async fn open(&self) -> Arc<dyn Store> {
        self.open_under(None).await
    }

    /// Opens the store; an S3 bucket encrypts objects in this way.
    async fn open_under(&self, encryption: Option<ServerSideEncryption>) -> Arc<dyn Store> {
        match self {
            Self::Directory { root, bucket } => Arc::new(DirectoryStore::new(root, bucket)),
            Self::S3(settings) => Arc::new(S3Store::new(settings, encryption).await),
        }
    }

    fn bucket(&self) -> &str {
        match self {
            Self::Directory { bucket, .. } => bucket,
            Self::S3(settings) => &settings.bucket,
        }
    }
}

/// Why a trail cannot start.
#[derive(Debug)]
pub enum SetupError {
    /// The configuration is impossible: somebody must change it.
    Refused(String),
    /// KMS, the store or the disk is not available now.
    NotNow(String),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) | Self::NotNow(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for SetupError {}

/// The names of everything that `config` delivers for this account, in the region of its KMS, but without the id that a journal adds to
/// the trail's name, so that no broker delivers there.
#[must_use]
pub fn names(config: &TrailConfig, caller: &AwsCaller) -> TrailNames {
    named(config, caller, trail_name::of_no_journal(&config.name))
}

fn named(config: &TrailConfig, caller: &AwsCaller, trail: String) -> TrailNames {
    TrailNames {
        account_id: caller.account_id.clone(),
        region: caller.region.clone(),
        trail,
        bucket: config.store.bucket().to_owned(),
        prefix: config.prefix.clone(),
    }
}

/// What a trail is made of.
pub struct TrailParts {
    /// The account and region.
    pub caller: Arc<AwsCaller>,
    /// The trail's own keys.
    pub keys: Arc<dyn TrailKeys>,
    /// The journal to deliver.
    pub journal: Journal,
    /// The journal's directory.
    pub journal_dir: PathBuf,
    /// The AWS session of the broker at its start, if that is known.
    pub identity: Option<UserIdentity<'static>>,
    /// SHA-256, in hex, of the configuration file.
    pub configuration_sha256: Option<String>,
    /// The version of the policies at the start.
    pub policy_version: Option<String>,
    /// The broker's promise about cached data keys whose KMS key is revoked.
    pub reuse: Option<RevocationPromise>,
    /// The bytes that the journal held when it was opened.
    pub recovered_bytes: u64,
    /// The name for a new journal's trail, if the broker already uses one; otherwise it is made up.
    pub new_trail: Option<String>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl TrailParts {
    /// The contents of the start record.
    pub(crate) fn start_data(&self, origin: &Origin) -> BrokerData<'_> {
        BrokerData {
            configuration_sha256: self.configuration_sha256.as_ref().map(Into::into),
            policy_version: self.policy_version.as_ref().map(Into::into),
            reuse: self.reuse,
            origin: Some(origin.clone()),
            recovered_bytes: Some(self.recovered_bytes).filter(|bytes| *bytes > EMPTY_JOURNAL_BYTES),
            ..BrokerData::default()
        }
    }

    pub(crate) fn announcer(&self) -> Announcer {
        let Self { caller, journal, journal_dir, clock, .. } = self;
        Announcer {
            journal: journal.clone(),
            journal_dir: journal_dir.clone(),
            caller: Arc::clone(caller),
            origin: Origin::of_this_process(),
            clock: Arc::clone(clock),
        }
    }
}

/// The store and keys of a trail.
pub(super) struct Means {
    pub(super) names: TrailNames,
    pub(super) store: Arc<dyn Store>,
    pub(super) signer: Signer,
    pub(super) encryption: Option<Encryption>,
}

impl Trail {
    /// Starts a trail as soon as possible, and opens it by storing its first digest. `None` if `drain` is cancelled before.
    pub async fn start_when_possible(
        config: &TrailConfig,
        parts: &TrailParts,
        drain: &CancellationToken,
    ) -> Result<Option<Self>, SetupError> {
        let mut pause = FIRST_PAUSE;
        let mut started = None;
        loop {
            let attempt = async {
                let mut trail = match started.take() {
                    Some(trail) => trail,
                    None => Self::start(config, parts).await?,
                };
                let opened = if trail.is_open() { Ok(()) } else { trail.digest().await };
                started = Some(trail);
                opened.map_err(|error| {
                    SetupError::NotNow(format!("its first digest is not delivered: {error}"))
                })
            };
            // Jitter, so that a fleet started while its store was down does not come back all at once.
            let wait = with_jitter(pause, &Uuid::new_v4().to_string());
            let attempt = tokio::select! {
                attempt = attempt => attempt,
                () = drain.cancelled() => return Ok(None),
            };
            match attempt {
                Ok(()) => return Ok(started),
                Err(SetupError::NotNow(why)) => {
                    tracing::warn!(
                        error = why,
                        retry_seconds = wait.as_secs_f64(),
                        "not serving yet: the trail cannot start"
                    );
                }
                Err(refused) => return Err(refused),
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = drain.cancelled() => return Ok(None),
            }
        }
    }

    /// Starts a trail: asks KMS about its keys, and continues where an earlier process stopped.
    pub(crate) async fn start(config: &TrailConfig, parts: &TrailParts) -> Result<Self, SetupError> {
        let TrailParts { caller, keys, .. } = parts;
        let announcer = parts.announcer();
        // The keys are used with the trail's name, so that must be known.
        let state = state_in_journal(config, &announcer, parts.new_trail.as_deref())?;
        let names = named(config, caller, state.trail.clone());
        let signer = signer(&config.signing, keys).await?;
        let key = match &config.kms_key {
            Some(key) => Some(configure(key, &names, &**keys).await?),
            None => None,
        };
        let encryption = key.as_ref().map(|key| ServerSideEncryption::new(key.as_str(), &names.trail_arn()));
        let store = config.store.open_under(encryption).await;
        // S3 does its own encryption.
        let encryption = key
            .filter(|_| matches!(config.store, StoreConfig::Directory { .. }))
            .map(|key| Encryption::new(Arc::clone(keys), key));
        let means = Means { names, store, signer, encryption };
        Ok(Self::resume(config, means, announcer, state))
    }

    /// Continues where an earlier process stopped.
    pub(super) fn resume(config: &TrailConfig, means: Means, announcer: Announcer, state: State) -> Self {
        let Means { names, store, signer, encryption } = means;
        let Announcer { journal, journal_dir, clock, .. } = &announcer;
        // The time since the last digest counts. If the clock is behind it, that time is unknown.
        let since = Duration::try_from(whole_second(clock.now()) - state.start).unwrap_or(Duration::MAX);
        let next_digest = clock.instant() + config.digest_interval.saturating_sub(since);
        let (flush_orders, flushes) = mpsc::channel(1);
        Self {
            names,
            store,
            journal: journal.clone(),
            journal_dir: journal_dir.clone(),
            signer,
            encryption,
            clock: Arc::clone(clock),
            delivery_interval: config.delivery_interval,
            digest_interval: config.digest_interval,
            next_digest,
            newest_digest: watch::Sender::new(state.newest_digest()),
            state,
            unnoted: None,
            delivered_of_others: None,
            deadline: None,
            flush_orders,
            flushes,
            announcer,
        }
    }
}

/// Stores an object in the S3 bucket, unless it is there, to prove that the broker is allowed to. Returns its key, which is outside of
/// `AWSLogs/`. Directories need no such test.
pub async fn probe(config: &TrailConfig, caller: &AwsCaller) -> Result<String, StoreError> {
    let StoreConfig::S3(settings) = &config.store else {
        return Err(StoreError("only a bucket of S3 is tried so".into()));
    };
    let names = names(config, caller);
    let encryption =
        config.kms_key.as_ref().map(|key| ServerSideEncryption::new(key.as_str(), &names.trail_arn()));
    let key = names.probe();
    S3Store::new(settings, encryption).await.probe(&key).await?;
    Ok(key)
}

/// Checks that the state of the trail in this journal can be read, if there is one.
pub fn check_state(journal_dir: &Path) -> Result<(), SetupError> {
    State::load(journal_dir).map(drop).map_err(|error| unreadable_state(journal_dir, &error))
}

fn unreadable_state(journal_dir: &Path, error: &dyn fmt::Display) -> SetupError {
    let found = journal_dir.join("trail.json").display().to_string();
    SetupError::Refused(format!(
        "{found}: {error}: put it back as it was, or move it away to begin a new trail"
    ))
}

/// The state of a journal's trail. That of a new one is saved before anything uses the trail's name.
pub(super) fn state_in_journal(
    config: &TrailConfig,
    announcer: &Announcer,
    new_trail: Option<&str>,
) -> Result<State, SetupError> {
    let Announcer { journal, journal_dir, clock, caller, .. } = announcer;
    let explain = |error| SetupError::NotNow(format!("cannot use {}: {error}", journal_dir.display()));
    // The start may have waited for long.
    journal.hold().keep().map_err(explain)?;
    tell_of_old_records(journal_dir);
    let start = whole_second(clock.now());
    let loaded = State::load(journal_dir);
    // After a delivery, the place in the chain reveals a journal that has lost its files; before the first one, only the trail's own
    // state does.
    let was_used = matches!(&loaded, Ok(Some(state)) if state.delivered == Some(Link::START));
    let delivered = loaded.as_ref().ok().and_then(|state| state.as_ref()?.delivered);
    if journal.notices().tell_begun_anew(was_used, delivered).map_err(explain)? {
        tracing::error!("journal segments were removed before anything of them was delivered");
    }
    let refuse = |why: &dyn fmt::Display| {
        let found = journal_dir.join("trail.json");
        SetupError::Refused(format!("{}: {why}", found.display()))
    };
    let (mut state, mut is_changed) = match loaded {
        Ok(Some(state)) => (state, false),
        // It begins a second ago, so that its first digest need not end in the future.
        Ok(None) => {
            let told = new_trail.filter(|name| trail_name::is_of(name, &config.name)).map(str::to_owned);
            let name = told.unwrap_or_else(|| trail_name::of_new_journal(&config.name));
            (State::new(name, start - Duration::from_secs(1)), true)
        }
        Err(error) => return Err(unreadable_state(journal_dir, &error)),
    };
    is_changed |= claim(&mut state, config, caller).map_err(|why| refuse(&why))?;
    if state.delivered.is_none() {
        // From here on anything missing is noticed, even the very first file of the journal.
        state.delivered = Some(oldest_place(journal_dir).map_err(explain)?);
        is_changed = true;
    }
    // Not otherwise: a full disk may have no room for it, and delivering makes room.
    if is_changed {
        state.save(journal_dir).map_err(explain)?;
    }
    if state.start > start {
        let digest_end = record_time(state.start);
        tracing::warn!(
            digest_end,
            "the newest digest ends in the future: the clock was ahead, or is behind now"
        );
    }
    Ok(state)
}

/// Checks that a journal belongs to this trail, account and region. True if that must be saved.
fn claim(state: &mut State, config: &TrailConfig, caller: &AwsCaller) -> Result<bool, String> {
    if !trail_name::is_of(&state.trail, &config.name) {
        return Err(format!(
            "this journal is trail {}, and audit.trail is {:?}: give that name back, or another journal_dir",
            state.trail, config.name
        ));
    }
    let account = Account::of(caller);
    let Some(known) = &state.account else {
        state.account = Some(account);
        return Ok(true);
    };
    if *known == account {
        return Ok(false);
    }
    Err(format!(
        "this journal is of account {} in {}, and the broker's credentials are of account {} in {}: give each its own journal_dir",
        known.id, known.region, account.id, account.region
    ))
}

/// Earlier versions left records of `key-broker audit` commands in the journal's directory. They stay there.
fn tell_of_old_records(journal_dir: &Path) {
    let inbox = journal_dir.join("inbox");
    let Ok(entries) = fs::read_dir(&inbox) else { return };
    let records = entries
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "record"))
        .count();
    if records > 0 {
        tracing::warn!(
            dir = %inbox.display(),
            records,
            "records of readers that an older version left are not delivered: keep them, and name them to `key-broker audit reconcile --reader-records`"
        );
    }
}

async fn signer(signing: &SigningConfig, keys: &Arc<dyn TrailKeys>) -> Result<Signer, SetupError> {
    match signing {
        SigningConfig::File(path) => signer_from(path),
        SigningConfig::Kms(key) => {
            let answer = keys.public_key(key).await.map_err(|error| {
                explain("audit.signing.kms_key_id", key, &error, "an RSA key for signing")
            })?;
            let public = PublicKey::from_spki(&answer.spki).map_err(|error| {
                SetupError::Refused(format!("audit.signing.kms_key_id: {}: {error}", key.as_str()))
            })?;
            Ok(Signer::kms(Arc::clone(keys), &answer.key, public))
        }
    }
}

/// The public key of the signing key in a PEM file.
pub fn public_key_of(path: &Path) -> Result<PublicKey, SetupError> {
    signer_from(path).map(|signer| signer.public_key().clone())
}

/// Reads the PEM file of a signing key.
fn signer_from(path: &Path) -> Result<Signer, SetupError> {
    let refuse = |error: &dyn fmt::Display| {
        SetupError::Refused(format!("audit.signing.pem_file: {}: {error}", path.display()))
    };
    let pem = zeroize::Zeroizing::new(fs::read(path).map_err(|error| refuse(&error))?);
    Signer::from_pem(&pem).map_err(|error| refuse(&error))
}

/// Asks KMS, as CloudTrail does when a trail is configured, whether the key exists and may be used. The data key is dropped.
async fn configure(key: &KeyId, names: &TrailNames, keys: &dyn TrailKeys) -> Result<KeyArn, SetupError> {
    let context = path_context(names).map_err(|malformed| SetupError::Refused(malformed.0))?;
    let data_key = keys.data_key(key, &context).await.map_err(|error| {
        explain(
            "audit.kms_key_id",
            key,
            &error,
            "a symmetric encryption key: asymmetric and HMAC keys cannot encrypt a trail",
        )
    })?;
    Ok(data_key.key)
}

fn explain(setting: &str, key: &KeyId, error: &KeysError, wanted: &str) -> SetupError {
    let key = key.as_str();
    // AWS's messages end with a full stop, and this sentence goes on.
    let (kind, words) = (error.kind, error.to_string());
    let error = words.trim_end_matches('.');
    match kind {
        KeysErrorKind::Passing => SetupError::NotNow(format!("{setting}: {key}: {error}")),
        KeysErrorKind::WrongKey => SetupError::Refused(format!("{setting}: {key} is not {wanted} ({error})")),
        KeysErrorKind::Refused => SetupError::Refused(format!(
            "{setting}: KMS refuses {key}: {error}: check the key and the broker's permission"
        )),
    }
}

/// The bytes at the start of a file, before any record.
const EMPTY_JOURNAL_BYTES: u64 = 160;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
