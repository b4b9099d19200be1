//! Encrypts and decrypts messages in parts, in constant memory.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use key_broker_proto::v1 as pb;
use key_broker_proto::v1::decrypt_message_stream_request::Part as DecryptPart;
use key_broker_proto::v1::encrypt_message_stream_request::Part as EncryptPart;
use tonic::Streaming;

use crate::{Client, DecryptMessage, EncryptMessage, Error, Plaintext, Provenance};

/// A message that is being encrypted: read it to its end, which proves that it is whole.
pub struct EncryptedStream {
    parts: Streaming<pb::EncryptMessageStreamResponse>,
    /// The ARN of the KMS key.
    pub key_id: String,
    /// The KMS call behind its data key, and how far that key has been used.
    pub provenance: Provenance,
}

/// A message that is being decrypted. Each part is authentic, but only the end proves that the message is whole.
pub struct DecryptedStream {
    parts: Streaming<pb::DecryptMessageStreamResponse>,
    /// All of the message's encryption context, authentic.
    pub encryption_context: BTreeMap<String, String>,
    /// The ARN of the KMS key.
    pub key_id: String,
    /// The KMS call behind its data key, and how far that key has been used.
    pub provenance: Provenance,
}

impl Client {
    /// Encrypts a message of any length, in parts of up to 524,288 bytes; 65,536 is a good length. Where `plaintext_length` is given, its
    /// data key may be one that other messages have; otherwise it is the message's own. The client's deadline is not set: it is an hour.
    pub async fn encrypt_message_stream(
        &self,
        request: &EncryptMessage,
        plaintext_length: Option<u64>,
        plaintext: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<EncryptedStream, Error> {
        let start = stream::iter([EncryptPart::Start(request.start(plaintext_length))]);
        let parts = start.chain(plaintext.map(EncryptPart::Plaintext));
        let parts = parts.map(|part| pb::EncryptMessageStreamRequest { part: Some(part) });
        let mut parts = self.broker.clone().encrypt_message_stream(parts).await?.into_inner();
        let first = parts.message().await?.unwrap_or_default();
        Ok(EncryptedStream { parts, key_id: first.key_id, provenance: first.provenance.into() })
    }

    /// Decrypts a message of any length, in parts as it was encrypted. Signed messages are refused unless `release_before_signature`: then
    /// nothing may be used before the stream has come to its end.
    pub async fn decrypt_message_stream(
        &self,
        request: &DecryptMessage,
        release_before_signature: bool,
        message: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<DecryptedStream, Error> {
        let start = stream::iter([DecryptPart::Start(request.start(release_before_signature))]);
        let parts = start.chain(message.map(DecryptPart::Message));
        let parts = parts.map(|part| pb::DecryptMessageStreamRequest { part: Some(part) });
        let mut parts = self.broker.clone().decrypt_message_stream(parts).await?.into_inner();
        let first = parts.message().await?.unwrap_or_default();
        Ok(DecryptedStream {
            parts,
            encryption_context: first.encryption_context,
            key_id: first.key_id,
            provenance: first.provenance.into(),
        })
    }
}

impl EncryptedStream {
    /// The next bytes of the message; none at its end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        Ok(self.parts.message().await?.map(|part| part.message))
    }
}

impl DecryptedStream {
    /// The next bytes of the plaintext; none at its end.
    pub async fn next(&mut self) -> Result<Option<Plaintext>, Error> {
        Ok(self.parts.message().await?.map(|part| part.plaintext.into()))
    }
}
