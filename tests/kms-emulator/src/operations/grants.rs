//! Grants: made, listed, revoked, retired.

use serde_json::{Value, json};

use super::keys::page;
use super::{Answer, Request, answer};
use crate::clock::epoch_seconds;
use crate::error::ApiError;
use crate::grant::{Constraint, Grant};
use crate::key::{Key, KeyState, hex};
use crate::parameters::{ConstraintParameters, one_of, required};
use crate::random;

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_CreateGrant.html>
pub(super) fn create(request: &Request<'_>) -> Result<Answer, ApiError> {
    let parameters = request.parameters;
    let grantee = required("granteePrincipal", parameters.grantee_principal.as_ref())?;
    for principal in [Some(grantee), parameters.retiring_principal.as_ref()].into_iter().flatten() {
        check_principal(principal)?;
    }
    let operations = required("operations", parameters.operations.as_ref())?;
    for operation in operations {
        one_of("operations", Some(operation), &GRANT_OPERATIONS)?;
    }
    let constraint = parameters.constraints.as_ref().map_or(Ok(None), constraint)?;
    let key = request.key_by_id("CreateGrant")?;
    match key.state {
        KeyState::PendingDeletion { .. } => return Err(key.pending_deletion()),
        KeyState::Disabled => {
            return Err(ApiError::new("DisabledException", format!("{} is disabled.", key.arn)));
        }
        KeyState::Enabled => {}
    }
    request.refuse_dry_run()?;
    let grant = Grant {
        id: hex(&random::array::<32>()),
        token: token(),
        name: parameters.name.clone(),
        grantee: grantee.clone(),
        retiring: parameters.retiring_principal.clone(),
        operations: operations.clone(),
        constraint,
        created: request.now(),
    };
    let answer = answer([("GrantToken", grant.token.clone().into()), ("GrantId", grant.id.clone().into())]);
    request.kms.store.change_key(&key, |key| {
        if key.grants.len() >= GRANTS_PER_KEY {
            return Err(ApiError::bare("LimitExceededException"));
        }
        key.grants.push(grant);
        Ok(answer)
    })
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_ListGrants.html>
pub(super) fn list(request: &Request<'_>) -> Result<Answer, ApiError> {
    let parameters = request.parameters;
    let key = request.key_by_id("ListGrants")?;
    let mut grants: Vec<&Grant> = key
        .grants
        .iter()
        .filter(|grant| parameters.grant_id.as_ref().is_none_or(|id| *id == grant.id))
        .filter(|grant| parameters.grantee_principal.as_ref().is_none_or(|grantee| *grantee == grant.grantee))
        .collect();
    grants.sort_by(|one, other| one.id.cmp(&other.id));
    let items = grants.into_iter().map(|grant| (grant.id.as_str(), listed(&key, grant)));
    Ok(page("Grants", items, parameters, LIST_GRANTS_DEFAULT))
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_RevokeGrant.html>
pub(super) fn revoke(request: &Request<'_>) -> Result<Answer, ApiError> {
    let id = required("grantId", request.parameters.grant_id.as_ref())?;
    let key = request.key_by_id("RevokeGrant")?;
    find(&key, id)?;
    request.refuse_dry_run()?;
    remove(request, &key, id)
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_RetireGrant.html>
pub(super) fn retire(request: &Request<'_>) -> Result<Answer, ApiError> {
    let parameters = request.parameters;
    let (key, id) = match (&parameters.grant_token, &parameters.grant_id) {
        (Some(token), None) => {
            let of_token = |key: &Key| key.grants.iter().find(|grant| grant.token == *token).cloned();
            let found = request.state.keys.values().find_map(|key| Some((key.clone(), of_token(key)?)));
            let (key, grant) = found.ok_or_else(|| ApiError::bare("InvalidGrantTokenException"))?;
            (key, grant.id)
        }
        (None, Some(id)) => {
            let key_id = required("keyId", parameters.key_id.as_ref())?;
            (request.kms.store.find_by_id(&request.state, key_id, "RetireGrant")?, id.clone())
        }
        _ => return Err(ApiError::validation("Give a grant token, or a key id and a grant id.")),
    };
    if !find(&key, &id)?.may_be_retired_by(request.caller) {
        request.permit(&key, "RetireGrant", None)?;
    }
    request.refuse_dry_run()?;
    remove(request, &key, &id)
}

fn find<'a>(key: &'a Key, id: &str) -> Result<&'a Grant, ApiError> {
    let grant = key.grants.iter().find(|grant| grant.id == id);
    grant.ok_or_else(|| ApiError::not_found(format!("Grant {id} is not found on {}.", key.arn)))
}

fn remove(request: &Request<'_>, key: &Key, id: &str) -> Result<Answer, ApiError> {
    request.kms.store.change_key(key, |key| {
        key.grants.retain(|grant| grant.id != id);
        Ok(Answer::new())
    })
}

fn check_principal(principal: &str) -> Result<(), ApiError> {
    let parts: Vec<&str> = principal.splitn(6, ':').collect();
    match parts.as_slice() {
        ["arn", _, "iam" | "sts", "", account, resource] if account.len() == 12 && !resource.is_empty() => {
            Ok(())
        }
        _ => Err(ApiError::new("InvalidArnException", format!("Invalid arn {principal}"))),
    }
}

fn constraint(parameters: &ConstraintParameters) -> Result<Option<Constraint>, ApiError> {
    match (&parameters.encryption_context_equals, &parameters.encryption_context_subset) {
        (None, None) => Ok(None),
        (Some(context), None) => Ok(Some(Constraint::Equals(context.clone()))),
        (None, Some(context)) => Ok(Some(Constraint::Subset(context.clone()))),
        (Some(_), Some(_)) => {
            Err(ApiError::validation("A grant has one constraint on the encryption context."))
        }
    }
}

fn listed(key: &Key, grant: &Grant) -> Value {
    let mut members = json!({
        "KeyId": key.arn, "GrantId": grant.id, "Name": grant.name.as_deref().unwrap_or_default(),
        "CreationDate": epoch_seconds(grant.created), "GranteePrincipal": grant.grantee,
        "Operations": grant.operations,
    });
    if let Some(retiring) = &grant.retiring {
        members["RetiringPrincipal"] = retiring.as_str().into();
    }
    match &grant.constraint {
        Some(Constraint::Equals(context)) => {
            members["Constraints"] = json!({ "EncryptionContextEquals": context });
        }
        Some(Constraint::Subset(context)) => {
            members["Constraints"] = json!({ "EncryptionContextSubset": context });
        }
        None => {}
    }
    members
}

/// Base64 that nobody can guess.
fn token() -> String {
    match super::base64(&random::array::<96>()) {
        Value::String(token) => token,
        _ => String::new(),
    }
}

/// <https://docs.aws.amazon.com/kms/latest/developerguide/resource-limits.html>
const GRANTS_PER_KEY: usize = 50_000;

/// How many grants a page of `ListGrants` has unless the caller says.
const LIST_GRANTS_DEFAULT: usize = 50;

/// Every `GrantOperation` of AWS's model.
const GRANT_OPERATIONS: [&str; 17] = [
    "Decrypt",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyWithoutPlaintext",
    "ReEncryptFrom",
    "ReEncryptTo",
    "Sign",
    "Verify",
    "GetPublicKey",
    "CreateGrant",
    "RetireGrant",
    "DescribeKey",
    "GenerateDataKeyPair",
    "GenerateDataKeyPairWithoutPlaintext",
    "GenerateMac",
    "VerifyMac",
    "DeriveSharedSecret",
];
