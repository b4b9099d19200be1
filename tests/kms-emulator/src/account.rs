//! The emulated account.

/// The emulated account: the parts of an ARN, and the configured caller.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) region: String,
    pub(crate) id: String,
    /// The ARN of whoever has not assumed a role.
    pub(crate) caller_arn: String,
    /// The `UserId` of whoever has not assumed a role.
    pub(crate) caller_user_id: String,
}

impl Account {
    pub(crate) fn arn(&self, resource: &str) -> String {
        self.arn_in(&self.region, resource)
    }

    pub(crate) fn arn_in(&self, region: &str, resource: &str) -> String {
        format!("arn:aws:kms:{region}:{}:{resource}", self.id)
    }
}
