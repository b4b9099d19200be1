//! A connection's bytes, at a pace that leaves others theirs. While the peer does not take what is written, nothing is read: what HTTP/2
//! keeps for a peer that does not read is bounded by what it had sent before. And of a principal that sends much, a few KiB are read
//! before others have their turn: many that send at once do not all have their requests in memory at once.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::progress::Progress;
use crate::limits::ReadTurn;

/// A stream of bytes whose progress is noted.
pub(super) struct Paced<S> {
    stream: S,
    progress: Arc<Progress>,
    turn: ReadTurn,
}

impl<S> Paced<S> {
    /// The bytes of `stream`.
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

/// Some thirty requests as most are.
const PIECE_BYTES: usize = 4 << 10;
