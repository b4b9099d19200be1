//! What the broker costs: size, start, memory, and calls per second beside two things it cannot beat: a bare gRPC echo,
//! and the AWS SDK without a broker. docs/performance.md is made from this program's report.
//!
//! `cargo bench --bench serving` runs everything, `cargo bench --bench serving -- --quick` a short version, and with `--in-flight 1`
//! only the loads of so many calls in flight,
//! `cargo bench --bench serving -- --sustained 600` ten minutes of one load, with the trail delivered and verified, and
//! `cargo bench --bench serving -- --telemetry` what spans and metrics cost a cached call, and
//! `cargo bench --bench serving -- --beside PROGRAM` this broker beside another build of it, the release before, say.
//! Progress goes to stderr, the report to stdout, as Markdown.
//!
//! Broker, echo and emulator are processes of their own. The load comes from this process, on one thread and over one
//! connection, because it shares the cores with what it measures.

mod beside;
mod collector;
#[path = "../common/mod.rs"]
mod common;
mod memory;
mod report;
mod start;
mod sustained;
mod telemetry;
mod throughput;

use std::path::Path;
use std::time::Duration;

use broker::{Broker, Setup};
use common::{Failure, broker, echo, kms, load, machine, process, programs};
use kms::Emulator;
use machine::Machine;
use programs::Programs;
use report::Report;
use throughput::Targets;

/// How much to measure.
#[derive(Clone, Copy)]
struct Amount {
    starts: usize,
    memory_calls: u64,
    rounds: usize,
    round: Duration,
    warm_up: Duration,
    /// Only so many calls in flight; else as many as users have.
    in_flight: Option<usize>,
}

impl Amount {
    const FULL: Self = Self {
        starts: 20,
        memory_calls: 100_000,
        rounds: 5,
        round: Duration::from_secs(1),
        warm_up: Duration::from_millis(200),
        in_flight: None,
    };
    const QUICK: Self = Self {
        starts: 3,
        memory_calls: 3_000,
        rounds: 1,
        round: Duration::from_millis(200),
        warm_up: Duration::from_millis(50),
        in_flight: None,
    };
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [echo::ARGUMENT, socket, reply, threads] =
        arguments.iter().map(String::as_str).collect::<Vec<_>>()[..]
    {
        return echo::serve(Path::new(socket), Path::new(reply), threads.parse()?);
    }
    // `cargo bench` adds `--bench`; `cargo test --all-targets` runs this program too, without it.
    if !arguments.iter().any(|argument| argument == "--bench") {
        eprintln!("nothing to test here: `cargo bench --bench serving` measures");
        return Ok(());
    }
    if let Some(place) = arguments.iter().position(|argument| argument == "--sustained") {
        let seconds = arguments.get(place + 1).map_or(Ok(600), |seconds| seconds.parse())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        print!("{}", runtime.block_on(sustained::measure(Duration::from_secs(seconds)))?);
        return Ok(());
    }
    let mut amount =
        if arguments.iter().any(|argument| argument == "--quick") { Amount::QUICK } else { Amount::FULL };
    if let Some(place) = arguments.iter().position(|argument| argument == "--in-flight") {
        let calls = arguments.get(place + 1).ok_or("--in-flight needs a number of calls")?;
        amount.in_flight = Some(calls.parse()?);
    }
    if arguments.iter().any(|argument| argument == "--telemetry") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        print!("{}", runtime.block_on(telemetry_alone(amount))?);
        return Ok(());
    }
    if let Some(place) = arguments.iter().position(|argument| argument == "--beside") {
        let other =
            arguments.get(place + 1).ok_or("--beside needs the path of another key-broker program")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        print!("{}", runtime.block_on(beside_alone(Path::new(other), amount))?);
        return Ok(());
    }
    let report =
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(amount))?;
    print!("{report}");
    Ok(())
}

async fn telemetry_alone(amount: Amount) -> Result<String, Failure> {
    let programs = Programs::build()?;
    let emulator = Emulator::start(&programs)?;
    telemetry::measure(&programs, &emulator, amount).await
}

async fn beside_alone(other: &Path, amount: Amount) -> Result<String, Failure> {
    let programs = Programs::build()?;
    let emulator = Emulator::start(&programs)?;
    beside::measure(&programs, &emulator, other, amount).await
}

async fn measure(amount: Amount) -> Result<Report, Failure> {
    let programs = Programs::build_all()?;
    let machine = Machine::look(programs.dir())?;
    let emulator = Emulator::start(&programs)?;

    eprintln!("start: {} times", amount.starts);
    let starts = start::measure(&programs, &emulator, amount.starts).await?;

    eprintln!("memory: {} calls", amount.memory_calls);
    let memory = memory::measure(&programs, &emulator, amount.memory_calls).await?;

    let broker = Broker::start(&programs, &emulator, Setup::default()).await?;
    let reply = broker.client().await?.generate_data_key(kms::request()).await?.into_inner();
    drop(broker);

    let targets = Targets::start(&programs, &emulator, &reply).await?;
    let throughput = targets.measure(amount).await?;

    Ok(Report { machine, amount, binary_bytes: programs.broker_bytes()?, starts, memory, throughput })
}
