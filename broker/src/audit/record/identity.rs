//! `userIdentity` of the two profiles.

use std::sync::Arc;

use serde::Serialize;

use crate::identity::PeerKind;

/// `userIdentity` of a KMS record.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AwsIdentity<'a> {
    /// `AssumedRole`, `IAMUser`, `Root` or `FederatedUser`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// STS's `UserId`.
    pub principal_id: &'a str,
    /// STS's `Arn`.
    pub arn: &'a str,
    /// The account: 12 digits.
    pub account_id: &'a str,
    /// The access key that signed the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<&'a str>,
    /// The user's name; none for a role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_name: Option<&'a str>,
    /// Where a role's session comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_context: Option<SessionContext<'a>>,
    /// `key-broker` on calls that the broker makes for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invoked_by: Option<&'static str>,
}

/// `sessionContext` of an assumed role: what its ARN tells. STS does not tell when the session began, nor the role's
/// path, so these are left out.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionContext<'a> {
    /// The role.
    pub session_issuer: SessionIssuer<'a>,
}

/// The role behind a session.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionIssuer<'a> {
    /// `Role`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The role's unique id.
    pub principal_id: &'a str,
    /// The account.
    pub account_id: &'a str,
    /// The role's name.
    pub user_name: &'a str,
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

/// What the connection told about the caller.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerDetails {
    /// `unix`, `tls`, `tcp` or `vsock`.
    pub transport: &'static str,
    /// The caller's user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The caller's group id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// The caller's process id, where it is visible from the broker's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The context id of the caller's virtual machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cid: Option<u32>,
    /// The SHA-256, in hex, of the client's certificate.
    #[serde(skip_serializing_if = "Option::is_none", rename = "certificateSHA256")]
    pub certificate_sha256: Option<Arc<str>>,
    /// The certificate's DNS name, where that is what the caller is known by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_name: Option<Arc<str>>,
}

impl PeerDetails {
    /// A process on a unix socket.
    #[must_use]
    pub const fn unix(uid: u32, gid: u32, pid: Option<i32>) -> Self {
        let (uid, gid) = (Some(uid), Some(gid));
        Self { transport: "unix", uid, gid, pid, cid: None, certificate_sha256: None, dns_name: None }
    }

    /// A connection that tells nothing.
    #[must_use]
    pub fn of(transport: &'static str) -> Self {
        Self {
            transport,
            uid: None,
            gid: None,
            pid: None,
            cid: None,
            certificate_sha256: None,
            dns_name: None,
        }
    }
}
