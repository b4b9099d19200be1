//! The Huffman code of HPACK's string literals (RFC 7541, section 5.2 and appendix B).

use crate::host;

/// `:authority`. The code is unambiguous, so this is its only encoding.
pub(crate) const AUTHORITY: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];

/// The length of the decoded string in bytes; `None` if `encoded` is malformed.
pub(crate) fn decoded_len(encoded: &[u8]) -> Option<usize> {
    let mut codes = Codes { bytes: encoded, bit: 0 };
    let len = codes.by_ref().count();
    codes.at_end().then_some(len)
}

/// [`host::normalize`] for an encoded string. A code for which no valid one has as many bits stays.
pub(crate) fn normalize(encoded: &mut [u8]) {
    if host::is_host_and_port(Codes { bytes: encoded, bit: 0 }.map(|code| code.symbol)) {
        return;
    }
    let mut bit = 0;
    while let Some(code) = (Codes { bytes: encoded, bit }).next() {
        if let Some(substitute) = code.group.substitute
            && !host::is_host(code.symbol)
        {
            overwrite(encoded, bit, code.group.bits, substitute);
        }
        bit += code.group.bits;
    }
}

/// Writes the lowest `bits` bits of `code` from bit number `start` on.
fn overwrite(encoded: &mut [u8], start: usize, bits: usize, code: u32) {
    for (place, shift) in (start..start + bits).rev().zip(0..) {
        let mask = 0x80 >> (place % 8);
        encoded[place / 8] &= !mask;
        encoded[place / 8] |= if code >> shift & 1 == 1 { mask } else { 0 };
    }
}

/// The codes of a string. Ends before its padding, and before anything that is not a whole code.
struct Codes<'a> {
    bytes: &'a [u8],
    /// Where the next code begins.
    bit: usize,
}

struct Code {
    group: &'static Group,
    /// The decoded byte. NUL stands for the symbols that [`LENGTHS`] does not name: all of them are invalid in a host.
    symbol: u8,
}

impl Codes<'_> {
    /// The next 32 bits. Ones follow the last byte, as in padding.
    fn window(&self) -> u32 {
        let byte = |at: usize| self.bytes.get(self.bit / 8 + at).copied().unwrap_or(0xff);
        let word = u32::from_be_bytes([byte(0), byte(1), byte(2), byte(3)]);
        word << (self.bit % 8) | u32::from(byte(4)) >> (8 - self.bit % 8)
    }

    /// Whether only padding is left: fewer than eight bits, all of them ones (RFC 7541, section 5.2).
    fn at_end(&self) -> bool {
        self.bytes.len() * 8 - self.bit < 8 && self.window() == u32::MAX
    }
}

impl Iterator for Codes<'_> {
    type Item = Code;

    fn next(&mut self) -> Option<Code> {
        let window = self.window();
        let group = GROUPS.iter().find(|group| window >> (32 - group.bits) < group.end)?;
        let code = window >> (32 - group.bits);
        if code == END_OF_STRING || group.bits > self.bytes.len() * 8 - self.bit {
            return None;
        }
        self.bit += group.bits;
        Some(Code { group, symbol: group.symbols.get((code - group.first) as usize).copied().unwrap_or(0) })
    }
}

/// The codes of one length: consecutive numbers, `first` the first of them and `end` one past the last.
struct Group {
    bits: usize,
    first: u32,
    end: u32,
    symbols: &'static [u8],
    /// The code that replaces one whose symbol is invalid in a host.
    substitute: Option<u32>,
}

const GROUPS: [Group; LENGTHS.len()] = groups();

const END_OF_STRING: u32 = 0x3fff_ffff;

/// For each code length: bits, number of codes, symbols in the order of their codes.
///
/// The code is canonical: shorter codes before longer ones, each the one before it plus one. So the number of codes
/// of each length determines all of them. Symbols are named up to the last length that has one valid in a host.
const LENGTHS: [(usize, u32, &[u8]); 21] = [
    (5, 10, b"012aceiost"),
    (6, 26, b" %-./3456789=A_bdfghlmnpru"),
    (7, 32, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, 6, b"&*,;XZ"),
    (10, 5, b"!\"()?"),
    (11, 3, b"'+|"),
    (12, 2, b"#>"),
    (13, 6, b"\0$@[]~"),
    (14, 2, b""),
    (15, 3, b""),
    (19, 3, b""),
    (20, 8, b""),
    (21, 13, b""),
    (22, 26, b""),
    (23, 29, b""),
    (24, 12, b""),
    (25, 4, b""),
    (26, 15, b""),
    (27, 19, b""),
    (28, 29, b""),
    (30, 4, b""),
];

const fn groups() -> [Group; LENGTHS.len()] {
    let mut groups =
        [const { Group { bits: 0, first: 0, end: 0, symbols: b"", substitute: None } }; LENGTHS.len()];
    let (mut at, mut last_bits, mut first) = (0, 0, 0);
    while at < LENGTHS.len() {
        let (bits, count, symbols) = LENGTHS[at];
        first <<= bits - last_bits;
        let substitute = first_valid(first, symbols);
        groups[at] = Group { bits, first, end: first + count, symbols, substitute };
        (at, last_bits, first) = (at + 1, bits, first + count);
    }
    groups
}

const fn first_valid(mut code: u32, mut symbols: &[u8]) -> Option<u32> {
    while let [symbol, rest @ ..] = symbols {
        if host::is_host(*symbol) {
            return Some(code);
        }
        (code, symbols) = (code + 1, rest);
    }
    None
}

#[cfg(test)]
mod tests {
    //! The code is RFC 7541's, as an independent encoder has it.

    use httlib_hpack::Encoder;

    use super::*;

    /// Proves: codes have the RFC's lengths, for every byte and at every position within a byte.
    #[test]
    fn code_lengths_are_the_rfcs() {
        for (symbol, shift) in (0..=u8::MAX).flat_map(|symbol| (0..8).map(move |shift| (symbol, shift))) {
            // '0' has 5 bits, so eight of them reach all eight positions.
            let text = [vec![b'0'; shift], vec![symbol; 3]].concat();
            let encoded = encoded(&text);
            assert_eq!(decoded_len(&encoded), Some(text.len()), "{text:?}");
            assert_ne!(decoded_len(&encoded[..encoded.len() - 1]), Some(text.len()), "{text:?}");
        }
    }

    /// Proves: padding of a byte or more, padding of other bits than ones, and the end-of-string symbol are malformed.
    #[test]
    fn padding_is_checked() {
        assert_eq!(decoded_len(&[0b0000_0111]), Some(1));
        for bytes in [&[0b0000_0110][..], &[0b0000_0111, 0xff], &[0xff], &[0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(decoded_len(bytes), None, "{bytes:?}");
        }
    }

    /// Proves: the encoding of `:authority` is the RFC's.
    #[test]
    fn authority_is_encoded() {
        assert_eq!(encoded(b":authority"), AUTHORITY);
    }

    /// A string as the value of a literal field: one byte of representation, the name `x`, then the value's length.
    fn encoded(text: &[u8]) -> Vec<u8> {
        let mut block = Vec::new();
        Encoder::default()
            .encode((b"x".to_vec(), text.to_vec(), HUFFMAN_VALUE), &mut block)
            .expect("encodes");
        let [0x00, 1, b'x', length, encoded @ ..] = &block[..] else { panic!("another form: {block:?}") };
        match length {
            0xff => encoded[1..].into(),
            _ => encoded.into(),
        }
    }

    /// Flag of `httlib_hpack`.
    const HUFFMAN_VALUE: u8 = 0x2;
}
