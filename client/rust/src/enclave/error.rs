//! Why an enclave did not get what it asked for.

use std::fmt;

use super::attestation::AttestationError;
use super::cms::{BerError, OpenError};
use super::key::KeyError;

/// Why there is no plaintext.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// There is no recipient key.
    Key(KeyError),
    /// There is no attestation document.
    Attestation(AttestationError),
    /// The broker cannot be reached, or refused.
    Broker(Box<crate::Error>),
    /// The answer carried plaintext though a recipient was named: it was not made for this enclave alone, and others may have
    /// seen it. It was thrown away.
    PlaintextExposed,
    /// The answer has nothing that is encrypted to this enclave.
    NotForRecipient,
    /// The ciphertext for this enclave does not have the form in which KMS writes it.
    Malformed(BerError),
    /// What is encrypted to this enclave did not open to what was asked for: it was altered, is for another key, or has another
    /// length. All of these are this one error.
    NotOpened,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(error) => error.fmt(f),
            Self::Attestation(error) => write!(f, "no attestation document: {error}"),
            Self::Broker(error) => error.fmt(f),
            Self::PlaintextExposed => f.write_str(
                "the answer carried plaintext though a recipient was named; it was thrown away: does the broker pass recipients to AWS KMS?",
            ),
            Self::NotForRecipient => f.write_str("the answer has nothing that is encrypted to this enclave"),
            Self::Malformed(error) => error.fmt(f),
            Self::NotOpened => {
                f.write_str("what is encrypted to this enclave did not open to what was asked for")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Attestation(error) => Some(&**error),
            Self::Broker(error) => error.source(),
            _ => None,
        }
    }
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

impl From<crate::Error> for Error {
    fn from(error: crate::Error) -> Self {
        Self::Broker(Box::new(error))
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        crate::Error::from(status).into()
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Malformed(malformed) => Self::Malformed(malformed),
            OpenError::NotOpened => Self::NotOpened,
        }
    }
}
