//! The front of a message (message-header.md, "Header Body Version 2.0"): written whole, read from somebody who may be lying.

use std::io::Read;

use bytes::Bytes;
use key_broker_core::{CiphertextBlob, EncryptionContext, KeyArn, Plaintext};

use super::frames::HEADER_IV;
use super::keys::MessageKeys;
use super::{
    COMMITMENT_BYTES, FRAMED, MAX_ENCRYPTED_DATA_KEYS, MAX_FRAME_LENGTH, MAX_HEADER_BYTES, MessageId,
    OpenError, Opener, SUITE, SealError, TAG_BYTES, VERSION, context,
};

/// A header as it was read: nobody has vouched for it until [`Header::open`] has found its tag right.
pub struct Header {
    /// Everything before the tag, which covers it.
    body: Vec<u8>,
    message_id: MessageId,
    context: EncryptionContext,
    encrypted_data_keys: Vec<EncryptedDataKey>,
    frame_length: u32,
    commitment: [u8; COMMITMENT_BYTES],
    tag: [u8; TAG_BYTES],
}

/// A data key as a message carries it: encrypted, with a note on who can decrypt it.
#[derive(Clone)]
pub struct EncryptedDataKey {
    provider_id: String,
    provider_info: Vec<u8>,
    ciphertext: Vec<u8>,
}

impl Header {
    /// Reads a header and not a byte more. A header of more than 64 KiB is refused without reading on.
    pub fn read(reader: &mut impl Read) -> Result<Self, OpenError> {
        let mut fields = Fields { reader, body: Vec::new() };
        fields.format()?;
        let message_id = MessageId(fields.array()?);
        let context = context::read(fields.field()?)?;
        let encrypted_data_keys = fields.encrypted_data_keys()?;
        match fields.u8()? {
            FRAMED => {}
            other => return Err(OpenError::ContentType(other)),
        }
        let frame_length = u32::from_be_bytes(fields.array()?);
        if !(1..=MAX_FRAME_LENGTH).contains(&frame_length) {
            return Err(OpenError::FrameLength(frame_length));
        }
        let commitment = fields.array()?;
        let Fields { reader, body } = fields;
        let mut tag = [0; TAG_BYTES];
        reader.read_exact(&mut tag).map_err(|error| OpenError::reading(error, 0))?;
        Ok(Self { body, message_id, context, encrypted_data_keys, frame_length, commitment, tag })
    }

    /// What the data key was encrypted under. Compare it with what it should be: KMS only tells that it fits the ciphertext.
    #[must_use]
    pub fn context(&self) -> &EncryptionContext {
        &self.context
    }

    /// The one data key, once or more: each under another KMS key. 1 to 64.
    #[must_use]
    pub fn encrypted_data_keys(&self) -> &[EncryptedDataKey] {
        &self.encrypted_data_keys
    }

    /// The length of all frames but the last, in bytes: 1 to 1 MiB.
    #[must_use]
    pub fn frame_length(&self) -> u32 {
        self.frame_length
    }

    /// Checks commitment and tag with the decrypted data key. `reader` stands where [`Header::read`] left it.
    pub fn open<R: Read>(self, data_key: &Plaintext, reader: R) -> Result<Opener<R>, OpenError> {
        let keys = MessageKeys::derive(data_key, &self.message_id)?;
        if !keys.match_commitment(&self.commitment) {
            return Err(OpenError::Commitment);
        }
        keys.open(HEADER_IV, &self.body, &mut [], self.tag).map_err(|_| OpenError::HeaderTag)?;
        Ok(Opener::new(reader, keys, self.message_id, self.frame_length))
    }
}

impl EncryptedDataKey {
    /// A data key that KMS encrypted under `key`, noted as the SDKs' KMS keyrings note it (aws-kms-keyring.md).
    #[must_use]
    pub fn aws_kms(key: &KeyArn, ciphertext: &CiphertextBlob) -> Self {
        Self {
            provider_id: AWS_KMS.into(),
            provider_info: key.as_str().into(),
            ciphertext: ciphertext.as_bytes().into(),
        }
    }

    /// The KMS key and the ciphertext to send to KMS; none where it is not for KMS.
    #[must_use]
    pub fn for_kms(&self) -> Option<(KeyArn, CiphertextBlob)> {
        if self.provider_id != AWS_KMS {
            return None;
        }
        let key = KeyArn::parse(str::from_utf8(&self.provider_info).ok()?)?;
        Some((key, CiphertextBlob::parse(Bytes::copy_from_slice(&self.ciphertext)).ok()?))
    }
}

/// Everything before the tag.
pub(super) fn write(
    message_id: &MessageId,
    context: &EncryptionContext,
    encrypted_data_keys: &[EncryptedDataKey],
    frame_length: u32,
    commitment: &[u8; COMMITMENT_BYTES],
) -> Result<Vec<u8>, SealError> {
    let mut body = vec![VERSION];
    body.extend_from_slice(&SUITE.to_be_bytes());
    body.extend_from_slice(&message_id.0);
    write_field(&mut body, &context::write(context)?)?;
    body.extend_from_slice(
        &u16::try_from(encrypted_data_keys.len()).map_err(|_| SealError::TooLong)?.to_be_bytes(),
    );
    for key in encrypted_data_keys {
        write_field(&mut body, key.provider_id.as_bytes())?;
        write_field(&mut body, &key.provider_info)?;
        write_field(&mut body, &key.ciphertext)?;
    }
    body.push(FRAMED);
    body.extend_from_slice(&frame_length.to_be_bytes());
    body.extend_from_slice(commitment);
    // What nobody could read again is not written.
    if body.len() > MAX_HEADER_BYTES { Err(SealError::TooLong) } else { Ok(body) }
}

fn write_field(body: &mut Vec<u8>, field: &[u8]) -> Result<(), SealError> {
    let length = u16::try_from(field.len()).map_err(|_| SealError::TooLong)?;
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(field);
    Ok(())
}

/// Reads fields and keeps their bytes, up to a limit.
struct Fields<'a, R> {
    reader: &'a mut R,
    body: Vec<u8>,
}

impl<R: Read> Fields<'_, R> {
    /// The two bytes that tell a message of ours, or what else it is.
    fn format(&mut self) -> Result<(), OpenError> {
        match self.u8()? {
            VERSION => match self.u16()? {
                SUITE => Ok(()),
                other => Err(OpenError::Suite(other)),
            },
            1 => match self.u8()? {
                // The only type that format 1 has.
                0x80 => Err(OpenError::FormatOne(self.u16()?)),
                _ => Err(OpenError::Version(1)),
            },
            // decrypt.md, "Encrypted Message Format": the first byte in Base64, of either format.
            b'A' => Err(OpenError::Base64),
            other => Err(OpenError::Version(other)),
        }
    }

    fn encrypted_data_keys(&mut self) -> Result<Vec<EncryptedDataKey>, OpenError> {
        let count = self.u16()?;
        if !(1..=MAX_ENCRYPTED_DATA_KEYS).contains(&count) {
            return Err(OpenError::EncryptedDataKeys(count));
        }
        (0..count).map(|_| self.encrypted_data_key()).collect()
    }

    fn encrypted_data_key(&mut self) -> Result<EncryptedDataKey, OpenError> {
        let provider_id = str::from_utf8(self.field()?).map_err(|_| OpenError::ProviderId)?.to_owned();
        Ok(EncryptedDataKey {
            provider_id,
            provider_info: self.field()?.into(),
            ciphertext: self.field()?.into(),
        })
    }

    /// A field after its length.
    fn field(&mut self) -> Result<&[u8], OpenError> {
        let length = self.u16()?;
        self.bytes(length.into())
    }

    fn u8(&mut self) -> Result<u8, OpenError> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, OpenError> {
        self.array().map(u16::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], OpenError> {
        let bytes = self.bytes(N)?;
        Ok(*bytes.first_chunk().expect("as many as were asked for"))
    }

    /// So many bytes; where they would be too many, not one is read.
    fn bytes(&mut self, length: usize) -> Result<&[u8], OpenError> {
        let start = self.body.len();
        let end = start + length;
        if end > MAX_HEADER_BYTES {
            return Err(OpenError::HeaderLength);
        }
        self.body.resize(end, 0);
        let field = &mut self.body[start..];
        self.reader.read_exact(field).map_err(|error| OpenError::reading(error, 0))?;
        Ok(field)
    }
}

/// The provider of KMS's data keys.
const AWS_KMS: &str = "aws-kms";
