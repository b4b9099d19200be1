//! KMS behind its guards, with a record of every answer.
//!
//! Each call to KMS runs in its own task, so that its answer is received and recorded even if the caller goes away. The
//! records come with the answer, to be committed together with the activity record; if they are dropped, they go to the
//! journal by themselves.

mod patience;
mod recorder;
mod regions;
mod reply;
mod span;

use std::sync::Arc;
use std::time::Instant;

use key_broker_core::clock::{Clock, Moment};
use key_broker_trail::journal::{Journal, JournalUnavailable};
use opentelemetry::context::FutureExt as _;
use opentelemetry::trace::SpanContext;
use time::OffsetDateTime;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use uuid::Uuid;

use regions::{Turn, goes_elsewhere, is_answer, is_unanswered};

use super::guard::Taker;
use super::{AttemptLog, KmsErrorKind};
use crate::error::BrokerError;
use crate::operation::{DryRunRequest, KmsReply, KmsRequest};
use crate::policy::{Permitted, own};
use crate::telemetry::metrics::KmsCalls;
use crate::telemetry::trace;
pub(crate) use patience::{silence, time_to_tell};
pub(crate) use recorder::{Recorder, append_record};
pub(crate) use regions::KmsRegion;
pub(crate) use reply::CallableRequest;

#[derive(Clone)]
pub(crate) struct RecordedKms {
    /// The broker's own region; the others are for multi-Region keys when it does not answer.
    home: Arc<KmsRegion>,
    others: Arc<[KmsRegion]>,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
    timed: Option<KmsCalls>,
}

/// KMS's reply to a call, with the uncommitted records of its attempts.
pub(crate) struct RecordedReply<T> {
    /// The reply, or the error.
    pub result: Result<T, BrokerError>,
    /// The attempt behind it; `None` if KMS did not answer.
    pub source: Option<Provenance>,
    /// The region that was asked last.
    pub region: Arc<str>,
    /// The records to commit before the reply leaves.
    pub records: UnwrittenRecords,
}

/// The answer of KMS from which a reply came.
#[derive(Debug, Clone)]
pub(crate) struct Provenance {
    /// `x-amzn-RequestId`, shared because every use of a cached key names it.
    pub request_id: Arc<str>,
    /// The eventID of the KMS record.
    pub event_id: Uuid,
    /// When KMS answered.
    pub at: OffsetDateTime,
    /// The span of the call, if it was traced.
    pub span: Option<Arc<SpanContext>>,
}

impl Provenance {
    /// When KMS was asked, told no later than when it answered: the record of its answer is what ages are reckoned from.
    #[must_use]
    pub(crate) fn requested_at(&self, asked: Moment) -> Moment {
        Moment { wall: asked.wall.min(self.at), ..asked }
    }
}

/// Records that are not in the journal yet. If this is dropped, they join the backlog.
pub(crate) struct UnwrittenRecords {
    journal: Journal,
    lines: Vec<u8>,
}

impl UnwrittenRecords {
    /// Takes the lines: the caller must commit them.
    #[must_use]
    pub(crate) fn take(mut self) -> Vec<u8> {
        std::mem::take(&mut self.lines)
    }

    /// Commits the records of a start's or a delivery's call, or adds them to the backlog. An error means that it is not known
    /// whether they were written.
    pub(super) async fn commit_for_the_trail(mut self) -> Result<(), JournalUnavailable> {
        if self.lines.is_empty() {
            return Ok(());
        }
        self.journal.commit_for_the_trail(std::mem::take(&mut self.lines)).await
    }

    /// Commits the records on their own. If that fails, they join the backlog, since KMS has answered.
    pub(crate) async fn commit(mut self) -> Result<(), JournalUnavailable> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let commit = self.journal.append_of(None, std::mem::take(&mut self.lines));
        match commit.wait().await {
            Err(JournalUnavailable(Some(lines))) => {
                self.journal.defer(&lines);
                Err(JournalUnavailable(None))
            }
            other => other,
        }
    }
}

impl UnwrittenRecords {
    /// Adds the other records to these.
    fn add(&mut self, others: Self) {
        self.lines.append(&mut others.take());
    }
}

impl Drop for UnwrittenRecords {
    fn drop(&mut self) {
        // The reply was dropped with the call, so nobody waits for its records.
        self.journal.defer(&self.lines);
    }
}

impl RecordedKms {
    /// Records what KMS answers in `home`, the broker's own region, and in `others`. A drain waits for `tasks`.
    #[must_use]
    pub(crate) fn new(
        home: KmsRegion,
        others: Vec<KmsRegion>,
        clock: Arc<dyn Clock>,
        tasks: TaskTracker,
    ) -> Self {
        Self { home: Arc::new(home), others: others.into(), clock, tasks, timed: None }
    }

    /// The same with the duration of every call measured, if anybody reads the measurements.
    #[must_use]
    pub(crate) fn timed(self, timed: Option<KmsCalls>) -> Self {
        Self { timed, ..self }
    }

    /// The tasks that a drain waits for.
    #[must_use]
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    #[must_use]
    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Makes a call that policy has permitted, in the current trace. It continues until `deadline` even if its caller goes away.
    pub(crate) async fn call<R: CallableRequest>(
        &self,
        permitted: Permitted<Arc<R>>,
        deadline: Instant,
    ) -> RecordedReply<R::Reply> {
        // The backlog might have no room for the record of the answer.
        if self.journal().is_overdrawn(false) {
            return self.not_sent(BrokerError::JournalUnavailable);
        }
        let taker = permitted.share_of().cloned().map_or(Taker::Broker, Taker::Principal);
        self.make_call(permitted, &taker, deadline).await
    }

    /// The same for a start or a delivery, whose records have room of their own.
    pub(super) async fn call_for_the_trail<R: CallableRequest>(
        &self,
        permitted: Permitted<Arc<R>>,
        deadline: Instant,
    ) -> RecordedReply<R::Reply> {
        if self.journal().is_overdrawn(true) {
            return self.not_sent(BrokerError::JournalUnavailable);
        }
        self.make_call(permitted, &Taker::Trail, deadline).await
    }

    /// Asks KMS in `region` whether it still allows the use, without waiting for a slot.
    pub(crate) async fn check(
        &self,
        request: DryRunRequest,
        region: &str,
        deadline: Instant,
    ) -> RecordedReply<()> {
        let permitted = match own::permit(request) {
            Ok(permitted) if !self.journal().is_overdrawn(false) => permitted,
            Ok(_) => return self.not_sent(BrokerError::JournalUnavailable),
            Err(error) => return self.not_sent(error),
        };
        let region = self.others.iter().find(|other| &**other.guard.region() == region).unwrap_or(&self.home);
        let turn = Turn { until: deadline, has_others: true };
        typed::<DryRunRequest>(self.ask(region, permitted.widen(), &Taker::Check, turn).await)
    }

    async fn make_call<R: CallableRequest>(
        &self,
        permitted: Permitted<Arc<R>>,
        taker: &Taker,
        deadline: Instant,
    ) -> RecordedReply<R::Reply> {
        typed::<R>(self.send(permitted.widen(), taker, deadline).await)
    }

    /// Asks the broker's own region and, for a multi-Region key, the others until one answers. If KMS does not answer, the error
    /// says so, if there is time to send it before the deadline.
    async fn send(
        &self,
        permitted: Permitted<KmsRequest>,
        taker: &Taker,
        deadline: Instant,
    ) -> RecordedReply<KmsReply> {
        let others = if goes_elsewhere(permitted.subject()) { &*self.others } else { &[] };
        let kept = time_to_tell(deadline.saturating_duration_since(self.clock.instant()));
        let deadline = deadline.checked_sub(kept).unwrap_or(deadline);
        let turn = |others, region: &KmsRegion| {
            Turn::new(self.clock.instant(), deadline, others, region.guard.fair_time())
        };
        let first = turn(others.len(), &self.home);
        let mut reply = self.ask(&self.home, permitted.clone(), taker, first).await;
        let mut is_open = is_unanswered(&reply.result);
        for (place, region) in others.iter().enumerate() {
            if !is_open || self.clock.instant() >= deadline {
                break;
            }
            let turn = turn(others.len() - place - 1, region);
            let next = self.ask(region, permitted.clone(), taker, turn).await;
            is_open = !is_answer(&next.result);
            reply = reply.or(next);
        }
        if !kept.is_zero() && matches!(reply.result, Err(BrokerError::DeadlineExceeded)) {
            reply.result = Err(silence());
        }
        reply
    }

    /// Asks one region.
    async fn ask(
        &self,
        region: &KmsRegion,
        permitted: Permitted<KmsRequest>,
        taker: &Taker,
        turn: Turn,
    ) -> RecordedReply<KmsReply> {
        let pass = match region.guard.enter(taker, turn.until).await {
            Ok(pass) => pass,
            Err(error) => return self.not_sent(error),
        };
        let span = span::begin(&region.recorder.caller, &permitted);
        let remaining = turn.until.saturating_duration_since(self.clock.instant());
        let kms = Arc::clone(if turn.has_others { &region.once } else { &region.kms });
        let recorder = region.recorder.clone();
        let timed = self.timed.as_ref().map(|timed| timed.begin(permitted.subject().operation().name()));
        let within = span.clone();
        let asked_in = Arc::clone(region.guard.region());
        let work = async move {
            let attempts = AttemptLog::default();
            let call = kms.call(permitted.clone(), &attempts);
            let called = tokio::time::timeout(remaining, call).await;
            let answered = attempts.take();
            let result = match called {
                Ok(result) => answered.checked(result).map_err(BrokerError::Kms),
                Err(_) => Err(BrokerError::DeadlineExceeded),
            };
            recorder.journal.count_unrecorded(0, answered.unidentified);
            if let Some(timed) = timed {
                timed.end(&result);
            }
            warn_of_credentials(&result);
            let attempts = answered.attempts;
            pass.end(&result, &attempts);
            let mut reply = recorder.record(&permitted, result, &attempts, asked_in);
            span::describe(&span, &attempts, &reply);
            if let Some(source) = &mut reply.source {
                source.span = trace::link_to(&span);
            }
            reply
        };
        let task = self.tasks.spawn(work.instrument(within).with_current_context());
        // Nothing aborts the task, so it can only have panicked.
        task.await.unwrap_or_else(|_| self.not_sent(BrokerError::Bug))
    }

    /// The broker's own region.
    #[must_use]
    pub(crate) fn region(&self) -> &Arc<str> {
        self.home.guard.region()
    }

    /// The recorder of the broker's own region.
    #[must_use]
    pub(crate) fn recorder(&self) -> &Recorder {
        &self.home.recorder
    }

    fn journal(&self) -> &Journal {
        &self.home.recorder.journal
    }

    /// A reply for a call that KMS did not answer, without records.
    fn not_sent<T>(&self, error: BrokerError) -> RecordedReply<T> {
        let records = UnwrittenRecords { journal: self.journal().clone(), lines: Vec::new() };
        let region = Arc::clone(self.region());
        RecordedReply { result: Err(error), source: None, region, records }
    }
}

/// Converts a reply to that of one operation.
fn typed<R: CallableRequest>(reply: RecordedReply<KmsReply>) -> RecordedReply<R::Reply> {
    let RecordedReply { result, source, region, records } = reply;
    let result = result.and_then(|reply| R::reply(reply).map_err(|_| BrokerError::Bug));
    RecordedReply { result, source, region, records }
}

/// Logs errors that callers cannot mend.
fn warn_of_credentials<T>(result: &Result<T, BrokerError>) {
    let Err(BrokerError::Kms(error)) = result else { return };
    if matches!(error.kind, KmsErrorKind::Credentials | KmsErrorKind::AccountCredentials) {
        tracing::error!(
            error = error.code,
            "AWS rejects the broker's credentials, or its clock is wrong: renew the credentials, and check the clock; cached \
             data keys are served meanwhile"
        );
    }
}
