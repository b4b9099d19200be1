//! What the broker may do in KMS, tried with DryRun.

use std::collections::BTreeMap;

use key_broker_core::{DataKeyLength, EncryptionContext, KeyId};

use super::report::{Finding, Report};
use crate::error::BrokerError;
use crate::kms::{AttemptLog, Kms, KmsError, KmsErrorKind};
use crate::operation::{DryRunOf, DryRunRequest, KmsReply, TypedRequest};
use crate::policy::bindings::Bindings;
use crate::policy::own;

/// The pairs that permissions are tried with: the given ones, or those that the configuration requires of any principal. An
/// encryption context has one value for each name, so of two values neither is taken.
pub(super) fn context_of(told: &EncryptionContext, bindings: &Bindings) -> EncryptionContext {
    if !told.pairs().is_empty() {
        return told.clone();
    }
    let mut pairs = BTreeMap::<&String, Option<&String>>::new();
    for binding in &bindings.0 {
        for (name, value) in binding.require.iter().chain(&binding.inject) {
            pairs.entry(name).and_modify(|one| *one = one.filter(|one| *one == value)).or_insert(Some(value));
        }
    }
    let pairs = pairs.into_iter().filter_map(|(name, value)| Some((name.clone(), value?.clone())));
    EncryptionContext::parse(pairs.collect()).unwrap_or_default()
}

/// Tries what workloads may ask of a key.
pub(super) async fn check(kms: &dyn Kms, key: &KeyId, context: &EncryptionContext, report: &mut Report) {
    for of in of_workloads() {
        report.add("kms", may(kms, of, key, context).await);
    }
}

/// What workloads ask of a key, each tried by itself.
pub(super) fn of_workloads() -> [DryRunOf; 2] {
    [DryRunOf::GenerateDataKey(DataKeyLength::Aes256), DryRunOf::Decrypt(None)]
}

/// Whether the broker may do this under `key`.
pub(super) async fn may(kms: &dyn Kms, of: DryRunOf, key: &KeyId, context: &EncryptionContext) -> Finding {
    let (name, has_context) = (of.name(), of.has_context());
    let request = DryRunRequest { of, key: key.clone().into(), context: context.clone() };
    match ask_kms(kms, request).await {
        Ok(_) => Finding::Ok(format!("may {name} under {}", key.as_str())),
        // A key policy or grant may require a context that was not given.
        Err(BrokerError::Kms(KmsError { kind: KmsErrorKind::AccessDenied, .. }))
            if has_context && context.pairs().is_empty() =>
        {
            Finding::NotKnown(format!(
                "{name} under {}: KMS denies it without an encryption context; if the key's policy requires one, give it with --context",
                key.as_str()
            ))
        }
        Err(error) => Finding::Failed(refused(name, key, &error)),
    }
}

/// Makes a call of the broker's own.
pub(super) async fn ask_kms<R: TypedRequest>(kms: &dyn Kms, request: R) -> Result<KmsReply, BrokerError> {
    let permitted = own::permit(request)?;
    kms.call(permitted.widen(), &AttemptLog::default()).await.map_err(BrokerError::Kms)
}

pub(super) fn refused(operation: &str, key: &KeyId, error: &BrokerError) -> String {
    format!("{operation} under {}: {}", key.as_str(), error.describe().trim_end_matches('.'))
}
