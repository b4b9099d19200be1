//! The record of one call in the making.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use key_broker_core::{DeclaredUse, KeyArn, Measurements, Outcome};
use key_broker_trail::journal::Taken;
use key_broker_trail::record::{DataKeyData, MessageData};
use tonic::Code;

use crate::error::BrokerError;
use crate::kms::recorded::UnwrittenRecords;
use crate::operation::KmsRequest;

/// What the layers inside the scope learn about the call.
#[derive(Clone, Default)]
pub(crate) struct RecordBuilder(Arc<Mutex<RecordDraft>>);

/// An activity record in the making.
#[derive(Default)]
pub(super) struct RecordDraft {
    pub(super) request: Option<KmsRequest>,
    pub(super) declared_use: Option<DeclaredUse>,
    pub(super) policy: PolicyNote,
    /// What an attestation document proves, also of a call that is refused.
    pub(super) recipient: Option<Arc<Measurements>>,
    pub(super) key_arn: Option<KeyArn>,
    /// Of a ReEncrypt, the other key.
    pub(super) new_key_arn: Option<KeyArn>,
    pub(super) data_key: Option<DataKeyData>,
    pub(super) message: Option<MessageData<'static>>,
    /// Of a stream that goes on: how it ends will be told by another record.
    pub(super) stream: Option<RecordBuilder>,
    pub(super) kms_records: Option<UnwrittenRecords>,
    /// What the broker has found out about its trail, if this record tells it.
    pub(super) notice: Option<Taken>,
    pub(super) end: Option<CallEnd>,
}

impl RecordDraft {
    /// Whether the call was refused, and no answer of KMS is behind that.
    pub(super) fn is_refusal(&self) -> bool {
        let is_refused = self.end.as_ref().is_some_and(|end| end.outcome != Outcome::Allowed);
        is_refused && self.kms_records.is_none() && self.data_key.is_none()
    }
}

/// Which policies decided, and the version of all.
pub(crate) type PolicyNote = Option<(Arc<[String]>, Arc<str>)>;

/// How a call ended.
pub(super) struct CallEnd {
    pub(super) outcome: Outcome,
    pub(super) code: Code,
    pub(super) error: Option<(String, String)>,
}

impl RecordBuilder {
    /// The request was read.
    pub(crate) fn requested(&self, request: KmsRequest, declared_use: Option<DeclaredUse>) {
        let mut draft = self.lock();
        draft.request = Some(request);
        draft.declared_use = declared_use;
    }

    /// The call's attestation document proves this, whatever becomes of the call.
    pub(crate) fn attested(&self, measurements: Arc<Measurements>) {
        self.lock().recipient = Some(measurements);
    }

    /// The call's key is known, whatever becomes of the call.
    pub(crate) fn key(&self, key_arn: KeyArn) {
        self.lock().key_arn = Some(key_arn);
    }

    /// What policy said last, if it was asked.
    #[must_use]
    pub(crate) fn noted_policy(&self) -> PolicyNote {
        self.lock().policy.clone()
    }

    /// What policy said of the request that goes on, where others were asked about after it.
    pub(crate) fn decided_as(&self, noted: PolicyNote) {
        self.lock().policy = noted;
    }

    /// The call's key is not known yet.
    pub(crate) fn no_key(&self) {
        self.lock().key_arn = None;
    }

    /// Policy was asked.
    pub(crate) fn decided(&self, determining_policies: Arc<[String]>, version: Arc<str>) {
        self.lock().policy = Some((determining_policies, version));
    }

    /// KMS or the cache was asked. KMS records that are not in the journal yet are committed with this call's.
    pub(crate) fn answered(
        &self,
        kms_records: Option<UnwrittenRecords>,
        data_key: DataKeyData,
        [key_arn, new_key_arn]: [Option<KeyArn>; 2],
    ) {
        let mut draft = self.lock();
        draft.kms_records = kms_records;
        draft.data_key = Some(data_key);
        // What KMS used is what it was asked for; of a decrypt without a key, only KMS tells.
        draft.key_arn = key_arn.or(draft.key_arn.take());
        draft.new_key_arn = new_key_arn;
    }

    /// The header of the call's message is known.
    pub(crate) fn message(&self, message: MessageData<'static>) {
        self.lock().message = Some(message);
    }

    /// The call's answer goes on in parts: how it ends is told to the record that is returned.
    #[must_use]
    pub(crate) fn begin_stream(&self) -> Self {
        let end = Self::default();
        self.lock().stream = Some(end.clone());
        end
    }

    /// The record of how the stream ends, if the answer goes on.
    #[must_use]
    pub(crate) fn stream(&self) -> Option<Self> {
        self.lock().stream.clone()
    }

    /// Tells of the same request, policy and key as the record with which the stream began.
    pub(super) fn continues(&self, began: &Self) {
        let began = began.lock();
        let mut draft = self.lock();
        draft.request.clone_from(&began.request);
        draft.declared_use = began.declared_use;
        draft.policy.clone_from(&began.policy);
        draft.key_arn.clone_from(&began.key_arn);
        draft.data_key.clone_from(&began.data_key);
    }

    /// So much of the stream's message has passed, in bytes of message and of plaintext.
    pub(crate) fn passed(&self, length: u64, plaintext_length: u64) {
        if let Some(message) = &mut self.lock().message {
            (message.length, message.plaintext_length) = (Some(length), Some(plaintext_length));
        }
    }

    /// The call is answered.
    pub(crate) fn allowed(&self) {
        self.lock().end = Some(CallEnd { outcome: Outcome::Allowed, code: Code::Ok, error: None });
    }

    /// The call is refused or failed.
    pub(crate) fn refused(&self, error: &BrokerError) {
        let refusal = error.refusal();
        let message = match error {
            BrokerError::Kms(kms) => kms.message.clone().unwrap_or_default(),
            _ => refusal.message.into_owned(),
        };
        self.lock().end = Some(CallEnd {
            outcome: refusal.outcome,
            code: refusal.code,
            error: Some((refusal.error_code.to_owned(), message)),
        });
    }

    /// Whether the end of the call is known.
    #[must_use]
    pub(crate) fn ended(&self) -> bool {
        self.lock().end.is_some()
    }

    /// The requestID of KMS's answer, if there is one.
    #[must_use]
    pub(crate) fn kms_request_id(&self) -> Option<Arc<str>> {
        self.lock().data_key.as_ref()?.kms_request_id.clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, RecordDraft> {
        // A panic while noting leaves nothing half done that matters: the record is still to be written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
