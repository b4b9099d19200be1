//! What records say of an attestation document's measurements.

use key_broker_trail::record::RecipientData;

use crate::attestation::{Measurements, PlatformKind};

/// For an activity record: every PCR, since a policy may look at any.
pub(crate) fn recorded(measurements: &Measurements) -> RecipientData<'_> {
    data(measurements, |_| true)
}

/// For a KMS record: the PCRs that CloudTrail has
/// (<https://docs.aws.amazon.com/kms/latest/developerguide/ct-attestation.html>).
pub(crate) fn recorded_at_kms(measurements: &Measurements) -> RecipientData<'_> {
    let recorded: &[u8] = match measurements.kind() {
        PlatformKind::Enclave => &ENCLAVE_PCRS,
        PlatformKind::NitroTpm => &NITRO_TPM_PCRS,
    };
    data(measurements, |index| recorded.contains(&index))
}

fn data(measurements: &Measurements, is_told: impl Fn(u8) -> bool) -> RecipientData<'_> {
    let pcrs = measurements.pcrs().filter(|(index, _)| is_told(*index));
    let (enclave_pcrs, nitro_tpm_pcrs) = match measurements.kind() {
        // `PCR0` is the image digest, and is not repeated.
        PlatformKind::Enclave => (pcrs.filter(|(index, _)| *index > 0).collect(), Vec::new()),
        PlatformKind::NitroTpm => (Vec::new(), pcrs.collect()),
    };
    let (module_id, image_digest) = (measurements.module_id(), measurements.image_sha384());
    RecipientData { module_id, image_digest, enclave_pcrs, nitro_tpm_pcrs }
}

/// Beside `PCR0`.
const ENCLAVE_PCRS: [u8; 5] = [1, 2, 3, 4, 8];
const NITRO_TPM_PCRS: [u8; 6] = [4, 7, 8, 9, 16, 23];
