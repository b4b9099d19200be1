//! The end of a broker's trail: delivers what was recorded, closes the journal, and counts what is left.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::announcer::Announcer;
use crate::delivery::{Trail, TrailParts};
use crate::journal::JournalThread;
use crate::names::TrailNames;
use crate::record::{BrokerData, BrokerEvent};
use crate::remainder::{Leftover, Remainder};
use crate::state::State;

/// A trail that is being delivered.
struct Delivery {
    names: TrailNames,
    trail: JoinHandle<Trail>,
    stop: CancellationToken,
}

impl Delivery {
    /// Delivers from now on.
    fn start(trail: Trail) -> Self {
        let (names, stop) = (trail.names().clone(), CancellationToken::new());
        Self { names, trail: tokio::spawn(trail.run(stop.clone())), stop }
    }

    /// Delivers what is left.
    async fn finish(self, rest: impl Fn() -> Duration) -> TrailNames {
        self.stop.cancel();
        match tokio::time::timeout(rest(), self.trail).await {
            Ok(Ok(trail)) => {
                // It keeps to its time itself, unless a disk hangs.
                let (within, patience) = (rest(), rest() + HANGING);
                if tokio::time::timeout(patience, trail.finish(within)).await.is_err() {
                    tracing::error!("the journal's disk hangs: the next start delivers what is left");
                }
            }
            Ok(Err(_)) => tracing::error!("the trail's task panicked: the next start delivers what is left"),
            Err(_) => tracing::warn!("a delivery hangs: the next start delivers what is left"),
        }
        self.names
    }
}

/// What runs beside calls, and has to be ended.
pub struct Ending {
    /// Reports what is not reported yet, and knows the journal.
    announcer: Announcer,
    /// Ends with the drain, once that is recorded.
    life: JoinHandle<()>,
    drain: CancellationToken,
    /// Writes the journal.
    journal: JournalThread,
    /// Delivers it, if anything does: without a trail, the journal is where records stay.
    delivery: Option<Delivery>,
}

impl Ending {
    /// Records that the broker starts, and that it drains when `drain` is cancelled. Until then it reports what no call's record reports;
    /// it cancels `drain` itself where the journal's thread ends in a defect, since only a new process mends that.
    #[must_use]
    pub fn begin(parts: &TrailParts, journal: JournalThread, drain: CancellationToken) -> Self {
        let announcer = parts.announcer();
        announcer.tell_later(BrokerEvent::Start, parts.start_data(&announcer.origin), parts.identity.clone());
        let run = announcer.clone();
        let draining = drain.clone();
        let life = tokio::spawn(async move {
            tokio::select! {
                () = run.journal.died() => {
                    tracing::error!("the journal's thread panicked, please report this bug: the broker stops, to be restarted");
                    drain.cancel();
                }
                () = run.clone().run(drain.clone()) => {}
            }
            run.tell_later(BrokerEvent::Drain, BrokerData::default(), None);
        });
        Self { announcer, life, drain: draining, journal, delivery: None }
    }

    /// Delivers the journal as this trail from now on.
    pub fn deliver(&mut self, trail: Trail) {
        self.delivery = Some(Delivery::start(trail));
    }

    /// Ends it, with the time that `rest` says is left. Returns what is left behind.
    pub async fn finish(self, rest: impl Fn() -> Duration) -> Remainder {
        let Self { announcer, life, drain, journal, delivery } = self;
        if !drain.is_cancelled() {
            // Nobody has served.
            life.abort();
        }
        let _ = tokio::time::timeout(rest(), life).await;
        let names = if let Some(delivery) = delivery {
            Some(delivery.finish(&rest).await)
        } else {
            // What is not reported or written in time is counted.
            let _ = tokio::time::timeout(rest(), announcer.write_backlog()).await;
            None
        };
        let looked = tokio::task::spawn_blocking(move || close(journal, &announcer, names.as_ref()));
        let unreadable = |why: &str| Remainder { unreadable: Some(why.into()), ..Remainder::default() };
        match tokio::time::timeout(rest() + HANGING, looked).await {
            Ok(Ok(remainder)) => remainder,
            Ok(Err(_)) => unreadable("the look at it was cut off"),
            Err(_) => unreadable("its disk hangs"),
        }
    }
}

/// Ends the journal, and looks at what is left. Blocks.
pub(super) fn close(thread: JournalThread, announcer: &Announcer, names: Option<&TrailNames>) -> Remainder {
    let Ok(lost) = thread.close() else {
        let why = "the journal's thread ended in a defect, and its records with it".to_owned();
        return Remainder { unreadable: Some(why), ..Remainder::default() };
    };
    let untold_notices = announcer.journal.notices().untold();
    let mut remainder = Remainder { lost, untold_notices, ..Remainder::default() };
    let Some(names) = names else { return remainder };
    let dir = &announcer.journal_dir;
    let own = announcer.journal.hold().confirm();
    let looked = own.and_then(|()| State::load(dir)).and_then(|state| {
        let delivered = state.as_ref().and_then(|state| state.delivered);
        Ok((state, Leftover::look(dir, delivered, names)?.0))
    });
    match looked {
        Ok((state, left)) => {
            remainder.journal = left;
            remainder.log_files_without_digest = state.map_or(0, |state| {
                state.log_files.len() + state.sealed.map_or(0, |sealed| sealed.log_files.len())
            });
        }
        Err(error) => remainder.unreadable = Some(error.to_string()),
    }
    remainder
}

/// How much longer than its time a delivery may take.
const HANGING: Duration = Duration::from_secs(2);
