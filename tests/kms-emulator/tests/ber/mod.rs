//! A reader of BER and of the `EnvelopedData` in it, as an enclave has one, written apart from the emulator's writer.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use aws_lc_rs::cipher::{AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};

/// One element.
pub(crate) struct Element {
    pub(crate) tag: u8,
    /// Nothing: the length is indefinite.
    pub(crate) length: Option<usize>,
    pub(crate) children: Vec<Element>,
    /// Of a primitive element.
    pub(crate) content: Vec<u8>,
}

impl Element {
    /// Reads all of the bytes.
    pub(crate) fn read(bytes: &[u8]) -> Element {
        let (element, rest) = Element::first(bytes);
        assert!(rest.is_empty(), "bytes follow");
        element
    }

    fn first(bytes: &[u8]) -> (Element, &[u8]) {
        let (tag, length, rest) = match *bytes {
            [tag, 0x80, ref rest @ ..] => (tag, None, rest),
            [tag, short @ 0..=0x7f, ref rest @ ..] => (tag, Some(usize::from(short)), rest),
            [tag, 0x81, length, ref rest @ ..] => (tag, Some(usize::from(length)), rest),
            [tag, 0x82, high, low, ref rest @ ..] => {
                (tag, Some(usize::from(u16::from_be_bytes([high, low]))), rest)
            }
            _ => panic!("no element: {bytes:02x?}"),
        };
        let mut element = Element { tag, length, children: Vec::new(), content: Vec::new() };
        let Some(length) = length else {
            let mut rest = rest;
            while !rest.starts_with(&[0, 0]) {
                let (child, after) = Element::first(rest);
                element.children.push(child);
                rest = after;
            }
            return (element, &rest[2..]);
        };
        let (mut content, rest) = rest.split_at(length);
        if tag & 0x20 == 0 {
            element.content = content.to_vec();
        }
        while tag & 0x20 != 0 && !content.is_empty() {
            let (child, after) = Element::first(content);
            element.children.push(child);
            content = after;
        }
        (element, rest)
    }

    /// Tags and lengths of it and of all within, one a line, indented by depth.
    pub(crate) fn skeleton(&self) -> String {
        let length = self.length.map_or("indefinite".to_owned(), |length| length.to_string());
        let mut text = format!("{:02x} {length}\n", self.tag);
        for child in &self.children {
            for line in child.skeleton().lines() {
                text.push_str("  ");
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }

    /// The element at a path of places.
    pub(crate) fn at(&self, path: &[usize]) -> &Element {
        path.iter().fold(self, |element, place| &element.children[*place])
    }

    /// Its octets, whether in one piece or in several.
    pub(crate) fn octets(&self) -> Vec<u8> {
        let pieces = self.children.iter().map(|piece| piece.content.as_slice());
        [self.content.as_slice()].into_iter().chain(pieces).collect::<Vec<_>>().concat()
    }
}

/// What an enclave makes for one call: a key that only it has.
pub(crate) struct Enclave {
    key: PrivateDecryptingKey,
}

impl Enclave {
    pub(crate) fn new() -> Enclave {
        Enclave { key: PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap() }
    }

    /// DER `SubjectPublicKeyInfo`.
    pub(crate) fn public_key(&self) -> Vec<u8> {
        let der: PublicKeyX509Der<'_> = self.key.public_key().as_der().unwrap();
        der.as_ref().to_vec()
    }

    /// DER, PKCS #8.
    pub(crate) fn private_key(&self) -> Vec<u8> {
        let der: Pkcs8V1Der<'_> = self.key.as_der().unwrap();
        der.as_ref().to_vec()
    }

    /// The plaintext of a `CiphertextForRecipient`.
    pub(crate) fn open(&self, ciphertext: &[u8]) -> Vec<u8> {
        let message = Element::read(ciphertext);
        let encrypted_key = &message.at(&[1, 0, 1, 0, 3]).content;
        let mut buffer = vec![0; encrypted_key.len()];
        let key = OaepPrivateDecryptingKey::new(self.key.clone()).unwrap();
        let content_key = key.decrypt(&OAEP_SHA256_MGF1SHA256, encrypted_key, &mut buffer, None).unwrap();
        open_content(&message, content_key)
    }
}

/// The content of a message under its content key.
pub(crate) fn open_content(message: &Element, content_key: &[u8]) -> Vec<u8> {
    let iv: [u8; 16] = message.at(&[1, 0, 2, 1, 1]).content.as_slice().try_into().unwrap();
    let mut content = message.at(&[1, 0, 2, 2]).octets();
    let key = UnboundCipherKey::new(&AES_256, content_key).unwrap();
    let iv = DecryptionContext::Iv128(FixedLength::from(iv));
    PaddedBlockDecryptingKey::cbc_pkcs7(key).unwrap().decrypt(&mut content, iv).unwrap().to_vec()
}
