//! A certificate authority for tests.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use key_broker_client::Tls as ClientTls;
use key_broker_core::clock::{Clock as _, SystemClock};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use tokio_rustls::TlsConnector;

/// Signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub struct Leaf {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("signs"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// For an hour from now.
    pub fn leaf(&self, names: Vec<SanType>) -> Leaf {
        self.leaf_until(names, Duration::from_hours(1), true)
    }

    /// It expired a minute ago.
    pub fn expired(&self, names: Vec<SanType>) -> Leaf {
        self.leaf_until(names, Duration::from_mins(1), false)
    }

    fn leaf_until(&self, names: Vec<SanType>, away: Duration, ahead: bool) -> Leaf {
        let now = SystemClock.now();
        let until = if ahead { now + away } else { now - away };
        self.leaf_between(names, now - Duration::from_hours(2), until)
    }

    /// Valid from then to then.
    pub fn leaf_between(&self, names: Vec<SanType>, from: OffsetDateTime, until: OffsetDateTime) -> Leaf {
        let mut params = CertificateParams::default();
        // Another name than the authority's: BoringSSL takes one that is its issuer's for self-signed.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        (params.not_before, params.not_after) = (from, until);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("signs");
        Leaf { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Leaf {
    /// A client that shows it and trusts `authority`.
    pub fn client(&self, authority: &Authority) -> ClientTls {
        ClientTls {
            certificate: self.certificate.clone().into_bytes(),
            key: self.key.clone().into_bytes().into(),
            trust_bundle: authority.pem().into_bytes(),
            server_name: SERVER.into(),
        }
    }

    /// The same for a client that speaks TLS by hand: HTTP/2 over it.
    pub fn connector(&self, authority: &Authority) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        let of_pem = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        roots.add(of_pem(&authority.pem())).expect("an authority");
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).expect("TLS 1.3");
        let config = config.with_root_certificates(roots);
        let mut config =
            config.with_client_auth_cert(vec![of_pem(&self.certificate)], key).expect("they fit");
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config).into()
    }

    /// Writes it, with a trust bundle, as a secret volume does: into a folder of its own, to which a link then points.
    pub fn write(&self, dir: &Path, bundle: &str) {
        static VERSION: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let version = VERSION.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (folder, link) = (dir.join(format!("v{version}")), dir.join(format!("link{version}")));
        std::fs::create_dir(&folder).expect("makes");
        for (name, text) in [("tls.crt", &*self.certificate), ("tls.key", &self.key), ("ca.crt", bundle)] {
            std::fs::write(folder.join(name), text).expect("writes");
        }
        std::os::unix::fs::symlink(&folder, &link).expect("links");
        std::fs::rename(link, dir.join("current")).expect("swaps");
    }
}

pub fn uri(text: &str) -> SanType {
    SanType::URI(Ia5String::try_from(text).expect("ASCII"))
}

pub fn dns(text: &str) -> SanType {
    SanType::DnsName(Ia5String::try_from(text).expect("ASCII"))
}

/// The broker's name.
pub const SERVER: &str = "broker.test";
