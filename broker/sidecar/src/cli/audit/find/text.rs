//! The story as text.

use std::fmt::Write as _;

use key_broker_core::Outcome;
use key_broker_trail::record::{
    ActivityEventData, KmsEventData, MalformedRecord, ReadRecord, ServedFrom, parse, record_time,
};

use super::search::{DataKey, Found, Records};
use super::{Report, Verdict};
use crate::cli::audit::output::{Columns, plain};

/// All of it, with the verdict at its end.
pub(super) fn of(report: &Report) -> String {
    let mut text = String::new();
    for call in report.story.calls.kept.iter().take(MOST_CALLS) {
        add_call(&mut text, report, call);
    }
    add_rest(&mut text, &report.story.calls, MOST_CALLS, "calls");
    for key in &report.story.data_keys {
        add_data_key(&mut text, report, key);
    }
    if report.story.is_cut {
        text.push_str(
            "More data keys were found than are followed: narrow the time with --since and --until.\n\n",
        );
    }
    let _ = writeln!(text, "{}", verdict(report));
    text
}

fn add_call(text: &mut String, report: &Report, found: &Found) {
    let mut rows = Vec::new();
    let head = match call_rows(&mut rows, found) {
        Ok(head) => head,
        Err(malformed) => format!("not a record: {}", plain(&malformed.to_string())),
    };
    rows.push(vec!["  record in".into(), place(report, found)]);
    let _ = writeln!(text, "{head}\n{}", Columns::table(&rows, usize::MAX));
}

fn call_rows(rows: &mut Vec<Vec<String>>, found: &Found) -> Result<String, MalformedRecord> {
    let record = ReadRecord::parse(&found.json)?;
    let data = record.activity()?;
    let mut row = |name: &str, value: String| rows.push(vec![format!("  {name}"), value]);
    let text = |text: Option<&str>| text.map(plain);
    let principal = text(record.user_identity.principal_id.as_deref()).unwrap_or_else(|| "unknown".into());
    let from = [text(record.source_ip_address.as_deref()), text(record.user_agent.as_deref())];
    let from: Vec<String> = from.into_iter().flatten().filter(|text| !text.is_empty()).collect();
    row("asked by", format!("{principal} ({})", from.join(", ")));
    if let Some(error) = text(record.error_code.as_deref()) {
        row(
            "refused as",
            [Some(error), text(record.error_message.as_deref())]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(": "),
        );
    }
    row("asked for", asked_for(&record));
    if let Some(arn) = text(record.key_arn()) {
        row("key", arn);
    }
    if let Some(data) = &data {
        row("policy", policy(data));
        row("served from", served_from(data));
    }
    row("request id", plain(&record.request_id));
    row("event id", plain(&record.event_id));
    row("trace", data.as_ref().map_or_else(|| "not traced".into(), trace));
    let outcome = data.as_ref().map_or("?", |data| data.outcome.name());
    Ok(format!("{} at {}: {outcome}", plain(&record.event_name), record_time(record.event_time)))
}

fn trace(data: &ActivityEventData<'_>) -> String {
    let (whose, of) = match (&data.trace, &data.caller_trace) {
        (Some(trace), _) => ("", trace),
        (None, Some(trace)) => ("the caller's ", trace),
        (None, None) => return "not traced".into(),
    };
    format!("{}, {whose}span {}", plain(&of.trace_id), plain(&of.span_id))
}

fn asked_for(record: &ReadRecord<'_>) -> String {
    let mut parts: Vec<String> = record.key_id().into_iter().map(plain).collect();
    if let Some(asked) = &record.request_parameters {
        parts.extend(asked.key_spec.as_deref().map(plain));
        parts.extend(asked.number_of_bytes.map(|bytes| format!("{bytes} bytes")));
        parts.extend(asked.ciphertext_sha256.as_deref().map(|hash| format!("ciphertext {}", plain(hash))));
    }
    parts
        .extend(record.encryption_context().map(|(name, value)| format!("{}={}", plain(name), plain(value))));
    if parts.is_empty() { "nothing that could be read".into() } else { parts.join(", ") }
}

fn policy(data: &ActivityEventData<'_>) -> String {
    let Some(policy) = &data.policy else { return "was not asked".into() };
    let ids: Vec<String> = policy.determining_policies.iter().map(|id| plain(id)).collect();
    let version = plain(&policy.version);
    match (data.outcome, ids.is_empty()) {
        (Outcome::Denied, true) => format!("none permits it, of version {version}"),
        (Outcome::Denied, false) => format!("{} decided, of version {version}", ids.join(", ")),
        (_, _) => format!("{} allowed it, of version {version}", ids.join(", ")),
    }
}

fn served_from(data: &ActivityEventData<'_>) -> String {
    let Some(key) = &data.data_key else { return "nothing".into() };
    let id = key.kms_request_id.as_deref().map_or_else(|| "unknown".to_owned(), plain);
    match key.served_from {
        ServedFrom::Kms => format!("KMS, a miss: KMS was called for it, requestID {id}"),
        ServedFrom::Cache => format!("memory, a hit: of an earlier call to KMS, requestID {id}"),
    }
}

fn add_data_key(text: &mut String, report: &Report, key: &DataKey) {
    let _ = match &key.ciphertext_sha256 {
        Some(hash) => writeln!(text, "The data key with the ciphertext of SHA-256 {}", plain(hash)),
        None => writeln!(text, "The answer of KMS"),
    };
    for found in key.kms_records.kept.iter().take(MOST_CALLS) {
        let rows =
            kms_rows(report, found).unwrap_or_else(|malformed| vec![vec![plain(&malformed.to_string())]]);
        text.push_str(&Columns::table(&rows, usize::MAX));
    }
    add_rest(text, &key.kms_records, MOST_CALLS, "calls to KMS");
    if key.kms_records.in_all == 0 {
        text.push_str(
            "  the record of its call to KMS is not here: it may be of another time, or another trail\n",
        );
    }
    if key.uses.in_all > 0 {
        let _ = writeln!(text, "\n{} other uses of it:", key.uses.in_all);
        let mut rows = vec![USE_HEAD.map(str::to_owned).to_vec()];
        rows.extend(key.uses.kept.iter().take(MOST_USES).filter_map(|found| use_row(found).ok()));
        text.push_str(&Columns::table(&rows, usize::MAX));
        add_rest(text, &key.uses, MOST_USES, "uses");
    } else if key.ciphertext_sha256.is_some() {
        text.push_str("  no other use of it is recorded\n");
    }
    text.push('\n');
}

fn kms_rows(report: &Report, found: &Found) -> Result<Vec<Vec<String>>, MalformedRecord> {
    let record = ReadRecord::parse(&found.json)?;
    let identity = &record.user_identity;
    let who =
        identity.arn.as_deref().or(identity.access_key_id.as_deref()).map_or_else(|| "unknown".into(), plain);
    let own = if record.is_of_the_broker_itself() { ", for the broker itself" } else { "" };
    let error = record.error_code.as_deref().map_or_else(String::new, |error| format!(": {}", plain(error)));
    let row = |name: &str, value: String| vec![format!("  {name}"), value];
    Ok(vec![
        row(
            "KMS call",
            format!(
                "{} at {}, in {}{error}",
                plain(&record.event_name),
                record_time(record.event_time),
                plain(&record.aws_region)
            ),
        ),
        row("requestID", format!("{}, under which AWS CloudTrail has it", plain(&record.request_id))),
        row("event id", plain(&record.event_id)),
        row("signed by", format!("{who}{own}")),
        row("key", record.key_arn().or_else(|| record.key_id()).map_or_else(|| "-".into(), plain)),
        row("key material", materials(&record)?),
        row("record in", place(report, found)),
    ])
}

/// Which of the materials that a key has had KMS used: rotation gives it another one.
fn materials(record: &ReadRecord<'_>) -> Result<String, MalformedRecord> {
    let data = record.additional_event_data.map(|json| parse(json.get())).transpose()?;
    let data: KmsEventData<'_> = data.unwrap_or_default();
    let id = |id: Option<&str>| id.map_or_else(|| "unknown".to_owned(), plain);
    if &*record.event_name == "ReEncrypt" {
        let (from, to) =
            (data.source_key_material_id.as_deref(), data.destination_key_material_id.as_deref());
        return Ok(format!("from {} to {}", id(from), id(to)));
    }
    Ok(id(data.key_material_id.as_deref()))
}

fn use_row(found: &Found) -> Result<Vec<String>, MalformedRecord> {
    let record = ReadRecord::parse(&found.json)?;
    let data = record.activity()?;
    let cell = |text: Option<&str>| text.map_or_else(|| "-".into(), plain);
    let key = data.as_ref().and_then(|data| data.data_key.as_ref());
    let trace = data.as_ref().and_then(|data| data.trace.as_ref().or(data.caller_trace.as_ref()));
    Ok(vec![
        record_time(record.event_time),
        plain(&record.event_name),
        cell(record.user_identity.principal_id.as_deref()),
        cell(key.map(|key| key.served_from.name())),
        cell(data.as_ref().map(|data| data.outcome.name())),
        plain(&record.request_id),
        cell(trace.map(|trace| &*trace.trace_id)),
    ])
}

fn place(report: &Report, found: &Found) -> String {
    match report.places.log_file(found) {
        Some(file) if file.is_signed => plain(file.key()),
        Some(file) => format!("{}, which no digest names yet", plain(file.key())),
        None => "the journal: it is not delivered yet".into(),
    }
}

fn add_rest(text: &mut String, records: &Records, shown: usize, what: &str) {
    let rest = records.in_all.saturating_sub(shown as u64);
    if rest > 0 {
        let _ = writeln!(text, "… and {rest} more {what}: --json has {} of them", records.kept.len());
    }
}

fn verdict(report: &Report) -> String {
    let (all, unsigned, places) = (report.in_all(), report.unsigned(), &report.places);
    match report.verdict() {
        Verdict::Vouched => format!("vouched for: signed digests name the log files of all {all} records"),
        Verdict::NotYet => format!(
            "not yet vouched for: {unsigned} of {all} records are in no signed digest yet, and are the broker's own word"
        ),
        Verdict::CannotTell => {
            let journal = if places.is_journal_left_out { " and the journal" } else { "" };
            format!(
                "cannot tell: {} log files and digests{journal} were left out, and may have more; {unsigned} of {all} records shown are \
                 in no signed digest",
                places.left_out
            )
        }
        Verdict::NotFound => {
            format!("not found: no record here has the {} {}", report.id.what(), plain(report.id.text()))
        }
    }
}

const USE_HEAD: [&str; 7] = ["TIME", "ACTION", "PRINCIPAL", "FROM", "OUTCOME", "REQUEST ID", "TRACE"];
/// More would hide the verdict from people.
const MOST_CALLS: usize = 20;
const MOST_USES: usize = 50;
