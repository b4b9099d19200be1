//! Seals with every suite that is read, in frames and without, as the SDKs do: what to alter in the tests of opening.

use aws_lc_rs::encoding::{AsBigEndian as _, EcPublicKeyCompressedBin};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{data_key, refusals::section};
use crate::Suite;
use crate::frames::{HEADER_IV, Place, aad, iv};
use crate::keys::MessageKeys;

/// The suites, with frame lengths: 0 is content without frames.
pub(super) const KINDS: [(Suite, u32); 8] = [
    (Suite::Committed, 16),
    (Suite::Committed, 0),
    (Suite::CommittedSigned, 16),
    (Suite::CommittedSigned, 0),
    (Suite::Uncommitted, 16),
    (Suite::Uncommitted, 0),
    (Suite::UncommittedSigned, 16),
    (Suite::UncommittedSigned, 0),
];

/// A message under the data key of these tests, with one pair of context.
pub(super) fn seal_with(suite: Suite, frame_length: u32, plaintext: &[u8]) -> Vec<u8> {
    let signer = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).expect("a key");
    let point: EcPublicKeyCompressedBin<'_> = signer.public_key().as_be_bytes().expect("encodes");
    let public_key = STANDARD.encode(point.as_ref());
    let mut pairs: Vec<(&[u8], &[u8])> = vec![(b"tenant", b"acme")];
    if suite.is_signed() {
        pairs.insert(0, (b"aws-crypto-public-key", public_key.as_bytes()));
    }
    let message_id = vec![7; if suite.is_committed() { 32 } else { 16 }];
    let keys = MessageKeys::derive(&data_key(), suite, &message_id).ok().expect("32 bytes");
    let mut message = header(suite, frame_length, &message_id, &section_of(&pairs), &keys);

    let mut seal = |place, sequence: u32, head: &[u8], content: &[u8]| {
        let (mut content, aad) = (content.to_vec(), aad(&message_id, place, sequence, content.len() as u64));
        let tag = keys.seal(iv(sequence), &aad, &mut content);
        message.extend([head, &content, &tag].concat());
    };
    if frame_length == 0 {
        let length = (plaintext.len() as u64).to_be_bytes();
        seal(Place::Only, 1, &[&iv(1)[..], &length].concat(), plaintext);
    } else {
        let (mut rest, mut sequence) = (plaintext, 1_u32);
        while rest.len() > frame_length as usize {
            let (content, more) = rest.split_at(frame_length as usize);
            seal(Place::Regular, sequence, &[&sequence.to_be_bytes()[..], &iv(sequence)].concat(), content);
            (rest, sequence) = (more, sequence + 1);
        }
        let length = u32::try_from(rest.len()).expect("short").to_be_bytes();
        let head = [&[0xFF; 4][..], &sequence.to_be_bytes(), &iv(sequence), &length].concat();
        seal(Place::Last, sequence, &head, rest);
    }
    if suite.is_signed() {
        let signature = signer.sign(&SystemRandom::new(), &message).expect("signs");
        message.extend(u16::try_from(signature.as_ref().len()).expect("short").to_be_bytes());
        message.extend(signature.as_ref());
    }
    message
}

fn section_of(pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
    section(u16::try_from(pairs.len()).expect("few"), pairs)
}

fn header(suite: Suite, frame_length: u32, message_id: &[u8], context: &[u8], keys: &MessageKeys) -> Vec<u8> {
    let key = [&[0, 1, 0, 7][..], b"aws-kms", &[0, 1, b'k', 0, 1, b'b']].concat();
    let version: &[u8] = if suite.is_committed() { &[2] } else { &[1, 0x80] };
    let mut body = [version, &suite.id().to_be_bytes(), message_id, context, &key].concat();
    body.push(if frame_length == 0 { 1 } else { 2 });
    if !suite.is_committed() {
        body.extend([0, 0, 0, 0, 12]);
    }
    body.extend(frame_length.to_be_bytes());
    body.extend(keys.commitment());
    let tag = keys.seal(HEADER_IV, &body, &mut []);
    if !suite.is_committed() {
        body.extend(HEADER_IV);
    }
    body.extend(tag);
    body
}
