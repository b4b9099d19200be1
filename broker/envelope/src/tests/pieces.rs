//! Proves: a message opens to the same plaintext however it comes, and a refusal is the same, too; what is given out before one is
//! the beginning of the plaintext; a message sealed in one go is the one that is written; facts and lengths are right.

use std::mem;

use sha2::{Digest as _, Sha256};

use super::other_sealer::{KINDS, seal_with};
use super::*;
use crate::{BodyOpener, HeaderReader};

/// What is given out of a message that comes in pieces of these lengths, again and again, and how it ends.
pub(super) fn open_in_pieces(message: &[u8], lengths: &[usize]) -> (Vec<u8>, Result<(), OpenError>) {
    let mut given = Vec::new();
    let end = push_all(message, lengths, &mut given);
    (given, end)
}

fn push_all(mut message: &[u8], lengths: &[usize], given: &mut Vec<u8>) -> Result<(), OpenError> {
    let mut header = HeaderReader::default();
    let mut body: Option<BodyOpener> = None;
    let mut lengths = lengths.iter().cycle();
    while !message.is_empty() {
        let length = lengths.next().copied().unwrap_or(1).clamp(1, message.len());
        let (mut piece, rest) = message.split_at(length);
        message = rest;
        if body.is_none() {
            let Some(header) = header.push(&mut piece)? else { continue };
            body = Some(header.open_body(&data_key(), u64::MAX)?);
        }
        if let Some(body) = &mut body {
            given.extend_from_slice(&body.push(piece)?);
        }
    }
    given.extend_from_slice(&body.ok_or(OpenError::CutOff(0))?.finish()?);
    Ok(())
}

pub(super) fn open_whole(mut message: &[u8]) -> Result<Vec<u8>, OpenError> {
    let header = HeaderReader::default().push(&mut message)?.ok_or(OpenError::CutOff(0))?;
    let plaintext = header.open_whole(&data_key(), message)?;
    Ok(plaintext.to_vec())
}

proptest! {
    #[test]
    fn any_pieces_give_the_same(
        kind in prop::sample::select(&KINDS[..]),
        len in 0_usize..120,
        lengths in prop::collection::vec(1_usize..90, 1..6),
        altered in prop::option::of((any::<prop::sample::Index>(), 1_u8..)),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut message = seal_with(kind.0, kind.1, &plaintext(len));
        if let Some((at, mask)) = altered {
            let at = at.index(message.len());
            message[at] ^= mask;
        }
        if let Some(cut) = cut {
            message.truncate(cut.index(message.len()));
        }
        let (given, end) = open_in_pieces(&message, &lengths);
        let whole = open_whole(&message);
        prop_assert_eq!(end.is_ok(), altered.is_none() && cut.is_none());
        prop_assert!(plaintext(len).starts_with(&given), "given out unproved");
        match (end, whole) {
            (Ok(()), Ok(whole)) => {
                prop_assert_eq!(&whole, &given);
                prop_assert_eq!(whole, plaintext(len));
            }
            (Err(end), Err(whole)) => prop_assert_eq!(end.to_string(), whole.to_string()),
            (end, whole) => prop_assert!(false, "{:?} {:?}", end, whole),
        }
    }

    #[test]
    fn no_bytes_make_it_panic_piece_by_piece(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400),
        kind in prop::sample::select(&KINDS[..]),
        front in 0_usize..250,
        lengths in prop::collection::vec(1_usize..90, 1..6),
    ) {
        // Behind the beginning of a good message.
        let message = seal_with(kind.0, kind.1, &plaintext(40));
        bytes.splice(..0, message[..front.min(message.len())].iter().copied());
        prop_assume!(bytes != message);
        prop_assert!(open_in_pieces(&bytes, &lengths).1.is_err());
        prop_assert!(open_whole(&bytes).is_err());
    }

    #[test]
    fn sealing_in_one_go_is_writing_and_finishing(len in 0_usize..200, frame_length in 1_u32..70) {
        let (context, id) = (context(&[("tenant", "acme")]), || MessageId([7; 32]));
        let sealer = || {
            Sealer::with_frame_length(Vec::new(), &data_key(), encrypted(), &context, id(), frame_length)
                .expect("a small header")
        };
        let length = sealer().message_length(len as u64);
        let message = sealer().seal(&plaintext(len)).expect("few frames");
        prop_assert_eq!(message.len() as u64, length);
        prop_assert!(message.capacity() <= message.len() + 64, "{} {}", message.capacity(), message.len());
        prop_assert_eq!(&message, &seal(&plaintext(len), frame_length, 1_000));
        // Begun otherwise, it goes on.
        let (first, second) = (plaintext(len)[..len / 2].to_vec(), plaintext(len)[len / 2..].to_vec());
        let mut begun = sealer();
        begun.write_all(&first).expect("a Vec takes all");
        prop_assert_eq!(&begun.seal(&second).expect("few frames"), &message);

        // What has come is taken away on the way; together it is the message.
        let (mut sealer, mut taken) = (sealer(), Vec::new());
        for piece in plaintext(len).chunks(9) {
            sealer.write_all(piece).expect("a Vec takes all");
            taken.extend(mem::take(sealer.writer_mut()));
            prop_assert_eq!(sealer.written(), taken.len() as u64);
        }
        let facts = sealer.facts();
        taken.extend(sealer.finish().expect("a Vec takes all"));
        prop_assert_eq!(&taken, &message);

        let read = HeaderReader::default().push(&mut &message[..]).expect("ours").expect("whole").facts();
        prop_assert_eq!(read, facts);
        prop_assert_eq!(facts.sha256, <[u8; 32]>::from(Sha256::digest(&message[..facts.length])));
        prop_assert_eq!((facts.encrypted_data_keys, facts.frame_length), (1, frame_length));
    }
}

#[test]
fn a_header_takes_not_a_byte_more() {
    for (suite, frame_length) in KINDS {
        let message = seal_with(suite, frame_length, &plaintext(40));
        let mut rest = &message[..];
        let header = HeaderReader::default().push(&mut rest).expect("a header").expect("whole");
        let facts = header.facts();
        assert_eq!(facts.length, message.len() - rest.len());
        assert_eq!(facts.sha256, <[u8; 32]>::from(Sha256::digest(&message[..facts.length])));
        assert_eq!((facts.suite, facts.frame_length), (suite, frame_length));
    }
}

#[test]
fn content_without_frames_is_bounded_by_the_caller() {
    for (len, is_accepted) in [(0, true), (100, true), (101, false)] {
        let message = seal_with(Suite::Committed, 0, &plaintext(len));
        let mut rest = &message[..];
        let header = HeaderReader::default().push(&mut rest).expect("a header").expect("whole");
        let mut body = header.open_body(&data_key(), 100).expect("the key");
        // It is refused by its length alone: nothing of it was held.
        let pushed = body.push(&rest[..20]).and_then(|_| body.push(&rest[20..]));
        match pushed {
            Ok(_) => assert!(is_accepted && body.finish().expect("whole")[..] == plaintext(len)),
            Err(error) => {
                assert!(matches!(error, OpenError::ContentLength { content: 101, limit: 100 }), "{error}");
                assert!(!is_accepted);
            }
        }
    }
}

/// Proves, at compile time: a server may hold them across waits.
#[test]
fn all_may_move_between_threads() {
    fn moves<T: Send + 'static>() {}
    moves::<HeaderReader>();
    moves::<Header>();
    moves::<BodyOpener>();
    moves::<Sealer<Vec<u8>>>();
}
