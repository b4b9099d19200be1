//! The broker's AWS credentials over time. One task renews them, ahead of their end and off the path of calls, whatever the source; a
//! source that fails costs no call as long as the credentials before it last.
//!
//! New credentials are used once STS has told whose they are. Where it does not in time, they are used all the same, and STS is asked
//! again: their records have the access key alone until then.

pub(super) mod source;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::sessions::{CallerIdentity, Session, Sessions};
use source::{Files, Source};

/// The credentials in use.
#[derive(Clone)]
pub(super) struct CredentialsInUse {
    held: watch::Receiver<Held>,
    asked: Arc<Notify>,
    sessions: Arc<Sessions>,
    _renewal: Arc<AbortOnDropHandle<()>>,
}

#[derive(Clone, Default)]
struct Held {
    current: Option<Credentials>,
    /// Why the source gave nothing when it was last asked.
    source_trouble: Option<String>,
    /// Why it is not known whose they are.
    sts_trouble: Option<String>,
}

impl CredentialsInUse {
    /// Renews what `source` gives from now on.
    pub(super) fn start(source: Source, sts: aws_sdk_sts::Client, sessions: Arc<Sessions>) -> Self {
        let (held, watched) = watch::channel(Held::default());
        let asked = Arc::new(Notify::new());
        let renewal = Renewal {
            source,
            sts,
            sessions: Arc::clone(&sessions),
            held,
            asked: Arc::clone(&asked),
            unidentified: Vec::new(),
        };
        let task = AbortOnDropHandle::new(tokio::spawn(renewal.run()));
        Self { held: watched, asked, sessions, _renewal: Arc::new(task) }
    }

    /// AWS does not take them, or so it says: the source may have others.
    pub(super) fn doubt(&self) {
        self.asked.notify_one();
    }

    /// Whether there are any.
    pub(super) fn are_there(&self) -> bool {
        self.held.borrow().usable().is_some()
    }

    /// Whose they are, as soon as that is known; else why it is not.
    pub(super) async fn session(&self) -> Result<Session, String> {
        let mut held = self.held.clone();
        loop {
            {
                let now = held.borrow_and_update();
                if let Some(current) = now.usable() {
                    if let Some(session) = self.sessions.get(current.access_key_id()) {
                        return Ok(session);
                    }
                    if let Some(why) = self.sessions.found_other_account().or(now.sts_trouble.clone()) {
                        return Err(format!("sts:GetCallerIdentity: {why}"));
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
                if let Some(current) = now.usable() {
                    return Ok(current.clone());
                }
                if now.current.is_some() || now.source_trouble.is_some() {
                    // The renewal may have slept through the end of them.
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

impl Held {
    fn usable(&self) -> Option<&Credentials> {
        self.current.as_ref().filter(|current| remaining(current).is_none_or(|left| !left.is_zero()))
    }
}

/// The task behind them.
struct Renewal {
    source: Source,
    sts: aws_sdk_sts::Client,
    sessions: Arc<Sessions>,
    held: watch::Sender<Held>,
    asked: Arc<Notify>,
    /// Credentials that were put to use before STS told whose they are.
    unidentified: Vec<Credentials>,
}

impl Renewal {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let (files, began) = (self.source.files(), Instant::now());
            let due = match self.source.load().await {
                Ok(credentials) => {
                    pause = FIRST_PAUSE;
                    self.take(credentials).await
                }
                Err(trouble) => {
                    self.tell_trouble(trouble, pause);
                    let due = Instant::now() + pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    Some(due)
                }
            };
            self.wait(due, files, began + LEAST_BETWEEN).await;
        }
    }

    /// Puts new credentials to use, and returns when the next are due.
    async fn take(&mut self, credentials: Credentials) -> Option<Instant> {
        let access_key_id = credentials.access_key_id();
        let mut sts_trouble = None;
        if self.sessions.get(access_key_id).is_none() {
            match timeout(self.time_for_sts(), self.identify(&credentials)).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => {
                    // Whoever waits for credentials is told.
                    self.held.send_modify(|held| held.source_trouble = self.sessions.found_other_account());
                    return Some(Instant::now() + LONGEST_PAUSE);
                }
                Ok(Err(why)) => sts_trouble = Some(why),
                Err(_) => sts_trouble = Some("STS does not answer".to_owned()),
            }
        }
        if let Some(error) = &sts_trouble {
            tracing::warn!(
                error,
                access_key_id,
                "STS does not tell whose the broker's AWS credentials are: records of calls to KMS have the access key alone until it \
                 does; check the broker's way to STS"
            );
        }
        if sts_trouble.is_some() {
            self.unidentified.push(credentials.clone());
        }
        let is_new =
            self.held.borrow().current.as_ref().map(Credentials::access_key_id) != Some(access_key_id);
        let due = due(&credentials, is_new);
        if is_new {
            let arn = self
                .sessions
                .get(access_key_id)
                .and_then(|session| session.arn.as_deref().map(str::to_owned));
            tracing::info!(access_key_id, arn, "AWS credentials in use");
        }
        self.held.send_replace(Held { current: Some(credentials), source_trouble: None, sts_trouble });
        due
    }

    /// The credentials before may serve meanwhile.
    fn time_for_sts(&self) -> Duration {
        let held = self.held.borrow();
        let left = held.usable().and_then(remaining);
        left.map_or(TIME_FOR_STS, |left| TIME_FOR_STS.min(left / 2))
    }

    /// Asks STS whose these are, with these. False if they are another account's.
    async fn identify(&self, credentials: &Credentials) -> Result<bool, String> {
        let with_these = aws_sdk_sts::config::Builder::new().credentials_provider(credentials.clone());
        let asked = self.sts.get_caller_identity().customize().config_override(with_these).send().await;
        let told = asked.map_err(|error| super::error::sts_error(&error))?;
        let (Some(account_id), Some(arn), Some(user_id)) = (told.account, told.arn, told.user_id) else {
            return Err("STS's answer to GetCallerIdentity lacks Account, Arn or UserId".into());
        };
        let identity = CallerIdentity { account_id, arn, user_id };
        Ok(self.sessions.add(credentials.access_key_id(), &identity))
    }

    fn tell_trouble(&self, trouble: String, pause: Duration) {
        let (retry_seconds, error) = (pause.as_secs(), &trouble);
        if self.held.borrow().usable().is_some() {
            tracing::warn!(
                error,
                retry_seconds,
                "no new AWS credentials: those in use go on; check where the broker gets its credentials from"
            );
        } else if self.held.borrow().current.is_some() {
            tracing::error!(
                error,
                retry_seconds,
                "the broker's AWS credentials have expired and there are no new ones: check where it gets them from; it takes the next \
                 ones by itself"
            );
        }
        self.held.send_modify(|held| held.source_trouble = Some(trouble));
    }

    /// Until `due`, until the files of the credentials have changed, or until somebody doubts them, but not before `least`.
    async fn wait(&mut self, due: Option<Instant>, files: Files, least: Instant) {
        let mut pause = FIRST_PAUSE;
        let mut next_look = Instant::now() + LOOK_AT_FILES;
        loop {
            let unidentified = self.next_unidentified();
            tokio::select! {
                () = sleep_until(due.unwrap_or(next_look)), if due.is_some() => return,
                () = self.asked.notified() => return sleep_until(least).await,
                () = sleep_until(next_look) => {
                    next_look += LOOK_AT_FILES;
                    if self.source.files() != files {
                        return;
                    }
                }
                () = sleep(pause), if unidentified.is_some() => {
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    if let Some(credentials) = unidentified {
                        self.identify_later(&credentials).await;
                    }
                }
            }
        }
    }

    /// Credentials that last still, and of which it is not known whose they are.
    fn next_unidentified(&mut self) -> Option<Credentials> {
        let Self { unidentified, sessions, .. } = self;
        unidentified.retain(|credentials| {
            remaining(credentials).is_none_or(|left| !left.is_zero())
                && sessions.get(credentials.access_key_id()).is_none()
        });
        let most = unidentified.len().saturating_sub(MOST_UNIDENTIFIED);
        unidentified.drain(..most);
        unidentified.first().cloned()
    }

    async fn identify_later(&self, credentials: &Credentials) {
        match timeout(TIME_FOR_STS, self.identify(credentials)).await {
            Ok(Ok(true)) => self.held.send_modify(|held| held.sts_trouble = None),
            // Nothing more is signed with them.
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

/// How long credentials last still; none where they do not end.
fn remaining(credentials: &Credentials) -> Option<Duration> {
    let end = credentials.expiry()?;
    Some(end.duration_since(SystemTime::now()).unwrap_or_default())
}

/// When to ask for the next ones: some minutes ahead, or half way where they last for less.
fn due(credentials: &Credentials, is_new: bool) -> Option<Instant> {
    let left = remaining(credentials)?;
    let least = if is_new { LEAST_LIFE } else { FIRST_PAUSE };
    Some(Instant::now() + (left - AHEAD.min(left / 2)).max(least))
}

const ENDED: &str = "the broker stops";
/// As the AWS SDKs do.
const AHEAD: Duration = Duration::from_mins(5);
/// However short-lived credentials are.
const LEAST_LIFE: Duration = Duration::from_millis(100);
/// Whatever calls do.
const LEAST_BETWEEN: Duration = Duration::from_secs(2);
/// STS answers within a second; a Region's STS that is down does not keep new credentials from being used for longer.
const TIME_FOR_STS: Duration = Duration::from_secs(5);
/// The oldest are given up.
const MOST_UNIDENTIFIED: usize = 8;
const LOOK_AT_FILES: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
