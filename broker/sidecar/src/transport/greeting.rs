//! The first bytes of a connection decide whether it is HTTP/2; HTTP/1.1 is answered in HTTP/1.1. Nothing is sent before a peer has
//! shown what it speaks, although an HTTP/2 server would send first.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream of bytes of which only HTTP/2 passes.
pub(super) struct Greeted<S> {
    stream: S,
    state: Greeting,
}

enum Greeting {
    /// Nothing has come yet; these bytes wait to be sent.
    Awaited(Vec<u8>),
    /// It is HTTP/2. These bytes had to wait; this many of them are sent.
    Http2(Vec<u8>, usize),
    /// It is not HTTP/2, and this many bytes of the answer are sent.
    Refused(usize),
    /// The answer is sent and this many bytes more were read: closing a socket with unread bytes resets it, and may lose the answer.
    Lingering(usize),
}

impl<S> Greeted<S> {
    /// Wraps `stream`.
    pub(super) fn new(stream: S) -> Self {
        Self { stream, state: Greeting::Awaited(Vec::new()) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Greeted<S> {
    /// Sends the bytes that had to wait.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, state } = self;
        if let Greeting::Http2(held, sent) = state {
            while *sent < held.len() {
                match ready!(Pin::new(&mut *stream).poll_write(cx, &held[*sent..]))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    more => *sent += more,
                }
            }
            (*held, *sent) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends the answer to anything but HTTP/2. Ends when the peer has ended, or has sent too much.
    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, state } = self;
        if let Greeting::Refused(sent) = state {
            while *sent < REFUSAL.len() {
                match ready!(Pin::new(&mut *stream).poll_write(cx, &REFUSAL[*sent..]))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    more => *sent += more,
                }
            }
            ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
            *state = Greeting::Lingering(0);
        }
        if let Greeting::Lingering(more) = state {
            while *more < MOST_READ_AFTER {
                let mut room = [0; 1_024];
                let mut buffer = ReadBuf::new(&mut room);
                ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
                match buffer.filled().len() {
                    0 => break,
                    read => *more += read,
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Greeting::Awaited(held) = &mut self.state {
            let held = std::mem::take(held);
            let before = buffer.filled().len();
            let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
            let came = &buffer.filled()[before..];
            self.state = match &read {
                Poll::Pending => Greeting::Awaited(held),
                Poll::Ready(_) if PREFACE.starts_with(&came[..came.len().min(PREFACE.len())]) => {
                    Greeting::Http2(held, 0)
                }
                Poll::Ready(_) => {
                    buffer.set_filled(before);
                    Greeting::Refused(0)
                }
            };
            ready!(read)?;
            if matches!(self.state, Greeting::Http2(..)) {
                // What cannot be sent now is sent when the peer takes it, which polls this again.
                if let Poll::Ready(sent) = self.poll_held(cx) {
                    sent?;
                }
                return Poll::Ready(Ok(()));
            }
        }
        if matches!(self.state, Greeting::Refused(_) | Greeting::Lingering(_)) {
            // It ends after the refusal.
            return self.poll_refusal(cx);
        }
        if let Poll::Ready(sent) = self.poll_held(cx) {
            sent?;
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.state {
            Greeting::Awaited(held) => {
                // HTTP/2 begins with some fifty bytes, which fit.
                let taken = bytes.len().min(MOST_HELD - held.len());
                held.extend_from_slice(&bytes[..taken]);
                // There is room again once the peer has sent something.
                if taken == 0 { Poll::Pending } else { Poll::Ready(Ok(taken)) }
            }
            Greeting::Refused(_) | Greeting::Lingering(_) => {
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            }
            Greeting::Http2(..) => {
                ready!(self.poll_held(cx))?;
                Pin::new(&mut self.stream).poll_write(cx, bytes)
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if matches!(&self.state, Greeting::Http2(held, _) if held.is_empty()) {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        }
        let first = pieces.iter().find(|piece| !piece.is_empty()).map_or(&[][..], |piece| &**piece);
        self.poll_write(cx, first)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.state, Greeting::Awaited(_)) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_held(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_held(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The start of HTTP/2 (RFC 9113, 3.4), as far as needed to tell it from any request of HTTP/1.1.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";
const MOST_HELD: usize = 4 << 10;
/// The most that is read from a peer after the answer.
const MOST_READ_AFTER: usize = 64 << 10;
/// RFC 9110, 15.6.6.
const REFUSAL: &[u8] = b"HTTP/1.1 505 HTTP Version Not Supported\r\n\
content-type: text/plain\r\n\
content-length: 87\r\n\
connection: close\r\n\
\r\n\
This is key-broker: it speaks gRPC, over HTTP/2 with prior knowledge, and not HTTP/1.1\n";

#[cfg(test)]
mod tests {
    //! Peers that speak HTTP/2 notice nothing, however their bytes are split; all others get an answer in HTTP/1.1, and no byte of HTTP/2.

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let text = std::str::from_utf8(REFUSAL).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{}", body.len());
    }

    /// What each side reads if the broker sends `greeting` at once and the peer sends `said` in pieces.
    async fn talk(said: Vec<u8>, pieces: usize, greeting: &'static [u8]) -> (Vec<u8>, Vec<u8>) {
        let (near, mut far) = duplex(64);
        let broker = tokio::spawn(async move {
            let mut stream = Greeted::new(near);
            stream.write_all(greeting).await.expect("held or sent");
            stream.flush().await.expect("flushed");
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await.expect("reads");
            let _ = stream.shutdown().await;
            heard
        });
        for piece in said.chunks(pieces) {
            if far.write_all(piece).await.is_err() {
                break;
            }
        }
        // The peer has sent everything, and reads.
        let (mut reads, mut writes) = tokio::io::split(far);
        let _ = writes.shutdown().await;
        let mut got = Vec::new();
        reads.read_to_end(&mut got).await.expect("reads");
        (broker.await.expect("no panic"), got)
    }

    #[tokio::test]
    async fn http_1_is_told_in_http_1() {
        for said in
            [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], b"POST /x HTTP/1.0\r\n\r\n", b"P", b"\x16\x03\x01"]
        {
            let (heard, got) = talk(said.to_vec(), said.len(), b"SETTINGS").await;
            if PREFACE.starts_with(said) {
                assert_eq!(
                    (heard.as_slice(), got.as_slice()),
                    (said, &b"SETTINGS"[..]),
                    "it may still become HTTP/2"
                );
            } else {
                assert_eq!((heard.as_slice(), got.as_slice()), (&b""[..], REFUSAL), "{said:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn http_2_finds_nothing_changed(more in prop::collection::vec(any::<u8>(), 0..300), pieces in 1..80_usize) {
            let said = [PREFACE, &more].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let (heard, got) = runtime.block_on(talk(said.clone(), pieces, b"SETTINGS and more than a buffer holds, which is sixty-four bytes here"));
            prop_assert_eq!(heard, said);
            prop_assert_eq!(got, b"SETTINGS and more than a buffer holds, which is sixty-four bytes here");
        }
    }
}
