//! Proves: once sealer and opener are gone, no piece of the data key or of the message's key is left in this process's memory, and no
//! piece of the plaintext, in whatever pieces it came and went, or where it ended too early.
//!
//! The tests know all of these only masked, and make no key: the message's key was derived elsewhere.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use zeroize::Zeroizing;

use super::*;

#[test]
fn no_key_is_left_when_a_message_is_done() {
    let unmasked = |masked: &str| -> Vec<u8> {
        hex::decode(masked).expect("hex").iter().map(|byte| byte ^ MASK).collect()
    };
    let key = Plaintext::new(unmasked(DATA_KEY));
    let id = MessageId([9; 32]);
    let mut sealer =
        Sealer::with_frame_length(Vec::new(), &key, encrypted(), &context(&[]), id, FRAME_LENGTH)
            .expect("small");
    sealer.write_all(&plaintext(100_000)).expect("a Vec takes all");
    // AES keeps the key itself at the front of its schedule; without AES instructions it is spread over words.
    assert!(!found(&[MESSAGE_KEY]).is_empty(), "the key in use is found; this takes AES instructions");
    let message = sealer.finish().expect("a Vec takes all");
    let (opened, end) = open_with(&message, &key, 1_000);
    assert!(end.is_ok() && opened.len() == 100_000);
    drop(key);
    assert_eq!(found(&[DATA_KEY, MESSAGE_KEY]), Vec::<String>::new());
}

#[test]
fn no_plaintext_is_left_when_a_message_is_done() {
    let secret: Vec<u8> = hex::decode(PLAINTEXT).expect("hex").iter().map(|byte| byte ^ MASK).collect();
    let secret = Zeroizing::new(secret);
    let plaintext = Zeroizing::new(secret.repeat(3_000));
    drop(secret);
    let sealer = || Sealer::new(Vec::new(), &data_key(), encrypted(), &context(&[])).expect("small");
    let message = sealer().seal(&plaintext).expect("few frames");
    let (mut written, mut dropped) = (sealer(), sealer());
    for piece in plaintext.chunks(1_000) {
        written.write_all(piece).expect("a Vec takes all");
        dropped.write_all(piece).expect("a Vec takes all");
    }
    written.finish().expect("a Vec takes all");
    drop(dropped);

    // Altered at its end, so that all but the last frame was decrypted before it is refused.
    let mut altered = message.clone();
    *altered.last_mut().expect("a byte") ^= 1;
    for message in [&message, &altered] {
        let open = || {
            let mut rest = &message[..];
            let header = Header::read(&mut rest).expect("a header");
            (header, rest)
        };
        let (header, rest) = open();
        assert_eq!(
            header.open_whole(&data_key(), rest).is_ok_and(|opened| opened == plaintext),
            *message != altered
        );
        for length in [1, 700, 5_000] {
            let (header, rest) = open();
            let mut body = header.open_body(&data_key(), 0).expect("the key");
            rest.chunks(length).for_each(|piece| drop(body.push(piece).expect("whole frames")));
            assert_eq!(body.finish().is_ok(), *message != altered);
        }
    }
    assert!(!found(&[PLAINTEXT]).is_empty(), "it is found while it is there");
    drop(plaintext);
    assert_eq!(found(&[PLAINTEXT]), Vec::<String>::new());
}

/// The mappings with pieces of these in them, as in proc(5).
fn found(masked_keys: &[&str]) -> Vec<String> {
    let pieces =
        masked_keys.iter().flat_map(|masked| hex::decode(masked).expect("hex").as_chunks().0.to_vec());
    let pieces: Vec<[u8; PIECE]> = pieces.collect();
    let memory = File::open("/proc/self/mem").expect("our own");
    let mut found = Vec::new();
    for mapping in fs::read_to_string("/proc/self/maps").expect("our own").lines() {
        let Some((start, len)) = writable(mapping) else { continue };
        // Erased: what is copied here while the keys are in use must not be found later.
        let mut bytes = Zeroizing::new(vec![0; len]);
        if memory.read_exact_at(&mut bytes, start).is_err() {
            continue;
        }
        let begins = |byte: u8| pieces.iter().any(|piece| piece[0] == byte ^ MASK);
        let is_piece =
            |bytes: &[u8]| pieces.iter().any(|piece| piece.iter().zip(bytes).all(|(a, b)| *a == b ^ MASK));
        let hit = bytes.windows(PIECE).any(|window| begins(window[0]) && is_piece(window));
        found.extend(hit.then(|| mapping.to_owned()));
    }
    found
}

fn writable(mapping: &str) -> Option<(u64, usize)> {
    let (range, rest) = mapping.split_once(' ')?;
    rest.starts_with("rw").then_some(())?;
    let (start, end) = range.split_once('-')?;
    let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    Some((start, usize::try_from(end - start).ok()?))
}

/// A copy may be overwritten in part.
const PIECE: usize = 8;
const MASK: u8 = 0x5A;
const PLAINTEXT: &str = "9c4ee1027ab35f88d61c2b9047ad53fe318bc6750fe29d4460b8137fd2a50c9e";
const DATA_KEY: &str = "71ec5a6828c5db5e50c70734455f0de19234fc2d2b8f5f17e24c6e1dde1dc19a";
/// HKDF of the data key and message id 0x0909…, by Python's cryptography.
const MESSAGE_KEY: &str = "e2a5d3b01d6d78ff0bd433134e814dc9e2e9fbd17fb24a786efa447de545d8c2";
