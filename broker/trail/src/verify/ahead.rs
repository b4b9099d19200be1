//! Reads a trail ahead of its verification, in order. Several objects are fetched at a time, and log files are uncompressed, hashed and
//! parsed on as many threads as there are processors.

use std::hash::RandomState;
use std::sync::Arc;

use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::sync::{Semaphore, watch};

use super::log_file::{self, ReadLogFile, Room};
use crate::digest::LogFile;
use crate::reader::{DigestFile, DigestKey, ReadFailure, TrailReader};
use crate::store::StoreError;

/// An object that was read.
pub(super) enum Step {
    Digest(DigestKey, Result<Option<Box<DigestFile>>, ReadFailure>),
    /// A log file of the preceding digest.
    LogFile(Box<LogFile>, Result<Option<ReadLogFile>, ReadFailure>),
}

/// The read-ahead of one trail.
pub(super) struct Ahead<'a> {
    reader: &'a TrailReader,
    account_id: Arc<str>,
    hashes: RandomState,
    counts_uses: bool,
    /// Bounds the log files that are uncompressed and parsed at a time.
    turns: Arc<Semaphore>,
    /// The number of objects handed over to verification so far.
    handed_over: watch::Sender<usize>,
    /// How many further objects may be parsed and wait.
    waiting: usize,
    room: Room,
}

impl<'a> Ahead<'a> {
    /// Reads the trail of `reader` on this many threads. What records are compared by is hashed with `hashes`.
    pub(super) fn new(
        reader: &'a TrailReader,
        hashes: &RandomState,
        threads: usize,
        counts_uses: bool,
    ) -> Self {
        Self {
            reader,
            counts_uses,
            account_id: reader.names().account_id.as_str().into(),
            hashes: hashes.clone(),
            // Verification uses a thread, too, so one file waits for each that is being parsed.
            turns: Arc::new(Semaphore::new(threads.max(1) * 2)),
            handed_over: watch::Sender::new(0),
            waiting: threads.max(1) * 2,
            room: Room::default(),
        }
    }

    /// Reads these digests, each followed by its log files.
    pub(super) fn digests<'s>(&'s self, digests: &'s [DigestKey]) -> impl Stream<Item = Step> + 's {
        let read = stream::iter(digests).map(async |named: &DigestKey| {
            let read = self.reader.digest_file(&named.key).await;
            (named.clone(), read.map(|file| file.map(Box::new)))
        });
        let steps = read.buffered(DIGESTS_AHEAD).flat_map(|(named, read)| {
            let entries = match &read {
                // This program cannot read the log files of a later format.
                Ok(Some(file)) if file.newer_version().is_none() => file.digest.log_files.clone(),
                _ => Vec::new(),
            };
            let named = [Wanted::Digest(named, read)].into_iter();
            stream::iter(named.chain(entries.into_iter().map(Wanted::LogFile)))
        });
        self.read(steps)
    }

    /// Reads these log files.
    pub(super) fn log_files(&self, entries: Vec<LogFile>) -> impl Stream<Item = Step> {
        self.read(stream::iter(entries).map(Wanted::LogFile))
    }

    fn read<'s>(&'s self, wanted: impl Stream<Item = Wanted> + 's) -> impl Stream<Item = Step> + 's {
        let first = *self.handed_over.borrow();
        let numbered = wanted.enumerate().map(move |(number, wanted)| self.step(first + number, wanted));
        let hand_over = |_: &Step| self.handed_over.send_modify(|count| *count += 1);
        numbered.buffered(OBJECTS_AHEAD).inspect(hand_over)
    }

    async fn step(&self, number: usize, wanted: Wanted) -> Step {
        match wanted {
            Wanted::Digest(named, read) => Step::Digest(named, read),
            Wanted::LogFile(entry) => {
                let read = self.log_file(number, &entry).await;
                Step::LogFile(Box::new(entry), read)
            }
        }
    }

    async fn log_file(&self, number: usize, entry: &LogFile) -> Result<Option<ReadLogFile>, ReadFailure> {
        let Some(fetched) = self.reader.fetch(&entry.s3_object).await? else { return Ok(None) };
        // A parsed file takes more memory than a fetched one, so it may have to wait; earlier files never wait for it.
        let mut handed_over = self.handed_over.subscribe();
        let _ = handed_over.wait_for(|count| number <= count + self.waiting).await;
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let (entry, account_id, hashes) = (entry.clone(), Arc::clone(&self.account_id), self.hashes.clone());
        let (counts_uses, room) = (self.counts_uses, self.room.clone());
        let work = tokio::task::spawn_blocking(move || {
            let read = log_file::read(&entry, fetched, &account_id, &hashes, counts_uses, &room);
            drop(turn);
            read.map(Some)
        });
        match work.await {
            Ok(read) => read,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(ReadFailure::Store(StoreError("the reading was cut off".into()))),
        }
    }
}

/// An object to be read.
enum Wanted {
    Digest(DigestKey, Result<Option<Box<DigestFile>>, ReadFailure>),
    LogFile(LogFile),
}

/// A digest has some kilobytes, and a day of a trail has 24.
const DIGESTS_AHEAD: usize = 8;
/// A distant store answers many requests in the time of one. A log file that waits here is still compressed.
const OBJECTS_AHEAD: usize = 16;
