//! What the adapter promises, judged by HPACK crates and an h2 server that know nothing of it.

use std::{collections::VecDeque, str::FromStr};

use httlib_hpack::Encoder;
use http::uri::Authority;
use proptest::{collection::vec, prelude::*, sample::select};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::*;

/// Proves: every byte of a real header block keeps its place, and only the unfit bytes of the value change.
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

/// Proves: the same for Huffman coding, where only codes of equal length can take each other's place.
#[test]
fn a_path_becomes_a_host_name_in_huffman_coding() {
    for (given, edited) in [
        ("tmp%2Fbroker.sock", "tmp-2Fbroker.sock"),
        ("/tmp/broker.sock", "-tmp-broker.sock"),
        ("a:b:1", "aBbB1"),
        ("localhost:50051", "localhost:50051"),
        ("a b?c@d|e", "a-b!c$d'e"),
        // No fit code has as many bits as `#`.
        ("a#/b", "a#-b"),
    ] {
        assert_eq!(authorities(&through_whole(&request(given, true))), [edited]);
    }
}

/// Proves: h2 refuses a default-configured C-core client's request, and accepts it behind the adapter.
#[tokio::test]
async fn h2_accepts_what_it_refuses_without_the_adapter() {
    for huffman in [false, true] {
        let bytes = request("%2Ftmp%2Fx.sock", huffman);

        let (mut client, server) = connected(&bytes).await;
        let mut connection = h2::server::handshake(server).await.expect("the preface is valid");
        tokio::select! {
            _ = connection.accept() => panic!("h2 has learned to accept '%': is this adapter still needed?"),
            reset = reset_code(&mut client) => assert_eq!(reset, h2::Reason::PROTOCOL_ERROR),
        }

        let (_client, server) = connected(&bytes).await;
        let mut connection = h2::server::handshake(NormalizeAuthority::new(server)).await.expect("as above");
        let (request, _) = connection.accept().await.expect("a request").expect("accepted");
        assert_eq!(request.uri(), "http://-2Ftmp-2Fx.sock/p.S/M");
    }
}

/// Proves: h2 and the adapter agree about the dynamic table over a long connection with evictions.
#[tokio::test]
async fn h2_follows_a_long_connection() {
    let mut wire = Wire::default();
    for n in 0..300 {
        let long = "v".repeat(n % 97 * 3);
        let rare = format!("x-{}", n % 29);
        wire.request(&[
            (":authority", "%2Fx", BEST | INDEX | if n % 2 == 0 { HUFFMAN } else { 0 }),
            (&rare, &long, BEST | INDEX | HUFFMAN),
        ]);
    }
    let (_client, server) = connected(&wire.bytes).await;
    let mut connection =
        h2::server::handshake(NormalizeAuthority::new(server)).await.expect("the preface is valid");
    for n in 0..300 {
        let (request, mut reply) = connection.accept().await.expect("a request").expect("accepted");
        assert_eq!(request.uri().authority().map(Authority::as_str), Some("-2Fx"));
        assert_eq!(request.headers()[&format!("x-{}", n % 29)].len(), n % 97 * 3);
        reply.send_response(http::Response::new(()), true).expect("the stream is open");
    }
}

/// Proves: the table of code lengths is RFC 7541's, for every byte and in every position within a byte.
#[test]
fn huffman_lengths_are_the_rfcs() {
    for (symbol, shift) in (0..=u8::MAX).flat_map(|symbol| (0..8).map(move |shift| (symbol, shift))) {
        // '0' has 5 bits, which reaches all eight positions.
        let text = [vec![b'0'; shift], vec![symbol; 3]].concat();
        let mut block = Vec::new();
        Encoder::default().encode((b"x".to_vec(), text.clone(), 2), &mut block).expect("encodes");
        let mut reader = Reader { block: &block, at: 3 };
        let value = reader.text().expect("a string");
        assert_eq!((reader.at, value.huffman), (block.len(), true));
        assert_eq!(value.len(&block), Some(text.len()), "{text:?}");
        let cut = Text { end: value.end - 1, ..value };
        assert_ne!(cut.len(&block), Some(text.len()), "{text:?}");
    }
}

/// Proves: Huffman padding of a byte or more, of other bits than ones, and the end-of-string symbol are
/// malformed.
#[test]
fn huffman_padding_is_checked() {
    assert_eq!(huffman::decoded_len(&[0b0000_0111]), Some(1));
    for bytes in [&[0b0000_0110][..], &[0b0000_0111, 0xff], &[0xff], &[0xff, 0xff, 0xff, 0xff]] {
        assert_eq!(huffman::decoded_len(bytes), None, "{bytes:?}");
    }
}

/// Proves: the static table's names have the lengths that an independent decoder gives them, and one is
/// `:authority`.
#[test]
fn static_names_are_the_rfcs() {
    for index in 1..=61_u8 {
        let headers = loona_hpack::Decoder::new().decode(&[0x80 | index]).expect("a static entry");
        let name = Fields::default().name(usize::from(index)).expect("a static entry");
        assert_eq!((name.len, name.is_authority), (headers[0].0.len(), headers[0].0 == AUTHORITY));
    }
    assert!(Fields::default().name(0).is_none() && Fields::default().name(62).is_none());
}

/// Proves: a value is found whichever way its name is given: spelled out, by the static table, by the dynamic table.
#[test]
fn names_are_found_in_every_form() {
    let wire = Wire::default();
    let spelled_out = [&[0x40, 10][..], AUTHORITY, b"\x04%2Fa"].concat();
    let huffman = [&[0x10, 0x88][..], huffman::AUTHORITY, b"\x04%2Fb"].concat();
    let (by_static, by_dynamic, entry) = (b"\x01\x04%2Fc", b"\x7e\x04%2Fd\x0f\x30\x04%2Fe", b"\xbe\xbf");
    let block = [&spelled_out[..], &huffman, by_static, by_dynamic, entry].concat();
    let length = u8::try_from(block.len()).expect("short");
    let bytes = [&wire.bytes[..], &[0, 0, length, HEADERS, END_HEADERS, 0, 0, 0, 1], &block].concat();
    let expected = ["-2Fa", "-2Fb", "-2Fc", "-2Fd", "-2Fe", "-2Fd", "-2Fa"];
    assert_eq!(authorities(&through_whole(&bytes)), expected);
}

/// Proves: entries leave the dynamic table when RFC 7541 says so; names they had are then malformed.
#[test]
fn the_dynamic_table_evicts() {
    let mut fields = Fields::default();
    let entries = |fields: &Fields| (62..200).take_while(|&index| fields.name(index).is_some()).count();
    // 1 + 31 + 32 bytes: 64 of them fill the table.
    let entry = [&[0x40, 1, b'x', 31][..], &[b'v'; 31]].concat();
    for n in 1..=70 {
        fields.edit(&mut entry.clone()).expect("well-formed");
        assert_eq!(entries(&fields), n.min(64));
    }
    for (block, left) in [
        (&[0x3f, 0xe1, 0x01][..], 4), // size 256
        (&[0x3f, 0xe0, 0x01], 3),     // size 255
        (&[0x3f, 0xe1, 0x1f], 3),     // size 4096
        (&[&[0x40, 0, 0x7f, 0xe1, 0x1e][..], &[b'v'; 4064]].concat(), 1),
        (&[&[0x40, 0, 0x7f, 0xe2, 0x1e][..], &[b'v'; 4065]].concat(), 0),
    ] {
        fields.edit(&mut block.to_vec()).expect("well-formed");
        assert_eq!(entries(&fields), left, "{:x?}", &block[..3]);
    }
    assert!(fields.edit(&mut [0x3f, 0xe2, 0x1f]).is_none(), "more than was announced");
}

/// Proves: a connection that ends, or leaves HTTP/2, inside a header block delivers the block's bytes
/// unchanged.
#[test]
fn an_unfinished_or_malformed_block_is_handed_through() {
    let whole = request("%2Fx", false);
    for end in 0..whole.len() {
        assert_eq!(through(&whole[..end], &[3], &[5]), whole[..end]);
    }
    let head = |length, kind, flags, stream| [0, 0, length, kind, flags, 0, 0, 0, stream];
    let block = b"\x01\x04%2Fx";
    let index_out_of_range = [&block[..], &[0xff, 0]].concat();
    for frames in [
        [&head(6, HEADERS, 0, 1)[..], block, &head(0, CONTINUATION, END_HEADERS, 3)].concat(),
        [&head(6, HEADERS, 0, 1)[..], block, &head(0, 0, 0, 1)].concat(),
        [&head(6, HEADERS, END_HEADERS, 0)[..], block].concat(),
        [&head(6, CONTINUATION, END_HEADERS, 1)[..], block].concat(),
        [&head(7, HEADERS, END_HEADERS | PADDED, 1)[..], b"\x07", block].concat(),
        [&head(6, HEADERS, END_HEADERS | PRIORITY | PADDED, 1)[..], block].concat(),
        [&head(8, HEADERS, END_HEADERS, 1)[..], &index_out_of_range].concat(),
        [&head(7, HEADERS, END_HEADERS, 1)[..], b"\x01\x04%2Fx", &[0x20]].concat(),
        [&[0, 0x40, 1, HEADERS, END_HEADERS, 0, 0, 0, 1][..], &block.repeat(2800)].concat(),
    ] {
        // After it, even a good block passes unchanged: the dynamic table is unknown by now.
        let bytes = [PREFACE, &frames, &head(6, HEADERS, END_HEADERS, 5), block].concat();
        assert_eq!(through_whole(&bytes), bytes);
        assert_eq!(through(&bytes, &[1], &[7]), bytes);
    }
    let other_protocol = [b"PRI * HTTP/1.1\r\n\r\n", &whole[PREFACE.len()..]].concat();
    assert_eq!(through_whole(&other_protocol), other_protocol);
}

/// Proves: a block is held back up to the limit, and one that is announced to be longer is handed through.
#[test]
fn a_long_block_is_bounded() {
    for (frames, edited) in [(3, true), (4, false)] {
        let mut bytes = [PREFACE, &[0, 0, 6, HEADERS, 0, 0, 0, 0, 1], b"\x01\x04%2Fx"].concat();
        for n in 1..=frames {
            let flags = if n == frames { END_HEADERS } else { 0 };
            bytes.extend_from_slice(&[0, 0x40, 0, CONTINUATION, flags, 0, 0, 0, 1]);
            bytes.extend_from_slice(&[0x82; FRAME_LIMIT]);
        }
        for out in [through_whole(&bytes), through(&bytes, &[1000], &[4096])] {
            assert_eq!(out.windows(4).any(|value| value == b"-2Fx"), edited);
            assert_eq!(out.len(), bytes.len());
        }
    }
}

/// Proves: a read of nothing asks the socket for nothing, and errors come through with the held bytes kept.
#[tokio::test]
async fn reads_keep_the_contract() {
    let bytes = request("%2Fx", false);
    let (early, late) = bytes.split_at(bytes.len() - 2);
    let arrivals = VecDeque::from([Ok(early), Err(io::ErrorKind::Interrupted), Ok(late)]);
    let mut adapter = NormalizeAuthority::new(Arrivals(arrivals));
    assert_eq!(adapter.read(&mut []).await.expect("nothing"), 0);
    let mut out = vec![0; bytes.len()];
    let begun = adapter.read(&mut out).await.expect("what stands before the block");
    let error = adapter.read(&mut out[begun..]).await.expect_err("the socket failed");
    assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    adapter.read_exact(&mut out[begun..]).await.expect("the block");
    assert_eq!(out, through_whole(&bytes));
}

/// Proves: writes reach the socket as they were made, vectored ones as one.
#[tokio::test]
async fn writes_pass_through() {
    let (mut client, server) = UnixStream::pair().expect("a pair of sockets");
    let mut adapter = NormalizeAuthority::new(server);
    assert_eq!(adapter.is_write_vectored(), adapter.socket.is_write_vectored());
    let slices = [io::IoSlice::new(b"ab"), io::IoSlice::new(b"cd")];
    assert_eq!(adapter.write_vectored(&slices).await.expect("writes"), 4);
    adapter.write_all(b"ef").await.expect("writes");
    adapter.shutdown().await.expect("shuts down");
    let mut read = Vec::new();
    client.read_to_end(&mut read).await.expect("reads");
    assert_eq!(read, b"abcdef");
}

proptest! {
    /// Proves: whatever the coding, framing and arrival of the requests, an independent decoder finds the
    /// same fields, each `:authority` fit, and all bytes outside the header blocks are untouched.
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
                if name == AUTHORITY {
                    prop_assert_eq!(value.len(), edited_value.len());
                    let edited_value = str::from_utf8(edited_value).expect("ASCII");
                    prop_assert!(Authority::from_str(edited_value).is_ok(), "{}", edited_value);
                } else {
                    prop_assert_eq!(value, edited_value);
                }
            }
        }
    }

    /// Proves: no bytes make it panic, lose or invent a byte, and the result does not depend on how they
    /// arrive.
    #[test]
    fn any_bytes_pass(frames in vec((0..11_u8, any::<u8>(), 0..3_u8, vec(any::<u8>(), 0..40)), 0..20),
                      reads in sizes(), room in sizes()) {
        let mut bytes = PREFACE.to_vec();
        for (kind, flags, stream, payload) in frames {
            let length = u8::try_from(payload.len()).expect("short");
            bytes.extend_from_slice(&[0, 0, length, kind, flags, 0, 0, 0, stream]);
            bytes.extend_from_slice(&payload);
        }
        let whole = through_whole(&bytes);
        prop_assert_eq!(whole.len(), bytes.len());
        prop_assert_eq!(through(&bytes, &reads, &room), whole);
    }
}

// What the tests send.

/// Flags of `httlib_hpack`: Huffman coding for name and value, incremental indexing, never indexed, indices
/// where the tables have them.
const HUFFMAN: u8 = 0x3;
const INDEX: u8 = 0x4;
const NEVER: u8 = 0x8;
const BEST: u8 = 0x10;

#[derive(Debug, Clone)]
struct Request {
    fields: Vec<(Vec<u8>, Vec<u8>, u8)>,
    table_size: Option<u32>,
    /// Where the block is cut into frames.
    cuts: Vec<prop::sample::Index>,
    padding: Option<u8>,
    priority: bool,
    /// A frame before the block: its type and payload.
    before: Option<(u8, Vec<u8>)>,
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

fn any_field() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, u8)> {
    let flags = (0..4_u8, select(&[0, INDEX, INDEX, NEVER][..]), select(&[0, BEST, BEST][..]))
        .prop_map(|(huffman, index, best)| huffman | index | best);
    let path = select(&["%2Ftmp%2Fbroker.sock", "/run/key broker/a:b?.sock", "localhost", "h:80"][..])
        .prop_map(|path| path.as_bytes().to_vec());
    // Bytes that Huffman coding leaves a way out for, and in raw strings any.
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
    // Longer than the dynamic table, yet a dozen of them shorter than BLOCK_LIMIT.
    let value = prop_oneof![8 => vec(any::<u8>(), 0..60), 1 => vec(b'0'..=b'9', 1000..4200)];
    prop_oneof![
        1 => authority.prop_map(|(value, flags)| (AUTHORITY.to_vec(), value, flags)),
        3 => (name.prop_map(String::into_bytes), value, flags),
    ]
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![Just(vec![1]), Just(vec![usize::MAX]), vec(1..40_usize, 1..10), vec(1..6000_usize, 1..5)]
}

struct Wire {
    encoder: Encoder<'static>,
    bytes: Vec<u8>,
    stream: u32,
}

impl Default for Wire {
    fn default() -> Self {
        // The preface and an empty SETTINGS frame.
        let bytes = [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
        Self { encoder: Encoder::with_dynamic_size(4096), bytes, stream: 1 }
    }
}

impl Wire {
    fn request(&mut self, fields: &[(&str, &str, u8)]) {
        let pseudo =
            [(":method", "POST", BEST), (":scheme", "http", BEST), (":path", "/p.S/M", BEST | INDEX)];
        let fields = pseudo
            .iter()
            .chain(fields)
            .map(|&(n, v, f)| (n.as_bytes().to_vec(), v.as_bytes().to_vec(), f))
            .collect();
        let (table_size, cuts, padding, priority, before) = (None, vec![], None, false, None);
        self.write(&Request { fields, table_size, cuts, padding, priority, before });
    }

    fn write(&mut self, request: &Request) {
        if let Some((kind, payload)) = &request.before {
            self.frame(*kind, 0xff, payload);
        }
        let mut block = Vec::new();
        // A size update must come with a field behind it, or loona-hpack refuses it.
        if let Some(size) = request.table_size.filter(|_| !request.fields.is_empty()) {
            self.encoder.update_max_dynamic_size(size, &mut block).expect("encodes");
        }
        for field in &request.fields {
            self.encoder.encode(field.clone(), &mut block).expect("encodes");
        }
        let mut cuts: Vec<_> = request.cuts.iter().map(|cut| cut.index(block.len() + 1)).collect();
        cuts.extend((0..block.len()).step_by(16_000));
        cuts.extend([0, block.len()]);
        cuts.sort_unstable();
        if request.cuts.is_empty() {
            cuts.dedup();
        }
        if cuts.len() < 2 {
            cuts = vec![0, 0];
        }
        for (n, cut) in cuts.windows(2).enumerate() {
            let mut flags = if n + 2 == cuts.len() { END_HEADERS } else { 0 };
            let mut payload = Vec::new();
            if n == 0 {
                flags |= u8::from(request.fields.is_empty()); // END_STREAM, as trailers have it
                payload.extend(request.padding.inspect(|_| flags |= PADDED));
                if request.priority {
                    flags |= PRIORITY;
                    payload.extend_from_slice(&[0x80, 0, 0, 0, 7]);
                }
            }
            payload.extend_from_slice(&block[cut[0]..cut[1]]);
            if n == 0 {
                payload.extend(vec![0xa5; usize::from(request.padding.unwrap_or(0))]);
            }
            self.frame(if n == 0 { HEADERS } else { CONTINUATION }, flags, &payload);
        }
        self.stream += 2;
    }

    fn frame(&mut self, kind: u8, flags: u8, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("short");
        self.bytes.extend_from_slice(&length.to_be_bytes()[1..]);
        self.bytes.extend_from_slice(&[kind, flags]);
        self.bytes.extend_from_slice(&self.stream.to_be_bytes());
        self.bytes.extend_from_slice(payload);
    }
}

fn request(authority: &str, huffman: bool) -> Vec<u8> {
    let mut wire = Wire::default();
    wire.request(&[(":authority", authority, BEST | INDEX | if huffman { HUFFMAN } else { 0 })]);
    wire.bytes
}

// What the tests receive.

/// Well-formed bytes, taken apart with none of the adapter's code.
#[derive(Default)]
struct Parsed {
    blocks: Vec<Vec<u8>>,
    rest: Vec<u8>,
}

impl Parsed {
    fn of(bytes: &[u8]) -> Self {
        let mut parsed = Self::default();
        let (preface, mut bytes) = bytes.split_at(24);
        parsed.rest.extend_from_slice(preface);
        while let Some((head, after)) = bytes.split_at_checked(9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let (payload, after) = after.split_at(length as usize);
            let (kind, flags) = (head[3], head[4]);
            let mut fragment = 0..0;
            if kind == 1 || kind == 9 {
                fragment = 0..payload.len();
                if kind == 1 {
                    parsed.blocks.push(Vec::new());
                    if flags & 8 != 0 {
                        fragment = 1..payload.len() - usize::from(payload[0]);
                    }
                    fragment.start += if flags & 32 != 0 { 5 } else { 0 };
                }
                parsed
                    .blocks
                    .last_mut()
                    .expect("HEADERS come first")
                    .extend_from_slice(&payload[fragment.clone()]);
            }
            parsed.rest.extend_from_slice(head);
            parsed.rest.extend_from_slice(&payload[..fragment.start]);
            parsed.rest.extend_from_slice(&payload[fragment.end..]);
            bytes = after;
        }
        parsed
    }
}

fn decoder() -> loona_hpack::Decoder<'static> {
    let mut decoder = loona_hpack::Decoder::new();
    decoder.set_max_allowed_table_size(4096);
    decoder
}

fn authorities(bytes: &[u8]) -> Vec<String> {
    let mut decoder = decoder();
    let blocks = Parsed::of(bytes).blocks;
    let fields = blocks.iter().flat_map(|block| decoder.decode(block).expect("valid"));
    let values = fields.filter(|(name, _)| name == AUTHORITY).map(|(_, value)| value);
    values.map(|value| String::from_utf8(value).expect("ASCII")).collect()
}

fn through_whole(bytes: &[u8]) -> Vec<u8> {
    through(bytes, &[usize::MAX], &[usize::MAX])
}

/// Sends `bytes` through the adapter, in reads of the sizes `reads` into buffers of the sizes `room`.
fn through(bytes: &[u8], reads: &[usize], room: &[usize]) -> Vec<u8> {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let script = Script { reads: reads.iter().copied().cycle(), rest: bytes, ready: true, waits: false };
    let mut adapter = NormalizeAuthority::new(script);
    let mut out = Vec::new();
    let mut space = vec![0; bytes.len() + 1];
    for &room in room.iter().cycle() {
        let mut buf = ReadBuf::new(&mut space[..room.min(bytes.len() + 1)]);
        adapter.socket.waits = false;
        match Pin::new(&mut adapter).poll_read(&mut cx, &mut buf) {
            Poll::Pending => assert!(adapter.socket.waits, "pending, but nothing will wake it"),
            Poll::Ready(result) => {
                result.expect("the script has no errors");
                if buf.filled().is_empty() {
                    break;
                }
                out.extend_from_slice(buf.filled());
            }
        }
    }
    assert!(adapter.socket.rest.is_empty(), "the end was announced before it came");
    out
}

/// A socket that is pending before every read and then gives at most the next size.
struct Script<'a, I> {
    reads: I,
    rest: &'a [u8],
    ready: bool,
    waits: bool,
}

impl<I: Iterator<Item = usize> + Unpin> AsyncRead for Script<'_, I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        assert!(buf.remaining() > 0, "a read without room cannot tell the end");
        self.ready = !self.ready;
        if !self.ready {
            self.waits = true;
            return Poll::Pending;
        }
        let size = self.reads.next().unwrap_or(1).min(buf.remaining()).min(self.rest.len());
        let (arrived, rest) = self.rest.split_at(size);
        buf.put_slice(arrived);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

/// A socket that gives and fails as listed.
struct Arrivals<'a>(VecDeque<Result<&'a [u8], io::ErrorKind>>);

impl AsyncRead for Arrivals<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0.pop_front() {
            Some(Ok(bytes)) => {
                let (arrived, rest) = bytes.split_at(bytes.len().min(buf.remaining()));
                buf.put_slice(arrived);
                if !rest.is_empty() {
                    self.0.push_front(Ok(rest));
                }
                Poll::Ready(Ok(()))
            }
            Some(Err(kind)) => Poll::Ready(Err(kind.into())),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// A unix socket whose client has sent `bytes`.
async fn connected(bytes: &[u8]) -> (UnixStream, UnixStream) {
    let (mut client, server) = UnixStream::pair().expect("a pair of sockets");
    client.write_all(bytes).await.expect("they fit the socket's buffer");
    (client, server)
}

/// Reads the server's frames up to its `RST_STREAM`.
async fn reset_code(client: &mut UnixStream) -> h2::Reason {
    loop {
        let mut head = [0; HEAD];
        client.read_exact(&mut head).await.expect("a frame");
        let head = Head::parse(&head);
        let mut payload = vec![0; head.length];
        client.read_exact(&mut payload).await.expect("its payload");
        if head.kind == 3 {
            return u32::from_be_bytes(payload.try_into().expect("an error code")).into();
        }
    }
}
