//! A committed record is on disk and in its chain; what cannot be committed is refused; the journal resumes by itself; what a
//! crash or a person left behind is repaired and reported.

mod size;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use key_broker_core::clock::SystemClock;

use super::follow::Follower;
use super::hash_chain::{Link, parse_line};
use super::segment_reader::SegmentReader;
use super::*;
use crate::record::ACTIVITY_END;

fn config(dir: &Path) -> JournalConfig {
    JournalConfig::new(dir.to_owned(), Durability::Fsync, Duration::from_secs(5))
}

fn open(config: &JournalConfig) -> io::Result<(Journal, JournalThread)> {
    Journal::open(config, Arc::new(SystemClock))
}

/// The records of all files, checked against the one chain that covers them.
fn records(dir: &Path) -> Vec<String> {
    let (mut records, mut end) = (Vec::new(), None);
    for file in files(dir).expect("readable") {
        let mut segment = SegmentReader::open(&file.path).expect("opens");
        assert_eq!(segment.before(), end.unwrap_or(segment.before()), "the chain goes on");
        while let Some(record) = segment.next_record().expect("fits") {
            records.push(String::from_utf8(record.to_vec()).expect("text"));
        }
        end = Some(segment.link());
    }
    records
}

/// The notice that the next record is to report.
fn told(journal: &Journal) -> Option<Notice> {
    let taken = journal.notices().take()?;
    let told = taken.untold().journal;
    taken.told();
    Some(told)
}

async fn commit(journal: &Journal, record: &str) -> Result<(), JournalUnavailable> {
    journal.append(format!("{record}\n").into_bytes()).wait().await
}

#[tokio::test]
async fn committed_records_are_on_disk_in_order_and_over_restarts() {
    let dir = tempfile::tempdir().expect("dir");
    for run in 0..3 {
        let (journal, thread) = open(&config(dir.path())).expect("opens");
        for n in 0..50 {
            commit(&journal, &format!("{}", run * 50 + n)).await.expect("commits");
            assert_eq!(records(dir.path()).len(), run * 50 + n + 1);
        }
        thread.close().expect("no defect");
        let refused = commit(&journal, "late").await;
        assert_eq!(refused, Err(JournalUnavailable(Some(b"late\n".to_vec()))), "given back");
    }
    assert_eq!(records(dir.path()), (0..150).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(files(dir.path()).expect("files").iter().filter(|file| file.closed_at.is_some()).count(), 2);
}

#[tokio::test]
async fn records_nobody_waits_for_are_written_before_the_thread_ends() {
    let dir = tempfile::tempdir().expect("dir");
    let (journal, thread) = open(&config(dir.path())).expect("opens");
    for n in 0..500 {
        drop(journal.append(format!("{n}\n").into_bytes()));
    }
    thread.close().expect("no defect");
    assert_eq!(records(dir.path()).len(), 500);
}

/// A clock that panics once it is set to.
struct Broken(std::sync::atomic::AtomicBool);

impl Clock for Broken {
    fn now(&self) -> time::OffsetDateTime {
        assert!(!self.0.load(std::sync::atomic::Ordering::Relaxed), "a defect");
        SystemClock.now()
    }

    fn instant(&self) -> std::time::Instant {
        SystemClock.instant()
    }
}

#[tokio::test]
async fn a_defect_of_the_thread_refuses_calls_and_is_told() {
    let dir = tempfile::tempdir().expect("dir");
    let clock = Arc::new(Broken(false.into()));
    let short = JournalConfig { wait: Duration::from_millis(50), ..config(dir.path()) };
    let (journal, thread) = Journal::open(&short, Arc::<Broken>::clone(&clock)).expect("opens");
    commit(&journal, "before").await.expect("commits");
    clock.0.store(true, std::sync::atomic::Ordering::Relaxed);
    journal.rotate().await;
    journal.died().await;
    assert!(commit(&journal, "after").await.is_err());
    assert!(!*journal.health().borrow());
    assert_eq!(thread.close(), Err(Dead));
    assert_eq!(records(dir.path()), ["before"]);
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_told_and_whole_records_stay() {
    let mut link = Link::START;
    let mut whole = hash_chain::header(1, &link).into_bytes();
    link.append(b"{\"n\":1}", &mut whole);
    let mut next = Vec::new();
    link.append(b"{\"n\":2}", &mut next);
    let long = "x".repeat(200_000);
    for (tail, torn) in
        [("", 0), ("2 ", 2), (&long, 200_000), (std::str::from_utf8(&next[..70]).expect("text"), 70)]
    {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("journal-00000001.open");
        fs::write(&path, [&whole, tail.as_bytes()].concat()).expect("writes");
        let (journal, thread) = open(&config(dir.path())).expect("opens");
        let notice = told(&journal);
        assert_eq!(notice.map(|notice| notice.torn_bytes), (torn > 0).then_some(torn));
        assert_eq!(told(&journal), None, "told once");
        commit(&journal, "new").await.expect("commits");
        thread.close().expect("no defect");
        assert_eq!(records(dir.path()), ["{\"n\":1}", "new"]);
    }
}

#[tokio::test]
async fn what_does_not_fit_the_chain_is_kept_as_evidence() {
    let dir = tempfile::tempdir().expect("dir");
    let (journal, thread) = open(&config(dir.path())).expect("opens");
    for n in 0..5 {
        commit(&journal, &format!("{{\"n\":{n}}}")).await.expect("commits");
    }
    thread.close().expect("no defect");
    let path = files(dir.path()).expect("files")[0].path.clone();
    let edited = fs::read_to_string(&path).expect("text").replace("{\"n\":2}", "{\"n\":9}");
    fs::write(&path, edited).expect("writes");
    let (journal, thread) = open(&config(dir.path())).expect("opens");
    assert!(told(&journal).is_some_and(|notice| notice.damaged_bytes > 0 && notice.torn_bytes == 0));
    thread.close().expect("no defect");
    assert_eq!(records(dir.path()), ["{\"n\":0}", "{\"n\":1}"]);
    let evidence = fs::read_to_string(dir.path().join(damaged_name(1))).expect("evidence");
    assert!(evidence.contains("{\"n\":9}") && evidence.contains("{\"n\":4}"));
}

#[tokio::test]
async fn a_file_that_was_hardly_begun_does_not_end_the_chain() {
    for (left, damaged) in [("", 0), ("key-broker-jour", 15), ("nonsense\n", 9)] {
        let dir = tempfile::tempdir().expect("dir");
        let (journal, thread) = open(&config(dir.path())).expect("opens");
        commit(&journal, "1").await.expect("commits");
        journal.rotate().await;
        thread.close().expect("no defect");
        let begun = files(dir.path()).expect("files").pop().expect("a file");
        assert_eq!((begun.number, begun.closed_at), (2, None));
        fs::write(&begun.path, left).expect("writes");
        let (journal, thread) = open(&config(dir.path())).expect("opens");
        let notice = told(&journal).unwrap_or_default();
        assert_eq!(notice, Notice { damaged_bytes: damaged, ..Notice::default() });
        assert_eq!(dir.path().join(damaged_name(2)).exists(), damaged > 0, "what is none is no evidence");
        commit(&journal, "2").await.expect("commits");
        thread.close().expect("no defect");
        assert_eq!(records(dir.path()), ["1", "2"]);
        let first = SegmentReader::open(&files(dir.path()).expect("files")[0].path).expect("opens");
        assert_eq!(first.before(), Link::START);
    }
}

#[tokio::test]
async fn open_files_that_an_earlier_process_could_not_close_or_remove_are_taken_in() {
    let dir = tempfile::tempdir().expect("dir");
    let (mut link, mut lines) = (Link::START, Vec::new());
    for (number, record) in [(1, "1"), (2, ""), (3, "2"), (4, "")] {
        lines.clear();
        lines.extend_from_slice(hash_chain::header(number, &link).as_bytes());
        if !record.is_empty() {
            link.append(record.as_bytes(), &mut lines);
        }
        fs::write(dir.path().join(format!("journal-{number:08}.open")), &lines).expect("writes");
    }
    let (journal, thread) = open(&config(dir.path())).expect("opens");
    commit(&journal, "3").await.expect("commits");
    thread.close().expect("no defect");
    let found = files(dir.path()).expect("files");
    let found: Vec<_> = found.iter().map(|file| (file.number, file.closed_at.is_some())).collect();
    assert_eq!(found, [(1, true), (3, true), (4, false)], "an empty file that is not the newest is gone");
    assert_eq!(records(dir.path()), ["1", "2", "3"]);
}

#[tokio::test]
async fn what_is_undelivered_is_counted_as_it_lies_on_the_disk() {
    let dir = tempfile::tempdir().expect("dir");
    let (journal, thread) = open(&config(dir.path())).expect("opens");
    for n in 0..10 {
        commit(&journal, &format!("{n}")).await.expect("commits");
        journal.rotate().await;
    }
    thread.close().expect("no defect");
    let bytes = files(dir.path())
        .expect("files")
        .into_iter()
        .map(|file| fs::metadata(&file.path).expect("there").len());
    assert_eq!(journal.undelivered().bytes(), bytes.sum::<u64>());
}

#[tokio::test]
async fn a_directory_that_is_moved_away_is_a_lost_one() {
    let parent = tempfile::tempdir().expect("dir");
    let (dir, aside) = (parent.path().join("journal"), parent.path().join("aside"));
    let (journal, thread) = open(&config(&dir)).expect("opens");
    commit(&journal, "1").await.expect("commits");
    fs::rename(&dir, &aside).expect("moves");
    assert!(commit(&journal, "2").await.is_err(), "nobody would find it there");
    fs::rename(&aside, &dir).expect("returns");
    commit(&journal, "3").await.expect("commits");
    fs::rename(&dir, &aside).expect("moves");
    fs::create_dir(&dir).expect("another one");
    commit(&journal, "4").await.expect("commits");
    let error = open(&config(&dir)).err().expect("refused");
    assert!(error.to_string().contains("another process"), "{error}");
    thread.close().expect("no defect");
    assert_eq!(records(&dir), ["1", "3", "4"]);
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let first = open(&config(dir.path())).expect("opens");
    let error = open(&config(dir.path())).err().expect("refused");
    assert!(error.to_string().contains("another process"), "{error}");
    drop(first);
}

#[tokio::test]
async fn a_disk_that_hangs_or_a_full_queue_is_waited_for_so_long_and_no_longer() {
    let dir = tempfile::tempdir().expect("dir");
    let (whole, thread) = open(&config(dir.path())).expect("opens");
    let shared = Arc::new(Shared::new(Notices::default()));
    let journal = Journal { shared, wait: Duration::from_millis(50), ..whole };
    let hangs = journal.append(b"1\n".to_vec());
    let taken = journal.shared.queue.take();
    assert_eq!(hangs.wait().await, Err(JournalUnavailable(None)), "it may still be written");
    assert!(!*journal.health().borrow(), "not ready while it hangs");
    drop(taken);
    let waits = journal.append(b"1\n".to_vec());
    let withdrawn = waits.wait_at_most(Duration::from_millis(1)).await;
    assert_eq!(withdrawn, Err(JournalUnavailable(Some(b"1\n".to_vec()))), "nobody will write it");
    assert!(journal.shared.queue.take().entries.is_empty());
    let full = loop {
        if let Commit { done: Err(records), .. } = journal.append(b"2\n".to_vec()) {
            break records;
        }
    };
    assert_eq!(full, b"2\n", "known not to be written");
    let late = journal.append(b"3\n".to_vec());
    journal.shared.queue.close();
    drop(journal.shared.queue.take());
    assert!(late.wait().await.is_err());
    thread.close().expect("no defect");
}

#[tokio::test]
async fn a_removed_directory_refuses_and_its_return_brings_everything_back() {
    let parent = tempfile::tempdir().expect("dir");
    let dir = parent.path().join("journal");
    let (journal, thread) = open(&config(&dir)).expect("opens");
    commit(&journal, "1").await.expect("commits");
    fs::remove_dir_all(&dir).expect("removes");
    let refused = commit(&journal, "2").await;
    assert_eq!(refused, Err(JournalUnavailable(Some(b"2\n".to_vec()))));
    assert!(!*journal.health().borrow());
    journal.defer(b"deferred\n");
    fs::create_dir(&dir).expect("returns");
    let mut health = journal.health();
    tokio::time::timeout(Duration::from_secs(10), health.wait_for(|healthy| *healthy))
        .await
        .expect("resumes by itself")
        .expect("the thread lives");
    commit(&journal, "3").await.expect("commits");
    thread.close().expect("no defect");
    assert_eq!(records(&dir), ["1", "deferred", "3"], "what the removed file held is written again");
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_to_refuses_and_resumes() {
    if rustix::process::geteuid().is_root() {
        // Root ignores permissions; the full disk in tests/journal.rs covers this case.
        return;
    }
    let parent = tempfile::tempdir().expect("dir");
    let dir = parent.path().join("journal");
    let (journal, thread) = open(&config(&dir)).expect("opens");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o500)).expect("changes");
    commit(&journal, "1").await.expect("an open file needs no permission");
    journal.rotate().await;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).expect("changes");
    commit(&journal, "2").await.expect("commits");
    thread.close().expect("no defect");
    assert_eq!(records(&dir), ["1", "2"]);
}

#[tokio::test]
async fn files_are_closed_when_told_and_when_full_and_a_follower_reads_on() {
    let dir = tempfile::tempdir().expect("dir");
    let small = JournalConfig { max_segment_bytes: 1_000, ..config(dir.path()) };
    let (journal, thread) = open(&small).expect("opens");
    let mut follower = Follower::new(dir.path());
    assert_eq!(follower.next_record().expect("reads"), None);
    for n in 0..40 {
        commit(&journal, &format!("{n:03}{}", "x".repeat(100))).await.expect("commits");
        if n == 20 {
            journal.rotate().await;
        }
        let read = follower.next_record().expect("reads").expect("at once");
        assert!(read.starts_with(format!("{n:03}").as_bytes()));
        assert_eq!(follower.next_record().expect("reads"), None);
    }
    journal.rotate().await;
    let before = files(dir.path()).expect("files").len();
    journal.rotate().await;
    assert_eq!(files(dir.path()).expect("files").len(), before, "an empty file is not closed");
    assert!(before > 5);
    thread.close().expect("no defect");
    assert_eq!((records(dir.path()).len(), follower.missed()), (40, 0));
}

#[tokio::test]
async fn no_more_is_held_than_allowed() {
    let dir = tempfile::tempdir().expect("dir");
    let tight = JournalConfig { max_undelivered_bytes: 2_000, ..config(dir.path()) };
    let (journal, thread) = open(&tight).expect("opens");
    let mut committed = 0;
    while commit(&journal, &"x".repeat(100)).await.is_ok() {
        committed += 1;
        assert!(committed < 20);
    }
    assert_eq!(records(dir.path()).len(), committed);
    journal.undelivered().remove(0, 500);
    let mut health = journal.health();
    assert!(health.wait_for(|healthy| *healthy).await.is_ok(), "resumes by itself");
    commit(&journal, "room").await.expect("commits");
    thread.close().expect("no defect");
}

/// A record of a call of this length, as the backlog recognizes it.
fn call_record(bytes: usize) -> Vec<u8> {
    [&vec![b'x'; bytes - ACTIVITY_END.len() - 1], ACTIVITY_END, b"\n"].concat()
}

#[tokio::test]
async fn refused_calls_take_no_room_from_answers_of_kms_and_what_has_no_record_is_told() {
    let parent = tempfile::tempdir().expect("dir");
    let dir = parent.path().join("journal");
    let (journal, thread) = open(&config(&dir)).expect("opens");
    commit(&journal, "1").await.expect("commits");
    fs::remove_dir_all(&dir).expect("removes");
    assert!(commit(&journal, "2").await.is_err());
    for _ in 0..100 {
        journal.defer(&call_record(55 << 10));
    }
    assert!(!journal.is_overdrawn(false), "refusals are none of KMS's");
    for n in 0..17 {
        assert_eq!(journal.is_overdrawn(false), n > 4);
        journal.defer(&[vec![b'x'; (1 << 20) - 200], b"\n".to_vec()].concat());
    }
    assert!(!journal.is_overdrawn(true), "nor are the trail's own");
    journal.defer_for_the_trail(&[vec![b'x'; 1_000], b"\n".to_vec()].concat());
    assert_eq!(journal.totals().unrecorded_kms_answers, 1);
    fs::create_dir(&dir).expect("returns");
    let mut health = journal.health();
    assert!(health.wait_for(|healthy| *healthy).await.is_ok());
    for _ in 0..1_000 {
        if journal.backlog_bytes() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(journal.backlog_bytes(), 0, "what came while the thread tried is written next");
    let told = told(&journal).expect("told");
    assert_eq!((told.unrecorded_refusals, told.unrecorded_kms_answers), (26, 1), "of 100, 74 fit; of 17, 16");
    thread.close().expect("no defect");
    let written = records(&dir);
    assert_eq!(written.len(), 1 + 1 + 16 + 74);
    assert_eq!(written.iter().filter(|record| record.len() == 1_000).count(), 1);
}

#[tokio::test]
async fn the_trails_own_records_have_room_when_calls_have_none() {
    let dir = tempfile::tempdir().expect("dir");
    let tight = JournalConfig { max_undelivered_bytes: 20_000, ..config(dir.path()) };
    let (journal, thread) = open(&tight).expect("opens");
    while commit(&journal, &"x".repeat(1_000)).await.is_ok() {}
    assert!(!*journal.health().borrow());
    let own = [vec![b'y'; 10_000], b"\n".to_vec()].concat();
    journal.append_for_the_trail(own.clone()).wait().await.expect("commits");
    assert!(commit(&journal, &"x".repeat(1_000)).await.is_err(), "calls are refused still");
    journal.defer_for_the_trail(&own);
    // At the end, the backlog may use this room, too.
    journal.defer(&call_record(5_000));
    let lost = thread.close().expect("no defect");
    assert_eq!(lost, Lost::default());
    assert_eq!(records(dir.path()).iter().filter(|record| record.len() >= 4_999).count(), 3);
}

#[tokio::test]
async fn a_long_record_that_has_no_room_stands_before_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let tight = JournalConfig { max_undelivered_bytes: 30_000, ..config(dir.path()) };
    let (journal, thread) = open(&tight).expect("opens");
    for _ in 0..5 {
        commit(&journal, &"x".repeat(4_000)).await.expect("commits");
    }
    journal.defer(&call_record(20_000));
    journal.defer(&call_record(1_000));
    for _ in 0..1_000 {
        if journal.backlog_bytes() == 20_000 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(journal.backlog_bytes(), 20_000, "the short one is written");
    commit(&journal, "a call").await.expect("commits");
    journal.undelivered().remove(0, 20_000);
    let mut health = journal.health();
    assert!(health.wait_for(|healthy| *healthy).await.is_ok(), "resumes by itself");
    assert_eq!(journal.backlog_bytes(), 0);
    thread.close().expect("no defect");
    assert_eq!(records(dir.path()).len(), 8);
}

#[tokio::test]
async fn the_backlog_is_written_as_far_as_there_is_room() {
    let parent = tempfile::tempdir().expect("dir");
    let dir = parent.path().join("journal");
    let tight = JournalConfig { max_undelivered_bytes: 200_000, ..config(&dir) };
    let (journal, thread) = open(&tight).expect("opens");
    fs::remove_dir_all(&dir).expect("removes");
    assert!(commit(&journal, "refused").await.is_err());
    for n in 0..400 {
        journal.defer(format!("{n:03}{}\n", "x".repeat(997)).as_bytes());
    }
    fs::create_dir(&dir).expect("returns");
    // The backlog exceeds the room: part of it is written, and each delivery makes room for more.
    for room in 0..3 {
        for _ in 0..1_000 {
            if journal.undelivered().bytes() > 100_000 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(room > 0 || journal.health().wait_for(|healthy| !*healthy).await.is_ok());
        journal.undelivered().remove(0, journal.undelivered().bytes());
    }
    let mut health = journal.health();
    assert!(health.wait_for(|healthy| *healthy).await.is_ok());
    commit(&journal, "last").await.expect("commits");
    thread.close().expect("no defect");
    let records = records(&dir);
    assert_eq!(records.len(), 401, "each once");
    assert!(records[..400].iter().enumerate().all(|(n, record)| record.starts_with(&format!("{n:03}x"))));
}

#[test]
fn lines_have_a_sequence_number_a_hash_and_the_record() {
    let (mut link, mut lines) = (Link::START, Vec::new());
    link.append(b"{}", &mut lines);
    let text = String::from_utf8(lines).expect("text");
    assert!(text.starts_with("1 ") && text.ends_with(" {}\n") && text.len() == 2 + 64 + 1 + 2 + 1);
    assert_eq!(parse_line(text.trim_end().as_bytes()), Some((link, b"{}".as_slice())));
}

#[tokio::test]
async fn one_principal_fills_its_share_and_another_finds_room() {
    let dir = tempfile::tempdir().expect("dir");
    let tight = JournalConfig { max_undelivered_bytes: 1_000_000, ..config(dir.path()) };
    let (journal, thread) = open(&tight).expect("opens");
    let [greedy, other] = [1, 2].map(Principal::of_uid);
    let record = [vec![b'x'; 4_000], b"\n".to_vec()].concat();
    let mut taken = 0;
    while journal.append_of(Some(&greedy), record.clone()).wait().await.is_ok() {
        taken += 1;
    }
    assert!((100..126).contains(&taken), "half of all: {taken}");
    for _ in 0..30 {
        journal.append_of(Some(&other), record.clone()).wait().await.expect("has its share");
    }
    journal.rotate().await;
    let closed = files(dir.path()).expect("files").remove(0);
    let bytes = closed.path.metadata().expect("is there").len();
    journal.undelivered().remove(closed.number, bytes);
    journal.append_of(Some(&greedy), record).wait().await.expect("what is delivered is no longer its share");
    thread.close().expect("no defect");
}
