//! Why a message cannot be encrypted or decrypted, and what to do. Errors contain no bytes of the message, only numbers, since they
//! may be printed to a terminal.

use std::error::Error;
use std::fmt;
use std::io;

use crate::format::{FRAME_LENGTH, MAX_ENCRYPTED_DATA_KEYS, MAX_FRAME_LENGTH, MAX_HEADER_BYTES};
use crate::keys::WrongLength;

/// Why a message is not opened.
#[derive(Debug)]
pub enum OpenError {
    /// The message ends too early: in its header (0), or in or before this frame.
    CutOff(u32),
    /// The bytes look like Base64.
    Base64,
    /// Not a message, or one of a later format. Its first byte.
    Version(u8),
    /// A message of format 1, with this suite.
    FormatOne(u16),
    /// A message of format 2, with this other suite.
    Suite(u16),
    /// A field that is the same in all messages of this format and content type is not.
    FixedFields,
    /// The encryption context is malformed, for this reason.
    Context(String),
    /// This number of encrypted data keys: none, or more than 64.
    EncryptedDataKeys(u16),
    /// An encrypted data key's provider is not UTF-8.
    ProviderId,
    /// The content type: 1 is content without frames, others are unknown.
    ContentType(u8),
    /// This frame length: 0, or more than 1 MiB.
    FrameLength(u32),
    /// Content without frames is longer than is accepted.
    ContentLength {
        /// Its length, as the message says.
        content: u64,
        /// How many bytes are accepted.
        limit: u64,
    },
    /// The header is longer than 64 KiB.
    HeaderLength,
    /// The data key has this many bytes instead of 32.
    DataKeyLength(usize),
    /// The data key is not the one the message commits to, or the commitment or message id was altered.
    Commitment,
    /// The header was altered.
    HeaderTag,
    /// A frame is missing, moved or there twice.
    Sequence {
        /// The number of the frame that should come.
        expected: u32,
        /// The number that it has.
        found: u32,
    },
    /// The last frame is longer than frames are in this message.
    LastFrameLength {
        /// Its length.
        content: u32,
        /// The frame length.
        frame: u32,
    },
    /// This frame was altered, or is of another message.
    FrameTag(u32),
    /// The public key of a signed message is not a point of P-384.
    PublicKey,
    /// The signature is wrong.
    Signature,
    /// Something follows the last frame.
    TrailingBytes,
    /// The message was refused before.
    Refused,
}

/// Why a message is not sealed.
#[derive(Debug)]
pub enum SealError {
    /// The data key has this many bytes instead of 32.
    DataKeyLength(usize),
    /// The encryption context has a name that the SDKs keep for themselves.
    ReservedName(String),
    /// The encryption context has an empty value under this name, which the SDK for Java does not open.
    EmptyValue(String),
    /// Encryption context and encrypted data key make a header of more than 64 KiB.
    TooLong,
    /// The operating system gave no randomness for the message's id.
    Randomness(io::Error),
    /// The writer failed.
    Write(io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CutOff(0) => f.write_str("the message ends in its header: get all of it"),
            Self::CutOff(frame) => write!(f, "the message ends too early, at frame {frame}: get all of it"),
            Self::Base64 => f.write_str("this looks like Base64: decode it first (base64 --decode)"),
            Self::Version(version) => {
                write!(f, "this is not an AWS Encryption SDK message of format 1 or 2 (its first byte is 0x{version:02x})")
            }
            Self::FormatOne(suite) => {
                write!(f, "message format 1 (suite 0x{suite:04x}), which has no key commitment: {NOT_HERE}, with \
                       --commitment-policy require-encrypt-allow-decrypt")
            }
            Self::Suite(0x0578) => write!(f, "suite 0x0578, which is signed: {NOT_HERE}"),
            Self::Suite(suite) => write!(f, "suite 0x{suite:04x}: {NOT_HERE}"),
            Self::FixedFields => f.write_str(
                "a field of the header that is the same in all messages of its kind is not: the message is malformed",
            ),
            Self::Context(why) => write!(f, "the message's encryption context is malformed: {why}"),
            Self::EncryptedDataKeys(count) => write!(
                f,
                "the message has {count} encrypted data keys: key-broker opens messages with 1 to \
                 {MAX_ENCRYPTED_DATA_KEYS}"
            ),
            Self::ProviderId => f.write_str("the provider of an encrypted data key is not UTF-8: the message is malformed"),
            Self::ContentType(1) => f.write_str(
                "content without frames, which is not opened here: use aws-encryption-cli --decrypt",
            ),
            Self::ContentType(other) => {
                write!(f, "content type {other} is neither framed nor unframed: the message is malformed")
            }
            Self::FrameLength(0) => f.write_str("framed content with frame length 0: the message is malformed"),
            Self::FrameLength(length) => write!(
                f,
                "frame length {length}: key-broker opens frames of up to {MAX_FRAME_LENGTH} bytes; seal it again with \
                 the default of {FRAME_LENGTH}, or use aws-encryption-cli --decrypt"
            ),
            Self::ContentLength { content, limit } => write!(
                f,
                "content of {content} bytes without frames, of which {limit} are accepted: seal it again in frames, or \
                 use aws-encryption-cli --decrypt"
            ),
            Self::HeaderLength => {
                write!(f, "the message's header is longer than {MAX_HEADER_BYTES} bytes: use aws-encryption-cli --decrypt")
            }
            Self::DataKeyLength(bytes) => wrong_length(f, *bytes),
            Self::Commitment => f.write_str(
                "the message was not sealed with this data key, or its header was altered: decrypt one of its own \
                 encrypted data keys",
            ),
            Self::HeaderTag => f.write_str("the message's header was altered: do not use the message"),
            Self::Sequence { expected, found } => write!(
                f,
                "frame {found} stands where frame {expected} should be: the message was altered, do not use it"
            ),
            Self::LastFrameLength { content, frame } => write!(
                f,
                "the last frame has {content} bytes where frames have {frame}: the message was altered, do not use it"
            ),
            Self::FrameTag(frame) => write!(f, "frame {frame} was altered: do not use the message"),
            Self::PublicKey => f.write_str(
                "the public key in the message's encryption context is not a point of P-384: the message is malformed",
            ),
            Self::Signature => f.write_str("the message's signature is wrong: it was altered, do not use it"),
            Self::TrailingBytes => {
                f.write_str("something follows the message's last frame: the message was altered, do not use it")
            }
            Self::Refused => f.write_str("the message was refused before: nothing more of it is read"),
        }
    }
}

impl Error for OpenError {}

impl From<WrongLength> for OpenError {
    fn from(WrongLength(bytes): WrongLength) -> Self {
        Self::DataKeyLength(bytes)
    }
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataKeyLength(bytes) => wrong_length(f, *bytes),
            Self::ReservedName(name) => write!(
                f,
                "the encryption context has the name {name:?}: names that begin with aws-crypto- are the AWS Encryption \
                 SDK's own; choose another"
            ),
            Self::EmptyValue(name) => write!(
                f,
                "the encryption context has an empty value for {name:?}, which not every AWS Encryption SDK opens: give \
                 it a value or leave it out"
            ),
            Self::TooLong => write!(
                f,
                "encryption context and encrypted data key make a header of more than {MAX_HEADER_BYTES} bytes: shorten \
                 the context"
            ),
            Self::Randomness(error) => write!(f, "the operating system gives no randomness: {error}"),
            Self::Write(error) => write!(f, "the encrypted message cannot be written: {error}"),
        }
    }
}

impl Error for SealError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        if let Self::Randomness(error) | Self::Write(error) = self { Some(error) } else { None }
    }
}

impl From<WrongLength> for SealError {
    fn from(WrongLength(bytes): WrongLength) -> Self {
        Self::DataKeyLength(bytes)
    }
}

fn wrong_length(f: &mut fmt::Formatter<'_>, bytes: usize) -> fmt::Result {
    write!(f, "the data key has {bytes} bytes: a message takes one of 32, which KMS makes for AES_256")
}

const NOT_HERE: &str = "not opened here; use aws-encryption-cli --decrypt";
