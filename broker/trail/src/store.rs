//! The store of a trail: a directory or an S3 bucket. Objects have a key, bytes and metadata, as in S3.

pub(crate) mod directory;
pub(crate) mod s3;

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;

/// A place for objects, which are never replaced. When a put returns, it has either happened, completely and durably, or can be
/// repeated.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Stores an object if its key is free. False if another object is there, which stays as it is.
    async fn put(&self, object: Object) -> Result<bool, StoreError>;

    /// The object with this key, if there is one. More than `MAX_OBJECT_BYTES` are refused without reading on, since anybody with access
    /// to the store may put anything there.
    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError>;

    /// The keys that begin with `prefix`, sorted.
    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError>;
}

/// An object as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name in the bucket.
    pub(crate) key: String,
    /// Its contents.
    pub bytes: Vec<u8>,
    /// Names and values beside it: S3's user metadata.
    pub(crate) metadata: BTreeMap<String, String>,
}

/// A failed request to a store; trying again may help.
#[derive(Debug)]
pub struct StoreError(pub String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StoreError {}

/// Far more than any object of a trail: an uncompressed log file has at most 50 MB, whatever is configured.
pub(crate) const MAX_OBJECT_BYTES: u64 = 64 << 20;
