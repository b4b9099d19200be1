//! The gRPC contract of key-broker, generated from `proto/`; the API reference is in the comments of the .proto files.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::BufferSettings;
use tonic_prost::{ProstDecoder, ProstEncoder};

/// Package `keybroker.v1`: the service that workloads call.
pub mod v1 {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::pedantic,
        rustdoc::bare_urls,
        reason = "generated code"
    )]
    tonic::include_proto!("keybroker.v1");
}

/// The operator's side, on a socket of its own.
pub mod admin {
    /// Package `keybroker.admin.v1`: what the broker keeps, and how to make it forget.
    pub mod v1 {
        #![allow(
            missing_docs,
            unreachable_pub,
            clippy::all,
            clippy::pedantic,
            rustdoc::bare_urls,
            reason = "generated code"
        )]
        tonic::include_proto!("keybroker.admin.v1");
    }
}

/// Protobuf on the wire, as tonic-prost has it, in buffers of the size of usual messages.
///
/// tonic allocates one buffer to read a message and one to write a message, by default of 8 KiB each: more than an allocator
/// has at hand, and the broker wipes what it frees. Longer messages still get what they need.
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(buffers())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(buffers())
    }
}

fn buffers() -> BufferSettings {
    BufferSettings::new(MESSAGE_BYTES, YIELD_AT_BYTES)
}

/// A data key with its provenance has half of this.
const MESSAGE_BYTES: usize = 1 << 10;
/// Of streams, tonic's default: parts are long, and each is sent when it is there.
const YIELD_AT_BYTES: usize = 32 << 10;

/// The descriptors of every file of the contract, for gRPC server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/keybroker.binpb"));

/// The domain of a `google.rpc.ErrorInfo` when AWS KMS gave the answer.
pub const DOMAIN_KMS: &str = "kms.amazonaws.com";
/// The domain of a `google.rpc.ErrorInfo` when the broker itself refused or failed.
pub const DOMAIN_BROKER: &str = "keybroker";
/// The key in `ErrorInfo.metadata` with the broker's own request id.
pub const METADATA_REQUEST_ID: &str = "requestID";
/// The key in `ErrorInfo.metadata` with the requestID of the KMS answer.
pub const METADATA_KMS_REQUEST_ID: &str = "kmsRequestID";
/// Response metadata: the broker's own request id, which the activity record carries as `requestID`.
pub const HEADER_REQUEST_ID: &str = "x-request-id";
/// Response metadata: the KMS requestID behind the reply, as AWS CloudTrail has it.
pub const HEADER_KMS_REQUEST_ID: &str = "x-amzn-requestid";

// `Debug` of the messages that hold plaintext, which leaves it out: see build.rs.
include!(concat!(env!("OUT_DIR"), "/debug.rs"));

#[cfg(test)]
mod tests {
    //! A reply that carries key material cannot be printed.

    use super::v1;
    use super::v1::encrypt_message_stream_request::Part;

    #[test]
    fn debug_leaves_key_material_out() {
        let plaintext = bytes::Bytes::from_static(b"SECRET-MARKER");
        let shown = [
            format!(
                "{:?}",
                v1::GenerateDataKeyResponse { plaintext: plaintext.clone(), ..Default::default() }
            ),
            format!("{:?}", v1::DecryptResponse { plaintext: plaintext.clone(), ..Default::default() }),
            format!(
                "{:?}",
                v1::GenerateRandomResponse { plaintext: plaintext.clone(), ..Default::default() }
            ),
            format!("{:?}", v1::EncryptMessageRequest { plaintext: plaintext.clone(), ..Default::default() }),
            format!(
                "{:?}",
                v1::EncryptMessageStreamRequest { part: Some(Part::Plaintext(plaintext.clone())) }
            ),
            format!("{:?}", v1::DecryptMessageStreamResponse { plaintext, ..Default::default() }),
        ];
        assert_eq!(format!("{:?}", Part::Plaintext("SECRET-MARKER".into())), "Part");
        for text in shown {
            assert!(
                text.ends_with(".. }") && !text.contains("SECRET") && !text.contains("plaintext"),
                "{text}"
            );
        }
    }
}
