//! What the server receives, taken apart by an independent HPACK decoder and with none of the adapter's code.

/// Well-formed bytes.
#[derive(Default)]
pub(crate) struct Parsed {
    /// The header blocks.
    pub(crate) blocks: Vec<Vec<u8>>,
    /// Everything else.
    pub(crate) rest: Vec<u8>,
}

impl Parsed {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut parsed = Self::default();
        let (preface, mut bytes) = bytes.split_at(24);
        parsed.rest.extend_from_slice(preface);
        while let Some((header, after)) = bytes.split_at_checked(9) {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
            let (payload, after) = after.split_at(length as usize);
            let (kind, flags) = (header[3], header[4]);
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
            parsed.rest.extend_from_slice(header);
            parsed.rest.extend_from_slice(&payload[..fragment.start]);
            parsed.rest.extend_from_slice(&payload[fragment.end..]);
            bytes = after;
        }
        parsed
    }
}

pub(crate) fn decoder() -> loona_hpack::Decoder<'static> {
    let mut decoder = loona_hpack::Decoder::new();
    decoder.set_max_allowed_table_size(4096);
    decoder
}

/// The `:authority` values in `bytes`.
pub(crate) fn authorities(bytes: &[u8]) -> Vec<String> {
    let mut decoder = decoder();
    let blocks = Parsed::of(bytes).blocks;
    let fields = blocks.iter().flat_map(|block| decoder.decode(block).expect("valid"));
    let values = fields.filter(|(name, _)| name == b":authority").map(|(_, value)| value);
    values.map(|value| String::from_utf8(value).expect("ASCII")).collect()
}
