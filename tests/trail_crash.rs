//! Proves, with the real program killed two hundred times under load: every reply and refusal that reached a caller is in
//! exactly one delivered log file, none is there twice, every log file is in exactly one signed digest, and the journal's chain
//! runs through all of them without a gap.

#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use key_broker_client::{Client, GenerateDataKey};
use key_broker_core::clock::{Clock as _, SystemClock};
use kms_emulator::Call;
use peers::{check_records, validate_logs};
use rustix::process::Signal;
use support::dice::Dice;
use support::formats::files;
use support::load::Load;
use support::process::Process;
use support::site::Site;
use support::trail::objects;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn two_hundred_kills_lose_no_record_and_double_none() {
    let mut dice = Dice::of_this_run();
    let site = Site::new().await;
    let load = Load::start(&site.socket(), CALLERS, PAUSE, &mut dice);
    let (mut kills, mut cuts) = (Vec::new(), Cuts::default());
    for round in 0..ROUNDS {
        let commit = if round % 5 == 4 { "write" } else { "fsync" };
        let config = site.config(&format!("commit = \"{commit}\"\n{REUSE}"));
        let process =
            Process::spawn(&["serve", "--config", config.to_str().expect("a path")], site.dir.path());
        let (dir, moment) = (site.dir.path().to_owned(), Moment::of(round, &mut dice));
        let killed = tokio::task::spawn_blocking(move || {
            moment.wait(&process, &dir);
            process.kill();
            unix_millis()
        });
        kills.push(killed.await.expect("killed"));
        cuts.look(site.dir.path());
    }
    let config = site.config(&format!("commit = \"fsync\"\n{REUSE}"));
    let last = Process::serve(&config);
    let client = Client::unix(site.socket()).await.expect("listens");
    client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect("a key");
    let seen = load.stop().await;
    last.signal(Signal::TERM);
    assert!(last.wait().success());

    assert!(seen.refused.is_empty(), "the journal always could commit: {:?}", seen.refused);
    let delivered = site.assert_accounts_for(&seen);
    support::site::Site::verify(&config);
    let cut_off = cut_off(delivered.unrecorded(site.emulator.calls()), &kills);
    println!(
        "{ROUNDS} kills: {} told, {} of them answers; {} records in {} log files and {} digests; \
         {cuts:?}; torn bytes {}; {cut_off} kills took answers of KMS \
         with them before anybody had them",
        seen.told.len(),
        seen.answered(),
        delivered.records.len(),
        delivered.log_files,
        delivered.digests,
        delivered.told_of_journal("tornBytes"),
    );
    assert!(seen.answered() > 10 * ROUNDS, "there was load");
    assert!(
        cuts.while_writing + cuts.stored_not_noted + cuts.sealed > 5,
        "deliveries were cut off: {cuts:?}"
    );
    tokio::task::spawn_blocking(move || {
        check_records(&delivered.texts);
        validate_logs(&site.store(), &site.key.to_pem(), delivered.digests, delivered.log_files);
    })
    .await
    .expect("judged");
}

/// When to kill.
#[derive(Debug)]
enum Moment {
    /// So long after the start: most of it is spent before it serves.
    Starting(Duration),
    /// So long after it serves.
    Serving(Duration),
    /// So long after a delivery began: the journal's file was closed.
    Delivering(Duration),
    /// So long after the first bytes of an object, or of the trail's state, were written.
    Storing(Duration),
    /// So long after a log file was noted as delivered.
    Noted(Duration),
    /// So long after the next digest was sealed, before or after it is signed and stored.
    Sealed(Duration),
    /// So long after everything was delivered.
    Delivered(Duration),
}

impl Moment {
    fn of(round: usize, dice: &mut Dice) -> Self {
        let mut within = |millis: u64| Duration::from_micros(dice.below(millis * 1_000));
        match round % 16 {
            2 | 9 => Self::Starting(within(120)),
            4 => Self::Delivering(within(60)),
            6 | 13 => Self::Storing(within(2)),
            8 => Self::Noted(within(60)),
            11 => Self::Sealed(within(20)),
            14 => Self::Delivered(within(20)),
            _ => Self::Serving(within(250)),
        }
    }

    /// Blocks until it is there.
    fn wait(&self, process: &Process, dir: &Path) {
        let (journal, state) = (dir.join("journal"), dir.join("journal/trail.json"));
        if let Self::Starting(rest) = self {
            std::thread::sleep(*rest);
            return;
        }
        process.wait_for_log("\"serving\"");
        let files = || files(&journal).unwrap_or_default();
        let newest = || files().last().map(|file| file.number);
        let noted = || fs::metadata(&state).ok().map(|metadata| metadata.ino());
        let sealed = || fs::read_to_string(&state).is_ok_and(|text| text.contains("\"sealed\":{"));
        let all_delivered = || files().iter().all(|file| file.closed_at.is_none());
        let (newest_now, noted_now) = (newest(), noted());
        let rest = match self {
            Self::Starting(rest) | Self::Serving(rest) => rest,
            Self::Delivering(rest) => soon(rest, || newest() != newest_now),
            Self::Storing(rest) => soon(rest, || has_unfinished(dir)),
            Self::Noted(rest) => soon(rest, || noted() != noted_now),
            Self::Sealed(rest) => {
                soon(rest, || !sealed());
                soon(rest, sealed)
            }
            Self::Delivered(rest) => soon(rest, || all_delivered() && !sealed()),
        };
        std::thread::sleep(*rest);
    }
}

/// Looks all the time, for at most five seconds: a digest is made every two.
fn soon(rest: &Duration, mut is_there: impl FnMut() -> bool) -> &Duration {
    let until = SystemClock.instant() + Duration::from_secs(5);
    while !is_there() && SystemClock.instant() < until {
        std::thread::sleep(Duration::from_micros(50));
    }
    rest
}

/// What kills cut off.
#[derive(Debug, Default)]
struct Cuts {
    /// An object, or the state of the trail, half written.
    while_writing: usize,
    /// An object that was stored, and not yet noted.
    stored_not_noted: usize,
    /// A digest whose contents were fixed, and which was not yet noted as delivered.
    sealed: usize,
}

impl Cuts {
    fn look(&mut self, dir: &Path) {
        let state = dir.join("journal/trail.json");
        let Ok(text) = fs::read_to_string(&state) else { return };
        let noted_at = fs::metadata(&state).and_then(|metadata| metadata.modified()).expect("a time");
        let newest = objects(&dir.join("trail")).into_values().filter_map(|path| fs::metadata(path).ok());
        let newest = newest.filter_map(|metadata| metadata.modified().ok()).max();
        self.while_writing += usize::from(has_unfinished(dir));
        self.sealed += usize::from(text.contains("\"sealed\":{"));
        self.stored_not_noted += usize::from(newest.is_some_and(|newest| newest > noted_at));
    }
}

fn has_unfinished(dir: &Path) -> bool {
    fs::read_dir(dir).into_iter().flatten().any(|entry| {
        let path = entry.expect("an entry").path();
        path.extension() == Some("unfinished".as_ref()) || (path.is_dir() && has_unfinished(&path))
    })
}

/// An answer of KMS that has no record is one that a kill caught between KMS and the journal: its caller never got it. Returns the
/// number of such kills.
fn cut_off(unrecorded: Vec<Call>, killed_at: &[u64]) -> usize {
    let mut missing = BTreeMap::<u64, u64>::new();
    for call in unrecorded {
        let kill = killed_at.iter().find(|at| **at >= call.at);
        let kill = kill.unwrap_or_else(|| panic!("nobody was killed after {call:?}"));
        assert!(kill - call.at < LONGEST_CALL, "it was committed, or refused, before the kill: {call:?}");
        *missing.entry(*kill).or_default() += 1;
    }
    // One for each caller, and two that refresh ahead for each tenant.
    assert!(missing.values().all(|calls| *calls <= CALLERS + 6), "no more were under way: {missing:?}");
    missing.len()
}

fn unix_millis() -> u64 {
    u64::try_from(std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis()).expect("soon enough")
}

const ROUNDS: usize = 200;
/// In milliseconds: an answer of KMS, and `commit_wait_ms`.
const LONGEST_CALL: u64 = 3_000;
const CALLERS: u64 = 6;
/// The load is to be there, not to be heavy: all its records are read and judged one by one.
const PAUSE: Duration = Duration::from_millis(40);
/// Entries wear out and are refreshed ahead within a round.
const REUSE: &str = "[reuse]\nmax_messages = 20\n";
