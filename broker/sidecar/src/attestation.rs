//! Attestation documents of AWS Nitro enclaves and NitroTPM: parsed and verified into a [`VerifiedRecipient`]
//! (<https://docs.aws.amazon.com/enclaves/latest/user/verify-root.html>).
//!
//! Where genuine documents differ from AWS's description, this follows the documents: they are untagged, and their payload is a map of
//! definite or indefinite length. Leaf certificates last three hours, so verification takes a time.

mod certificate_chain;
mod cose;
mod document;
mod measurements;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use spki::der::Decode as _;
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};
use time::OffsetDateTime;

use certificate_chain::{Chain, ChainError};
use cose::CoseSign1;
use document::Document;
pub(crate) use measurements::{MAX_ENCLAVE_PCR, Measurements, PlatformKind};

/// What a document must be to be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// Certificates that a document's chain may begin at, in DER.
    pub roots: Vec<CertificateDer<'static>>,
    /// A document that was made longer ago is refused.
    pub max_age: Duration,
    /// How far the clocks of the module that made it, and of those who signed its certificates, may be ahead; and how much older than
    /// `max_age` it may seem.
    pub clock_skew: Duration,
    /// Whether enclaves in debug mode are accepted: the parent instance can read their memory and console.
    pub allow_debug: bool,
}

/// A document that was verified, and may be passed on to KMS. Only [`Trust::verify`] makes one.
#[derive(Clone)]
pub(crate) struct VerifiedRecipient {
    document: Bytes,
    measurements: Arc<Measurements>,
}

/// Why a document is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AttestationError {
    /// What is wrong with it.
    pub flaw: DocumentFlaw,
    /// What it measured, if its signature is good: unsigned measurements are no evidence.
    pub measurements: Option<Arc<Measurements>>,
}

/// What is wrong with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DocumentFlaw {
    /// It is not a valid document: the text says why.
    Malformed(&'static str),
    /// Its certificates do not lead to a trusted root: the words say why.
    Untrusted(&'static str),
    /// Its certificates are right, its signature is not.
    Signature,
    /// One of its certificates has expired.
    CertificateExpired,
    /// One of its certificates is not valid yet.
    CertificateNotYetValid,
    /// It was made too long ago.
    Stale,
    /// It was made later than now.
    Early,
    /// It has no RSA public key, to which KMS could encrypt.
    NoPublicKey,
    /// The enclave runs in debug mode.
    Debug,
}

impl Trust {
    /// AWS's own root of the commercial partition, and AWS's own limits.
    #[must_use]
    pub fn aws() -> Self {
        Self {
            roots: vec![aws_root()],
            max_age: Duration::from_mins(5),
            clock_skew: Duration::from_secs(30),
            allow_debug: false,
        }
    }

    /// Verifies `document` as of `now`. It computes for about a millisecond.
    pub(crate) fn verify(
        &self,
        document: Bytes,
        now: OffsetDateTime,
    ) -> Result<VerifiedRecipient, AttestationError> {
        let unproved = |flaw| AttestationError { flaw, measurements: None };
        let cose = CoseSign1::parse(&document).map_err(unproved)?;
        let parsed = Document::parse(cose.payload).map_err(unproved)?;
        let chain = Chain::verify(&parsed, &self.roots, now, self.clock_skew)
            .map_err(|error| unproved(error.into()))?;
        chain.verify_signature(&cose).map_err(unproved)?;
        let made_at = parsed.made_at;
        let has_public_key = parsed.public_key.is_some_and(is_rsa);
        let measurements = Arc::new(parsed.measurements);
        let checks = [
            (now - made_at > self.max_age + self.clock_skew, DocumentFlaw::Stale),
            (made_at - now > self.clock_skew, DocumentFlaw::Early),
            (measurements.is_debug() && !self.allow_debug, DocumentFlaw::Debug),
            (!has_public_key, DocumentFlaw::NoPublicKey),
        ];
        match checks.into_iter().find(|(is_so, _)| *is_so) {
            Some((_, flaw)) => Err(AttestationError { flaw, measurements: Some(measurements) }),
            None => Ok(VerifiedRecipient { document, measurements }),
        }
    }
}

impl VerifiedRecipient {
    /// The document as it came, for KMS.
    #[must_use]
    pub(crate) fn document(&self) -> &Bytes {
        &self.document
    }

    /// What the document proves.
    #[must_use]
    pub(crate) fn measurements(&self) -> &Arc<Measurements> {
        &self.measurements
    }
}

impl fmt::Debug for VerifiedRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedRecipient").field("measurements", &self.measurements).finish_non_exhaustive()
    }
}

impl From<ChainError> for DocumentFlaw {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Expired => Self::CertificateExpired,
            ChainError::NotYetValid => Self::CertificateNotYetValid,
            ChainError::Untrusted(why) => Self::Untrusted(why),
        }
    }
}

impl fmt::Display for DocumentFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(
                f,
                "the attestation document cannot be read ({why}): send it exactly as the Nitro Secure Module or NitroTPM made it"
            ),
            Self::Untrusted(why) => write!(
                f,
                "the attestation document's certificates do not lead to a trusted root ({why}): send the document of a real \
                 enclave, or ask the broker's operator for its attestation.roots"
            ),
            Self::Signature => f.write_str(
                "the attestation document's signature does not fit: it was altered; send it exactly as it was made",
            ),
            Self::CertificateExpired => f.write_str(
                "a certificate of the attestation document has expired: make a new document, and check the broker's clock",
            ),
            Self::CertificateNotYetValid => f.write_str(
                "a certificate of the attestation document is not valid yet, by the broker's clock: check the clocks of broker and \
                 parent instance; a new document has the same certificate",
            ),
            Self::Stale => f.write_str("the attestation document is too old: make a new one for each call"),
            Self::Early => {
                f.write_str("the attestation document was made in the future: check the clocks of broker and enclave")
            }
            Self::NoPublicKey => f.write_str(
                "the attestation document has no RSA public key, to which AWS KMS would encrypt its answer: ask for the \
                 document with the public key of the enclave, as DER of SubjectPublicKeyInfo",
            ),
            Self::Debug => f.write_str(
                "the enclave runs in debug mode, which proves nothing: run it without --debug-mode, or ask the broker's operator",
            ),
        }
    }
}

/// Whether it is `SubjectPublicKeyInfo` of an RSA key (RFC 3279, 2.3.1): KMS knows no other recipients.
fn is_rsa(public_key: &[u8]) -> bool {
    SubjectPublicKeyInfoRef::from_der(public_key).is_ok_and(|spki| spki.algorithm.oid == RSA_ENCRYPTION)
}

/// The certificate whose SHA-256 is published beside AWS's documentation (tests/attestation holds it to that).
fn aws_root() -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(AWS_ROOT_PEM).expect("the file of this build is a certificate in PEM")
}

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const AWS_ROOT_PEM: &[u8] = include_bytes!("attestation/aws-nitro-enclaves-root.pem");
