//! When a key was last used.

use serde_json::json;

use super::{Answer, Request, answer};
use crate::clock::epoch_seconds;
use crate::error::ApiError;

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GetKeyLastUsage.html>
pub(super) fn get(request: &Request<'_>) -> Result<Answer, ApiError> {
    let key = request.key_by_id("GetKeyLastUsage")?;
    let usage = &request.kms.usage;
    let last = usage.last(&key.id, request.now()).map_or_else(
        || json!({}),
        |used| {
            json!({
                "Operation": used.operation, "Timestamp": epoch_seconds(used.at),
                "KmsRequestId": used.request_id, "CloudTrailEventId": used.event_id,
            })
        },
    );
    Ok(answer([
        ("KeyId", key.arn.clone().into()),
        ("KeyLastUsage", last),
        ("TrackingStartDate", epoch_seconds(usage.known_since().max(key.created)).into()),
        ("KeyCreationDate", epoch_seconds(key.created).into()),
    ]))
}
