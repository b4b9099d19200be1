//! The draft of a call's record.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use key_broker_core::clock::Moment;
use key_broker_core::{DeclaredUse, KeyArn, Outcome};
use key_broker_trail::journal::Taken;
use key_broker_trail::record::{DataKeyData, MessageData, UseData};
use tonic::Code;

use crate::attestation::Measurements;
use crate::error::BrokerError;
use crate::kms::recorded::UnwrittenRecords;
use crate::operation::KmsRequest;

/// The handle by which the layers inside the scope add to the draft.
#[derive(Clone, Default)]
pub(crate) struct RecordBuilder(Arc<Mutex<RecordDraft>>);

/// The draft of an activity record.
#[derive(Default)]
pub(super) struct RecordDraft {
    pub(super) request: Option<KmsRequest>,
    pub(super) declared_use: Option<UseData>,
    pub(super) is_of_any_length: bool,
    pub(super) policy: PolicyNote,
    /// What an attestation document proves, even if the call is refused.
    pub(super) recipient: Option<Arc<Measurements>>,
    pub(super) key_arn: Option<KeyArn>,
    /// The other key of a ReEncrypt.
    pub(super) new_key_arn: Option<KeyArn>,
    pub(super) data_key: Option<DataKeyData>,
    /// When that was drawn from the cache.
    pub(super) drawn_at: Option<Moment>,
    pub(super) message: Option<MessageData<'static>>,
    /// For a stream that goes on, the draft of the record that will end it.
    pub(super) stream: Option<RecordBuilder>,
    pub(super) kms_records: Option<UnwrittenRecords>,
    /// The notice about the trail in this record.
    pub(super) notice: Option<Taken>,
    pub(super) end: Option<CallEnd>,
}

impl RecordDraft {
    /// Whether the call was refused without an answer of KMS.
    pub(super) fn is_refusal(&self) -> bool {
        let is_refused = self.end.as_ref().is_some_and(|end| end.outcome != Outcome::Allowed);
        is_refused && self.kms_records.is_none() && self.data_key.is_none()
    }
}

/// The policies that decided, and the version of the policy set.
pub(crate) type PolicyNote = Option<(Arc<[String]>, Arc<str>)>;

/// How a call ended.
pub(super) struct CallEnd {
    pub(super) outcome: Outcome,
    pub(super) code: Code,
    pub(super) error: Option<(String, String)>,
}

impl RecordBuilder {
    /// Adds the parsed request.
    pub(crate) fn requested(&self, request: KmsRequest, declared_use: Option<DeclaredUse>) {
        let mut draft = self.lock();
        draft.request = Some(request);
        // A stream that declares no length says so before.
        let is_undeclared = draft.is_of_any_length;
        draft.declared_use = declared_use.map(|declared| {
            let declared = UseData::from(declared);
            UseData { bytes: declared.bytes.filter(|_| !is_undeclared), ..declared }
        });
    }

    /// The call's message is as long as its caller makes it: no length was declared.
    pub(crate) fn is_of_any_length(&self) {
        self.lock().is_of_any_length = true;
    }

    /// Adds what the call's attestation document proves, whatever becomes of the call.
    pub(crate) fn attested(&self, measurements: Arc<Measurements>) {
        self.lock().recipient = Some(measurements);
    }

    /// Sets the call's key, whatever becomes of the call.
    pub(crate) fn key(&self, key_arn: KeyArn) {
        self.lock().key_arn = Some(key_arn);
    }

    /// The last policy decision, if policy was asked.
    #[must_use]
    pub(crate) fn noted_policy(&self) -> PolicyNote {
        self.lock().policy.clone()
    }

    /// Restores the decision about the request that goes on, after policy was asked about others.
    pub(crate) fn decided_as(&self, noted: PolicyNote) {
        self.lock().policy = noted;
    }

    /// Removes the call's key, which is not known yet.
    pub(crate) fn no_key(&self) {
        self.lock().key_arn = None;
    }

    /// Adds a policy decision.
    pub(crate) fn decided(&self, determining_policies: Arc<[String]>, version: Arc<str>) {
        self.lock().policy = Some((determining_policies, version));
    }

    /// Adds the answer of KMS or the cache. Its uncommitted KMS records are committed with this record.
    pub(crate) fn answered(
        &self,
        kms_records: Option<UnwrittenRecords>,
        data_key: DataKeyData,
        [key_arn, new_key_arn]: [Option<KeyArn>; 2],
    ) {
        let mut draft = self.lock();
        draft.kms_records = kms_records;
        draft.data_key = Some(data_key);
        // KMS uses the key that it was asked for; for a decrypt without a key, only its answer names the key.
        draft.key_arn = key_arn.or(draft.key_arn.take());
        draft.new_key_arn = new_key_arn;
    }

    /// Adds when a cached data key was drawn.
    pub(crate) fn drawn(&self, at: Moment) {
        self.lock().drawn_at = Some(at);
    }

    /// Adds what the header of the call's message says.
    pub(crate) fn message(&self, message: MessageData<'static>) {
        self.lock().message = Some(message);
    }

    /// The call is answered in parts: returns the draft of the record that will end it.
    #[must_use]
    pub(crate) fn begin_stream(&self) -> Self {
        let end = Self::default();
        self.lock().stream = Some(end.clone());
        end
    }

    /// The draft of the record that ends the stream, if there is one.
    #[must_use]
    pub(crate) fn stream(&self) -> Option<Self> {
        self.lock().stream.clone()
    }

    /// Takes over request, policy and key from the record with which the stream began.
    pub(super) fn continues(&self, began: &Self) {
        let began = began.lock();
        let mut draft = self.lock();
        draft.request.clone_from(&began.request);
        draft.declared_use = began.declared_use;
        draft.policy.clone_from(&began.policy);
        draft.key_arn.clone_from(&began.key_arn);
        draft.data_key.clone_from(&began.data_key);
    }

    /// Adds how much of the stream's message has passed, in bytes of message and of plaintext.
    pub(crate) fn passed(&self, length: u64, plaintext_length: u64) {
        if let Some(message) = &mut self.lock().message {
            (message.length, message.plaintext_length) = (Some(length), Some(plaintext_length));
        }
    }

    /// Ends the call with an answer.
    pub(crate) fn allowed(&self) {
        self.lock().end = Some(CallEnd { outcome: Outcome::Allowed, code: Code::Ok, error: None });
    }

    /// Ends the call with an error.
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
        // After a panic the draft is incomplete at worst, and must still be written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
