//! The digests of a period, and those around it.

use time::OffsetDateTime;

use crate::reader::DigestKey;

/// The digests of a period, among all of a trail in order. Each ends where the next one starts.
#[derive(Clone, Copy)]
pub(super) struct Stretch<'a> {
    /// Those before the period: the first digest of the period follows the last of them.
    pub(super) before: &'a [DigestKey],
    /// Those that cover any moment of it.
    pub(super) chosen: &'a [DigestKey],
    /// Those after it.
    pub(super) after: &'a [DigestKey],
}

impl<'a> Stretch<'a> {
    /// The digests that end after `from` and start before `to`. `oldest_start` is the start of the oldest of all.
    pub(super) fn of(
        listed: &'a [DigestKey],
        oldest_start: Option<OffsetDateTime>,
        from: Option<OffsetDateTime>,
        to: Option<OffsetDateTime>,
    ) -> Self {
        let first = from.map_or(0, |from| listed.partition_point(|digest| digest.end <= from));
        let end = match to {
            None => listed.len(),
            // Nothing precedes the oldest digest, or the period is before all digests.
            Some(to)
                if from.is_some_and(|from| from >= to) || oldest_start.is_some_and(|start| start >= to) =>
            {
                0
            }
            // The last is the one that ends at or after `to`.
            Some(to) => (listed.partition_point(|digest| digest.end < to) + 1).min(listed.len()),
        };
        let (rest, after) = listed.split_at(end.max(first));
        let (before, chosen) = rest.split_at(first);
        Self { before, chosen, after }
    }

    /// The digests outside of the period, the newest first.
    pub(super) fn around(&self) -> impl Iterator<Item = &'a DigestKey> {
        self.after.iter().rev().chain(self.before.iter().rev())
    }
}

#[cfg(test)]
mod tests {
    //! A digest belongs to a period if they have a moment in common.

    use proptest::prelude::*;
    use time::Duration;

    use super::*;

    proptest! {
        #[test]
        fn as_a_look_at_each_moment(
            lengths in prop::collection::vec(1..5_i64, 0..8),
            from in prop::option::of(0..30_i64),
            to in prop::option::of(0..30_i64),
        ) {
            let at = |seconds| OffsetDateTime::UNIX_EPOCH + Duration::seconds(seconds);
            let mut moments = Vec::new();
            let mut end = 5;
            let listed: Vec<DigestKey> = lengths.iter().map(|length| {
                // The moments after its start, up to its end.
                moments.push((end..end + length).map(|second| second * 10 + 5).collect::<Vec<_>>());
                end += length;
                DigestKey { key: end.to_string(), end: at(end * 10) }
            }).collect();
            let (from, to) = (from.map(|n| n * 10), to.map(|n| n * 10));
            let stretch = Stretch::of(&listed, (!listed.is_empty()).then(|| at(50)), from.map(at), to.map(at));
            let expected: Vec<_> = listed.iter().zip(&moments).filter(|(_, moments)| {
                moments.iter().any(|moment| {
                    from.is_none_or(|from| *moment >= from) && to.is_none_or(|to| *moment < to)
                })
            }).map(|(digest, _)| digest.key.clone()).collect();
            let chosen: Vec<_> = stretch.chosen.iter().map(|digest| digest.key.clone()).collect();
            prop_assert_eq!(chosen, expected);
            prop_assert_eq!(stretch.before.len() + stretch.chosen.len() + stretch.after.len(), listed.len());
        }
    }
}
