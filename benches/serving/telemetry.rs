//! What telemetry costs a cached call: off, spans of one call in a hundred, of every call, and metrics, side by side.

use std::fmt::Write as _;

use crate::broker::{Broker, Setup, Telemetry};
use crate::collector::Collector;
use crate::kms::{self, Emulator};
use crate::load::{Grpc, quantile};
use crate::programs::Programs;
use crate::throughput::{Measured, Targets};
use crate::{Amount, Failure};

/// The measurements, as a table.
pub(crate) async fn measure(
    programs: &Programs,
    emulator: &Emulator,
    amount: Amount,
) -> Result<String, Failure> {
    let collector = Collector::start()?;
    let mut brokers = Vec::new();
    for (name, telemetry) in [
        ("off", Telemetry::Off),
        ("`/metrics`", Telemetry::Metrics),
        ("spans, 1 % of calls", Telemetry::Sampled),
        ("spans, every call", Telemetry::Always),
    ] {
        let setup = Setup { commit: "write", telemetry, ..Setup::default() };
        let broker = Broker::start_with(programs, emulator, setup, &collector.endpoint).await?;
        let target = Grpc { request: kms::cached_request(), ..broker.target().await? };
        brokers.push((name, broker, target));
    }
    let targets = Targets::none(emulator);
    let mut table = String::from(
        "| in flight | telemetry | calls a second | of off | p50 | p99 |\n|---|---|---|---|---|---|\n",
    );
    for in_flight in [1, 16, 64] {
        let mut rows: Vec<Measured> = Vec::new();
        for round in 0..amount.rounds {
            eprintln!("telemetry: {in_flight} in flight, round {}", round + 1);
            for (place, (name, broker, target)) in brokers.iter().enumerate() {
                let measured = targets.once(name, target, Some(&broker.process), in_flight, amount).await?;
                match rows.get_mut(place) {
                    Some(row) => row.add(measured),
                    None => rows.push(measured),
                }
            }
        }
        let mut off = None;
        for row in &mut rows {
            row.latencies.sort_unstable();
            row.calls_per_second.sort_unstable_by(f64::total_cmp);
            let median = row.calls_per_second[row.calls_per_second.len() / 2];
            let off = *off.get_or_insert(median);
            let [p50, p99] = [0.5, 0.99].map(|share| quantile(&row.latencies, share).as_micros());
            writeln!(
                table,
                "| {in_flight} | {} | {median:.0} | {:.2} | {p50} us | {p99} us |",
                row.name,
                median / off
            )?;
        }
    }
    Ok(table)
}
