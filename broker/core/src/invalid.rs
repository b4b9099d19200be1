//! The error for values that KMS could not accept.

/// Why a value cannot be what it should be: words for the caller, with what to do.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidValue(pub String);
