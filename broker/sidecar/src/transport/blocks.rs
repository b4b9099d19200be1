//! Limits unfinished header blocks. The HTTP/2 library keeps a block of several frames in memory until it is complete: until then it
//! takes a share of the request bytes of its principal, and beyond a bound the connection ends.
//!
//! A block of one frame, like nearly all, takes nothing: the frame has at most 16 KiB and is read at once.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::limits::{Share, Taken};

/// The incoming bytes of a connection, from its start.
pub(super) struct HeaderBlocks<S> {
    stream: S,
    share: Arc<Share>,
    /// Cancelled when a block exceeds its bound.
    too_long: CancellationToken,
    frames: Frames,
    /// The share taken for an unfinished block.
    taken: Option<Taken>,
}

/// A position in a client's frames (RFC 9113, section 4.1).
struct Frames {
    /// Bytes to skip before the next frame begins: of the preface, or of a frame.
    left: usize,
    header: [u8; HEADER_BYTES],
    seen: usize,
    /// Bytes of the unfinished block.
    block: usize,
    /// Whether this frame completes a block.
    is_last: bool,
}

/// The state of header blocks after some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    /// No block is unfinished.
    None,
    /// One block is unfinished, with this many bytes so far.
    Unfinished(usize),
}

impl<S> HeaderBlocks<S> {
    /// Follows the blocks on `stream`. Cancels `too_long`, to end the connection, when one is too long or finds no room in `share`.
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
    /// Follows `bytes`, and returns the longest block that is, or was, unfinished in them.
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

    /// Begins a frame.
    fn begin(&mut self) {
        let [l0, l1, l2, kind, flags, ..] = self.header;
        self.seen = 0;
        self.left = usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2);
        let is_end = flags & END_HEADERS != 0;
        match kind {
            HEADERS if !is_end => self.block = HEADER_BYTES + self.left,
            CONTINUATION if self.block > 0 => self.block += HEADER_BYTES + self.left,
            // Any other frame within a block ends the connection anyway (RFC 9113, section 6.10).
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

/// What an unfinished block may cost: its bytes twice, and some 110 bytes for each field of one byte.
const UNFINISHED_TAKES: usize = 1 << 20;
/// The longest accepted block: [`MAX_HEADER_BYTES`](crate::limits::MAX_HEADER_BYTES) of fields, and the headers of its frames.
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
    //! A block is followed from its first frame to its last, however its bytes are split, and a block of one frame takes nothing.

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
            // After each byte: the length of the block that has begun and not ended by then.
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
