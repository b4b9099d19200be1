//! What one would take instead of the broker, and what each costs: calls per second and latencies in one run on one machine, beside what
//! bounds them, a bare gRPC echo and the disk's own `fdatasync`.
//!
//! `cargo bench --bench peers` measures everything and draws docs/performance-peers.svg; `cargo bench --bench peers -- --quick` takes one short
//! round of each, and draws nothing. Progress goes to stderr, the report to stdout, as Markdown.
//!
//! What is installed for it comes through `tests/peers/install`. What cannot be installed is missing from the figures, and the report says
//! so.

#[path = "../common/mod.rs"]
mod common;
mod contenders;
mod loader;
mod openbao;
mod picture;
mod report;
mod rounds;
mod syncs;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::{Failure, kms::Emulator, machine::Machine, programs::Programs, root};
use common::{echo, install};
use contenders::Stage;
use report::Report;

/// How much to measure.
#[derive(Clone, Copy)]
struct Amount {
    rounds: usize,
    round: Duration,
    /// Before each round.
    warm_up: Duration,
    /// Once, for what compiles itself while it runs.
    start: Duration,
}

impl Amount {
    const FULL: Self = Self {
        rounds: 5,
        round: Duration::from_millis(500),
        warm_up: Duration::from_millis(150),
        start: Duration::from_secs(2),
    };
    const QUICK: Self = Self {
        rounds: 1,
        round: Duration::from_millis(100),
        warm_up: Duration::from_millis(50),
        start: Duration::from_millis(100),
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
        eprintln!("nothing to test here: `cargo bench --bench peers` measures");
        return Ok(());
    }
    let is_quick = arguments.iter().any(|argument| argument == "--quick");
    let amount = if is_quick { Amount::QUICK } else { Amount::FULL };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(measure(amount))?;
    print!("{report}");
    if !is_quick {
        let path = root()?.join("docs/performance-peers.svg");
        fs::write(&path, picture::draw(&report.rows))?;
        eprintln!("drawn: {}", path.display());
    }
    Ok(())
}

async fn measure(amount: Amount) -> Result<Report, Failure> {
    let programs = Programs::build()?;
    let machine = Machine::look(programs.dir())?;
    let emulator = Emulator::start(&programs)?;
    let stage = Stage::start(&programs, &emulator).await?;
    let contenders = stage.contenders().await?;
    let rows = rounds::measure(contenders, amount).await;
    Ok(Report { machine, amount, rows })
}
