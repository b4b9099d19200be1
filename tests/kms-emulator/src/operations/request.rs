//! One call: what it says, who makes it, and what it finds.

use std::sync::Arc;

use super::Kms;
use crate::access;
use crate::caller::Caller;
use crate::context::EncryptionContext;
use crate::error::ApiError;
use crate::key::Key;
use crate::parameters::{Parameters, required};
use crate::store::State;
use crate::usage::Use;

/// A call that is performed.
pub(crate) struct Request<'a> {
    pub(crate) kms: &'a Kms,
    pub(crate) parameters: &'a Parameters,
    pub(crate) caller: &'a Caller,
    /// All keys at the moment of the call.
    pub(crate) state: Arc<State>,
    /// Its `x-amzn-RequestId`.
    pub(crate) id: &'a str,
    /// The eventID in CloudTrail.
    pub(crate) event_id: &'a str,
}

impl Request<'_> {
    pub(crate) fn now(&self) -> u64 {
        self.kms.store.now()
    }

    /// A key by any of the forms of `KeyId`, aliases too, whoever may use it.
    pub(super) fn find(&self, key_id: &str, operation: &str) -> Result<Arc<Key>, ApiError> {
        self.kms.store.find(&self.state, key_id, operation)
    }

    /// The key that `KeyId` names in any form, if the caller may do this with it under the encryption context.
    pub(super) fn key(&self, operation: &str) -> Result<Arc<Key>, ApiError> {
        let key = self.find(required("keyId", self.parameters.key_id.as_ref())?, operation)?;
        self.permit(&key, operation, Some(&self.parameters.context()))?;
        Ok(key)
    }

    /// The same for an operation that has no encryption context.
    pub(super) fn key_without_context(&self, operation: &str) -> Result<Arc<Key>, ApiError> {
        let key = self.find(required("keyId", self.parameters.key_id.as_ref())?, operation)?;
        self.permit(&key, operation, None)?;
        Ok(key)
    }

    /// The same where AWS takes no alias.
    pub(super) fn key_by_id(&self, operation: &str) -> Result<Arc<Key>, ApiError> {
        let key_id = required("keyId", self.parameters.key_id.as_ref())?;
        let key = self.kms.store.find_by_id(&self.state, key_id, operation)?;
        self.permit(&key, operation, None)?;
        Ok(key)
    }

    /// Whether the caller may do this with a key. `context` is nothing where the operation has none.
    pub(super) fn permit(
        &self,
        key: &Key,
        action: &str,
        context: Option<&EncryptionContext>,
    ) -> Result<(), ApiError> {
        access::judge(&self.state, self.caller, key, action, context)
    }

    /// Whether the caller may do what is about no key.
    pub(super) fn permit_keyless(&self, action: &str) -> Result<(), ApiError> {
        access::judge_keyless(&self.state, self.caller, action)
    }

    /// The last word of an operation that uses keys and would succeed: a dry run ends here.
    pub(super) fn conclude<const N: usize>(
        &self,
        operation: &'static str,
        keys: [&Key; N],
    ) -> Result<(), ApiError> {
        for key in keys {
            let used = Use {
                at: self.now(),
                operation,
                request_id: self.id.to_owned(),
                event_id: self.event_id.to_owned(),
            };
            self.kms.usage.note(&key.id, used, self.parameters.is_dry_run());
        }
        self.refuse_dry_run()
    }

    /// The last word of an operation that would succeed.
    /// <https://docs.aws.amazon.com/kms/latest/developerguide/testing-permissions.html>
    pub(super) fn refuse_dry_run(&self) -> Result<(), ApiError> {
        if self.parameters.is_dry_run() {
            return Err(ApiError::named("DryRunOperationException"));
        }
        Ok(())
    }
}
