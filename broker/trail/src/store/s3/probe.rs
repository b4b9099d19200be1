//! Tries whether the bucket accepts objects, with one outside of the folders that readers of the trail read.

use aws_sdk_s3::error::{ProvideErrorMetadata as _, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ServerSideEncryption as Algorithm;

use super::{S3Store, StoreError};

impl S3Store {
    /// Puts an object unless it is there: S3 looks at the permission first, so that both answers show it. Nothing else is written, nor
    /// removed.
    pub(crate) async fn probe(&self, key: &str) -> Result<(), StoreError> {
        let mut put = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .if_none_match("*")
            .content_type("text/plain")
            .body(ByteStream::from_static(b"key-broker check --write\n"));
        if let Some(encryption) = &self.encryption {
            put = put
                .server_side_encryption(Algorithm::AwsKms)
                .ssekms_key_id(&encryption.key)
                .ssekms_encryption_context(&encryption.context);
        }
        match put.send().await {
            Ok(_) => Ok(()),
            Err(SdkError::ServiceError(refused))
                if matches!(
                    refused.err().code(),
                    Some("PreconditionFailed" | "ConditionalRequestConflict")
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(self.explain("PutObject", &error)),
        }
    }
}
