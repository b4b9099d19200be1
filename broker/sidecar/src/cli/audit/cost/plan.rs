//! Predicts a trail's requests to KMS and to its bucket from its intervals, as AWS documents it for CloudTrail ("How AWS CloudTrail uses
//! AWS KMS", "Understanding how often your CMK is used", AWS KMS Developer Guide of 2020). The trail's tests include this file and compare
//! it with a simulated fleet.

use std::time::Duration;

use serde::Serialize;

/// Trails whose requests are predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The time between deliveries of log files.
    pub(crate) delivery_interval: Duration,
    /// The time between digests.
    pub(crate) digest_interval: Duration,
    /// Which objects are encrypted under a KMS key.
    pub(crate) encrypted: Encrypted,
    /// Whether KMS signs digests, and not a key in a file.
    pub(crate) kms_signs: bool,
    /// Brokers at a time.
    pub(crate) brokers: u64,
    /// Trails that begin and are closed meanwhile.
    pub(crate) trails: u64,
}

/// What of a trail is encrypted under a KMS key, with a data key for each object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Encrypted {
    /// `audit.kms_key_id` is not set.
    Nothing,
    /// In a directory, where the broker encrypts.
    LogFiles,
    /// In S3, which does (SSE-KMS): digests, too.
    AllObjects,
}

/// Requests of some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PlannedRequests {
    /// Log files that are put.
    pub(crate) log_files: u64,
    /// Digests that are.
    pub(crate) digests: u64,
    /// One GenerateDataKey for each object that is encrypted.
    pub(crate) data_keys: u64,
    /// One Sign for each digest.
    pub(crate) signatures: u64,
}

impl Plan {
    /// What the trails will ask in this time, at most.
    ///
    /// An idle broker delivers with its digests only: the record of one file's data key waits for the next. Each trail has an
    /// opening digest and a closing one, and a last log file before that: its broker's end is a record.
    #[must_use]
    pub(crate) fn requests(&self, during: Duration) -> PlannedRequests {
        let each = |interval: Duration| during.as_secs().div_ceil(interval.as_secs().max(1)) * self.brokers;
        let log_files = each(self.delivery_interval) + self.trails;
        let digests = each(self.digest_interval) + 2 * self.trails;
        PlannedRequests {
            log_files,
            digests,
            data_keys: match self.encrypted {
                Encrypted::Nothing => 0,
                Encrypted::LogFiles => log_files,
                Encrypted::AllObjects => log_files + digests,
            },
            signatures: if self.kms_signs { digests } else { 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    //! The numbers that AWS documents come out.

    use super::*;

    fn plan(brokers: u64) -> Plan {
        Plan {
            delivery_interval: Duration::from_mins(5),
            digest_interval: Duration::from_hours(1),
            encrypted: Encrypted::LogFiles,
            kms_signs: true,
            brokers,
            trails: 0,
        }
    }

    fn of_a_day(plan: Plan) -> (u64, u64) {
        let PlannedRequests { data_keys, signatures, .. } = plan.requests(Duration::from_hours(24));
        (data_keys, signatures)
    }

    #[test]
    fn the_numbers_that_aws_documents() {
        assert_eq!(of_a_day(plan(1)), (288, 24));
        assert_eq!(of_a_day(plan(2)), (576, 48));
        assert_eq!(of_a_day(plan(6)), (1_728, 144));
    }

    #[test]
    fn a_trail_without_kms_asks_it_nothing_and_s3_encrypts_digests_too() {
        let plain = Plan { encrypted: Encrypted::Nothing, kms_signs: false, ..plan(6) };
        assert_eq!(of_a_day(plain), (0, 0));
        assert_eq!(of_a_day(Plan { encrypted: Encrypted::AllObjects, ..plan(1) }), (312, 24));
    }

    #[test]
    fn a_trail_that_begins_and_ends_is_one_log_file_and_two_digests_more() {
        let requests = Plan { trails: 10, ..plan(1) }.requests(Duration::from_hours(24));
        assert_eq!((requests.log_files, requests.digests), (298, 44));
        assert_eq!((requests.data_keys, requests.signatures), (298, 44));
    }
}
