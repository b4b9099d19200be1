//! AWS's records that are not findings, by class. docs/audit.md ("What reconcile makes of AWS's records") has the same rules.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use key_broker_trail::record::{self, MalformedRecord, ReadRecord, Text};

use super::call::ListedCall;

/// The number of records of each class.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Classes {
    /// Records that are the trail's own: AWS's have other eventIDs.
    pub(super) own: usize,
    /// Insights and aggregated events, which are not about single calls.
    pub(super) summaries: usize,
    /// Network activity events of calls that also have management events.
    pub(super) network_activity: usize,
    /// Dry runs with the broker's identity: KMS did nothing.
    pub(super) dry_runs: usize,
    /// Calls that KMS, or an endpoint's policy, refused, by error: of the broker's identity, and without a record in the trail.
    pub(super) refused: BTreeMap<String, usize>,
    /// Those calls.
    pub(super) refused_calls: Vec<ListedCall>,
    /// Calls under the trail's keys by others than the broker, by principal and operation.
    pub(super) by_others: BTreeMap<String, BTreeMap<String, usize>>,
}

/// The kind of an event, from its first fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A record of one call.
    Call,
    /// An insight, or many calls as one event.
    Summary,
    /// A record of a call as a VPC endpoint saw it.
    NetworkActivity,
}

/// The fields that the records of all services have.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Head<'a> {
    #[serde(borrow)]
    pub(super) event_source: Text<'a>,
    #[serde(borrow, default)]
    pub(super) event_name: Text<'a>,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) event_time: OffsetDateTime,
    #[serde(borrow)]
    pub(super) aws_region: Text<'a>,
    #[serde(borrow)]
    event_type: Option<Text<'a>>,
    #[serde(borrow)]
    event_category: Option<Text<'a>>,
}

impl<'a> Head<'a> {
    pub(super) fn parse(json: &'a str) -> Result<Self, MalformedRecord> {
        record::parse(json)
    }

    pub(super) fn kind(&self) -> Kind {
        match (self.event_category.as_deref(), self.event_type.as_deref()) {
            (Some("NetworkActivity"), _) | (_, Some("AwsVpceEvent" | "AwsVpceEvents")) => {
                Kind::NetworkActivity
            }
            (Some("Insight" | "Aggregated"), _)
            | (_, Some("AwsCloudTrailInsight" | "AwsAggregatedEvent")) => Kind::Summary,
            _ => Kind::Call,
        }
    }
}

impl Classes {
    /// Counts a network activity event. A call refused by an endpoint policy reached no service, so there is no other event of it.
    pub(super) fn add_network_activity(&mut self, json: &str) -> Result<(), MalformedRecord> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Event<'a> {
            #[serde(borrow)]
            error_code: Option<Text<'a>>,
        }
        let event: Event<'_> = record::parse(json)?;
        match event.error_code.as_deref() {
            Some(VPCE_DENIED) => *self.refused.entry(VPCE_DENIED.to_owned()).or_default() += 1,
            _ => self.network_activity += 1,
        }
        Ok(())
    }

    /// Counts a failed call without a record in the trail: KMS did nothing, so there was no theft.
    pub(super) fn add_refused(&mut self, call: ListedCall) {
        let error = call.error_code.clone().unwrap_or_default();
        if error == DRY_RUN {
            self.dry_runs += 1;
            return;
        }
        *self.refused.entry(error).or_default() += 1;
        self.refused_calls.push(call);
    }

    /// Counts a call of somebody else's under a key of the trail.
    pub(super) fn add_other(&mut self, call: &ReadRecord<'_>) {
        let identity = &call.user_identity;
        let who =
            identity.invoked_by.as_deref().or(identity.arn.as_deref()).or(identity.principal_id.as_deref());
        let operations = self.by_others.entry(who.unwrap_or("unknown").to_owned()).or_default();
        *operations.entry(call.event_name.to_string()).or_default() += 1;
    }
}

/// Ids that were seen, in eight bytes each.
#[derive(Default)]
pub(super) struct SeenIds {
    hasher: RandomState,
    seen: std::collections::HashSet<u64>,
}

impl SeenIds {
    /// Whether none of these was seen before.
    pub(super) fn are_new<'a>(&mut self, ids: impl Iterator<Item = &'a str>) -> bool {
        let mut are_new = true;
        for id in ids {
            are_new &= self.seen.insert(self.hasher.hash_one(id));
        }
        are_new
    }
}

/// What KMS answers to a dry run that would have been allowed.
const DRY_RUN: &str = "DryRunOperationException";
/// A call that the policy of a VPC endpoint refused.
const VPCE_DENIED: &str = "VpceAccessDenied";
