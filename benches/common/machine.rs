//! What the figures depend on: the machine, its disk, and the clock.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Failure;
use super::load::quantile;

/// The machine, as its kernel tells.
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) load_average: String,
    /// `write` and `fdatasync` of two records, median and p99.
    pub(crate) sync: (Duration, Duration),
}

impl Machine {
    pub(crate) fn look(dir: &Path) -> Result<Self, Failure> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Ok(Self {
            processor: model.map_or_else(|| "unknown".into(), |(_, name)| name.to_owned()),
            cores: std::thread::available_parallelism()?.get(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            load_average: fs::read_to_string("/proc/loadavg")?
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
            sync: sync_latency(dir)?,
        })
    }
}

/// The one place that reads the clock.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// What the journal waits for, without the journal.
fn sync_latency(dir: &Path) -> Result<(Duration, Duration), Failure> {
    let path = dir.join("sync");
    let mut file = File::options().append(true).create_new(true).open(&path)?;
    let mut latencies = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let began = now();
        file.write_all(&[b'x'; TWO_RECORDS])?;
        file.sync_data()?;
        latencies.push(began.elapsed());
    }
    fs::remove_file(path)?;
    latencies.sort_unstable();
    Ok((quantile(&latencies, 0.5), quantile(&latencies, 0.99)))
}

const SYNCS: usize = 500;
/// An activity record and a KMS record, in bytes.
const TWO_RECORDS: usize = 2_048;
