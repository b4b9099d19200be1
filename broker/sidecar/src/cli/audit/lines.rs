//! Prints records, one line each.

use std::collections::VecDeque;
use std::io;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use key_broker_core::Outcome;
use key_broker_trail::record::{ActivityEventData, ReadRecord, record_time};
use serde::Serialize;

use super::Failure;
use super::output::{Columns, plain, write};
use crate::admin::Admin;

/// Prints records aligned in columns, or unchanged.
pub(in crate::cli) struct Lines {
    columns: Option<Columns>,
    /// Those of calls to KMS, too, and what the broker does for itself.
    all: bool,
    is_coloured: bool,
    has_head: bool,
}

impl Lines {
    /// Lines of JSON, or a table, of `all` records or of workloads' calls alone.
    pub(in crate::cli) fn new(json: bool, all: bool) -> Self {
        let is_coloured = AutoStream::choice(&io::stdout()) != ColorChoice::Never;
        Self { columns: (!json).then(|| Columns::new(&WIDTHS)), all, is_coloured, has_head: false }
    }

    /// Whether to show a record: a workload's call, a record of trouble, or any.
    pub(super) fn wants(&self, record: &[u8]) -> bool {
        self.all || std::str::from_utf8(record).ok().and_then(is_of_a_call).unwrap_or(true)
    }

    /// Makes the columns as wide as these records need.
    pub(super) fn make_room(&mut self, records: &VecDeque<Vec<u8>>) {
        let Some(columns) = &mut self.columns else { return };
        for cells in records.iter().filter_map(|record| cells(record)) {
            columns.widen(&cells);
        }
    }

    pub(in crate::cli) fn show(&mut self, record: &[u8]) -> Result<(), Failure> {
        if !self.wants(record) {
            return Ok(());
        }
        let Some(columns) = &mut self.columns else { return write(&[record, b"\n"].concat()) };
        if !std::mem::replace(&mut self.has_head, true) {
            write(columns.line(&HEAD.map(str::to_owned)).as_bytes())?;
        }
        match cells(record) {
            Some(cells) => {
                let line = columns.line(&cells);
                let style = if self.is_coloured { style_of(&cells[1]) } else { Style::new() };
                write(format!("{style}{}{style:#}\n", line.trim_end()).as_bytes())
            }
            None => write(format!("not a record: {}\n", plain(&String::from_utf8_lossy(record))).as_bytes()),
        }
    }
}

/// Whether a record is of a workload's call, or of trouble; `None` if it is not a record.
fn is_of_a_call(json: &str) -> Option<bool> {
    let record = ReadRecord::parse(json).ok()?;
    if record.is_of_kms() {
        return Some(false);
    }
    let data = record.activity().ok()??;
    // Refused operators may be anybody.
    let is_operators = Admin::METHODS.contains(&&*record.event_name) && data.outcome == Outcome::Allowed;
    let is_own = data.broker.is_some() || is_operators || &*record.user_identity.kind == "Broker";
    Some(!is_own || data.journal.is_some() || data.failed_check.is_some())
}

/// By how a call ended.
fn style_of(outcome: &str) -> Style {
    let colour = match outcome {
        "Allowed" => AnsiColor::Green,
        "Denied" => AnsiColor::Red,
        "kms" => return Style::new().dimmed(),
        _ => AnsiColor::Yellow,
    };
    colour.on_default()
}

/// `None` if it is not a record.
fn cells(line: &[u8]) -> Option<[String; 8]> {
    let record = ReadRecord::parse(std::str::from_utf8(line).ok()?).ok()?;
    let identity = &record.user_identity;
    let data = if record.is_of_kms() { None } else { record.activity().ok()? };
    let data_key = data.as_ref().and_then(|data| data.data_key.as_ref());
    let (outcome, principal, request_id) = if record.is_of_kms() {
        let session = identity.arn.as_deref().and_then(|arn| arn.splitn(6, ':').nth(5));
        let session = session.map(|session| session.trim_start_matches("assumed-role/"));
        let principal =
            if record.is_of_the_broker_itself() { identity.invoked_by.as_deref() } else { session };
        (Some("kms"), principal, Some(&*record.request_id))
    } else {
        let request_id = data_key.and_then(|key| key.kms_request_id.as_deref());
        let outcome = data.as_ref().map(|data| data.outcome.name());
        (outcome, identity.principal_id.as_deref(), request_id)
    };
    let key = record.key_id().or_else(|| record.key_arn()).and_then(|key| key.rsplit(':').next());
    let served_from = data_key.map(|key| key.served_from.name());
    let cell = |text: Option<&str>| plain(text.filter(|text| !text.is_empty()).unwrap_or("-"));
    Some([
        record_time(record.event_time),
        cell(outcome),
        cell(principal),
        cell(Some(&record.event_name)),
        cell(key),
        cell(served_from),
        cell(request_id),
        plain(&trouble(&record, data.as_ref())),
    ])
}

/// What went wrong with the call, and what happened to the broker since the previous record.
fn trouble(record: &ReadRecord<'_>, data: Option<&ActivityEventData<'_>>) -> String {
    let error = record.error_code.as_deref().map(|code| match record.error_message.as_deref() {
        Some(message) => format!("{code}: {message}"),
        None => code.to_owned(),
    });
    let journal = data.and_then(|data| data.journal).map(|notice| format!("journal: {}", counts(notice)));
    let reloads = data.and_then(|data| data.reloads).map(|reloads| format!("reloaded: {}", counts(reloads)));
    error.into_iter().chain(journal).chain(reloads).collect::<Vec<_>>().join("; ")
}

/// Counts as `NAME COUNT`, those that are not zero.
fn counts(counts: impl Serialize) -> String {
    let counts = serde_json::json!(counts);
    let counts = counts.as_object().into_iter().flatten();
    counts.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

const HEAD: [&str; 8] = ["TIME", "OUTCOME", "PRINCIPAL", "ACTION", "KEY", "FROM", "KMS REQUEST ID", "ERROR"];
/// Usual widths; wider cells widen their column.
const WIDTHS: [usize; 8] = [20, 8, 14, 15, 12, 5, 36, 0];

#[cfg(test)]
mod tests {
    //! Every kind of record is one aligned line, and nothing in it moves the terminal's cursor.

    use serde_json::{Value, json};

    use super::*;

    fn record(more: &Value) -> Vec<u8> {
        let mut record = json!({
            "userIdentity": { "type": "UnixWorkload", "principalId": "unix:uid/1000" },
            "eventTime": "2026-11-21T10:57:07Z", "eventSource": "keybroker.v1.KeyBroker",
            "eventName": "GenerateDataKey", "awsRegion": "us-west-2",
            "requestParameters": { "keyId": "alias/dev" }, "requestID": "r", "eventID": "e",
            "additionalEventData": { "outcome": "Allowed",
                "dataKey": { "servedFrom": "CACHE", "kmsRequestID": "c929ebc7-094a-4ee5-839d-975205113c0f" } },
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            record[name] = value.clone();
        }
        record.to_string().into_bytes()
    }

    #[test]
    fn a_line_for_each_record() {
        let kms = json!({ "eventSource": "kms.amazonaws.com", "additionalEventData": null,
            "userIdentity": { "arn": "arn:aws:sts::111122223333:assumed-role/broker/pod-1" },
            "requestID": "c929ebc7-094a-4ee5-839d-975205113c0f" });
        let mut own = kms.clone();
        own["userIdentity"]["invokedBy"] = "key-broker".into();
        own["eventName"] = "Sign".into();
        let records = [
            record(&kms),
            record(&own),
            record(&json!({})),
            record(&json!({ "errorCode": "AccessDenied", "errorMessage": "the broker's policy says no",
                "additionalEventData": { "outcome": "Denied" } })),
            record(&json!({ "requestParameters": null, "errorCode": "ValidationException",
                "errorMessage": "\u{1b}[2J", "userIdentity": { "type": "Unknown", "principalId": "unknown" },
                "eventName": "GenerateDataKeyWithoutPlaintext", "additionalEventData": { "outcome": "Rejected" } })),
            record(
                &json!({ "eventName": "Decrypt", "requestParameters": { "encryptionAlgorithm": "SYMMETRIC_DEFAULT" },
                "resources": [{ "ARN": "arn:aws:kms:us-west-2:111122223333:key/1234abcd" }],
                "additionalEventData": { "outcome": "Allowed", "journal": { "tornBytes": 12 } } }),
            ),
            record(&json!({ "eventName": "ReportNotice", "requestParameters": null,
                "userIdentity": { "type": "Broker", "principalId": "key-broker" },
                "additionalEventData": { "outcome": "Allowed", "journal": { "missingRecords": 20 }, "reloads": { "policy": 1 },
                    "noticeID": "c929ebc7-094a-4ee5-839d-975205113c0f" } })),
        ];
        let mut columns = Columns::new(&WIDTHS);
        let lines: String =
            records.iter().map(|record| columns.line(&cells(record).expect("a record"))).collect();
        insta::assert_snapshot!(lines);
    }

    #[test]
    fn without_all_there_are_workloads_calls_and_trouble() {
        let lines = Lines { columns: None, all: false, is_coloured: false, has_head: false };
        let allowed = json!({ "outcome": "Allowed" });
        for method in Admin::METHODS {
            let of_operator =
                |data: &Value| record(&json!({ "eventName": method, "additionalEventData": data }));
            assert!(!lines.wants(&of_operator(&allowed)), "{method}");
            assert!(lines.wants(&of_operator(&json!({ "outcome": "Denied" }))), "{method}: whoever that was");
        }
        assert!(lines.wants(&record(&json!({}))));
        let of_kms = json!({ "eventSource": "kms.amazonaws.com", "additionalEventData": null });
        assert!(!lines.wants(&record(&of_kms)));
        let broker = json!({ "type": "Broker", "principalId": "key-broker" });
        let own = |data: Value| record(&json!({ "userIdentity": broker, "additionalEventData": data }));
        assert!(!lines.wants(&own(allowed)));
        assert!(lines.wants(&own(json!({ "outcome": "Allowed", "journal": { "missingRecords": 20 } }))));
    }
}
