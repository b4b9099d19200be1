//! What sealer and opener have to agree on about frames.

use super::{IV_BYTES, MessageId};

/// A frame's place in its message.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// With a frame after it; as long as the frame length.
    Regular,
    /// The last one, of any length up to the frame length.
    Last,
}

/// What a frame's tag covers beside the content (message-body-aad.md).
pub(super) fn aad(message_id: &MessageId, place: Place, sequence: u32, content_bytes: u32) -> Vec<u8> {
    let words: &[u8] = match place {
        Place::Regular => b"AWSKMSEncryptionClient Frame",
        Place::Last => b"AWSKMSEncryptionClient Final Frame",
    };
    let content_bytes = u64::from(content_bytes);
    [&message_id.0, words, &sequence.to_be_bytes(), &content_bytes.to_be_bytes()].concat()
}

/// A frame's IV: its sequence number, after zeros (encrypt.md, "Construct a frame"). No frame has the number 0.
pub(super) fn iv(sequence: u32) -> [u8; IV_BYTES] {
    let mut iv = [0; IV_BYTES];
    iv[IV_BYTES - 4..].copy_from_slice(&sequence.to_be_bytes());
    iv
}

/// The header's IV. It is not written down.
pub(super) const HEADER_IV: [u8; IV_BYTES] = [0; IV_BYTES];
/// Stands where a regular frame has its sequence number.
pub(super) const LAST_FRAME: u32 = u32::MAX;
/// Sequence number and IV.
pub(super) const REGULAR_HEAD: usize = 4 + IV_BYTES;
/// Mark, sequence number, IV and content length.
pub(super) const LAST_HEAD: usize = 4 + REGULAR_HEAD + 4;
