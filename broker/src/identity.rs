//! Who calls: what a connection proves, made into a [`Principal`] that policy can name.

pub mod spiffe;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use serde::Serialize;
use sha2::{Digest, Sha256};
use webpki::EndEntityCert;

use crate::audit::record::PeerDetails;
use spiffe::SpiffeId;

/// The other end of a connection, as far as the broker can know it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Who it is.
    pub principal: Principal,
    /// What proves that.
    pub kind: PeerKind,
    /// The record's `sourceIPAddress`: an address, `unix`, or `vsock:CID`.
    pub source: String,
    /// What the connection told.
    pub details: PeerDetails,
}

/// Who calls. Unknown is a principal too: policy may name it, and nothing else is permitted to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// A workload that the connection proves: `spiffe://example.org/orders`, `unix:uid/1000`, `vsock:cid/16`.
    Workload(Arc<str>),
    /// Whoever the connection does not prove to be anybody.
    Unknown,
}

/// What proves who calls: the record's `userIdentity.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum PeerKind {
    /// The kernel, which tells whose process is at the other end of a unix socket.
    UnixWorkload,
    /// A client certificate.
    SpiffeWorkload,
    /// The hypervisor, which tells whose virtual machine is at the other end of a vsock connection. What runs in it, only an
    /// attestation document proves.
    EnclaveWorkload,
    /// Nothing.
    Unknown,
}

/// Which connections are which workloads, where that takes the operator's word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identities {
    /// Processes on the unix socket; the first that matches holds. The others are `unix:uid/UID`.
    pub unix: Vec<UnixIdentity>,
    /// DNS names of certificates that have no SPIFFE ID.
    pub dns: HashMap<String, SpiffeId>,
    /// The only trust domain whose SPIFFE IDs count, if there is one.
    pub trust_domain: Option<String>,
}

/// A workload on the unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixIdentity {
    /// Its user id, if that counts.
    pub uid: Option<u32>,
    /// Its group id, if that counts.
    pub gid: Option<u32>,
    /// Who it is.
    pub principal: SpiffeId,
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
        let uid = |text: &str| text.strip_prefix("unix:uid/").and_then(|uid| uid.parse::<u32>().ok());
        let cid = |text: &str| text.strip_prefix("vsock:cid/").and_then(|cid| cid.parse::<u32>().ok());
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
                "{text:?} is no principal: write spiffe://TRUST-DOMAIN/PATH, unix:uid/UID, vsock:cid/CID or unknown"
            ))
        }
    }

    fn of_uid(uid: u32) -> Self {
        Self::Workload(format!("unix:uid/{uid}").into())
    }

    fn of_cid(cid: u32) -> Self {
        Self::Workload(format!("vsock:cid/{cid}").into())
    }
}

impl From<SpiffeId> for Principal {
    fn from(id: SpiffeId) -> Self {
        Self::Workload(id.into())
    }
}

impl Peer {
    /// The process at the other end of a unix socket, as the kernel tells (`SO_PEERCRED`, unix(7)). A process id of 0 is one of
    /// another namespace, such as another container's, and left out.
    #[must_use]
    pub fn unix(identities: &Identities, uid: u32, gid: u32, pid: Option<i32>) -> Self {
        let is = |wanted: Option<u32>, id| wanted.is_none_or(|wanted| wanted == id);
        let mapped = identities.unix.iter().find(|known| is(known.uid, uid) && is(known.gid, gid));
        Self {
            principal: mapped.map_or_else(|| Principal::of_uid(uid), |known| known.principal.clone().into()),
            kind: PeerKind::UnixWorkload,
            source: "unix".into(),
            details: PeerDetails::unix(uid, gid, pid.filter(|pid| *pid != 0)),
        }
    }

    /// The virtual machine with this context id, as the hypervisor tells (vsock(7)).
    #[must_use]
    pub fn vsock(cid: u32) -> Self {
        Self {
            principal: Principal::of_cid(cid),
            kind: PeerKind::EnclaveWorkload,
            source: format!("vsock:{cid}"),
            details: PeerDetails { cid: Some(cid), ..PeerDetails::of("vsock") },
        }
    }

    /// Whoever connected to the plaintext TCP port.
    #[must_use]
    pub fn insecure_tcp(address: IpAddr) -> Self {
        let (source, details) = (address.to_string(), PeerDetails::of("tcp"));
        Self { principal: Principal::Unknown, kind: PeerKind::Unknown, source, details }
    }

    /// Who has shown this certificate, which chains to a trusted root.
    #[must_use]
    pub fn tls(identities: &Identities, address: IpAddr, certificate: &CertificateDer<'_>) -> Self {
        let (principal, dns_name) = identities.of_certificate(certificate);
        let kind = match principal {
            Principal::Workload(_) => PeerKind::SpiffeWorkload,
            Principal::Unknown => PeerKind::Unknown,
        };
        let certificate_sha256 = Some(hex::encode(Sha256::digest(certificate)).into());
        let details = PeerDetails { certificate_sha256, dns_name, ..PeerDetails::of("tls") };
        Self { principal, kind, source: address.to_string(), details }
    }
}

impl Identities {
    /// A SPIFFE ID, or a DNS name that the operator has told of. An X.509-SVID has exactly one URI
    /// (<https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md>, 2); where there are more, or one that is no
    /// SPIFFE ID, nobody is proved, whatever else the certificate says.
    fn of_certificate(&self, certificate: &CertificateDer<'_>) -> (Principal, Option<Arc<str>>) {
        let unknown = (Principal::Unknown, None);
        let Ok(certificate) = EndEntityCert::try_from(certificate) else { return unknown };
        let uris: Vec<&str> = certificate.valid_uri_names().take(2).collect();
        match uris[..] {
            [uri] => match SpiffeId::parse(uri) {
                Ok(id) if self.trusts(&id) => (id.into(), None),
                _ => unknown,
            },
            [] => {
                let mut known = certificate
                    .valid_dns_names()
                    .filter_map(|name| self.dns.get_key_value(&name.to_ascii_lowercase()));
                match (known.next(), known.next()) {
                    (Some((name, id)), None) => (id.clone().into(), Some(name.as_str().into())),
                    _ => unknown,
                }
            }
            _ => unknown,
        }
    }

    fn trusts(&self, id: &SpiffeId) -> bool {
        self.trust_domain.as_ref().is_none_or(|domain| domain == id.trust_domain())
    }
}
