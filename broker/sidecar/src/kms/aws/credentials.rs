//! The broker's AWS credentials. One task renews them before they expire, so that calls do not wait, whatever the source. A failing
//! source does no harm while the previous credentials last.
//!
//! New credentials are used once STS has said who owns them. If STS does not answer in time, they are used anyway, and STS is asked
//! again: until then their records have the access key alone.

pub(super) mod source;

use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use key_broker_core::clock::Clock;
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use tokio::time::{interval, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::sessions::{CallerIdentity, Session, Sessions};
use source::{Files, Source};

#[derive(Clone)]
pub(super) struct CredentialsInUse {
    held: watch::Receiver<CredentialState>,
    asked: Arc<Notify>,
    sessions: Arc<Sessions>,
    clock: Arc<dyn Clock>,
    _renewal: Arc<AbortOnDropHandle<()>>,
}

#[derive(Clone, Default)]
struct CredentialState {
    current: Option<Credentials>,
    /// Why the source failed when it was last asked.
    source_trouble: Option<String>,
    /// Why the owner is not known.
    sts_trouble: Option<String>,
}

impl CredentialsInUse {
    /// Starts renewing what `source` gives, for the trail's account, or for sessions of a role of `role_account`.
    pub(super) fn start(
        source: Source,
        sts: aws_sdk_sts::Client,
        sessions: Arc<Sessions>,
        role_account: Option<String>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (held, watched) = watch::channel(CredentialState::default());
        let asked = Arc::new(Notify::new());
        let renewal = Renewal {
            source,
            sts,
            sessions: Arc::clone(&sessions),
            role_account,
            clock: Arc::clone(&clock),
            held,
            asked: Arc::clone(&asked),
            unidentified: Vec::new(),
        };
        let task = AbortOnDropHandle::new(tokio::spawn(renewal.run()));
        Self { held: watched, asked, sessions, clock, _renewal: Arc::new(task) }
    }

    /// AWS has rejected them, so the source is asked for others.
    pub(super) fn doubt(&self) {
        self.asked.notify_one();
    }

    /// Whether there are usable credentials.
    pub(super) fn are_there(&self) -> bool {
        self.held.borrow().usable(self.clock.now()).is_some()
    }

    /// Their owner, if it is known by now.
    pub(super) fn known_session(&self) -> Option<Session> {
        let held = self.held.borrow();
        self.sessions.get(held.usable(self.clock.now())?.access_key_id())
    }

    /// Their owner as soon as it is known, or the reason why it is not.
    pub(super) async fn session(&self) -> Result<Session, String> {
        let mut held = self.held.clone();
        loop {
            {
                let now = held.borrow_and_update();
                if let Some(current) = now.usable(self.clock.now()) {
                    if let Some(session) = self.sessions.get(current.access_key_id()) {
                        return Ok(session);
                    }
                    if let Some(why) = self.sessions.found_other_account().or(now.sts_trouble.clone()) {
                        return Err(why);
                    }
                }
                if let Some(why) = self.sessions.found_other_account().or(now.source_trouble.clone()) {
                    self.asked.notify_one();
                    return Err(why);
                }
            }
            if held.changed().await.is_err() {
                return Err(ENDED.into());
            }
        }
    }

    async fn credentials(&self) -> provider::Result {
        let mut held = self.held.clone();
        loop {
            {
                let now = held.borrow_and_update();
                if let Some(current) = now.usable(self.clock.now()) {
                    return Ok(current.clone());
                }
                if now.current.is_some() || now.source_trouble.is_some() {
                    // The credentials may have expired while the renewal was asleep.
                    self.asked.notify_one();
                }
                if let Some(why) = &now.source_trouble {
                    return Err(CredentialsError::provider_error(why.clone()));
                }
            }
            if held.changed().await.is_err() {
                return Err(CredentialsError::provider_error(ENDED));
            }
        }
    }
}

impl std::fmt::Debug for CredentialsInUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CredentialsInUse")
    }
}

impl ProvideCredentials for CredentialsInUse {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.credentials())
    }
}

impl CredentialState {
    fn usable(&self, now: OffsetDateTime) -> Option<&Credentials> {
        self.current.as_ref().filter(|current| remaining(current, now).is_none_or(|left| !left.is_zero()))
    }
}

/// The task that renews credentials.
struct Renewal {
    source: Source,
    sts: aws_sdk_sts::Client,
    sessions: Arc<Sessions>,
    /// For a role that is assumed for the keys of another account: that account.
    role_account: Option<String>,
    clock: Arc<dyn Clock>,
    held: watch::Sender<CredentialState>,
    asked: Arc<Notify>,
    /// Credentials that were put to use before STS had said who owns them.
    unidentified: Vec<Credentials>,
}

impl Renewal {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let files = self.source.files().await;
            let due = match self.source.load().await {
                Ok(credentials) => {
                    pause = FIRST_PAUSE;
                    self.take(credentials).await
                }
                Err(trouble) => {
                    self.tell_trouble(trouble, pause);
                    let due = pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    Some(due)
                }
            };
            self.wait(due, files).await;
        }
    }

    /// Puts new credentials to use, and returns when to ask for the next ones.
    async fn take(&mut self, credentials: Credentials) -> Option<Duration> {
        let access_key_id = credentials.access_key_id();
        let mut sts_trouble = None;
        if self.sessions.get(access_key_id).is_none() {
            match timeout(self.time_for_sts(), self.identify(&credentials)).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => {
                    // Those who wait for credentials get this error.
                    let why = self.sessions.found_other_account();
                    let why = why.unwrap_or_else(|| "the role's session is of another account".into());
                    self.held.send_modify(|held| held.source_trouble = Some(why));
                    return Some(LONGEST_PAUSE);
                }
                Ok(Err(why)) => sts_trouble = Some(why),
                Err(_) => sts_trouble = Some("STS does not answer".to_owned()),
            }
        }
        if let Some(error) = &sts_trouble {
            tracing::warn!(
                error,
                "STS does not say whose the broker's AWS credentials are: records of calls to KMS have the access key alone until it \
                 does; check the broker's way to STS"
            );
        }
        if sts_trouble.is_some() {
            self.unidentified.push(credentials.clone());
        }
        let is_new =
            self.held.borrow().current.as_ref().map(Credentials::access_key_id) != Some(access_key_id);
        let due = due(remaining(&credentials, self.clock.now()), is_new);
        if is_new {
            let arn = self
                .sessions
                .get(access_key_id)
                .and_then(|session| session.arn.as_deref().map(str::to_owned));
            tracing::info!(arn, "AWS credentials in use");
        }
        self.held.send_replace(CredentialState {
            current: Some(credentials),
            source_trouble: None,
            sts_trouble,
        });
        due
    }

    /// How long STS may take: at most half of what the previous credentials, which serve meanwhile, have left.
    fn time_for_sts(&self) -> Duration {
        let held = self.held.borrow();
        let now = self.clock.now();
        let left = held.usable(now).and_then(|current| remaining(current, now));
        left.map_or(TIME_FOR_STS, |left| TIME_FOR_STS.min(left / 2))
    }

    /// Asks STS for the owner of these credentials, signing with them. False if it is another account's.
    async fn identify(&self, credentials: &Credentials) -> Result<bool, String> {
        let with_these = aws_sdk_sts::config::Builder::new().credentials_provider(credentials.clone());
        let asked = self.sts.get_caller_identity().customize().config_override(with_these).send().await;
        let told = asked.map_err(|error| super::error::sts_error(&error))?;
        let (Some(account_id), Some(arn), Some(user_id)) = (told.account, told.arn, told.user_id) else {
            return Err("STS's answer to GetCallerIdentity lacks Account, Arn or UserId".into());
        };
        let identity = CallerIdentity { account_id, arn, user_id };
        Ok(self.sessions.add(credentials.access_key_id(), &identity, self.role_account.as_deref()))
    }

    fn tell_trouble(&self, trouble: String, pause: Duration) {
        let (retry_seconds, error) = (pause.as_secs(), &trouble);
        if self.held.borrow().usable(self.clock.now()).is_some() {
            tracing::warn!(
                error,
                retry_seconds,
                "no new AWS credentials: those in use continue; check the broker's source of credentials"
            );
        } else if self.held.borrow().current.is_some() {
            tracing::error!(
                error,
                retry_seconds,
                "the broker's AWS credentials have expired and there are no new ones: check their source; the broker uses the next \
                 ones by itself"
            );
        } else if let Some(account) = &self.role_account {
            tracing::warn!(
                error,
                account,
                retry_seconds,
                "no AWS credentials for the keys of another account: check the role in kms.account, and who may assume it"
            );
        }
        self.held.send_modify(|held| held.source_trouble = Some(trouble));
    }

    /// Waits until `due`, until the credentials' files have changed, or until others are asked for, but not too soon after the last time.
    async fn wait(&mut self, due: Option<Duration>, files: Files) {
        let mut pause = FIRST_PAUSE;
        let mut looks = interval(LOOK_AT_FILES);
        let (next, least, again) = (sleep(due.unwrap_or_default()), sleep(LEAST_BETWEEN), sleep(pause));
        tokio::pin!(next, least, again);
        loop {
            let unidentified = self.next_unidentified();
            tokio::select! {
                () = &mut next, if due.is_some() => return,
                () = self.asked.notified() => return least.await,
                _ = looks.tick() => {
                    if self.source.files().await != files {
                        return;
                    }
                }
                () = &mut again, if unidentified.is_some() => {
                    if let Some(credentials) = unidentified {
                        self.identify_later(&credentials).await;
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    again.set(sleep(pause));
                }
            }
        }
    }

    /// Unexpired credentials whose owner is not known.
    fn next_unidentified(&mut self) -> Option<Credentials> {
        let now = self.clock.now();
        let Self { unidentified, sessions, .. } = self;
        unidentified.retain(|credentials| {
            remaining(credentials, now).is_none_or(|left| !left.is_zero())
                && sessions.get(credentials.access_key_id()).is_none()
        });
        let most = unidentified.len().saturating_sub(MOST_UNIDENTIFIED);
        unidentified.drain(..most);
        unidentified.first().cloned()
    }

    async fn identify_later(&self, credentials: &Credentials) {
        match timeout(TIME_FOR_STS, self.identify(credentials)).await {
            Ok(Ok(true)) => self.held.send_modify(|held| held.sts_trouble = None),
            // They belong to another account: nothing more is signed with them.
            Ok(Ok(false)) => {
                let key = credentials.access_key_id();
                self.held.send_modify(|held| {
                    held.current.take_if(|current| current.access_key_id() == key);
                });
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

/// How long credentials last; `None` if they do not expire.
fn remaining(credentials: &Credentials, now: OffsetDateTime) -> Option<Duration> {
    let end = OffsetDateTime::from(credentials.expiry()?);
    Some((end - now).try_into().unwrap_or_default())
}

/// When to ask for the next ones: some minutes before the end, or half way through a shorter life.
fn due(left: Option<Duration>, is_new: bool) -> Option<Duration> {
    let left = left?;
    let least = if is_new { LEAST_LIFE } else { FIRST_PAUSE };
    Some(left.saturating_sub(AHEAD.min(left / 2)).max(least))
}

const ENDED: &str = "the broker stops";
/// Like the AWS SDKs.
const AHEAD: Duration = Duration::from_mins(5);
/// The shortest pause, however short-lived credentials are.
const LEAST_LIFE: Duration = Duration::from_millis(100);
/// The least time between two requests to the source, whatever calls report.
const LEAST_BETWEEN: Duration = Duration::from_secs(2);
/// STS answers within a second; one that is down delays new credentials no longer than this.
const TIME_FOR_STS: Duration = Duration::from_secs(5);
/// Beyond this, the oldest are dropped.
const MOST_UNIDENTIFIED: usize = 8;
/// It costs nothing to look at two files.
const LOOK_AT_FILES: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
