//! The encryption context of a trail's data keys, with CloudTrail's names
//! (<https://docs.aws.amazon.com/kms/latest/developerguide/services-cloudtrail.html>).

use std::collections::BTreeMap;

use key_broker_core::{EncryptionContext, InvalidValue};

use crate::names::TrailNames;

/// The encryption context of a log file.
pub(crate) fn object_context(names: &TrailNames, object: &str) -> Result<EncryptionContext, InvalidValue> {
    context(names, names.object_arn(object))
}

/// The encryption context of the question whether the key may be used, when a trail is configured.
pub fn path_context(names: &TrailNames) -> Result<EncryptionContext, InvalidValue> {
    context(names, names.path_arn())
}

fn context(names: &TrailNames, s3_arn: String) -> Result<EncryptionContext, InvalidValue> {
    EncryptionContext::parse(BTreeMap::from([
        (TRAIL_ARN.to_owned(), names.trail_arn()),
        (S3_ARN.to_owned(), s3_arn),
    ]))
}

/// CloudTrail's names in the encryption context.
pub const TRAIL_ARN: &str = "aws:cloudtrail:arn";
const S3_ARN: &str = "aws:s3:arn";
