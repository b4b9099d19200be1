//! Why a delivery failed.

use std::{fmt, io};

use crate::store::StoreError;

/// A failed delivery, which is tried again; nothing is lost.
#[derive(Debug)]
pub(crate) enum TrailError {
    /// The store failed.
    Store(StoreError),
    /// The journal's directory could not be read or written.
    Io(io::Error),
    /// KMS or the signing key failed.
    Key(String),
    /// Another object has the name of one of this trail's objects.
    Occupied(String),
    /// The drain's time was over.
    Late,
}

impl fmt::Display for TrailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(f, "the trail's store: {error}"),
            Self::Io(error) => write!(f, "the journal's directory: {error}"),
            Self::Key(error) => f.write_str(error),
            Self::Occupied(key) => {
                write!(
                    f,
                    "the trail's store: somebody else's object is there under the name {key}: look who may write there"
                )
            }
            Self::Late => f.write_str("the drain's time is over"),
        }
    }
}

impl std::error::Error for TrailError {}

impl From<StoreError> for TrailError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for TrailError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
