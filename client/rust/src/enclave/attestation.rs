//! The source of attestation documents.

use std::path::Path;
use std::{fs, io};

/// Attests a public key.
///
/// It may block: the Nitro Security Module is asked with an ioctl. [`Enclave`](super::Enclave) calls it where that is allowed.
pub trait AttestationProvider: Send + Sync + 'static {
    /// A document about this machine as it is now, with `public_key_spki` (`SubjectPublicKeyInfo`, DER) as its public key.
    fn attest(&self, public_key_spki: &[u8]) -> Result<Vec<u8>, AttestationError>;
}

/// Why there is no document, in the provider's own words.
pub type AttestationError = Box<dyn std::error::Error + Send + Sync>;

/// A document that was made beforehand for a known key: for tests, where there is no attesting hardware. AWS KMS and the broker
/// take a document for a few minutes only.
#[derive(Debug, Clone)]
pub struct FileDocument {
    document: Vec<u8>,
}

impl FileDocument {
    /// Reads the document from a file.
    pub fn read(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self { document: fs::read(path)? })
    }
}

impl AttestationProvider for FileDocument {
    /// Refuses a key that does not stand in the document: what KMS sent could not be opened.
    fn attest(&self, public_key_spki: &[u8]) -> Result<Vec<u8>, AttestationError> {
        if self.document.windows(public_key_spki.len().max(1)).any(|part| part == public_key_spki) {
            Ok(self.document.clone())
        } else {
            Err("the attestation document was made for another key".into())
        }
    }
}
