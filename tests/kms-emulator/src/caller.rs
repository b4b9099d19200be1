//! The caller of an operation.

use crate::account::Account;

/// The signer of a call: the configured caller, or a role session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The ARN of the session or user, as `GetCallerIdentity` returns it.
    pub(crate) arn: String,
    pub(crate) user_id: String,
    pub(crate) account: String,
    /// The ARN of the role that a session is of, as policies name it.
    pub(crate) role: Option<String>,
}

impl Caller {
    /// The caller that has not assumed a role here.
    pub(crate) fn configured(account: &Account) -> Caller {
        Caller {
            arn: account.caller_arn.clone(),
            user_id: account.caller_user_id.clone(),
            account: account.id.clone(),
            role: role_of_session(&account.caller_arn),
        }
    }

    /// Whether an ARN in a policy or a grant means this caller.
    pub(crate) fn is(&self, principal: &str) -> bool {
        self.arn == principal || self.role.as_deref() == Some(principal)
    }
}

/// The role of `arn:aws:sts::ACCOUNT:assumed-role/NAME/SESSION`, which does not tell the role's path.
fn role_of_session(arn: &str) -> Option<String> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let &["arn", partition, "sts", "", account, resource] = parts.as_slice() else { return None };
    let (name, _session) = resource.strip_prefix("assumed-role/")?.split_once('/')?;
    Some(format!("arn:{partition}:iam::{account}:role/{name}"))
}

#[cfg(test)]
mod tests {
    use super::role_of_session;

    #[test]
    fn a_session_is_of_a_role() {
        assert_eq!(
            role_of_session("arn:aws:sts::111122223333:assumed-role/key-broker-dev/dev-session").as_deref(),
            Some("arn:aws:iam::111122223333:role/key-broker-dev")
        );
        for arn in ["arn:aws:iam::111122223333:user/a", "arn:aws:sts::1:assumed-role/a", ""] {
            assert_eq!(role_of_session(arn), None, "{arn}");
        }
    }
}
