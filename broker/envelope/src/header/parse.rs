//! Incremental parsing of a header.

use super::{EncryptedDataKey, Header, HeaderFacts};
use crate::context;
use crate::error::OpenError;
use crate::format::{
    COMMITMENT_BYTES, FRAMED, IV_BYTES, MAX_ENCRYPTED_DATA_KEYS, MAX_FRAME_LENGTH, MAX_HEADER_BYTES,
    MESSAGE_ID_BYTES, OLD_MESSAGE_ID_BYTES, OLD_TYPE, OLD_VERSION, TAG_BYTES, UNFRAMED, VERSION,
};
use crate::frames::HEADER_IV;
use crate::suite::Suite;

/// The headers that a reader accepts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepted {
    /// Headers as a sealer writes them.
    Sealed,
    /// Every suite that there is, with frames or without.
    Every,
}

/// How far it came.
pub(super) enum Parsed {
    /// To its end.
    Header(Box<Header>),
    /// Fails if there are fewer bytes than this.
    Needs(usize),
}

/// Why it ends before its end.
enum Stop {
    Refused(OpenError),
    Needs(usize),
}

/// The header that `bytes` begin with.
pub(super) fn parse(bytes: &[u8], accepted: Accepted) -> Result<Parsed, OpenError> {
    let fields = Fields { bytes, at: 0, limit: MAX_HEADER_BYTES };
    match fields.header(accepted) {
        Ok(header) => Ok(Parsed::Header(Box::new(header))),
        Err(Stop::Needs(bytes)) => Ok(Parsed::Needs(bytes)),
        Err(Stop::Refused(error)) => Err(error),
    }
}

/// Reads field after field, up to a limit.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    limit: usize,
}

impl<'a> Fields<'a> {
    fn header(mut self, accepted: Accepted) -> Result<Header, Stop> {
        let suite = self.format(accepted)?;
        // Format 2 came with commitment.
        let is_old = !suite.is_committed();
        let message_id = self.bytes(if is_old { OLD_MESSAGE_ID_BYTES } else { MESSAGE_ID_BYTES })?.to_vec();
        let context = context::read(self.field()?, suite)?;
        let encrypted_data_keys = self.encrypted_data_keys()?;
        let content_type = self.u8()?;
        if content_type != FRAMED && (content_type != UNFRAMED || accepted == Accepted::Sealed) {
            return Err(OpenError::ContentType(content_type).into());
        }
        if is_old && (self.array()? != [0; 4] || usize::from(self.u8()?) != IV_BYTES) {
            return Err(OpenError::FixedFields.into());
        }
        let frame_length = u32::from_be_bytes(self.array()?);
        match content_type {
            UNFRAMED if frame_length == 0 => {}
            FRAMED if (1..=MAX_FRAME_LENGTH).contains(&frame_length) => {}
            UNFRAMED => return Err(OpenError::FixedFields.into()),
            _ => return Err(OpenError::FrameLength(frame_length).into()),
        }
        let commitment = self.bytes(if is_old { 0 } else { COMMITMENT_BYTES })?.to_vec();
        let body_bytes = self.at;
        self.limit += IV_BYTES + TAG_BYTES;
        let iv = if is_old { self.array()? } else { HEADER_IV };
        let tag = self.array()?;
        let bytes = self.bytes[..self.at].to_vec();
        let facts = HeaderFacts::new(&bytes, suite, encrypted_data_keys.len(), frame_length);
        Ok(Header { bytes, body_bytes, message_id, context, encrypted_data_keys, facts, commitment, iv, tag })
    }

    /// The first bytes, which identify an accepted message, or what else it is.
    fn format(&mut self, accepted: Accepted) -> Result<Suite, Stop> {
        let version = self.u8()?;
        match version {
            VERSION => {}
            OLD_VERSION if self.u8()? == OLD_TYPE => {}
            // decrypt.md, "Encrypted Message Format": the first byte in Base64, of either format.
            b'A' => return Err(OpenError::Base64.into()),
            other => return Err(OpenError::Version(other).into()),
        }
        let id = self.u16()?;
        let is_accepted = |suite: &Suite| {
            suite.is_committed() == (version == VERSION)
                && (accepted == Accepted::Every || *suite == Suite::Committed)
        };
        let refused = || if version == VERSION { OpenError::Suite(id) } else { OpenError::FormatOne(id) };
        Suite::of(id).filter(is_accepted).ok_or_else(|| refused().into())
    }

    fn encrypted_data_keys(&mut self) -> Result<Vec<EncryptedDataKey>, Stop> {
        let count = self.u16()?;
        if !(1..=MAX_ENCRYPTED_DATA_KEYS).contains(&count) {
            return Err(OpenError::EncryptedDataKeys(count).into());
        }
        (0..count).map(|_| self.encrypted_data_key()).collect()
    }

    fn encrypted_data_key(&mut self) -> Result<EncryptedDataKey, Stop> {
        let provider_id = str::from_utf8(self.field()?).map_err(|_| OpenError::ProviderId)?.to_owned();
        Ok(EncryptedDataKey {
            provider_id,
            provider_info: self.field()?.into(),
            ciphertext: self.field()?.into(),
        })
    }

    /// A field after its length.
    fn field(&mut self) -> Result<&'a [u8], Stop> {
        let length = self.u16()?;
        self.bytes(length.into())
    }

    fn u8(&mut self) -> Result<u8, Stop> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, Stop> {
        self.array().map(u16::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let bytes = self.bytes(N)?;
        Ok(*bytes.first_chunk().expect("as many as were asked for"))
    }

    /// So many bytes; where they would be too many, none is asked for.
    fn bytes(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        let end = self.at + length;
        if end > self.limit {
            return Err(OpenError::HeaderLength.into());
        }
        let bytes = self.bytes.get(self.at..end).ok_or(Stop::Needs(end))?;
        self.at = end;
        Ok(bytes)
    }
}

impl From<OpenError> for Stop {
    fn from(error: OpenError) -> Self {
        Self::Refused(error)
    }
}
