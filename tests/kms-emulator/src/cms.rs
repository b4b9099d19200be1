//! `CiphertextForRecipient`: a CMS `EnvelopedData` (RFC 5652) that only the holder of the attested RSA key opens.
//!
//! KMS writes BER with indefinite lengths where a definite one would do, and so does this writer: readers that know DER
//! only must fail in tests, not in an enclave.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::cipher::{AES_256, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use zeroize::Zeroizing;

use crate::random;

/// How `CiphertextForRecipient` is written down. All say the same; readers must take the first two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecipientForm {
    /// BER with indefinite lengths, the encrypted content in octet strings of up to 1000 bytes: what KMS sends.
    #[default]
    BerConstructed,
    /// BER with indefinite lengths, the encrypted content in one piece.
    BerPrimitive,
    /// DER: every length definite. KMS does not send it.
    Der,
}

impl fmt::Display for RecipientForm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            RecipientForm::BerConstructed => "ber-constructed",
            RecipientForm::BerPrimitive => "ber-primitive",
            RecipientForm::Der => "der",
        })
    }
}

impl FromStr for RecipientForm {
    type Err = String;

    fn from_str(text: &str) -> Result<RecipientForm, String> {
        [RecipientForm::BerConstructed, RecipientForm::BerPrimitive, RecipientForm::Der]
            .into_iter()
            .find(|form| form.to_string() == text)
            .ok_or_else(|| format!("{text:?} is not ber-constructed, ber-primitive or der"))
    }
}

/// An RSA key that answers are sealed to.
pub(crate) struct RecipientKey {
    key: OaepPublicEncryptingKey,
    /// `subjectKeyIdentifier`. KMS's has 32 bytes, too; AWS does not say of what. This is SHA-256 of the key's DER.
    id: [u8; 32],
}

impl RecipientKey {
    /// Reads a DER `SubjectPublicKeyInfo`; nothing unless it is of an RSA key of 2048 to 8192 bits.
    pub(crate) fn read(public_key: &[u8]) -> Option<RecipientKey> {
        let key = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(public_key).ok()?).ok()?;
        let id = digest(&SHA256, public_key).as_ref().try_into().ok()?;
        Some(RecipientKey { key, id })
    }

    /// Encrypts under a new AES key, and that under the RSA key.
    pub(crate) fn seal(&self, plaintext: &[u8], form: RecipientForm) -> Result<Vec<u8>, Unspecified> {
        let content_key = random::secret(AES_256_KEY_LENGTH);
        let mut encrypted_key = vec![0; self.key.ciphertext_size()];
        self.key.encrypt(&OAEP_SHA256_MGF1SHA256, &content_key, &mut encrypted_key, None)?;
        let cipher = PaddedBlockEncryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_256, &content_key)?)?;
        // Sized for the padding, so that the buffer never moves: a move would leave the plaintext behind.
        let mut content = Zeroizing::new(Vec::with_capacity(plaintext.len() + AES_BLOCK_LENGTH));
        content.extend_from_slice(plaintext);
        // With a new IV, which opening it will need.
        let decryption = cipher.encrypt(&mut *content)?;
        let iv: &[u8] = (&decryption).try_into()?;
        Ok(enveloped_data(&self.id, &encrypted_key, iv, &content, form))
    }
}

/// RFC 5652, section 6.1, in a `ContentInfo`.
fn enveloped_data(
    key_id: &[u8],
    encrypted_key: &[u8],
    iv: &[u8],
    content: &[u8],
    form: RecipientForm,
) -> Vec<u8> {
    let outer = |tag, parts: &[&[u8]]| match form {
        RecipientForm::Der => element(tag, parts),
        RecipientForm::BerConstructed | RecipientForm::BerPrimitive => indefinite(tag, parts),
    };
    let algorithm = element(SEQUENCE, &[&oid(AES_256_CBC), &element(OCTET_STRING, &[iv])]);
    let encrypted_content = match form {
        RecipientForm::BerConstructed => {
            let pieces: Vec<u8> =
                content.chunks(PIECE_MAX).flat_map(|piece| element(OCTET_STRING, &[piece])).collect();
            outer(CONTEXT_0_CONSTRUCTED, &[&pieces])
        }
        RecipientForm::BerPrimitive | RecipientForm::Der => element(CONTEXT_0, &[content]),
    };
    let recipients = element(SET, &[&key_transport(key_id, encrypted_key)]);
    let content_info = outer(SEQUENCE, &[&oid(DATA), &algorithm, &encrypted_content]);
    let enveloped = outer(SEQUENCE, &[&VERSION_2, &recipients, &content_info]);
    outer(SEQUENCE, &[&oid(ENVELOPED_DATA), &outer(CONTEXT_0_CONSTRUCTED, &[&enveloped])])
}

/// `KeyTransRecipientInfo` version 2, always DER: RFC 5652, section 6.2.1; the algorithm: RFC 4055, section 4.1.
fn key_transport(key_id: &[u8], encrypted_key: &[u8]) -> Vec<u8> {
    let sha256 = element(SEQUENCE, &[&oid(SHA_256), &NULL]);
    let mgf1 = element(SEQUENCE, &[&oid(MGF1), &sha256]);
    let parameters = element(
        SEQUENCE,
        &[&element(CONTEXT_0_CONSTRUCTED, &[&sha256]), &element(CONTEXT_1_CONSTRUCTED, &[&mgf1])],
    );
    let algorithm = element(SEQUENCE, &[&oid(RSAES_OAEP), &parameters]);
    element(
        SEQUENCE,
        &[&VERSION_2, &element(CONTEXT_0, &[key_id]), &algorithm, &element(OCTET_STRING, &[encrypted_key])],
    )
}

fn oid(content: &[u8]) -> Vec<u8> {
    element(OBJECT_IDENTIFIER, &[content])
}

/// An element of definite length, in DER's shortest form.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().position(|byte| *byte != 0).unwrap_or(length.len() - 1)..];
    let mut element = vec![tag];
    match significant {
        [short @ ..=0x7f] => element.push(*short),
        long => {
            element.push(LONG_LENGTH | u8::try_from(long.len()).expect("a length has at most 8 bytes"));
            element.extend_from_slice(long);
        }
    }
    element.extend_from_slice(&content);
    element
}

/// A constructed element that goes on until two zero bytes: X.690, section 8.1.3.6.
fn indefinite(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut element = vec![tag, LONG_LENGTH];
    element.extend(parts.concat());
    element.extend_from_slice(&[0, 0]);
    element
}

const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const CONTEXT_0: u8 = 0x80;
const CONTEXT_0_CONSTRUCTED: u8 = 0xa0;
const CONTEXT_1_CONSTRUCTED: u8 = 0xa1;
/// Alone: an indefinite length. Else with the number of bytes of the length.
const LONG_LENGTH: u8 = 0x80;

const VERSION_2: [u8; 3] = [0x02, 0x01, 0x02];
const NULL: [u8; 2] = [0x05, 0x00];

/// 1.2.840.113549.1.7.3
const ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03];
/// 1.2.840.113549.1.7.1
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// 1.2.840.113549.1.1.7
const RSAES_OAEP: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07];
/// 1.2.840.113549.1.1.8
const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08];
/// 2.16.840.1.101.3.4.2.1
const SHA_256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
/// 2.16.840.1.101.3.4.1.42
const AES_256_CBC: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a];

const AES_256_KEY_LENGTH: usize = 32;
const AES_BLOCK_LENGTH: usize = 16;

/// How long a piece of constructed content is, in bytes. KMS's output has the marks of Bouncy Castle, which cuts there;
/// the samples that are known are shorter than one piece.
const PIECE_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_the_shortest() {
        let head = |length: usize| element(OCTET_STRING, &[&vec![7; length]])[..5].to_vec();
        assert_eq!(element(OCTET_STRING, &[]), [0x04, 0x00]);
        assert_eq!(head(0x7f)[..2], [0x04, 0x7f]);
        assert_eq!(head(0x80)[..3], [0x04, 0x81, 0x80]);
        assert_eq!(head(0x100)[..4], [0x04, 0x82, 0x01, 0x00]);
        assert_eq!(head(0x1_0000), [0x04, 0x83, 0x01, 0x00, 0x00]);
    }

    #[test]
    fn only_rsa_keys_are_recipients() {
        assert!(RecipientKey::read(&[]).is_none());
        assert!(RecipientKey::read(&[4; 65]).is_none(), "a point, as a genuine NitroTPM document has");
    }
}
