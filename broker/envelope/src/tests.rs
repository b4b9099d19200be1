//! Proves: what is sealed opens to the same bytes, whatever their number and however they come; anything done to a message
//! between, or another data key, is refused; no bytes make the opener panic; and the format is that of the AWS Encryption SDK, by a
//! message that it made. The SDK itself judges in `tests/encryption_sdk.rs` of the root package.

#[cfg(target_os = "linux")]
mod memory;
mod other_sealer;
mod pieces;
mod refusals;
mod suites;
mod vectors;

use std::collections::HashSet;
use std::io::Write;

use bytes::Bytes;
use key_broker_core::{CiphertextBlob, EncryptionContext, KeyArn, Plaintext};
use proptest::prelude::*;

use crate::format::{FRAME_LENGTH, MessageId};
use crate::{EncryptedDataKey, Header, OpenError, Sealer, Suite};

const ARN: &str = "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

fn data_key() -> Plaintext {
    Plaintext::new((0..32).collect())
}

fn context(pairs: &[(&str, &str)]) -> EncryptionContext {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    EncryptionContext::parse(pairs.collect()).expect("short")
}

fn encrypted() -> EncryptedDataKey {
    let blob = CiphertextBlob::parse(Bytes::from_static(b"blob")).expect("short");
    EncryptedDataKey::aws_kms(&KeyArn::parse(ARN).expect("an ARN"), &blob)
}

/// A message, written in pieces of `piece` bytes.
fn seal(plaintext: &[u8], frame_length: u32, piece: usize) -> Vec<u8> {
    let (context, id) = (context(&[("tenant", "acme")]), MessageId([7; 32]));
    let mut sealer =
        Sealer::with_frame_length(Vec::new(), &data_key(), encrypted(), &context, id, frame_length)
            .expect("a small header");
    for piece in plaintext.chunks(piece) {
        sealer.write_all(piece).expect("a Vec takes all");
    }
    sealer.finish().expect("a Vec takes all")
}

fn open(message: &[u8]) -> Result<Vec<u8>, OpenError> {
    open_with(message, &data_key(), usize::MAX).1
}

/// What is given out in pieces of at most `piece` bytes, and how that ends.
fn open_with(message: &[u8], data_key: &Plaintext, piece: usize) -> (Vec<u8>, Result<Vec<u8>, OpenError>) {
    let mut rest = message;
    let mut given = Vec::new();
    let mut body = match Header::read(&mut rest).and_then(|header| header.open_body(data_key, 0)) {
        Ok(body) => body,
        Err(error) => return (given, Err(error)),
    };
    for piece in rest.chunks(piece) {
        match body.push(piece) {
            Ok(plaintext) => given.extend_from_slice(&plaintext),
            Err(error) => {
                let again = body.push(piece).expect_err("a refused message stays refused");
                assert!(matches!(again, OpenError::Refused), "{again}");
                assert!(matches!(body.finish(), Err(OpenError::Refused)));
                return (given, Err(error));
            }
        }
    }
    match body.finish() {
        Ok(plaintext) => given.extend_from_slice(&plaintext),
        Err(error) => return (given, Err(error)),
    }
    (given.clone(), Ok(given))
}

fn plaintext(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

/// A message's header, and its frames.
fn parts(message: &[u8], frame_length: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut rest = message;
    Header::read(&mut rest).expect("a header");
    let (header, mut rest) = message.split_at(message.len() - rest.len());
    let mut frames = Vec::new();
    while rest[..4] != [0xFF; 4] {
        let (frame, more) = rest.split_at(4 + 12 + frame_length + 16);
        frames.push(frame.to_vec());
        rest = more;
    }
    frames.push(rest.to_vec());
    (header.to_vec(), frames)
}

#[test]
fn every_length_around_the_frames_round_trips() {
    for len in [0, 1, 4_095, 4_096, 4_097, 8_191, 8_192, 8_193, 5 * 4_096 + 17, 300_000] {
        let message = seal(&plaintext(len), FRAME_LENGTH, 10_000);
        assert_eq!(open(&message).expect("whole"), plaintext(len), "{len}");
        // A full last frame, not an empty one after it, as the specification would have it.
        let (header, frames) = parts(&message, 4_096);
        assert_eq!(frames.len(), len.div_ceil(4_096).max(1), "{len}");
        assert_eq!(message.len(), header.len() + len + frames.len() * 32 + 8, "{len}");
    }
}

#[test]
fn a_message_of_the_aws_encryption_sdk_opens() {
    let message = hex::decode(OF_THE_SDK).expect("hex");
    let mut rest = &message[..];
    let header = Header::read(&mut rest).expect("a header");
    assert_eq!(header.context(), &context(&[("a", "1"), ("b", "é")]));
    assert_eq!(header.facts().frame_length, 128);
    let [key] = header.encrypted_data_keys() else { panic!("one encrypted data key") };
    let (arn, blob) = key.for_kms().expect("a key of KMS");
    assert_eq!((arn.as_str(), blob.as_bytes()), (ARN, &b"blob"[..]));
    let opened = header.open_whole(&data_key(), rest).expect("whole");
    let opened = str::from_utf8(&opened).expect("text");
    assert_eq!(opened, "sealed by the AWS Encryption SDK\n".repeat(5));

    // From the same data key, message id and context the sealer makes the same bytes: AES-GCM and HKDF leave no choice.
    let id = MessageId(*message[3..].first_chunk().expect("32 bytes"));
    let context = context(&[("b", "é"), ("a", "1")]);
    let mut sealer = Sealer::with_frame_length(Vec::new(), &data_key(), encrypted(), &context, id, 128)
        .expect("a small header");
    sealer.write_all(opened.as_bytes()).expect("a Vec takes all");
    assert_eq!(hex::encode(sealer.finish().expect("a Vec takes all")), OF_THE_SDK);
}

#[test]
fn any_flipped_bit_is_refused() {
    let message = seal(&plaintext(40), 16, 100);
    for at in 0..message.len() {
        for bit in 0..8 {
            let mut altered = message.clone();
            altered[at] ^= 1 << bit;
            let (given, end) = open_with(&altered, &data_key(), usize::MAX);
            assert!(end.is_err(), "bit {bit} of byte {at}");
            assert!(plaintext(40).starts_with(&given) && given.len() % 16 == 0, "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn any_cut_and_anything_appended_is_refused() {
    for len in [0, 16, 40] {
        let message = seal(&plaintext(len), 16, 100);
        for end in 0..message.len() {
            let error = open(&message[..end]).expect_err("cut off");
            assert!(matches!(error, OpenError::CutOff(_)), "{end}: {error}");
        }
        for more in [&[0][..], &[0xFF; 40], &message] {
            let (given, end) = open_with(&[&message, more].concat(), &data_key(), usize::MAX);
            assert!(matches!(end, Err(OpenError::TrailingBytes)), "{end:?}");
            assert!(given.len() <= len.saturating_sub(1) / 16 * 16, "the last frame was given out");
        }
    }
}

#[test]
fn frames_moved_dropped_doubled_or_from_elsewhere_are_refused() {
    let (header, frames) = parts(&seal(&plaintext(60), 16, 100), 16);
    let join = |frames: &[&Vec<u8>]| {
        let frames: Vec<u8> = frames.iter().flat_map(|frame| frame.iter().copied()).collect();
        open(&[&header[..], &frames].concat())
    };
    let [a, b, c, last] = &frames[..] else { panic!("four frames") };
    join(&[a, b, c, last]).expect("as it was");
    for frames in [
        &[b, a, c, last][..],
        &[a, c, b, last],
        &[b, c, last],
        &[a, c, last],
        &[a, b, last],
        &[last],
        &[a, a, b, c, last],
        &[a, b, b, c, last],
        &[a, last, b, c],
        &[last, last],
    ] {
        let error = join(frames).expect_err("other frames");
        assert!(matches!(error, OpenError::Sequence { .. }), "{error}");
    }
    // The numbers may be right: the tag is not.
    let mut renumbered = c.clone();
    renumbered[3] = 2;
    assert!(matches!(join(&[a, &renumbered, c, last]), Err(OpenError::FrameTag(2))));
    let id = MessageId([8; 32]);
    let mut sealer = Sealer::with_frame_length(Vec::new(), &data_key(), encrypted(), &context(&[]), id, 16)
        .expect("small");
    sealer.write_all(&plaintext(60)).expect("a Vec takes all");
    let (_, foreign) = parts(&sealer.finish().expect("a Vec takes all"), 16);
    for place in 0..4 {
        let mut frames = [a, b, c, last];
        frames[place] = &foreign[place];
        assert!(matches!(join(&frames), Err(OpenError::FrameTag(_))), "{place}");
    }
}

#[test]
fn another_data_key_is_refused_by_the_commitment() {
    let message = seal(b"hello", FRAME_LENGTH, 100);
    for at in 0..32 {
        let mut key: Vec<u8> = data_key().as_ref().into();
        key[at] ^= 1;
        let (_, end) = open_with(&message, &Plaintext::new(key), 1);
        assert!(matches!(end, Err(OpenError::Commitment)), "{at}");
    }
    let (_, end) = open_with(&message, &Plaintext::new(vec![1; 16]), 1);
    assert!(matches!(end, Err(OpenError::DataKeyLength(16))));
}

proptest! {
    #[test]
    fn what_is_sealed_opens(
        plaintext in prop::collection::vec(any::<u8>(), 0..300),
        frame_length in 1_u32..70,
        written in 1_usize..100,
        read in 1_usize..100,
    ) {
        let message = seal(&plaintext, frame_length, written);
        prop_assert_eq!(&message, &seal(&plaintext, frame_length, 1_000), "the message depends on the arrival");
        let (given, end) = open_with(&message, &data_key(), read);
        prop_assert_eq!(&given, &plaintext);
        prop_assert_eq!(end.expect("whole"), plaintext);
    }

    #[test]
    fn contexts_round_trip(pairs in prop::collection::btree_map(".{1,20}", ".{1,20}", 0..20)) {
        let context = EncryptionContext::parse(pairs).expect("short");
        prop_assume!(!context.pairs().keys().any(|name| name.starts_with("aws-crypto-")));
        let sealer = Sealer::new(Vec::new(), &data_key(), encrypted(), &context);
        let message = sealer.expect("a small header").finish().expect("a Vec takes all");
        let header = Header::read(&mut &message[..]).expect("a header");
        prop_assert_eq!(header.context(), &context);
    }

    #[test]
    fn no_alteration_opens_or_panics(
        len in 0_usize..100,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..4), 1..6),
    ) {
        let message = seal(&plaintext(len), 16, 100);
        let mut altered = message.clone();
        for (at, byte, kind) in edits {
            // One more than there are, so that there is always a place.
            let at = at.index(altered.len() + 1);
            match kind {
                0 => altered.insert(at, byte),
                1 => altered.truncate(at),
                _ if at == altered.len() => {}
                2 => drop(altered.remove(at)),
                _ => altered[at] = byte,
            }
        }
        prop_assume!(altered != message);
        let (given, end) = open_with(&altered, &data_key(), 10);
        prop_assert!(end.is_err());
        prop_assert!(plaintext(len).starts_with(&given));
    }

    #[test]
    fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), ours in any::<bool>()) {
        if ours {
            bytes.splice(..bytes.len().min(3), [2, 4, 0x78]);
        }
        prop_assert!(open(&bytes).is_err());
    }
}

#[test]
fn message_ids_differ() {
    let ids: HashSet<_> = (0..100).map(|_| MessageId::random().expect("randomness").0).collect();
    assert_eq!(ids.len(), 100);
}

/// Made by aws-encryption-sdk 4.0.7 for Python, with the data key of these tests from a master key provider of our own, which
/// calls the encrypted one "blob": context {"b": "é", "a": "1"}, frame length 128.
const OF_THE_SDK: &str = "\
    0204781cb649f2ff7bcab0ad2a36d8d2663beea61810b3e8175e4e303c40a8342f47e2000f00020001610001310001620002\
    c3a9000100076177732d6b6d73004b61726e3a6177733a6b6d733a75732d776573742d323a3131313132323232333333333a\
    6b65792f31323334616263642d313261622d333463642d353665662d3132333435363738393061620004626c6f6202000000\
    806ef01d244bdc3931a8f4c7896a15f6742fd360ca10afde2aa348ccd18f228ea209d73c862984216555ea1e8a76ff443000\
    00000100000000000000000000000152424650522943b3f5b43cdcac641c61dcd3c87048cadaae2b9ffae48ca2c65b6b51f1\
    9fa2d77bc13b1c16da0ad57accf04c79f54ef22d7b2ac2bd0cfe1749ad2b33c9afc0255b891b6f6b105d170020a884ea9436\
    a36f78744985ebf96124b97d8bc84fa53cf4ebd5399a980da03e028b281a7a669ed7addbc3867d0bfc05bfcd47613434ea95\
    9b604be365d3c3d04fffffffff00000002000000000000000000000002000000251f85073859270baf48673b2ffcf9ca1022\
    5792813905d431f253229b27731cda74ec601d6888e3b425e846919b30eca0a6ade256c0";
