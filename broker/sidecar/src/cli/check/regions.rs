//! The fallback regions of multi-Region keys.

use key_broker_core::{EncryptionContext, KeyArn, KeyId};
use key_broker_trail::record::AwsCaller;

use super::keys::{may, of_workloads};
use super::knowledge;
use super::report::{Finding, Report};
use crate::kms::aws::{AskedRegion, AwsKms};

/// Where each is reached, and whether the broker may use the replicas of those of `keys` that are multi-Region keys.
pub(super) async fn check(
    kms: &AwsKms,
    caller: &AwsCaller,
    keys: &[KeyId],
    context: &EncryptionContext,
    report: &mut Report,
) {
    let (_, others) = kms.regions(caller).await;
    if others.is_empty() {
        return;
    }
    for AskedRegion { caller, .. } in &others {
        let words = format!("{} at {}, for multi-Region keys", caller.region, caller.kms_host);
        report.add("region", Finding::Ok(words));
    }
    for key in keys {
        let Some(arn) = multi_region(kms, caller, key).await else { continue };
        for AskedRegion { kms, caller, .. } in &others {
            let replica = KeyId::from(&arn.in_region(&caller.region));
            for of in of_workloads() {
                report.add("region", may(&**kms, of, &replica, context).await);
            }
        }
    }
}

/// The ARN of a key, if it is a multi-Region key. Failures to resolve it were reported before.
async fn multi_region(kms: &AwsKms, caller: &AwsCaller, key: &KeyId) -> Option<KeyArn> {
    let arn = match caller.key_arn(key) {
        Some(arn) => Some(arn),
        None => knowledge::target(kms, key).await.ok().flatten(),
    };
    arn.filter(KeyArn::is_multi_region)
}
