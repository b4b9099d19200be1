//! The last use of a key, which KMS returns to permitted callers in the key's own account
//! (<https://docs.aws.amazon.com/kms/latest/APIReference/API_GetKeyLastUsage.html>).

use aws_config::Region;
use aws_sdk_kms::primitives::DateTime;
use key_broker_core::KeyArn;
use time::OffsetDateTime;

use super::AwsKms;
use super::error::{kms_error, unexpected};
use crate::kms::KmsError;

/// The last use of a key that KMS knows of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastUse {
    /// The time by KMS's clock.
    pub(crate) at: OffsetDateTime,
    pub(crate) operation: String,
    /// The requestID of KMS's answer, if KMS says it.
    pub(crate) request_id: Option<String>,
    /// The eventID of AWS CloudTrail's record.
    pub(crate) cloudtrail_event_id: Option<String>,
}

/// KMS's description of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WatchedKey {
    /// Its ARN, and the ARNs of its replicas and its primary.
    pub(crate) arns: Vec<KeyArn>,
    /// Whether it is a key of AWS's own services.
    pub(crate) is_of_aws: bool,
}

impl AwsKms {
    /// GetKeyLastUsage in the key's region, with the credentials in use; `None` if the key was not used since KMS began to record uses.
    pub(crate) async fn last_use(&self, key: &KeyArn) -> Result<Option<LastUse>, KmsError> {
        let asked = self.client_in(key.region()).get_key_last_usage().key_id(key.as_str()).send();
        let answer = asked.await.map_err(|error| kms_error(&error))?;
        let Some(usage) = answer.key_last_usage else { return Ok(None) };
        let Some(at) = usage.timestamp.as_ref() else { return Ok(None) };
        Ok(Some(LastUse {
            at: moment(at).ok_or_else(|| unexpected("the time of the key's last use is invalid"))?,
            operation: usage.operation.map(|operation| operation.as_str().to_owned()).unwrap_or_default(),
            request_id: usage.kms_request_id,
            cloudtrail_event_id: usage.cloud_trail_event_id,
        }))
    }

    /// DescribeKey of `key`, in the region of its ARN or, for other names, in that of the settings.
    pub(crate) async fn watched_key(&self, key: &str) -> Result<WatchedKey, KmsError> {
        let arn = KeyArn::parse(key);
        let client = self.client_in(arn.as_ref().map_or(&self.settings.region, KeyArn::region));
        let answer = client.describe_key().key_id(key).send().await.map_err(|error| kms_error(&error))?;
        let Some(described) = answer.key_metadata else { return Err(unexpected("there is no description")) };
        let regions = described.multi_region_configuration.as_ref();
        let replicas = regions.into_iter().flat_map(|regions| {
            regions
                .primary_key
                .iter()
                .chain(regions.replica_keys.iter().flatten())
                .filter_map(|key| key.arn())
        });
        let own = described.arn.as_deref().into_iter();
        let mut arns: Vec<KeyArn> = own.chain(replicas).filter_map(KeyArn::parse).collect();
        if arns.is_empty() {
            return Err(unexpected("the description names no key"));
        }
        arns.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        arns.dedup();
        Ok(WatchedKey {
            arns,
            is_of_aws: described.key_manager == Some(aws_sdk_kms::types::KeyManagerType::Aws),
        })
    }

    /// The client of a region, with the credentials in use.
    fn client_in(&self, region: &str) -> aws_sdk_kms::Client {
        let known = std::iter::once(&self.home).chain(&self.fallbacks);
        if let Some(kms) = known.into_iter().find(|kms| kms.region() == region) {
            return kms.client().clone();
        }
        let config = self.home.client().config().to_builder().region(Region::new(region.to_owned()));
        aws_sdk_kms::Client::from_conf(config.build())
    }
}

fn moment(at: &DateTime) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(at.secs()).ok()
}
