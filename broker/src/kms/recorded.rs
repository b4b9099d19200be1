//! KMS within its limits, with a record of every answer.
//!
//! A call to KMS runs in a task of its own: a caller that goes away does not stop it, so its answer is seen and
//! recorded. The records travel with the answer, to be committed together with the activity record; if nobody takes
//! them, they write themselves.

mod recorder;
mod span;

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use opentelemetry::context::FutureExt as _;
use opentelemetry::trace::SpanContext;
use time::OffsetDateTime;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use uuid::Uuid;

use super::attested::{AttestedDataKey, AttestedPlaintext};
use super::guard::Guard;
use super::{
    Answers, Asked, DataKey, DataKeyRequest, DecryptRequest, Decrypted, EncryptedDataKey, KeyDescription,
    Kms, PublicKey, Signature, Uses,
};
use crate::attestation::{Measurements, VerifiedRecipient};
use crate::audit::journal::{Journal, JournalUnavailable};
use crate::audit::record::Action;
use crate::clock::Clock;
use crate::error::{BrokerError, KmsError};
use crate::key::{KeyId, RandomLength, RequestedKey};
use crate::policy::Permit;
use crate::secret::Plaintext;
use crate::telemetry::metrics::KmsCalls;
use crate::telemetry::trace;
pub use recorder::Recorder;

/// KMS, recorded.
#[derive(Clone)]
pub struct RecordedKms {
    kms: Arc<dyn Kms>,
    guard: Guard,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
    timed: Option<KmsCalls>,
}

/// What came of a call to KMS, with its unwritten records.
pub struct Recorded<T> {
    /// The output, or why there is none.
    pub result: Result<T, BrokerError>,
    /// The answer behind it; none where KMS did not answer.
    pub source: Option<Source>,
    /// To be committed before the reply leaves.
    pub records: UnwrittenRecords,
}

/// Which answer of KMS an output came from.
#[derive(Debug, Clone)]
pub struct Source {
    /// `x-amzn-RequestId`. Shared, since every use of a kept key names it.
    pub request_id: Arc<str>,
    /// The eventID of the KMS record.
    pub event_id: Uuid,
    /// When KMS answered.
    pub at: OffsetDateTime,
    /// The span of the call, if it was traced.
    pub span: Option<Arc<SpanContext>>,
}

/// Who waits for an answer, and for how long.
#[derive(Clone)]
pub struct Waiting {
    /// When they stop waiting.
    pub until: Instant,
}

impl From<Instant> for Waiting {
    fn from(until: Instant) -> Self {
        Self { until }
    }
}

/// Records that are not in the journal yet. Dropped, they write themselves.
pub struct UnwrittenRecords {
    journal: Journal,
    lines: Vec<u8>,
}

impl UnwrittenRecords {
    /// Takes the lines over: the caller now has the duty to commit them.
    #[must_use]
    pub fn take(mut self) -> Vec<u8> {
        std::mem::take(&mut self.lines)
    }

    /// Commits the records on their own. Where that fails they are owed: KMS has answered all the same.
    pub async fn commit(mut self) -> Result<(), JournalUnavailable> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let commit = self.journal.append(std::mem::take(&mut self.lines));
        match commit.wait().await {
            Err(JournalUnavailable(Some(lines))) => {
                self.journal.owe(&lines);
                Err(JournalUnavailable(None))
            }
            other => other,
        }
    }
}

impl Drop for UnwrittenRecords {
    fn drop(&mut self) {
        // Nobody waits: what the answer held has been dropped with the call.
        self.journal.owe(&self.lines);
    }
}

impl RecordedKms {
    /// Records what `kms` answers to what `guard` lets through. `tasks` is what a drain waits for.
    #[must_use]
    pub fn new(
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
    pub fn timed(self, timed: Option<KmsCalls>) -> Self {
        Self { timed, ..self }
    }

    /// The tasks that a drain waits for.
    #[must_use]
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// A data key.
    pub async fn generate_data_key(
        &self,
        permit: Permit,
        request: Arc<DataKeyRequest>,
        waiting: impl Into<Waiting>,
    ) -> Recorded<DataKey> {
        let asked = Asked::DataKey(Arc::clone(&request));
        self.call(permit.action().name(), asked, waiting, move |kms, answers| async move {
            kms.generate_data_key(permit, &request, &answers).await
        })
        .await
    }

    /// A data key in encrypted form only.
    pub async fn generate_data_key_without_plaintext(
        &self,
        permit: Permit,
        request: Arc<DataKeyRequest>,
        waiting: impl Into<Waiting>,
    ) -> Recorded<EncryptedDataKey> {
        let asked = Asked::DataKey(Arc::clone(&request));
        self.call(permit.action().name(), asked, waiting, move |kms, answers| async move {
            kms.generate_data_key_without_plaintext(permit, &request, &answers).await
        })
        .await
    }

    /// A decrypt.
    pub async fn decrypt(
        &self,
        permit: Permit,
        request: Arc<DecryptRequest>,
        waiting: impl Into<Waiting>,
    ) -> Recorded<Decrypted> {
        let asked = Asked::Decrypt(Arc::clone(&request));
        self.call(permit.action().name(), asked, waiting, move |kms, answers| async move {
            kms.decrypt(permit, &request, &answers).await
        })
        .await
    }

    /// Random bytes.
    pub async fn generate_random(
        &self,
        permit: Permit,
        length: RandomLength,
        waiting: impl Into<Waiting>,
    ) -> Recorded<Plaintext> {
        self.call(permit.action().name(), Asked::Random(length), waiting, move |kms, answers| async move {
            kms.generate_random(permit, length, &answers).await
        })
        .await
    }

    /// A data key for `recipient` alone.
    pub async fn generate_data_key_for(
        &self,
        permit: Permit,
        recipient: VerifiedRecipient,
        request: Arc<DataKeyRequest>,
        waiting: impl Into<Waiting>,
    ) -> Recorded<AttestedDataKey> {
        let (asked, measured) = (Asked::DataKey(Arc::clone(&request)), Arc::clone(recipient.measurements()));
        self.call_for(
            Some(measured),
            permit.action().name(),
            asked,
            waiting,
            move |kms, answers| async move {
                kms.generate_data_key_for(permit, &recipient, &request, &answers).await
            },
        )
        .await
    }

    /// A decrypt for `recipient` alone.
    pub async fn decrypt_for(
        &self,
        permit: Permit,
        recipient: VerifiedRecipient,
        request: Arc<DecryptRequest>,
        waiting: impl Into<Waiting>,
    ) -> Recorded<AttestedPlaintext> {
        let (asked, measured) = (Asked::Decrypt(Arc::clone(&request)), Arc::clone(recipient.measurements()));
        self.call_for(
            Some(measured),
            permit.action().name(),
            asked,
            waiting,
            move |kms, answers| async move { kms.decrypt_for(permit, &recipient, &request, &answers).await },
        )
        .await
    }

    /// Random bytes for `recipient` alone.
    pub async fn generate_random_for(
        &self,
        permit: Permit,
        recipient: VerifiedRecipient,
        length: RandomLength,
        waiting: impl Into<Waiting>,
    ) -> Recorded<AttestedPlaintext> {
        let (asked, measured) = (Asked::Random(length), Arc::clone(recipient.measurements()));
        self.call_for(Some(measured), permit.action().name(), asked, waiting, move |kms, answers| async move {
            kms.generate_random_for(permit, &recipient, length, &answers).await
        })
        .await
    }

    /// What KMS knows about a key.
    pub async fn describe_key(
        &self,
        permit: Permit,
        key: RequestedKey,
        waiting: impl Into<Waiting>,
    ) -> Recorded<KeyDescription> {
        let asked = Asked::Describe(key.clone());
        self.call(permit.action().name(), asked, waiting, move |kms, answers| async move {
            kms.describe_key(permit, &key.asked, &answers).await
        })
        .await
    }

    /// What an alias means, asked for the broker itself.
    pub async fn resolve(&self, alias: KeyId, waiting: impl Into<Waiting>) -> Recorded<KeyDescription> {
        let permit = Permit::for_own_use(Action::DescribeKey);
        let asked = Asked::Resolve(alias.clone());
        self.call(permit.action().name(), asked, waiting, move |kms, answers| async move {
            kms.describe_key(permit, &alias, &answers).await
        })
        .await
    }

    /// A data key for the trail's own use.
    pub async fn own_data_key(
        &self,
        request: Arc<DataKeyRequest>,
        waiting: impl Into<Waiting>,
    ) -> Recorded<DataKey> {
        let permit = Permit::for_own_use(Action::GenerateDataKey);
        let asked = Asked::OwnDataKey(Arc::clone(&request));
        self.call(permit.action().name(), asked, waiting, move |kms, answers| async move {
            kms.generate_data_key(permit, &request, &answers).await
        })
        .await
    }

    /// The signature of a SHA-256 digest.
    pub async fn sign(
        &self,
        key: KeyId,
        digest: [u8; 32],
        waiting: impl Into<Waiting>,
    ) -> Recorded<Signature> {
        let permit = Permit::for_own_use(Action::DescribeKey);
        self.call("Sign", Asked::Sign(key.clone()), waiting, move |kms, answers| async move {
            kms.sign(permit, &key, digest, &answers).await
        })
        .await
    }

    /// The public half of a key.
    pub async fn public_key(&self, key: KeyId, waiting: impl Into<Waiting>) -> Recorded<PublicKey> {
        let permit = Permit::for_own_use(Action::DescribeKey);
        self.call("GetPublicKey", Asked::PublicKey(key.clone()), waiting, move |kms, answers| async move {
            kms.public_key(permit, &key, &answers).await
        })
        .await
    }

    /// Time.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Whether the broker may still make data keys under `key`, asked for itself.
    pub async fn check(&self, key: KeyId, waiting: impl Into<Waiting>) -> Recorded<()> {
        let permit = Permit::for_own_use(Action::GenerateDataKey);
        self.call(
            permit.action().name(),
            Asked::Check(key.clone()),
            waiting,
            move |kms, answers| async move { kms.check(permit, &key, &answers).await },
        )
        .await
    }

    async fn call<T, W, F>(
        &self,
        operation: &'static str,
        asked: Asked,
        waiting: impl Into<Waiting>,
        work: W,
    ) -> Recorded<T>
    where
        T: Uses + Send + 'static,
        W: FnOnce(Arc<dyn Kms>, Answers) -> F,
        F: Future<Output = Result<T, KmsError>> + Send + 'static,
    {
        self.call_for(None, operation, asked, waiting, work).await
    }

    async fn call_for<T, W, F>(
        &self,
        recipient: Option<Arc<Measurements>>,
        operation: &'static str,
        asked: Asked,
        waiting: impl Into<Waiting>,
        work: W,
    ) -> Recorded<T>
    where
        T: Uses + Send + 'static,
        W: FnOnce(Arc<dyn Kms>, Answers) -> F,
        F: Future<Output = Result<T, KmsError>> + Send + 'static,
    {
        let Waiting { until } = waiting.into();
        // What KMS would answer could not even be owed.
        if self.recorder.journal.is_overdrawn() {
            return self.unasked(BrokerError::JournalUnavailable);
        }
        let pass = match self.guard.enter(until).await {
            Ok(pass) => pass,
            Err(error) => return self.unasked(error),
        };
        let span = span::begin(&self.recorder.caller, operation, &asked);
        let answers = Answers::default();
        let call = work(Arc::clone(&self.kms), answers.clone());
        let remaining = until.saturating_duration_since(self.clock.instant());
        let recorder = self.recorder.clone();
        let timed = self.timed.as_ref().map(|timed| timed.begin(operation));
        let within = span.clone();
        let work = async move {
            let result = match tokio::time::timeout(remaining, call).await {
                Ok(result) => result.map_err(BrokerError::Kms),
                Err(_) => Err(BrokerError::DeadlineExceeded),
            };
            if let Some(timed) = timed {
                timed.end(&result);
            }
            let answers = answers.take();
            pass.end(&result, &answers);
            let made = recorder.record(operation, &asked, recipient.as_deref(), result, &answers);
            span::tell(&span, &answers, &made);
            let minted_in = trace::link_to(&span);
            Recorded { source: made.source.map(|source| Source { span: minted_in, ..source }), ..made }
        };
        let task = self.tasks.spawn(work.instrument(within).with_current_context());
        // The task ends by panic only (nothing aborts it): a defect.
        task.await.unwrap_or_else(|_| self.unasked(BrokerError::Bug))
    }

    /// No answer of KMS, so no record of one.
    fn unasked<T>(&self, error: BrokerError) -> Recorded<T> {
        let records = UnwrittenRecords { journal: self.recorder.journal.clone(), lines: Vec::new() };
        Recorded { result: Err(error), source: None, records }
    }
}
