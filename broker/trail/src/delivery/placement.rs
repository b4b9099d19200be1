//! Creates objects only under unused names. If the same object already has the name, it is this trail's own: the answer to an earlier
//! attempt was lost, or the process ended before noting it. Anything else is somebody else's and stays as evidence.

use std::collections::BTreeMap;

use super::{Trail, TrailError};
use crate::digest::sha256_hex;
use crate::reader::gunzip;
use crate::store::{Object, StoreError};

impl Trail {
    /// Stores an object. `text_hash` is the SHA-256 of its uncompressed text, if anybody could have compressed the same text.
    pub(super) async fn put(&self, object: Object, text_hash: Option<&str>) -> Result<(), TrailError> {
        let Object { key, bytes, metadata } = object;
        let stored_hash = sha256_hex(&bytes);
        let put = self.store.put(Object { key: key.clone(), bytes, metadata: metadata.clone() });
        if self.in_time(async { Ok(put.await?) }).await? {
            return Ok(());
        }
        let Some(found) = self.get(&key).await? else {
            let words = format!("{key} is there, and cannot be read: give the broker s3:GetObject, too");
            return Err(StoreError(words).into());
        };
        if is_same(&found, &stored_hash, text_hash, &metadata) {
            tracing::info!(object = key, "already in the store, from an earlier attempt");
            return Ok(());
        }
        tracing::error!(
            object = key,
            "the store has another object under a name that only this broker uses: somebody else writes there; it is left as \
             evidence"
        );
        Err(TrailError::Occupied(key))
    }

    /// Whether exactly these bytes are stored under this key.
    pub(super) async fn is_stored(&self, key: &str, hash: &str) -> Result<bool, TrailError> {
        Ok(self.get(key).await?.is_some_and(|found| sha256_hex(&found.bytes) == hash))
    }

    async fn get(&self, key: &str) -> Result<Option<Object>, TrailError> {
        self.in_time(async { Ok(self.store.get(key).await?) }).await
    }
}

/// Whether both are the same text, which another version of this program may compress differently.
fn is_same(
    found: &Object,
    stored_hash: &str,
    text_hash: Option<&str>,
    metadata: &BTreeMap<String, String>,
) -> bool {
    let is_same_text = |hash: &str| gunzip(&found.bytes).is_ok_and(|text| sha256_hex(&text) == hash);
    let is_same_bytes = sha256_hex(&found.bytes) == stored_hash;
    (is_same_bytes || text_hash.is_some_and(is_same_text)) && found.metadata == *metadata
}
