//! The owners of access keys, which sts:GetCallerIdentity returned for each set of credentials. An access key belongs to one session for
//! good, so what is known about it stays true.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use key_broker_trail::record::UserIdentity;
use lru::LruCache;
use tokio::sync::Notify;

/// An AWS principal, with its access key, as records have it.
pub(crate) type Session = Arc<UserIdentity<'static>>;

/// STS's answers, and the sessions missing in records.
pub(crate) struct Sessions {
    known: Mutex<SessionTable>,
    /// The ARNs, with paths, of roles in the configuration and the environment.
    roles: Vec<String>,
    changed: Notify,
}

struct SessionTable {
    by_access_key: LruCache<String, Session>,
    /// Access keys of roles for other accounts' keys, whose account is not the trail's.
    of_roles: LruCache<String, ()>,
    /// Access keys that are alone in records, because their owner was not known.
    owed: BTreeSet<String>,
    /// The owners of such keys that are known by now.
    to_report: Vec<Session>,
    /// The trail's account, once it is settled.
    account_id: Option<String>,
    /// Why credentials were rejected: they belong to another account.
    other_account: Option<String>,
}

/// STS's answer.
pub(super) struct CallerIdentity {
    pub(super) account_id: String,
    pub(super) arn: String,
    pub(super) user_id: String,
}

impl Sessions {
    /// Starts empty. `roles` are ARNs of roles that sessions may belong to.
    pub(super) fn new(roles: Vec<String>) -> Self {
        let known = SessionTable {
            by_access_key: LruCache::new(MOST_SESSIONS),
            of_roles: LruCache::new(MOST_SESSIONS),
            owed: BTreeSet::new(),
            to_report: Vec::new(),
            account_id: None,
            other_account: None,
        };
        Self { known: Mutex::new(known), roles, changed: Notify::new() }
    }

    /// The owner of an access key.
    pub(super) fn get(&self, access_key_id: &str) -> Option<Session> {
        self.lock().by_access_key.get(access_key_id).cloned()
    }

    /// The same for a record. If it is unknown, it is reported later.
    pub(super) fn for_record(&self, access_key_id: &str) -> Option<Session> {
        let mut known = self.lock();
        let found = known.by_access_key.get(access_key_id).cloned();
        if found.is_none() && known.owed.len() < MOST_SESSIONS.get() {
            known.owed.insert(access_key_id.to_owned());
        }
        found
    }

    /// Sets the trail's account.
    pub(super) fn settle(&self, account_id: &str) {
        let mut known = self.lock();
        let before = known.by_access_key.iter().find_map(|(key, session)| {
            let arn = session.arn.as_deref()?;
            (account_of(arn) != account_id && !known.of_roles.contains(key)).then(|| arn.to_owned())
        });
        known.account_id = Some(account_id.to_owned());
        if let Some(arn) = before {
            known.refuse(&arn);
        }
        self.changed.notify_waiters();
    }

    /// Adds STS's answer about a key. False if its account is neither the trail's nor, for a role, the role's: such credentials must not be
    /// used.
    pub(super) fn add(
        &self,
        access_key_id: &str,
        identity: &CallerIdentity,
        role_account: Option<&str>,
    ) -> bool {
        let CallerIdentity { account_id, arn, user_id } = identity;
        let mut known = self.lock();
        if let Some(of_role) = role_account {
            if of_role != account_id {
                return false;
            }
            known.of_roles.put(access_key_id.to_owned(), ());
        } else if known.account_id.as_deref().is_some_and(|settled| settled != account_id) {
            known.refuse(arn);
            self.changed.notify_waiters();
            return false;
        }
        let mut session = UserIdentity::of_aws(account_id, arn, user_id, self.role_of(arn));
        session.access_key_id = Some(access_key_id.to_owned().into());
        let session = Arc::new(session);
        known.by_access_key.put(access_key_id.to_owned(), Arc::clone(&session));
        if known.owed.remove(access_key_id) {
            known.to_report.push(session);
        }
        self.changed.notify_waiters();
        true
    }

    /// Waits for owners of keys that are alone in earlier records.
    pub(crate) async fn to_report(&self) -> Vec<Session> {
        self.wait_for(|known| Some(std::mem::take(&mut known.to_report)).filter(|some| !some.is_empty()))
            .await
    }

    /// Takes back what could not be reported.
    pub(crate) fn give_back(&self, sessions: Vec<Session>) {
        self.lock().to_report.extend(sessions);
    }

    /// Waits for credentials of another account than the trail's, and returns the error.
    pub(crate) async fn other_account(&self) -> String {
        self.wait_for(|known| known.other_account.clone()).await
    }

    /// The error, if there were such credentials.
    pub(crate) fn found_other_account(&self) -> Option<String> {
        self.lock().other_account.clone()
    }

    async fn wait_for<T>(&self, mut found: impl FnMut(&mut SessionTable) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = found(&mut self.lock()) {
                return found;
            }
            changed.await;
        }
    }

    /// The ARN, with its path, of the role behind a session, if it is known.
    fn role_of(&self, session: &str) -> Option<&str> {
        let mut parts = session.splitn(6, ':').skip(4);
        let (account, resource) = (parts.next()?, parts.next()?);
        let role = resource.strip_prefix("assumed-role/")?.split('/').next()?;
        let is_it = |arn: &&String| {
            let mut parts = arn.splitn(6, ':').skip(4);
            parts.next() == Some(account)
                && parts.next().is_some_and(|resource| {
                    resource.starts_with("role/") && resource.rsplit('/').next() == Some(role)
                })
        };
        self.roles.iter().find(is_it).map(String::as_str)
    }

    fn lock(&self) -> MutexGuard<'_, SessionTable> {
        // Nothing that holds the lock can panic half way.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionTable {
    fn refuse(&mut self, arn: &str) {
        let settled = self.account_id.as_deref().unwrap_or_default();
        self.other_account = Some(format!(
            "the broker's AWS credentials are {arn} now, and its trail is that of account {settled}"
        ));
    }
}

pub(super) fn account_of(arn: &str) -> &str {
    arn.split(':').nth(4).unwrap_or_default()
}

pub(super) fn partition_in(arn: &str) -> Option<&str> {
    arn.strip_prefix("arn:")?.split(':').next().filter(|partition| !partition.is_empty())
}

/// Calls in flight may use the previous session, but none older than these.
const MOST_SESSIONS: NonZero<usize> = NonZero::new(64).expect("not zero");

#[cfg(test)]
mod tests {
    //! A role's path is added if its ARN is known, and to no other role.

    use super::*;

    fn issuer(roles: &[&str]) -> String {
        let sessions = Sessions::new(roles.iter().map(|role| (*role).to_owned()).collect());
        let identity = CallerIdentity {
            account_id: "111122223333".into(),
            arn: "arn:aws:sts::111122223333:assumed-role/broker/pod-1".into(),
            user_id: "AROA1:pod-1".into(),
        };
        assert!(sessions.add("ASIA1", &identity, None));
        let session = sessions.get("ASIA1").expect("known");
        serde_json::to_value(&*session).expect("JSON")["sessionContext"]["sessionIssuer"]["arn"].to_string()
    }

    #[test]
    fn the_role_of_a_session_has_its_path_where_that_is_known() {
        let with_path = "arn:aws:iam::111122223333:role/team/a/broker";
        assert_eq!(issuer(&["arn:aws:iam::111122223333:role/base", with_path]), format!("{with_path:?}"));
        let without = "\"arn:aws:iam::111122223333:role/broker\"";
        for other in [
            "arn:aws:iam::444455556666:role/team/a/broker",
            "arn:aws:iam::111122223333:role/team/a/broker2",
            "?",
        ] {
            assert_eq!(issuer(&[other]), without, "{other}");
        }
    }

    #[test]
    fn an_account_that_is_settled_takes_no_others_sessions() {
        let of = |account: &str| CallerIdentity {
            account_id: account.into(),
            arn: format!("arn:aws:iam::{account}:user/broker"),
            user_id: "AIDA1".into(),
        };
        let sessions = Sessions::new(Vec::new());
        assert!(sessions.add("AKIA1", &of("111122223333"), None));
        assert!(sessions.add("ASIA1", &of("444455556666"), Some("444455556666")), "a role's for their keys");
        sessions.settle("111122223333");
        assert!(sessions.add("ASIA2", &of("444455556666"), Some("444455556666")));
        assert!(!sessions.add("ASIA3", &of("777788889999"), Some("444455556666")));
        assert!(sessions.add("AKIA2", &of("111122223333"), None) && sessions.found_other_account().is_none());
        assert!(!sessions.add("AKIA3", &of("444455556666"), None) && sessions.get("AKIA3").is_none());
        assert!(sessions.found_other_account().is_some_and(|words| words.contains("444455556666")));
    }
}
