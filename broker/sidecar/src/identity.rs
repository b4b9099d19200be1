//! Who calls: what a connection proves, made into a [`Principal`] that policy can name.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use key_broker_core::{Peer, PeerDetails, PeerKind, Principal, SpiffeId, Transport};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use webpki::EndEntityCert;

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

impl Identities {
    /// The process at the other end of a unix socket, as the kernel tells (`SO_PEERCRED`, unix(7)). A process id of 0 is one of
    /// another namespace, such as another container's, and left out.
    #[must_use]
    pub(crate) fn unix_peer(&self, uid: u32, gid: u32, pid: Option<i32>) -> Peer {
        let is = |wanted: Option<u32>, id| wanted.is_none_or(|wanted| wanted == id);
        let mapped = self.unix.iter().find(|known| is(known.uid, uid) && is(known.gid, gid));
        Peer {
            principal: mapped.map_or_else(|| Principal::of_uid(uid), |known| known.principal.clone().into()),
            kind: PeerKind::UnixWorkload,
            source: "unix".into(),
            details: PeerDetails::unix(uid, gid, pid.filter(|pid| *pid != 0)),
        }
    }

    /// Who has shown this certificate, which chains to a trusted root.
    #[must_use]
    pub(crate) fn tls_peer(&self, address: IpAddr, certificate: &CertificateDer<'_>) -> Peer {
        let (principal, dns_name) = self.of_certificate(certificate);
        let kind = match principal {
            Principal::Workload(_) => PeerKind::SpiffeWorkload,
            Principal::Unknown => PeerKind::Unknown,
        };
        let certificate_sha256 = Some(hex::encode(Sha256::digest(certificate)).into());
        let details = PeerDetails { certificate_sha256, dns_name, ..PeerDetails::of(Transport::Tls) };
        Peer { principal, kind, source: address.to_string(), details }
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
