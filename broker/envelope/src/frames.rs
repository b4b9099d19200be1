//! The format of frames, for encryption and decryption.

use crate::format::{IV_BYTES, TAG_BYTES};

/// A frame's place in its message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// With a frame after it; as long as the frame length.
    Regular,
    /// The last one, of any length up to the frame length.
    Last,
    /// All there is: content without frames.
    Only,
}

/// The additional authenticated data of a frame (message-body-aad.md).
pub(crate) fn aad(message_id: &[u8], place: Place, sequence: u32, content_bytes: u64) -> Vec<u8> {
    let words: &[u8] = match place {
        Place::Regular => b"AWSKMSEncryptionClient Frame",
        Place::Last => b"AWSKMSEncryptionClient Final Frame",
        Place::Only => b"AWSKMSEncryptionClient Single Block",
    };
    [message_id, words, &sequence.to_be_bytes(), &content_bytes.to_be_bytes()].concat()
}

/// A frame's IV: its sequence number, after zeros (encrypt.md, "Construct a frame"). No frame has the number 0.
pub(crate) fn iv(sequence: u32) -> [u8; IV_BYTES] {
    let mut iv = [0; IV_BYTES];
    iv[IV_BYTES - 4..].copy_from_slice(&sequence.to_be_bytes());
    iv
}

/// The IV of a header of format 2. It is not written down.
pub(crate) const HEADER_IV: [u8; IV_BYTES] = [0; IV_BYTES];
/// Stands where a regular frame has its sequence number.
pub(crate) const LAST_FRAME: u32 = u32::MAX;
/// Sequence number and IV.
pub(crate) const REGULAR_HEAD: usize = 4 + IV_BYTES;
/// Mark, sequence number, IV and content length.
pub(crate) const LAST_HEAD: usize = 4 + REGULAR_HEAD + 4;
/// IV and content length.
pub(crate) const ONLY_HEAD: usize = IV_BYTES + 8;
/// The bytes of a regular frame beside its content.
pub(crate) const REGULAR_OVERHEAD: usize = REGULAR_HEAD + TAG_BYTES;
/// The bytes of a last frame beside its content.
pub(crate) const LAST_OVERHEAD: usize = LAST_HEAD + TAG_BYTES;
