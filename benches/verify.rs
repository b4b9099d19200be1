//! What it takes to verify a trail in a directory: records for each second of processor time (others may use this machine), and
//! memory.
//!
//! `cargo bench --bench verify`

use std::fs;

use key_broker_core::clock::{Clock, SystemClock};
use key_broker_trail::TrailReader;
use key_broker_trail::bench::BenchTrail;
use key_broker_trail::delivery::StoreConfig;
use key_broker_trail::verify::{Verdict, VerifyOptions, verify};

fn main() {
    // Reading and checking take turns on few threads: processor time is what counts.
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build();
    runtime.expect("a runtime").block_on(async {
        for uses_of_a_key in [1_000, 1] {
            one_trail(uses_of_a_key).await;
        }
    });
}

async fn one_trail(uses_of_a_key: u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = StoreConfig::Directory { root: dir.path().to_owned(), bucket: "logs".into() }.open().await;
    let made = BenchTrail::make(&*store, RECORDS, uses_of_a_key).await;
    let reader = TrailReader::new(store, made.names, None);
    let options = VerifyOptions { keys: vec![made.key], ..VerifyOptions::default() };
    let (before, started, busy) = (resident_kib(), SystemClock.instant(), processor_seconds());
    let report = verify(&reader, &options, &mut |_| {}).await;
    let (seconds, busy) = (started.elapsed().as_secs_f64(), processor_seconds() - busy);
    assert_eq!((report.verdict, report.records), (Verdict::Sound, made.records), "{report:?}");
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let (records, grown) = (made.records as f64, (peak_kib().saturating_sub(before)) as f64 / 1_024.0);
    println!(
        "{records} records of {} bytes, {uses_of_a_key} uses of a data key: {:.0} records in a second of processor time, {:.0} in one \
         by the clock; memory grew by {grown:.0} MiB, with two log files of {} MiB",
        made.bytes / made.records,
        records / busy,
        records / seconds,
        made.largest >> 20
    );
}

/// Of all threads, in user and kernel.
fn processor_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let ticks: Vec<f64> =
        fields.split_whitespace().skip(11).take(2).map(|n| n.parse().expect("ticks")).collect();
    // USER_HZ is 100 on every Linux that this builds for.
    ticks.iter().sum::<f64>() / 100.0
}

fn resident_kib() -> u64 {
    // Forgets the peak so far.
    let _ = fs::write("/proc/self/clear_refs", "5");
    status("VmRSS:")
}

fn peak_kib() -> u64 {
    status("VmHWM:")
}

fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

const RECORDS: u64 = 1_000_000;
