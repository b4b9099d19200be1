//! One load for minutes, with everything that goes on beside it: log files are compressed and delivered, digests signed. Then the
//! trail is verified.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::Failure;
use crate::broker::{Broker, Setup};
use crate::kms::{self, Emulator};
use crate::load::{Grpc, Until, quantile, run};
use crate::machine::now;
use crate::process::{Cpu, Memory};
use crate::programs::Programs;

/// What came of it.
pub(crate) struct Sustained {
    windows: Vec<Window>,
    calls: u64,
    /// Of the broker: all, the journal's thread, and the threads that deliver.
    cpu: [Duration; 3],
    drain: Duration,
    log_files: u64,
    compressed_bytes: u64,
    verified: Verified,
}

/// Some seconds of it.
struct Window {
    calls_per_second: f64,
    p50: Duration,
    p99: Duration,
    memory: Memory,
    journal_bytes: u64,
    log_files: u64,
}

struct Verified {
    took: Duration,
    peak_kilobytes: u64,
    verdict: String,
}

pub(crate) async fn measure(time: Duration) -> Result<Sustained, Failure> {
    let programs = Programs::build()?;
    let emulator = Emulator::start(&programs)?;
    let mut broker = Broker::start(&programs, &emulator, Setup::default()).await?;
    let target = Grpc { request: kms::cached_request(), ..broker.target().await? };
    let trail = broker.dir().join("trail");
    let (mut windows, mut calls) = (Vec::new(), 0);
    let before = Cpu::of(&broker.process.id().to_string())?;
    let end = now() + time;
    while now() < end {
        let sample = run(&target, IN_FLIGHT, Until { calls: u64::MAX, time: WINDOW }).await;
        let calls_per_second = sample.calls_per_second();
        let mut latencies = sample.latencies;
        latencies.sort_unstable();
        calls += latencies.len() as u64;
        let window = Window {
            calls_per_second,
            p50: quantile(&latencies, 0.5),
            p99: quantile(&latencies, 0.99),
            memory: broker.process.memory()?,
            journal_bytes: below(&broker.dir().join("journal"))?.1,
            log_files: below(&trail)?.0,
        };
        eprintln!("  {window}");
        windows.push(window);
    }
    let spent = Cpu::of(&broker.process.id().to_string())? - &before;
    let thread = |name: &str| spent.0.get(name).map_or(Duration::ZERO, |times| times.total());
    let cpu = [spent.total().total(), thread("journal"), thread("tokio-rt-worker")];
    drop(target);
    let began = now();
    let pid = Pid::from_raw(i32::try_from(broker.process.id())?).ok_or("a pid is not 0")?;
    kill_process(pid, Signal::TERM)?;
    broker.process.child().wait()?;
    let drain = began.elapsed();
    let (log_files, compressed_bytes) = below(&trail)?;
    let verified = verify(&programs, broker.dir())?;
    Ok(Sustained { windows, calls, cpu, drain, log_files, compressed_bytes, verified })
}

fn verify(programs: &Programs, dir: &Path) -> Result<Verified, Failure> {
    eprintln!("verifying");
    let began = now();
    let mut command = Command::new(programs.path("key-broker"));
    Broker::verify(&mut command, dir);
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut peak_kilobytes = 0;
    while child.try_wait()?.is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next());
        peak_kilobytes = peak.and_then(|peak| peak.parse().ok()).unwrap_or(peak_kilobytes);
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = began.elapsed();
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let verdict = text.lines().last().unwrap_or_default().to_owned();
    if !output.status.success() {
        return Err(format!("the trail is not sound: {text}").into());
    }
    Ok(Verified { took, peak_kilobytes, verdict })
}

/// The number of `.gz` files below a directory, and the bytes of all files.
fn below(dir: &Path) -> Result<(u64, u64), Failure> {
    let (mut files, mut bytes) = (0, 0);
    let Ok(entries) = fs::read_dir(dir) else { return Ok((0, 0)) };
    for entry in entries {
        let path = entry?.path();
        // What the broker removes meanwhile is not there any more.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_dir() {
            let (more, size) = below(&path)?;
            (files, bytes) = (files + more, bytes + size);
        } else {
            files += u64::from(path.extension() == Some("gz".as_ref()));
            bytes += metadata.len();
        }
    }
    Ok((files, bytes))
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls_per_second, p50, p99, memory, journal_bytes, log_files } = self;
        write!(
            f,
            "| {calls_per_second:.0} | {} | {} | {} | {} | {} | {log_files} |",
            p50.as_micros(),
            p99.as_micros(),
            memory.resident >> 10,
            memory.anonymous >> 10,
            journal_bytes >> 20,
        )
    }
}

impl fmt::Display for Sustained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.windows.len() as u64 * WINDOW.as_secs();
        writeln!(f, "## {seconds} seconds, {IN_FLIGHT} in flight, from the cache, `fsync`, delivered\n")?;
        writeln!(
            f,
            "| calls/s | p50 µs | p99 µs | resident MiB | of it anonymous | journal MiB | log files |\n|--:|--:|--:|--:|--:|--:|--:|"
        )?;
        for window in &self.windows {
            writeln!(f, "{window}")?;
        }
        let calls = self.calls.max(1);
        let each = |time: Duration| time.as_nanos() / u128::from(calls);
        writeln!(f, "\n{calls} calls. Processor time of the broker a call: {} ns, of it", each(self.cpu[0]))?;
        writeln!(f, "the journal's thread {} ns, delivery {} ns.", each(self.cpu[1]), each(self.cpu[2]))?;
        writeln!(
            f,
            "{} log files and digests, {} bytes compressed a record; drained in {} ms.",
            self.log_files,
            self.compressed_bytes / calls,
            self.drain.as_millis()
        )?;
        let Verified { took, peak_kilobytes, verdict } = &self.verified;
        let rate = u128::from(calls) * 1_000 / took.as_millis().max(1);
        writeln!(
            f,
            "Verified in {:.1} s: {rate} records/s, peak {} MiB. {verdict}",
            took.as_secs_f64(),
            peak_kilobytes >> 10
        )
    }
}

const IN_FLIGHT: usize = 64;
const WINDOW: Duration = Duration::from_secs(10);
