//! What `userIdentity` may contain: AWS principals in KMS records, workloads in activity records.

use super::{demand, is_account, is_object, is_there, known};
use crate::record::{BROKER, IdentityKind, UserIdentity};

/// Checks the identity in a KMS record of a trail of this account.
pub(super) fn check_aws(identity: &UserIdentity<'_>, account_id: &str) -> Result<(), String> {
    let UserIdentity { kind, principal_id, arn, user_name, session_context, details, .. } = identity;
    demand(details.is_none(), "userIdentity has details, which only workloads have")?;
    let Some(arn) = arn else { return check_unidentified(identity) };
    let is_role = match known(kind) {
        Some(IdentityKind::AssumedRole) => true,
        Some(
            IdentityKind::IAMUser | IdentityKind::Root | IdentityKind::FederatedUser | IdentityKind::Unknown,
        ) => false,
        Some(
            IdentityKind::UnixWorkload
            | IdentityKind::SpiffeWorkload
            | IdentityKind::EnclaveWorkload
            | IdentityKind::Broker,
        )
        | None => return Err("userIdentity.type is none of AWS's".into()),
    };
    demand(is_there(principal_id.as_ref()), "userIdentity.principalId is empty")?;
    demand(arn.starts_with("arn:aws"), "userIdentity.arn is no ARN")?;
    demand(
        identity.account_id.as_deref().is_some_and(is_account),
        "userIdentity.accountId is not 12 digits",
    )?;
    let account = identity.account_id.as_deref();
    demand(arn.split(':').nth(4) == account, "userIdentity.accountId is not that of userIdentity.arn")?;
    if !is_role {
        return demand(
            account == Some(account_id),
            "userIdentity.accountId is another account than the trail's: only a role's session may be of one",
        );
    }
    let Some(context) = session_context else { return Err("userIdentity is no assumed role's".into()) };
    demand(
        arn.contains(":assumed-role/")
            && principal_id.as_ref().is_some_and(|id| id.contains(':'))
            && user_name.is_none(),
        "userIdentity is no assumed role's",
    )?;
    let issuer = &context.session_issuer;
    let suffix = format!("/{}", &*issuer.user_name);
    demand(
        issuer.arn.as_ref().is_none_or(|arn| arn.contains(":role/") && arn.ends_with(&suffix)),
        "sessionIssuer.arn is not that of the role",
    )
}

/// Until STS has returned the owner of an access key, a record has the key alone; anything more would be unreliable.
fn check_unidentified(identity: &UserIdentity<'_>) -> Result<(), String> {
    demand(
        known(&identity.kind) == Some(IdentityKind::Unknown) && is_there(identity.access_key_id.as_ref()),
        "userIdentity.arn is missing: then its type is Unknown, and it has an accessKeyId",
    )?;
    demand(
        identity.principal_id.is_none()
            && identity.account_id.is_none()
            && identity.user_name.is_none()
            && identity.session_context.is_none(),
        "userIdentity has an access key alone, or all that STS tells of it",
    )
}

/// Checks the identity in a `ReportIdentity` record.
pub(super) fn check_reported(identity: &UserIdentity<'_>, account_id: &str) -> Result<(), String> {
    demand(
        identity.arn.is_some() && is_there(identity.access_key_id.as_ref()) && identity.invoked_by.is_none(),
        "additionalEventData.identity does not tell whose an access key is",
    )?;
    check_aws(identity, account_id).map_err(|why| format!("additionalEventData.identity: {why}"))
}

/// Checks the identity in an activity record.
pub(super) fn check_workload(identity: &UserIdentity<'_>, is_own: bool) -> Result<(), String> {
    demand(is_there(identity.principal_id.as_ref()), "userIdentity.principalId is empty")?;
    let fits = match known(&identity.kind) {
        Some(
            IdentityKind::UnixWorkload
            | IdentityKind::SpiffeWorkload
            | IdentityKind::EnclaveWorkload
            | IdentityKind::Unknown,
        ) => !is_own,
        Some(IdentityKind::Broker) => {
            is_own && identity.principal_id.as_deref() == Some(BROKER) && identity.details.is_none()
        }
        Some(
            IdentityKind::AssumedRole
            | IdentityKind::IAMUser
            | IdentityKind::Root
            | IdentityKind::FederatedUser,
        )
        | None => false,
    };
    demand(fits, "userIdentity.type is no workload's, nor the broker's in a record of its own")?;
    demand(
        identity.arn.is_none()
            && identity.account_id.is_none()
            && identity.access_key_id.is_none()
            && identity.user_name.is_none()
            && identity.session_context.is_none()
            && identity.invoked_by.is_none(),
        "userIdentity has what only AWS's principals have",
    )?;
    demand(identity.details.as_ref().is_none_or(is_object), "userIdentity.details is not an object")
}
