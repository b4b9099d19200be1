//! A reply being written: its stream counts as open until the last piece is on the connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::progress::{OpenStream, UnwrittenPiece};

/// The body of a reply.
pub(super) struct Reply {
    body: Body,
    stream: Arc<OpenStream>,
}

/// A piece of a reply, which HTTP/2 drops once it is written.
pub(super) struct Piece {
    bytes: Bytes,
    _unwritten: UnwrittenPiece,
}

impl Reply {
    /// The reply to the request on `stream`.
    pub(super) fn new(body: Body, stream: Arc<OpenStream>) -> Self {
        Self { body, stream }
    }
}

impl http_body::Body for Reply {
    type Data = Piece;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Status>>> {
        let this = &mut *self;
        Pin::new(&mut this.body)
            .poll_frame(cx)
            .map_ok(|frame| frame.map_data(|bytes| Piece { bytes, _unwritten: this.stream.piece() }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, written: usize) {
        self.bytes.advance(written);
    }
}
