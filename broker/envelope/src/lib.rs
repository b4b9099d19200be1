//! Messages in the format of the AWS Encryption SDKs and `aws-encryption-cli`. Writes format 2 with algorithm suite 0x0478
//! (AES-256-GCM, HKDF-SHA512, key commitment, no signature), framed; reads every [`Suite`] here, framed or not.
//!
//! [`Sealer`] writes a message under the caller's data key, in parts or at once. [`HeaderReader`] parses a header as it arrives: which
//! data key it needs, the encryption context, and what a record needs. With that data key, a [`Header`]
//! opens what follows: [`Header::open_whole`] what is in memory, all or nothing; [`Header::open_body`] what comes piece by piece. Where
//! only messages of this crate are expected, [`Header::read`] takes those and no others. The crate neither calls KMS nor opens files,
//! and waits for nothing.
//!
//! ```
//! use std::io::Write;
//!
//! use key_broker_core::{CiphertextBlob, EncryptionContext, KeyArn, Plaintext};
//! use key_broker_envelope::{EncryptedDataKey, HeaderReader, Sealer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let arn = KeyArn::parse("arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab").ok_or("no ARN")?;
//! # let blob = CiphertextBlob::parse(vec![1].into()).expect("one byte");
//! # let data_key = || Plaintext::new(vec![1; 32]);
//! # let context = EncryptionContext::default();
//! // From KMS's GenerateDataKey: the ARN, the plaintext and the ciphertext blob.
//! let encrypted = EncryptedDataKey::aws_kms(&arn, &blob);
//! let mut sealer = Sealer::new(Vec::new(), &data_key(), encrypted, &context)?;
//! sealer.write_all(b"hello")?;
//! let message = sealer.finish()?;
//!
//! let mut rest = &message[..];
//! let header = HeaderReader::default().push(&mut rest)?.ok_or("only a part of a header")?;
//! // Which suites to take is for the caller to say.
//! assert!(header.facts().suite.is_committed());
//! let (arn, blob) = header.encrypted_data_keys()[0].for_kms().ok_or("a data key of another provider")?;
//! // Here KMS decrypts `blob` under `arn` and the header's context, which should be the one that is expected.
//! let plaintext = header.open_whole(&data_key(), rest)?;
//! assert_eq!(&plaintext[..], b"hello");
//! # Ok(())
//! # }
//! ```
//!
//! # Format
//!
//! ```text
//! header  version 1 = 2 | suite 2 = 0x0478 or 0x0578 | message id 32 | encryption context | encrypted data keys
//!         content type 1 | frame length 4 | commitment 32 | tag 16
//! or      version 1 = 1 | type 1 = 0x80 | suite 2 = 0x0178 or 0x0378 | message id 16 | encryption context | encrypted data keys
//!         content type 1 | zeros 4 | IV length 1 = 12 | frame length 4 | IV 12 | tag 16
//! frame   sequence number 4 | IV 12 | content, as long as the frame length | tag 16
//! last    0xFFFFFFFF | sequence number 4 | IV 12 | content length 4 | content | tag 16
//! or, without frames (content type 1 instead of 2, frame length 0)
//!         IV 12 | content length 8 | content | tag 16
//! footer  of 0x0578 and 0x0378: signature length 2 | signature
//! ```
//!
//! From data key and message id HKDF makes the key of this one message and, in format 2, the commitment to the data key: such a message
//! opens under one data key only, which AES-GCM alone does not promise. The header's tag covers the whole header; a frame's tag covers
//! its place in this message, so that frames cannot be moved, dropped or brought in from elsewhere. A signature covers all before it;
//! its public key is the pair `aws-crypto-public-key` of the encryption context, under which KMS encrypted the data key.
//!
//! That pair counts towards KMS's 8,192 bytes of context, with 89 bytes: [`Header::context`] has it, as KMS has to be told it, and no
//! message under a KMS key has more.
//!
//! # Limits
//!
//! A header has at most 64 KiB and 64 encrypted data keys, a frame 1 MiB, content without frames what the caller accepts. Suites
//! without key derivation, and those with keys of 128 and 192 bits, are refused by name: AWS's own programs open those. Plaintext and
//! keys are erased when they are dropped. Ciphertext is held until it is authentic, and plaintext never longer than it takes to give it
//! out.
//!
//! AWS's published vectors for these suites open, or are refused where they are wrong on purpose (`src/tests/vectors.rs`).
//!
//! Source: <https://github.com/awslabs/aws-encryption-sdk-specification>, data-format/message-header.md, message-body.md,
//! message-body-aad.md, message-footer.md, client-apis/decrypt.md and framework/transitive-requirements.md.

#![forbid(unsafe_code)]

mod body;
mod context;
mod error;
mod format;
mod frames;
mod header;
mod keys;
mod sealer;
mod signature;
mod suite;

#[cfg(test)]
mod tests;

pub use self::{
    body::BodyOpener,
    error::{OpenError, SealError},
    header::{EncryptedDataKey, Header, HeaderFacts, HeaderReader},
    sealer::Sealer,
    suite::Suite,
};
