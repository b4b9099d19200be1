//! Ids and times out of records, as numbers.

use sha2::{Digest as _, Sha256};
use time::{Date, Month};
use uuid::Uuid;

/// A UUID as records have it: lower case, with dashes.
pub(super) fn uuid(text: &str) -> Option<u128> {
    if text.len() != 36 || text.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    Uuid::try_parse(text).ok().map(|id| id.as_u128())
}

/// A call to KMS by its requestID and operation: one requestID may stand for several operations.
pub(super) fn kms_request(request_id: &str, event_name: &str) -> u128 {
    let hash = Sha256::new().chain_update(event_name).chain_update([0]).chain_update(request_id).finalize();
    u128::from_be_bytes(*hash.first_chunk().expect("32 bytes"))
}

/// Seconds since 1970 of `YYYY-MM-DDTHH:MM:SSZ`.
pub(super) fn seconds(text: &str) -> Option<i64> {
    let bytes: &[u8; 20] = text.as_bytes().try_into().ok()?;
    let signs = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')];
    if signs.iter().any(|(at, sign)| bytes[*at] != *sign) {
        return None;
    }
    let number = |from: usize, to: usize| {
        bytes[from..to]
            .iter()
            .try_fold(0_i32, |n, b| b.is_ascii_digit().then(|| n * 10 + i32::from(b - b'0')))
    };
    let small = |from: usize| number(from, from + 2).and_then(|n| u8::try_from(n).ok());
    let date = Date::from_calendar_date(number(0, 4)?, Month::try_from(small(5)?).ok()?, small(8)?).ok()?;
    let moment = date.with_hms(small(11)?, small(14)?, small(17)?).ok()?;
    Some(moment.assume_utc().unix_timestamp())
}

#[cfg(test)]
mod tests {
    //! Only the one form of ids and times that records have is read, and read right.

    use time::OffsetDateTime;

    use super::*;
    use crate::audit::record::record_time;

    #[test]
    fn times_read_back_and_other_forms_do_not() {
        for at in [0, 951_827_696, 1_709_164_800, 4_102_444_799] {
            let text = record_time(OffsetDateTime::from_unix_timestamp(at).expect("a moment"));
            assert_eq!(seconds(&text), Some(at), "{text}");
        }
        for bad in [
            "2026-11-21T10:57:07",
            "2026-11-21 10:57:07Z",
            "2026-11-21T10:57:07z",
            "2026-02-29T10:57:07Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T10:57:0éZ",
            "+026-11-21T10:57:07Z",
            "",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn ids_have_one_form() {
        let id = "a09a27e7-d32b-40d4-b6b9-948ac0d141a9";
        assert_eq!(uuid(id).map(Uuid::from_u128).map(|id| id.to_string()).as_deref(), Some(id));
        for bad in ["A09A27E7-d32b-40d4-b6b9-948ac0d141a9", "a09a27e7d32b40d4b6b9948ac0d141a9", "", "x"] {
            assert_eq!(uuid(bad), None, "{bad}");
        }
        assert_ne!(kms_request("a", "Decrypt"), kms_request("a", "Sign"));
    }
}
