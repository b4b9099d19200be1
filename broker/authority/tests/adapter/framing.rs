//! Where following the frames ends.

use crate::socket::{through, through_whole};
use crate::wire::{CONTINUATION, END_HEADERS, HEADERS, PADDED, PREFACE, PRIORITY, frame_header, request};

/// Proves: a connection that ends, or leaves HTTP/2, inside a header block delivers the block's bytes unchanged.
#[test]
fn an_unfinished_or_malformed_block_is_handed_through() {
    let whole = request("%2Fx", false);
    for end in 0..whole.len() {
        assert_eq!(through(&whole[..end], &[3], &[5]), whole[..end]);
    }
    let block = b"\x01\x04%2Fx";
    let index_out_of_range = [&block[..], &[0xff, 0]].concat();
    for frames in [
        [&frame_header(6, HEADERS, 0, 1)[..], block, &frame_header(0, CONTINUATION, END_HEADERS, 3)].concat(),
        [&frame_header(6, HEADERS, 0, 1)[..], block, &frame_header(0, 0, 0, 1)].concat(),
        [&frame_header(6, HEADERS, END_HEADERS, 0)[..], block].concat(),
        [&frame_header(6, CONTINUATION, END_HEADERS, 1)[..], block].concat(),
        [&frame_header(7, HEADERS, END_HEADERS | PADDED, 1)[..], b"\x07", block].concat(),
        [&frame_header(6, HEADERS, END_HEADERS | PRIORITY | PADDED, 1)[..], block].concat(),
        [&frame_header(8, HEADERS, END_HEADERS, 1)[..], &index_out_of_range].concat(),
        [&frame_header(7, HEADERS, END_HEADERS, 1)[..], b"\x01\x04%2Fx", &[0x20]].concat(),
        [&frame_header(0x4001, HEADERS, END_HEADERS, 1)[..], &block.repeat(2800)].concat(),
    ] {
        // After it, even a good block passes unchanged: the dynamic table is unknown by now.
        let bytes = [PREFACE, &frames, &frame_header(6, HEADERS, END_HEADERS, 5), block].concat();
        assert_eq!(through_whole(&bytes), bytes);
        assert_eq!(through(&bytes, &[1], &[7]), bytes);
    }
    let other_protocol = [b"PRI * HTTP/1.1\r\n\r\n", &whole[PREFACE.len()..]].concat();
    assert_eq!(through_whole(&other_protocol), other_protocol);
}

/// Proves: a block is held back up to the limit of 264 KiB, and one that is announced to be longer is handed through.
#[test]
fn a_long_block_is_bounded() {
    for (frames, edited) in [(16, true), (17, false)] {
        let mut bytes = [PREFACE, &frame_header(6, HEADERS, 0, 1), b"\x01\x04%2Fx"].concat();
        for n in 1..=frames {
            let flags = if n == frames { END_HEADERS } else { 0 };
            bytes.extend_from_slice(&frame_header(0x4000, CONTINUATION, flags, 1));
            bytes.extend_from_slice(&[0x82; 0x4000]);
        }
        for out in [through_whole(&bytes), through(&bytes, &[1000], &[4096])] {
            assert_eq!(out.windows(4).any(|value| value == b"-2Fx"), edited);
            assert_eq!(out.len(), bytes.len());
        }
    }
}
