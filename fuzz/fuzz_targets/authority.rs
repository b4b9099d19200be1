//! The `:authority` adapter against anything a client may send.
//!
//! Holds for every input: no panic; as many bytes out as in, in any arrival; no byte changed outside header
//! blocks; and as long as an independent HPACK decoder can follow, the same fields, but for `:authority`
//! values that are now fit.

#![no_main]

use std::{
    io,
    pin::Pin,
    str::FromStr,
    task::{Context, Poll, Waker},
};

use http::uri::Authority;
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use tokio::io::{AsyncRead, ReadBuf};

#[path = "../../broker/sidecar/src/transport/authority.rs"]
mod authority;

use authority::NormalizeAuthority;

#[derive(Arbitrary, Debug)]
struct Input {
    parts: Vec<Part>,
    reads: Vec<u16>,
    room: Vec<u16>,
}

#[derive(Arbitrary, Debug)]
enum Part {
    /// A header block as a good client makes it.
    Block {
        fields: Vec<Field>,
        table_size: Option<u16>,
        cuts: Vec<u8>,
        padding: Option<u8>,
        priority: bool,
    },
    /// A header block of any content.
    AnyBlock {
        stream: u8,
        block: Vec<u8>,
        padding: Option<u8>,
    },
    Frame {
        kind: u8,
        flags: u8,
        stream: u8,
        payload: Vec<u8>,
    },
    Bytes(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
struct Field {
    name: Name,
    value: Vec<u8>,
    coding: u8,
}

#[derive(Arbitrary, Debug)]
enum Name {
    Authority,
    Path,
    ContentType,
    Other(u8),
    Any(Vec<u8>),
    /// By its index, if there is such an entry.
    Index(u8),
}

fuzz_target!(|input: Input| {
    let good = input.parts.iter().all(|part| match part {
        Part::Block { .. } => true,
        Part::Frame { kind, .. } => !matches!(kind, 1 | 5 | 9),
        Part::AnyBlock { .. } | Part::Bytes(_) => false,
    });
    let given = wire(&input.parts);
    let edited = through(&given, &[u16::MAX], &[u16::MAX]);
    assert_eq!(edited.len(), given.len());
    assert_eq!(edited, through(&given, &input.reads, &input.room), "the result depends on the arrival");
    compare(&given, &edited, good);
});

/// Walks both streams with an independent frame parser and HPACK decoder.
fn compare(given: &[u8], edited: &[u8], good: bool) {
    let (mut before, mut after) = (decoder(), decoder());
    let mut blocks = Blocks { given, at: 24, fragments: Vec::new() };
    let mut checked = 0;
    while let Some(fragments) = blocks.next_block() {
        let join =
            |bytes: &[u8]| fragments.iter().flat_map(|f| bytes[f.clone()].to_vec()).collect::<Vec<_>>();
        for fragment in &fragments {
            assert_eq!(
                given[checked..fragment.start],
                edited[checked..fragment.start],
                "changed outside a block"
            );
            checked = fragment.end;
        }
        let Ok(given_fields) = before.decode(&join(given)) else {
            assert!(!good, "the encoder and its judge disagree");
            return;
        };
        let edited_fields = after.decode(&join(edited)).expect("decoded before the edit");
        assert_eq!(given_fields.len(), edited_fields.len());
        for ((name, value), (edited_name, edited_value)) in given_fields.iter().zip(&edited_fields) {
            assert_eq!(name, edited_name);
            if name != b":authority" || is_host_and_port(value) {
                assert_eq!(value, edited_value, "changed without need");
            } else if good {
                assert!(
                    is_fit(edited_value) || value.is_empty() || has_no_way_out(edited_value),
                    "{edited_value:?}"
                );
            }
            assert_eq!(value.len(), edited_value.len());
        }
    }
    if good {
        assert_eq!(given[checked..], edited[checked..], "changed outside a block");
    }
}

fn is_fit(value: &[u8]) -> bool {
    authority(value).is_some()
}

fn is_host_and_port(value: &[u8]) -> bool {
    authority(value).is_some_and(|authority| {
        let plain = !value.contains(&b'@') && !value.contains(&b'[');
        plain
            && (!value.contains(&b':')
                || authority.port().is_some_and(|port| port.as_str().bytes().all(|b| b.is_ascii_digit())))
    })
}

fn authority(value: &[u8]) -> Option<Authority> {
    Authority::from_str(str::from_utf8(value).ok()?).ok()
}

/// Huffman coding has no fit code of the length of these.
fn has_no_way_out(value: &[u8]) -> bool {
    value
        .iter()
        .any(|byte| matches!(byte, b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'}' | 1..32 | 127..))
}

/// The positions of the header blocks in a stream, while it is well-formed.
struct Blocks<'a> {
    given: &'a [u8],
    at: usize,
    fragments: Vec<std::ops::Range<usize>>,
}

impl Blocks<'_> {
    fn next_block(&mut self) -> Option<Vec<std::ops::Range<usize>>> {
        let mut open = None;
        loop {
            let head = self.given.get(self.at..self.at + 9)?;
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let (kind, flags, stream) = (head[3], head[4], &head[5..]);
            let (mut start, mut end) = (self.at + 9, self.at + 9 + length);
            let payload = self.given.get(start..end)?;
            self.at = end;
            match (kind, open) {
                (1, None) if length <= 16_384 => {
                    if flags & 8 != 0 {
                        end = end.checked_sub(usize::from(*payload.first()?))?;
                        start += 1;
                    }
                    start += if flags & 32 != 0 { 5 } else { 0 };
                    open = Some(stream);
                }
                (9, Some(id)) if id == stream && length <= 16_384 => {}
                (1 | 5 | 9, _) | (_, Some(_)) => return None,
                (_, None) => continue,
            }
            if start > end {
                return None;
            }
            self.fragments.push(start..end);
            if flags & 4 != 0 {
                return Some(std::mem::take(&mut self.fragments));
            }
        }
    }
}

fn decoder() -> loona_hpack::Decoder<'static> {
    let mut decoder = loona_hpack::Decoder::new();
    decoder.set_max_allowed_table_size(4096);
    decoder
}

fn wire(parts: &[Part]) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let mut encoder = httlib_hpack::Encoder::with_dynamic_size(4096);
    for part in parts {
        match part {
            Part::Block { fields, table_size, cuts, padding, priority } => {
                let mut block = Vec::new();
                if let Some(size) = table_size {
                    let size = u32::from(size % 4097);
                    encoder.update_max_dynamic_size(size, &mut block).expect("encodes");
                    block.push(0x82); // loona-hpack wants a field behind it.
                }
                for Field { name, value, coding } in fields {
                    let coding = coding & 0x1f;
                    let name = match name {
                        Name::Index(index) => {
                            let _ = encoder.encode((u32::from(*index), value.clone(), coding), &mut block);
                            continue;
                        }
                        Name::Authority => b":authority".to_vec(),
                        Name::Path => b":path".to_vec(),
                        Name::ContentType => b"content-type".to_vec(),
                        Name::Other(n) => format!("x-{n}").into_bytes(),
                        Name::Any(name) => name.clone(),
                    };
                    encoder.encode((name, value.clone(), coding), &mut block).expect("encodes");
                }
                frames(&mut bytes, 1, &block, cuts, *padding, *priority);
            }
            Part::AnyBlock { stream, block, padding } => {
                frames(&mut bytes, *stream, block, &[], *padding, false)
            }
            Part::Frame { kind, flags, stream, payload } => {
                frame(&mut bytes, *kind, *flags, *stream, payload)
            }
            Part::Bytes(any) => bytes.extend_from_slice(any),
        }
    }
    bytes
}

fn frames(bytes: &mut Vec<u8>, stream: u8, block: &[u8], cuts: &[u8], padding: Option<u8>, priority: bool) {
    let mut rest = block;
    let mut payload = Vec::new();
    let mut flags = 0;
    payload.extend(padding.inspect(|_| flags |= 8));
    if priority {
        flags |= 32;
        payload.extend([0, 0, 0, 3, 9]);
    }
    let mut kind = 1;
    let mut cuts = cuts.iter();
    loop {
        let cut = cuts.next().map_or(rest.len().min(16_000), |&cut| rest.len().min(usize::from(cut)));
        payload.extend_from_slice(&rest[..cut]);
        rest = &rest[cut..];
        if kind == 1 {
            payload.resize(payload.len() + usize::from(padding.unwrap_or(0)), 0);
        }
        flags |= if rest.is_empty() { 4 } else { 0 };
        frame(bytes, kind, flags, stream, &payload);
        if rest.is_empty() {
            return;
        }
        payload.clear();
        (kind, flags) = (9, 0);
    }
}

fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u8, payload: &[u8]) {
    bytes.extend_from_slice(&u32::try_from(payload.len()).expect("short").to_be_bytes()[1..]);
    bytes.extend_from_slice(&[kind, flags, 0, 0, 0, stream]);
    bytes.extend_from_slice(payload);
}

fn through(bytes: &[u8], reads: &[u16], room: &[u16]) -> Vec<u8> {
    let sizes = |sizes: &[u16]| match sizes {
        [] => vec![1],
        sizes => sizes.iter().map(|&size| usize::from(size).max(1)).collect(),
    };
    let mut cx = Context::from_waker(Waker::noop());
    let mut socket = Socket { rest: bytes, reads: sizes(reads).into_iter().cycle() };
    let mut adapter = NormalizeAuthority::new(&mut socket);
    let mut space = vec![0; usize::from(u16::MAX)];
    let mut out = Vec::with_capacity(bytes.len());
    for room in sizes(room).into_iter().cycle() {
        let mut buf = ReadBuf::new(&mut space[..room]);
        assert!(matches!(Pin::new(&mut adapter).poll_read(&mut cx, &mut buf), Poll::Ready(Ok(()))));
        if buf.filled().is_empty() {
            break;
        }
        out.extend_from_slice(buf.filled());
    }
    assert!(socket.rest.is_empty(), "the end was announced before it came");
    out
}

struct Socket<'a, I> {
    rest: &'a [u8],
    reads: I,
}

impl<I: Iterator<Item = usize> + Unpin> AsyncRead for Socket<'_, I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let size = self.reads.next().unwrap_or(1).min(buf.remaining()).min(self.rest.len());
        let (arrived, rest) = self.rest.split_at(size);
        buf.put_slice(arrived);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}
