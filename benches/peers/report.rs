//! The measurements as Markdown, in the words of docs/performance.md.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::Amount;
use crate::common::machine::Machine;
use crate::contenders::What;
use crate::rounds::{Figures, Row};

/// Everything that was measured.
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) amount: Amount,
    pub(crate) rows: Vec<Row>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { processor, cores, kernel, load_average, sync: (median, p99) } = &self.machine;
        let (rounds, round) = (self.amount.rounds, self.amount.round.as_millis());
        writeln!(
            f,
            "{processor}, {cores} cores shared by callers, servers and KMS emulator; Linux {kernel}; load average before: {load_average}."
        )?;
        let (median, p99) = (micros(*median), micros(*p99));
        writeln!(f, "Appending 2 KiB with `fdatasync` took {median} µs (p99 {p99}) before the run.")?;
        writeln!(f, "Medians of {rounds} rounds of {round} ms that alternate; latencies in µs.")?;
        if let Ok(lto) = std::env::var("CARGO_PROFILE_RELEASE_LTO") {
            writeln!(f, "The programs were built with `lto = {lto}`, not as releases are.")?;
        }
        let versions: BTreeSet<&str> = self.rows.iter().map(|row| row.version.as_str()).collect();
        let versions: Vec<&str> = versions.into_iter().filter(|version| !version.is_empty()).collect();
        writeln!(f, "Versions: {}.\n", versions.join("; "))?;
        self.missing(f)?;
        self.table(f)
    }
}

impl Report {
    fn missing(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut missing = self.rows.iter().filter_map(|row| Some((row.name, row.measured.as_ref().err()?)));
        missing.try_for_each(|(name, why)| writeln!(f, "> **NOT MEASURED: {name}**: {why}\n"))
    }

    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| | record of the call | 1 in flight: calls/s | p50 | p99 | 16 in flight: calls/s | p50 | p99 |"
        )?;
        writeln!(f, "|---|---|--:|--:|--:|--:|--:|--:|")?;
        for what in What::ALL {
            writeln!(f, "| **{}** | | | | | | | |", what.title())?;
            for row in self.rows.iter().filter(|row| row.what == what) {
                write!(f, "| {} | {} |", row.name, row.record)?;
                match &row.measured {
                    Ok(all) => all.iter().try_for_each(|figures| cells(f, *figures))?,
                    Err(_) => write!(f, " **not measured** | | | | | |")?,
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

impl What {
    pub(crate) const ALL: [Self; 3] = [Self::DataKey, Self::Message, Self::Bound];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::DataKey => "A data key",
            Self::Message => "A message of 1 KiB, encrypted",
            Self::Bound => "What bounds them",
        }
    }
}

fn cells(f: &mut fmt::Formatter<'_>, figures: Figures) -> fmt::Result {
    let Figures { calls_per_second, p50, p99 } = figures;
    write!(f, " {} | {} | {} |", rate(calls_per_second), micros(p50), micros(p99))
}

/// Calls a second.
pub(crate) fn rate(calls: f64) -> String {
    thousands(&format!("{calls:.0}"))
}

fn micros(time: Duration) -> String {
    thousands(&time.as_micros().to_string())
}

/// 12,345.
fn thousands(digits: &str) -> String {
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
