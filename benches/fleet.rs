//! What it takes to judge many trails in one bucket: `key-broker audit verify --all-trails`, and the promise about reuse as SQL on DuckDB, over
//! the same log files, one after the other. Time by the clock, processor time, and peak memory of the whole process.
//!
//! `cargo bench --bench fleet [-- TRAILS [THOUSANDS OF RECORDS IN EACH [FOLDER]]]`
//!
//! DuckDB comes from `tests/peers/install duckdb`. What is made stays in FOLDER if one is given, with the page of `--html`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use key_broker_core::clock::{Clock, SystemClock};
use key_broker_trail::bench::BenchTrail;
use key_broker_trail::delivery::StoreConfig;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let told: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |place: usize, usual: u64| told.get(place).map_or(Ok(usual), |told| told.parse());
    let (trails, thousands) = (number(0, 1_000)?, number(1, 10)?);
    let temporary = tempfile::tempdir()?;
    let folder = told.get(2).map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let records = tokio::runtime::Builder::new_current_thread().build()?.block_on(make(
        &folder,
        usize::try_from(trails)?,
        thousands * 1_000,
    ))?;
    println!("{trails} trails, {} records, {} MB compressed:", records, bytes_below(&folder)? / 1_000_000);

    let mut verify = Command::new(env!("CARGO_BIN_EXE_key-broker"));
    verify.args(["audit", "verify", "--all-trails", "--store"]).arg(&folder);
    verify.args(["--bucket", "logs", "--account", "111122223333", "--region", "us-west-2"]);
    verify.arg("--public-key").arg(folder.join(KEY)).arg("--html").arg(folder.join("page.html"));
    measured("audit verify --all-trails", &mut verify)?;

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).ok_or("no repository")?;
    let python = std::env::var_os("PEERS_DIR").map_or_else(|| root.join("target/peers"), PathBuf::from);
    let mut duckdb = Command::new(python.join("duckdb/bin/python"));
    duckdb.arg(root.join("tests/judges/views-on-duckdb"));
    duckdb.arg(folder.join("logs/AWSLogs/111122223333/CloudTrail"));
    measured("DuckDB, broken promises", duckdb.arg("SELECT count(*) FROM key_broker_broken_promises"))
}

async fn make(folder: &Path, trails: usize, records: u64) -> Result<u64, Failure> {
    let store = StoreConfig::Directory { root: folder.to_owned(), bucket: "logs".into() }.open().await;
    // Twelve log files with some twenty data keys, each used some fifty times.
    let made = BenchTrail::make(&*store, trails, records, 49, records / 12).await;
    fs::write(folder.join(KEY), made.first().ok_or("no trails")?.key.to_pem())?;
    Ok(made.iter().map(|made| made.records).sum())
}

/// Runs it to its end, and prints what it took, as it was a moment before that.
fn measured(name: &str, command: &mut Command) -> Result<(), Failure> {
    let started = SystemClock.instant();
    let mut child = command.stdout(Stdio::null()).spawn()?;
    let (mut peak, mut busy) = (0, 0.0);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        (peak, busy) = (peak_kib(child.id()).unwrap_or(peak), processor_seconds(child.id()).unwrap_or(busy));
        std::thread::sleep(Duration::from_millis(50));
    };
    println!(
        "  {name}: {:.1} s, {busy:.1} s of processor time, {} MiB at most, {status}",
        started.elapsed().as_secs_f64(),
        peak / 1_024
    );
    Ok(())
}

/// `None` once it has ended.
fn peak_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Of all its threads, in user and kernel; `USER_HZ` is 100 on every Linux that this builds for.
fn processor_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    ticks.sum::<Result<f64, _>>().ok().map(|ticks| ticks / 100.0)
}

fn bytes_below(folder: &Path) -> Result<u64, Failure> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_below(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// The public key of all trails.
const KEY: &str = "signing.pem";
