//! Key policies and role policies, as tests arrange them.

use super::{Emulator, EmulatorError};
use crate::operations::{put_key_policy, put_role_policy};

impl Emulator {
    /// Puts a policy (JSON) on a key, named in any form that KMS takes, in place of the one that it had: as `PutKeyPolicy`
    /// does, even if it then lets nobody put another. What the emulator does not understand in full is refused. From then on
    /// the key is used as the policy says; a key that none was put on lets everybody do everything.
    ///
    /// ```no_run
    /// # fn example(kms: &kms_emulator::Emulator) -> Result<(), kms_emulator::EmulatorError> {
    /// kms.put_key_policy("alias/orders", r#"{ "Version": "2012-10-17", "Statement": {
    ///     "Effect": "Allow", "Principal": { "AWS": "arn:aws:iam::111122223333:role/key-broker-dev" },
    ///     "Action": ["kms:GenerateDataKey", "kms:Decrypt"], "Resource": "*",
    ///     "Condition": { "StringEquals": { "kms:EncryptionContext:tenant": "acme" } } } }"#)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn put_key_policy(&self, key_id: &str, policy: &str) -> Result<(), EmulatorError> {
        let store = &self.service.kms.store;
        let key = store.find(&store.snapshot(), key_id, "PutKeyPolicy")?;
        Ok(put_key_policy(store, &key, policy)?)
    }

    /// Takes a key's policy away: it lets everybody do everything again.
    pub fn remove_key_policy(&self, key_id: &str) -> Result<(), EmulatorError> {
        let store = &self.service.kms.store;
        let key = store.find(&store.snapshot(), key_id, "PutKeyPolicy")?;
        Ok(store.change_key(&key, |key| {
            key.policy = None;
            Ok(())
        })?)
    }

    /// Puts a policy (JSON) on a role (`arn:aws:iam::ACCOUNT:role/NAME`), in place of the one that it had. It says what the
    /// role may do with keys that leave it to the account; a role that none was put on may do all of it. The configured
    /// caller, if it is a session, is one of a role without a path.
    pub fn put_role_policy(&self, role: &str, policy: &str) -> Result<(), EmulatorError> {
        Ok(put_role_policy(&self.service.kms.store, role, Some(policy))?)
    }

    /// Takes a role's policy away: it may do everything again that keys leave to its account.
    pub fn remove_role_policy(&self, role: &str) -> Result<(), EmulatorError> {
        Ok(put_role_policy(&self.service.kms.store, role, None)?)
    }
}
