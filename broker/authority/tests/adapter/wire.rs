//! What a client sends: requests as an independent HPACK encoder writes them, in frames of any cut.

use httlib_hpack::Encoder;
use proptest::prelude::*;

/// RFC 9113, section 3.4.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Frame types, and the flags of HEADERS (RFC 9113, section 6).
pub(crate) const HEADERS: u8 = 0x1;
pub(crate) const CONTINUATION: u8 = 0x9;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const PRIORITY: u8 = 0x20;

// Flags of `httlib_hpack`: Huffman coding for name and value, incremental indexing, never indexed, indices where the tables
// have them.
pub(crate) const HUFFMAN: u8 = 0x3;
pub(crate) const INDEX: u8 = 0x4;
pub(crate) const NEVER: u8 = 0x8;
pub(crate) const BEST: u8 = 0x10;

/// Name, value and flags of `httlib_hpack`.
pub(crate) type Field = (Vec<u8>, Vec<u8>, u8);

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) fields: Vec<Field>,
    pub(crate) table_size: Option<u32>,
    /// Where the block is cut into frames.
    pub(crate) cuts: Vec<prop::sample::Index>,
    pub(crate) padding: Option<u8>,
    pub(crate) priority: bool,
    /// A frame before the block: its type and payload.
    pub(crate) before: Option<(u8, Vec<u8>)>,
}

pub(crate) struct Wire {
    encoder: Encoder<'static>,
    pub(crate) bytes: Vec<u8>,
    stream: u32,
}

impl Default for Wire {
    fn default() -> Self {
        // The preface and an empty SETTINGS frame.
        let bytes = [PREFACE, &frame_header(0, 4, 0, 0)].concat();
        Self { encoder: Encoder::with_dynamic_size(4096), bytes, stream: 1 }
    }
}

impl Wire {
    pub(crate) fn request(&mut self, fields: &[(&str, &str, u8)]) {
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

    pub(crate) fn write(&mut self, request: &Request) {
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
        self.bytes.extend_from_slice(&frame_header(payload.len(), kind, flags, self.stream));
        self.bytes.extend_from_slice(payload);
    }
}

/// The connection's beginning and one request.
pub(crate) fn request(authority: &str, huffman: bool) -> Vec<u8> {
    let mut wire = Wire::default();
    wire.request(&[(":authority", authority, BEST | INDEX | if huffman { HUFFMAN } else { 0 })]);
    wire.bytes
}

pub(crate) fn frame_header(length: usize, kind: u8, flags: u8, stream: u32) -> [u8; 9] {
    let [_, l0, l1, l2] = u32::try_from(length).expect("short").to_be_bytes();
    let [s0, s1, s2, s3] = stream.to_be_bytes();
    [l0, l1, l2, kind, flags, s0, s1, s2, s3]
}
