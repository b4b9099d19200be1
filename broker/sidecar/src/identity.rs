//! The caller: turns what a connection proves into a [`Principal`] that policies can name.

mod peer;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use key_broker_core::{PeerDetails, PeerKind, Principal, SpiffeId, Transport};
pub(crate) use peer::Peer;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use webpki::EndEntityCert;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// The operator's mapping of connections to workloads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identities {
    /// Processes on the unix socket; the first that matches holds. The others are `unix:uid/UID`.
    pub unix: Vec<UnixIdentity>,
    /// DNS names of certificates that have no SPIFFE ID.
    pub dns: HashMap<String, SpiffeId>,
    /// The only trust domain whose SPIFFE IDs count, if there is one.
    pub trust_domain: Option<String>,
    /// The ids that stand for every user and group without one in this user namespace, if it is not the machine's own.
    pub overflow: Option<OverflowIds>,
}

/// The kernel's id for all users and groups that a user namespace does not map (`user_namespaces(7)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverflowIds {
    /// For users.
    pub uid: u32,
    /// For groups.
    pub gid: u32,
}

/// A workload on the unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixIdentity {
    /// Its user id, if that counts.
    pub uid: Option<u32>,
    /// Its group id, if that counts.
    pub gid: Option<u32>,
    /// The workload's identity.
    pub principal: SpiffeId,
}

impl Identities {
    /// The process at the other end of a unix socket, from the kernel (`SO_PEERCRED`, unix(7)). A process id of 0 is one of
    /// another namespace, such as another container's, and left out. A user that may be any of many is nobody.
    #[must_use]
    pub(crate) fn unix_peer(&self, uid: u32, gid: u32, pid: Option<i32>) -> Peer {
        let user = self.overflow.is_none_or(|overflow| overflow.uid != uid).then_some(uid);
        let group = self.overflow.is_none_or(|overflow| overflow.gid != gid).then_some(gid);
        let is = |wanted: Option<u32>, id: Option<u32>| wanted.is_none() || wanted == id;
        let mapped = self.unix.iter().find(|known| is(known.uid, user) && is(known.gid, group));
        let principal = match (mapped, user) {
            (Some(known), _) => known.principal.clone().into(),
            (None, Some(uid)) => Principal::of_uid(uid),
            (None, None) => Principal::Unknown,
        };
        let kind = match principal {
            Principal::Workload(_) => PeerKind::UnixWorkload,
            Principal::Unknown => PeerKind::Unknown,
        };
        let details = PeerDetails::unix(uid, gid, pid.filter(|pid| *pid != 0));
        Peer { principal, kind, source: "unix".into(), details }
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

impl OverflowIds {
    /// Those of this process; none in a namespace in which every id is its own.
    #[must_use]
    pub(crate) fn of_this_process() -> Option<Self> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        if [read("/proc/self/uid_map"), read("/proc/self/gid_map")].iter().all(|map| Self::maps_all(map)) {
            return None;
        }
        // The kernel's own default.
        let id = |name: &str| read(&format!("/proc/sys/kernel/{name}")).trim().parse().unwrap_or(65_534);
        Some(Self { uid: id("overflowuid"), gid: id("overflowgid") })
    }

    /// Whether a map maps each id to itself. Without a map there are no namespaces.
    fn maps_all(map: &str) -> bool {
        let fields: Vec<_> = map.split_whitespace().collect();
        fields.is_empty() || fields == ["0", "0", "4294967295"]
    }
}

impl Identities {
    /// A SPIFFE ID, or a DNS name that the operator has mapped to one. An X.509-SVID has exactly one URI
    /// (<https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md>, 2); where there are more, or one that is no
    /// SPIFFE ID, nobody is proved, whatever else the certificate says.
    fn of_certificate(&self, certificate: &CertificateDer<'_>) -> (Principal, Option<Arc<str>>) {
        let unknown = (Principal::Unknown, None);
        let Some(uris) = uris_of(certificate) else { return unknown };
        let Ok(certificate) = EndEntityCert::try_from(certificate) else { return unknown };
        match &uris[..] {
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

/// All URIs that a certificate names; none where its names cannot be read, if only one of them: webpki leaves such a name out.
fn uris_of(certificate: &CertificateDer<'_>) -> Option<Vec<String>> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let names = certificate.tbs_certificate().get_extension::<SubjectAltName>().ok()?;
    let names = names.map_or_else(Vec::new, |(_, names)| names.0);
    let uris = names.iter().filter_map(|name| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
        _ => None,
    });
    Some(uris.collect())
}

#[cfg(test)]
mod tests {
    //! In a user namespace, users that it does not map are nobody: not one workload that all of them are. A certificate with a name that
    //! cannot be read proves nobody, whatever its other names are.

    use super::*;

    #[test]
    fn users_without_an_id_of_their_own_are_nobody() {
        let orders: SpiffeId = SpiffeId::parse("spiffe://example.org/orders").expect("an id");
        let by = |uid, gid| UnixIdentity { uid, gid, principal: orders.clone() };
        let unix = vec![by(Some(65_534), None), by(None, Some(65_533)), by(None, Some(7))];
        let machine = Identities { unix: unix.clone(), ..Identities::default() };
        let overflow = Some(OverflowIds { uid: 65_534, gid: 65_533 });
        let namespace = Identities { unix, overflow, ..Identities::default() };
        let who = |identities: &Identities, uid, gid| {
            let peer = identities.unix_peer(uid, gid, None);
            (peer.principal.as_str().to_owned(), peer.kind)
        };
        let known = ("spiffe://example.org/orders".to_owned(), PeerKind::UnixWorkload);
        assert_eq!(who(&machine, 65_534, 1), known);
        assert_eq!(who(&machine, 1, 65_533), known);
        assert_eq!(who(&namespace, 65_534, 1), ("unknown".to_owned(), PeerKind::Unknown));
        assert_eq!(who(&namespace, 1, 65_533), ("unix:uid/1".to_owned(), PeerKind::UnixWorkload));
        assert_eq!(who(&namespace, 65_534, 7), known, "its group proves it");
    }

    #[test]
    fn a_name_that_cannot_be_read_is_not_passed_over() {
        let who = |uris: &[&[u8]]| {
            // SEQUENCE OF [6] IA5String (RFC 5280, 4.2.1.6); short enough for lengths of one byte.
            let tagged =
                |tag, bytes: &[u8]| [&[tag, u8::try_from(bytes.len()).expect("short")], bytes].concat();
            let names = tagged(0x30, &uris.iter().flat_map(|uri| tagged(0x86, uri)).collect::<Vec<u8>>());
            let names = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 17], names);
            let mut params = rcgen::CertificateParams::default();
            params.custom_extensions.push(names);
            let key = rcgen::KeyPair::generate().expect("a key");
            let certificate = params.self_signed(&key).expect("signs");
            Identities::default().of_certificate(certificate.der()).0.as_str().to_owned()
        };
        let (orders, unreadable) = (b"spiffe://example.org/orders", b"spiffe://example.org/\xff");
        assert_eq!(who(&[orders]), "spiffe://example.org/orders");
        assert_eq!(who(&[orders, unreadable]), "unknown");
        assert_eq!(who(&[unreadable, orders]), "unknown");
        assert_eq!(who(&[unreadable]), "unknown");
    }

    #[test]
    fn maps_of_namespaces() {
        assert!(OverflowIds::maps_all("         0          0 4294967295\n"));
        assert!(OverflowIds::maps_all(""));
        assert!(!OverflowIds::maps_all("         0       1000          1\n"));
        assert!(!OverflowIds::maps_all("0 0 1000\n1000 100000 64536\n"));
    }
}
