//! The signature of a signed message (message-footer.md; transitive-requirements.md, "ECDSA"): over everything before it, by a
//! key of this one message, whose public half stands in the encryption context.

use aws_lc_rs::digest::{Context, SHA384};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1, ParsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::error::OpenError;

/// Takes in a message, then judges its signature.
pub(crate) struct Signed {
    public_key: ParsedPublicKey,
    hash: Context,
}

impl Signed {
    /// With the public key as the context has it.
    pub(crate) fn new(public_key: &str) -> Result<Self, OpenError> {
        let point = STANDARD.decode(public_key).map_err(|_| OpenError::PublicKey)?;
        // aws-lc-rs takes other encodings, too.
        if point.len() != POINT_BYTES {
            return Err(OpenError::PublicKey);
        }
        let public_key =
            ParsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, point).map_err(|_| OpenError::PublicKey)?;
        Ok(Self { public_key, hash: Context::new(&SHA384) })
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
    }

    pub(crate) fn verify(self, signature: &[u8]) -> Result<(), OpenError> {
        self.public_key.verify_digest_sig(&self.hash.finish(), signature).map_err(|_| OpenError::Signature)
    }
}

/// A point of P-384, compressed (SEC 1, 2.3.3): its sign and one coordinate.
const POINT_BYTES: usize = 1 + 48;
