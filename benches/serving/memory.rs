//! What the broker has in memory: at rest, and after many calls.

use std::time::Duration;

use crate::Failure;
use crate::broker::{Broker, Setup};
use crate::kms::Emulator;
use crate::load::{Until, run};
use crate::process::Memory;
use crate::programs::Programs;

/// Memory at three moments of one process.
pub(crate) struct Moments {
    pub(crate) started: Memory,
    pub(crate) after_one_call: Memory,
    pub(crate) after_all_calls: Memory,
}

/// `calls` in all, each asked of KMS, a third each with 1, 16 and 64 in flight.
pub(crate) async fn measure(
    programs: &Programs,
    emulator: &Emulator,
    calls: u64,
) -> Result<Moments, Failure> {
    let broker = Broker::start(programs, emulator, Setup::default()).await?;
    tokio::time::sleep(SETTLE).await;
    let started = broker.process.memory()?;
    let target = broker.target().await?;
    run(&target, 1, Until { calls: 1, time: LONGEST }).await;
    tokio::time::sleep(SETTLE).await;
    let after_one_call = broker.process.memory()?;
    for in_flight in [1, 16, 64] {
        let sample = run(&target, in_flight, Until { calls: calls / 3, time: LONGEST }).await;
        eprintln!("  {} calls with {in_flight} in flight", sample.latencies.len());
    }
    drop(target);
    tokio::time::sleep(SETTLE).await;
    Ok(Moments { started, after_one_call, after_all_calls: broker.process.memory()? })
}

const SETTLE: Duration = Duration::from_millis(300);
/// Bounds the run on a slow disk.
const LONGEST: Duration = Duration::from_mins(2);
