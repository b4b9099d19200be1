//! The trail: one activity record for every call, whatever becomes of it.
//!
//! An [`AuditScope`] is opened when a call arrives and committed before its reply leaves. A scope that is dropped, as
//! when the caller goes away, writes its record itself.

pub mod cost;
pub mod digest;
pub mod inbox;
pub mod journal;
pub mod log_file;
pub mod names;
pub mod reader;
pub mod reconcile;
pub mod record;
pub mod signature;
pub mod stdout;
pub mod store;
pub mod trail;
pub mod verify;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use http::HeaderValue;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tonic::Code;
use tracing::field::Empty;
use tracing::{Span, info_span, record_all};
use uuid::Uuid;

use crate::attestation::Measurements;
use crate::clock::Clock;
use crate::error::{BrokerError, Outcome};
use crate::identity::Peer;
use crate::key::KeyArn;
use crate::kms::Asked;
use crate::kms::caller::AwsCaller;
use crate::kms::recorded::UnwrittenRecords;
use crate::reload::Reloads;
use crate::telemetry::vocabulary;
use journal::{Journal, JournalUnavailable, Notice, Notices};
use record::{
    Action, ActivityEventData, ActivityRecord, DataKeyData, DeclaredUse, EVENT_VERSION, PolicyData,
    RecordedError, RequestParameters, ServedFrom, TraceData, WorkloadIdentity,
};

/// Opens a scope for every call.
pub struct Audit {
    /// Where records go.
    pub journal: Journal,
    /// The account and region in every record.
    pub caller: Arc<AwsCaller>,
    /// Stamps the records.
    pub clock: Arc<dyn Clock>,
    /// What was taken anew, for the next record.
    pub reloads: Arc<Notices<Reloads>>,
}

impl Audit {
    /// Begins the record of one call, whose server span is `span`: disabled where the call is not traced.
    #[must_use]
    pub fn open(
        self: &Arc<Self>,
        action: Action,
        peer: Arc<Peer>,
        user_agent: Option<&HeaderValue>,
        span: Span,
        trace: Option<TraceData>,
    ) -> AuditScope {
        let notes = Notes(Arc::new(Mutex::new(Draft::default())));
        AuditScope {
            audit: Arc::clone(self),
            request_id: Uuid::new_v4(),
            event_id: Uuid::new_v4(),
            span,
            trace,
            began: self.clock.now(),
            action,
            peer,
            user_agent: user_agent.cloned(),
            until: None,
            notes,
            written: false,
            committing: None,
        }
    }
}

/// The record of one call in the making.
pub struct AuditScope {
    audit: Arc<Audit>,
    request_id: Uuid,
    event_id: Uuid,
    span: Span,
    trace: Option<TraceData>,
    began: OffsetDateTime,
    action: Action,
    peer: Arc<Peer>,
    user_agent: Option<HeaderValue>,
    until: Option<Instant>,
    notes: Notes,
    written: bool,
    /// What is being committed, for the span of a call whose caller goes away meanwhile.
    committing: Option<Draft>,
}

impl AuditScope {
    /// The call's id, which the caller sees as `x-request-id`.
    #[must_use]
    pub fn request_id(&self) -> Uuid {
        self.request_id
    }

    /// The handle with which inner layers add what they learn.
    #[must_use]
    pub fn notes(&self) -> Notes {
        self.notes.clone()
    }

    /// Tells when the caller stops waiting.
    pub fn set_deadline(&mut self, until: Instant) {
        self.until = Some(until);
    }

    /// When the caller stops waiting, if that is known.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// Commits the activity record and the KMS records behind it. The reply may leave only after this succeeds; where it fails,
    /// the record of the refusal is owed.
    pub async fn commit(mut self) -> Result<(), BrokerError> {
        self.written = true;
        if UNRECORDED {
            let draft = std::mem::take(&mut *self.notes.lock());
            self.end_span(&draft);
            return Ok(());
        }
        let Lines { draft, records, kms_bytes } = self.lines();
        self.committing = Some(draft);
        let span = info_span!(
            vocabulary::AUDIT_COMMIT,
            { vocabulary::ERROR_TYPE } = Empty,
            otel.status_code = Empty
        );
        let committed = self.audit.journal.append(records).wait().await;
        if committed.is_err() {
            record_all!(
                span,
                { vocabulary::ERROR_TYPE } = "journal_unavailable",
                otel.status_code = "ERROR"
            );
        }
        drop(span);
        // Nothing is awaited from here on.
        let draft = self.committing.take().unwrap_or_default();
        match committed {
            Ok(()) => {
                self.end_span(&draft);
                return Ok(());
            }
            Err(JournalUnavailable(Some(mut records))) => {
                self.notes.refused(&BrokerError::JournalUnavailable);
                records.truncate(kms_bytes);
                let refused = Draft { end: self.notes.lock().end.take(), ..draft };
                self.append_activity(&refused, &mut records);
                self.audit.journal.owe(&records);
                self.end_span(&refused);
            }
            // It may be written yet, as the answer that it would have been.
            Err(JournalUnavailable(None)) => {
                self.notes.refused(&BrokerError::JournalUnavailable);
                let refused = Draft { end: self.notes.lock().end.take(), ..draft };
                self.end_span(&refused);
            }
        }
        self.audit.journal.refused_call();
        Err(BrokerError::JournalUnavailable)
    }

    fn lines(&self) -> Lines {
        let mut draft = std::mem::take(&mut *self.notes.lock());
        let mut records = draft.kms_records.take().map(UnwrittenRecords::take).unwrap_or_default();
        let kms_bytes = records.len();
        draft.journal = self.audit.journal.take_notice();
        draft.reloads = self.audit.reloads.take();
        self.append_activity(&draft, &mut records);
        Lines { draft, records, kms_bytes }
    }

    /// The server span's attributes, once the call's end is known. It ends with the scope.
    fn end_span(&mut self, draft: &Draft) {
        if self.span.is_disabled() {
            return;
        }
        let served_from = draft.data_key.as_ref().map(|data_key| match data_key.served_from {
            ServedFrom::Kms => "KMS",
            ServedFrom::Cache => "CACHE",
        });
        let kms_request_id = draft.data_key.as_ref().and_then(|data_key| data_key.kms_request_id.as_deref());
        let end = draft.end.as_ref();
        let error = end.and_then(|end| end.error.as_ref()).map(|(code, _)| code.as_str());
        record_all!(
            self.span,
            { vocabulary::REQUEST_ID } = %self.request_id,
            { vocabulary::EVENT_ID } = %self.event_id,
            { vocabulary::SERVED_FROM } = served_from,
            { vocabulary::KMS_REQUEST_ID } = kms_request_id,
            { vocabulary::RPC_GRPC_STATUS_CODE } = end.map(|end| i64::from(i32::from(end.code))),
            { vocabulary::OUTCOME } = end.map(|end| end.outcome.name()),
            { vocabulary::ERROR_TYPE } = error,
            otel.status_code = error.map(|_| "ERROR"),
        );
    }

    fn append_activity(&self, draft: &Draft, lines: &mut Vec<u8>) {
        let end = draft.end.as_ref();
        let user_agent = self.user_agent.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
        let ciphertext_sha256 = draft.asked.as_ref().and_then(ciphertext_sha256);
        let record = ActivityRecord {
            event_version: EVENT_VERSION,
            user_identity: WorkloadIdentity {
                kind: self.peer.kind,
                principal_id: self.peer.principal.as_str(),
                details: &self.peer.details,
            },
            event_time: self.began,
            event_source: EVENT_SOURCE,
            event_name: self.action,
            aws_region: &self.audit.caller.region,
            source_ip_address: &self.peer.source,
            user_agent,
            error: end
                .and_then(|end| end.error.as_ref())
                .map(|(code, message)| RecordedError { error_code: code, error_message: message }),
            request_parameters: draft.asked.as_ref().map(|asked| {
                let parameters = match asked {
                    Asked::Random(length) => RequestParameters {
                        number_of_bytes: Some(length.get()),
                        ..RequestParameters::default()
                    },
                    other => other.parameters().unwrap_or_default(),
                };
                RequestParameters {
                    // As the workload wrote it; KMS is asked for the key that it names.
                    key_id: asked.key(),
                    ciphertext_sha256: ciphertext_sha256.as_deref(),
                    declared_use: draft.declared_use,
                    ..parameters
                }
            }),
            response_elements: (),
            additional_event_data: ActivityEventData {
                outcome: end.map_or(Outcome::Failed, |end| end.outcome),
                policy: draft
                    .policy
                    .as_ref()
                    .map(|(determining_policies, version)| PolicyData { determining_policies, version }),
                data_key: draft.data_key.as_ref(),
                recipient: draft.recipient.as_deref(),
                trace: self.trace.as_ref(),
                journal: draft.journal,
                reloads: draft.reloads,
            },
            request_id: self.request_id,
            event_id: self.event_id,
            read_only: true,
            resources: draft.key_arn.as_ref().map(|arn| [arn.into()]),
            event_type: "ActivityLog",
            management_event: false,
            recipient_account_id: &self.audit.caller.account_id,
            event_category: "ActivityAuditLog",
        };
        record.append_to(lines);
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
        self.notes.refused(&abandoned(self.until, self.audit.clock.instant()));
        // Nobody waits: it is written as soon as the journal can.
        let Lines { draft, records, .. } = self.lines();
        self.audit.journal.owe(&records);
        self.end_span(&draft);
    }
}

/// Why a call has ended whose caller is gone, and would have waited until then.
#[must_use]
pub fn abandoned(until: Option<Instant>, now: Instant) -> BrokerError {
    // The caller's own timer runs ahead of ours by the way of the request: a call that is gone within that time of its
    // deadline ended by the deadline.
    match until {
        Some(until) if until.saturating_duration_since(now) <= DEADLINE_SLACK => {
            BrokerError::DeadlineExceeded
        }
        _ => BrokerError::Cancelled,
    }
}

/// What the layers inside the scope learn about the call.
#[derive(Clone)]
pub struct Notes(Arc<Mutex<Draft>>);

#[derive(Default)]
struct Draft {
    asked: Option<Asked>,
    declared_use: Option<DeclaredUse>,
    /// Which policies decided, and the version of all.
    policy: Option<(Arc<[String]>, Arc<str>)>,
    /// What an attestation document proves, also of a call that is refused.
    recipient: Option<Arc<Measurements>>,
    key_arn: Option<KeyArn>,
    data_key: Option<DataKeyData>,
    kms_records: Option<UnwrittenRecords>,
    journal: Option<Notice>,
    reloads: Option<Reloads>,
    end: Option<End>,
}

/// The records of one call, KMS's first.
struct Lines {
    draft: Draft,
    records: Vec<u8>,
    kms_bytes: usize,
}

struct End {
    outcome: Outcome,
    code: Code,
    error: Option<(String, String)>,
}

impl Notes {
    /// The request was read.
    pub fn asked(&self, asked: Asked, declared_use: Option<DeclaredUse>) {
        let mut draft = self.lock();
        draft.asked = Some(asked);
        draft.declared_use = declared_use;
    }

    /// The call's attestation document proves this, whatever becomes of the call.
    pub fn attested(&self, measurements: Arc<Measurements>) {
        self.lock().recipient = Some(measurements);
    }

    /// The call's key is known, whatever becomes of the call.
    pub fn named(&self, key_arn: KeyArn) {
        self.lock().key_arn = Some(key_arn);
    }

    /// Policy was asked.
    pub fn decided(&self, determining_policies: Arc<[String]>, version: Arc<str>) {
        self.lock().policy = Some((determining_policies, version));
    }

    /// KMS or the cache was asked. KMS records that are not in the journal yet are committed with this call's.
    pub fn answered(
        &self,
        kms_records: Option<UnwrittenRecords>,
        data_key: DataKeyData,
        key_arn: Option<KeyArn>,
    ) {
        let mut draft = self.lock();
        draft.kms_records = kms_records;
        draft.data_key = Some(data_key);
        // What KMS used is what it was asked for; of a decrypt without a key, only KMS tells.
        draft.key_arn = key_arn.or(draft.key_arn.take());
    }

    /// The call is answered.
    pub fn allowed(&self) {
        self.lock().end = Some(End { outcome: Outcome::Allowed, code: Code::Ok, error: None });
    }

    /// The call is refused or failed.
    pub fn refused(&self, error: &BrokerError) {
        let refusal = error.refusal();
        let message = match error {
            BrokerError::Kms(kms) => kms.message.clone().unwrap_or_default(),
            _ => refusal.message.into_owned(),
        };
        self.lock().end = Some(End {
            outcome: refusal.outcome,
            code: refusal.code,
            error: Some((refusal.error_code.to_owned(), message)),
        });
    }

    /// Whether the end of the call is known.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.lock().end.is_some()
    }

    /// The requestID of KMS's answer, if there is one.
    #[must_use]
    pub fn kms_request_id(&self) -> Option<Arc<str>> {
        self.lock().data_key.as_ref()?.kms_request_id.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Draft> {
        // A panic while noting leaves nothing half done that matters: the record is still to be written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of a ciphertext in records: records never hold the ciphertext itself.
fn ciphertext_sha256(asked: &Asked) -> Option<String> {
    let Asked::Decrypt(request) = asked else { return None };
    Some(hex::encode(Sha256::digest(request.ciphertext.as_bytes())))
}

/// The service of workloads, in records and spans.
const EVENT_SOURCE: &str = "keybroker.v1.KeyBroker";
/// A build that records no call, to show what records cost. It takes a feature and a variable at build time: neither alone,
/// such as `--all-features`, makes one.
pub(crate) const UNRECORDED: bool =
    cfg!(feature = "bench-unrecorded") && option_env!("KEY_BROKER_BENCH_UNRECORDED").is_some();
/// The way of a request over a unix socket, and a slow machine's share.
const DEADLINE_SLACK: std::time::Duration = std::time::Duration::from_millis(20);
