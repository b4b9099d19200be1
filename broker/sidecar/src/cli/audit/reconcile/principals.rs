//! Which callers are the broker: every session of its roles, and every access key that it has signed with.
//!
//! One role has many sessions, and each renewal of credentials may begin another one: so a session is known by its role.

use std::collections::BTreeSet;

use key_broker_trail::record::UserIdentity;

/// AWS principals with which the broker calls KMS.
#[derive(Default)]
pub(super) struct Principals(BTreeSet<String>);

impl Principals {
    /// The broker has called as this one.
    pub(super) fn add(&mut self, identity: &UserIdentity<'_>) {
        self.0.extend(names(identity));
    }

    /// Whether this is one of them, or another session of the same role.
    pub(super) fn have(&self, identity: &UserIdentity<'_>) -> bool {
        names(identity).any(|name| self.0.contains(&name))
    }
}

/// What identifies a principal: each of these alone does.
fn names(identity: &UserIdentity<'_>) -> impl Iterator<Item = String> {
    let (arn, id) = (identity.arn.as_deref(), identity.principal_id.as_deref());
    let role = arn.and_then(role_of);
    // Of a role, `ID:SESSION`; of a federated user, `ACCOUNT:NAME`, which is no session of anything.
    let id = id.map(|id| if role.is_some() { id.split(':').next().unwrap_or_default() } else { id });
    let key = identity.access_key_id.as_deref();
    [("arn", role.or(arn)), ("id", id), ("key", key)]
        .into_iter()
        .filter_map(|(kind, name)| Some(format!("{kind} {}", name.filter(|name| !name.is_empty())?)))
        .collect::<Vec<_>>()
        .into_iter()
}

/// The ARN of a role's session without the session.
fn role_of(arn: &str) -> Option<&str> {
    let resource = arn.splitn(6, ':').nth(5)?;
    let role = resource.strip_prefix("assumed-role/")?.split('/').next()?;
    let before = arn.len() - resource.len();
    Some(&arn[..before + "assumed-role/".len() + role.len()])
}
