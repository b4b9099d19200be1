//! Lets default-configured gRPC clients call over a unix socket.
//!
//! A client that dials `unix:/tmp/broker.sock` has no host name to put into `:authority`. The C-core clients
//! (Python, Ruby, PHP, C++, C#) send the percent-encoded path, grpc-java and `grpcurl -unix` the path itself, and
//! h2 resets both with `PROTOCOL_ERROR` before any handler runs (hyperium/h2#487): neither `%` nor `/` belongs into
//! an authority.
//!
//! [`NormalizeAuthority`] sits between socket and server. It follows the client's HTTP/2 frames and their HPACK
//! state and overwrites what h2 refuses inside `:authority` values, each byte by one byte and each Huffman code by
//! a code of as many bits: all lengths, and so the frames and both ends' dynamic tables, stay what they were. The
//! value means nothing on a unix socket; do not put this under a transport where it does.
//!
//! The adapter judges nothing. At the first thing it cannot follow it stops editing for the rest of the connection
//! and hands every byte through, so that h2 answers as it would have without it. A client that leads it astray
//! reaches only bytes it wrote itself.
//!
//! What h2 still refuses, since no valid value has its length: an empty `:authority`, and in Huffman coding (only)
//! one with any of `` # < > \ ^ ` { } ``, a control other than NUL, or a byte beyond ASCII. C-core
//! percent-encodes them.
//!
//! The HPACK crates (`httlib-hpack`, `loona-hpack`, `fluke-hpack`) are not used here, since none of them tells
//! where in its input a value stood; two of them are the judges in the tests.

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The server's end of a connection whose client's `:authority` values become acceptable to h2 (module docs).
///
/// Writes go straight through. Reads do too, except for a header block that one read did not bring whole: it
/// is held back, at most [`BLOCK_LIMIT`] bytes, until its last byte is here.
pub(crate) struct NormalizeAuthority<S> {
    socket: S,
    walk: Walk,
    held: Held,
}

/// The beginning of a header block, waiting for its end; afterwards the whole of it, waiting for the caller's
/// buffer.
#[derive(Default)]
struct Held {
    /// Longer than `filled` on purpose: zeroed once, used again for every block.
    bytes: Vec<u8>,
    filled: usize,
    given: usize,
}

impl<S> NormalizeAuthority<S> {
    /// Wraps a freshly accepted connection, of which nothing has been read yet.
    pub(crate) fn new(socket: S) -> Self {
        Self { socket, walk: Walk::default(), held: Held::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for NormalizeAuthority<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { socket, walk, held } = self.get_mut();
        // Every turn of the loop takes bytes from the socket or ends it, and BLOCK_LIMIT bounds the turns.
        while buf.remaining() > 0 {
            if let Some(wanted) = walk.wanted() {
                if ready!(held.poll_fill(Pin::new(socket), cx, wanted))? == 0 {
                    walk.stop();
                    if held.filled == 0 {
                        break;
                    }
                } else {
                    walk.pass(&mut held.bytes[..held.filled]);
                }
            } else if held.filled > 0 {
                held.give(buf);
                break;
            } else {
                let start = buf.filled().len();
                ready!(Pin::new(&mut *socket).poll_read(cx, buf))?;
                let arrived = &mut buf.filled_mut()[start..];
                if arrived.is_empty() {
                    break;
                }
                let passed = walk.pass(arrived);
                held.begin(&arrived[passed..]);
                buf.set_filled(start + passed);
                if passed > 0 {
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for NormalizeAuthority<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

impl Held {
    fn begin(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.bytes[..bytes.len()].copy_from_slice(bytes);
        self.filled = bytes.len();
    }

    /// Reads towards `wanted` bytes in all and never past it: what follows the block goes to the caller
    /// uncopied.
    fn poll_fill<S: AsyncRead>(
        &mut self,
        socket: Pin<&mut S>,
        cx: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<io::Result<usize>> {
        self.reserve(wanted);
        let mut space = ReadBuf::new(&mut self.bytes[self.filled..wanted]);
        ready!(socket.poll_read(cx, &mut space))?;
        let arrived = space.filled().len();
        self.filled += arrived;
        Poll::Ready(Ok(arrived))
    }

    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let end = self.filled.min(self.given + buf.remaining());
        buf.put_slice(&self.bytes[self.given..end]);
        self.given = end;
        if self.given == self.filled {
            (self.filled, self.given) = (0, 0);
        }
    }

    fn reserve(&mut self, len: usize) {
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
    }
}

/// Where in the client's byte stream we are (RFC 9113, sections 3.4 and 4.1).
#[derive(Default)]
struct Walk {
    place: Place,
    fields: Fields,
    /// Where in the block's bytes its HPACK fragments lie.
    fragments: Vec<Range<usize>>,
    /// The fragments of a block of several frames, put together.
    joined: Vec<u8>,
}

enum Place {
    /// In the connection preface, after so many bytes of it.
    Preface(usize),
    /// In a frame's head, after so many bytes of it.
    Head([u8; HEAD], usize),
    /// In the payload of a frame without header fields, so many bytes before its end.
    Payload(usize),
    /// In the frames of a header block.
    Block(Block),
    /// Lost, for good.
    Unknown,
}

/// A header block on its way. Offsets count from the first byte after the head of its HEADERS frame.
#[derive(Clone, Copy)]
struct Block {
    /// The frame that is arriving …
    head: Head,
    /// … and its payload.
    start: usize,
    end: usize,
}

#[derive(Clone, Copy)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

enum Progress {
    Unfinished(Block),
    /// Of so many bytes.
    Whole(usize),
    Malformed,
}

impl Walk {
    /// Edits `bytes` as far as they go and says how many may go on. The others begin a header block: they
    /// must come again, followed by more, until there are [`Self::wanted`] of them.
    fn pass(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        loop {
            let rest = &mut bytes[at..];
            match &mut self.place {
                Place::Block(block) => match block.advance(rest, &mut self.fragments) {
                    Progress::Unfinished(so_far) => {
                        *block = so_far;
                        return at;
                    }
                    Progress::Whole(len) => {
                        self.place = match self.edit(&mut rest[..len]) {
                            Some(()) => Place::Head([0; HEAD], 0),
                            None => Place::Unknown,
                        };
                        self.fragments.clear();
                        at += len;
                    }
                    Progress::Malformed => self.place = Place::Unknown,
                },
                Place::Unknown => return bytes.len(),
                _ if rest.is_empty() => return at,
                Place::Preface(seen) => {
                    let taken = rest.len().min(PREFACE.len() - *seen);
                    let expected = &PREFACE[*seen..*seen + taken];
                    *seen += taken;
                    at += taken;
                    if rest[..taken] != *expected {
                        self.place = Place::Unknown;
                    } else if *seen == PREFACE.len() {
                        self.place = Place::Head([0; HEAD], 0);
                    }
                }
                Place::Head(head, seen) => {
                    let taken = rest.len().min(HEAD - *seen);
                    head[*seen..*seen + taken].copy_from_slice(&rest[..taken]);
                    *seen += taken;
                    at += taken;
                    if *seen == HEAD {
                        self.place = Place::after(Head::parse(head));
                    }
                }
                Place::Payload(left) => {
                    let taken = rest.len().min(*left);
                    *left -= taken;
                    at += taken;
                    if *left == 0 {
                        self.place = Place::Head([0; HEAD], 0);
                    }
                }
            }
        }
    }

    /// How many bytes, counted from the block's first, [`Self::pass`] wants to see before it can go on.
    fn wanted(&self) -> Option<usize> {
        match &self.place {
            Place::Block(block) => Some(block.wanted()),
            _ => None,
        }
    }

    fn stop(&mut self) {
        self.place = Place::Unknown;
    }

    /// Edits a whole block, or finds it malformed and leaves it as it is.
    fn edit(&mut self, block: &mut [u8]) -> Option<()> {
        if let [only] = &self.fragments[..] {
            return self.fields.edit(&mut block[only.clone()]);
        }
        self.joined.clear();
        for fragment in &self.fragments {
            self.joined.extend_from_slice(&block[fragment.clone()]);
        }
        self.fields.edit(&mut self.joined)?;
        let mut rest = &self.joined[..];
        for fragment in &self.fragments {
            let (edited, after) = rest.split_at(fragment.len());
            block[fragment.clone()].copy_from_slice(edited);
            rest = after;
        }
        Some(())
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::Preface(0)
    }
}

impl Place {
    fn after(head: Head) -> Self {
        match head.kind {
            HEADERS if head.length <= FRAME_LIMIT && head.stream != 0 => {
                Self::Block(Block { head, start: 0, end: head.length })
            }
            // Too long, or out of place. A client never sends PUSH_PROMISE.
            HEADERS | PUSH_PROMISE | CONTINUATION => Self::Unknown,
            _ if head.length == 0 => Self::Head([0; HEAD], 0),
            _ => Self::Payload(head.length),
        }
    }
}

impl Block {
    fn advance(mut self, bytes: &[u8], fragments: &mut Vec<Range<usize>>) -> Progress {
        while bytes.len() >= self.wanted() {
            match self.fragment(bytes) {
                Some(fragment) if fragment.is_empty() => {}
                Some(fragment) => fragments.push(fragment),
                None => return Progress::Malformed,
            }
            if self.is_last() {
                return Progress::Whole(self.end);
            }
            let Some(head) = bytes[self.end..].first_chunk().map(Head::parse) else {
                return Progress::Malformed;
            };
            self.start = self.end + HEAD;
            self.end = self.start + head.length;
            let continues = head.kind == CONTINUATION && head.stream == self.head.stream;
            if !continues || head.length > FRAME_LIMIT || self.wanted() > BLOCK_LIMIT {
                return Progress::Malformed;
            }
            self.head = head;
        }
        Progress::Unfinished(self)
    }

    /// The frame's share of the header block: its payload without padding and priority (RFC 9113, section
    /// 6.2).
    fn fragment(&self, bytes: &[u8]) -> Option<Range<usize>> {
        let (mut start, mut end) = (self.start, self.end);
        if self.head.kind == HEADERS {
            if self.head.flags & PADDED != 0 {
                end = end.checked_sub(usize::from(*bytes[..end].get(start)?))?;
                start += 1;
            }
            if self.head.flags & PRIORITY != 0 {
                start += 5;
            }
        }
        (start <= end).then_some(start..end)
    }

    /// The head of the next frame belongs to the step: it says how the block goes on.
    fn wanted(&self) -> usize {
        self.end + if self.is_last() { 0 } else { HEAD }
    }

    fn is_last(&self) -> bool {
        self.head.flags & END_HEADERS != 0
    }
}

impl Head {
    fn parse(bytes: &[u8; HEAD]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *bytes;
        Self {
            length: usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2),
            kind,
            flags,
            // The highest bit is reserved and to be ignored.
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        }
    }
}

/// What HPACK remembers from block to block (RFC 7541), as far as finding `:authority` needs it: names'
/// lengths and entries' sizes, not their text.
struct Fields {
    /// The dynamic table, newest entry first.
    entries: VecDeque<Entry>,
    size: usize,
    max_size: usize,
    /// The `:authority` values of the block at hand.
    found: Vec<Text>,
}

#[derive(Clone, Copy)]
struct Entry {
    name: Name,
    size: usize,
}

#[derive(Clone, Copy)]
struct Name {
    len: usize,
    is_authority: bool,
}

/// A string literal's place in the block.
#[derive(Clone, Copy)]
struct Text {
    start: usize,
    end: usize,
    huffman: bool,
}

impl Default for Fields {
    fn default() -> Self {
        Self { entries: VecDeque::new(), size: 0, max_size: TABLE_LIMIT, found: Vec::new() }
    }
}

impl Fields {
    /// Edits a whole block, or finds it malformed and leaves it as it is.
    fn edit(&mut self, block: &mut [u8]) -> Option<()> {
        self.found.clear();
        self.read(block)?;
        for text in &self.found {
            let value = &mut block[text.start..text.end];
            if text.huffman { huffman::normalize(value) } else { normalize(value) }
        }
        Some(())
    }

    fn read(&mut self, block: &[u8]) -> Option<()> {
        let mut reader = Reader { block, at: 0 };
        let mut resizable = true;
        while let Some(first) = reader.peek() {
            if first & 0x80 != 0 {
                // Indexed: a static entry, or one whose value was edited on its way into the table.
                self.name(reader.integer(7)?)?;
            } else if first & 0x40 != 0 {
                let (name, value) = self.literal(&mut reader, 6)?;
                self.insert(name, value.len(block)?);
            } else if first & 0x20 != 0 {
                let size = reader.integer(5)?;
                if !resizable || size > TABLE_LIMIT {
                    return None;
                }
                self.max_size = size;
                self.evict(size);
                continue;
            } else {
                self.literal(&mut reader, 4)?;
            }
            resizable = false;
        }
        Some(())
    }

    /// A literal field, whether or not it is to be indexed.
    fn literal(&mut self, reader: &mut Reader<'_>, prefix: u32) -> Option<(Name, Text)> {
        let name = match reader.integer(prefix)? {
            0 => reader.text()?.name(reader.block)?,
            index => self.name(index)?,
        };
        let value = reader.text()?;
        if name.is_authority {
            value.len(reader.block)?; // Editing relies on whole codes.
            self.found.push(value);
        }
        Some((name, value))
    }

    fn name(&self, index: usize) -> Option<Name> {
        let index = index.checked_sub(1)?;
        match STATIC_NAME_LENGTHS.get(index) {
            Some(&len) => Some(Name { len: usize::from(len), is_authority: index == 0 }),
            None => self.entries.get(index - STATIC_NAME_LENGTHS.len()).map(|entry| entry.name),
        }
    }

    /// RFC 7541, sections 4.1 and 4.4: an entry that does not fit empties the table and is not an error.
    fn insert(&mut self, name: Name, value_len: usize) {
        let size = name.len + value_len + ENTRY_OVERHEAD;
        self.evict(self.max_size.saturating_sub(size));
        if size <= self.max_size {
            self.size += size;
            self.entries.push_front(Entry { name, size });
        }
    }

    fn evict(&mut self, until: usize) {
        while self.size > until
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size -= oldest.size;
        }
    }
}

impl Text {
    /// The length of the decoded string.
    fn len(self, block: &[u8]) -> Option<usize> {
        let bytes = &block[self.start..self.end];
        if self.huffman { huffman::decoded_len(bytes) } else { Some(bytes.len()) }
    }

    fn name(self, block: &[u8]) -> Option<Name> {
        let bytes = &block[self.start..self.end];
        let is_authority = bytes == if self.huffman { huffman::AUTHORITY } else { AUTHORITY };
        Some(Name { len: self.len(block)?, is_authority })
    }
}

struct Reader<'a> {
    block: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.block.get(self.at).copied()
    }

    fn next(&mut self) -> Option<usize> {
        let byte = self.peek()?;
        self.at += 1;
        Some(usize::from(byte))
    }

    /// RFC 7541, section 5.1, of at most five bytes as in h2.
    fn integer(&mut self, prefix: u32) -> Option<usize> {
        let mask = (1 << prefix) - 1;
        let mut value = self.next()? & mask;
        if value < mask {
            return Some(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = self.next()?;
            value += (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn text(&mut self) -> Option<Text> {
        let huffman = self.peek()? & 0x80 != 0;
        let len = self.integer(7)?;
        let start = self.at;
        self.at = start.checked_add(len).filter(|&end| end <= self.block.len())?;
        Some(Text { start, end: self.at, huffman })
    }
}

/// Overwrites what makes a value unfit, and nothing in a fit one.
fn normalize(value: &mut [u8]) {
    if is_host_and_port(value.iter().copied()) {
        return;
    }
    for byte in value.iter_mut().filter(|byte| !is_host(**byte)) {
        *byte = b'-';
    }
}

/// A registered name and perhaps a port, as in `localhost:50051`: h2 takes it as it is, so it stays as it is.
fn is_host_and_port(mut bytes: impl Iterator<Item = u8>) -> bool {
    match bytes.find(|&byte| !is_host(byte)) {
        None => true,
        Some(b':') => bytes.all(|byte| byte.is_ascii_digit()),
        Some(_) => false,
    }
}

/// What may stand anywhere in an authority and divides nothing there: `reg-name` of RFC 3986, section 3.2.2,
/// less percent-encoding.
const fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&'..=b',' | b';' | b'=')
}

/// The Huffman code of RFC 7541, appendix B.
mod huffman {
    use super::{is_host, is_host_and_port};

    /// `:authority`. A string has one encoding only.
    pub(super) const AUTHORITY: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];

    pub(super) fn decoded_len(bytes: &[u8]) -> Option<usize> {
        let mut codes = Codes { bytes, bit: 0 };
        let len = codes.by_ref().count();
        codes.at_end().then_some(len)
    }

    /// As [`super::normalize`]. A code without a fit one of its length stays.
    pub(super) fn normalize(bytes: &mut [u8]) {
        if is_host_and_port(Codes { bytes, bit: 0 }.map(|code| code.symbol)) {
            return;
        }
        let mut bit = 0;
        while let Some(code) = (Codes { bytes, bit }).next() {
            if let Some(fit) = code.group.fit
                && !is_host(code.symbol)
            {
                for (place, shift) in (bit..bit + code.group.bits).rev().zip(0..) {
                    let mask = 0x80 >> (place % 8);
                    bytes[place / 8] &= !mask;
                    bytes[place / 8] |= if fit >> shift & 1 == 1 { mask } else { 0 };
                }
            }
            bit += code.group.bits;
        }
    }

    struct Codes<'a> {
        bytes: &'a [u8],
        bit: usize,
    }

    struct Code {
        group: &'static Group,
        /// NUL stands in for the symbols that the table does not name: unfit all.
        symbol: u8,
    }

    impl Codes<'_> {
        /// The next 32 bits. Ones follow the last byte, as padding is made of ones.
        fn window(&self) -> u32 {
            let byte = |at: usize| self.bytes.get(self.bit / 8 + at).copied().unwrap_or(0xff);
            let word = u32::from_be_bytes([byte(0), byte(1), byte(2), byte(3)]);
            word << (self.bit % 8) | u32::from(byte(4)) >> (8 - self.bit % 8)
        }

        /// Padding is shorter than a byte (RFC 7541, section 5.2).
        fn at_end(&self) -> bool {
            self.bytes.len() * 8 - self.bit < 8 && self.window() == u32::MAX
        }
    }

    /// Ends before padding, and before anything that is no whole code.
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
            Some(Code {
                group,
                symbol: group.symbols.get((code - group.first) as usize).copied().unwrap_or(0),
            })
        }
    }

    /// Codes of equal length. They are consecutive numbers, from `first` to before `end`.
    struct Group {
        bits: usize,
        first: u32,
        end: u32,
        symbols: &'static [u8],
        /// What replaces an unfit code.
        fit: Option<u32>,
    }

    const GROUPS: [Group; LENGTHS.len()] = groups();

    const END_OF_STRING: u32 = 0x3fff_ffff;

    /// The code is canonical: shorter before longer, each code the one before it plus one. So the number of
    /// codes of each length makes the table. Symbols are named up to the last length that has a fit one.
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
            [const { Group { bits: 0, first: 0, end: 0, symbols: b"", fit: None } }; LENGTHS.len()];
        let (mut at, mut last_bits, mut first) = (0, 0, 0);
        while at < LENGTHS.len() {
            let (bits, count, symbols) = LENGTHS[at];
            first <<= bits - last_bits;
            groups[at] = Group { bits, first, end: first + count, symbols, fit: first_fit(first, symbols) };
            (at, last_bits, first) = (at + 1, bits, first + count);
        }
        groups
    }

    const fn first_fit(mut code: u32, mut symbols: &[u8]) -> Option<u32> {
        while let [symbol, rest @ ..] = symbols {
            if is_host(*symbol) {
                return Some(code);
            }
            (code, symbols) = (code + 1, rest);
        }
        None
    }
}

/// The most that a connection's header block may keep from the server, frame heads and padding included: four full
/// frames, where hyper announces a limit of 16 KiB of fields.
const BLOCK_LIMIT: usize = 64 * 1024;

/// `SETTINGS_MAX_FRAME_SIZE`: h2's default, which hyper and tonic keep.
const FRAME_LIMIT: usize = 16_384;

/// `SETTINGS_HEADER_TABLE_SIZE`: h2's default, which hyper and tonic keep. A server that announces another
/// one must change this with it.
const TABLE_LIMIT: usize = 4096;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const AUTHORITY: &[u8] = b":authority";

/// The length of a frame's head.
const HEAD: usize = 9;

// Frame types and the flags of HEADERS.
const HEADERS: u8 = 0x1;
const PUSH_PROMISE: u8 = 0x5;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// RFC 7541, section 4.1.
const ENTRY_OVERHEAD: usize = 32;

/// RFC 7541, appendix A, from `:authority` to `www-authenticate`.
const STATIC_NAME_LENGTHS: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13,
    12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3,
    16,
];

#[cfg(test)]
#[path = "authority/tests.rs"]
mod tests;
