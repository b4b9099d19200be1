//! An S3 bucket as a store. S3 does the encryption under a KMS key (SSE-KMS), as for CloudTrail.

mod probe;

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::{AppName, BehaviorVersion, Region};
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{IdentityCache, SharedCredentialsProvider};
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ServerSideEncryption as Algorithm;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

use super::{MAX_OBJECT_BYTES, Object, Store, StoreError};
use crate::encryption_context::TRAIL_ARN;

/// Which bucket, and how to reach it.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// Its name.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// S3's address, if not AWS's own: a VPC endpoint, or another program that speaks S3.
    pub endpoint_url: Option<String>,
    /// Whose credentials are taken, at each request anew; none takes those of the SDK's default chain.
    pub credentials: Option<SharedCredentialsProvider>,
}

/// SSE-KMS: the key, and what its uses are bound to beside the object.
#[derive(Debug, Clone)]
pub(crate) struct ServerSideEncryption {
    key: String,
    /// As S3's API takes it: base64 of JSON.
    context: String,
}

impl ServerSideEncryption {
    /// Under `key`, with the trail in the encryption context. S3 adds the object.
    #[must_use]
    pub(crate) fn new(key: &str, trail_arn: &str) -> Self {
        let context = serde_json::json!({ TRAIL_ARN: trail_arn }).to_string();
        Self { key: key.to_owned(), context: BASE64.encode(context) }
    }
}

/// A bucket.
pub(crate) struct S3Store {
    client: aws_sdk_s3::Client,
    bucket: String,
    encryption: Option<ServerSideEncryption>,
}

impl S3Store {
    /// Sets the SDK up.
    pub(crate) async fn new(settings: &S3Settings, encryption: Option<ServerSideEncryption>) -> Self {
        let mut loader =
            aws_config::defaults(BehaviorVersion::latest()).region(Region::new(settings.region.clone()));
        if let Ok(name) = AppName::new("key-broker") {
            loader = loader.app_name(name);
        }
        if let Some(credentials) = &settings.credentials {
            // They are kept, and renewed, where they come from.
            loader =
                loader.credentials_provider(credentials.clone()).identity_cache(IdentityCache::no_cache());
        }
        // Without these, one answer that never comes would end the delivery.
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .operation_attempt_timeout(ATTEMPT)
            .operation_timeout(OPERATION);
        let loader = loader.timeout_config(timeouts.build());
        let mut config = aws_sdk_s3::config::Builder::from(&loader.load().await);
        if let Some(url) = &settings.endpoint_url {
            // Whoever else speaks S3 has no names for buckets in the DNS.
            config = config.endpoint_url(url).force_path_style(true);
        }
        let client = aws_sdk_s3::Client::from_conf(config.build());
        Self { client, bucket: settings.bucket.clone(), encryption }
    }

    fn explain<E>(&self, what: &str, error: &SdkError<E>) -> StoreError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        StoreError(format!("S3: {what} in bucket {}: {}", self.bucket, DisplayErrorContext(error)))
    }
}

#[async_trait]
impl Store for S3Store {
    async fn put(&self, object: Object) -> Result<bool, StoreError> {
        let Object { key, bytes, metadata } = object;
        let (bytes, metadata) = (Bytes::from(bytes), metadata.into_iter().collect::<HashMap<_, _>>());
        let mut conflicts = 0;
        loop {
            let mut put = self
                .client
                .put_object()
                .bucket(&self.bucket)
                .key(&key)
                // Only where nothing is: two brokers, or two attempts of one, never replace what is delivered.
                .if_none_match("*")
                // As CloudTrail's own objects.
                .content_type("application/json")
                .content_encoding("gzip")
                .set_metadata(Some(metadata.clone()))
                .body(ByteStream::from(bytes.clone()));
            if let Some(encryption) = &self.encryption {
                put = put
                    .server_side_encryption(Algorithm::AwsKms)
                    .ssekms_key_id(&encryption.key)
                    .ssekms_encryption_context(&encryption.context);
            }
            let Err(error) = put.send().await else { return Ok(true) };
            match error.raw_response().map(|answer| answer.status().as_u16()) {
                Some(PRECONDITION_FAILED) => return Ok(false),
                // Another request about this key is under way: which of them comes first, the next attempt tells.
                Some(CONFLICT) if conflicts < MOST_CONFLICTS => {
                    conflicts += 1;
                    tokio::time::sleep(CONFLICT_PAUSE * conflicts).await;
                }
                _ => return Err(self.explain("PutObject", &error)),
            }
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        let got = match self.client.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(got) => got,
            Err(error) if error.as_service_error().is_some_and(GetObjectError::is_no_such_key) => {
                return Ok(None);
            }
            Err(error) => return Err(self.explain("GetObject", &error)),
        };
        if got.content_length.is_some_and(|length| u64::try_from(length).is_ok_and(|n| n > MAX_OBJECT_BYTES))
        {
            return Err(StoreError(format!("S3: {key} has more than {MAX_OBJECT_BYTES} bytes")));
        }
        let metadata = got.metadata.unwrap_or_default().into_iter().collect();
        let bytes = got.body.collect().await.map_err(|error| {
            StoreError(format!("S3: the answer to GetObject of {key} broke off: {error}"))
        })?;
        Ok(Some(Object { key: key.to_owned(), bytes: bytes.into_bytes().to_vec(), metadata }))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut keys = Vec::new();
        let mut pages =
            self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.explain("ListObjectsV2", &error))?;
            keys.extend(page.contents.unwrap_or_default().into_iter().filter_map(|object| object.key));
        }
        // S3 lists in the order of bytes; others may not.
        keys.sort();
        Ok(keys)
    }
}

/// S3's answers to a put where nothing may be
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html>): something is there.
const PRECONDITION_FAILED: u16 = 412;
/// Something else is being done with the key.
const CONFLICT: u16 = 409;
const MOST_CONFLICTS: u32 = 5;
const CONFLICT_PAUSE: Duration = Duration::from_millis(100);
const CONNECT: Duration = Duration::from_secs(3);
/// A log file has a few megabytes, compressed: ample on a slow line.
const ATTEMPT: Duration = Duration::from_mins(1);
/// Three attempts, and pauses between them.
const OPERATION: Duration = Duration::from_secs(200);
