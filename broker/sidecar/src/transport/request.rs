//! A request being read. Each principal has a share of the bytes of all requests: before a request that is not small is read, it takes
//! its declared length from that share. In a stream each part does, until the next one comes.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::limits::{Share, Taken};
use crate::method::{LARGEST_REQUEST_BYTES, Method};

/// The share that a request has taken, until this is dropped.
pub(super) type RequestBytes = Arc<Mutex<Option<Taken>>>;

/// The body of a request: one gRPC message, or those of a stream.
pub(super) struct RequestBody<B> {
    body: B,
    method: Method,
    share: Arc<Share>,
    bytes: RequestBytes,
    message: MessageOnItsWay,
}

/// The message being read.
#[derive(Default)]
struct MessageOnItsWay {
    /// The bytes of its flag and length that have come.
    prefix: [u8; PREFIX],
    /// The number of bytes that have come, prefix included.
    read: usize,
}

impl<B> RequestBody<B> {
    /// A request of the principal with this share.
    pub(super) fn new(body: B, method: Method, share: Arc<Share>) -> Self {
        Self { body, method, share, bytes: RequestBytes::default(), message: MessageOnItsWay::default() }
    }

    /// Its share, to be held until the call ends.
    pub(super) fn bytes(&self) -> RequestBytes {
        Arc::clone(&self.bytes)
    }

    /// Counts what has come, and takes the share once the length is known.
    fn count(&mut self, mut came: &[u8]) -> Result<(), Status> {
        while !came.is_empty() {
            let missing = PREFIX.saturating_sub(self.message.read).min(came.len());
            let read = self.message.read;
            if missing > 0 {
                self.message.prefix[read..read + missing].copy_from_slice(&came[..missing]);
                self.message.read += missing;
                came.advance(missing);
                if self.message.read == PREFIX {
                    self.take_share()?;
                }
            }
            let Some(length) = self.message.length() else { return Ok(()) };
            if length > self.method.most_request_bytes() {
                // tonic refuses it without reading further.
                return Ok(());
            }
            let rest = PREFIX + length - self.message.read;
            if came.len() < rest {
                self.message.read += came.len();
                return Ok(());
            }
            came.advance(rest);
            if self.method.is_stream() {
                self.message = MessageOnItsWay::default();
            } else {
                self.message.read = PREFIX + length;
                return if came.is_empty() {
                    Ok(())
                } else {
                    Err(Status::invalid_argument("more than one message"))
                };
            }
        }
        Ok(())
    }

    /// Takes a share for the current message, in place of that of the previous one.
    fn take_share(&self) -> Result<(), Status> {
        let Some(length) = self.message.length() else { return Ok(()) };
        if length > self.method.most_request_bytes() {
            return Ok(());
        }
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        // The previous part's share is free again: the part is encrypted or decrypted, or about to be.
        *bytes = None;
        if length > SMALL {
            let taken = match self.method.most_request_bytes() {
                LARGEST_REQUEST_BYTES => self.share.request_bytes(PREFIX + length),
                _ => self.share.message_bytes(PREFIX + length),
            };
            *bytes =
                Some(taken.ok_or_else(|| Status::resource_exhausted("no bytes are left for this request"))?);
        }
        Ok(())
    }
}

impl MessageOnItsWay {
    /// Its length, once that is known.
    fn length(&self) -> Option<usize> {
        let [_, length @ ..] = self.prefix;
        (self.read >= PREFIX).then(|| u32::from_be_bytes(length) as usize)
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

/// The prefix of a gRPC message: a flag, and the length in four bytes.
const PREFIX: usize = 5;
/// Smaller requests take nothing: the number of calls bounds them.
const SMALL: usize = 4 << 10;

#[cfg(test)]
mod tests {
    //! However a request is split, it takes the declared length of its messages, one at a time.

    use std::time::Duration;

    use http_body_util::Empty;
    use key_broker_core::Principal;
    use key_broker_core::clock::SystemClock;
    use proptest::prelude::*;

    use super::*;
    use crate::limits::{Limits, ShareLimits, Shares};

    fn body(method: Method) -> RequestBody<Empty<Bytes>> {
        let share = ShareLimits { connections: 1, calls_in_flight: 1, calls_per_second: None };
        let limits = Limits {
            calls_in_flight: 1,
            connections: 1,
            share,
            default_deadline: Duration::from_secs(1),
            deadline_floor: Duration::ZERO,
            drain: Duration::ZERO,
        };
        let shares = Shares::new(&limits, Arc::new(SystemClock));
        RequestBody::new(Empty::new(), method, shares.of(&Principal::of_uid(1)))
    }

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&u32::try_from(length).expect("short").to_be_bytes());
        bytes.resize(PREFIX + length, 7);
        bytes
    }

    fn has_taken(body: &RequestBody<Empty<Bytes>>) -> bool {
        body.bytes.lock().expect("no panic").is_some()
    }

    proptest! {
        #[test]
        fn a_stream_of_any_messages_in_any_pieces_is_taken(
            lengths in prop::collection::vec(0_usize..9_000, 1..6),
            pieces in prop::collection::vec(1_usize..3_000, 1..40),
        ) {
            let all: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
            let mut body = body(Method::EncryptMessageStream);
            let (mut rest, mut pieces) = (&all[..], pieces.iter().cycle());
            while !rest.is_empty() {
                let next = (*pieces.next().expect("endless")).min(rest.len());
                prop_assert!(body.count(&rest[..next]).is_ok());
                rest = &rest[next..];
            }
            prop_assert_eq!(body.message.read, 0, "all are whole");
            prop_assert_eq!(has_taken(&body), *lengths.last().expect("some") > SMALL);
        }

        #[test]
        fn one_message_is_taken_and_not_a_byte_more(length in 0_usize..9_000, cut in 0_usize..9_000) {
            let all = message(length);
            let cut = cut.min(all.len());
            let mut body = body(Method::Decrypt);
            prop_assert!(body.count(&all[..cut]).is_ok() && body.count(&all[cut..]).is_ok());
            prop_assert_eq!(has_taken(&body), length > SMALL);
            prop_assert!(body.count(&[0]).is_err());
        }
    }
}
