//! Where a trail is delivered: a directory or an S3 bucket. Objects have a key, bytes and metadata, as in S3.

pub(crate) mod directory;
pub(crate) mod s3;

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;

/// A place for objects, of which none is ever replaced. A put either has happened, whole and durably, when it returns, or can be tried
/// again.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Stores an object where none is of its key. False if one is there, whosever it is: that one stays as it is.
    async fn put(&self, object: Object) -> Result<bool, StoreError>;

    /// An object; none if there is none of this key. One of more than `MAX_OBJECT_BYTES` is refused without reading on: who
    /// writes into a store may put anything there.
    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError>;

    /// The keys that begin with `prefix`, in their order.
    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError>;
}

/// An object as it lies in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name in the bucket.
    pub(crate) key: String,
    /// What it holds.
    pub bytes: Vec<u8>,
    /// Names and values beside it: S3's user metadata.
    pub(crate) metadata: BTreeMap<String, String>,
}

/// A store cannot do what it was asked; trying again may help.
#[derive(Debug)]
pub struct StoreError(pub String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StoreError {}

/// No object of a trail comes near: a log file has 50 MB at most before it is compressed, whatever is configured.
pub(crate) const MAX_OBJECT_BYTES: u64 = 64 << 20;
