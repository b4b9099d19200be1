//! Header blocks on their way in. One that comes in several frames is kept until it is whole, by whoever reads it: until then it takes a
//! share of the bytes of its principal's requests, and beyond a bound the connection ends.
//!
//! A block of one frame, as nearly all are, takes nothing: its frame has 16 KiB at most, and is read at once.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::limits::{Share, Taken};

/// The bytes of a connection, of which nothing has been read yet.
pub(super) struct HeaderBlocks<S> {
    stream: S,
    share: Arc<Share>,
    /// Cancelled when a block is longer than may be.
    too_long: CancellationToken,
    frames: Frames,
    /// What an unfinished block has taken.
    taken: Option<Taken>,
}

/// Where in a client's frames (RFC 9113, section 4.1) the next byte is.
struct Frames {
    /// Bytes to pass before the next frame begins: of the preface, or of a frame.
    left: usize,
    header: [u8; HEADER_BYTES],
    seen: usize,
    /// Bytes of the block that is not finished.
    block: usize,
    /// This frame is the last of a block.
    is_last: bool,
}

/// What becomes of a block with the bytes that have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    /// None is unfinished.
    None,
    /// One is, and has so many bytes so far.
    Unfinished(usize),
}

impl<S> HeaderBlocks<S> {
    /// Those on `stream`. Cancels `too_long` when one is too long, or finds no room in `share`: then the connection is to end.
    pub(super) fn new(stream: S, share: Arc<Share>, too_long: CancellationToken) -> Self {
        Self { stream, share, too_long, frames: Frames::default(), taken: None }
    }

    fn follow(&mut self, came: &[u8]) -> io::Result<()> {
        match self.frames.pass(came) {
            Block::None => self.taken = None,
            Block::Unfinished(bytes) => {
                if self.taken.is_none() {
                    self.taken = self.share.request_bytes(UNFINISHED_TAKES);
                }
                let is_refused = self.taken.is_none();
                if is_refused || bytes > MAX_BLOCK_BYTES {
                    self.too_long.cancel();
                }
                if is_refused {
                    return Err(io::Error::other("no bytes are left for unfinished header blocks"));
                }
            }
        }
        Ok(())
    }
}

impl Frames {
    /// Passes over `bytes`. The longest block is told of those that are or were unfinished in them.
    fn pass(&mut self, mut bytes: &[u8]) -> Block {
        let mut longest = self.block;
        while !bytes.is_empty() {
            let passed = bytes.len().min(self.left);
            self.left -= passed;
            bytes = &bytes[passed..];
            if self.left == 0 && std::mem::take(&mut self.is_last) {
                self.block = 0;
            }
            if bytes.is_empty() {
                break;
            }
            let taken = bytes.len().min(HEADER_BYTES - self.seen);
            self.header[self.seen..self.seen + taken].copy_from_slice(&bytes[..taken]);
            self.seen += taken;
            bytes = &bytes[taken..];
            if self.seen == HEADER_BYTES {
                self.begin();
                longest = longest.max(self.block);
            }
        }
        match self.block {
            0 => Block::None,
            _ => Block::Unfinished(longest),
        }
    }

    /// A frame begins.
    fn begin(&mut self) {
        let [l0, l1, l2, kind, flags, ..] = self.header;
        self.seen = 0;
        self.left = usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2);
        let is_end = flags & END_HEADERS != 0;
        match kind {
            HEADERS if !is_end => self.block = HEADER_BYTES + self.left,
            CONTINUATION if self.block > 0 => self.block += HEADER_BYTES + self.left,
            // Anything else in the middle of a block ends the connection anyway (RFC 9113, section 6.10).
            _ => self.block = 0,
        }
        self.is_last = kind == CONTINUATION && is_end;
        if self.is_last && self.left == 0 {
            (self.block, self.is_last) = (0, false);
        }
    }
}

impl Default for Frames {
    fn default() -> Self {
        Self { left: PREFACE_BYTES, header: [0; HEADER_BYTES], seen: 0, block: 0, is_last: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeaderBlocks<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let start = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        Poll::Ready(self.follow(&buffer.filled()[start..]))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeaderBlocks<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What an unfinished block may cost: as many bytes as it has, twice, and some 110 for each field of one byte.
const UNFINISHED_TAKES: usize = 1 << 20;
/// The longest block that is followed: [`MAX_HEADER_BYTES`](crate::limits::MAX_HEADER_BYTES) of fields, and the heads of its frames.
const MAX_BLOCK_BYTES: usize = 264 << 10;
/// RFC 9113, section 3.4.
const PREFACE_BYTES: usize = 24;
/// The length of a frame's header.
const HEADER_BYTES: usize = 9;
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;

#[cfg(test)]
mod tests {
    //! A block is followed from its first frame to its last, however the bytes come, and one of one frame is none.

    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        [&[0, 0, length, kind, flags, 0, 0, 0, 1][..], &vec![0x82; length.into()]].concat()
    }

    proptest! {
        #[test]
        fn however_the_bytes_come_a_block_is_unfinished_until_its_last(
            frames in prop::collection::vec((any::<bool>(), any::<bool>(), any::<u8>()), 0..12),
            piece in 1..40_usize,
        ) {
            let mut bytes = vec![b'x'; PREFACE_BYTES];
            // After each byte: how long the block is that has begun by then and has not ended.
            let mut unfinished = vec![0; PREFACE_BYTES];
            let mut block = 0;
            for (is_data, is_end, length) in frames {
                let kind = match (block, is_data) {
                    (1.., _) => CONTINUATION,
                    (0, true) => 0,
                    (0, false) => HEADERS,
                };
                let written = frame(kind, if is_end { END_HEADERS } else { 0 }, length);
                unfinished.extend(vec![block; HEADER_BYTES - 1]);
                let is_of_a_block = kind == CONTINUATION || (kind == HEADERS && !is_end);
                block = if is_of_a_block { block + written.len() } else { 0 };
                unfinished.extend(vec![block; written.len() - HEADER_BYTES + 1]);
                if kind == CONTINUATION && is_end {
                    (block, *unfinished.last_mut().expect("bytes")) = (0, 0);
                }
                bytes.extend(written);
            }
            let (mut parser, mut at) = (Frames::default(), 0);
            for piece in bytes.chunks(piece) {
                let told = parser.pass(piece);
                at += piece.len();
                match unfinished[at - 1] {
                    0 => prop_assert_eq!(told, Block::None),
                    n => prop_assert!(matches!(told, Block::Unfinished(bytes) if bytes >= n), "{told:?}, {n}"),
                }
            }
        }
    }

    #[test]
    fn a_block_ends_with_its_last_frame() {
        let mut parser = Frames::default();
        assert_eq!(parser.pass(&[b'x'; PREFACE_BYTES]), Block::None);
        assert_eq!(parser.pass(&frame(HEADERS, END_HEADERS, 200)), Block::None);
        assert_eq!(parser.pass(&frame(HEADERS, 0, 200)), Block::Unfinished(209));
        assert_eq!(parser.pass(&frame(CONTINUATION, 0, 100)), Block::Unfinished(318));
        assert_eq!(parser.pass(&frame(CONTINUATION, END_HEADERS, 1)), Block::None);
        assert_eq!(parser.pass(&frame(0, 0, 100)), Block::None);
        assert_eq!(parser.pass(&frame(HEADERS, 0, 0)), Block::Unfinished(9));
        assert_eq!(parser.pass(&frame(CONTINUATION, END_HEADERS, 0)), Block::None);
    }
}
