//! The caller, by the name used in policies and records.

use std::sync::Arc;

use crate::spiffe::SpiffeId;

/// A caller's identity. Policy may name the unknown principal too; it gets only what a policy permits to it by that name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Principal {
    /// A workload that the connection proves: `spiffe://example.org/orders`, `unix:uid/1000`, `vsock:cid/16`.
    Workload(Arc<str>),
    /// A caller whose connection proves no identity.
    Unknown,
}

impl Principal {
    /// The name in policy and records.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Workload(name) => name,
            Self::Unknown => "unknown",
        }
    }

    /// The principal that is written so; only what a connection can prove is one.
    pub fn parse(text: &str) -> Result<Self, String> {
        // One principal has one name: 007 and +7 would be names that no connection has.
        let number = |digits: &str| {
            let number = digits.parse::<u32>().ok()?;
            (number.to_string() == digits).then_some(number)
        };
        let uid = |text: &str| text.strip_prefix("unix:uid/").and_then(number);
        let cid = |text: &str| text.strip_prefix("vsock:cid/").and_then(number);
        if text == "unknown" {
            Ok(Self::Unknown)
        } else if let Some(uid) = uid(text) {
            Ok(Self::of_uid(uid))
        } else if let Some(cid) = cid(text) {
            Ok(Self::of_cid(cid))
        } else if text.starts_with("spiffe://") {
            SpiffeId::parse(text).map(Into::into)
        } else {
            Err(format!(
                "{text:?} is not a principal: write spiffe://TRUST-DOMAIN/PATH, unix:uid/UID, vsock:cid/CID or unknown"
            ))
        }
    }

    /// The user of a process on the unix socket.
    #[must_use]
    pub fn of_uid(uid: u32) -> Self {
        Self::Workload(format!("unix:uid/{uid}").into())
    }

    /// A virtual machine, by its context id (vsock(7)).
    #[must_use]
    pub fn of_cid(cid: u32) -> Self {
        Self::Workload(format!("vsock:cid/{cid}").into())
    }
}

impl From<SpiffeId> for Principal {
    fn from(id: SpiffeId) -> Self {
        Self::Workload(id.into())
    }
}

#[cfg(test)]
mod tests {
    //! Whatever is read as a principal is written as it was: a policy or rule that names it means it.

    use super::*;

    #[test]
    fn a_principal_has_one_name() {
        for name in ["unix:uid/0", "unix:uid/4294967295", "vsock:cid/16", "spiffe://example.org/a", "unknown"]
        {
            assert_eq!(Principal::parse(name).expect(name).as_str(), name);
        }
        for name in [
            "unix:uid/007",
            "unix:uid/+7",
            "unix:uid:7",
            "unix:uid/",
            "unix:uid/4294967296",
            "vsock:cid/016",
            "",
        ] {
            assert!(Principal::parse(name).is_err(), "{name}");
        }
    }
}
