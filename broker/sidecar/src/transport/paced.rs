//! Paces the reading of a connection. While a peer does not take what is written, nothing is read from it, which bounds what HTTP/2
//! keeps for it. And a principal that sends much is read a few KiB at a time, in turn with the others, so that not all of its
//! requests are in memory at once.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::progress::Progress;
use crate::limits::ReadTurn;

/// A stream of bytes whose progress is observed.
pub(super) struct Paced<S> {
    stream: S,
    progress: Arc<Progress>,
    turn: ReadTurn,
}

impl<S> Paced<S> {
    /// Wraps `stream`.
    pub(super) fn new(stream: S, progress: Arc<Progress>, turn: ReadTurn) -> Self {
        Self { stream, progress, turn }
    }

    fn noted<T>(&mut self, written: Poll<T>) -> Poll<T> {
        self.progress.wrote(written.is_pending());
        if written.is_pending() {
            self.turn.leave();
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.progress.reads_later(cx) {
            self.turn.leave();
            return Poll::Pending;
        }
        let Self { stream, turn, .. } = &mut *self;
        turn.poll_read(cx, |cx| {
            let len = buffer.remaining().min(PIECE_BYTES);
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(len));
            ready!(Pin::new(stream).poll_read(cx, &mut part))?;
            let read = part.filled().len();
            buffer.advance(read);
            Poll::Ready(Ok(()))
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.noted(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.noted(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// About thirty typical requests.
const PIECE_BYTES: usize = 4 << 10;
