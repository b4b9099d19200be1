//! The period of time that a command looks at.

use clap::Args;
use key_broker_core::clock::{Clock as _, SystemClock};
use key_broker_trail::record::record_time;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, Duration, OffsetDateTime};

use super::Failure;

/// A stretch of time.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct Period {
    /// Begin here: 2026-11-21, yesterday (of UTC), or 2026-11-21T10:57:07Z
    #[arg(long, value_name = "TIME", value_parser = beginning)]
    pub(super) since: Option<OffsetDateTime>,
    /// End before this time, or with this day
    #[arg(long, value_name = "TIME", value_parser = end)]
    pub(super) until: Option<OffsetDateTime>,
}

impl Period {
    /// Whether it is one: no time is both from `--since` on and before `--until` where they are swapped.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match (self.since, self.until) {
            (Some(since), Some(until)) if since >= until => Err(Failure::Configuration(format!(
                "--since {} is not before --until {}: no record is of such a time; are they swapped?",
                record_time(since),
                record_time(until)
            ))),
            _ => Ok(()),
        }
    }

    pub(super) fn has(&self, at: OffsetDateTime) -> bool {
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at < until)
    }

    /// Whether nothing is left out.
    pub(super) fn is_all(&self) -> bool {
        self.since.is_none() && self.until.is_none()
    }

    /// The same, and so much before and after it.
    pub(super) fn widened(&self, by: Duration) -> Self {
        Self {
            since: self.since.map(|since| since.saturating_sub(by)),
            until: self.until.map(|until| until.saturating_add(by)),
        }
    }
}

fn beginning(text: &str) -> Result<OffsetDateTime, String> {
    day(text, SystemClock.now().date()).map_or_else(|| moment(text), |day| Ok(day.midnight().assume_utc()))
}

fn end(text: &str) -> Result<OffsetDateTime, String> {
    let next = day(text, SystemClock.now().date()).map(|day| day.saturating_add(Duration::DAY));
    next.map_or_else(|| moment(text), |day| Ok(day.midnight().assume_utc()))
}

/// A day by its date or, since a timer's arguments are always the same, by where it stands to today.
fn day(text: &str, today: Date) -> Option<Date> {
    match text {
        "today" => Some(today),
        "yesterday" => today.previous_day(),
        _ => Date::parse(text, DAY).ok(),
    }
}

fn moment(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        "give a day, 2026-11-21, today or yesterday, or a time, 2026-11-21T10:57:07Z or 2026-11-21T11:57:07+01:00".into()
    })
}

const DAY: &[BorrowedFormatItem<'_>] = format_description!(version = 2, "[year]-[month]-[day]");

#[cfg(test)]
mod tests {
    //! Dates are whole days, times are exact, and anything else is refused with what to write.

    use time::macros::{date, datetime};

    use super::*;

    #[test]
    fn days_by_name() {
        let first = date!(2026 - 12 - 01);
        assert_eq!(day("yesterday", first), Some(date!(2026 - 11 - 30)));
        assert_eq!(day("today", first), Some(first));
        // Midnight may come between the two.
        let (begun, ended) = (beginning("yesterday").expect("a day"), end("yesterday").expect("a day"));
        assert!(ended - begun >= Duration::DAY && ended <= SystemClock.now(), "{begun} {ended}");
    }

    #[test]
    fn days_and_times() {
        assert_eq!(beginning("2026-11-21"), Ok(datetime!(2026-11-21 0:00 UTC)));
        assert_eq!(end("2026-11-21"), Ok(datetime!(2026-11-22 0:00 UTC)));
        for parse in [beginning, end] {
            assert_eq!(parse("2026-11-21T11:57:07+01:00"), Ok(datetime!(2026-11-21 10:57:07 UTC)));
            assert!(parse("tomorrow").expect_err("refused").contains("2026-11-21T10:57:07Z"));
            assert!(parse("2026-02-30").is_err());
        }
        let period = Period { since: beginning("2026-11-21").ok(), until: end("2026-11-21").ok() };
        assert!(
            period.has(datetime!(2026-11-21 23:59:59 UTC)) && !period.has(datetime!(2026-11-22 0:00 UTC))
        );
        assert!(period.check().is_ok() && Period::default().check().is_ok());
        for (since, until) in [("2026-11-23", "2026-11-21"), ("2026-11-21T10:00:00Z", "2026-11-21T10:00:00Z")]
        {
            let none = Period { since: beginning(since).ok(), until: end(until).ok() };
            assert!(
                matches!(none.check(), Err(Failure::Configuration(why)) if why.contains("swapped")),
                "{since}"
            );
        }
        assert!(period.widened(Duration::MINUTE).has(datetime!(2026-11-22 0:00:59 UTC)));
    }
}
