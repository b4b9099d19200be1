//! The chain from a document's certificate to a trusted root: P-384 with SHA-384 throughout. AWS publishes no revocation.

use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use time::OffsetDateTime;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::KeyUsage as KeyUsageExtension;

use super::DocumentFlaw;
use super::cose::CoseSign1;
use super::document::Document;

/// A certificate that leads to a trusted root.
pub(super) struct Chain {
    public_key: Vec<u8>,
}

/// Why it does not.
pub(super) enum ChainError {
    /// One of them has expired.
    Expired,
    /// One of them is not valid yet, by more than clocks may differ.
    NotYetValid,
    /// The words say why.
    Untrusted(&'static str),
}

impl Chain {
    /// Verifies the chain as of `now`. The bundle's first certificate must be one of `roots`, byte for byte.
    ///
    /// Nitro makes leaf certificates that are valid from that very second, every few hours. So a certificate counts from `clock_skew`
    /// before its time on: its authority has signed it all the same. Where it ends, nothing is added.
    pub(super) fn verify(
        document: &Document<'_>,
        roots: &[CertificateDer<'static>],
        now: OffsetDateTime,
        clock_skew: Duration,
    ) -> Result<Self, ChainError> {
        let (first, rest) = document.bundle.split_first().ok_or(ChainError::Untrusted("there is no root"))?;
        let root = roots
            .iter()
            .find(|root| root.as_ref() == *first)
            .ok_or(ChainError::Untrusted("the root is not one that the broker trusts"))?;
        let anchor = anchor_from_trusted_cert(root)
            .map_err(|_| ChainError::Untrusted("the root is not a certificate"))?;
        let intermediates: Vec<CertificateDer<'_>> =
            rest.iter().map(|der| CertificateDer::from(*der)).collect();
        let leaf = CertificateDer::from(document.certificate);
        let now = Duration::from_secs(u64::try_from(now.unix_timestamp()).unwrap_or_default());
        let latest = UnixTime::since_unix_epoch(now + clock_skew);
        let mut at = UnixTime::since_unix_epoch(now);
        let held = loop {
            match holds_at(at, &leaf, &intermediates, &anchor) {
                // A moment at which one more of them is valid, of all that the clocks allow.
                Err(webpki::Error::CertNotValidYet { not_before, .. })
                    if at < not_before && not_before <= latest =>
                {
                    at = not_before;
                }
                held => break held,
            }
        };
        held.map_err(|error| match error {
            webpki::Error::CertExpired { .. } => ChainError::Expired,
            webpki::Error::CertNotValidYet { .. } => ChainError::NotYetValid,
            _ => ChainError::Untrusted("the chain does not hold"),
        })?;
        Self::of_leaf(&leaf)
    }

    /// What webpki does not look at: what the key is for.
    fn of_leaf(leaf: &CertificateDer<'_>) -> Result<Self, ChainError> {
        let certificate = Certificate::from_der(leaf)
            .map_err(|_| ChainError::Untrusted("its certificate cannot be read"))?;
        let certificate = certificate.tbs_certificate();
        let signs = certificate
            .get_extension::<KeyUsageExtension>()
            .is_ok_and(|usage| usage.is_some_and(|(_, usage)| usage.digital_signature()));
        if !signs {
            return Err(ChainError::Untrusted("its certificate is not for signatures"));
        }
        Ok(Self { public_key: certificate.subject_public_key_info().subject_public_key.raw_bytes().to_vec() })
    }

    /// Whether the chain's key has signed this.
    pub(super) fn verify_signature(&self, cose: &CoseSign1<'_>) -> Result<(), DocumentFlaw> {
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &self.public_key)
            .verify(&cose.signed_bytes(), cose.signature)
            .map_err(|_| DocumentFlaw::Signature)
    }
}

/// Whether the leaf leads to the anchor at that moment.
fn holds_at(
    at: UnixTime,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    anchor: &TrustAnchor<'_>,
) -> Result<(), webpki::Error> {
    EndEntityCert::try_from(leaf)?
        .verify_for_usage(
            &[webpki::aws_lc_rs::ECDSA_P384_SHA384],
            std::slice::from_ref(anchor),
            intermediates,
            at,
            // Their certificates name no extended usage at all.
            KeyUsage::client_auth(),
            None,
            None,
        )
        .map(drop)
}
