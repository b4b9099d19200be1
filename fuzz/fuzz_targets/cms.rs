//! The CMS reader against anything that may come instead of KMS's answer.
//!
//! Holds for every input: no panic; what is read fits the message; a message opens only with padding, so to less than its content.

#![no_main]

use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};

#[path = "../../client/rust/src/enclave"]
mod enclave {
    pub mod cms;
}

use enclave::cms::{Envelope, OpenError};

#[derive(Arbitrary, Debug)]
enum Input {
    /// Of any content.
    Bytes(Vec<u8>),
    /// A message as KMS writes it, altered.
    Altered { indefinite: bool, parts: Option<u8>, content: Vec<u8>, edits: Vec<(u16, Edit)> },
}

#[derive(Arbitrary, Debug)]
enum Edit {
    Set(u8),
    Insert(Vec<u8>),
    Remove(u8),
    Truncate,
}

fuzz_target!(|input: Input| {
    let message = match input {
        Input::Bytes(bytes) => bytes,
        Input::Altered { indefinite, parts, content, edits } => {
            let mut message = message(indefinite, parts, &content);
            let small = message.len() <= 16 << 10;
            if edits.is_empty() {
                assert_eq!(Envelope::parse(&message).is_ok(), small);
            }
            edits.into_iter().for_each(|(at, change)| edit(&mut message, at, change));
            message
        }
    };
    let Ok(envelope) = Envelope::parse(&message) else { return };
    assert!(message.len() <= 16 << 10 && envelope.encrypted_key().len() < message.len());
    match envelope.open(&[7; 32]) {
        Ok(plaintext) => assert!(plaintext.len() < message.len()),
        Err(error) => assert_eq!(error, OpenError::NotOpened),
    }
});

fn message(indefinite: bool, parts: Option<u8>, content: &[u8]) -> Vec<u8> {
    let level = |tag: u8, inside: &[u8]| match indefinite {
        true => [&[tag, 0x80], inside, &[0, 0]].concat(),
        false => value(tag, inside),
    };
    let content = match parts {
        Some(size) => {
            let parts: Vec<_> =
                content.chunks(usize::from(size).max(1)).map(|part| value(0x04, part)).collect();
            level(0xa0, &parts.concat())
        }
        None => value(0x80, content),
    };
    let sha_256 = value(0x30, b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00");
    let mgf1 = value(0x30, &[b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08", &*sha_256].concat());
    let params = value(0x30, &[value(0xa0, &sha_256), value(0xa1, &mgf1)].concat());
    let oaep = value(0x30, &[b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x07", &*params].concat());
    let recipient = [b"\x02\x01\x02", &*value(0x80, &[1; 32]), &*oaep, &*value(0x04, &[2; 256])].concat();
    let aes = [b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x01\x2a", &*value(0x04, &[3; 16])].concat();
    let info = [b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01", &*value(0x30, &aes), &*content].concat();
    let data = [b"\x02\x01\x02", &*value(0x31, &value(0x30, &recipient)), &*level(0x30, &info)].concat();
    let data = level(0xa0, &level(0x30, &data));
    level(0x30, &[b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03", &*data].concat())
}

fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("short").to_be_bytes();
    match content.len() {
        0..0x80 => [&[tag, length[3]], content].concat(),
        _ => [&[tag, 0x83], &length[1..], content].concat(),
    }
}

fn edit(message: &mut Vec<u8>, at: u16, edit: Edit) {
    let at = usize::from(at).min(message.len());
    match edit {
        Edit::Set(byte) => message[at..].iter_mut().take(1).for_each(|place| *place = byte),
        Edit::Insert(bytes) => drop(message.splice(at..at, bytes)),
        Edit::Remove(count) => drop(message.drain(at..message.len().min(at + usize::from(count)))),
        Edit::Truncate => message.truncate(at),
    }
}
