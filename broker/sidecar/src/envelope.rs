//! Encrypted messages that the official AWS Encryption SDKs and `aws-encryption-cli` open, and the opening of theirs: message
//! format 2 with the one algorithm suite 0x0478 (AES-256-GCM, HKDF-SHA512, key commitment, no signature), framed, streaming.
//!
//! [`Sealer`] writes a message under a data key that the caller brings. [`Header::read`] reads the front of one: whose data key
//! it needs and the encryption context. With that data key, [`Header::open`] gives an [`Opener`], which reads the rest.
//!
//! ```text
//! header  version 1 = 2 | suite 2 = 0x0478 | message id 32 | encryption context | encrypted data keys
//!         content type 1 = 2 | frame length 4 | commitment 32 | tag 16
//! frame   sequence number 4 | IV 12 | content, as long as the frame length | tag 16
//! last    0xFFFFFFFF | sequence number 4 | IV 12 | content length 4 | content | tag 16
//! ```
//!
//! From data key and message id HKDF makes the key of this one message and the commitment to the data key: a message opens
//! under one data key only, which AES-GCM alone does not promise. The header's tag covers the whole header; a frame's tag covers
//! its place in this message, so that frames cannot be moved, dropped or brought in from elsewhere.
//!
//! Other suites, format 1, content without frames and signatures are refused by name: AWS's own programs open those. Of AWS's
//! published vectors, aws-encryption-sdk-test-vectors (python-1.3.5) are of format 1, all nine suites from 0x0014 to 0x0378, with
//! frames of 512 to 20,480 bytes and without; the SDK for Java's commitment-test-vectors.json are of format 2, suites 0x0478 and
//! 0x0578, with frames of 1 byte to 4 KiB and without, with one or two encrypted data keys. Those of suite 0x0478 in frames
//! open, but for three whose commitment is wrong on purpose; all others are refused for what they are.
//!
//! Source: <https://github.com/awslabs/aws-encryption-sdk-specification>, data-format/message-header.md, message-body.md,
//! message-body-aad.md and framework/transitive-requirements.md.

mod context;
mod error;
mod frames;
mod header;
mod keys;
mod opener;
mod sealer;

#[cfg(test)]
mod tests;

use std::io;

pub use error::{OpenError, SealError};
pub use header::{EncryptedDataKey, Header};
pub use opener::Opener;
pub use sealer::Sealer;

/// What makes a message's key its own: 32 random bytes. Under one data key no two messages may have the same, or both can be
/// read and forged; so an id is used up by its message.
pub struct MessageId([u8; MESSAGE_ID_BYTES]);

impl MessageId {
    /// A new one, from the operating system's randomness.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; MESSAGE_ID_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }
}

/// message-header.md: "2.0".
const VERSION: u8 = 2;
/// algorithm-suites.md: `ALG_AES_256_GCM_HKDF_SHA512_COMMIT_KEY`.
const SUITE: u16 = 0x0478;
/// message-header.md: "Framed".
const FRAMED: u8 = 2;
/// The SDKs' default, so that our messages look like theirs. In bytes.
const FRAME_LENGTH: u32 = 4_096;
/// An opener holds one frame in memory. The format allows 4 GiB.
const MAX_FRAME_LENGTH: u32 = 1 << 20;
/// A header is held in memory, and is anybody's claim until its tag is checked. KMS's largest context takes 12 KiB, an encrypted
/// data key of KMS some 300 bytes. The format allows gigabytes.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// KMS has fewer Regions, and each key may cost the caller a call to KMS. The format allows 65,535.
const MAX_ENCRYPTED_DATA_KEYS: u16 = 64;
const MESSAGE_ID_BYTES: usize = 32;
const DATA_KEY_BYTES: usize = 32;
const COMMITMENT_BYTES: usize = 32;
const IV_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
