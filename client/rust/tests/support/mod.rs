//! Writes CMS as KMS does, and as it does not: independent of the reader under test.
#![allow(dead_code, reason = "each test uses a part")]

use aws_lc_rs::cipher::{AES_256, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::rand;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};

/// How lengths and the encrypted content are written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Form {
    /// Definite lengths, primitive content.
    Der,
    /// Indefinite lengths, primitive content.
    #[default]
    Primitive,
    /// Indefinite lengths, content in parts of this many bytes.
    Constructed(usize),
}

/// The parts of a message. Those that are values are encoded already.
#[derive(Clone)]
pub(crate) struct Message {
    pub(crate) content_info_type: Vec<u8>,
    pub(crate) version: u8,
    pub(crate) recipient_version: u8,
    pub(crate) identifier: Vec<u8>,
    pub(crate) key_algorithm: Vec<u8>,
    pub(crate) encrypted_key: Vec<u8>,
    pub(crate) recipients: usize,
    pub(crate) content_type: Vec<u8>,
    pub(crate) content_algorithm: Vec<u8>,
    pub(crate) content: Vec<u8>,
    pub(crate) behind_content: Vec<u8>,
}

impl Message {
    /// As KMS makes it: `plaintext` encrypted to the RSA key in `spki`.
    pub(crate) fn new(spki: &[u8], plaintext: &[u8]) -> Self {
        Self::with_content_key(spki, &random::<32>(), plaintext)
    }

    pub(crate) fn with_content_key(spki: &[u8], content_key: &[u8; 32], plaintext: &[u8]) -> Self {
        let iv = random::<16>();
        let key = UnboundCipherKey::new(&AES_256, content_key).expect("32 bytes");
        let mut content = plaintext.to_vec();
        PaddedBlockEncryptingKey::cbc_pkcs7(key)
            .and_then(|key| key.less_safe_encrypt(&mut content, EncryptionContext::Iv128((&iv).into())))
            .expect("encrypts");
        Self {
            content_info_type: oid("2a864886f70d010703"),
            version: 2,
            recipient_version: 2,
            identifier: value(0x80, &[7; 32]),
            key_algorithm: value(
                0x30,
                &[oid("2a864886f70d010107"), oaep_params(&sha_256(), &sha_256())].concat(),
            ),
            encrypted_key: encrypt_key(spki, content_key),
            recipients: 1,
            content_type: oid("2a864886f70d010701"),
            content_algorithm: value(0x30, &[oid("60864801650304012a"), value(0x04, &iv)].concat()),
            content,
            behind_content: Vec::new(),
        }
    }

    pub(crate) fn write(&self, form: Form) -> Vec<u8> {
        let outer = |tag, content: &[u8]| match form {
            Form::Der => value(tag, content),
            Form::Primitive | Form::Constructed(_) => indefinite(tag, content),
        };
        let content = match form {
            Form::Der | Form::Primitive => value(0x80, &self.content),
            Form::Constructed(size) => {
                let parts: Vec<_> = self.content.chunks(size).map(|part| value(0x04, part)).collect();
                indefinite(0xa0, &parts.concat())
            }
        };
        let recipient = [
            value(0x02, &[self.recipient_version]),
            self.identifier.clone(),
            self.key_algorithm.clone(),
            value(0x04, &self.encrypted_key),
        ];
        let recipients = value(0x30, &recipient.concat()).repeat(self.recipients);
        let content_info = [self.content_type.clone(), self.content_algorithm.clone(), content];
        let data = [
            value(0x02, &[self.version]),
            value(0x31, &recipients),
            outer(0x30, &content_info.concat()),
            self.behind_content.clone(),
        ];
        let data = outer(0xa0, &outer(0x30, &data.concat()));
        outer(0x30, &[self.content_info_type.clone(), data].concat())
    }
}

/// `value` encrypted to the RSA key in `spki`.
pub(crate) fn encrypt_key(spki: &[u8], value: &[u8]) -> Vec<u8> {
    let key = PublicEncryptingKey::from_der(spki).expect("an RSA key");
    let key = OaepPublicEncryptingKey::new(key).expect("an RSA key");
    let mut space = vec![0; key.ciphertext_size()];
    key.encrypt(&OAEP_SHA256_MGF1SHA256, value, &mut space, None).expect("encrypts").to_vec()
}

pub(crate) fn oaep_params(hash: &[u8], mask_hash: &[u8]) -> Vec<u8> {
    let mask = value(0x30, &[&oid("2a864886f70d010108"), mask_hash].concat());
    value(0x30, &[value(0xa0, hash), value(0xa1, &mask)].concat())
}

pub(crate) fn sha_256() -> Vec<u8> {
    value(0x30, &[oid("608648016503040201"), vec![0x05, 0x00]].concat())
}

pub(crate) fn sha_1() -> Vec<u8> {
    value(0x30, &[oid("2b0e03021a"), vec![0x05, 0x00]].concat())
}

pub(crate) fn oid(hex: &str) -> Vec<u8> {
    let bytes: Vec<_> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect();
    value(0x06, &bytes)
}

pub(crate) fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut bytes = vec![tag];
    match length {
        0..0x80 => bytes.push(u8::try_from(length).expect("short")),
        _ => bytes.extend([&[0x82], &u16::try_from(length).expect("short").to_be_bytes()[..]].concat()),
    }
    bytes.extend_from_slice(content);
    bytes
}

fn indefinite(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag, 0x80], content, &[0, 0]].concat()
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("randomness");
    bytes
}
