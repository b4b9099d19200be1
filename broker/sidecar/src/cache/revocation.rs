//! The revocation check: KMS is asked again about the keys behind what is kept, for a key that is served from memory would
//! otherwise outlive its KMS key's end by up to its age.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use key_broker_core::{EncryptionContext, KeyId};

use super::{Cache, Inner};
use crate::error::BrokerError;
use crate::kms::recorded::RecordedReply;
use crate::operation::{DryRunOf, DryRunRequest};
use crate::policy::own;

impl Cache {
    /// Asks KMS about every kept key's KMS key once in `every`, one at a time and spread over that time, until the cache
    /// itself is dropped.
    pub(crate) async fn check_revocation(self, every: Duration) {
        let inner = std::sync::Arc::downgrade(&self.0);
        drop(self);
        loop {
            let Some(keys) = of(&inner).map(|cache| cache.kms_keys()) else { return };
            if keys.is_empty() {
                tokio::time::sleep(every).await;
            }
            let pause = every / u32::try_from(keys.len()).unwrap_or(u32::MAX).max(1);
            for key in keys {
                tokio::time::sleep(pause).await;
                let Some(cache) = of(&inner) else { return };
                cache.ask_again(key).await;
            }
        }
    }

    /// The KMS keys behind what is kept, each once, by ARN.
    fn kms_keys(&self) -> Vec<KeyId> {
        let mut keys = BTreeMap::new();
        self.list(&mut |entry| {
            if !keys.contains_key(entry.arn.as_str()) {
                keys.insert(entry.arn.as_str().to_owned(), KeyId::from(entry.arn));
            }
        });
        keys.into_values().collect()
    }

    /// A refusal drops everything under the key. No answer changes nothing: what is kept has its bounds.
    async fn ask_again(&self, key: KeyId) {
        let deadline = self.0.clock.instant() + self.0.rules.kms_deadline;
        let request = DryRunRequest {
            of: DryRunOf::GenerateDataKey,
            key: key.clone().into(),
            context: EncryptionContext::default(),
        };
        let Ok(permitted) = own::permit(request) else { return };
        let RecordedReply { result, records, .. } = self.0.kms.call(permitted, deadline).await;
        match &result {
            Ok(()) => {}
            Err(BrokerError::Kms(error)) => self.heed_refusal(error, Some(&key)),
            Err(error) => tracing::debug!(?error, key = key.as_str(), "KMS was not asked about a kept key"),
        }
        // Nothing leaves by this: where the journal cannot commit, its health says so.
        let _ = records.commit().await;
    }
}

fn of(inner: &Weak<Inner>) -> Option<Cache> {
    inner.upgrade().map(Cache)
}
