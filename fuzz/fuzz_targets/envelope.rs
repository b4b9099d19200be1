//! Header and opener against anything that may lie where a message should.
//!
//! Holds for every input: no panic; a header that is read keeps the limits; a message opens to its plaintext or, altered in
//! any way, is refused, and what was given out before that is the beginning of its plaintext.

#![no_main]

use std::io::{Read, Write};
use std::sync::LazyLock;

use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};

#[path = "../../broker/sidecar/src"]
#[allow(dead_code, reason = "the broker uses more of them")]
mod broker {
    pub mod envelope;
}

use broker::envelope::{EncryptedDataKey, Header, MessageId, OpenError, Sealer};
use key_broker_core::{CiphertextBlob, EncryptionContext, KeyArn, Plaintext};

#[derive(Arbitrary, Debug)]
enum Input {
    /// Of any content.
    Bytes(Vec<u8>),
    /// Behind format, suite and message id of a message that may be opened.
    Fields(Vec<u8>),
    /// Frames of any content behind a good header.
    Frames(Vec<u8>),
    /// A message, altered.
    Altered { message: u8, edits: Vec<(u16, Edit)>, room: u16 },
}

#[derive(Arbitrary, Debug)]
enum Edit {
    Set(u8),
    Insert(Vec<u8>),
    Remove(u8),
    Truncate,
    /// These bytes again, at the end.
    Repeat(u16),
}

fuzz_target!(|input: Input| {
    match input {
        Input::Bytes(bytes) => assert!(open(&bytes, 100).1.is_err()),
        Input::Fields(fields) => {
            let bytes = [&MESSAGES[0].1[..35], &fields].concat();
            assert!(open(&bytes, 100).1.is_err() || bytes == MESSAGES[0].1);
        }
        Input::Frames(frames) => {
            let (_, message) = &MESSAGES[0];
            // An empty message is its header and a last frame of 40 bytes.
            let (header, frame) = message.split_at(message.len() - 40);
            assert_eq!(open(&[header, &frames].concat(), 100).1.is_ok(), frames == frame);
        }
        Input::Altered { message, edits, room } => {
            let (plaintext, message) = &MESSAGES[usize::from(message) % MESSAGES.len()];
            let altered = edits.into_iter().fold(message.clone(), edit);
            let (given, end) = open(&altered, usize::from(room).max(1));
            assert!(plaintext.starts_with(&given), "given out unproved");
            assert_eq!(end.is_ok(), altered == *message);
            assert!(end.is_err() || given == *plaintext);
        }
    }
});

/// Around the ends of frames.
static MESSAGES: LazyLock<Vec<(Vec<u8>, Vec<u8>)>> = LazyLock::new(|| {
    let seal = |len: usize| {
        let plaintext: Vec<u8> = (0..=250).cycle().take(len).collect();
        let context = EncryptionContext::parse([("tenant".into(), "acme".into())].into()).expect("short");
        let arn = KeyArn::parse("arn:aws:kms:us-west-2:111122223333:key/1234").expect("an ARN");
        let blob = CiphertextBlob::parse(vec![1].into()).expect("short");
        let (encrypted, id) =
            (EncryptedDataKey::aws_kms(&arn, &blob), MessageId::random().expect("randomness"));
        let mut sealer =
            Sealer::new(Vec::new(), &data_key(), encrypted, &context, id).expect("a small header");
        sealer.write_all(&plaintext).expect("a Vec takes all");
        (plaintext, sealer.finish().expect("a Vec takes all"))
    };
    [0, 1, 4_096, 9_000].map(seal).into()
});

fn data_key() -> Plaintext {
    Plaintext::new(vec![1; 32])
}

/// What is given out in reads of at most `room` bytes, and how it ends.
fn open(mut rest: &[u8], room: usize) -> (Vec<u8>, Result<(), OpenError>) {
    let whole = rest.len();
    let mut given = Vec::new();
    let header = match Header::read(&mut rest) {
        Ok(header) => header,
        Err(error) => return (given, Err(error)),
    };
    assert!(whole - rest.len() <= (64 << 10) + 16);
    assert!((1..=64).contains(&header.encrypted_data_keys().len()));
    assert!((1..=1 << 20).contains(&header.frame_length()));
    let mut opener = match header.open(&data_key(), rest) {
        Ok(opener) => opener,
        Err(error) => return (given, Err(error)),
    };
    let mut space = vec![0; room];
    loop {
        match opener.read(&mut space) {
            Ok(0) => return (given, Ok(())),
            Ok(n) => given.extend_from_slice(&space[..n]),
            Err(error) => return (given, Err(error.downcast().expect("a slice is read without error"))),
        }
    }
}

fn edit(mut message: Vec<u8>, (at, edit): (u16, Edit)) -> Vec<u8> {
    let at = usize::from(at).min(message.len());
    match edit {
        Edit::Set(byte) => message[at..].iter_mut().take(1).for_each(|place| *place = byte),
        Edit::Insert(bytes) => drop(message.splice(at..at, bytes)),
        Edit::Remove(count) => drop(message.drain(at..message.len().min(at + usize::from(count)))),
        Edit::Truncate => message.truncate(at),
        Edit::Repeat(count) => message.extend_from_within(at..message.len().min(at + usize::from(count))),
    }
    message
}
