//! Header and opener against anything that may lie where a message should, or come in its place piece by piece.
//!
//! Holds for every input: no panic; a header that is read keeps the limits; a message opens to its plaintext or, altered in
//! any way, is refused, and what was given out before that is the beginning of its plaintext; and it does so the same in pieces and at
//! once.

#![no_main]

use std::io::Write;
use std::sync::LazyLock;

use key_broker_core::{CiphertextBlob, EncryptionContext, KeyArn, Plaintext};
use key_broker_envelope::{BodyOpener, EncryptedDataKey, Header, HeaderReader, OpenError, Sealer};
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use zeroize::Zeroizing;

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

/// Around the ends of frames, and of other suites.
static MESSAGES: LazyLock<Vec<(Vec<u8>, Vec<u8>)>> = LazyLock::new(|| {
    let seal = |len: usize| {
        let plaintext: Vec<u8> = (0..=250).cycle().take(len).collect();
        let context = EncryptionContext::parse([("tenant".into(), "acme".into())].into()).expect("short");
        let arn = KeyArn::parse("arn:aws:kms:us-west-2:111122223333:key/1234").expect("an ARN");
        let blob = CiphertextBlob::parse(vec![1].into()).expect("short");
        let encrypted = EncryptedDataKey::aws_kms(&arn, &blob);
        let mut sealer = Sealer::new(Vec::new(), &data_key(), encrypted, &context).expect("a small header");
        sealer.write_all(&plaintext).expect("a Vec takes all");
        (plaintext, sealer.finish().expect("a Vec takes all"))
    };
    let hello = [SIGNED_UNFRAMED, SIGNED_FRAMED, UNFRAMED].map(|hex| (b"Hello, world!".to_vec(), bytes(hex)));
    [0, 1, 4_096, 9_000].map(seal).into_iter().chain(hello).collect()
});

fn data_key() -> Plaintext {
    Plaintext::new(vec![0; 32])
}

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// What is given out in pieces of `room` bytes, and how it ends.
fn open(message: &[u8], room: usize) -> (Vec<u8>, Result<(), OpenError>) {
    let mut given = Vec::new();
    let end = open_pieces(message, room, &mut given);
    let whole = open_whole(message);
    assert_eq!(end.is_ok(), whole.is_ok());
    if let Ok(whole) = whole {
        assert_eq!(*whole, given);
    }
    // Where only messages of the broker are read, others are refused.
    let mut rest = message;
    let sealed = Header::read(&mut rest).and_then(|header| header.open_whole(&data_key(), rest));
    assert!(sealed.is_err() || end.is_ok());
    (given, end)
}

fn open_whole(mut message: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let header = HeaderReader::default().push(&mut message)?.ok_or(OpenError::CutOff(0))?;
    header.open_whole(&data_key(), message)
}

fn open_pieces(message: &[u8], room: usize, given: &mut Vec<u8>) -> Result<(), OpenError> {
    let mut reader = HeaderReader::default();
    let mut body: Option<BodyOpener> = None;
    for mut piece in message.chunks(room) {
        if body.is_none() {
            let Some(header) = reader.push(&mut piece)? else { continue };
            let facts = header.facts();
            assert!(facts.length <= (64 << 10) + 12 + 16);
            assert!((1..=64).contains(&facts.encrypted_data_keys));
            assert!(facts.frame_length <= 1 << 20);
            body = Some(header.open_body(&data_key(), u64::MAX)?);
        }
        if let Some(body) = &mut body {
            given.extend_from_slice(&body.push(piece)?);
        }
    }
    given.extend_from_slice(&body.ok_or(OpenError::CutOff(0))?.finish()?);
    Ok(())
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

// Of the SDK for C's vectors (tests/fixtures/README.md): "hello unframed" and "hello small frames" of suite 0x0378, "hello unframed" of
// 0x0178.
const SIGNED_UNFRAMED: &str = "\
    018003786e1a278a8058b0be2a778fb25d4554200065000200156177732d63727970746f2d7075626c69632d6b6579004441\
    6d534862326d6375732f61533646427435794337376163583735576c4f57713437545232616d503156743638743063594d6c\
    416a4c596b74524f47725661414a513d3d000178000179000100087a65726f2d6b6579000d70726f766964657220696e666f\
    00010001000000000c0000000000000000000000000000000093350ca55cbe933a732d3c09c2c76c0a000000000000000000\
    000001000000000000000d0941294b8f127261ba09c982a0ad983506ebdd1e48cc236568b1f5b1a40067306502310095f4ba\
    e09246fdab6a02f74963cc332765edab4300963a269163210a8b0d31abec204f45c700b7701d78de9ce318646c02307dd491\
    da3ec6bc4621d31d18cb143e2c3bc88641472b31ee4af4f9c8454d616ec4130b636297d46d60024eff7af0dc28";
const SIGNED_FRAMED: &str = "\
    018003786c6bef5e74afd84c1ea235c40e393f410065000200156177732d63727970746f2d7075626c69632d6b6579004441\
    2b6943572b43324831654b4246396f4f646343426d7051416c35364a6f627533313334796631356456637941366f766c3045\
    696553726b797062575762764e45673d3d000178000179000100087a65726f2d6b6579000d70726f766964657220696e666f\
    00010002000000000c000000020000000000000000000000007952cf70bc9a2db59d324d1b48579dad000000010000000000\
    000000000000012d98fb057c98aacdf126f0be7c10eb29b99c00000002000000000000000000000002330ced54df4171db12\
    5317655c9f1870460200000003000000000000000000000003cc82e7ce66a4290ae6aed3d46ff1f86f3cbd00000004000000\
    00000000000000000484a1a25c76d40cdf8557738d281917fd595b00000005000000000000000000000005b7cb63ed059161\
    76a310a22dc5f5603c0cd900000006000000000000000000000006d889902e6c9c973d2e8bc2847d9e4bc318acffffffff00\
    00000700000000000000000000000700000001d66ed426bf2f92458659ada67b7789e85500673065023100db96249c98d70e\
    e4947e931b632c00eb6ddddbee37651ac7edb53da36e842350c6baee13d368a2cf86af0de87af04fd5023052792d22b6cf5e\
    798842fa162b18e77f786c0b49cd23952956a5401ec0238c22329ce85858804b4d331ccf9efeafce33";
const UNFRAMED: &str = "\
    0180017870c532e9bf7e1d8d1bb827a052f4133100080001000178000179000100087a65726f2d6b6579000d70726f766964\
    657220696e666f00010001000000000c00000000000000000000000000000000b0cd74dece3530614cc004e1ccbf4a1c0000\
    00000000000000000001000000000000000da4c85ae5f8d85bb174f27216376746dae71d2bb2ea1b3291f017622b23";
