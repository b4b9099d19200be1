//! `Recipient`: a caller that shows an attestation document and is answered under the document's key.
//! <https://docs.aws.amazon.com/kms/latest/developerguide/cryptographic-attestation.html>

use serde_json::Value;

use crate::attestation::{Document, verify};
use crate::caller::Caller;
use crate::cms::{RecipientForm, RecipientKey};
use crate::error::ApiError;
use crate::key::Key;
use crate::operations::base64;
use crate::parameters::{Parameters, one_of, required};

/// Which documents are believed, and how recipients are answered.
pub(crate) struct Recipients {
    /// Root certificates, DER.
    pub(crate) roots: Vec<Vec<u8>>,
    pub(crate) form: RecipientForm,
}

/// A caller whose document is verified.
pub(crate) struct Recipient {
    document: Document,
    key: RecipientKey,
    form: RecipientForm,
}

impl Recipients {
    /// The recipient that a request names, if it names one.
    pub(crate) fn accept(&self, parameters: &Parameters, now: u64) -> Result<Option<Recipient>, ApiError> {
        let Some(recipient) = &parameters.recipient else { return Ok(None) };
        let algorithm = "recipient.keyEncryptionAlgorithm";
        required(algorithm, recipient.key_encryption_algorithm.as_ref())?;
        one_of(algorithm, recipient.key_encryption_algorithm.as_ref(), &["RSAES_OAEP_SHA_256"])?;
        let document = &required("recipient.attestationDocument", recipient.attestation_document.as_ref())?.0;
        if self.roots.is_empty() {
            return Err(ApiError::validation(
                "The attestation document is not trusted: this emulator has no attestation root. Start it with \
                 --attestation-root, or set attestation_roots of its EmulatorConfig.",
            ));
        }
        let document = verify(document, &self.roots, now).map_err(|error| {
            ApiError::validation(format!("The attestation document is not valid: {error}."))
        })?;
        let key = document.public_key.as_deref().and_then(RecipientKey::read).ok_or_else(|| {
            ApiError::validation("The attestation document has no RSA public key of 2048 bits or more.")
        })?;
        Ok(Some(Recipient { document, key, form: self.form }))
    }
}

impl Recipient {
    /// `CiphertextForRecipient`.
    pub(crate) fn seal(&self, plaintext: &[u8]) -> Result<Value, ApiError> {
        let sealed = self.key.seal(plaintext, self.form);
        sealed.map(|bytes| base64(&bytes)).map_err(|error| ApiError::internal(format!("sealing: {error}")))
    }
}

/// Whether the key's conditions permit a call that shows this document, or none.
pub(crate) fn authorize(
    caller: &Caller,
    key: &Key,
    recipient: Option<&Recipient>,
    operation: &str,
) -> Result<(), ApiError> {
    if key.attestation.permit(recipient.map(|recipient| &recipient.document)) {
        return Ok(());
    }
    let (caller, arn) = (&caller.arn, &key.arn);
    Err(ApiError::new(
        "AccessDeniedException",
        format!(
            "User: {caller} is not authorized to perform: kms:{operation} on resource: {arn} because no \
             resource-based policy allows the kms:{operation} action"
        ),
    ))
}
