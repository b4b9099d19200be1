//! Ids and times in records as numbers.

use std::collections::{HashMap, HashSet};

use foldhash::quality::RandomState;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::record::parse_record_time;

/// A map by id. The hash key is random, so those who write ids cannot provoke collisions.
pub(super) type IdMap<T> = HashMap<u128, T, RandomState>;
pub(super) type IdSet = HashSet<u128, RandomState>;

/// A call to KMS by requestID and operation, since one requestID may belong to several operations.
pub(super) fn kms_request(request_id: &str, event_name: &str) -> u128 {
    let hash = Sha256::new().chain_update(event_name).chain_update([0]).chain_update(request_id).finalize();
    u128::from_be_bytes(*hash.first_chunk().expect("32 bytes"))
}

/// Parses `YYYY-MM-DDTHH:MM:SSZ` into seconds since 1970.
pub(super) fn seconds(text: &str) -> Option<i64> {
    parse_record_time(text).map(OffsetDateTime::unix_timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_id_stands_for_several_operations() {
        assert_ne!(kms_request("a", "Decrypt"), kms_request("a", "Sign"));
    }
}
