//! The encryption context in a message (structures.md, "Serialization"): the number of pairs, then each name and value after its
//! length, ordered by the names' bytes; empty if there are no pairs.

use std::collections::BTreeMap;

use key_broker_core::{EncryptionContext, InvalidValue};

use crate::error::{OpenError, SealError};
use crate::suite::Suite;

/// The context's bytes; their number goes before them.
pub(crate) fn write(context: &EncryptionContext) -> Result<Vec<u8>, SealError> {
    let pairs = context.pairs();
    if let Some(name) = pairs.keys().find(|name| name.starts_with(RESERVED)) {
        return Err(SealError::ReservedName(name.clone()));
    }
    if let Some((name, _)) = pairs.iter().find(|(_, value)| value.is_empty()) {
        return Err(SealError::EmptyValue(name.clone()));
    }
    let mut bytes = Vec::new();
    if pairs.is_empty() {
        return Ok(bytes);
    }
    let length = |length: usize| {
        u16::try_from(length).expect("a context has at most 1,024 pairs and 8,192 bytes").to_be_bytes()
    };
    bytes.extend_from_slice(&length(pairs.len()));
    for part in pairs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend_from_slice(&length(part.len()));
        bytes.extend_from_slice(part.as_bytes());
    }
    Ok(bytes)
}

/// Reads a context of which every byte is accounted for. Any order of the pairs is taken: the tag binds the bytes as they stand.
///
/// In a signed message one pair is the public key. It is part of what KMS is told, and counts towards KMS's 8,192 bytes: of a
/// signed message under a KMS key, the caller's own pairs have at most 8,103.
pub(crate) fn read(bytes: &[u8], suite: Suite) -> Result<EncryptionContext, OpenError> {
    let mut pairs = BTreeMap::new();
    if !bytes.is_empty() {
        let mut rest = Rest(bytes);
        let count = rest.length()?;
        if count == 0 {
            return Err(malformed("it has a length but no pairs"));
        }
        for place in 1..=count {
            let name = rest.text()?;
            if pairs.insert(name, rest.text()?).is_some() {
                return Err(malformed(&format!("pair {place} of {count} has the name of an earlier one")));
            }
        }
        if !rest.0.is_empty() {
            return Err(malformed(&format!("{} bytes follow its last pair", rest.0.len())));
        }
    }
    match (suite.is_signed(), pairs.contains_key(PUBLIC_KEY)) {
        (false, true) => {
            return Err(malformed("it has a signature's public key, but its suite has no signature"));
        }
        (true, false) => return Err(malformed("its suite is signed, but it has no public key")),
        (false, false) | (true, true) => {}
    }
    EncryptionContext::parse(pairs).map_err(|InvalidValue(why)| OpenError::Context(why))
}

/// The pairs that the caller of the sealing SDK gave.
pub(crate) fn without_reserved(context: &EncryptionContext) -> EncryptionContext {
    let pairs = context.pairs().iter().filter(|(name, _)| !name.starts_with(RESERVED));
    let pairs = pairs.map(|(name, value)| (name.clone(), value.clone())).collect();
    EncryptionContext::parse(pairs).expect("a part of a context is no longer than it")
}

/// The public key of a signed message, in Base64.
pub(crate) fn public_key(context: &EncryptionContext) -> &str {
    context.pairs().get(PUBLIC_KEY).map_or("", String::as_str)
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn length(&mut self) -> Result<u16, OpenError> {
        let (length, rest) = self.0.split_first_chunk().ok_or_else(short)?;
        self.0 = rest;
        Ok(u16::from_be_bytes(*length))
    }

    fn text(&mut self) -> Result<String, OpenError> {
        let length = usize::from(self.length()?);
        let (text, rest): (&'a [u8], _) = self.0.split_at_checked(length).ok_or_else(short)?;
        self.0 = rest;
        let text = str::from_utf8(text).map_err(|_| malformed("a name or value is not UTF-8"))?;
        Ok(text.to_owned())
    }
}

fn short() -> OpenError {
    malformed("a name or value reaches past its end")
}

fn malformed(why: &str) -> OpenError {
    OpenError::Context(why.to_owned())
}

/// Names that the SDKs keep for themselves: they refuse them from their callers.
const RESERVED: &str = "aws-crypto-";
/// default-cmm.md: must be there in a suite with signatures, and in no other.
const PUBLIC_KEY: &str = "aws-crypto-public-key";
