//! The object keys of a trail, which are CloudTrail's
//! (<https://docs.aws.amazon.com/awscloudtrail/latest/userguide/get-and-view-cloudtrail-log-files.html>).

use key_broker_core::partition_of;
use sha2::{Digest, Sha256};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Date, OffsetDateTime, PrimitiveDateTime};

/// The names of a trail, and where it is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrailNames {
    /// The account of the broker: 12 digits.
    pub account_id: String,
    /// The region of its KMS, and the trail's home region.
    pub region: String,
    /// The name of the trail: each journal has its own.
    pub trail: String,
    /// The bucket.
    pub bucket: String,
    /// The prefix before `AWSLogs/`, possibly empty.
    pub prefix: String,
}

impl TrailNames {
    /// The ARN of the trail, as used in encryption contexts.
    #[must_use]
    pub fn trail_arn(&self) -> String {
        let Self { region, account_id, trail, .. } = self;
        format!("arn:{}:cloudtrail:{region}:{account_id}:trail/{trail}", partition_of(region))
    }

    #[must_use]
    pub(crate) fn object_arn(&self, key: &str) -> String {
        format!("arn:{}:s3:::{}/{key}", partition_of(&self.region), self.bucket)
    }

    /// The ARN of bucket and path under which everything is delivered.
    #[must_use]
    pub(crate) fn path_arn(&self) -> String {
        self.object_arn(&self.folder())
    }

    /// `[prefix/]AWSLogs/ACCOUNT/`.
    fn folder(&self) -> String {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        format!("{}{slash}AWSLogs/{}/", self.prefix, self.account_id)
    }

    /// The key of an object that shows whether the bucket accepts any. It is outside of `AWSLogs/`, where readers take every object for
    /// records.
    #[must_use]
    pub(crate) fn probe(&self) -> String {
        let Self { account_id, region, trail, prefix, .. } = self;
        let slash = if prefix.is_empty() { "" } else { "/" };
        format!("{prefix}{slash}key-broker-probe/{account_id}/{region}/{trail}.txt")
    }

    /// The prefix of all log files, including other brokers'.
    #[must_use]
    pub fn log_folder(&self) -> String {
        format!("{}CloudTrail/{}/", self.folder(), self.region)
    }

    /// The prefix of all digests, including other trails'.
    #[must_use]
    pub(crate) fn digest_folder(&self) -> String {
        format!("{}CloudTrail-Digest/{}/", self.folder(), self.region)
    }

    /// The part of it for digests that end on this day.
    #[must_use]
    pub(crate) fn digest_folder_of(&self, day: Date) -> String {
        format!("{}{}/", self.digest_folder(), format(day.midnight().assume_utc(), DAY))
    }

    /// The key of a log file that was complete at `at` and ends with a record of this `hash`.
    ///
    /// Its 16 characters come from the hash, which depends on random ids: no other file has the same ones, and a repeated delivery
    /// does.
    #[must_use]
    pub(crate) fn log_file(&self, at: OffsetDateTime, hash: &[u8; 32]) -> String {
        let Self { account_id, region, .. } = self;
        let (day, minute) = (format(at, DAY), format(at, MINUTE));
        format!(
            "{}{day}/{account_id}_CloudTrail_{region}_{minute}_{}.json.gz",
            self.log_folder(),
            letters(hash)
        )
    }

    /// The minute in which the log file of this key was complete, according to its name; `None` if no log file of this account and region has
    /// such a name. Log files of other brokers, and CloudTrail's own, have such names, too.
    #[must_use]
    pub(crate) fn log_file_minute(&self, key: &str) -> Option<OffsetDateTime> {
        let Self { account_id, region, .. } = self;
        let (day, name) = key.strip_prefix(&self.log_folder())?.rsplit_once('/')?;
        let rest =
            name.strip_prefix(&format!("{account_id}_CloudTrail_{region}_"))?.strip_suffix(".json.gz")?;
        let (minute, letters) = rest.split_once('_')?;
        let at = PrimitiveDateTime::parse(minute, MINUTE).ok()?.assume_utc();
        let is_one = letters.len() == 16 && letters.bytes().all(|b| b.is_ascii_alphanumeric());
        (is_one && format(at, DAY) == day && format(at, MINUTE) == minute).then_some(at)
    }

    /// The key of the digest that ends at `end`.
    #[must_use]
    pub(crate) fn digest(&self, end: OffsetDateTime) -> String {
        let Self { account_id, region, trail, .. } = self;
        let (day, second) = (format(end, DAY), compact_time(end));
        format!(
            "{}{day}/{account_id}_CloudTrail-Digest_{region}_{trail}_{region}_{second}.json.gz",
            self.digest_folder()
        )
    }

    /// The end of the digest with this key; `None` if it is another trail's, or no digest.
    #[must_use]
    pub(crate) fn digest_end(&self, key: &str) -> Option<OffsetDateTime> {
        let name = key.rsplit('/').next()?.strip_suffix(".json.gz")?;
        let end = parse_compact_time(name.rsplit('_').next()?)?;
        (self.digest(end) == key).then_some(end)
    }
}

/// The trail and the end of a digest, according to its key, in any home region.
#[must_use]
pub(crate) fn trail_of(digest_key: &str) -> Option<(&str, OffsetDateTime)> {
    let name = digest_key.rsplit('/').next()?.strip_suffix(".json.gz")?;
    let (rest, end) = name.rsplit_once('_')?;
    let (rest, _home_region) = rest.rsplit_once('_')?;
    let (_, rest) = rest.split_once("_CloudTrail-Digest_")?;
    let (_region, trail) = rest.split_once('_')?;
    Some((trail, parse_compact_time(end)?))
}

/// `YYYYMMDDTHHMMSSZ`.
#[must_use]
pub(crate) fn compact_time(at: OffsetDateTime) -> String {
    format(at, SECOND)
}

/// Reads `YYYYMMDDTHHMMSSZ`.
#[must_use]
pub(crate) fn parse_compact_time(text: &str) -> Option<OffsetDateTime> {
    PrimitiveDateTime::parse(text, SECOND).ok().map(PrimitiveDateTime::assume_utc)
}

fn format(at: OffsetDateTime, form: &[BorrowedFormatItem<'_>]) -> String {
    at.to_offset(time::UtcOffset::UTC).format(form).expect("a moment has all parts of these forms")
}

/// 16 letters and digits of a hash: 95 bits.
fn letters(hash: &[u8; 32]) -> String {
    let digest = Sha256::new().chain_update(b"log file").chain_update(hash).finalize();
    let mut rest = digest.iter().take(16).fold(0_u128, |n, byte| (n << 8) | u128::from(*byte));
    let mut letters = String::with_capacity(16);
    for _ in 0..16 {
        let place = usize::try_from(rest % 62).expect("less than 62");
        letters.push(char::from(ALPHABET[place]));
        rest /= 62;
    }
    letters
}

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const DAY: &[BorrowedFormatItem<'_>] = format_description!(version = 2, "[year]/[month]/[day]");
const MINUTE: &[BorrowedFormatItem<'_>] =
    format_description!(version = 2, "[year][month][day]T[hour][minute]Z");
const SECOND: &[BorrowedFormatItem<'_>] =
    format_description!(version = 2, "[year][month][day]T[hour][minute][second]Z");

#[cfg(test)]
mod tests {
    //! Keys have CloudTrail's form, and a digest's key has its end time.

    use time::macros::datetime;

    use super::*;

    fn names(prefix: &str) -> TrailNames {
        TrailNames {
            account_id: "111122223333".into(),
            region: "us-west-2".into(),
            trail: "key-broker".into(),
            bucket: "logs".into(),
            prefix: prefix.into(),
        }
    }

    #[test]
    fn keys_and_arns() {
        let (at, hash) = (datetime!(2015-11-11 21:15:58 UTC), [7; 32]);
        let plain = names("");
        let key = plain.log_file(at, &hash);
        let (start, letters) = key.split_at(key.len() - 24);
        assert_eq!(
            start,
            "AWSLogs/111122223333/CloudTrail/us-west-2/2015/11/11/111122223333_CloudTrail_us-west-2_20151111T2115Z_"
        );
        assert!(letters.ends_with(".json.gz") && letters[..16].bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_eq!(plain.log_file(at, &hash), key, "the same segment, the same key");
        assert_eq!(plain.log_file_minute(&key), Some(datetime!(2015-11-11 21:15 UTC)));
        for other in
            [key.replace("/11/11/", "/11/12/"), key.replace("Z_", "Z_x"), key.replace("2115Z", "2165Z")]
        {
            assert_eq!(plain.log_file_minute(&other), None, "{other}");
        }
        assert_ne!(plain.log_file(at, &[8; 32]), key);
        assert!(names("team/a").log_file(at, &hash).starts_with("team/a/AWSLogs/"));
        let digest = plain.digest(at);
        assert_eq!(
            digest,
            "AWSLogs/111122223333/CloudTrail-Digest/us-west-2/2015/11/11/\
             111122223333_CloudTrail-Digest_us-west-2_key-broker_us-west-2_20151111T211558Z.json.gz"
        );
        assert_eq!(plain.digest_end(&digest), Some(at));
        assert_eq!(names("x").digest_end(&digest), None, "another trail's");
        assert_eq!(trail_of(&digest), Some(("key-broker", at)));
        assert_eq!(trail_of(&digest.replace("key-broker", "a_b")), Some(("a_b", at)));
        assert_eq!(trail_of(&key), None);
        assert_eq!(plain.trail_arn(), "arn:aws:cloudtrail:us-west-2:111122223333:trail/key-broker");
        assert_eq!(plain.path_arn(), "arn:aws:s3:::logs/AWSLogs/111122223333/");
    }
}
