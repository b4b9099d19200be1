//! TCP with mutual TLS 1.3: certificate, key and trust bundle come from files that may be replaced while connections are open.
//!
//! Changed files are read again, whether they were rewritten or a symlink was swapped, as cert-manager, SPIRE's helper and secret
//! volumes do. They take effect together, for new connections, and only if all are complete and match; otherwise the previous ones
//! stay in force.

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, version};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::time::Time;
use zeroize::Zeroizing;

use crate::watched::{Reloaded, WatchedFile};

/// The files with the broker's certificate and the authorities that it trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The broker's certificate, followed by its intermediate certificates, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// The authorities that sign accepted client certificates, in PEM.
    pub trust_bundle: PathBuf,
}

/// TLS with the certificates in force, which a reload replaces.
#[derive(Clone)]
pub struct Tls {
    files: TlsFiles,
    watched: Arc<Mutex<WatchedFiles>>,
    state: Arc<ArcSwap<TlsState>>,
}

/// Certificate, key and trust bundle.
type WatchedFiles = [WatchedFile; 3];

/// The validated contents of the files.
struct TlsState {
    digest: [u8; 32],
    config: Arc<ServerConfig>,
    validity: CertificateValidity,
}

/// The validity period of the broker's certificate.
#[derive(Debug, Clone, Copy)]
struct CertificateValidity {
    from: OffsetDateTime,
    until: OffsetDateTime,
}

/// The files' bytes before validation. Dropping them erases the private key.
struct TlsFileContents {
    certificate: Zeroizing<Vec<u8>>,
    key: Zeroizing<Vec<u8>>,
    trust_bundle: Zeroizing<Vec<u8>>,
}

impl Tls {
    /// Reads the files.
    pub fn load(files: &TlsFiles) -> Result<Self, String> {
        let (certificate_file, certificate) = WatchedFile::open(&files.certificate)?;
        let (key_file, key) = WatchedFile::open(&files.key)?;
        let (bundle_file, trust_bundle) = WatchedFile::open(&files.trust_bundle)?;
        let state = TlsFileContents { certificate, key, trust_bundle }.check(files)?;
        let watched = Arc::new(Mutex::new([certificate_file, key_file, bundle_file]));
        Ok(Self { files: files.clone(), watched, state: Arc::new(ArcSwap::from_pointee(state)) })
    }

    /// Reads the files again. Nothing changes if they do not match, or may still be being written.
    /// Blocks.
    pub(crate) fn reload(&self, now: Instant) -> Result<Reloaded, String> {
        // The files may have been swapped between two reads, so this tries once more.
        self.reload_once(now).or_else(|_| {
            std::thread::sleep(SWAP);
            self.reload_once(now)
        })
    }

    fn reload_once(&self, now: Instant) -> Result<Reloaded, String> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let (contents, are_whole) = TlsFileContents::look(&mut watched, now)?;
        if contents.digest() == self.state.load().digest {
            return Ok(Reloaded::Same);
        }
        if !are_whole {
            return Ok(Reloaded::NotYet);
        }
        self.state.store(Arc::new(contents.check(&self.files)?));
        Ok(Reloaded::Changed)
    }

    /// When the broker's certificate expires.
    #[must_use]
    pub(crate) fn expires_at(&self) -> OffsetDateTime {
        self.state.load().validity.until
    }

    /// Whether less than a tenth of its validity is left: SPIRE renews at half, cert-manager at two thirds.
    #[must_use]
    pub(crate) fn is_overdue(&self, now: OffsetDateTime) -> bool {
        let CertificateValidity { from, until } = self.state.load().validity;
        until - now < (until - from) / 10
    }

    /// Performs the handshake, within a time limit.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.state.load().config));
        match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(accepted) => accepted,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake takes too long")),
        }
    }
}

impl TlsFileContents {
    /// Reads the files and tells whether all are complete. It reads every one of them, so that later changes are noticed.
    fn look([certificate, key, bundle]: &mut WatchedFiles, now: Instant) -> Result<(Self, bool), String> {
        let (certificate, key, bundle) = (certificate.look(now), key.look(now), bundle.look(now));
        let (certificate, key, bundle) = (certificate?, key?, bundle?);
        let are_whole = certificate.is_whole && key.is_whole && bundle.is_whole;
        let contents = Self { certificate: certificate.bytes, key: key.bytes, trust_bundle: bundle.bytes };
        Ok((contents, are_whole))
    }

    /// A digest that changes with the files.
    fn digest(&self) -> [u8; 32] {
        let parts = [&self.certificate, &self.key, &self.trust_bundle].map(|part| Sha256::digest(&**part));
        Sha256::digest(parts.concat()).into()
    }

    fn check(self, files: &TlsFiles) -> Result<TlsState, String> {
        let chain = certificates(&self.certificate, &files.certificate)?;
        let validity = validity(&chain[0])
            .ok_or_else(|| format!("{}: not an X.509 certificate", files.certificate.display()))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| format!("{}: no private key in PEM: {error}", files.key.display()))?;
        let mut roots = RootCertStore::empty();
        for root in certificates(&self.trust_bundle, &files.trust_bundle)? {
            roots.add(root).map_err(|error| format!("{}: {error}", files.trust_bundle.display()))?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| format!("{}: {error}", files.trust_bundle.display()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| error.to_string())?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .map_err(|error| {
                format!("{} and {}: {error}", files.certificate.display(), files.key.display())
            })?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session shows no certificate, so neither its expiry nor a new trust bundle would be noticed.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(TlsState { digest: self.digest(), config: Arc::new(config), validity })
    }
}

/// All certificates in a file, of which there must be one.
fn certificates(text: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(format!("{}: no certificate in PEM", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn validity(certificate: &CertificateDer<'_>) -> Option<CertificateValidity> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let validity = certificate.tbs_certificate().validity();
    let moment = |time: Time| {
        let seconds = i64::try_from(time.to_unix_duration().as_secs()).ok()?;
        OffsetDateTime::from_unix_timestamp(seconds).ok()
    };
    Some(CertificateValidity { from: moment(validity.not_before)?, until: moment(validity.not_after)? })
}

/// Longer than swapping a symlink or a few small files takes.
const SWAP: Duration = Duration::from_millis(50);
/// Two round trips and a signature at each end, over a slow line.
const HANDSHAKE: Duration = Duration::from_secs(5);
