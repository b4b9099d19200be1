//! CMS `EnvelopedData` (RFC 5652) as AWS KMS returns it in `CiphertextForRecipient`.
//!
//! KMS writes BER with indefinite lengths, and the encrypted content in the primitive or in the constructed form. DER is read,
//! too. Exactly one recipient (`KeyTransRecipientInfo`, by subject key identifier), RSAES-OAEP with SHA-256 and MGF1 with SHA-256
//! (RFC 4055, RFC 8017), AES-256 in CBC mode (RFC 3565): anything else is [`OpenError::Malformed`].
//!
//! Nothing in such a message proves who wrote it: whoever has the public key can write one that opens. The subject key
//! identifier says nothing that decryption does not, and is not looked at.

mod ber;

use std::fmt;

use aws_lc_rs::cipher::{AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use zeroize::Zeroizing;

pub use ber::BerError;
use ber::{CONSTRUCTED, Reader};

/// A message that has been read, but not yet opened.
pub struct Envelope<'a> {
    encrypted_key: &'a [u8],
    iv: [u8; 16],
    content: Zeroizing<Vec<u8>>,
}

/// Why a message did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// It is not written as KMS writes. What is read for this is not secret.
    Malformed(BerError),
    /// Decryption failed. There is one error for all causes, so that it reveals nothing about the plaintext.
    NotOpened,
}

impl<'a> Envelope<'a> {
    /// Reads `message`, of at most 16,384 bytes.
    pub fn parse(message: &'a [u8]) -> Result<Self, BerError> {
        if message.len() > MAX_MESSAGE {
            return Err(BerError("a message of at most 16,384 bytes"));
        }
        let mut message = Reader::new(message);
        let envelope = message.constructed(SEQUENCE, "ContentInfo", |info| {
            expect(info, OBJECT_IDENTIFIER, ENVELOPED_DATA, "contentType envelopedData")?;
            info.constructed(TAG_0, "content", |content| {
                content.constructed(SEQUENCE, "EnvelopedData", enveloped_data)
            })
        })?;
        message.end("nothing behind the message")?;
        Ok(envelope)
    }

    /// The content key, encrypted to the recipient with RSAES-OAEP.
    #[must_use]
    pub fn encrypted_key(&self) -> &'a [u8] {
        self.encrypted_key
    }

    /// Decrypts the content with `content_key`, of 32 bytes. The only error is [`OpenError::NotOpened`].
    pub fn open(mut self, content_key: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let closed = |_| OpenError::NotOpened;
        let key = UnboundCipherKey::new(&AES_256, content_key).map_err(closed)?;
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(closed)?;
        let iv = DecryptionContext::Iv128(self.iv.into());
        let length = key.decrypt(&mut self.content, iv).map_err(closed)?.len();
        self.content.truncate(length);
        Ok(self.content)
    }
}

/// RFC 5652, 6.1: `version, recipientInfos, encryptedContentInfo`. Neither originatorInfo nor unprotectedAttrs: KMS sends none.
fn enveloped_data<'a>(data: &mut Reader<'a>) -> Result<Envelope<'a>, BerError> {
    expect(data, INTEGER, VERSION_2, "EnvelopedData version 2")?;
    let encrypted_key =
        data.constructed(SET, "recipientInfos of one KeyTransRecipientInfo", |recipients| {
            recipients.constructed(SEQUENCE, "KeyTransRecipientInfo", recipient)
        })?;
    let (iv, content) = data.constructed(SEQUENCE, "encryptedContentInfo", encrypted_content)?;
    Ok(Envelope { encrypted_key, iv, content })
}

/// RFC 5652, 6.2.1: `version, rid, keyEncryptionAlgorithm, encryptedKey`.
fn recipient<'a>(info: &mut Reader<'a>) -> Result<&'a [u8], BerError> {
    expect(info, INTEGER, VERSION_2, "KeyTransRecipientInfo version 2")?;
    info.primitive(SUBJECT_KEY_IDENTIFIER, "subjectKeyIdentifier")?;
    info.constructed(SEQUENCE, "keyEncryptionAlgorithm", |algorithm| {
        expect(algorithm, OBJECT_IDENTIFIER, RSAES_OAEP, "id-RSAES-OAEP")?;
        algorithm.constructed(SEQUENCE, "RSAES-OAEP-params", oaep_params)
    })?;
    info.primitive(OCTET_STRING, "encryptedKey")
}

/// RFC 4055, 4.1: SHA-256 twice, and the label left out, which is the empty one. Left out hashes would be SHA-1.
fn oaep_params(params: &mut Reader<'_>) -> Result<(), BerError> {
    params.constructed(TAG_0, "hashAlgorithm", |hash| hash.constructed(SEQUENCE, "id-sha256", sha_256))?;
    params.constructed(TAG_1, "maskGenAlgorithm", |mask| {
        mask.constructed(SEQUENCE, "id-mgf1", |algorithm| {
            expect(algorithm, OBJECT_IDENTIFIER, MGF1, "id-mgf1")?;
            algorithm.constructed(SEQUENCE, "id-sha256", sha_256)
        })
    })
}

/// RFC 4055, 2.1: parameters are NULL or left out.
fn sha_256(algorithm: &mut Reader<'_>) -> Result<(), BerError> {
    expect(algorithm, OBJECT_IDENTIFIER, SHA_256, "id-sha256")?;
    if algorithm.is_at_end() { Ok(()) } else { expect(algorithm, NULL, &[], "NULL") }
}

/// RFC 5652, 6.1: `contentType, contentEncryptionAlgorithm, encryptedContent`.
fn encrypted_content(info: &mut Reader<'_>) -> Result<([u8; 16], Zeroizing<Vec<u8>>), BerError> {
    expect(info, OBJECT_IDENTIFIER, DATA, "contentType data")?;
    let iv = info.constructed(SEQUENCE, "contentEncryptionAlgorithm", |algorithm| {
        expect(algorithm, OBJECT_IDENTIFIER, AES_256_CBC, "aes256-CBC")?;
        let iv = algorithm.primitive(OCTET_STRING, "an initialization vector of 16 bytes")?;
        iv.try_into().map_err(|_| BerError("an initialization vector of 16 bytes"))
    })?;
    let content = if info.next_is(ENCRYPTED_CONTENT) {
        info.primitive(ENCRYPTED_CONTENT, "encryptedContent")?.to_vec()
    } else {
        info.constructed(ENCRYPTED_CONTENT | CONSTRUCTED, "encryptedContent", |parts| {
            let mut content = Vec::new();
            while !parts.is_at_end() {
                content.extend_from_slice(parts.primitive(OCTET_STRING, "a part of encryptedContent")?);
            }
            Ok(content)
        })?
    };
    Ok((iv, Zeroizing::new(content)))
}

fn expect(reader: &mut Reader<'_>, tag: u8, content: &[u8], what: &'static str) -> Result<(), BerError> {
    if reader.primitive(tag, what)? == content { Ok(()) } else { Err(BerError(what)) }
}

impl fmt::Display for BerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a CMS message as KMS writes it: expected {}", self.0)
    }
}

impl std::error::Error for BerError {}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::NotOpened => f.write_str("the CMS message did not open"),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<BerError> for OpenError {
    fn from(malformed: BerError) -> Self {
        Self::Malformed(malformed)
    }
}

/// The largest plaintext that KMS returns has 6,144 bytes (what it takes as ciphertext), and all around it is about 500.
const MAX_MESSAGE: usize = 16 << 10;

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const NULL: u8 = 0x05;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x10 | CONSTRUCTED;
const SET: u8 = 0x11 | CONSTRUCTED;
const TAG_0: u8 = 0x80 | CONSTRUCTED;
const TAG_1: u8 = 0x81 | CONSTRUCTED;
const SUBJECT_KEY_IDENTIFIER: u8 = 0x80;
const ENCRYPTED_CONTENT: u8 = 0x80;

const VERSION_2: &[u8] = &[2];
/// 1.2.840.113549.1.7.3, RFC 5652.
const ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03];
/// 1.2.840.113549.1.7.1, RFC 5652.
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// 1.2.840.113549.1.1.7, RFC 4055.
const RSAES_OAEP: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07];
/// 1.2.840.113549.1.1.8, RFC 4055.
const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08];
/// 2.16.840.1.101.3.4.2.1, RFC 4055.
const SHA_256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
/// 2.16.840.1.101.3.4.1.42, RFC 3565.
const AES_256_CBC: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a];
