//! The gRPC contract of key-broker, generated from `proto/`; the API reference is in the comments of the .proto files.

use std::fmt;

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

impl fmt::Debug for v1::GenerateDataKeyResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerateDataKeyResponse")
            .field("key_id", &self.key_id)
            .field("key_material_id", &self.key_material_id)
            .field("provenance", &self.provenance)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::DecryptResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecryptResponse")
            .field("key_id", &self.key_id)
            .field("key_material_id", &self.key_material_id)
            .field("provenance", &self.provenance)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::GenerateRandomResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerateRandomResponse").field("provenance", &self.provenance).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    //! A reply that carries key material cannot be printed.

    use super::v1;

    #[test]
    fn debug_leaves_key_material_out() {
        let plaintext = bytes::Bytes::from_static(b"SECRET-MARKER");
        let shown = [
            format!(
                "{:?}",
                v1::GenerateDataKeyResponse { plaintext: plaintext.clone(), ..Default::default() }
            ),
            format!("{:?}", v1::DecryptResponse { plaintext: plaintext.clone(), ..Default::default() }),
            format!("{:?}", v1::GenerateRandomResponse { plaintext, ..Default::default() }),
        ];
        for text in shown {
            assert!(
                text.ends_with(".. }") && !text.contains("SECRET") && !text.contains("plaintext"),
                "{text}"
            );
        }
    }
}
