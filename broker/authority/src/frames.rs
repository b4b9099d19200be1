//! Follows the HTTP/2 frames that a client sends (RFC 9113) and hands each header block to [`BlockEditor`].

use std::ops::Range;

use crate::hpack::BlockEditor;

/// A position in the client's byte stream, with the HPACK state that belongs to it.
#[derive(Default)]
pub(crate) struct FrameParser {
    position: Position,
    editor: BlockEditor,
    /// Where in the current header block's bytes its HPACK fragments lie.
    fragments: Vec<Range<usize>>,
    /// The fragments of a block of several frames, joined.
    joined: Vec<u8>,
}

enum Position {
    /// In the connection preface, after this many bytes.
    Preface(usize),
    /// In a frame's header, after this many bytes.
    Header([u8; HEADER_BYTES], usize),
    /// In the payload of a frame without header fields, this many bytes before its end.
    Payload(usize),
    /// In the frames of a header block.
    Block(HeaderBlock),
    /// Lost for good: everything passes unchanged.
    Lost,
}

/// A header block that is arriving. Offsets count from the first byte after the header of its HEADERS frame.
#[derive(Clone, Copy)]
struct HeaderBlock {
    /// The header of its last frame so far …
    frame: FrameHeader,
    /// … and that frame's payload.
    start: usize,
    end: usize,
}

/// RFC 9113, section 4.1.
#[derive(Clone, Copy)]
struct FrameHeader {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

enum Progress {
    Partial(HeaderBlock),
    /// The whole block, with its length in bytes.
    Complete(usize),
    Malformed,
}

impl FrameParser {
    /// Edits `bytes` as far as possible and returns how many of them may go on to the server.
    ///
    /// The rest is the beginning of a header block. It has to be passed again, followed by more, once there are
    /// [`Self::wanted`] bytes.
    pub(crate) fn pass(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        loop {
            let rest = &mut bytes[at..];
            match &mut self.position {
                Position::Block(block) => match block.advance(rest, &mut self.fragments) {
                    Progress::Partial(so_far) => {
                        *block = so_far;
                        return at;
                    }
                    Progress::Complete(len) => {
                        self.position = match self.edit(&mut rest[..len]) {
                            Some(()) => Position::NEXT_FRAME,
                            None => Position::Lost,
                        };
                        self.fragments.clear();
                        self.fragments.shrink_to(KEPT_FRAGMENTS);
                        at += len;
                    }
                    Progress::Malformed => self.position = Position::Lost,
                },
                Position::Lost => return bytes.len(),
                _ if rest.is_empty() => return at,
                Position::Preface(seen) => {
                    let taken = rest.len().min(PREFACE.len() - *seen);
                    let expected = &PREFACE[*seen..*seen + taken];
                    *seen += taken;
                    at += taken;
                    if rest[..taken] != *expected {
                        self.position = Position::Lost;
                    } else if *seen == PREFACE.len() {
                        self.position = Position::NEXT_FRAME;
                    }
                }
                Position::Header(header, seen) => {
                    let taken = rest.len().min(HEADER_BYTES - *seen);
                    header[*seen..*seen + taken].copy_from_slice(&rest[..taken]);
                    *seen += taken;
                    at += taken;
                    if *seen == HEADER_BYTES {
                        self.position = Position::after(FrameHeader::parse(header));
                    }
                }
                Position::Payload(left) => {
                    let taken = rest.len().min(*left);
                    *left -= taken;
                    at += taken;
                    if *left == 0 {
                        self.position = Position::NEXT_FRAME;
                    }
                }
            }
        }
    }

    /// In a header block: how many bytes, counted from the block's first, [`Self::pass`] needs to go on.
    pub(crate) fn wanted(&self) -> Option<usize> {
        match &self.position {
            Position::Block(block) => Some(block.wanted()),
            _ => None,
        }
    }

    /// Ends all editing of this connection.
    pub(crate) fn stop(&mut self) {
        self.position = Position::Lost;
    }

    /// Edits a whole block, or finds it malformed and leaves it as it is.
    fn edit(&mut self, block: &mut [u8]) -> Option<()> {
        if let [only] = &self.fragments[..] {
            return self.editor.edit(&mut block[only.clone()]);
        }
        self.joined.clear();
        for fragment in &self.fragments {
            self.joined.extend_from_slice(&block[fragment.clone()]);
        }
        self.editor.edit(&mut self.joined)?;
        let mut rest = &self.joined[..];
        for fragment in &self.fragments {
            let (edited, after) = rest.split_at(fragment.len());
            block[fragment.clone()].copy_from_slice(edited);
            rest = after;
        }
        self.joined.clear();
        self.joined.shrink_to(MAX_FRAME_BYTES);
        Some(())
    }
}

impl Default for Position {
    fn default() -> Self {
        Self::Preface(0)
    }
}

impl Position {
    const NEXT_FRAME: Self = Self::Header([0; HEADER_BYTES], 0);

    fn after(frame: FrameHeader) -> Self {
        match frame.kind {
            HEADERS if frame.length <= MAX_FRAME_BYTES && frame.stream != 0 => {
                Self::Block(HeaderBlock { frame, start: 0, end: frame.length })
            }
            // Too long, or out of place. A client never sends PUSH_PROMISE.
            HEADERS | PUSH_PROMISE | CONTINUATION => Self::Lost,
            _ if frame.length == 0 => Self::NEXT_FRAME,
            _ => Self::Payload(frame.length),
        }
    }
}

impl HeaderBlock {
    fn advance(mut self, bytes: &[u8], fragments: &mut Vec<Range<usize>>) -> Progress {
        while bytes.len() >= self.wanted() {
            match self.fragment(bytes) {
                Some(fragment) if fragment.is_empty() => {}
                Some(fragment) => fragments.push(fragment),
                None => return Progress::Malformed,
            }
            if self.is_last() {
                return Progress::Complete(self.end);
            }
            let Some(frame) = bytes[self.end..].first_chunk().map(FrameHeader::parse) else {
                return Progress::Malformed;
            };
            self.start = self.end + HEADER_BYTES;
            self.end = self.start + frame.length;
            let continues = frame.kind == CONTINUATION && frame.stream == self.frame.stream;
            if !continues || frame.length > MAX_FRAME_BYTES || self.wanted() > MAX_BLOCK_BYTES {
                return Progress::Malformed;
            }
            self.frame = frame;
        }
        Progress::Partial(self)
    }

    /// The frame's fragment of the block: its payload without padding and priority (RFC 9113, section 6.2).
    fn fragment(&self, bytes: &[u8]) -> Option<Range<usize>> {
        let (mut start, mut end) = (self.start, self.end);
        if self.frame.kind == HEADERS {
            if self.frame.flags & PADDED != 0 {
                end = end.checked_sub(usize::from(*bytes[..end].get(start)?))?;
                start += 1;
            }
            if self.frame.flags & PRIORITY != 0 {
                start += 5;
            }
        }
        (start <= end).then_some(start..end)
    }

    /// Includes the next frame's header, which says how the block continues.
    fn wanted(&self) -> usize {
        self.end + if self.is_last() { 0 } else { HEADER_BYTES }
    }

    fn is_last(&self) -> bool {
        self.frame.flags & END_HEADERS != 0
    }
}

impl FrameHeader {
    fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
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

/// The longest header block, frame headers and padding included, that is held back: sixteen full frames. hyper and tonic accept
/// 16 KiB of fields by default; a server that refuses more with words of its own has to read more.
const MAX_BLOCK_BYTES: usize = 264 * 1024;

/// How many fragments' places stay allocated between blocks. Nearly all blocks are one; a client may send 27,000.
const KEPT_FRAGMENTS: usize = 4;

/// The initial `SETTINGS_MAX_FRAME_SIZE` (RFC 9113, section 6.5.2), which h2, hyper and tonic keep.
const MAX_FRAME_BYTES: usize = 16_384;

/// RFC 9113, section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The length of a frame's header.
const HEADER_BYTES: usize = 9;

// Frame types, and the flags of HEADERS (RFC 9113, section 6).
const HEADERS: u8 = 0x1;
const PUSH_PROMISE: u8 = 0x5;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

#[cfg(test)]
mod tests {
    //! Memory that a block needs goes with the block.

    use super::*;

    /// Proves: a block of very many frames does not leave the list of its fragments with the connection.
    #[test]
    fn many_fragments_are_forgotten() {
        // An indexed field in each frame: `:method: GET`.
        let frame = |kind, flags| [0, 0, 1, kind, flags, 0, 0, 0, 1, 0x82];
        let middle = frame(CONTINUATION, 0).repeat(5_000);
        let last = frame(CONTINUATION, END_HEADERS);
        let mut bytes = [PREFACE, &frame(HEADERS, 0), &middle, &last].concat();
        let mut parser = FrameParser::default();
        assert_eq!(parser.pass(&mut bytes), bytes.len());
        assert!(matches!(parser.position, Position::Header(_, 0)), "the block was followed");
        assert!(parser.fragments.capacity() <= KEPT_FRAGMENTS);
    }
}
