//! `key-broker audit tail`: the journal, as it grows.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::Duration;

use key_broker_trail::journal::Follower;
use key_broker_trail::record::{ActivityEventData, ReadRecord, record_time};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::output::{Columns, note, plain, write};
use super::source::BrokerArguments;
use super::{CommandResult, Failure};
use crate::cli::exit::Exit;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    broker: BrokerArguments,
    /// Show so many of the newest records first
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
    lines: usize,
    /// Go on with each new record; this is what happens without --no-follow, too
    #[arg(long, short)]
    follow: bool,
    /// End after the newest records
    #[arg(long, conflicts_with = "follow")]
    no_follow: bool,
    /// Print records as they are, a line of JSON each
    #[arg(long)]
    json: bool,
}

pub(super) const EXAMPLES: &str = "Examples:\n  \
    key-broker audit tail\n  \
    key-broker audit tail --config /etc/key-broker/key-broker.toml --lines 100\n  \
    key-broker audit tail --json | jq 'select(.errorCode)'";

pub(super) async fn run(arguments: Arguments) -> CommandResult {
    let explain = |error: io::Error| Failure::Unavailable(format!("cannot listen to signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(explain)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(explain)?;
    let dir = arguments.broker.journal_dir()?;
    let mut follower = Follower::new(&dir);
    let mut lines = Lines::new(arguments.json);
    let newest = newest(&mut follower, arguments.lines).map_err(|error| unreadable(&dir, &error))?;
    if newest.is_empty() && arguments.lines > 0 {
        note(format_args!(
            "nothing in {} waits to be delivered: `key-broker audit cat` shows what was",
            dir.display()
        ));
    }
    lines.make_room(&newest);
    for record in newest {
        lines.show(&record)?;
    }
    if arguments.no_follow {
        return Ok(Exit::Done.into());
    }
    let mut missed = follower.missed();
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(Exit::Done.into()),
            _ = terminate.recv() => return Ok(Exit::Done.into()),
            () = tokio::time::sleep(PAUSE) => {}
        }
        loop {
            match follower.next_record() {
                Ok(Some(record)) => lines.show(&record)?,
                // A directory that is away may come back, as the broker itself expects.
                Ok(None) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(unreadable(&dir, &error)),
            }
        }
        if follower.missed() > missed {
            let more = follower.missed() - missed;
            note(format_args!(
                "{more} records were delivered before they could be shown: `key-broker audit cat` has them"
            ));
            missed = follower.missed();
        }
    }
}

fn newest(follower: &mut Follower, number: usize) -> io::Result<VecDeque<Vec<u8>>> {
    let mut newest = VecDeque::new();
    while let Some(record) = follower.next_record()? {
        newest.push_back(record);
        if newest.len() > number {
            newest.pop_front();
        }
    }
    Ok(newest)
}

fn unreadable(dir: &Path, error: &io::Error) -> Failure {
    let next = match error.kind() {
        io::ErrorKind::NotFound => "has a broker run with this configuration?",
        io::ErrorKind::PermissionDenied => "only the broker's own user and root may read it",
        _ => "look at its disk",
    };
    let told = format!("the journal in {}: {error}: {next}", dir.display());
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => Failure::Configuration(told),
        _ => Failure::Unavailable(told),
    }
}

/// Records for people, aligned, or as they are.
struct Lines {
    columns: Option<Columns>,
    has_head: bool,
}

impl Lines {
    fn new(json: bool) -> Self {
        Self { columns: (!json).then(|| Columns::new(&WIDTHS)), has_head: false }
    }

    /// Makes the columns as wide as these records need.
    fn make_room(&mut self, records: &VecDeque<Vec<u8>>) {
        let Some(columns) = &mut self.columns else { return };
        for cells in records.iter().filter_map(|record| cells(record)) {
            columns.widen(&cells);
        }
    }

    fn show(&mut self, record: &[u8]) -> Result<(), Failure> {
        let Some(columns) = &mut self.columns else { return write(&[record, b"\n"].concat()) };
        if !std::mem::replace(&mut self.has_head, true) {
            write(columns.line(&HEAD.map(str::to_owned)).as_bytes())?;
        }
        match cells(record) {
            Some(cells) => write(columns.line(&cells).as_bytes()),
            None => write(format!("not a record: {}\n", plain(&String::from_utf8_lossy(record))).as_bytes()),
        }
    }
}

/// None for what is not a record.
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

/// What went wrong with the call, and what became of the broker since the record before.
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
/// Of what is usual; wider cells widen their column.
const WIDTHS: [usize; 8] = [20, 8, 14, 15, 12, 5, 36, 0];
/// As fast as people look.
const PAUSE: Duration = Duration::from_millis(100);

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
}
