//! `[kms]`: how to reach KMS, how many calls to make, and when to stop.

mod elsewhere;
mod session;

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use serde::Deserialize;

use super::{Host, milliseconds, within};
use crate::kms::aws::AwsSettings;
use crate::kms::guard::{BreakerSettings, GuardSettings};
use elsewhere::AccountSection;

/// `[kms]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct KmsSection {
    region: String,
    endpoint_url: Option<String>,
    sts_endpoint_url: Option<String>,
    role_arn: Option<String>,
    session_name: Option<String>,
    #[serde(default)]
    fallback_regions: Vec<String>,
    #[serde(default)]
    fallback_endpoint_urls: BTreeMap<String, String>,
    #[serde(default)]
    account: Vec<AccountSection>,
    #[serde(default = "default_imds_connect_timeout_ms")]
    imds_connect_timeout_ms: u64,
    #[serde(default = "default_imds_read_timeout_ms")]
    imds_read_timeout_ms: u64,
    #[serde(default = "default_connect_timeout_ms")]
    connect_timeout_ms: u64,
    #[serde(default = "default_attempt_timeout_ms")]
    attempt_timeout_ms: u64,
    #[serde(default = "default_max_attempts")]
    max_attempts: u32,
    #[serde(default = "default_max_in_flight")]
    max_in_flight: u32,
    #[serde(default = "default_queue_wait_ms")]
    queue_wait_ms: u64,
    #[serde(default = "default_breaker_failures")]
    breaker_failures: u32,
    #[serde(default = "default_breaker_open_ms")]
    breaker_open_ms: u64,
    #[serde(default = "default_breaker_longest_open_ms")]
    breaker_longest_open_ms: u64,
}

const fn default_connect_timeout_ms() -> u64 {
    1_000
}

const fn default_attempt_timeout_ms() -> u64 {
    3_000
}

const fn default_imds_connect_timeout_ms() -> u64 {
    // Without a metadata service, this is how long it takes to notice.
    2_000
}

const fn default_imds_read_timeout_ms() -> u64 {
    // Asked in the background: a slow one delays no call.
    10_000
}

const fn default_max_attempts() -> u32 {
    // The SDK's own default in standard mode.
    3
}

const fn default_max_in_flight() -> u32 {
    // Each is a connection of its own (HTTP/1.1). One principal has half of them at most: at KMS's usual 20 ms, 64 make 3,200
    // calls a second, more than one host's fair share of an account's quota, 10,000 a second in most Regions.
    128
}

const fn default_queue_wait_ms() -> u64 {
    // The time of fifty calls at KMS's usual pace: a longer wait means that KMS is slow.
    1_000
}

const fn default_breaker_failures() -> u32 {
    // As Envoy's outlier detection. Each is a call whose retries have failed, too.
    5
}

const fn default_breaker_open_ms() -> u64 {
    1_000
}

const fn default_breaker_longest_open_ms() -> u64 {
    // After an outage of any length, KMS is asked again within this.
    30_000
}

impl KmsSection {
    pub(super) fn check(self, host: Host) -> Result<(AwsSettings, GuardSettings), String> {
        if !is_region(&self.region) {
            return Err(format!("kms.region: {:?} is not a region such as \"us-west-2\"", self.region));
        }
        if host == Host::Here && !knows_authorities() {
            return Err(NO_AUTHORITIES.into());
        }
        let attempt_timeout = milliseconds("kms.attempt_timeout_ms", self.attempt_timeout_ms)?;
        let guard = self.guard(attempt_timeout)?;
        let (regions, endpoints) = (&self.fallback_regions, &self.fallback_endpoint_urls);
        elsewhere::check_regions(&self.region, regions, endpoints, session::variable)?;
        let aws = AwsSettings {
            fallback_regions: self.fallback_regions,
            fallback_endpoint_urls: self.fallback_endpoint_urls,
            account_roles: elsewhere::account_roles(self.account)?,
            region: self.region,
            endpoint_url: checked_url("kms.endpoint_url", self.endpoint_url)?,
            sts_endpoint_url: checked_url("kms.sts_endpoint_url", self.sts_endpoint_url)?,
            connect_timeout: milliseconds("kms.connect_timeout_ms", self.connect_timeout_ms)?,
            attempt_timeout,
            max_attempts: within("kms.max_attempts", self.max_attempts, 1, 10)?,
            imds_connect_timeout: milliseconds("kms.imds_connect_timeout_ms", self.imds_connect_timeout_ms)?,
            imds_read_timeout: milliseconds("kms.imds_read_timeout_ms", self.imds_read_timeout_ms)?,
            session_name: session::name(self.session_name.as_deref(), self.role_arn.is_some(), |name| {
                match host {
                    Host::Here => session::variable(name),
                    // This machine's variables say nothing about it, so assume that each has a value there.
                    Host::Elsewhere => (!name.starts_with("AWS_")).then(|| name.to_owned()),
                }
            })?,
            role_arn: self.role_arn.map(|arn| session::role_arn("kms.role_arn", arn)).transpose()?,
        };
        Ok((aws, guard))
    }

    /// A call that KMS had the time of one attempt for, and that it did not answer, is KMS's failure.
    fn guard(&self, fair_time: Duration) -> Result<GuardSettings, String> {
        let open = milliseconds("kms.breaker_open_ms", self.breaker_open_ms)?;
        let longest_open = milliseconds("kms.breaker_longest_open_ms", self.breaker_longest_open_ms)?;
        if longest_open < open {
            return Err(format!(
                "kms.breaker_longest_open_ms: {} is less than kms.breaker_open_ms, {}",
                self.breaker_longest_open_ms, self.breaker_open_ms
            ));
        }
        let failures = within("kms.breaker_failures", self.breaker_failures, 1, 1_000)?;
        Ok(GuardSettings {
            max_in_flight: within("kms.max_in_flight", self.max_in_flight, 1, 10_000)?,
            queue_wait: milliseconds("kms.queue_wait_ms", self.queue_wait_ms)?,
            fair_time,
            breaker: BreakerSettings { failures, open, longest_open },
        })
    }
}

/// Whether a region is not like any of AWS's, which have a direction before their number: `us-wset-2` is a slip.
pub(crate) fn is_unlikely_region(region: &str) -> bool {
    let direction = region.rsplit('-').nth(1).unwrap_or_default();
    let directions = ["north", "south", "east", "west", "central"];
    let is_one = |text: &str| directions.contains(&text);
    let is_two = |text: &str| {
        ["north", "south"]
            .iter()
            .any(|first| text.strip_prefix(first).is_some_and(|rest| ["east", "west"].contains(&rest)))
    };
    !is_one(direction) && !is_two(direction)
}

/// Whether it has the form of a region's name.
fn is_region(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    text.split('-').count() >= 3 && text.bytes().all(plain) && text.ends_with(|c: char| c.is_ascii_digit())
}

/// Whether this machine has any certificate authorities. Without them the AWS SDK panics, even if it is to speak plain HTTP.
fn knows_authorities() -> bool {
    static KNOWS: LazyLock<bool> =
        LazyLock::new(|| !rustls_native_certs::load_native_certs().certs.is_empty());
    *KNOWS
}

const NO_AUTHORITIES: &str = "kms: this machine has no certificate authorities, and AWS could not be told from anybody else: install the \
                              package ca-certificates, or name a PEM file in the environment variable SSL_CERT_FILE";

/// Checks the URL that `key` is set to.
pub(super) fn checked_url(key: &str, url: Option<String>) -> Result<Option<String>, String> {
    let Some(url) = url else { return Ok(None) };
    match url.parse::<http::Uri>() {
        Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() => {
            Ok(Some(url))
        }
        _ => Err(format!("{key}: {url:?} is not an http or https URL")),
    }
}
