//! `COSE_Sign1` (RFC 9052, 4.2) as attestation documents are: ES384, nothing detached, nothing else.

use minicbor::Decoder;
use minicbor::data::{Tag, Type};

use super::DocumentFlaw;

/// A signed payload. Nothing is verified yet.
pub(super) struct CoseSign1<'a> {
    protected: &'a [u8],
    /// What is signed.
    pub(super) payload: &'a [u8],
    /// `r` and `s`, 48 bytes each.
    pub(super) signature: &'a [u8],
}

impl<'a> CoseSign1<'a> {
    /// Reads one, tagged or not, and nothing after it.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, DocumentFlaw> {
        let mut decoder = Decoder::new(bytes);
        let cose = Self::read(&mut decoder).map_err(|_| DocumentFlaw::Malformed("it is not a COSE_Sign1"))?;
        if decoder.position() != bytes.len() {
            return Err(DocumentFlaw::Malformed("something follows it"));
        }
        if !is_es384(cose.protected) {
            return Err(DocumentFlaw::Malformed("its algorithm is not ES384"));
        }
        if cose.payload.len() > MAX_PAYLOAD_BYTES {
            return Err(DocumentFlaw::Malformed("it is larger than any genuine one"));
        }
        if cose.signature.len() != SIGNATURE_BYTES {
            return Err(DocumentFlaw::Malformed("its signature has not 96 bytes"));
        }
        Ok(cose)
    }

    fn read(decoder: &mut Decoder<'a>) -> Result<Self, minicbor::decode::Error> {
        if decoder.datatype()? == Type::Tag && decoder.tag()? != Tag::new(COSE_SIGN1_TAG) {
            return Err(minicbor::decode::Error::message("another tag"));
        }
        if decoder.array()? != Some(4) {
            return Err(minicbor::decode::Error::message("no array of four"));
        }
        let protected = decoder.bytes()?;
        // The unprotected header: nothing in it counts.
        if !matches!(decoder.datatype()?, Type::Map | Type::MapIndef) {
            return Err(minicbor::decode::Error::message("no map"));
        }
        decoder.skip()?;
        Ok(Self { protected, payload: decoder.bytes()?, signature: decoder.bytes()? })
    }

    /// What the signature is over: `Sig_structure` (RFC 9052, 4.4).
    pub(super) fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.payload.len() + self.protected.len() + 32);
        let mut encoder = minicbor::Encoder::new(&mut bytes);
        encoder
            .array(4)
            .and_then(|encoder| encoder.str("Signature1"))
            .and_then(|encoder| encoder.bytes(self.protected))
            .and_then(|encoder| encoder.bytes(&[]))
            .and_then(|encoder| encoder.bytes(self.payload))
            .expect("a Vec takes all that is written to it");
        bytes
    }
}

/// `{1: -35}` and no other header: one that is not understood may not be ignored (RFC 9052, 3.1).
fn is_es384(protected: &[u8]) -> bool {
    let mut decoder = Decoder::new(protected);
    matches!((decoder.map(), decoder.u8(), decoder.i8()), (Ok(Some(1)), Ok(1), Ok(-35)))
        && decoder.position() == protected.len()
}

/// RFC 9052, 2.
const COSE_SIGN1_TAG: u64 = 18;
/// Genuine payloads have 4 to 5 KB; their fields at their longest, and a bundle of eight certificates, fit.
const MAX_PAYLOAD_BYTES: usize = 16 << 10;
/// RFC 9053, 2.1, with P-384.
const SIGNATURE_BYTES: usize = 96;
