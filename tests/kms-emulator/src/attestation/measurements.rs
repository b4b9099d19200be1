//! What was measured: the platform configuration registers (PCRs) of an enclave or of a NitroTPM.

use std::collections::BTreeMap;

/// A SHA-384 digest, the content of one register.
pub type Measurement = [u8; 48];

/// The registers of one of the two kinds, by index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measurements {
    /// A Nitro enclave's, documents call them `pcrs`: 0 is the image, 1 the kernel, 2 the application, 3 the parent
    /// instance's role, 4 its instance id, 8 the signing certificate. Documents have 0 to 15.
    /// <https://docs.aws.amazon.com/enclaves/latest/user/set-up-attestation.html>
    Enclave(BTreeMap<u8, Measurement>),
    /// A NitroTPM's, documents call them `nitrotpm_pcrs`: 0 to 23.
    /// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/nitrotpm-attestation-document-validate.html>
    NitroTpm(BTreeMap<u8, Measurement>),
}

impl Measurements {
    /// The registers, whichever kind they are of.
    #[must_use]
    pub fn registers(&self) -> &BTreeMap<u8, Measurement> {
        match self {
            Measurements::Enclave(registers) | Measurements::NitroTpm(registers) => registers,
        }
    }

    /// Their name in documents.
    pub(super) fn member(&self) -> &'static str {
        match self {
            Measurements::Enclave(_) => "pcrs",
            Measurements::NitroTpm(_) => "nitrotpm_pcrs",
        }
    }
}
