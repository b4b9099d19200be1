//! What a test's document is to claim.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::measurements::{Measurement, Measurements};

/// The claims of a document to be made, and its form. [`DocumentClaims::enclave`] and [`DocumentClaims::nitro_tpm`] start one:
///
/// ```
/// use kms_emulator::attestation::{Authority, DocumentClaims};
///
/// let authority = Authority::generate();
/// let claims = DocumentClaims { nonce: Some(vec![7; 32]), ..DocumentClaims::enclave(1_795_651_200_000) };
/// let document = authority.document(&claims);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentClaims {
    /// `module_id`: `i-…-enc…` or `i-…-tpm…`.
    pub module_id: String,
    /// `timestamp`: unix milliseconds.
    pub timestamp: u64,
    /// `pcrs` or `nitrotpm_pcrs`.
    pub measurements: Measurements,
    /// `public_key`: an RSA key for KMS's answer, DER `SubjectPublicKeyInfo`. Anything else is claimed all the same.
    pub public_key: Option<Vec<u8>>,
    /// `user_data`.
    pub user_data: Option<Vec<u8>>,
    /// `nonce`.
    pub nonce: Option<Vec<u8>>,
    /// When the leaf certificate is valid: unix milliseconds, cut to seconds. Nothing: as Nitro's, from 3 seconds before the
    /// timestamp until 3 hours after it.
    pub leaf_validity: Option<RangeInclusive<u64>>,
    /// Whether the leaf's key usage has `digitalSignature`. Without it, no reader may believe the document.
    pub leaf_may_sign: bool,
    /// A certificate to show as the root in place of the authority's own: a forgery, as its key signed nothing below it.
    pub shown_root: Option<Vec<u8>>,
    /// Whether the payload is a CBOR map of indefinite length, as in the documents of 2026, or of definite length.
    pub indefinite_map: bool,
    /// Whether CBOR tag 18 precedes the document. Nitro's documents have none.
    pub tagged: bool,
}

impl DocumentClaims {
    /// A Nitro enclave's: PCR 0, 1, 2, 3, 4 and 8 have 48 bytes of their index plus one, the others of 0 to 15 are zero.
    /// No public key, user data or nonce; the form of 2026.
    #[must_use]
    pub fn enclave(timestamp: u64) -> DocumentClaims {
        let value = |index: u8| if matches!(index, 0..=4 | 8) { [index + 1; 48] } else { [0; 48] };
        DocumentClaims::of(
            "i-0123456789abcdef0-enc0123456789abcdef0",
            timestamp,
            Measurements::Enclave((0..16).map(|index| (index, value(index))).collect()),
        )
    }

    /// A NitroTPM's: PCR 0 to 10 have 48 bytes of their index plus one, 17 to 22 of 0xff, the others of 0 to 23 are zero.
    /// No public key, user data or nonce; the form of 2026.
    #[must_use]
    pub fn nitro_tpm(timestamp: u64) -> DocumentClaims {
        let value = |index: u8| match index {
            0..=10 => [index + 1; 48],
            17..=22 => [0xff; 48],
            _ => [0; 48],
        };
        DocumentClaims::of(
            "i-0123456789abcdef0-tpm0000000000000000",
            timestamp,
            Measurements::NitroTpm((0..24).map(|index| (index, value(index))).collect()),
        )
    }

    /// The same with another value in one register.
    #[must_use]
    pub fn with_pcr(mut self, index: u8, value: Measurement) -> DocumentClaims {
        self.registers_mut().insert(index, value);
        self
    }

    /// The same with a public key, DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn with_public_key(mut self, public_key: impl Into<Vec<u8>>) -> DocumentClaims {
        self.public_key = Some(public_key.into());
        self
    }

    fn of(module_id: &str, timestamp: u64, measurements: Measurements) -> DocumentClaims {
        DocumentClaims {
            module_id: module_id.to_owned(),
            timestamp,
            measurements,
            public_key: None,
            user_data: None,
            nonce: None,
            leaf_validity: None,
            leaf_may_sign: true,
            shown_root: None,
            indefinite_map: true,
            tagged: false,
        }
    }

    fn registers_mut(&mut self) -> &mut BTreeMap<u8, Measurement> {
        match &mut self.measurements {
            Measurements::Enclave(registers) | Measurements::NitroTpm(registers) => registers,
        }
    }
}
