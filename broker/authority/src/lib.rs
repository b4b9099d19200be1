//! Lets an h2 server accept default-configured gRPC clients on a unix socket.
//!
//! # The problem
//!
//! A client that dials `unix:/run/app.sock` has no host name to put into the `:authority` header. Clients on gRPC's C core
//! (Python, Ruby, PHP, C++, C#) send the socket's path percent-encoded; grpc-java and `grpcurl -unix` send it as it is.
//! Neither `%` nor `/` is valid in an authority, so h2 resets the stream with `PROTOCOL_ERROR` before any handler runs
//! ([hyperium/h2#487]). hyper, tonic and axum are built on h2 and inherit this. The usual advice is to set a channel option
//! such as `grpc.default_authority` in every client.
//!
//! This crate is for servers that must accept clients as they come: sidecars, node agents, anything that others call with
//! stubs of their own.
//!
//! # The adapter
//!
//! [`NormalizeAuthority`] sits between the accepted connection and the server. It follows the client's HTTP/2 frames and
//! their HPACK state, and overwrites the bytes that h2 refuses inside `:authority` values. A byte is replaced by one byte, a
//! Huffman code by a code of as many bits. So all lengths stay as they were: those of the frames, and those that size the
//! dynamic tables of both ends.
//!
//! | the client sends | a handler sees |
//! |---|---|
//! | `%2Frun%2Fapp.sock` | `-2Frun-2Fapp.sock` |
//! | `/run/app.sock` | `-run-app.sock` |
//! | `localhost`, `localhost:50051` | the same |
//!
//! With hyper:
//!
//! ```no_run
//! use hyper::server::conn::http2;
//! use hyper_util::rt::{TokioExecutor, TokioIo};
//! use key_broker_authority::NormalizeAuthority;
//! use tokio::net::UnixListener;
//! # use std::convert::Infallible;
//! # async fn answer(_: http::Request<hyper::body::Incoming>) -> Result<http::Response<String>, Infallible> {
//! #     Ok(http::Response::default())
//! # }
//! # async fn serve() -> std::io::Result<()> {
//! # let service = hyper::service::service_fn(answer);
//!
//! let listener = UnixListener::bind("/run/app.sock")?;
//! loop {
//!     let (stream, _) = listener.accept().await?;
//!     let connection = TokioIo::new(NormalizeAuthority::new(stream));
//!     tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(connection, service));
//! }
//! # }
//! ```
//!
//! With tonic and this crate's feature `tonic`:
//!
//! ```no_run
//! use key_broker_authority::NormalizeAuthority;
//! use tokio::net::UnixListener;
//! use tokio_stream::{StreamExt, wrappers::UnixListenerStream};
//! # use tokio::io::{AsyncRead, AsyncWrite};
//! # use tonic::transport::server::Connected;
//! # // What `serve_with_incoming` demands; it is there with tonic's feature `router` only.
//! # fn is_served<I>(_: impl tokio_stream::Stream<Item = std::io::Result<I>>)
//! # where
//! #     I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
//! # {}
//! # fn serve() -> std::io::Result<()> {
//!
//! let incoming = UnixListenerStream::new(UnixListener::bind("/run/app.sock")?);
//! let incoming = incoming.map(|stream| stream.map(NormalizeAuthority::new));
//! // Server::builder().add_service(service).serve_with_incoming(incoming).await
//! # is_served(incoming);
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//!
//! - The server reads as many bytes as the client sent, in their order, and none but those of `:authority` values differ.
//!   What the server writes passes untouched.
//! - A valid host with or without a port stays as it is.
//! - The adapter refuses nothing and never panics. At the first thing that it cannot follow it stops editing for the rest of
//!   the connection and passes every byte through, so that h2 answers as it would have without the adapter. A client that
//!   misleads it changes only bytes that the client wrote itself.
//! - Memory per connection is bounded: 264 KiB for a header block that arrives in pieces, as much again if it consists of
//!   several frames, of which 16 KiB each stay when it is done, and 128 entries of a few words for the dynamic table.
//!
//! # Limits
//!
//! - Use it only where the authority means nothing, as on a unix socket: not where it chooses a virtual host or a route.
//! - No valid value has the length of an empty `:authority`, so h2 still refuses that. The same goes for a Huffman-coded
//!   value with one of `` # < > \ ^ ` { } ``, a control character other than NUL, or a byte beyond ASCII; C-core clients
//!   percent-encode these.
//! - IP addresses in brackets are edited, too: `[::1]:50051` becomes `---1--50051`.
//! - The server has to keep HTTP/2's initial `SETTINGS_HEADER_TABLE_SIZE` (4,096) and `SETTINGS_MAX_FRAME_SIZE` (16,384), as
//!   h2, hyper and tonic do. Editing stops where a client uses more.
//! - HTTP/2 has to begin with the connection ("prior knowledge", as in gRPC). HTTP/1 passes through unchanged.
//!
//! # Why HPACK is parsed here
//!
//! The HPACK crates (`httlib-hpack`, `loona-hpack`, `fluke-hpack`) decode fields but do not tell where in the input a value
//! stood. Two of them judge this crate in its tests.
//!
//! [hyperium/h2#487]: https://github.com/hyperium/h2/pull/487

#![forbid(unsafe_code)]

mod frames;
mod host;
mod hpack;
mod huffman;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use frames::FrameParser;

/// The server's end of a connection, with `:authority` values made acceptable to h2 (see the [crate's](crate) documentation).
///
/// Writes go straight to the connection. So do reads, except for a header block of which only a part has arrived: it is held
/// back, at most 264 KiB of it, until it is complete.
pub struct NormalizeAuthority<S> {
    connection: S,
    parser: FrameParser,
    held: HeldBlock,
}

/// The beginning of a header block, waiting for its end; then the whole block, waiting for room in the caller's buffer.
#[derive(Default)]
struct HeldBlock {
    /// Longer than `filled` on purpose: zeroed once, used again for every block.
    bytes: Vec<u8>,
    filled: usize,
    given: usize,
}

impl<S> NormalizeAuthority<S> {
    /// Wraps a connection that was just accepted and of which nothing has been read yet.
    pub fn new(connection: S) -> Self {
        Self { connection, parser: FrameParser::default(), held: HeldBlock::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for NormalizeAuthority<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { connection, parser, held } = self.get_mut();
        // Every turn of the loop reads from the connection or leaves the loop, and a block's bound limits the turns.
        while buf.remaining() > 0 {
            if let Some(wanted) = parser.wanted() {
                if ready!(held.poll_fill(Pin::new(connection), cx, wanted))? == 0 {
                    parser.stop();
                    if held.filled == 0 {
                        break;
                    }
                } else {
                    parser.pass(&mut held.bytes[..held.filled]);
                }
            } else if held.filled > 0 {
                held.give(buf);
                break;
            } else {
                let start = buf.filled().len();
                ready!(Pin::new(&mut *connection).poll_read(cx, buf))?;
                let arrived = &mut buf.filled_mut()[start..];
                if arrived.is_empty() {
                    break;
                }
                let passed = parser.pass(arrived);
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
        Pin::new(&mut self.get_mut().connection).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().connection).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_shutdown(cx)
    }
}

#[cfg(feature = "tonic")]
impl<S: tonic::transport::server::Connected> tonic::transport::server::Connected for NormalizeAuthority<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.connection.connect_info()
    }
}

impl HeldBlock {
    fn begin(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.bytes[..bytes.len()].copy_from_slice(bytes);
        self.filled = bytes.len();
    }

    /// Reads towards `wanted` bytes in all and never past them, so that what follows the block reaches the caller uncopied.
    fn poll_fill<S: AsyncRead>(
        &mut self,
        connection: Pin<&mut S>,
        cx: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<io::Result<usize>> {
        self.reserve(wanted);
        let mut space = ReadBuf::new(&mut self.bytes[self.filled..wanted]);
        ready!(connection.poll_read(cx, &mut space))?;
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
            self.bytes.truncate(KEPT_BYTES);
            self.bytes.shrink_to(KEPT_BYTES);
        }
    }

    fn reserve(&mut self, len: usize) {
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
    }
}

/// What stays allocated between blocks: one frame, as nearly all blocks are.
const KEPT_BYTES: usize = 16 * 1024;
