//! Connections that deliver bytes as a script says.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use key_broker_authority::NormalizeAuthority;
use tokio::io::{AsyncRead, ReadBuf};

/// Sends `bytes` through the adapter, in as few reads as possible.
pub(crate) fn through_whole(bytes: &[u8]) -> Vec<u8> {
    through(bytes, &[usize::MAX], &[usize::MAX])
}

/// Sends `bytes` through the adapter, in reads of the sizes `reads` into buffers of the sizes `room`.
pub(crate) fn through(bytes: &[u8], reads: &[usize], room: &[usize]) -> Vec<u8> {
    let mut cx = Context::from_waker(Waker::noop());
    let (rest, waits) = (Cell::new(bytes), Cell::new(false));
    let reads = reads.iter().copied().cycle();
    let mut adapter = NormalizeAuthority::new(Script { reads, rest: &rest, ready: true, waits: &waits });
    let mut out = Vec::new();
    let mut space = vec![0; bytes.len() + 1];
    for &room in room.iter().cycle() {
        let mut buf = ReadBuf::new(&mut space[..room.min(bytes.len() + 1)]);
        waits.set(false);
        match Pin::new(&mut adapter).poll_read(&mut cx, &mut buf) {
            Poll::Pending => assert!(waits.get(), "pending, but nothing will wake it"),
            Poll::Ready(result) => {
                result.expect("the script has no errors");
                if buf.filled().is_empty() {
                    break;
                }
                out.extend_from_slice(buf.filled());
            }
        }
    }
    assert!(rest.get().is_empty(), "the end was announced before it came");
    out
}

/// Pending before every read; then gives at most the next size.
struct Script<'a, 'b, I> {
    reads: I,
    rest: &'a Cell<&'b [u8]>,
    ready: bool,
    waits: &'a Cell<bool>,
}

impl<I: Iterator<Item = usize> + Unpin> AsyncRead for Script<'_, '_, I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        assert!(buf.remaining() > 0, "a read without room cannot tell the end");
        self.ready = !self.ready;
        if !self.ready {
            self.waits.set(true);
            return Poll::Pending;
        }
        let rest = self.rest.get();
        let size = self.reads.next().unwrap_or(1).min(buf.remaining()).min(rest.len());
        let (arrived, rest) = rest.split_at(size);
        buf.put_slice(arrived);
        self.rest.set(rest);
        Poll::Ready(Ok(()))
    }
}

/// Gives and fails as listed.
pub(crate) struct Arrivals<'a>(pub(crate) VecDeque<Result<&'a [u8], io::ErrorKind>>);

impl AsyncRead for Arrivals<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0.pop_front() {
            Some(Ok(bytes)) => {
                let (arrived, rest) = bytes.split_at(bytes.len().min(buf.remaining()));
                buf.put_slice(arrived);
                if !rest.is_empty() {
                    self.0.push_front(Ok(rest));
                }
                Poll::Ready(Ok(()))
            }
            Some(Err(kind)) => Poll::Ready(Err(kind.into())),
            None => Poll::Ready(Ok(())),
        }
    }
}
