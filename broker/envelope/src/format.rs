//! Shared by header and frames: the format's constants, our limits, and the message id.

use std::io;

/// 32 random bytes that give a message a key of its own. Two messages with the same id under one data key could both be read and
/// forged, so sealing a message consumes its id.
pub(crate) struct MessageId(pub(crate) [u8; MESSAGE_ID_BYTES]);

impl MessageId {
    /// A new one, from the operating system's randomness.
    pub(crate) fn random() -> io::Result<Self> {
        let mut bytes = [0; MESSAGE_ID_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }
}

/// message-header.md: "2.0".
pub(crate) const VERSION: u8 = 2;
/// message-header.md: "1.0".
pub(crate) const OLD_VERSION: u8 = 1;
/// message-header.md, "Supported Types": the only one that format 1 has.
pub(crate) const OLD_TYPE: u8 = 0x80;
/// message-header.md: "Non-Framed".
pub(crate) const UNFRAMED: u8 = 1;
/// message-header.md: "Framed".
pub(crate) const FRAMED: u8 = 2;
/// The SDKs' default, so that our messages look like theirs. In bytes.
pub(crate) const FRAME_LENGTH: u32 = 4_096;
/// An opener holds one frame in memory. The format allows 4 GiB.
pub(crate) const MAX_FRAME_LENGTH: u32 = 1 << 20;
/// message-body.md, "Encrypted Content Length": AES-GCM takes no more under one IV.
pub(crate) const MAX_CONTENT_BYTES: u64 = (1 << 36) - 32;
/// A header is held in memory, and is anybody's claim until its tag is checked. KMS's largest context takes 12 KiB, an encrypted
/// data key of KMS some 300 bytes. The format allows gigabytes. Its IV and tag come on top.
pub(crate) const MAX_HEADER_BYTES: usize = 64 << 10;
/// KMS has fewer Regions, and each key may cost the caller a call to KMS. The format allows 65,535.
pub(crate) const MAX_ENCRYPTED_DATA_KEYS: u16 = 64;
pub(crate) const MESSAGE_ID_BYTES: usize = 32;
pub(crate) const OLD_MESSAGE_ID_BYTES: usize = 16;
pub(crate) const DATA_KEY_BYTES: usize = 32;
pub(crate) const COMMITMENT_BYTES: usize = 32;
pub(crate) const IV_BYTES: usize = 12;
pub(crate) const TAG_BYTES: usize = 16;
