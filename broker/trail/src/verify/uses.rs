//! Counts uses of KMS's answers and refusals by hour, principal and key.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use key_broker_core::Outcome;
use serde::{Deserialize, Serialize};

use crate::record::{ActivityEventData, ReadRecord, Record, ServedFrom};

/// The counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Uses {
    /// Uses served from the cache.
    pub hits: u64,
    /// Uses for which KMS was called.
    pub misses: u64,
    /// Calls that policy denied.
    pub denials: u64,
    /// Calls that KMS answered, including the trail's own.
    pub kms_calls: u64,
}

impl AddAssign for Uses {
    fn add_assign(&mut self, other: Self) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.denials += other.denials;
        self.kms_calls += other.kms_calls;
    }
}

/// The counts so far.
pub(super) type UseCounts = BTreeMap<UsesOf, Uses>;
/// The hour since 1970, the principal (empty in records of calls to KMS), and the key's ARN, if KMS named one.
pub(super) type UsesOf = (i64, String, Option<String>);

/// Counts a record that matches one of the profiles.
pub(super) fn count(counts: &mut UseCounts, record: &ReadRecord<'_>) {
    let extra = (!record.is_of_kms()).then(|| record.activity().ok().flatten()).flatten();
    count_with(counts, record, extra.as_ref());
}

/// The same with the record's parsed event data.
pub(super) fn count_with<D>(
    counts: &mut UseCounts,
    record: &Record<'_, D>,
    extra: Option<&ActivityEventData<'_>>,
) {
    let one = Uses::default();
    let is_of_kms = record.is_of_kms();
    let uses = if is_of_kms {
        Uses { kms_calls: 1, ..one }
    } else {
        let Some(extra) = extra else { return };
        match (extra.outcome, extra.data_key.as_ref().filter(|_| extra.withdraws.is_none())) {
            (Outcome::Denied, _) => {
                Uses { denials: extra.refusals.as_ref().map_or(1, |refusals| refusals.count), ..one }
            }
            (Outcome::Allowed, Some(key)) if key.served_from == ServedFrom::Cache => Uses { hits: 1, ..one },
            (Outcome::Allowed, Some(_)) => Uses { misses: 1, ..one },
            _ => return,
        }
    };
    let principal = record.user_identity.principal_id.as_deref().filter(|_| !is_of_kms).unwrap_or_default();
    let hour = record.event_time.unix_timestamp().div_euclid(3_600);
    add(counts, (hour, principal.to_owned(), record.key_arn().map(str::to_owned)), uses);
}

/// Adds other counts.
pub(super) fn merge(counts: &mut UseCounts, other: UseCounts) {
    for (of, uses) in other {
        add(counts, of, uses);
    }
}

fn add(counts: &mut UseCounts, of: UsesOf, uses: Uses) {
    // Beyond what anybody can look at, only hours are distinguished.
    let of = if counts.len() < MOST_ROWS || counts.contains_key(&of) {
        of
    } else {
        (of.0, OTHERS.to_owned(), None)
    };
    *counts.entry(of).or_default() += uses;
}

/// Bounds memory against callers with many principals or keys.
const MOST_ROWS: usize = 20_000;
const OTHERS: &str = "(others)";

#[cfg(test)]
mod tests {
    //! Each use, refusal and call is counted once, for its principal, and any number of callers fits in memory.

    use super::*;
    use crate::verify::forge::{Mint, START, refusal};

    fn counted(records: &[String]) -> UseCounts {
        let mut counts = UseCounts::new();
        for record in records {
            count(&mut counts, &ReadRecord::parse(record).expect("a record"));
        }
        counts
    }

    #[test]
    fn uses_refusals_and_calls_are_counted_once() {
        let mint = Mint::new(1, START);
        let records = [
            mint.record(),
            mint.draw(1).record(),
            mint.draw(2).record(),
            mint.draw(3).record(),
            refusal(START),
        ];
        let counts = counted(&records);
        let mut all = Uses::default();
        for uses in counts.values() {
            all += *uses;
        }
        assert_eq!(all, Uses { hits: 2, misses: 1, denials: 1, kms_calls: 1 });
        assert!(
            counts.keys().any(|(_, principal, _)| principal.is_empty()) && counts.len() >= 2,
            "{counts:?}"
        );
    }

    #[test]
    fn what_is_beyond_the_bound_is_counted_by_the_hour() {
        let mut counts = UseCounts::new();
        for number in 0..MOST_ROWS + 500 {
            let of = (0, format!("unix:uid/{number}"), None);
            add(&mut counts, of, Uses { hits: 1, ..Uses::default() });
        }
        assert_eq!(counts.len(), MOST_ROWS + 1);
        assert_eq!(counts.values().map(|uses| uses.hits).sum::<u64>(), (MOST_ROWS + 500) as u64);
    }
}
