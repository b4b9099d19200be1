//! Proves, with the real program under load: what happens to the directories of journal and store (full, read-only, removed, made
//! anew, not writable in one place) holds up calls only where they could not be recorded, loses nothing that was there, and is over
//! by itself when its cause is.

mod support;

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use key_broker_client::{Client, GenerateDataKey};
use kms_emulator::Fault;
use rustix::process::Signal;
use serde_json::Value;
use support::delivered::Delivered;
use support::dice::Dice;
use support::disk::TinyDisk;
use support::eventually;
use support::formats::files;
use support::load::{Load, Seen};
use support::process::Process;
use support::site::Site;
use support::trail::{log_files, objects};

/// A broker under load.
struct Loaded {
    site: Site,
    broker: Process,
    load: Load,
    health: Client,
}

impl Loaded {
    async fn start() -> Self {
        let site = Site::new().await;
        let broker = Process::serve(&site.config(""));
        Self::with(site, broker, 0).await
    }

    async fn with(site: Site, broker: Process, context_bytes: usize) -> Self {
        let pause = Duration::from_millis(20);
        let dice = &mut Dice::of_this_run();
        let load = Load::start_large(&site.socket(), 6, pause, dice, context_bytes);
        let health = Client::unix(site.socket()).await.expect("listens");
        Self { site, broker, load, health }
    }

    async fn first_delivery(&self) {
        eventually("a delivery", || self.broker.log().contains("log file delivered")).await;
    }

    async fn is_serving(&self, wanted: bool) {
        for _ in 0..1_500 {
            if self.health.is_serving().await.is_ok_and(|serving| serving == wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not within 15 seconds: serving is {wanted}: {}", self.broker.log());
    }

    /// Stops, and has everything accounted for.
    async fn end(self) -> (Seen, Delivered) {
        let (site, seen) = self.stop().await;
        let delivered = site.assert_accounts_for(&seen);
        support::site::Site::verify(&site.dir.path().join("key-broker.toml"));
        (seen, delivered)
    }

    async fn stop(self) -> (Site, Seen) {
        self.is_serving(true).await;
        let Self { site, broker, load, .. } = self;
        let seen = load.stop().await;
        broker.signal(Signal::TERM);
        assert!(broker.wait().success());
        println!("{} told, {} refused", seen.told.len(), seen.refused.len());
        (site, seen)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(capability = "sys_admin"), ignore = "needs root: CAP_SYS_ADMIN, to mount a tmpfs")]
async fn a_full_store_holds_up_no_call_and_gets_everything_when_there_is_room() {
    let disk = TinyDisk::mount(64);
    let site = Site::new().await;
    let store = format!("store = {{ directory = \"{}\", bucket = \"logs\" }}", disk.path().display());
    std::os::unix::fs::symlink(disk.path(), site.store()).expect("links");
    let broker = Process::serve(&site.config_with_store(&store, ""));
    let loaded = Loaded::with(site, broker, 2_000).await;
    eventually("the store is full", || loaded.broker.log().contains("No space left on device")).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    loaded.is_serving(true).await;
    assert!(remount(disk.path(), "size=64m"));
    let (seen, _) = loaded.end().await;
    assert!(seen.refused.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_store_holds_up_no_call_and_gets_everything_when_it_can_be_written() {
    let site = Site::new().await;
    let (broker, _) = Process::serve_as_ordinary_user(&site.config(""));
    let loaded = Loaded::with(site, broker, 0).await;
    loaded.first_delivery().await;
    let bucket = loaded.site.store().join("logs");
    let folders =
        || objects(&loaded.site.store()).into_values().filter_map(|path| path.parent().map(Path::to_owned));
    let folders: Vec<_> = folders().chain([bucket]).collect();
    let permit = |mode| {
        for path in &folders {
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
        }
    };
    permit(0o500);
    eventually("it is noticed", || loaded.broker.log().contains("Permission denied")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    loaded.is_serving(true).await;
    permit(0o700);
    let (seen, _) = loaded.end().await;
    assert!(seen.refused.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_journal_directory_loses_and_doubles_nothing() {
    let site = Site::new().await;
    let (broker, _) = Process::serve_as_ordinary_user(&site.config(""));
    let loaded = Loaded::with(site, broker, 0).await;
    loaded.first_delivery().await;
    let permit =
        |mode| fs::set_permissions(loaded.site.journal(), Permissions::from_mode(mode)).expect("ours");
    permit(0o500);
    eventually("it is noticed", || loaded.broker.log().contains("cannot close a journal segment")).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    // The file that is open needs no permission.
    loaded.is_serving(true).await;
    permit(0o700);
    let (seen, _) = loaded.end().await;
    assert!(seen.refused.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_journal_directory_refuses_calls_and_what_was_lost_with_it_is_told() {
    let loaded = Loaded::start().await;
    loaded.first_delivery().await;
    for _ in 0..3 {
        // The broker makes files in it while it goes.
        eventually("removed", || fs::remove_dir_all(loaded.site.journal()).is_ok()).await;
        loaded.is_serving(false).await;
        fs::create_dir(loaded.site.journal()).expect("returns");
        loaded.is_serving(true).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let (site, seen) = loaded.stop().await;
    assert!(!seen.refused.is_empty());
    let delivered = site.delivered();
    // The file that was being written is written again; closed ones that were not delivered yet are gone, with the records of
    // answers and, once they are paid, of refusals.
    let is_gone = |request_id: &str| delivered.activity(request_id).is_empty();
    let (gone, refused): (Vec<_>, Vec<_>) =
        seen.refused.into_iter().partition(|refusal| is_gone(&refusal.request_id));
    delivered.assert_holds_refused(&refused);
    let lost = seen.told.iter().filter(|told| is_gone(&told.request_id)).count() + gone.len();
    let told = delivered.told_of_journal("missingRecords");
    assert!(lost as u64 <= told, "{lost} are lost, {told} were told");
    let verdict = Site::verdict(&site.dir.path().join("key-broker.toml"));
    assert_eq!(verdict.status.success(), told == 0, "{verdict:?}");
    println!("{lost} lost with their files, {told} told as missing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_removed_gets_what_comes_after() {
    let loaded = Loaded::start().await;
    loaded.first_delivery().await;
    // The broker makes files in it while it goes.
    eventually("removed", || fs::remove_dir_all(loaded.site.store()).is_ok()).await;
    let journal = loaded.site.journal();
    let begun = || files(&journal).expect("files").last().map_or(0, |file| file.number);
    let (now, next) = (begun(), || begun());
    eventually("another file of the journal", || next() > now).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let client = loaded.health.clone();
    let key = GenerateDataKey::aes_256("alias/dev");
    let event_id = client.generate_data_key(key).await.expect("serves").provenance.kms_event_id;
    let (site, seen) = loaded.stop().await;
    assert!(seen.refused.is_empty());
    let records = support::trail::records(&site.store());
    assert_eq!(records.kms.iter().filter(|record| record["eventID"] == event_id.as_str()).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_removed_before_it_is_noted_as_delivered() {
    let loaded = Loaded::start().await;
    loaded.first_delivery().await;
    // The state of the trail cannot be written.
    let obstacle = loaded.site.journal().join("trail.json.unfinished");
    // It may be being written just now.
    eventually("an obstacle", || fs::create_dir(&obstacle).is_ok()).await;
    let stored = log_files(&loaded.site.store()).len();
    eventually("another delivery", || log_files(&loaded.site.store()).len() > stored).await;
    // The next attempt.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let Loaded { site, broker, load, .. } = loaded;
    tokio::task::spawn_blocking(move || broker.kill()).await.expect("killed");
    fs::remove_dir(&obstacle).expect("removes");
    let broker = Process::serve(&site.config(""));
    let health = Client::unix(site.socket()).await.expect("listens");
    Loaded { site, broker, load, health }.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(capability = "sys_admin"), ignore = "needs root: CAP_SYS_ADMIN, to mount a tmpfs")]
async fn a_disk_that_the_journal_fills_while_the_store_is_down_is_emptied_by_itself() {
    let disk = TinyDisk::mount(1_024);
    let site = Site::new().await;
    std::os::unix::fs::symlink(disk.path(), site.journal()).expect("links");
    let broker = Process::serve(&site.config(""));
    let (bucket, aside) = (site.store().join("logs"), site.store().join("aside"));
    fs::rename(&bucket, &aside).expect("renames");
    fs::write(&bucket, "not a directory").expect("writes");
    let loaded = Loaded::with(site, broker, 6_000).await;
    loaded.is_serving(false).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    fs::remove_file(&bucket).expect("removes");
    fs::rename(&aside, &bucket).expect("the store is back");
    loaded.is_serving(true).await;
    let (seen, _) = loaded.end().await;
    assert!(!seen.refused.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_stopped_while_the_store_is_down_says_what_is_left_and_the_next_start_delivers_it() {
    let site = Site::new().await;
    let config = site.config("[limits]\ndrain_seconds = 1\n");
    let broker = Process::serve(&config);
    let client = Client::unix(site.socket()).await.expect("listens");
    let key = || GenerateDataKey::aes_256("alias/dev");
    client.generate_data_key(key()).await.expect("serves");
    eventually("a delivery", || broker.log().contains("log file delivered")).await;
    let (bucket, aside) = (site.store().join("logs"), site.store().join("aside"));
    fs::rename(&bucket, &aside).expect("renames");
    fs::write(&bucket, "not a directory").expect("writes");
    let event_id = client.generate_data_key(key()).await.expect("serves").provenance.kms_event_id;
    broker.signal(Signal::TERM);
    let log = site.dir.path().join("log");
    assert_eq!(broker.wait().code(), Some(75));
    let log = fs::read_to_string(log).expect("a log");
    let last: Value = serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
    let message = last["message"].as_str().expect("words");
    assert!(
        message.starts_with("stopped, and something is left: ") && message.contains("files of the journal"),
        "{message}"
    );

    fs::remove_file(&bucket).expect("removes");
    fs::rename(&aside, &bucket).expect("the store is back");
    let broker = Process::serve(&config);
    broker.signal(Signal::TERM);
    assert!(broker.wait().success(), "nothing is left");
    let delivered = site.delivered();
    assert!(delivered.kms(&event_id).is_some() && delivered.undelivered.is_empty());
    Site::verify(&config);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(capability = "sys_admin"), ignore = "needs root: CAP_SYS_ADMIN, to mount a tmpfs")]
async fn answers_of_kms_are_recorded_at_a_stop_on_a_disk_that_somebody_else_has_filled() {
    let (site, _disk) = stopped_on_a_filled_disk(|_| false).await;
    assert_eq!(site.delivered().unrecorded(site.emulator.calls()), []);
    Site::verify(&site.dir.path().join("key-broker.toml"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(capability = "sys_admin"), ignore = "needs root: CAP_SYS_ADMIN, to mount a tmpfs")]
async fn what_somebody_who_fills_the_disk_without_end_takes_from_the_trail_is_told() {
    let (site, _disk) = stopped_on_a_filled_disk(|is_over| !is_over).await;
    let delivered = site.delivered();
    let lost = delivered.unrecorded(site.emulator.calls());
    println!("{} lost", lost.len());
    assert_eq!(delivered.told_of_journal("unrecordedKmsAnswers"), lost.len() as u64);
    let verdict = Site::verdict(&site.dir.path().join("key-broker.toml"));
    assert_eq!(verdict.status.code(), Some(i32::from(!lost.is_empty())));
}

/// Answers of KMS come while somebody else fills the journal's disk, once or until `goes_on` says no, and the broker is stopped. Then
/// the disk is free, and another one starts, delivers and stops.
async fn stopped_on_a_filled_disk(goes_on: fn(bool) -> bool) -> (Site, TinyDisk) {
    let (disk, site) = (TinyDisk::mount(16 << 10), Site::new().await);
    std::os::unix::fs::symlink(disk.path(), site.journal()).expect("links");
    let config = site.config("[limits]\ndrain_seconds = 2\n");
    let broker = Process::serve(&config);
    let client = Client::unix(site.socket()).await.expect("listens");
    let key = || GenerateDataKey::aes_256("alias/dev").fresh();
    client.generate_data_key(key()).await.expect("serves");
    site.emulator.inject(Fault::latency(Duration::from_millis(1_500)).on("GenerateDataKey"));
    let asked = site.emulator.call_count("GenerateDataKey");
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let (client, key) = (client.clone(), key());
            tokio::spawn(async move { client.generate_data_key(key).await })
        })
        .collect();
    eventually("KMS is asked", || site.emulator.call_count("GenerateDataKey") == asked + 20).await;
    let others = disk.path().join("others");
    let is_over = Arc::<AtomicBool>::default();
    let filler = fill(&others, goes_on, &is_over);
    for call in calls {
        assert!(call.await.expect("no panic").is_err(), "no reply without its record");
    }
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(75), "something is left");
    is_over.store(true, Ordering::Relaxed);
    filler.join().expect("no panic");
    fs::remove_file(others).expect("removes");
    site.emulator.clear_faults();
    let broker = Process::serve(&config);
    broker.signal(Signal::TERM);
    assert!(broker.wait().success(), "nothing is left");
    (site, disk)
}

/// Takes every block of the disk, and those that become free as long as `goes_on` says so. Returns once it is full.
fn fill(path: &Path, goes_on: fn(bool) -> bool, is_over: &Arc<AtomicBool>) -> JoinHandle<()> {
    let (mut file, is_over) = (fs::File::create(path).expect("a file"), Arc::clone(is_over));
    let (full, is_full) = mpsc::channel();
    let filler = std::thread::spawn(move || {
        loop {
            if file.write_all(&[1; 4_096]).is_ok() {
                continue;
            }
            let _ = full.send(());
            if !goes_on(is_over.load(Ordering::Relaxed)) {
                return;
            }
        }
    });
    is_full.recv().expect("it fills");
    filler
}

fn remount(path: &Path, options: &str) -> bool {
    let options = format!("remount,{options}");
    let mounted = std::process::Command::new("mount").args(["-o", &options]).arg(path).status();
    mounted.is_ok_and(|status| status.success())
}
