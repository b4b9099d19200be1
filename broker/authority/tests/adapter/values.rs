//! Which values are edited, and into what.

use crate::received::authorities;
use crate::socket::through_whole;
use crate::wire::{END_HEADERS, HEADERS, PREFACE, frame_header, request};

/// Proves: every byte of a real header block keeps its place, and only the invalid bytes of the value change.
#[test]
fn a_path_becomes_a_host_name_in_place() {
    for (given, edited) in [
        ("tmp%2Fbroker.sock", "tmp-2Fbroker.sock"),
        ("/tmp/broker.sock", "-tmp-broker.sock"),
        ("a:b:1", "a-b-1"),
        ("localhost", "localhost"),
        ("localhost:50051", "localhost:50051"),
        ("[::1]:50051", "---1--50051"),
    ] {
        assert_eq!(authorities(&through_whole(&request(given, false))), [edited]);
    }
}

/// Proves: the same for Huffman coding, where only codes of equal length can replace each other.
#[test]
fn a_path_becomes_a_host_name_in_huffman_coding() {
    for (given, edited) in [
        ("tmp%2Fbroker.sock", "tmp-2Fbroker.sock"),
        ("/tmp/broker.sock", "-tmp-broker.sock"),
        ("a:b:1", "aBbB1"),
        ("localhost:50051", "localhost:50051"),
        ("a b?c@d|e", "a-b!c$d'e"),
        // No valid code has as many bits as that of `#`.
        ("a#/b", "a#-b"),
    ] {
        assert_eq!(authorities(&through_whole(&request(given, true))), [edited]);
    }
}

/// Proves: a value is found whichever way its name is given: spelled out, by the static table, by the dynamic table.
#[test]
fn names_are_found_in_every_form() {
    let spelled_out = b"\x40\x0a:authority\x04%2Fa";
    let huffman = b"\x10\x88\xb8\x3b\x53\x39\xec\x32\x7d\x7f\x04%2Fb";
    let (by_static, by_dynamic, entry) = (b"\x01\x04%2Fc", b"\x7e\x04%2Fd\x0f\x30\x04%2Fe", b"\xbe\xbf");
    let block = [&spelled_out[..], huffman, by_static, by_dynamic, entry].concat();
    let bytes = [PREFACE, &frame_header(block.len(), HEADERS, END_HEADERS, 1), &block].concat();
    let expected = ["-2Fa", "-2Fb", "-2Fc", "-2Fd", "-2Fe", "-2Fd", "-2Fa"];
    assert_eq!(authorities(&through_whole(&bytes)), expected);
}
