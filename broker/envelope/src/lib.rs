//! Encrypted messages that the official AWS Encryption SDKs and `aws-encryption-cli` open, and the opening of theirs: message
//! format 2 with the one algorithm suite 0x0478 (AES-256-GCM, HKDF-SHA512, key commitment, no signature), framed, streaming.
//!
//! [`Sealer`] writes a message under a data key that the caller brings. [`Header::read`] reads the front of one: whose data key
//! it needs and the encryption context. With that data key, [`Header::open`] gives an [`Opener`], which reads the rest. The
//! crate neither calls KMS nor opens files: it works on any [`Write`](std::io::Write) and [`Read`](std::io::Read).
//!
//! ```
//! use std::io::{Read, Write};
//!
//! use key_broker_core::{CiphertextBlob, EncryptionContext, KeyArn, Plaintext};
//! use key_broker_envelope::{EncryptedDataKey, Header, MessageId, Sealer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let arn = KeyArn::parse("arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab").ok_or("no ARN")?;
//! # let blob = CiphertextBlob::parse(vec![1].into()).expect("one byte");
//! # let data_key = || Plaintext::new(vec![1; 32]);
//! # let context = EncryptionContext::default();
//! // From KMS's GenerateDataKey: the ARN, the plaintext and the ciphertext blob.
//! let encrypted = EncryptedDataKey::aws_kms(&arn, &blob);
//! let mut sealer = Sealer::new(Vec::new(), &data_key(), encrypted, &context, MessageId::random()?)?;
//! sealer.write_all(b"hello")?;
//! let message = sealer.finish()?;
//!
//! let mut reader = &message[..];
//! let header = Header::read(&mut reader)?;
//! let (arn, blob) = header.encrypted_data_keys()[0].for_kms().ok_or("a data key of another provider")?;
//! // Here KMS decrypts `blob` under `arn` and the header's context, which should be the one that is expected.
//! let mut plaintext = String::new();
//! header.open(&data_key(), reader)?.read_to_string(&mut plaintext)?;
//! assert_eq!(plaintext, "hello");
//! # Ok(())
//! # }
//! ```
//!
//! # Format
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
//! # Limits
//!
//! Other suites, format 1, content without frames and signatures are refused by name: AWS's own programs open those. Of AWS's
//! published vectors, aws-encryption-sdk-test-vectors (python-1.3.5) are of format 1, all nine suites from 0x0014 to 0x0378, with
//! frames of 512 to 20,480 bytes and without; the SDK for Java's commitment-test-vectors.json are of format 2, suites 0x0478 and
//! 0x0578, with frames of 1 byte to 4 KiB and without, with one or two encrypted data keys. Those of suite 0x0478 in frames
//! open, but for three whose commitment is wrong on purpose; all others are refused for what they are.
//!
//! Source: <https://github.com/awslabs/aws-encryption-sdk-specification>, data-format/message-header.md, message-body.md,
//! message-body-aad.md and framework/transitive-requirements.md.

#![forbid(unsafe_code)]

mod body;
mod context;
mod error;
mod format;
mod frames;
mod header;
mod keys;
mod opener;
mod sealer;
mod signature;
mod suite;

#[cfg(test)]
mod tests;

pub use self::{
    body::BodyOpener,
    error::{OpenError, SealError},
    format::MessageId,
    header::{EncryptedDataKey, Header, HeaderFacts, HeaderReader},
    opener::Opener,
    sealer::Sealer,
    suite::Suite,
};
