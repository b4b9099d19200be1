//! Where the program's time goes, as flame graphs: `cargo bench --bench flame` makes one of each load, and with names of loads only those.
//! The pictures are in target/flame; wide is what takes long, in samples of the processor's time.
//!
//! It takes Linux's `perf`, and inferno, which `tests/peers/install` installs. The broker is built with symbols and frame pointers.

#[path = "common/mod.rs"]
mod common;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::broker::{Broker, Setup};
use common::install::install;
use common::kms::{self, Emulator};
use common::load::{Grpc, Target, Until, run};
use common::programs::Programs;
use common::{Failure, root};
use key_broker_proto::v1::EncryptMessageRequest;
use rustix::process::{Pid, Signal, kill_process};

/// What the broker is given to do while it is sampled.
#[derive(Clone, Copy)]
enum Work {
    /// Cached data keys.
    Cached,
    /// Data keys that KMS makes.
    FromKms,
    /// Messages of so many bytes.
    Encrypt(usize),
    /// Its trail, by `audit verify`.
    Verify,
}

struct Load {
    name: &'static str,
    commit: &'static str,
    in_flight: usize,
    work: Work,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` adds `--bench`; `cargo test --all-targets` runs this program too, without it.
    if !arguments.iter().any(|argument| argument == "--bench") {
        eprintln!("nothing to test here: `cargo bench --bench flame` draws");
        return Ok(());
    }
    let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    if let Some(unknown) = names.iter().find(|name| !LOADS.iter().any(|load| load.name == **name)) {
        let known: Vec<&str> = LOADS.iter().map(|load| load.name).collect();
        return Err(format!("no load is called {unknown}: there are {}", known.join(", ")).into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(draw(
        LOADS.iter().filter(|load| names.is_empty() || names.iter().any(|name| *name == load.name)),
    ))
}

async fn draw(loads: impl Iterator<Item = &Load>) -> Result<(), Failure> {
    if !Command::new("perf")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
    {
        return Err("there is no perf: install it (Debian: linux-perf)".into());
    }
    let inferno = install("inferno")?.join("bin");
    let programs = Programs::build_for_profiles()?;
    let pictures = root()?.join("target/flame");
    fs::create_dir_all(&pictures)?;
    for load in loads {
        eprintln!("{}: {} seconds", load.name, SAMPLED.as_secs());
        let samples = pictures.join(format!("{}.perf", load.name));
        let picture = pictures.join(format!("{}.svg", load.name));
        load.sample(&programs, &samples).await?;
        fold(&inferno, load.name, &samples, &picture)?;
        fs::remove_file(samples)?;
        println!("{}", picture.display());
    }
    Ok(())
}

impl Load {
    async fn sample(&self, programs: &Programs, samples: &Path) -> Result<(), Failure> {
        let emulator = Emulator::start(programs)?;
        let setup = Setup { commit: self.commit, ..Setup::default() };
        let mut broker = Broker::start(programs, &emulator, setup).await?;
        let target = broker.target().await?;
        let process = broker.process.id();
        match self.work {
            Work::Cached => {
                let target = Grpc { request: kms::cached_request(), ..target };
                sampled(&target, self.in_flight, process, samples).await
            }
            Work::FromKms => sampled(&target, self.in_flight, process, samples).await,
            Work::Encrypt(bytes) => {
                sampled(&Messages { grpc: target, bytes }, self.in_flight, process, samples).await
            }
            Work::Verify => {
                let target = Grpc { request: kms::cached_request(), ..target };
                run(&target, self.in_flight, Until { calls: u64::MAX, time: WRITTEN }).await;
                drop(target);
                let pid = Pid::from_raw(i32::try_from(process)?).ok_or("a pid is not 0")?;
                kill_process(pid, Signal::TERM)?;
                broker.process.child().wait()?;
                verified(programs, broker.dir(), samples)
            }
        }
    }
}

/// Samples the process while it has the load.
async fn sampled<T: Target>(
    target: &T,
    in_flight: usize,
    process: u32,
    samples: &Path,
) -> Result<(), Failure> {
    run(target, in_flight, Until { calls: u64::MAX, time: WARM_UP }).await;
    let seconds = SAMPLED.as_secs().to_string();
    let mut perf = record(samples).args(["-p", &process.to_string(), "--", "sleep", &seconds]).spawn()?;
    run(target, in_flight, Until { calls: u64::MAX, time: SAMPLED }).await;
    if perf.wait()?.success() { Ok(()) } else { Err(NOT_SAMPLED.into()) }
}

/// Samples `audit verify` of the trail of a broker whose files are in `dir`.
fn verified(programs: &Programs, dir: &Path, samples: &Path) -> Result<(), Failure> {
    let mut perf = record(samples);
    perf.arg("--").arg(programs.path("key-broker"));
    Broker::verify(&mut perf, dir);
    let status = perf.status()?;
    if status.success() {
        Ok(())
    } else {
        Err("audit verify does not find the trail sound, or is not sampled".into())
    }
}

fn record(samples: &Path) -> Command {
    let mut perf = Command::new("perf");
    perf.args(["record", "--quiet", "--freq", "1999", "--call-graph", "fp", "--output"]).arg(samples);
    perf.stdout(Stdio::null());
    perf
}

/// Draws the samples.
fn fold(inferno: &Path, title: &str, samples: &Path, picture: &Path) -> Result<(), Failure> {
    let mut script = Command::new("perf")
        .args(["script", "--no-inline", "--input"])
        .arg(samples)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut collapse = Command::new(inferno.join("inferno-collapse-perf"))
        .stdin(script.stdout.take().ok_or("perf has an output")?)
        .stdout(Stdio::piped())
        .spawn()?;
    let drawn = Command::new(inferno.join("inferno-flamegraph"))
        .args(["--title", title])
        .stdin(collapse.stdout.take().ok_or("inferno has an output")?)
        .stdout(File::create(picture)?)
        .status()?;
    let is_whole = script.wait()?.success() & collapse.wait()?.success() & drawn.success();
    if is_whole { Ok(()) } else { Err(format!("{title} cannot be drawn").into()) }
}

/// Encrypts messages.
#[derive(Clone)]
struct Messages {
    grpc: Grpc,
    bytes: usize,
}

impl Target for Messages {
    async fn call(&mut self) {
        let of_a_key = kms::cached_request();
        let request = EncryptMessageRequest {
            key_id: of_a_key.key_id,
            encryption_context: of_a_key.encryption_context,
            plaintext: vec![0; self.bytes].into(),
            ..EncryptMessageRequest::default()
        };
        self.grpc.client.encrypt_message(request).await.expect("every call is answered");
    }
}

const LOADS: [Load; 6] = [
    Load { name: "cached", commit: "write", in_flight: 64, work: Work::Cached },
    Load { name: "cached-fsync", commit: "fsync", in_flight: 64, work: Work::Cached },
    Load { name: "from-kms", commit: "fsync", in_flight: 16, work: Work::FromKms },
    Load { name: "encrypt-1-kib", commit: "fsync", in_flight: 64, work: Work::Encrypt(1 << 10) },
    Load { name: "encrypt-1-mib", commit: "fsync", in_flight: 4, work: Work::Encrypt(1 << 20) },
    Load { name: "verify", commit: "write", in_flight: 64, work: Work::Verify },
];
const WARM_UP: Duration = Duration::from_millis(500);
const SAMPLED: Duration = Duration::from_secs(5);
/// How long a trail is written before it is verified.
const WRITTEN: Duration = Duration::from_secs(10);
const NOT_SAMPLED: &str =
    "perf cannot sample the broker: see its words above, and kernel.perf_event_paranoid";
