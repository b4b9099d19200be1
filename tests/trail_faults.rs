//! Proves, with faults of the operating system injected into the real program under load: while the journal cannot commit, calls
//! are refused within the bounded wait and health says so; whatever fails and however often, no record of a reply, of a refusal or
//! of an answer of KMS is lost or doubled; and service and delivery resume by themselves.

#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::time::Duration;

use key_broker_client::Client;
use peers::Peers;
use rustix::process::Signal;
use support::delivered::Delivered;
use support::dice::Dice;
use support::eventually;
use support::faults::Faults;
use support::load::{Load, Seen};
use support::process::Process;
use support::site::Site;

/// A broker under load whose system calls fail when a test says so.
struct Faulty {
    site: Site,
    broker: Process,
    faults: Faults,
    load: Load,
    health: Client,
}

impl Faulty {
    async fn start() -> Self {
        tokio::task::spawn_blocking(|| Peers::install(&["fiu"])).await.expect("libfiu can be had");
        let site = Site::new().await;
        let config = site.config("[reuse]\nmax_messages = 20\n");
        let mut command = Process::serve_command(&config);
        let faults = Faults::in_reach_of(&mut command, site.dir.path());
        let broker = Process::serve_by(command, &config);
        let load = Load::start(&site.socket(), 6, Duration::from_millis(20), &mut Dice::of_this_run());
        let health = Client::unix(site.socket()).await.expect("listens");
        let started = Self { site, broker, faults, load, health };
        tokio::time::sleep(Duration::from_millis(300)).await;
        started
    }

    /// `posix/io/` and each of `names` fails with the error number `errno`, in `percent` of its calls.
    fn fail(&self, names: &[&str], errno: i32, percent: u32) {
        let chance = f64::from(percent) / 100.0;
        let order = |name: &&str| match percent {
            100 => format!("enable name=posix/io/{name},failinfo={errno}"),
            _ => format!("enable_random name=posix/io/{name},failinfo={errno},probability={chance}"),
        };
        self.faults.order(self.broker.pid(), &names.iter().map(order).collect::<Vec<_>>());
    }

    fn mend(&self, names: &[&str]) {
        let order = |name: &&str| format!("disable name=posix/io/{name}");
        self.faults.order(self.broker.pid(), &names.iter().map(order).collect::<Vec<_>>());
    }

    async fn is_serving_in_time(&self, wanted: bool) -> bool {
        for _ in 0..600 {
            if self.health.is_serving().await.is_ok_and(|serving| serving == wanted) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// Everything fails for a while, then nothing does. Returns what was seen and what was delivered.
    async fn through(
        self,
        names: &[&str],
        errno: i32,
        percent: u32,
        how_long: Duration,
    ) -> (Seen, Delivered) {
        self.fail(names, errno, percent);
        tokio::time::sleep(how_long).await;
        self.mend(names);
        self.end().await
    }

    /// Service resumes by itself; then everything is accounted for.
    async fn end(self) -> (Seen, Delivered) {
        assert!(self.is_serving_in_time(true).await, "resumes by itself: {}", self.broker.log());
        tokio::time::sleep(Duration::from_millis(300)).await;
        eventually("load", || self.load.answered() > 60).await;
        let Self { site, broker, load, .. } = self;
        let seen = load.stop().await;
        broker.signal(Signal::TERM);
        assert!(broker.wait().success());
        let delivered = site.assert_accounts_for(&seen);
        let unrecorded = delivered.unrecorded(site.emulator.calls());
        assert!(unrecorded.is_empty(), "every answer of KMS has its record: {unrecorded:?}");
        support::site::Site::verify(&site.config(""));
        println!(
            "{} told, {} refused; {} records in {} log files and {} digests",
            seen.told.len(),
            seen.refused.len(),
            delivered.records.len(),
            delivered.log_files,
            delivered.digests
        );
        (seen, delivered)
    }
}

/// What keeps the journal from committing.
async fn a_journal_that_cannot_commit_refuses_and_resumes(names: &[&str], errno: i32) {
    let faulty = Faulty::start().await;
    faulty.fail(names, errno, 100);
    assert!(faulty.is_serving_in_time(false).await, "health says so");
    let client = faulty.health.clone();
    for _ in 0..5 {
        let error = client.generate_random(8).await.expect_err("the journal cannot commit");
        assert_eq!((error.code(), error.reason()), (tonic::Code::Unavailable, Some("JOURNAL_UNAVAILABLE")));
    }
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    faulty.mend(names);
    let (seen, _) = faulty.end().await;
    assert!(seen.refused.len() > 20, "{}", seen.refused.len());
    let longest = seen.refused.iter().map(|refusal| refusal.took).max().expect("some");
    // `commit_wait_ms` and a slow machine's share.
    assert!(longest < Duration::from_secs(4), "{longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn syncing_that_fails() {
    a_journal_that_cannot_commit_refuses_and_resumes(&["sync/*"], EIO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn writing_that_fails_with_a_full_disk() {
    a_journal_that_cannot_commit_refuses_and_resumes(&["rw/pwrite"], ENOSPC).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn writing_that_fails_and_what_was_written_that_cannot_be_cut_off() {
    a_journal_that_cannot_commit_refuses_and_resumes(&["sync/fdatasync", "rw/ftruncate", "dir/rename"], EIO)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn syncing_that_fails_now_and_then() {
    let faulty = Faulty::start().await;
    let (seen, _) = faulty.through(&["sync/*"], EIO, 10, WHILE).await;
    assert!(!seen.refused.is_empty() && seen.answered() > 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn writing_that_fails_now_and_then_or_is_cut_short() {
    let faulty = Faulty::start().await;
    // Parts of a batch are written before the rest fails.
    faulty.fail(&["rw/pwrite/reduce"], 0, 50);
    let (seen, _) = faulty.through(&["rw/pwrite"], ENOSPC, 20, WHILE).await;
    assert!(!seen.refused.is_empty() && seen.answered() > 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn renaming_that_fails_holds_up_no_call() {
    let faulty = Faulty::start().await;
    let (seen, _) = faulty.through(&["dir/rename"], EIO, 100, WHILE).await;
    assert!(seen.refused.is_empty() && seen.answered() > 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn opening_that_fails() {
    let faulty = Faulty::start().await;
    let (seen, _) = faulty.through(&["oc/open"], EMFILE, 100, WHILE).await;
    assert!(!seen.refused.is_empty(), "no next file of the journal can be begun");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn removing_that_fails_delivers_nothing_twice() {
    let faulty = Faulty::start().await;
    let (seen, _) = faulty.through(&["dir/unlink"], EIO, 100, WHILE).await;
    assert!(seen.refused.is_empty() && seen.answered() > 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn everything_that_fails_now_and_then() {
    let faulty = Faulty::start().await;
    let all = [
        "sync/*",
        "rw/pwrite",
        "rw/pwrite/reduce",
        "rw/ftruncate",
        "oc/open",
        "dir/rename",
        "dir/unlink",
        "dir/opendir",
    ];
    let (seen, _) = faulty.through(&all, EIO, 5, 2 * WHILE).await;
    assert!(!seen.refused.is_empty() && seen.answered() > 50);
}

const EIO: i32 = 5;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
/// Some deliveries and a digest.
const WHILE: Duration = Duration::from_millis(2_500);
