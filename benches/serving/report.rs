//! The measurements as Markdown.

use std::fmt;
use std::time::Duration;

use crate::Amount;
use crate::load::quantile;
use crate::machine::Machine;
use crate::memory::Moments;
use crate::process::{Memory, Times};
use crate::start::Starts;
use crate::throughput::{Measured, SDK, Throughput};

/// Everything that was measured.
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) amount: Amount,
    pub(crate) binary_bytes: u64,
    pub(crate) starts: Starts,
    pub(crate) memory: Moments,
    pub(crate) throughput: Throughput,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.machine(f)?;
        self.footprint(f)?;
        self.calls(f)?;
        self.processor_time(f)
    }
}

impl Report {
    fn machine(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { processor, cores, kernel, load_average, sync: (median, p99) } = &self.machine;
        writeln!(f, "## Machine\n")?;
        writeln!(f, "{processor}, {cores} cores, Linux {kernel}. Load average before: {load_average}.")?;
        let (median, p99) = (micros(*median), micros(*p99));
        writeln!(f, "Appending 2 KiB with `fdatasync` takes {median} µs (p99 {p99} µs) on this disk.\n")
    }

    fn footprint(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## Size, start and memory\n")?;
        writeln!(f, "| what | |\n|---|---|")?;
        writeln!(f, "| `key-broker` without `dev`, stripped | {} |", megabytes(self.binary_bytes / 1024))?;
        let starts = self.starts.serving.len();
        for (what, times) in [
            ("exec to connect", &self.starts.connected),
            ("exec to the first health check's SERVING", &self.starts.serving),
        ] {
            let (median, longest) = (millis(quantile(times, 0.5)), millis(quantile(times, 1.0)));
            writeln!(f, "| {what}, {starts} starts | median {median} ms, longest {longest} ms |")?;
        }
        let calls = self.amount.memory_calls;
        for (when, memory) in [
            ("after start".to_owned(), self.memory.started),
            ("after one call".to_owned(), self.memory.after_one_call),
            (format!("after {calls} calls, 1 to 64 in flight"), self.memory.after_all_calls),
        ] {
            let Memory { resident, anonymous, peak } = memory;
            let [resident, anonymous, peak] = [resident, anonymous, peak].map(megabytes);
            writeln!(f, "| resident {when} | {resident}, of it anonymous {anonymous}, peak {peak} |")?;
        }
        writeln!(f)
    }

    fn calls(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Amount { rounds, round, .. } = self.amount;
        writeln!(f, "## GenerateDataKey\n")?;
        writeln!(f, "Every call is asked of KMS, but for those \"from the cache\".")?;
        writeln!(
            f,
            "One connection; {rounds} rounds of {} ms each, in turns. Latencies in µs.",
            round.as_millis()
        )?;
        for (in_flight, measured) in &self.throughput.0 {
            writeln!(f, "\n### {in_flight} in flight\n")?;
            writeln!(f, "| target | calls/s (rounds) | p50 | p99 | p99.9 | of echo | of SDK |")?;
            writeln!(f, "|---|--:|--:|--:|--:|--:|--:|")?;
            let sdk = measured.iter().find(|measured| measured.name == SDK);
            for target in measured {
                let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|q| micros(quantile(&target.latencies, q)));
                let rounds = &target.calls_per_second;
                let (least, most) = rounds
                    .iter()
                    .fold((f64::MAX, 0.0_f64), |(least, most), rate| (rate.min(least), rate.max(most)));
                writeln!(
                    f,
                    "| {} | {:.0} ({least:.0}–{most:.0}) | {p50} | {p99} | {p999} | {} | {} |",
                    target.name,
                    mean(rounds.iter().copied()),
                    ratio(target, measured.first()),
                    ratio(target, sdk),
                )?;
            }
        }
        writeln!(f)
    }

    fn processor_time(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## Where the time of a call goes\n")?;
        writeln!(
            f,
            "Processor time per call in µs, user + system. The SDK's own time is in its client. Neighbours on the machine change it less than calls/s."
        )?;
        for (in_flight, measured) in &self.throughput.0 {
            writeln!(f, "\n### {in_flight} in flight\n")?;
            writeln!(
                f,
                "| target | client | server | of it the journal's thread | emulator | all | echo / all |\n|---|--:|--:|--:|--:|--:|--:|"
            )?;
            for target in measured {
                let [client, server, emulator] = target.parts().map(|times| split(target, times));
                let journal =
                    target.server.0.get(JOURNAL).map_or_else(String::new, |times| split(target, *times));
                let all = target.all();
                let echo = measured.first().map_or(all, Measured::all);
                writeln!(
                    f,
                    "| {} | {client} | {server} | {journal} | {emulator} | {} | {:.2} |",
                    target.name,
                    micros(all),
                    echo.as_secs_f64() / all.as_secs_f64()
                )?;
            }
        }
        writeln!(f)
    }
}

fn split(target: &Measured, times: Times) -> String {
    if times.total().is_zero() {
        return String::new();
    }
    format!("{} + {}", micros(target.each(times.user)), micros(target.each(times.system)))
}

/// The median of the ratios of each round, whose two measurements are seconds apart: what else the machine did in one round
/// does not count.
fn ratio(target: &Measured, base: Option<&Measured>) -> String {
    let Some(base) = base else { return String::new() };
    let rounds = target.calls_per_second.iter().zip(&base.calls_per_second);
    let mut ratios: Vec<f64> = rounds.map(|(rate, base)| rate / base).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).map_or_else(String::new, |ratio| format!("{ratio:.2}"))
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / count
}

fn micros(time: Duration) -> String {
    format!("{:.0}", time.as_secs_f64() * 1e6)
}

fn millis(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e3)
}

fn megabytes(kilobytes: u64) -> String {
    let tenths = kilobytes * 10 / 1024;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// The name of the journal's thread.
const JOURNAL: &str = "journal";
