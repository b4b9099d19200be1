//! One activity record for every call, whatever its outcome.
//!
//! An [`AuditScope`] is opened when a call arrives and committed before its reply leaves. A scope that is dropped, as
//! when the caller goes away, sends its record to the backlog.

mod draft;
pub(crate) mod refusals;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use key_broker_core::clock::{Clock, Moment};
use key_broker_core::{KeyId, Outcome};
use key_broker_trail::journal::{Journal, JournalUnavailable};
use key_broker_trail::record::{
    ActivityEventData, ActivityRecord, AwsCaller, DataKeyData, Open, PolicyData, RequestParameters,
    UserIdentity,
};
use opentelemetry::KeyValue;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::BrokerError;
use crate::identity::Peer;
use crate::kms::recorded::UnwrittenRecords;
use crate::operation::{KmsRequest, Operation, recorded};
use crate::redaction::Redaction;
use crate::telemetry::trace::{ServerSpan, TraceIds};
use crate::telemetry::{status, vocabulary};
use draft::RecordDraft;
pub(crate) use draft::{PolicyNote, RecordBuilder};
use refusals::{CountedRefusal, Refusal, Refusals};

/// Opens a scope for every call.
pub(crate) struct Audit {
    /// Where records are written.
    pub journal: Journal,
    /// The account and region in every record.
    pub caller: Arc<AwsCaller>,
    /// The redaction of records.
    pub redaction: Option<Arc<Redaction>>,
    /// Counts refusals that come in a flood.
    pub refusals: Arc<Refusals>,
    /// The clock for the records' times.
    pub clock: Arc<dyn Clock>,
}

impl Audit {
    /// Begins the record of one call, whose server span is `span`.
    #[must_use]
    pub(crate) fn open(
        self: &Arc<Self>,
        event_name: &'static str,
        peer: Arc<Peer>,
        user_agent: Option<&HeaderValue>,
        span: ServerSpan,
        trace: TraceIds,
    ) -> AuditScope {
        let record = RecordBuilder::default();
        AuditScope {
            audit: Arc::clone(self),
            request_id: Uuid::new_v4(),
            event_id: Uuid::new_v4(),
            span,
            trace,
            began: Moment::now(&*self.clock),
            event_name,
            peer,
            user_agent: user_agent.cloned(),
            until: None,
            ends: None,
            goes_on: false,
            record,
            written: false,
            committing: None,
        }
    }
}

/// The record of one call while it is being made.
pub(crate) struct AuditScope {
    audit: Arc<Audit>,
    request_id: Uuid,
    event_id: Uuid,
    span: ServerSpan,
    trace: TraceIds,
    began: Moment,
    event_name: &'static str,
    peer: Arc<Peer>,
    user_agent: Option<HeaderValue>,
    until: Option<Instant>,
    /// For the record that ends a stream: the eventID of the one that began it.
    ends: Option<Uuid>,
    /// Whether another record will end the stream, and its span.
    goes_on: bool,
    record: RecordBuilder,
    written: bool,
    /// The record being committed, for the span of a call whose caller goes away meanwhile.
    committing: Option<Box<RecordDraft>>,
}

impl AuditScope {
    /// The server span of the call.
    #[must_use]
    pub(crate) fn span(&self) -> &ServerSpan {
        &self.span
    }

    /// The call's id, which the caller sees as `x-request-id`.
    #[must_use]
    pub(crate) fn request_id(&self) -> Uuid {
        self.request_id
    }

    /// The handle by which inner layers add what they learn.
    #[must_use]
    pub(crate) fn record(&self) -> RecordBuilder {
        self.record.clone()
    }

    /// Sets when the caller stops waiting.
    pub(crate) fn set_deadline(&mut self, until: Instant) {
        self.until = Some(until);
    }

    /// When the caller stops waiting, if that is known.
    #[must_use]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// Commits the record with which a stream begins, and returns the scope of the record that ends it, made from `end`.
    pub(crate) async fn commit_beginning(mut self, end: RecordBuilder) -> Result<Self, BrokerError> {
        self.goes_on = true;
        end.continues(&self.record);
        let mut ending = Self {
            audit: Arc::clone(&self.audit),
            request_id: self.request_id,
            event_id: Uuid::new_v4(),
            span: self.span.clone(),
            trace: self.trace.clone(),
            began: self.began,
            event_name: self.event_name,
            peer: Arc::clone(&self.peer),
            user_agent: self.user_agent.clone(),
            until: self.until,
            ends: Some(self.event_id),
            goes_on: false,
            record: end,
            // If the stream does not begin, there is nothing to end.
            written: true,
            committing: None,
        };
        self.commit().await?;
        ending.written = false;
        Ok(ending)
    }

    /// Commits the record with which a stream ends.
    pub(crate) async fn commit_end(mut self) -> Result<(), BrokerError> {
        // The stream may have ended because the caller's deadline has passed.
        let least = self.audit.clock.instant() + LAST_RECORD;
        self.until = self.until.map(|until| until.max(least));
        self.commit().await
    }

    /// Commits the activity record and the KMS records behind it before the caller stops waiting. Only if this succeeds may the reply
    /// leave; otherwise the record of the refusal joins the backlog.
    pub(crate) async fn commit(&mut self) -> Result<(), BrokerError> {
        self.written = true;
        if records_nothing() {
            let draft = std::mem::take(&mut *self.record.lock());
            self.end_span(&draft);
            return Ok(());
        }
        if let Some(counted) = self.count_refusal() {
            return self.commit_count(counted).await;
        }
        if let Some(notice) = self.audit.journal.take_notice() {
            self.record.lock().notice = Some(notice);
        }
        let RecordLines { draft, records, kms_bytes } = self.lines();
        self.committing = Some(draft);
        let mut span = self.span.begin(vocabulary::AUDIT_COMMIT);
        let commit = self.audit.journal.append_of(Some(&self.peer.principal), records);
        let committed = commit.wait_at_most(self.rest()).await;
        if committed.is_err() {
            span.fail("journal_unavailable");
        }
        drop(span);
        // There is no await from here on.
        let mut draft = self.committing.take().unwrap_or_default();
        let notice = draft.notice.take();
        let Err(JournalUnavailable(given_back)) = committed else {
            if let Some(notice) = notice {
                notice.told();
            }
            self.end_span(&draft);
            return Ok(());
        };
        let was_allowed = draft.end.as_ref().is_none_or(|end| end.outcome == Outcome::Allowed);
        let error = if self.rest().is_zero() {
            BrokerError::DeadlineExceeded
        } else {
            BrokerError::JournalUnavailable
        };
        self.record.refused(&error);
        let refused = RecordDraft { end: self.record.lock().end.take(), ..*draft };
        if let Some(mut records) = given_back {
            // Left to the next record: that of the refusal may come late or never.
            if let Some(notice) = notice {
                notice.give_back();
            }
            records.truncate(kms_bytes);
            self.append_activity(&refused, &mut records);
            self.audit.journal.defer(&records);
        } else if was_allowed {
            // The record of the answer may be written yet.
            self.withdraw(&refused);
        }
        self.end_span(&refused);
        if let BrokerError::JournalUnavailable = error {
            self.audit.journal.refused_call();
        }
        Err(error)
    }

    /// When the call came, by the clock as it was when a cached data key was drawn for it and as it is now, if that was set back since: no
    /// record may show a use after its data key's end.
    fn came_at(&self, drawn_at: Option<Moment>) -> OffsetDateTime {
        let now = Moment::now(&*self.audit.clock);
        if self.ends.is_some() {
            // A stream can last an hour, so the record of its end has the time of the end.
            return now.wall;
        }
        [drawn_at, Some(now)].into_iter().flatten().fold(self.began.wall, |came, moment| {
            let took = moment.instant.saturating_duration_since(self.began.instant);
            let by_then = moment.wall.checked_sub(took.try_into().unwrap_or_default());
            by_then.map_or(came, |by_then| by_then.min(came))
        })
    }

    /// How long the caller still waits.
    pub(crate) fn rest(&self) -> Duration {
        self.until.map_or(Duration::MAX, |until| until.saturating_duration_since(self.audit.clock.instant()))
    }

    /// Adds a second record that withdraws the first one, if that should be written.
    fn withdraw(&mut self, refused: &RecordDraft) {
        let withdrawn = std::mem::replace(&mut self.event_id, Uuid::new_v4());
        let mut line = Vec::new();
        self.append_activity_of(refused, Some(withdrawn), &mut line);
        self.audit.journal.defer(&line);
    }

    /// The place of a refusal in a count, if it is one of a flood and KMS did not answer.
    fn count_refusal(&self) -> Option<CountedRefusal> {
        let draft = self.record.lock();
        let end = draft.end.as_ref().filter(|_| draft.is_refusal())?;
        let (code, message) = end.error.as_ref()?;
        let words = self.words(&draft, message);
        let written = draft.request.as_ref().and_then(|request| request.operation().written_key());
        self.audit.refusals.count(&Refusal {
            peer: &self.peer,
            event_name: self.event_name,
            outcome: end.outcome,
            code,
            message: &words,
            request_id: self.request_id,
            at: self.came_at(None),
            key_name: written.map(KeyId::as_str),
        })
    }

    async fn commit_count(&mut self, counted: CountedRefusal) -> Result<(), BrokerError> {
        self.event_id = counted.event_id;
        let draft = std::mem::take(&mut *self.record.lock());
        self.end_span(&draft);
        // If the deadline passes, the caller has gone, and the refusal keeps its place in the count.
        match tokio::time::timeout(self.rest(), counted.committed()).await {
            Ok(true) | Err(_) => Ok(()),
            Ok(false) => {
                self.audit.journal.refused_call();
                Err(BrokerError::JournalUnavailable)
            }
        }
    }

    fn lines(&self) -> RecordLines {
        let mut draft = Box::new(std::mem::take(&mut *self.record.lock()));
        let mut records = draft.kms_records.take().map(UnwrittenRecords::take).unwrap_or_default();
        let kms_bytes = records.len();
        self.append_activity(&draft, &mut records);
        RecordLines { draft, records, kms_bytes }
    }

    /// Ends the server span once the call's end is known.
    fn end_span(&mut self, draft: &RecordDraft) {
        let is_begun = self.goes_on && draft.end.as_ref().is_none_or(|end| end.outcome == Outcome::Allowed);
        if is_begun || !self.span.is_exported() {
            return;
        }
        let data_key = draft.data_key.as_ref();
        let kms_request_id = data_key.and_then(|data_key| data_key.kms_request_id.clone());
        let end = draft.end.as_ref();
        let error = end.and_then(|end| status::server_error(end.code));
        self.span.end(
            [
                Some(KeyValue::new(vocabulary::REQUEST_ID, self.request_id.to_string())),
                Some(KeyValue::new(vocabulary::EVENT_ID, self.event_id.to_string())),
                data_key.map(|data_key| KeyValue::new(vocabulary::SERVED_FROM, data_key.served_from.name())),
                kms_request_id.map(|id| KeyValue::new(vocabulary::KMS_REQUEST_ID, id)),
                end.map(|end| KeyValue::new(vocabulary::RPC_STATUS_CODE, status::name(end.code))),
                end.map(|end| KeyValue::new(vocabulary::OUTCOME, end.outcome.name())),
                error.map(|error| KeyValue::new(vocabulary::ERROR_TYPE, error)),
            ]
            .into_iter()
            .flatten(),
            error.is_some(),
        );
    }

    fn append_activity(&self, draft: &RecordDraft, lines: &mut Vec<u8>) {
        self.append_activity_of(draft, None, lines);
    }

    fn append_activity_of(&self, draft: &RecordDraft, withdraws: Option<Uuid>, lines: &mut Vec<u8>) {
        let request = draft.request.as_ref().map(KmsRequest::operation);
        let ciphertext_sha256 = request.and_then(|request| request.ciphertext()).map(sha256_hex);
        let error = draft.end.as_ref().and_then(|end| end.error.as_ref());
        let error = error.map(|(code, message)| (code, self.words(draft, message)));
        let mut record = ActivityRecord::new(
            UserIdentity::workload(self.peer.kind, self.peer.principal.as_str(), &self.peer.details),
            self.came_at(draft.drawn_at),
            self.event_name,
            &self.audit.caller.region,
            &self.audit.caller.account_id,
            ActivityEventData { withdraws, ..self.event_data(draft) },
        );
        record.source_ip_address = Some((&self.peer.source).into());
        let user_agent = self.user_agent.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_refusal = draft.is_refusal();
        let most = if is_refusal { REFUSED_USER_AGENT_BYTES } else { user_agent.len() };
        record.user_agent = Some(user_agent[..user_agent.floor_char_boundary(most)].into());
        if let Some((code, words)) = &error {
            record.fail(code, words);
        }
        record.request_parameters = request.map(|request| RequestParameters {
            ciphertext_sha256: ciphertext_sha256.map(Into::into),
            declared_use: draft.declared_use,
            ..activity_parameters(request)
        });
        if let Some(redaction) = &self.audit.redaction
            && let Some(parameters) = record.request_parameters.take()
        {
            let (parameters, redacted) = redaction.of(parameters);
            record.request_parameters = Some(parameters);
            if let Some(data) = &mut record.additional_event_data {
                data.redacted = redacted;
            }
        }
        if is_refusal && let Some(parameters) = record.request_parameters.take() {
            let (parameters, is_cut) = parameters.cut();
            record.request_parameters = Some(parameters);
            if let Some(data) = &mut record.additional_event_data {
                data.is_cut = is_cut;
            }
        }
        record.request_id = self.request_id.into();
        record.event_id = self.event_id.into();
        let keys = draft.key_arn.iter().chain(&draft.new_key_arn);
        record.resources = draft.key_arn.as_ref().map(|_| keys.map(Into::into).collect());
        record.append_to(lines);
    }

    /// The words of a record about an error.
    fn words<'a>(&self, draft: &RecordDraft, message: &'a str) -> Cow<'a, str> {
        let parameters = || draft.request.as_ref().map(|request| activity_parameters(request.operation()));
        match &self.audit.redaction {
            Some(redaction) => redaction.words(message, parameters()),
            None => message.into(),
        }
    }

    fn event_data<'a>(&self, draft: &'a RecordDraft) -> ActivityEventData<'a> {
        let data = ActivityEventData {
            policy: draft.policy.as_ref().map(|(determining_policies, version)| PolicyData {
                determining_policies: (&determining_policies[..]).into(),
                version: (&**version).into(),
            }),
            data_key: draft.data_key.as_ref().filter(|_| self.ends.is_none()).map(DataKeyData::borrowed),
            ends: self.ends,
            message: draft.message.clone(),
            recipient: draft.recipient.as_deref().map(|measured| Open::Written(recorded(measured))),
            trace: self.trace.server.clone(),
            caller_trace: self.trace.caller.clone(),
            ..draft.end.as_ref().map_or(Outcome::Failed, |end| end.outcome).into()
        };
        match &draft.notice {
            Some(notice) => notice.told_with(data),
            None => data,
        }
    }
}

impl Drop for AuditScope {
    fn drop(&mut self) {
        if self.written {
            if let Some(draft) = self.committing.take() {
                self.end_span(&draft);
            }
            return;
        }
        self.record.refused(&BrokerError::abandoned(self.until, self.audit.clock.instant()));
        if let Some(counted) = self.count_refusal() {
            self.event_id = counted.event_id;
            let draft = std::mem::take(&mut *self.record.lock());
            self.end_span(&draft);
            return;
        }
        // Nobody waits for it, so it joins the backlog.
        let RecordLines { draft, records, .. } = self.lines();
        self.audit.journal.defer(&records);
        self.end_span(&draft);
    }
}

/// The records of one call, those of KMS first.
struct RecordLines {
    draft: Box<RecordDraft>,
    records: Vec<u8>,
    kms_bytes: usize,
}

/// The request parameters of an activity record: those of KMS records, with keys as the workload wrote them, and the number of
/// random bytes.
fn activity_parameters(request: &dyn Operation) -> RequestParameters<'_> {
    request.written_parameters().unwrap_or_else(|| RequestParameters {
        number_of_bytes: request.random_bytes().map(Into::into),
        ..RequestParameters::default()
    })
}

/// The name of a ciphertext in records, which never contain the ciphertext itself.
fn sha256_hex(ciphertext: &[u8]) -> String {
    hex::encode(Sha256::digest(ciphertext))
}

/// The least time for the last record of a stream, even if the caller's deadline has passed.
const LAST_RECORD: Duration = Duration::from_secs(1);
/// The most of a client's name in the record of a refused call.
const REFUSED_USER_AGENT_BYTES: usize = 128;
/// Whether this process records no call. Only one of the benches asks for that, in a build with its feature.
pub(crate) fn records_nothing() -> bool {
    cfg!(feature = "bench-unrecorded") && RECORDS_NOTHING.load(Ordering::Relaxed)
}

/// From now on this process records no call, to measure what records cost.
#[cfg(feature = "bench-unrecorded")]
pub(crate) fn record_nothing() {
    RECORDS_NOTHING.store(true, Ordering::Relaxed);
}

static RECORDS_NOTHING: AtomicBool = AtomicBool::new(false);
