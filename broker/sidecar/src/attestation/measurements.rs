//! The measurements of an attestation document, as policies name them.

use std::collections::BTreeMap;

/// Bytes of a PCR: SHA-384.
pub(super) const PCR_BYTES: usize = 48;

/// An attestation document's measurements of the code that asked for it. Cheap to compare, not secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Measurements {
    module_id: String,
    kind: PlatformKind,
    pcrs: BTreeMap<u8, [u8; PCR_BYTES]>,
}

/// The platform that made the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum PlatformKind {
    /// The Nitro Secure Module of an enclave: `PCR0` is the image.
    Enclave,
    /// NitroTPM of an instance.
    NitroTpm,
}

impl Measurements {
    /// `module_id` is `i-…-enc…` or `i-…-tpm…`, and the PCRs are those that `kind` has.
    #[must_use]
    pub(crate) fn new(
        module_id: &str,
        kind: PlatformKind,
        pcrs: BTreeMap<u8, [u8; PCR_BYTES]>,
    ) -> Option<Self> {
        let (mark, most) = match kind {
            PlatformKind::Enclave => ("-enc", MAX_ENCLAVE_PCR),
            PlatformKind::NitroTpm => ("-tpm", MAX_NITRO_TPM_PCR),
        };
        let is_hex = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let (instance, module) = module_id.strip_prefix("i-")?.split_once(mark)?;
        let is_known = module_id.len() <= MAX_MODULE_ID_BYTES && is_hex(instance) && is_hex(module);
        let fits = pcrs.keys().all(|index| *index <= most)
            && (kind == PlatformKind::NitroTpm || (0..=2).all(|index| pcrs.contains_key(&index)))
            && !pcrs.is_empty();
        (is_known && fits).then(|| Self { module_id: module_id.to_owned(), kind, pcrs })
    }

    /// The enclave's or the instance's id.
    #[must_use]
    pub(crate) fn module_id(&self) -> &str {
        &self.module_id
    }

    /// The platform that measured it.
    #[must_use]
    pub(crate) fn kind(&self) -> PlatformKind {
        self.kind
    }

    /// The PCRs that the document has: index, and lower-case hex as in KMS's condition keys
    /// (<https://docs.aws.amazon.com/kms/latest/developerguide/conditions-attestation.html>).
    pub(crate) fn pcrs(&self) -> impl Iterator<Item = (u8, String)> {
        self.pcrs.iter().map(|(index, value)| (*index, hex::encode(value)))
    }

    /// The digest of an enclave's image, KMS's `ImageSha384`: `PCR0` in lower-case hex.
    #[must_use]
    pub(crate) fn image_sha384(&self) -> Option<String> {
        match self.kind {
            PlatformKind::Enclave => self.pcrs.get(&0).map(hex::encode),
            PlatformKind::NitroTpm => None,
        }
    }

    /// Whether it is an enclave in debug mode, whose measurements are all zero.
    #[must_use]
    pub(crate) fn is_debug(&self) -> bool {
        self.kind == PlatformKind::Enclave
            && (0..=2).all(|index| self.pcrs.get(&index).is_none_or(|value| value.iter().all(|b| *b == 0)))
    }
}

/// KMS's condition keys go to `PCR31` and `NitroTPMPCR23`.
pub(crate) const MAX_ENCLAVE_PCR: u8 = 31;
const MAX_NITRO_TPM_PCR: u8 = 23;
/// Genuine ones have 39 or 40.
const MAX_MODULE_ID_BYTES: usize = 128;
