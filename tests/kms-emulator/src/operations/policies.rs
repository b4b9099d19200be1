//! Policies, put on keys and on roles.

use std::sync::Arc;

use serde_json::json;

use super::{Answer, Request, answer};
use crate::caller::Caller;
use crate::context::EncryptionContext;
use crate::error::ApiError;
use crate::key::Key;
use crate::parameters::required;
use crate::policy::{Policy, PolicyOf, Question};
use crate::store::Store;

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_PutKeyPolicy.html>
pub(super) fn put(request: &Request<'_>) -> Result<Answer, ApiError> {
    check_name(request)?;
    let text = required("policy", request.parameters.policy.as_ref())?;
    let key = request.key_by_id("PutKeyPolicy")?;
    let policy = new_policy(request, text)?;
    request.kms.store.change_key(&key, |key| {
        key.policy = Some(policy);
        Ok(())
    })?;
    Ok(Answer::new())
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GetKeyPolicy.html>
pub(super) fn get(request: &Request<'_>) -> Result<Answer, ApiError> {
    check_name(request)?;
    let key = request.key_by_id("GetKeyPolicy")?;
    let text = match &key.policy {
        Some(policy) => policy.text().to_owned(),
        None => default_policy(&request.kms.store.account().id),
    };
    Ok(answer([("Policy", text.into()), ("PolicyName", DEFAULT.into())]))
}

/// A policy that a caller puts on a key: it must be one, and the caller must be able to put another, unless it is told that
/// this does not matter.
pub(super) fn new_policy(request: &Request<'_>, text: &str) -> Result<Arc<Policy>, ApiError> {
    let policy = parse(text, PolicyOf::Key)?;
    let bypassed = request.parameters.bypass_policy_lockout_safety_check == Some(true);
    if !bypassed && !lets_put(&policy, request.caller) {
        return Err(malformed(
            "The new key policy will not allow you to update the key policy in the future.",
        ));
    }
    Ok(Arc::new(policy))
}

/// Puts a policy on a key, even one that lets nobody put another.
pub(crate) fn put_key_policy(store: &Store, key: &Key, text: &str) -> Result<(), ApiError> {
    let policy = Arc::new(parse(text, PolicyOf::Key)?);
    store.change_key(key, |key| {
        key.policy = Some(policy);
        Ok(())
    })
}

/// Puts a policy on a role, or takes it away.
pub(crate) fn put_role_policy(store: &Store, role: &str, text: Option<&str>) -> Result<(), ApiError> {
    let is_role = role.splitn(6, ':').nth(5).is_some_and(|resource| resource.starts_with("role/"));
    if !is_role || !role.starts_with("arn:") {
        return Err(ApiError::validation(format!("{role:?} is not a role's ARN.")));
    }
    let policy = text.map(|text| parse(text, PolicyOf::Role)).transpose()?;
    store.change(|state| {
        match policy {
            Some(policy) => state.role_policies.insert(role.to_owned(), Arc::new(policy)),
            None => state.role_policies.remove(role),
        };
        Ok(())
    })
}

fn lets_put(policy: &Policy, caller: &Caller) -> bool {
    let none = EncryptionContext::new();
    let verdict =
        policy.judge(Question { caller, action: "kms:PutKeyPolicy", resource: "*", context: &none });
    !verdict.denied && (verdict.allowed || verdict.delegated)
}

fn parse(text: &str, of: PolicyOf) -> Result<Policy, ApiError> {
    Policy::parse(text, of).map_err(|error| malformed(&error))
}

fn malformed(message: &str) -> ApiError {
    ApiError::new("MalformedPolicyDocumentException", message)
}

/// A key has one policy, and this is its name.
fn check_name(request: &Request<'_>) -> Result<(), ApiError> {
    match request.parameters.policy_name.as_deref() {
        None | Some(DEFAULT) => Ok(()),
        Some(_) => Err(ApiError::not_found("No such policy exists")),
    }
}

/// The default key policy.
/// <https://docs.aws.amazon.com/kms/latest/developerguide/key-policy-default.html>
fn default_policy(account: &str) -> String {
    let statement = json!({
        "Sid": "Enable IAM User Permissions", "Effect": "Allow",
        "Principal": { "AWS": format!("arn:aws:iam::{account}:root") },
        "Action": "kms:*", "Resource": "*",
    });
    json!({ "Version": "2012-10-17", "Id": "key-default-1", "Statement": [statement] }).to_string()
}

const DEFAULT: &str = "default";
