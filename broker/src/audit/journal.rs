//! The journal: where records become durable before a reply leaves.
//!
//! One thread owns the file. It takes every record that waits, writes them with one write, makes them durable with one
//! `fdatasync`, and only then tells the callers. Where that fails it cuts off what it half wrote, refuses what waited,
//! and begins a new file with the next record, so service resumes by itself.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{oneshot, watch};

/// How durable a record is before its reply leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Written and synced: survives power loss.
    #[default]
    Fsync,
    /// Written: survives the death of the process, not that of the machine.
    Write,
}

/// Where and how the journal is kept.
#[derive(Debug, Clone)]
pub struct JournalConfig {
    /// The directory; made if it is missing.
    pub dir: PathBuf,
    /// How durable a commit is.
    pub commit: Durability,
    /// How long a call waits for its commit before it is refused.
    pub wait: Duration,
}

/// The handle of the journal: cheap to clone. What is appended after [`JournalThread::close`] is refused.
#[derive(Clone)]
pub struct Journal {
    queue: SyncSender<Order>,
    healthy: watch::Receiver<bool>,
    wait: Duration,
}

/// The thread behind a [`Journal`].
pub struct JournalThread {
    queue: SyncSender<Order>,
    thread: JoinHandle<()>,
}

/// The journal cannot commit: nothing may leave the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalUnavailable;

/// A commit under way.
#[must_use = "a record is durable only once its commit has been waited for"]
pub struct Commit {
    done: Option<oneshot::Receiver<Result<(), JournalUnavailable>>>,
    wait: Duration,
}

impl Journal {
    /// Opens the journal in its directory, cutting a torn tail off what an earlier process left.
    pub fn open(config: &JournalConfig) -> io::Result<(Self, JournalThread)> {
        let segments = Segments::open(&config.dir, config.commit)?;
        let (queue, orders) = sync_channel(QUEUE_ENTRIES);
        let (health, healthy) = watch::channel(true);
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || write_until_closed(segments, &orders, &health))?;
        let journal = Self { queue: queue.clone(), healthy, wait: config.wait };
        Ok((journal, JournalThread { queue, thread }))
    }

    /// Queues whole lines, which are written together or not at all. Never blocks.
    pub fn append(&self, lines: Vec<u8>) -> Commit {
        debug_assert_eq!(lines.last(), Some(&b'\n'), "the journal takes whole lines");
        let (committed, done) = oneshot::channel();
        let queued = self.queue.try_send(Order::Write(Entry { lines, committed })).is_ok();
        Commit { done: queued.then_some(done), wait: self.wait }
    }

    /// Whether the newest commit succeeded.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<bool> {
        self.healthy.clone()
    }
}

impl JournalThread {
    /// Writes everything that is queued, and ends. Blocks.
    pub fn close(self) {
        // Refused only by a thread that is gone.
        let _ = self.queue.send(Order::Close);
        if self.thread.join().is_err() {
            tracing::error!("the journal thread panicked");
        }
    }
}

impl Commit {
    /// Waits until the record is durable, for at most the configured time.
    pub async fn wait(self) -> Result<(), JournalUnavailable> {
        let done = self.done.ok_or(JournalUnavailable)?;
        match tokio::time::timeout(self.wait, done).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(JournalUnavailable),
        }
    }
}

enum Order {
    Write(Entry),
    Close,
}

struct Entry {
    lines: Vec<u8>,
    committed: oneshot::Sender<Result<(), JournalUnavailable>>,
}

fn write_until_closed(mut segments: Segments, orders: &Receiver<Order>, health: &watch::Sender<bool>) {
    let mut batch = Vec::new();
    let mut waiting = Vec::new();
    let mut open = true;
    while open {
        // An error is the end of the last handle.
        let mut next = orders.recv().ok();
        open = next.is_some();
        while let Some(order) = next {
            let Order::Write(entry) = order else {
                open = false;
                break;
            };
            batch.extend_from_slice(&entry.lines);
            waiting.push(entry.committed);
            next = if batch.len() < MAX_BATCH_BYTES { orders.try_recv().ok() } else { None };
        }
        if waiting.is_empty() {
            continue;
        }
        let result = segments.commit(&batch).map_err(|error| {
            tracing::error!(%error, dir = %segments.dir.display(), records = waiting.len(), "journal cannot commit: the calls are refused");
            JournalUnavailable
        });
        health.send_if_modified(|healthy| std::mem::replace(healthy, result.is_ok()) != result.is_ok());
        batch.clear();
        for committed in waiting.drain(..) {
            // A caller that has gone needs no answer.
            let _ = committed.send(result);
        }
    }
}

/// The files of the journal: `journal-000001.jsonl` and on, one for each start or failure.
struct Segments {
    dir: PathBuf,
    durability: Durability,
    current: Option<Segment>,
    /// Held for the life of the process: two brokers must not share a journal.
    _lock: File,
}

struct Segment {
    path: PathBuf,
    file: File,
    committed_bytes: u64,
}

impl Segments {
    fn open(dir: &Path, durability: Durability) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let lock =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(dir.join("lock"))?;
        lock.try_lock().map_err(|_| {
            io::Error::new(
                io::ErrorKind::AddrInUse,
                format!(
                    "another process writes the journal in {}: stop it or choose another directory",
                    dir.display()
                ),
            )
        })?;
        for path in segment_paths(dir)? {
            cut_torn_tail(&path)?;
        }
        let mut segments = Self { dir: dir.to_owned(), durability, current: None, _lock: lock };
        segments.current = Some(segments.begin()?);
        Ok(segments)
    }

    fn commit(&mut self, batch: &[u8]) -> io::Result<()> {
        let mut segment = match self.current.take() {
            Some(segment) if segment.is_linked() => segment,
            // Nobody finds records in a file that was removed underneath.
            Some(_) | None => self.begin()?,
        };
        if let Err(error) = segment.append(batch, self.durability) {
            segment.cut_back();
            return Err(error);
        }
        self.current = Some(segment);
        Ok(())
    }

    fn begin(&self) -> io::Result<Segment> {
        let newest =
            segment_paths(&self.dir)?.iter().filter_map(|path| segment_number(path)).max().unwrap_or(0);
        let path = self.dir.join(format!("{PREFIX}{:06}{SUFFIX}", newest + 1));
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
        if self.durability == Durability::Fsync {
            File::open(&self.dir)?.sync_all()?;
        }
        Ok(Segment { path, file, committed_bytes: 0 })
    }
}

impl Segment {
    fn append(&mut self, batch: &[u8], durability: Durability) -> io::Result<()> {
        self.file.write_all(batch)?;
        if durability == Durability::Fsync {
            self.file.sync_data()?;
        }
        self.committed_bytes += batch.len() as u64;
        Ok(())
    }

    /// Takes back what a failed commit wrote, so that a refused call leaves no half record.
    fn cut_back(&self) {
        let cut = match self.committed_bytes {
            // A full disk must not fill with empty files too.
            0 => fs::remove_file(&self.path),
            bytes => self.file.set_len(bytes),
        };
        if let Err(error) = cut {
            tracing::warn!(%error, "cannot cut a failed commit off the journal: the next start will");
        }
    }

    fn is_linked(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
    }
}

fn segment_paths(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if segment_number(&path).is_some() {
            paths.push(path);
        }
    }
    Ok(paths)
}

fn segment_number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
}

/// Cuts an unfinished last line: its commit never ended, so no reply went out for it.
fn cut_torn_tail(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let mut whole = length;
    let mut chunk = [0_u8; CHUNK_BYTES];
    while whole > 0 {
        let size = whole.min(chunk.len() as u64);
        file.seek(SeekFrom::Start(whole - size))?;
        let part = &mut chunk[..usize::try_from(size).unwrap_or(CHUNK_BYTES)];
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|b| *b == b'\n') {
            whole = whole - size + at as u64 + 1;
            break;
        }
        whole -= size;
    }
    if whole < length {
        file.set_len(whole)?;
        file.sync_all()?;
        tracing::warn!(file = %path.display(), bytes = length - whole, "cut an unfinished record off the journal: no reply was sent for it");
    }
    Ok(())
}

const PREFIX: &str = "journal-";
const SUFFIX: &str = ".jsonl";
/// How far back to look for the last line's end at a time.
const CHUNK_BYTES: usize = 4_096;
/// More than all calls in flight, each with its KMS records, can queue while one commit is under way.
const QUEUE_ENTRIES: usize = 8_192;
/// Bounds one write, and so the time the calls behind it wait.
const MAX_BATCH_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    //! A committed record is on disk; what cannot be committed is refused; service resumes by itself.

    use super::*;

    fn config(dir: &Path) -> JournalConfig {
        JournalConfig { dir: dir.to_owned(), commit: Durability::Fsync, wait: Duration::from_secs(5) }
    }

    fn lines(dir: &Path) -> Vec<String> {
        let mut paths = segment_paths(dir).expect("readable");
        paths.sort();
        paths
            .iter()
            .flat_map(|path| {
                fs::read_to_string(path).expect("text").lines().map(str::to_owned).collect::<Vec<_>>()
            })
            .collect()
    }

    #[tokio::test]
    async fn committed_records_are_on_disk_in_order() {
        let dir = tempfile::tempdir().expect("dir");
        let (journal, thread) = Journal::open(&config(dir.path())).expect("opens");
        for n in 0..100 {
            journal.append(format!("{n}\n").into_bytes()).wait().await.expect("commits");
            assert_eq!(lines(dir.path()).len(), n + 1);
        }
        thread.close();
        assert_eq!(journal.append(b"late\n".to_vec()).wait().await, Err(JournalUnavailable));
        assert_eq!(lines(dir.path()), (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn records_nobody_waits_for_are_written_before_the_thread_ends() {
        let dir = tempfile::tempdir().expect("dir");
        let (journal, thread) = Journal::open(&config(dir.path())).expect("opens");
        for n in 0..500 {
            drop(journal.append(format!("{n}\n").into_bytes()));
        }
        thread.close();
        assert_eq!(journal.append(b"late\n".to_vec()).wait().await, Err(JournalUnavailable));
        assert_eq!(lines(dir.path()).len(), 500);
    }

    #[tokio::test]
    async fn a_torn_tail_is_cut_and_whole_records_stay() {
        for (left, kept) in [("{}\n{}\n{\"torn", 2), ("{\"torn", 0), ("", 0), ("{}\n", 1)] {
            let dir = tempfile::tempdir().expect("dir");
            fs::write(dir.path().join("journal-000001.jsonl"), left).expect("writes");
            let (journal, _thread) = Journal::open(&config(dir.path())).expect("opens");
            journal.append(b"new\n".to_vec()).wait().await.expect("commits");
            assert_eq!(lines(dir.path()).len(), kept + 1, "{left:?}");
        }
        let long = format!("{{}}\n{}", "x".repeat(10_000));
        let dir = tempfile::tempdir().expect("dir");
        fs::write(dir.path().join("journal-000001.jsonl"), long).expect("writes");
        let _open = Journal::open(&config(dir.path())).expect("opens");
        assert_eq!(lines(dir.path()), ["{}"]);
    }

    #[tokio::test]
    async fn a_second_process_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let first = Journal::open(&config(dir.path())).expect("opens");
        let error = Journal::open(&config(dir.path())).err().expect("refused");
        assert!(error.to_string().contains("another process"), "{error}");
        drop(first);
    }

    #[tokio::test]
    async fn a_disk_that_hangs_or_a_full_queue_is_waited_for_so_long_and_no_longer() {
        let (queue, orders) = sync_channel(1);
        let (_health, healthy) = watch::channel(true);
        let journal = Journal { queue, healthy, wait: Duration::from_millis(50) };
        let hangs = journal.append(b"1\n".to_vec());
        let full = journal.append(b"2\n".to_vec());
        assert_eq!(full.wait().await, Err(JournalUnavailable));
        assert_eq!(hangs.wait().await, Err(JournalUnavailable));
        drop(orders);
        assert_eq!(journal.append(b"3\n".to_vec()).wait().await, Err(JournalUnavailable));
    }

    #[tokio::test]
    async fn a_removed_directory_refuses_and_its_return_resumes() {
        let parent = tempfile::tempdir().expect("dir");
        let dir = parent.path().join("journal");
        let (journal, _thread) = Journal::open(&config(&dir)).expect("opens");
        journal.append(b"1\n".to_vec()).wait().await.expect("commits");
        fs::remove_dir_all(&dir).expect("removes");
        assert_eq!(journal.append(b"2\n".to_vec()).wait().await, Err(JournalUnavailable));
        assert!(!*journal.health().borrow());
        fs::create_dir(&dir).expect("returns");
        journal.append(b"3\n".to_vec()).wait().await.expect("commits");
        assert!(*journal.health().borrow());
        assert_eq!(lines(&dir), ["3"]);
    }
}
