//! Whether a document may be believed: its form, its certificates, its signature.
//!
//! The broker verifies documents with code and a CBOR reader of its own, so that each checks the other.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use coset::{CborSerializable as _, CoseSign1, Header, HeaderBuilder, TaggedCborSerializable as _, iana};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::aws_lc_rs::ECDSA_P384_SHA384;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix;

use super::document::{Claims, Document};

/// Why a document is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DocumentError {
    /// Not a `COSE_Sign1` of the right form, or its payload is not a document.
    Malformed(String),
    /// Its certificates do not lead to a trusted root, or its leaf may not sign.
    Untrusted(String),
    /// A certificate of it is not valid any more, or not yet.
    Expired,
    /// The leaf did not sign it.
    Signature,
}

/// Verifies a document at a time in unix milliseconds, for somebody who trusts these root certificates (DER).
///
/// Certificates are not looked up in revocation lists, and the document's age is not judged: its leaf certificate lives
/// for three hours.
pub fn verify(document: &[u8], roots: &[Vec<u8>], now: u64) -> Result<Document, DocumentError> {
    let signed = read_cose(document)?;
    let claims =
        Claims::read(signed.payload.as_deref().unwrap_or_default()).map_err(DocumentError::Malformed)?;
    let certificate = CertificateDer::from(claims.certificate.as_slice());
    let leaf = EndEntityCert::try_from(&certificate).map_err(|error| untrusted(&error))?;
    verify_chain(&leaf, &claims.cabundle, roots, now)?;
    require_signing(&claims.certificate)?;
    let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, leaf.subject_public_key_info());
    signed
        .verify_signature(b"", |signature, message| key.verify(message, signature))
        .map_err(|_| DocumentError::Signature)?;
    Ok(claims.document)
}

/// Whether a certificate (DER) can be a root.
pub(crate) fn check_root(certificate: &[u8]) -> Result<(), DocumentError> {
    let certificate = CertificateDer::from(certificate);
    anchor_from_trusted_cert(&certificate).map(|_anchor| ()).map_err(|error| untrusted(&error))
}

/// The envelope: tagged or not, ES384 and nothing else in its headers.
fn read_cose(document: &[u8]) -> Result<CoseSign1, DocumentError> {
    let malformed = |text: &str| DocumentError::Malformed(text.to_owned());
    if document.len() > DOCUMENT_MAX {
        return Err(DocumentError::Malformed(format!("it is longer than {DOCUMENT_MAX} bytes")));
    }
    let signed = match document.first() {
        Some(&TAG_18) => CoseSign1::from_tagged_slice(document),
        _ => CoseSign1::from_slice(document),
    };
    let signed = signed.map_err(|_| malformed("it is not a COSE_Sign1"))?;
    if signed.protected.header != HeaderBuilder::new().algorithm(iana::Algorithm::ES384).build() {
        return Err(malformed("its algorithm is not ES384"));
    }
    if signed.unprotected != Header::default() {
        return Err(malformed("it has unprotected headers"));
    }
    Ok(signed)
}

/// The leaf leads through the bundle to its first certificate, and that is a root, byte for byte.
fn verify_chain(
    leaf: &EndEntityCert<'_>,
    cabundle: &[Vec<u8>],
    roots: &[Vec<u8>],
    now: u64,
) -> Result<(), DocumentError> {
    let Some((root, intermediates)) = cabundle.split_first() else {
        return Err(DocumentError::Malformed("its cabundle is empty".to_owned()));
    };
    if !roots.contains(root) {
        return Err(DocumentError::Untrusted("its root certificate is not a trusted one".to_owned()));
    }
    let root = CertificateDer::from(root.as_slice());
    let anchor = anchor_from_trusted_cert(&root).map_err(|error| untrusted(&error))?;
    let intermediates: Vec<_> =
        intermediates.iter().map(|certificate| CertificateDer::from(certificate.as_slice())).collect();
    leaf.verify_for_usage(
        &[ECDSA_P384_SHA384],
        &[anchor],
        &intermediates,
        UnixTime::since_unix_epoch(Duration::from_millis(now)),
        // Nitro's certificates have no extended key usage, and then any will do.
        KeyUsage::client_auth(),
        None,
        None,
    )
    .map(|_path| ())
    .map_err(|error| match error {
        webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => DocumentError::Expired,
        error => untrusted(&error),
    })
}

/// The leaf's key usage has `digitalSignature`. webpki does not look at key usages.
fn require_signing(certificate: &[u8]) -> Result<(), DocumentError> {
    let certificate = Certificate::from_der(certificate).map_err(|error| untrusted(&error))?;
    let usage = certificate.tbs_certificate().get_extension::<pkix::KeyUsage>();
    match usage.map_err(|error| untrusted(&error))? {
        Some((_critical, usage)) if usage.digital_signature() => Ok(()),
        _ => Err(DocumentError::Untrusted("its certificate may not sign".to_owned())),
    }
}

fn untrusted(error: &dyn fmt::Display) -> DocumentError {
    DocumentError::Untrusted(format!("a certificate is not as it should be: {error}"))
}

impl fmt::Display for DocumentError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DocumentError::Malformed(reason) | DocumentError::Untrusted(reason) => {
                formatter.write_str(reason)
            }
            DocumentError::Expired => formatter.write_str("a certificate of it is not valid now"),
            DocumentError::Signature => formatter.write_str("its signature is wrong"),
        }
    }
}

impl std::error::Error for DocumentError {}

/// Genuine documents have 4 to 5 KB, in bytes. The limit bounds what a forged one costs.
const DOCUMENT_MAX: usize = 16 * 1024;

/// CBOR's tag 18, `COSE_Sign1`: RFC 9052, section 2.
const TAG_18: u8 = 0xd2;
