//! Any requests, and any bytes.

use std::str::FromStr;

use http::uri::Authority;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::received::{Parsed, decoder};
use crate::socket::{through, through_whole};
use crate::wire::{BEST, Field, INDEX, NEVER, PREFACE, Request, Wire, frame_header};

proptest! {
    /// Proves: whatever the coding, framing and arrival of the requests, an independent decoder finds the same fields, each
    /// `:authority` valid, and all bytes outside the header blocks are untouched.
    #[test]
    fn only_authorities_change(requests in vec(any_request(), 1..24), reads in sizes(), room in sizes()) {
        let mut wire = Wire::default();
        for request in &requests {
            wire.write(request);
        }
        let out = through(&wire.bytes, &reads, &room);
        let (given, edited) = (Parsed::of(&wire.bytes), Parsed::of(&out));
        prop_assert_eq!(given.rest, edited.rest);
        prop_assert_eq!(given.blocks.len(), edited.blocks.len());
        let (mut before, mut after) = (decoder(), decoder());
        for (request, (given, edited)) in requests.iter().zip(given.blocks.iter().zip(&edited.blocks)) {
            let given = before.decode(given).expect("valid");
            let edited = after.decode(edited).expect("still valid");
            let meant: Vec<_> = request.fields.iter().map(|(n, v, _)| (n.clone(), v.clone())).collect();
            prop_assert_eq!(&given, &meant, "the oracles disagree");
            prop_assert_eq!(given.len(), edited.len());
            for ((name, value), (edited_name, edited_value)) in given.iter().zip(&edited) {
                prop_assert_eq!(name, edited_name);
                if name == b":authority" {
                    prop_assert_eq!(value.len(), edited_value.len());
                    let edited_value = str::from_utf8(edited_value).expect("ASCII");
                    prop_assert!(Authority::from_str(edited_value).is_ok(), "{}", edited_value);
                } else {
                    prop_assert_eq!(value, edited_value);
                }
            }
        }
    }

    /// Proves: no bytes make it panic, lose or invent a byte, and the result does not depend on how they arrive.
    #[test]
    fn any_bytes_pass(frames in vec((0..11_u8, any::<u8>(), 0..3_u32, vec(any::<u8>(), 0..40)), 0..20),
                      reads in sizes(), room in sizes()) {
        let mut bytes = PREFACE.to_vec();
        for (kind, flags, stream, payload) in frames {
            bytes.extend_from_slice(&frame_header(payload.len(), kind, flags, stream));
            bytes.extend_from_slice(&payload);
        }
        let whole = through_whole(&bytes);
        prop_assert_eq!(whole.len(), bytes.len());
        prop_assert_eq!(through(&bytes, &reads, &room), whole);
    }
}

fn any_request() -> impl Strategy<Value = Request> {
    let cuts = prop_oneof![2 => Just(vec![]), 1 => vec(any::<prop::sample::Index>(), 0..4)];
    let size = prop_oneof![6 => Just(None), 1 => (0..=4096_u32).prop_map(Some)];
    let other = proptest::option::of((select(&[0, 2, 3, 4, 6, 8, 0xfa][..]), vec(any::<u8>(), 0..50)));
    (vec(any_field(), 0..12), size, cuts, any::<Option<u8>>(), any::<bool>(), other).prop_map(
        |(fields, table_size, cuts, padding, priority, before)| Request {
            fields,
            table_size,
            cuts,
            padding,
            priority,
            before,
        },
    )
}

fn any_field() -> impl Strategy<Value = Field> {
    let flags = (0..4_u8, select(&[0, INDEX, INDEX, NEVER][..]), select(&[0, BEST, BEST][..]))
        .prop_map(|(huffman, index, best)| huffman | index | best);
    let path = select(&["%2Ftmp%2Fbroker.sock", "/run/key broker/a:b?.sock", "localhost", "h:80"][..])
        .prop_map(|path| path.as_bytes().to_vec());
    // Bytes for which Huffman coding has a substitute; in raw strings, any.
    let codable = vec(select(&b"abzAZX019%/:@[]?\"| ~!$-._\0"[..]), 1..30);
    let authority = prop_oneof![
        (prop_oneof![path, codable], flags.clone()),
        (vec(any::<u8>(), 1..30), flags.clone().prop_map(|flags| flags & !2)),
    ];
    let name = prop_oneof![
        select(&[":method", ":path", "te", "content-type", "via", "www-authenticate", "x", "host"][..])
            .prop_map(str::to_owned),
        "[a-z-]{1,40}",
    ];
    // Longer than the dynamic table, yet a dozen of them shorter than the longest block.
    let value = prop_oneof![8 => vec(any::<u8>(), 0..60), 1 => vec(b'0'..=b'9', 1000..4200)];
    prop_oneof![
        1 => authority.prop_map(|(value, flags)| (b":authority".to_vec(), value, flags)),
        3 => (name.prop_map(String::into_bytes), value, flags),
    ]
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![Just(vec![1]), Just(vec![usize::MAX]), vec(1..40_usize, 1..10), vec(1..6000_usize, 1..5)]
}
