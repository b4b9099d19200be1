//! Parsed records of brokers, and AWS's records of KMS.

use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::notice::BROKER;
use super::{ActivityEventData, ContextPairs, KMS, Record};

/// A parsed record. Its `additionalEventData` is still JSON, since its form depends on the profile.
pub type ReadRecord<'a> = Record<'a, &'a RawValue>;

impl<'a> ReadRecord<'a> {
    /// Parses one record, ignoring fields that no broker writes, of which AWS's own records have many. To validate a record, write it again
    /// and compare.
    pub fn parse(json: &'a str) -> Result<Self, MalformedRecord> {
        parse(json)
    }

    /// `additionalEventData` of an activity record.
    pub fn activity(&self) -> Result<Option<ActivityEventData<'a>>, MalformedRecord> {
        self.additional_event_data.map(|json| parse(json.get())).transpose()
    }
}

impl<D> Record<'_, D> {
    /// Whether it is about a call to KMS.
    #[must_use]
    pub fn is_of_kms(&self) -> bool {
        &*self.event_source == KMS
    }

    /// Whether the broker, or an auditor's command, made the call for the trail or for itself.
    #[must_use]
    pub fn is_of_the_broker_itself(&self) -> bool {
        self.user_identity.invoked_by.as_deref() == Some(BROKER)
    }

    /// The key as the caller wrote it.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.request_parameters.as_ref()?.key_id.as_deref()
    }

    /// The encryption context.
    pub fn encryption_context(&self) -> impl DoubleEndedIterator<Item = (&str, &str)> {
        let parameters = self.request_parameters.as_ref();
        let pairs = parameters.and_then(|parameters| parameters.encryption_context.as_ref());
        pairs.into_iter().flat_map(ContextPairs::iter)
    }

    /// A value in the encryption context.
    #[must_use]
    pub(crate) fn context(&self, name: &str) -> Option<&str> {
        // If a name is there twice, readers of JSON take the last.
        self.encryption_context().rev().find(|pair| pair.0 == name).map(|(_, value)| value)
    }

    /// The ARN of the first key.
    #[must_use]
    pub fn key_arn(&self) -> Option<&str> {
        self.resources.as_ref()?.first()?.arn.as_deref()
    }
}

/// Why some JSON is not a record, or not the records of a log file.
#[derive(Debug, PartialEq, Eq)]
pub struct MalformedRecord(pub(crate) String);

impl fmt::Display for MalformedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for MalformedRecord {}

/// Parses a record or a part of one.
pub fn parse<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, MalformedRecord> {
    if !json.trim_start().starts_with('{') {
        return Err(MalformedRecord("not an object".into()));
    }
    serde_json::from_str(json).map_err(|error| {
        let line = json.split_inclusive('\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
        let before = &line[..line.floor_char_boundary(error.column())];
        let start = before.ceil_char_boundary(before.len().saturating_sub(SHOWN_BYTES));
        MalformedRecord(format!("{error}, after {}", shown(&before[start..])))
    })
}

/// The beginning of some JSON, for a finding.
pub(crate) fn shown(json: &str) -> String {
    let mut shown = String::new();
    for c in json[..json.floor_char_boundary(SHOWN_BYTES)].chars() {
        match c {
            '"' | '\\' | '\'' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    shown
}

/// Enough to recognize the field.
const SHOWN_BYTES: usize = 60;
