//! What an attestation document measured, in CloudTrail's words
//! (<https://docs.aws.amazon.com/kms/latest/developerguide/ct-attestation.html>).

use serde::ser::{Serialize, SerializeMap as _, Serializer};

/// `additionalEventData.recipient`. Values are in lower-case hex.
#[derive(Debug)]
pub struct RecipientData<'a> {
    /// The enclave's or the instance's id.
    pub module_id: &'a str,
    /// The digest of an enclave's image: its `PCR0`.
    pub image_digest: Option<String>,
    /// An enclave's other PCRs, by index.
    pub enclave_pcrs: Vec<(u8, String)>,
    /// Those of NitroTPM.
    pub nitro_tpm_pcrs: Vec<(u8, String)>,
}

impl Serialize for RecipientData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("attestationDocumentModuleId", self.module_id)?;
        if let Some(digest) = &self.image_digest {
            map.serialize_entry("attestationDocumentEnclaveImageDigest", digest)?;
        }
        for (index, value) in &self.enclave_pcrs {
            map.serialize_entry(&format!("attestationDocumentEnclavePCR{index}"), value)?;
        }
        for (index, value) in &self.nitro_tpm_pcrs {
            map.serialize_entry(&format!("attestationDocumentNitroTPMPCR{index}"), value)?;
        }
        map.end()
    }
}
