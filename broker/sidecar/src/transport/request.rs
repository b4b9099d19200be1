//! A request on its way in: its principal has a share of the bytes of all requests, and a request that is not small takes as much of it
//! as it says that it is long, before it is read.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::limits::{MAX_REQUEST_BYTES, Share, Taken};

/// The bytes that a request has taken, until this is dropped.
pub(super) type RequestBytes = Arc<OnceLock<Taken>>;

/// The body of a request: one gRPC message.
pub(super) struct RequestBody<B> {
    body: B,
    share: Arc<Share>,
    bytes: RequestBytes,
    /// The message's flag and length, as far as they are there.
    prefix: [u8; PREFIX],
    read: usize,
}

impl<B> RequestBody<B> {
    /// The request of whoever has this share.
    pub(super) fn new(body: B, share: Arc<Share>) -> Self {
        Self { body, share, bytes: RequestBytes::default(), prefix: [0; PREFIX], read: 0 }
    }

    /// What it takes, to be held for as long as the call goes on.
    pub(super) fn bytes(&self) -> RequestBytes {
        Arc::clone(&self.bytes)
    }

    /// Counts what has come, and takes its share once its length is known.
    fn count(&mut self, came: &[u8]) -> Result<(), Status> {
        let had_prefix = self.read >= PREFIX;
        for (place, byte) in (self.read..PREFIX).zip(came) {
            self.prefix[place] = *byte;
        }
        self.read = self.read.saturating_add(came.len());
        if self.read < PREFIX {
            return Ok(());
        }
        let [_, length @ ..] = self.prefix;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_REQUEST_BYTES {
            // tonic refuses it before it reads on.
            return Ok(());
        }
        if !had_prefix && length > SMALL {
            let taken = self.share.request_bytes(PREFIX + length);
            let taken =
                taken.ok_or_else(|| Status::resource_exhausted("no bytes are left for this request"))?;
            let _ = self.bytes.set(taken);
        }
        if self.read > PREFIX + length {
            return Err(Status::invalid_argument("more than one message"));
        }
        Ok(())
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for RequestBody<B>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        Pin::new(&mut this.body).poll_frame(cx).map(|frame| {
            Some(match frame? {
                Ok(frame) => match frame.data_ref().map(|came| this.count(came)) {
                    Some(Err(status)) => Err(status.into()),
                    _ => Ok(frame),
                },
                Err(error) => Err(error.into()),
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Of a gRPC message: a flag, and its length in four bytes.
const PREFIX: usize = 5;
/// What is smaller takes nothing: the number of calls bounds it.
const SMALL: usize = 4 << 10;
