//! Revocation: KMS is asked again about cached data keys, and those that it refuses are dropped.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use key_broker_core::clock::Moment;
use key_broker_core::{KeyArn, KeyId};
use key_broker_trail::record::{ActivityRecord, FailedCheck};
use uuid::Uuid;

use super::Cache;
use super::cacheable::Cacheable;
use super::standing::{Check, Standing};
use crate::error::{BrokerError, KmsError, KmsErrorKind};
use crate::kms::recorded::{RecordedReply, Recorder};
use crate::operation::DryRunRequest;

impl Cache {
    /// Has a task ask KMS whether the reply to `request` may still be used.
    pub(super) fn spawn_check<R: Cacheable>(&self, check: Check, request: &R) {
        let request = request.dry_run(check.standing.key().into());
        // In a trace of its own, since several draws may wait for it.
        self.0.kms.tasks().spawn(self.clone().check(check, request));
    }

    async fn check(self, check: Check, request: DryRunRequest) {
        let inner = &*self.0;
        let standing = &check.standing;
        let requested_at = Moment::now(&*inner.clock);
        let deadline = requested_at.instant + inner.rules.kms_deadline.min(LONGEST_CHECK);
        let RecordedReply { result, source, records, .. } =
            inner.kms.check(request.clone(), standing.region(), deadline).await;
        inner.counts.check(&result);
        // Every draw that relies on the answer refers to its KMS record, so that must be in the journal.
        let committed = records.commit().await;
        let now = Moment::now(&*inner.clock);
        match (result, source, committed) {
            (Ok(()), Some(source), Ok(())) => standing.allowed(source.requested_at(requested_at), source),
            (Err(BrokerError::Kms(error)), ..) if !error.kind.is_transient() => {
                if is_about_the_key(&error) {
                    standing.ended(now);
                } else {
                    standing.denied(now);
                }
                // A refusal by a replica in another region says nothing about the key in this one.
                if *standing.region() == **inner.kms.region() {
                    self.heed_refusal(&error, Some(&request.key.written));
                }
            }
            (Err(error), ..) => self.report_failed(standing, &request, &error, now).await,
            (Ok(()), ..) => {
                self.report_failed(standing, &request, &BrokerError::JournalUnavailable, now).await;
            }
        }
        drop(check);
    }

    /// Records that KMS could not be asked. Draws meanwhile refer to this record.
    async fn report_failed(
        &self,
        standing: &Arc<Standing>,
        request: &DryRunRequest,
        error: &BrokerError,
        now: Moment,
    ) {
        let Recorder { caller, journal, .. } = self.0.kms.recorder();
        let (key, operation, reason) = (standing.key().as_str(), request.of.name(), error.refusal().reason);
        let check = FailedCheck { key: key.into(), operation: operation.into(), reason: reason.into() };
        let (event_id, mut line) = (Uuid::new_v4(), Vec::new());
        ActivityRecord::of_failed_check(check, event_id, now.wall, caller).append_to(&mut line);
        let is_recorded = journal.append_of(None, line).wait().await.is_ok();
        standing.failed(now, is_recorded.then_some(event_id));
        tracing::warn!(
            reason,
            operation,
            key,
            "KMS could not be asked whether cached data keys may still be used"
        );
    }

    /// Reacts to a refusal by KMS of what a draw needed.
    pub(super) fn refused<R: Cacheable>(&self, error: &KmsError, request: &R) {
        if error.kind != KmsErrorKind::AccessDenied {
            return self.heed_refusal(error, request.sent_key());
        }
        // The refusal may concern this context alone, so KMS is asked about the others.
        let now = Moment::now(&*self.0.clock);
        for arn in refused_keys(error, request.sent_key()) {
            let asked = request.dry_run(KeyId::from(&arn));
            self.0.standings.denied(&asked, &arn, now);
        }
    }

    /// If KMS has said that a key is out of use, drops all data keys under it. `sent` is the key that the request named to KMS.
    pub(crate) fn heed_refusal(&self, error: &KmsError, sent: Option<&KeyId>) {
        if !is_about_the_key(error) {
            return;
        }
        let inner = &*self.0;
        let refuse = |arn| inner.pools().iter().map(|pool| pool.refuse(&arn)).sum::<usize>();
        let evicted: usize = refused_keys(error, sent).into_iter().map(refuse).sum();
        if evicted > 0 {
            inner.counts.evictions.fetch_add(evicted as u64, Ordering::Relaxed);
            tracing::warn!(error = error.code, evicted, "KMS refuses a key: its data keys are dropped");
        }
    }
}

/// The keys that a refusal concerns: the one that the request named, and the one in KMS's message.
fn refused_keys(error: &KmsError, sent: Option<&KeyId>) -> Vec<KeyArn> {
    let mut keys: Vec<_> = sent.and_then(|key| KeyArn::parse(key.as_str())).into_iter().collect();
    let named = error.message.as_deref().and_then(KeyArn::find_in);
    keys.extend(named.filter(|arn| !keys.contains(arn)));
    keys
}

/// Whether the refusal takes the key out of use for everybody.
fn is_about_the_key(error: &KmsError) -> bool {
    use KmsErrorKind::{Disabled, InvalidState, NotFound};
    matches!(error.kind, Disabled | InvalidState | NotFound)
}

/// Short, since a check is a single attempt and is repeated anyway.
const LONGEST_CHECK: Duration = Duration::from_secs(3);
