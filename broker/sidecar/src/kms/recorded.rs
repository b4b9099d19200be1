//! KMS within its limits, with a record of every answer.
//!
//! A call to KMS runs in a task of its own: a caller that goes away does not stop it, so its answer is seen and
//! recorded. The records travel with the answer, to be committed together with the activity record; if nobody takes
//! them, they write themselves.

mod recorder;
mod reply;
mod span;

use std::sync::Arc;
use std::time::Instant;

use key_broker_core::clock::Clock;
use key_broker_trail::journal::{Journal, JournalUnavailable};
use opentelemetry::context::FutureExt as _;
use opentelemetry::trace::SpanContext;
use time::OffsetDateTime;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use uuid::Uuid;

use super::guard::{Guard, Taker};
use super::{AttemptLog, Kms, KmsErrorKind};
use crate::error::BrokerError;
use crate::operation::{KmsReply, KmsRequest};
use crate::policy::Permitted;
use crate::telemetry::metrics::KmsCalls;
use crate::telemetry::trace;
pub(crate) use recorder::{Recorder, append_record};
pub(crate) use reply::CallableRequest;

/// KMS, recorded.
#[derive(Clone)]
pub(crate) struct RecordedKms {
    kms: Arc<dyn Kms>,
    guard: Guard,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
    timed: Option<KmsCalls>,
}

/// KMS's reply to a call, with the unwritten records of its attempts.
pub(crate) struct RecordedReply<T> {
    /// The reply, or why there is none.
    pub result: Result<T, BrokerError>,
    /// The attempt behind it; none where KMS did not answer.
    pub source: Option<Provenance>,
    /// To be committed before the reply leaves.
    pub records: UnwrittenRecords,
}

/// Which answer of KMS a reply came from.
#[derive(Debug, Clone)]
pub(crate) struct Provenance {
    /// `x-amzn-RequestId`. Shared, since every use of a kept key names it.
    pub request_id: Arc<str>,
    /// The eventID of the KMS record.
    pub event_id: Uuid,
    /// When KMS answered.
    pub at: OffsetDateTime,
    /// The span of the call, if it was traced.
    pub span: Option<Arc<SpanContext>>,
}

/// Records that are not in the journal yet. Dropped, they write themselves.
pub(crate) struct UnwrittenRecords {
    journal: Journal,
    lines: Vec<u8>,
}

impl UnwrittenRecords {
    /// Takes the lines over: the caller now has the duty to commit them.
    #[must_use]
    pub(crate) fn take(mut self) -> Vec<u8> {
        std::mem::take(&mut self.lines)
    }

    /// Commits the records of a call that a start or a delivery has made, or adds them to the backlog: KMS has answered, and what it
    /// answered is needed to make room. An error if it is not known what became of them.
    pub(super) async fn commit_for_the_trail(mut self) -> Result<(), JournalUnavailable> {
        if self.lines.is_empty() {
            return Ok(());
        }
        self.journal.commit_for_the_trail(std::mem::take(&mut self.lines)).await
    }

    /// Commits the records on their own. Where that fails they join the backlog: KMS has answered all the same.
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

impl Drop for UnwrittenRecords {
    fn drop(&mut self) {
        // Nobody waits: what the answer held has been dropped with the call.
        self.journal.defer(&self.lines);
    }
}

impl RecordedKms {
    /// Records what `kms` answers to what `guard` lets through. `tasks` is what a drain waits for.
    #[must_use]
    pub(crate) fn new(
        kms: Arc<dyn Kms>,
        guard: Guard,
        recorder: Recorder,
        clock: Arc<dyn Clock>,
        tasks: TaskTracker,
    ) -> Self {
        Self { kms, guard, recorder, clock, tasks, timed: None }
    }

    /// The same, with every call to KMS timed, if anybody reads that.
    #[must_use]
    pub(crate) fn timed(self, timed: Option<KmsCalls>) -> Self {
        Self { timed, ..self }
    }

    /// The tasks that a drain waits for.
    #[must_use]
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Time.
    #[must_use]
    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Makes a call that policy has permitted, in the trace that this runs in. It goes on when its caller goes away, until
    /// `deadline`.
    pub(crate) async fn call<R: CallableRequest>(
        &self,
        permitted: Permitted<Arc<R>>,
        deadline: Instant,
    ) -> RecordedReply<R::Reply> {
        // The backlog might have no room for the record of what KMS would answer.
        if self.recorder.journal.is_overdrawn(false) {
            return self.not_sent(BrokerError::JournalUnavailable);
        }
        let taker = permitted.share_of().cloned().map_or(Taker::Broker, Taker::Principal);
        self.make_call(permitted, &taker, deadline).await
    }

    /// The same, for a start or a delivery, whose records have room of their own.
    pub(super) async fn call_for_the_trail<R: CallableRequest>(
        &self,
        permitted: Permitted<Arc<R>>,
        deadline: Instant,
    ) -> RecordedReply<R::Reply> {
        if self.recorder.journal.is_overdrawn(true) {
            return self.not_sent(BrokerError::JournalUnavailable);
        }
        self.make_call(permitted, &Taker::Trail, deadline).await
    }

    async fn make_call<R: CallableRequest>(
        &self,
        permitted: Permitted<Arc<R>>,
        taker: &Taker,
        deadline: Instant,
    ) -> RecordedReply<R::Reply> {
        let RecordedReply { result, source, records } = self.send(permitted.widen(), taker, deadline).await;
        let result = result.and_then(|reply| R::reply(reply).map_err(|_| BrokerError::Bug));
        RecordedReply { result, source, records }
    }

    async fn send(
        &self,
        permitted: Permitted<KmsRequest>,
        taker: &Taker,
        deadline: Instant,
    ) -> RecordedReply<KmsReply> {
        let pass = match self.guard.enter(taker, deadline).await {
            Ok(pass) => pass,
            Err(error) => return self.not_sent(error),
        };
        let span = span::begin(&self.recorder.caller, &permitted);
        let remaining = deadline.saturating_duration_since(self.clock.instant());
        let (kms, recorder) = (Arc::clone(&self.kms), self.recorder.clone());
        let timed = self.timed.as_ref().map(|timed| timed.begin(permitted.subject().operation().name()));
        let within = span.clone();
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
            let mut reply = recorder.record(&permitted, result, &attempts);
            span::describe(&span, &attempts, &reply);
            if let Some(source) = &mut reply.source {
                source.span = trace::link_to(&span);
            }
            reply
        };
        let task = self.tasks.spawn(work.instrument(within).with_current_context());
        // The task ends by panic only (nothing aborts it): a defect.
        task.await.unwrap_or_else(|_| self.not_sent(BrokerError::Bug))
    }

    /// No answer of KMS, so no record of one.
    fn not_sent<T>(&self, error: BrokerError) -> RecordedReply<T> {
        let records = UnwrittenRecords { journal: self.recorder.journal.clone(), lines: Vec::new() };
        RecordedReply { result: Err(error), source: None, records }
    }
}

/// What callers cannot mend.
fn warn_of_credentials<T>(result: &Result<T, BrokerError>) {
    let Err(BrokerError::Kms(error)) = result else { return };
    if error.kind == KmsErrorKind::Credentials {
        tracing::error!(
            error = error.code,
            "AWS does not take the broker's credentials, or its clock is wrong: renew the credentials, and look at the clock; kept \
             data keys are served meanwhile"
        );
    }
}
