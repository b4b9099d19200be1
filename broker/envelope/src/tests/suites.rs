//! Proves, of every suite, with frames and without: a flipped bit anywhere is refused, so is a cut, and what follows; another data key
//! is; a signature is that of this message and no other; the contexts are what they should be.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::other_sealer::{KINDS, seal_with};
use super::pieces::{open_in_pieces, open_whole};
use super::*;
use crate::HeaderReader;

#[test]
fn every_kind_opens() {
    for (suite, frame_length) in KINDS {
        for len in [0, 1, 15, 16, 17, 32, 33, 500] {
            let message = seal_with(suite, frame_length, &plaintext(len));
            assert_eq!(
                open_whole(&message).expect("whole"),
                plaintext(len),
                "{suite:?} {frame_length} {len}"
            );
        }
    }
}

/// 4 KiB of message: all bits of one that the sealer made; of every other kind all bits of its header and its end, and one of every
/// eighth byte between, unless the build is optimized.
#[test]
fn any_flipped_bit_of_a_longer_message_is_refused() {
    let ours = seal(&plaintext(4_000), 1_024, 10_000);
    for (at, bit) in (0..ours.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        refused_with_bit_flipped(&ours, at, bit);
    }
    for (suite, frame_length) in KINDS {
        let message = seal_with(suite, frame_length * 64, &plaintext(4_000));
        assert!(open_whole(&message).is_ok());
        for (at, bit) in (0..message.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let is_between = at > 300 && at + 200 < message.len();
            if !cfg!(debug_assertions) || !is_between || at % 64 == bit * 8 {
                refused_with_bit_flipped(&message, at, bit);
            }
        }
    }
}

fn refused_with_bit_flipped(message: &[u8], at: usize, bit: usize) {
    let mut altered = message.to_vec();
    altered[at] ^= 1 << bit;
    assert!(open_whole(&altered).is_err(), "bit {bit} of byte {at}");
}

#[test]
fn any_cut_and_anything_appended_is_refused_in_every_kind() {
    for (suite, frame_length) in KINDS {
        let message = seal_with(suite, frame_length, &plaintext(40));
        for end in 0..message.len() {
            for error in [open_whole(&message[..end]).err(), open_in_pieces(&message[..end], &[7]).1.err()] {
                assert!(matches!(error, Some(OpenError::CutOff(_))), "{suite:?} {end}: {error:?}");
            }
        }
        let more = [&message[..], &[0]].concat();
        assert!(matches!(open_whole(&more), Err(OpenError::TrailingBytes)), "{suite:?}");
    }
}

#[test]
fn another_data_key_opens_none() {
    for (suite, frame_length) in KINDS {
        let message = seal_with(suite, frame_length, &plaintext(40));
        let mut rest = &message[..];
        let header = HeaderReader::default().push(&mut rest).expect("a header").expect("whole");
        let error = header.open_whole(&Plaintext::new(vec![1; 32]), rest).err();
        match error {
            Some(OpenError::Commitment) => assert!(suite.is_committed()),
            Some(OpenError::HeaderTag) => assert!(!suite.is_committed()),
            other => panic!("{other:?}"),
        }
    }
}

/// Another message's signature is as long and as well formed. Regular frames come out before it, the last never.
#[test]
fn a_signature_is_of_one_message() {
    for suite in [Suite::CommittedSigned, Suite::UncommittedSigned] {
        let [one, other] = [(); 2].map(|()| seal_with(suite, 16, &plaintext(40)));
        let unsigned = |message: &[u8]| {
            let footer = message.windows(4).rposition(|bytes| bytes[0] == 0 && bytes[2] == 0x30);
            footer.expect("a length, and a DER sequence")
        };
        let swapped = [&one[..unsigned(&one)], &other[unsigned(&other)..]].concat();
        assert!(matches!(open_whole(&swapped), Err(OpenError::Signature)));
        let (given, end) = open_in_pieces(&swapped, &[1]);
        assert!(matches!(end, Err(OpenError::Signature)));
        assert_eq!(given, plaintext(32));
    }
}

#[test]
fn what_is_not_sealed_here_is_refused_where_only_that_is_read() {
    for (suite, frame_length) in KINDS {
        let message = seal_with(suite, frame_length, &plaintext(40));
        match Header::read(&mut &message[..]) {
            Ok(_) => assert_eq!((suite, frame_length), (Suite::Committed, 16)),
            Err(OpenError::ContentType(1)) => assert_eq!((suite, frame_length), (Suite::Committed, 0)),
            Err(OpenError::Suite(id) | OpenError::FormatOne(id)) => {
                assert!(id == suite.id() && suite != Suite::Committed);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn the_public_key_is_in_the_context_of_kms_and_not_in_the_callers() {
    for (suite, frame_length) in KINDS {
        let message = seal_with(suite, frame_length, &plaintext(1));
        let header = HeaderReader::default().push(&mut &message[..]).expect("a header").expect("whole");
        assert_eq!(header.callers_context(), context(&[("tenant", "acme")]));
        assert_eq!(header.context().pairs().contains_key("aws-crypto-public-key"), suite.is_signed());
    }
}

/// A suite that is written into a header of the other format is no message.
#[test]
fn a_suite_belongs_to_one_format() {
    for (suite, frame_length) in KINDS {
        let message = seal_with(suite, frame_length, &plaintext(1));
        let id = suite.id().to_be_bytes();
        let other = if suite.is_committed() {
            [&[1, 0x80][..], &id, &message[3..]].concat()
        } else {
            [&[2][..], &id, &message[4..]].concat()
        };
        let error = HeaderReader::default().push(&mut &other[..]).err();
        let is_refused = match error {
            Some(OpenError::Suite(found)) => !suite.is_committed() && found == suite.id(),
            Some(OpenError::FormatOne(found)) => suite.is_committed() && found == suite.id(),
            _ => false,
        };
        assert!(is_refused, "{suite:?}");
    }
}

/// What format 1 and content without frames have and the sealer's messages have not.
#[test]
fn headers_of_other_kinds_are_refused_for_what_is_wrong() {
    let header = |suite: Suite, frame_length, change: &dyn Fn(&mut Vec<u8>, usize)| {
        let mut message = seal_with(suite, frame_length, &plaintext(1));
        let mut rest = &message[..];
        let read = HeaderReader::default().push(&mut rest).expect("a header").expect("whole");
        let length = read.facts().length;
        change(&mut message, length);
        HeaderReader::default().push(&mut &message[..]).err()
    };
    // Content type, zeros, IV length, frame length, IV and tag are at the end of format 1; frame length, commitment and tag of format 2.
    for back in [37, 34, 33] {
        let error = header(Suite::Uncommitted, 16, &|message, end| message[end - back] ^= 1);
        assert!(matches!(error, Some(OpenError::FixedFields)), "{back}: {error:?}");
    }
    for (suite, back) in [(Suite::Uncommitted, 29), (Suite::Committed, 49)] {
        let error = header(suite, 0, &|message, end| message[end - back] ^= 1);
        assert!(matches!(error, Some(OpenError::FixedFields)), "{suite:?}: {error:?}");
    }
    let error = header(Suite::CommittedSigned, 16, &|message, _| message[3 + 32 + 6] = b'A');
    assert!(error.is_some_and(|error| error.to_string().contains("no public key")));
    let error = header(Suite::Committed, 16, &|message, _| message[1] = 5);
    assert!(error.is_some_and(|error| error.to_string().contains("no public key")));
}

#[test]
fn a_public_key_is_a_compressed_point_of_its_curve() {
    let good = "A/KyctzlerecyJVJknhZYlIU1o1L2EQaMndGg+YuZ3m1PhJsaa33SoudeudVpSufUA==";
    assert!(crate::signature::Signed::new(good).is_ok());
    let uncompressed = STANDARD.encode([4; 97]);
    let no_point = STANDARD.encode([2; 48]);
    let off_curve = STANDARD.encode([0xFF; 49]);
    for bad in ["", "A", "%", &good[4..], &uncompressed, &no_point, &off_curve] {
        assert!(matches!(crate::signature::Signed::new(bad), Err(OpenError::PublicKey)), "{bad}");
    }
}
