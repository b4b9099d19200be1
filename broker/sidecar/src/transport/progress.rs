//! The progress of a connection: its open streams, whether its peer takes what is sent, and how long it has been idle. This decides
//! when it must end.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use key_broker_core::Principal;
use key_broker_core::clock::Clock;

use crate::limits::Taken;
use crate::places::Work;

/// The progress of one connection.
pub(super) struct Progress {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Whether the peer has stopped taking what is written; readable without the lock.
    is_stalled: AtomicBool,
}

struct State {
    has_called: bool,
    streams: usize,
    /// When it was opened, or its last stream ended.
    quiet_since: Instant,
    /// When the peer stopped taking what is written.
    stalled_since: Option<Instant>,
    unwritten: UnwrittenPieces,
    /// Woken when the peer has taken something.
    reader: Option<Waker>,
}

/// Pieces of replies that the peer has not taken, in groups of those handed over at about the same time: the oldest first.
#[derive(Default)]
struct UnwrittenPieces {
    groups: VecDeque<Group>,
    next: u64,
}

/// The pieces handed over within [`GROUP`] after `since`.
struct Group {
    number: u64,
    since: Instant,
    pieces: usize,
}

/// A stream whose reply is not fully written yet.
pub(super) struct OpenStream {
    progress: Arc<Progress>,
    _taken: Option<Taken>,
    _work: Option<Work<Principal>>,
}

/// A piece of a reply that is not written yet.
pub(super) struct UnwrittenPiece {
    stream: Arc<OpenStream>,
    group: u64,
}

/// What should happen to a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Look again after this time.
    Later(Duration),
    /// Ask it to leave: nothing is under way on it.
    Leave(&'static str),
    /// Cut it off.
    Cut(&'static str),
}

impl Progress {
    /// A connection that was just opened.
    #[must_use]
    pub(super) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let state = State {
            has_called: false,
            streams: 0,
            quiet_since: clock.instant(),
            stalled_since: None,
            unwritten: UnwrittenPieces::default(),
            reader: None,
        };
        Arc::new(Self { clock, state: Mutex::new(state), is_stalled: AtomicBool::new(false) })
    }

    /// Begins a stream; `None` if it may not. The first few on a connection always may, so that every connected client can call;
    /// further ones take a share of all streams by `take`.
    pub(super) fn open(
        self: &Arc<Self>,
        take: impl FnOnce() -> Option<Taken>,
        work: Option<Work<Principal>>,
    ) -> Option<Arc<OpenStream>> {
        let mut state = self.lock();
        let taken = if state.streams < STREAMS_FOR_ALL { None } else { Some(take()?) };
        state.has_called = true;
        state.streams += 1;
        drop(state);
        Some(Arc::new(OpenStream { progress: Arc::clone(self), _taken: taken, _work: work }))
    }

    /// Whether no stream is open.
    #[must_use]
    pub(super) fn is_quiet(&self) -> bool {
        self.lock().streams == 0
    }

    /// Whether the connection must end.
    #[must_use]
    pub(super) fn look(&self) -> Look {
        let (now, state) = (self.clock.instant(), self.lock());
        let left =
            |since: Instant, bound: Duration| bound.saturating_sub(now.saturating_duration_since(since));
        let untaken = [state.stalled_since, state.unwritten.oldest()];
        let untaken =
            untaken.into_iter().flatten().min().map_or(TAKEN_WITHIN, |since| left(since, TAKEN_WITHIN));
        if untaken.is_zero() {
            return Look::Cut("its peer does not take what it is sent");
        }
        let (bound, why) =
            if state.has_called { (IDLE, "it is idle") } else { (FIRST_CALL, "its peer calls nothing") };
        let quiet = if state.streams == 0 { left(state.quiet_since, bound) } else { bound };
        if quiet.is_zero() { Look::Leave(why) } else { Look::Later(untaken.min(quiet)) }
    }

    /// Whether reading must wait: a peer that does not read its replies is not read from either.
    pub(super) fn reads_later(&self, cx: &Context<'_>) -> bool {
        if !self.is_stalled.load(Ordering::Acquire) {
            return false;
        }
        let mut state = self.lock();
        if state.stalled_since.is_some() {
            state.reader = Some(cx.waker().clone());
        }
        state.stalled_since.is_some()
    }

    /// Notes whether writing has to wait for the peer.
    pub(super) fn wrote(&self, waits: bool) {
        if self.is_stalled.load(Ordering::Acquire) == waits {
            return;
        }
        let mut state = self.lock();
        self.is_stalled.store(waits, Ordering::Release);
        state.stalled_since = waits.then(|| self.clock.instant());
        let reader = if waits { None } else { state.reader.take() };
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenStream {
    /// Begins a piece of the reply.
    pub(super) fn piece(self: &Arc<Self>) -> UnwrittenPiece {
        let now = self.progress.clock.instant();
        let group = self.progress.lock().unwritten.add(now);
        UnwrittenPiece { stream: Arc::clone(self), group }
    }
}

impl UnwrittenPieces {
    /// Adds one and returns the number of its group.
    fn add(&mut self, now: Instant) -> u64 {
        if let Some(last) = self.groups.back_mut()
            && now.saturating_duration_since(last.since) < GROUP
        {
            last.pieces += 1;
            return last.number;
        }
        let number = self.next;
        self.next += 1;
        self.groups.push_back(Group { number, since: now, pieces: 1 });
        number
    }

    /// One of this group is written.
    fn remove(&mut self, group: u64) {
        if let Ok(place) = self.groups.binary_search_by_key(&group, |group| group.number) {
            let group = &mut self.groups[place];
            group.pieces -= 1;
            if group.pieces == 0 {
                self.groups.remove(place);
            }
        }
    }

    /// When the oldest were handed over.
    fn oldest(&self) -> Option<Instant> {
        self.groups.front().map(|group| group.since)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut state = self.progress.lock();
        state.streams = state.streams.saturating_sub(1);
        if state.streams == 0 {
            state.quiet_since = self.progress.clock.instant();
        }
    }
}

impl Drop for UnwrittenPiece {
    fn drop(&mut self) {
        self.stream.progress.lock().unwritten.remove(self.group);
    }
}

/// Streams that may be open on each connection, whatever its principal has on others.
const STREAMS_FOR_ALL: usize = 4;
/// How long a peer may take for its first call, preface included: clients connect because they have something to ask.
const FIRST_CALL: Duration = Duration::from_secs(5);
/// How long a connection may be idle: clients reconnect, and the buffers of idle connections are freed.
const IDLE: Duration = Duration::from_mins(5);
/// How long a peer may leave data untaken. Sockets have buffers, so a client that pauses for a moment is not affected.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);
/// Pieces of so short a time count as one, so that there are few groups however many pieces a peer leaves.
const GROUP: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    //! A connection ends when its peer does not call, is idle or does not read, and for no other reason.

    use key_broker_core::{FairShares, Principal};
    use std::sync::atomic::AtomicU64;
    use time::OffsetDateTime;

    use super::*;
    use crate::fair_pool::FairPool;

    struct SetClock(Instant, AtomicU64);

    impl Clock for SetClock {
        fn now(&self) -> OffsetDateTime {
            OffsetDateTime::UNIX_EPOCH
        }

        fn instant(&self) -> Instant {
            self.0 + Duration::from_secs(self.1.load(Ordering::Relaxed))
        }
    }

    fn progress() -> (Arc<SetClock>, Arc<Progress>, Arc<FairPool<Principal>>) {
        use key_broker_core::clock::SystemClock;
        let clock = Arc::new(SetClock(SystemClock.instant(), AtomicU64::new(0)));
        (Arc::clone(&clock), Progress::new(clock), FairPool::new(FairShares::new(64)))
    }

    fn pass(clock: &SetClock, seconds: u64) {
        clock.1.fetch_add(seconds, Ordering::Relaxed);
    }

    fn open(progress: &Arc<Progress>, pool: &Arc<FairPool<Principal>>) -> Arc<OpenStream> {
        progress.open(|| pool.take(&Principal::Unknown, 1), None).expect("free")
    }

    #[test]
    fn some_streams_of_each_connection_take_no_share() {
        let (_, progress, _) = progress();
        let mut open = Vec::new();
        for _ in 0..STREAMS_FOR_ALL {
            open.extend(progress.open(|| None, None));
        }
        assert_eq!(open.len(), STREAMS_FOR_ALL);
        assert!(progress.open(|| None, None).is_none());
        open.pop();
        assert!(progress.open(|| None, None).is_some());
    }

    #[test]
    fn quiet_ones_leave() {
        let (clock, progress, pool) = progress();
        assert_eq!(progress.look(), Look::Later(FIRST_CALL));
        pass(&clock, 4);
        assert_eq!(progress.look(), Look::Later(Duration::from_secs(1)));
        let stream = open(&progress, &pool);
        pass(&clock, 1_000);
        assert_eq!(progress.look(), Look::Later(TAKEN_WITHIN), "something is under way");
        drop(stream);
        pass(&clock, 299);
        assert_eq!(progress.look(), Look::Later(Duration::from_secs(1)));
        pass(&clock, 1);
        assert_eq!(progress.look(), Look::Leave("it is idle"));
    }

    #[test]
    fn who_calls_nothing_leaves() {
        let (clock, progress, _) = progress();
        pass(&clock, 5);
        assert_eq!(progress.look(), Look::Leave("its peer calls nothing"));
    }

    #[test]
    fn who_does_not_read_is_cut_off() {
        let (clock, progress, pool) = progress();
        let stream = open(&progress, &pool);
        let (old, new) = (stream.piece(), stream.piece());
        pass(&clock, 9);
        assert_eq!(progress.look(), Look::Later(Duration::from_secs(1)));
        drop(old);
        pass(&clock, 1);
        assert!(matches!(progress.look(), Look::Cut(_)), "the other one is as old");
        drop(new);
        assert_eq!(progress.look(), Look::Later(TAKEN_WITHIN));
        progress.wrote(true);
        pass(&clock, 9);
        progress.wrote(true);
        assert_eq!(progress.look(), Look::Later(Duration::from_secs(1)));
        progress.wrote(false);
        pass(&clock, 9);
        assert_eq!(progress.look(), Look::Later(TAKEN_WITHIN));
    }
}
