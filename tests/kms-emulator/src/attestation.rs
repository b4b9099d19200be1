//! Attestation documents: what a Nitro enclave or a NitroTPM instance proves about itself, and an authority that makes
//! such proof for tests.
//!
//! A document is a `COSE_Sign1` (RFC 9052) over a CBOR map, signed by a certificate that lives three hours and chains to
//! a root that the reader knows.
//! <https://github.com/aws/aws-nitro-enclaves-nsm-api/blob/main/docs/attestation_process.md>

mod authority;
mod claims;
mod conditions;
mod document;
mod measurements;
mod verify;

pub use authority::{Authority, Leaf, NoAuthority};
pub use claims::DocumentClaims;
pub(crate) use conditions::Conditions;
pub use document::Document;
pub use measurements::{Measurement, Measurements};
pub(crate) use verify::check_root;
pub use verify::{DocumentError, verify};
