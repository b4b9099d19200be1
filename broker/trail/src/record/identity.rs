//! `userIdentity` of the two profiles.

use key_broker_core::{PeerDetails, PeerKind};
use serde::Serialize;

/// `userIdentity` of a KMS record.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AwsIdentity<'a> {
    /// `AssumedRole`, `IAMUser`, `Root` or `FederatedUser`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// STS's `UserId`.
    pub(crate) principal_id: &'a str,
    /// STS's `Arn`.
    pub(crate) arn: &'a str,
    /// The account: 12 digits.
    pub(crate) account_id: &'a str,
    /// The access key that signed the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) access_key_id: Option<&'a str>,
    /// The user's name; none for a role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_name: Option<&'a str>,
    /// Where a role's session comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session_context: Option<SessionContext<'a>>,
    /// `key-broker` on calls that the broker makes for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invoked_by: Option<&'static str>,
}

/// `sessionContext` of an assumed role: what its ARN tells. STS does not tell when the session began, nor the role's
/// path, so these are left out.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionContext<'a> {
    /// The role.
    pub(crate) session_issuer: SessionIssuer<'a>,
}

/// The role behind a session.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionIssuer<'a> {
    /// `Role`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// The role's unique id.
    pub(crate) principal_id: &'a str,
    /// The account.
    pub(crate) account_id: &'a str,
    /// The role's name.
    pub(crate) user_name: &'a str,
}

/// `userIdentity` of an activity record.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadIdentity<'a> {
    /// `UnixWorkload`, `SpiffeWorkload`, `EnclaveWorkload` or `Unknown`.
    #[serde(rename = "type")]
    pub kind: PeerKind,
    /// The principal as policy names it.
    pub principal_id: &'a str,
    /// What the connection told.
    pub details: &'a PeerDetails,
}
