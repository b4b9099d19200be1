//! `userIdentity` of the two profiles.

use key_broker_core::{PeerDetails, PeerKind};
use serde::{Deserialize, Serialize};

use super::open::Open;
use super::text::Text;

/// The acting identity: the broker's AWS principal in a KMS record, a workload in an activity record.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UserIdentity<'a> {
    /// An `IdentityKind`; AWS's own records have more.
    #[serde(borrow, rename = "type")]
    pub kind: Text<'a>,
    /// STS's `UserId`; a workload's principal, as policy names it.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub principal_id: Option<Text<'a>>,
    /// STS's `Arn`.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub arn: Option<Text<'a>>,
    /// The account: 12 digits.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(crate) account_id: Option<Text<'a>>,
    /// The access key that signed the call.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<Text<'a>>,
    /// The user's name; `None` for a role.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(crate) user_name: Option<Text<'a>>,
    /// The origin of a role's session.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(crate) session_context: Option<SessionContext<'a>>,
    /// `key-broker` for calls that the broker makes for itself; in AWS's own records possibly an AWS service.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub invoked_by: Option<Text<'a>>,
    /// Details of a workload's connection. Later brokers may add some.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(crate) details: Option<Open<'a, &'a PeerDetails>>,
}

impl<'a> UserIdentity<'a> {
    /// A workload.
    #[must_use]
    pub fn workload(kind: PeerKind, principal_id: &'a str, details: &'a PeerDetails) -> Self {
        Self {
            kind: IdentityKind::from(kind).name().into(),
            principal_id: Some(principal_id.into()),
            details: Some(Open::Written(details)),
            ..Self::default()
        }
    }
}

/// The kinds of identities in a broker's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum IdentityKind {
    /// A role session.
    AssumedRole,
    IAMUser,
    /// The root user of the account.
    Root,
    FederatedUser,
    /// See [`PeerKind`].
    UnixWorkload,
    /// See [`PeerKind`].
    SpiffeWorkload,
    /// See [`PeerKind`].
    EnclaveWorkload,
    /// The broker itself, in activity records of its own.
    Broker,
    /// An AWS principal of another kind, or a workload about which nothing is proven.
    Unknown,
}

impl IdentityKind {
    /// The word in records.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::AssumedRole => "AssumedRole",
            Self::IAMUser => "IAMUser",
            Self::Root => "Root",
            Self::FederatedUser => "FederatedUser",
            Self::UnixWorkload => "UnixWorkload",
            Self::SpiffeWorkload => "SpiffeWorkload",
            Self::EnclaveWorkload => "EnclaveWorkload",
            Self::Broker => "Broker",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<PeerKind> for IdentityKind {
    fn from(kind: PeerKind) -> Self {
        match kind {
            PeerKind::UnixWorkload => Self::UnixWorkload,
            PeerKind::SpiffeWorkload => Self::SpiffeWorkload,
            PeerKind::EnclaveWorkload => Self::EnclaveWorkload,
            PeerKind::Unknown => Self::Unknown,
        }
    }
}

/// `sessionContext` of an assumed role, from its ARN. STS does not say when the session began, so that is left out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SessionContext<'a> {
    /// The role.
    #[serde(borrow)]
    pub(crate) session_issuer: SessionIssuer<'a>,
}

/// The role behind a session.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SessionIssuer<'a> {
    /// `Role`.
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Text<'a>,
    /// The role's unique id.
    #[serde(borrow)]
    pub(crate) principal_id: Text<'a>,
    /// The role's ARN. Earlier brokers left it out.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(crate) arn: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) account_id: Text<'a>,
    /// The role's name.
    #[serde(borrow)]
    pub(crate) user_name: Text<'a>,
}
