//! Counts KMS requests made, and saved by reuse, from records.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use key_broker_core::{Action, Outcome};
use serde::Serialize;
use time::OffsetDateTime;

use key_broker_trail::TRAIL_ARN;
use key_broker_trail::record::{MalformedRecord, ReadRecord, ServedFrom};

/// Requests to KMS, counted.
#[derive(Debug, Default)]
pub(super) struct Costs {
    rows: BTreeMap<Subject, Requests>,
    oldest: Option<OffsetDateTime>,
    newest: Option<OffsetDateTime>,
}

/// The group in which a request is counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Subject {
    /// The day, UTC: `YYYY-MM-DD`.
    pub(super) day: String,
    /// The region of KMS.
    pub(super) region: String,
    /// The account that asked: it pays.
    pub(super) account: String,
    /// The key's ARN or, if KMS gave none, the key as requested. `None` for random bytes.
    pub(super) key: Option<String>,
    /// The KMS operation.
    pub(super) operation: String,
}

/// Requests to KMS, by what caused them, and those that were not made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Requests {
    /// Made for workloads.
    pub(super) workloads: u64,
    /// Made for the trail: data keys of log files, signatures of digests, reading.
    pub(super) trail: u64,
    /// Made to see what aliases mean, and whether kept keys may still be used (`reuse.revocation_check_seconds`).
    pub(super) checks: u64,
    /// Not made: uses that were served from the cache.
    pub(super) saved: u64,
}

impl Requests {
    /// All that KMS answered, and so bills.
    #[must_use]
    pub(super) fn made(&self) -> u64 {
        self.workloads + self.trail + self.checks
    }

    /// Which share, in percent, of what workloads asked was saved; none where they asked nothing.
    #[must_use]
    pub(super) fn saved_percent(&self) -> Option<f64> {
        let asked = self.workloads + self.saved;
        (asked > 0).then(|| float(self.saved) / float(asked) * 100.0)
    }
}

impl AddAssign for Requests {
    fn add_assign(&mut self, other: Self) {
        self.workloads += other.workloads;
        self.trail += other.trail;
        self.checks += other.checks;
        self.saved += other.saved;
    }
}

impl Costs {
    /// Counts a record of the trail.
    pub(super) fn add(&mut self, record: &ReadRecord<'_>) -> Result<(), MalformedRecord> {
        if is_withdrawn_saving(record)? {
            // The record that is withdrawn is of the same subject.
            let row = self.rows.entry(subject_of(record)).or_default();
            row.saved = row.saved.saturating_sub(1);
            return Ok(());
        }
        let Some(requests) = requests_of(record)? else { return Ok(()) };
        *self.rows.entry(subject_of(record)).or_default() += requests;
        let at = record.event_time;
        self.oldest = Some(self.oldest.map_or(at, |oldest| oldest.min(at)));
        self.newest = Some(self.newest.map_or(at, |newest| newest.max(at)));
        Ok(())
    }

    /// The counts, by day, region, account, key and operation.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&Subject, &Requests)> {
        self.rows.iter()
    }

    /// The first and the last record that counted.
    #[must_use]
    pub(super) fn range(&self) -> Option<(OffsetDateTime, OffsetDateTime)> {
        self.oldest.zip(self.newest)
    }

    /// All of them.
    #[must_use]
    pub(super) fn total(&self) -> Requests {
        self.rows.values().fold(Requests::default(), |mut total, row| {
            total += *row;
            total
        })
    }
}

/// What `requests` to KMS cost at `price_per_10000` of them.
#[must_use]
pub(super) fn price_of(requests: u64, price_per_10000: f64) -> f64 {
    float(requests) * price_per_10000 / 10_000.0
}

/// What `puts` into S3 cost at `price_per_1000` of them.
#[must_use]
pub(super) fn price_of_puts(puts: u64, price_per_1000: f64) -> f64 {
    float(puts) * price_per_1000 / 1_000.0
}

/// Whether this says of a use from the cache that it never left.
fn is_withdrawn_saving(record: &ReadRecord<'_>) -> Result<bool, MalformedRecord> {
    if record.is_of_kms() {
        return Ok(false);
    }
    Ok(record.activity()?.is_some_and(|data| {
        let from_cache = data.data_key.is_some_and(|key| key.served_from == ServedFrom::Cache);
        data.withdraws.is_some() && from_cache
    }))
}

fn requests_of(record: &ReadRecord<'_>) -> Result<Option<Requests>, MalformedRecord> {
    let none = Requests::default();
    if !record.is_of_kms() {
        let is_saved = record.activity()?.is_some_and(|data| {
            let from_cache = data.data_key.is_some_and(|key| key.served_from == ServedFrom::Cache);
            data.outcome == Outcome::Allowed && from_cache
        });
        return Ok(is_saved.then_some(Requests { saved: 1, ..none }));
    }
    Ok(Some(match () {
        () if !record.is_of_the_broker_itself() => Requests { workloads: 1, ..none },
        // What an alias means; and, since the data keys of log files are bound to the trail, those that are not are dry runs of the
        // revocation check.
        () if &*record.event_name == "DescribeKey"
            || (matches!(
                &*record.event_name,
                "GenerateDataKey" | "GenerateDataKeyWithoutPlaintext" | "Decrypt"
            ) && !record.encryption_context().any(|(name, _)| name == TRAIL_ARN)) =>
        {
            Requests { checks: 1, ..none }
        }
        () => Requests { trail: 1, ..none },
    }))
}

fn subject_of(record: &ReadRecord<'_>) -> Subject {
    Subject {
        day: record.event_time.date().to_string(),
        region: record.aws_region.to_string(),
        account: record.recipient_account_id.to_string(),
        key: record.key_arn().or_else(|| record.key_id()).map(str::to_owned),
        operation: Action::operation_at_kms(&record.event_name).to_owned(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "2^53 requests cost more than there is")]
fn float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    //! Records are counted by what caused them.

    use serde_json::{Value, json};

    use super::*;

    fn kms(operation: &str, invoked_by: Option<&str>, context: &Value) -> Value {
        json!({
            "userIdentity": { "arn": "arn:aws:sts::111122223333:assumed-role/b/s", "invokedBy": invoked_by },
            "eventTime": "2026-11-21T10:57:07Z", "eventSource": "kms.amazonaws.com", "eventName": operation,
            "awsRegion": "us-west-2", "requestParameters": { "keyId": "alias/a", "encryptionContext": context },
            "requestID": "r", "eventID": "e", "resources": [{ "ARN": "arn:aws:kms:us-west-2:111122223333:key/k" }],
            "recipientAccountId": "111122223333",
        })
    }

    fn use_of(served_from: &str, outcome: &str) -> Value {
        let mut record = kms("GenerateDataKey", None, &Value::Null);
        record["eventSource"] = "keybroker.v1.KeyBroker".into();
        record["additionalEventData"] =
            json!({ "outcome": outcome, "dataKey": { "servedFrom": served_from } });
        record
    }

    #[test]
    fn records_are_counted_by_cause() {
        #[derive(Serialize)]
        struct Row<'a> {
            of: &'a Subject,
            requests: &'a Requests,
        }
        let trail = json!({ "aws:cloudtrail:arn": "arn:aws:cloudtrail:us-west-2:111122223333:trail/t" });
        let own = Some("key-broker");
        let records = [
            kms("GenerateDataKey", None, &json!({ "tenant": "acme" })),
            kms("GenerateDataKey", own, &trail),
            kms("GenerateDataKey", own, &Value::Null),
            kms("Sign", own, &Value::Null),
            use_of("KMS", "Allowed"),
            use_of("CACHE", "Allowed"),
            use_of("CACHE", "Allowed"),
            use_of("CACHE", "Allowed"),
            use_of("CACHE", "Aborted"),
        ];
        let mut costs = Costs::default();
        for record in &records {
            let record = record.to_string();
            costs.add(&ReadRecord::parse(&record).expect("a record")).expect("a record");
        }
        let total = costs.total();
        assert_eq!(total, Requests { workloads: 1, trail: 2, checks: 1, saved: 3 });
        assert_eq!((total.made(), total.saved_percent()), (4, Some(75.0)));
        let rows: Vec<String> = costs
            .rows()
            .map(|(of, requests)| serde_json::to_string(&Row { of, requests }).expect("serializes"))
            .collect();
        insta::assert_snapshot!(rows.join("\n"));
    }

    #[test]
    fn prices_are_of_ten_thousand_requests_and_of_a_thousand_puts() {
        assert!((price_of(288, 0.03) - 0.000_864).abs() < 1e-12);
        assert!((price_of(10_000, 0.03) - 0.03).abs() < 1e-12);
        assert!((price_of_puts(288, 0.005) - 0.001_44).abs() < 1e-12);
    }
}
