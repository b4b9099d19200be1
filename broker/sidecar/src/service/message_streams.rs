//! The streams of EncryptMessage and DecryptMessage. Each part of the request is processed and answered before the next is read, so
//! that memory does not grow with the message.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::try_unfold;
use key_broker_core::{DeclaredUse, Reuse};
use key_broker_envelope::{BodyOpener, Header, HeaderReader, Sealer};
use key_broker_proto::v1 as pb;
use key_broker_proto::v1::decrypt_message_stream_request::Part as DecryptPart;
use key_broker_proto::v1::encrypt_message_stream_request::Part as EncryptPart;
use key_broker_trail::record::MessageData;
use tonic::codegen::BoxStream;
use tonic::{Code, Status, Streaming};
use uuid::Uuid;

use super::{Service, WorkloadCall, message_format, wire};
use crate::audit::RecordBuilder;
use crate::error::BrokerError;

/// The state of a message that is being encrypted.
struct Encryption {
    parts: Streaming<pb::EncryptMessageStreamRequest>,
    /// `None` once the message has ended.
    sealer: Option<Sealer<Vec<u8>>>,
    declared: Option<u64>,
    plaintext_length: u64,
    first: Option<pb::EncryptMessageStreamResponse>,
    end: StreamEnd,
}

/// The state of a message that is being decrypted.
struct Decryption {
    parts: Streaming<pb::DecryptMessageStreamRequest>,
    /// `None` once the message has ended.
    body: Option<BodyOpener>,
    length: u64,
    plaintext_length: u64,
    /// The bytes behind the header in the part that completed it.
    begun: Option<Bytes>,
    first: Option<pb::DecryptMessageStreamResponse>,
    end: StreamEnd,
}

/// Records how a stream ends.
struct StreamEnd {
    record: RecordBuilder,
    request_id: Uuid,
}

impl Service {
    /// `EncryptMessageStream`.
    pub(super) async fn encrypt_message_stream(
        &self,
        call: &WorkloadCall,
        mut parts: Streaming<pb::EncryptMessageStreamRequest>,
    ) -> Result<BoxStream<pb::EncryptMessageStreamResponse>, BrokerError> {
        call.refuse_enclaves()?;
        let Some(EncryptPart::Start(start)) = next_part(&mut parts, |request| request.part).await? else {
            return Err(no_start());
        };
        let (request, declared, reuse) = wire::encrypt_message_start(start)?;
        if declared.is_none() {
            call.record.is_of_any_length();
        }
        let used = DeclaredUse { messages: 1, bytes: declared.unwrap_or_default() };
        // A use that is not declared cannot be charged to a shared data key.
        let reuse = Reuse { fresh: reuse.fresh || declared.is_none(), ..reuse };
        let (request, data_key, source) = self.data_key_for_message(call, request, used, reuse).await?;
        let sealer = message_format::sealer(&data_key, &request.data_key().context)?;
        let facts = message_format::facts(&sealer.facts());
        call.record.message(MessageData {
            length: declared.map(|declared| sealer.message_length(declared)),
            plaintext_length: declared,
            ..facts.clone()
        });
        let encryption = Encryption {
            parts,
            sealer: Some(sealer),
            declared,
            plaintext_length: 0,
            first: Some(wire::encrypted_message_start(&data_key, &source)),
            end: StreamEnd::of(call, facts),
        };
        Ok(Box::pin(try_unfold(encryption, Encryption::next)))
    }

    /// `DecryptMessageStream`.
    pub(super) async fn decrypt_message_stream(
        &self,
        call: &WorkloadCall,
        mut parts: Streaming<pb::DecryptMessageStreamRequest>,
    ) -> Result<BoxStream<pb::DecryptMessageStreamResponse>, BrokerError> {
        call.refuse_enclaves()?;
        let Some(DecryptPart::Start(start)) = next_part(&mut parts, |request| request.part).await? else {
            return Err(no_start());
        };
        let (expected, takes_signed) = wire::decrypt_message_start(start)?;
        let (header, begun) = read_header(&mut parts).await?;
        let header_facts = header.facts();
        let facts = message_format::facts(&header_facts);
        call.record.message(facts.clone());
        self.check_message(&header, &expected, takes_signed)?;
        let key = self.data_key_of_message(call, &header, &expected, 0).await?;
        let first = wire::decrypted_message_start(&header.callers_context(), key.key.subject(), &key.source);
        let body = header.open_body(&key.decryption()?.plaintext, MOST_UNFRAMED_BYTES);
        let decryption = Decryption {
            parts,
            body: Some(body.map_err(|error| message_format::refused(&error))?),
            length: header_facts.length as u64,
            plaintext_length: 0,
            begun: Some(begun),
            first: Some(first),
            end: StreamEnd::of(call, facts),
        };
        Ok(Box::pin(try_unfold(decryption, Decryption::next)))
    }
}

impl Encryption {
    async fn next(mut self) -> Result<Option<(pb::EncryptMessageStreamResponse, Self)>, Status> {
        if let Some(first) = self.first.take() {
            return Ok(Some((first, self)));
        }
        match self.next_bytes().await {
            Ok(Some(message)) => {
                let part = pb::EncryptMessageStreamResponse { message, ..Default::default() };
                Ok(Some((part, self)))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(self.end.refused(&error)),
        }
    }

    /// More of the message; `None` after its end.
    async fn next_bytes(&mut self) -> Result<Option<Bytes>, BrokerError> {
        let Some(mut sealer) = self.sealer.take() else { return Ok(None) };
        loop {
            let plaintext = match next_part(&mut self.parts, |request| request.part).await? {
                Some(EncryptPart::Plaintext(plaintext)) => plaintext,
                Some(EncryptPart::Start(_)) => return Err(second_start()),
                None => break,
            };
            let length = self.plaintext_length.saturating_add(plaintext.len() as u64);
            if let Some(declared) = self.declared.filter(|declared| length > *declared) {
                return Err(other_length(declared));
            }
            for piece in plaintext.chunks(TURN) {
                // Only messages of more than 16 TiB fail.
                sealer.write_all(piece).map_err(|_| BrokerError::Bug)?;
                tokio::task::yield_now().await;
            }
            self.plaintext_length = length;
            self.end.record.passed(sealer.written(), length);
            let message = std::mem::take(sealer.writer_mut());
            if !message.is_empty() {
                self.sealer = Some(sealer);
                return Ok(Some(message.into()));
            }
        }
        if let Some(declared) = self.declared.filter(|declared| self.plaintext_length != *declared) {
            return Err(other_length(declared));
        }
        let message_length = sealer.message_length(self.plaintext_length);
        let rest = sealer.finish().map_err(|_| BrokerError::Bug)?;
        self.end.record.passed(message_length, self.plaintext_length);
        self.end.record.allowed();
        Ok(Some(rest.into()))
    }
}

impl Decryption {
    async fn next(mut self) -> Result<Option<(pb::DecryptMessageStreamResponse, Self)>, Status> {
        if let Some(first) = self.first.take() {
            return Ok(Some((first, self)));
        }
        match self.next_bytes().await {
            Ok(Some(plaintext)) => {
                self.plaintext_length = self.plaintext_length.saturating_add(plaintext.len() as u64);
                self.end.record.passed(self.length, self.plaintext_length);
                let part = pb::DecryptMessageStreamResponse { plaintext, ..Default::default() };
                Ok(Some((part, self)))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(self.end.refused(&error)),
        }
    }

    /// More of the plaintext; `None` after its end.
    async fn next_bytes(&mut self) -> Result<Option<Bytes>, BrokerError> {
        let Some(mut body) = self.body.take() else { return Ok(None) };
        loop {
            let message = match self.begun.take() {
                Some(begun) => begun,
                None => match next_part(&mut self.parts, |request| request.part).await? {
                    Some(DecryptPart::Message(message)) => message,
                    Some(DecryptPart::Start(_)) => return Err(second_start()),
                    None => break,
                },
            };
            self.length = self.length.saturating_add(message.len() as u64);
            let plaintext = body.push(&message).map_err(|error| message_format::refused(&error))?;
            tokio::task::yield_now().await;
            if !plaintext.is_empty() {
                self.body = Some(body);
                return Ok(Some(Bytes::from_owner(plaintext)));
            }
        }
        let rest = body.finish().map_err(|error| message_format::refused(&error))?;
        self.end.record.allowed();
        Ok(Some(Bytes::from_owner(rest)))
    }
}

impl StreamEnd {
    /// The last record of a stream, after the first one, which is the call's.
    fn of(call: &WorkloadCall, facts: MessageData<'static>) -> Self {
        let record = call.record.begin_stream();
        record.message(MessageData { length: Some(0), plaintext_length: Some(0), ..facts });
        Self { record, request_id: call.request_id }
    }

    fn refused(&self, error: &BrokerError) -> Status {
        self.record.refused(error);
        wire::status(error, self.request_id)
    }
}

/// Reads parts until the header is complete, and returns what follows it in the last part.
async fn read_header(
    parts: &mut Streaming<pb::DecryptMessageStreamRequest>,
) -> Result<(Header, Bytes), BrokerError> {
    let mut reader = HeaderReader::default();
    loop {
        let message = match next_part(parts, |request| request.part).await? {
            Some(DecryptPart::Message(message)) => message,
            Some(DecryptPart::Start(_)) => return Err(second_start()),
            None => return Err(message_format::refused(&key_broker_envelope::OpenError::CutOff(0))),
        };
        let mut rest = &message[..];
        let header = reader.push(&mut rest).map_err(|error| message_format::refused(&error))?;
        if let Some(header) = header {
            let begun = message.slice(message.len() - rest.len()..);
            return Ok((header, begun));
        }
    }
}

/// The next part of a stream; `None` if the caller has closed its side.
async fn next_part<R, P>(
    parts: &mut Streaming<R>,
    part: impl FnOnce(R) -> Option<P>,
) -> Result<Option<P>, BrokerError> {
    let came = tokio::time::timeout(LONGEST_PAUSE, parts.message()).await;
    match came.map_err(|_| BrokerError::DeadlineExceeded)?.map_err(|status| unread(&status))? {
        Some(request) => part(request).map(Some).ok_or_else(|| {
            BrokerError::Rejected("a request of the stream has no part: give start first, then bytes".into())
        }),
        None => Ok(None),
    }
}

/// The reason why tonic could not read a part.
fn unread(status: &Status) -> BrokerError {
    match status.code() {
        Code::OutOfRange => BrokerError::Rejected(
            "a part of the stream is longer than 524,288 bytes: send shorter ones, of 65,536 bytes".into(),
        ),
        Code::ResourceExhausted => BrokerError::TooManyOwnBytes,
        Code::Unimplemented => BrokerError::Compressed,
        Code::Internal | Code::InvalidArgument => BrokerError::Rejected(
            "a part of the stream cannot be read: send protobuf messages, as the contract in proto/keybroker has them".into(),
        ),
        _ => BrokerError::Cancelled,
    }
}

fn no_start() -> BrokerError {
    BrokerError::Rejected("the first request of the stream is not a start: send one before any bytes".into())
}

fn second_start() -> BrokerError {
    BrokerError::Rejected("a stream has one start: open another stream for another message".into())
}

fn other_length(declared: u64) -> BrokerError {
    BrokerError::Rejected(
        format!(
            "plaintext_length is {declared}, but another number of bytes came: declare what comes, or nothing"
        )
        .into(),
    )
}

/// How many bytes are processed before other calls get their turn.
const TURN: usize = 64 << 10;
/// Unframed content is held in memory. Longer content goes through DecryptMessage, up to that method's limit.
const MOST_UNFRAMED_BYTES: u64 = 1 << 20;
/// A caller that is silent for longer occupies a call slot that another could use.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
