//! What it takes to verify a trail in a directory: records in a second by the clock and for each second of processor time (others may use
//! this machine), and memory; and to find a call in it with `audit find`, by a requestID of KMS in its first log file, in its last one, and
//! one that it does not have.
//!
//! `cargo bench --bench verify [-- MILLIONS OF RECORDS [USES OF A DATA KEY [THREADS]]]`

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use key_broker_core::clock::{Clock, SystemClock};
use key_broker_trail::TrailReader;
use key_broker_trail::bench::BenchTrail;
use key_broker_trail::delivery::StoreConfig;
use key_broker_trail::verify::{Verdict, VerifyOptions, verify};

fn main() {
    let told: Vec<u64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let records = told.first().map_or(RECORDS, |millions| millions * 1_000_000);
    let uses = told.get(1).map_or(vec![1_000, 1], |uses| vec![*uses]);
    let threads = told.get(2).map_or(vec![1, 2], |threads| vec![usize::try_from(*threads).expect("few")]);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(async {
        for uses_of_a_key in uses {
            one_trail(records, uses_of_a_key, &threads).await;
        }
    });
}

async fn one_trail(records: u64, uses_of_a_key: u64, threads: &[usize]) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = StoreConfig::Directory { root: dir.path().to_owned(), bucket: "logs".into() }.open().await;
    let made = BenchTrail::make(&*store, 1, records, uses_of_a_key, RECORDS_OF_A_FILE).await.remove(0);
    let reader = TrailReader::new(store, made.names.clone(), None);
    println!(
        "{} records of {} bytes, {uses_of_a_key} uses of a data key:",
        made.records,
        made.bytes / made.records
    );
    for threads in threads {
        let options = VerifyOptions {
            keys: vec![made.key.clone()],
            threads: Some(*threads),
            ..VerifyOptions::default()
        };
        let (before, started, busy) = (resident_kib(), SystemClock.instant(), processor_seconds());
        let report = verify(&reader, &options, &mut |_| {}).await;
        let (seconds, busy) = (started.elapsed().as_secs_f64(), processor_seconds() - busy);
        assert_eq!((report.verdict, report.records), (Verdict::Sound, made.records), "{report:?}");
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let (records, grown) = (made.records as f64, (peak_kib().saturating_sub(before)) as f64 / 1_024.0);
        println!(
            "  {threads} threads: {:.0} records in a second, {:.0} in one of processor time; memory grew by {grown:.0} MiB, with log \
             files of {} MiB",
            records / seconds,
            records / busy,
            made.largest >> 20
        );
    }
    let [first, last] = &made.ends;
    for (place, id) in [("first", first), ("last", last), ("no", &NOWHERE.to_owned())] {
        find(dir.path(), &made, id, place);
    }
}

/// By the program itself, as a person would.
fn find(store: &Path, made: &BenchTrail, id: &str, place: &str) {
    let own = tempfile::tempdir().expect("a directory");
    let (key, found) = (own.path().join("key.pem"), own.path().join("found.json"));
    fs::write(&key, made.key.to_pem()).expect("writes");
    let mut command = Command::new(env!("CARGO_BIN_EXE_key-broker"));
    command.args(["audit", "find", id, "--json", "--trail", &made.names.trail]);
    command.args(["--account", &made.names.account_id, "--region", &made.names.region]);
    command.args(["--bucket", &made.names.bucket]);
    command.arg("--store").arg(store).arg("--public-key").arg(&key);
    command.stdin(Stdio::null()).stdout(fs::File::create(&found).expect("creates"));
    let started = SystemClock.instant();
    let mut child = command.spawn().expect("starts");
    let mut peak = 0;
    let status = loop {
        // When it is gone, it has none.
        peak = peak.max(status_of(&child.id().to_string(), "VmHWM:").unwrap_or(0));
        if let Some(status) = child.try_wait().expect("runs") {
            break status;
        }
        thread::sleep(Duration::from_millis(5));
    };
    let seconds = started.elapsed().as_secs_f64();
    // Found, and vouched for; or 1, not found.
    assert_eq!(status.code(), Some(i32::from(id == NOWHERE)), "{}", found.display());
    let told = fs::read_to_string(&found).expect("reads");
    assert_eq!(told.matches("\"eventID\"").count() > 1, id != NOWHERE, "{told}");
    println!("  audit find, in {place} log file: {seconds:.2} s, {} MiB at the most", peak >> 10);
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
    status_of("self", name).expect("Linux")
}

fn status_of(process: &str, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

const RECORDS: u64 = 1_000_000;
/// Larger than a full one, to show what a record costs.
const RECORDS_OF_A_FILE: u64 = 40_000;
/// A requestID that is not random, and so no trail's.
const NOWHERE: &str = "00000000-0000-4000-8000-000000000000";
