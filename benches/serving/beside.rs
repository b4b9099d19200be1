//! This broker beside another build of it, say the release before, in turns within one run: what a change costs.

use std::fmt::Write as _;
use std::path::Path;

use key_broker_proto::v1::GenerateDataKeyRequest;

use crate::broker::{Broker, Setup, Telemetry};
use crate::collector::Collector;
use crate::kms::{self, Emulator};
use crate::load::{Grpc, quantile};
use crate::programs::{BESIDE, Programs};
use crate::throughput::{Measured, Targets};
use crate::{Amount, Failure};

/// A load that both brokers are given.
struct Load {
    name: &'static str,
    commit: &'static str,
    telemetry: Telemetry,
    request: GenerateDataKeyRequest,
    in_flight: &'static [usize],
}

/// The measurements, as a table: each load with the other broker's medians, then this one's.
pub(crate) async fn measure(
    programs: &Programs,
    emulator: &Emulator,
    other: &Path,
    amount: Amount,
) -> Result<String, Failure> {
    programs.add(BESIDE, other)?;
    let collector = Collector::start()?;
    let targets = Targets::none(emulator);
    let mut table = String::from(
        "| in flight | load | other, calls/s | p50 | p99 | this, calls/s | p50 | p99 | this of other |\n\
         |--:|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for load in loads() {
        let mut pair = Vec::new();
        for program in [BESIDE, Setup::default().program] {
            let setup = Setup { program, commit: load.commit, telemetry: load.telemetry, ..Setup::default() };
            let broker = Broker::start_with(programs, emulator, setup, &collector.endpoint).await?;
            let target = Grpc { request: load.request.clone(), ..broker.target().await? };
            pair.push((broker, target));
        }
        for &in_flight in load.in_flight {
            if amount.in_flight.is_some_and(|calls| calls != in_flight) {
                continue;
            }
            let mut rows: Vec<Measured> = Vec::new();
            for round in 0..amount.rounds {
                eprintln!("beside: {}, {in_flight} in flight, round {}", load.name, round + 1);
                for (place, (broker, target)) in pair.iter().enumerate() {
                    let measured =
                        targets.once(load.name, target, Some(&broker.process), in_flight, amount).await?;
                    match rows.get_mut(place) {
                        Some(row) => row.add(measured),
                        None => rows.push(measured),
                    }
                }
            }
            let mut cells = String::new();
            let mut medians = Vec::new();
            for row in &mut rows {
                row.latencies.sort_unstable();
                row.calls_per_second.sort_unstable_by(f64::total_cmp);
                let median = row.calls_per_second[row.calls_per_second.len() / 2];
                let [p50, p99] = [0.5, 0.99].map(|share| quantile(&row.latencies, share).as_micros());
                write!(cells, " {median:.0} | {p50} | {p99} |")?;
                medians.push(median);
            }
            writeln!(table, "| {in_flight} | {} |{cells} {:.2} |", load.name, medians[1] / medians[0])?;
        }
    }
    Ok(table)
}

fn loads() -> [Load; 5] {
    let cached = |name, commit, telemetry| Load {
        name,
        commit,
        telemetry,
        request: kms::cached_request(),
        in_flight: &[1, 16, 64],
    };
    [
        cached("from the cache, `write`", "write", Telemetry::Off),
        cached("from the cache, `fsync`", "fsync", Telemetry::Off),
        cached("from the cache, `write`, 1 % of calls traced", "write", Telemetry::Sampled),
        cached("from the cache, `write`, every call traced", "write", Telemetry::Always),
        Load {
            name: "from KMS, `fsync`",
            commit: "fsync",
            telemetry: Telemetry::Off,
            request: kms::request(),
            in_flight: &[1, 16],
        },
    ]
}
