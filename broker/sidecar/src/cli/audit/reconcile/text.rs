//! What came of the join, for people.

use std::fmt::Write as _;

use key_broker_trail::record::record_time;

use super::super::output::{Columns, plain};
use super::call::ListedCall;
use super::classes::Classes;
use super::outcome::{Match, Reconciliation};
use super::takings::{ListedTaking, Verdict};

pub(super) fn of(outcome: &Reconciliation) -> String {
    let mut text = String::new();
    if let Some(range) = outcome.range {
        let _ = writeln!(text, "Compared from {} to {}.", record_time(range.from), record_time(range.to));
    }
    let _ = writeln!(text, "{:>8}  calls have both records", outcome.matched);
    for (count, what) in [
        (outcome.by_readers, "calls of readers of this trail, by their own records: not the broker's"),
        (outcome.siblings.expected, "calls that other trails have which are expected"),
        (outcome.named_by_digests, "calls that the trail's last digests and log files took, which name them"),
        (outcome.by_services, "calls that S3 made to store this trail: AWS's alone, as they should be"),
        (outcome.too_new, "calls with one record are too new to tell: the other may be on its way"),
        (outcome.outside, "calls of the trail are outside the time of AWS's files: not compared"),
        (
            outcome.outside_the_trail,
            "calls of the broker's identity are outside the trail's time: nobody can tell whose they are",
        ),
        (outcome.classes.own, "records are the trail's own, not AWS's: left out"),
        (outcome.classes.summaries, "insights and aggregated events: of no single call"),
        (outcome.classes.network_activity, "network activity events of calls that are counted already"),
        (
            outcome.classes.dry_runs,
            "dry runs with the broker's identity, as `key-broker check` makes: KMS did nothing",
        ),
    ] {
        if count > 0 {
            let _ = writeln!(text, "{count:>8}  {what}");
        }
    }
    for (trail, count) in &outcome.siblings.unexpected {
        let _ = writeln!(text, "{count:>8}  calls that trail {} has, which is not expected", plain(trail));
    }
    add_classes(&mut text, &outcome.classes);
    add_calls(&mut text, "The trail has these calls, AWS's files have not:", &outcome.missing_from_aws);
    add_calls(
        &mut text,
        "AWS has these calls of the broker's identity, the trail has not: somebody else used its credentials, or KMS's\n\
         answer never reached it (an activity record of that time has the error then):",
        &outcome.missing_from_trail,
    );
    add_whose(&mut text, outcome);
    add_differences(&mut text, outcome);
    add_takings(&mut text, &outcome.takings.takings);
    let verdict = match outcome.verdict {
        Match::Matched => {
            "matched: every call that can be told of has both records, and they agree".to_owned()
        }
        Match::Unmatched => format!(
            "NOT MATCHED: missing from AWS's files: {}, missing from the trail: {}, differences: {}, keys that were served too long: {}",
            outcome.missing_from_aws.len(),
            outcome.missing_from_trail.len(),
            outcome.differences.len(),
            outcome.takings.count(Verdict::Late)
        ),
        Match::CannotTell => {
            format!("cannot tell: {}", outcome.why.as_deref().unwrap_or("nothing to compare"))
        }
    };
    let _ = writeln!(text, "\n{verdict}");
    text
}

/// Whose the calls may be that the trail has not.
fn add_whose(text: &mut String, outcome: &Reconciliation) {
    if outcome.maybe_of_readers > 0 {
        let _ = writeln!(
            text,
            "Reading this trail takes such calls as {} of these. If an auditor made them, name the auditor's records of them with\n\
             --reader-records FILE: `key-broker audit` has them where --record-to told, else in\n\
             ~/.local/state/key-broker/reader-records.jsonl.",
            outcome.maybe_of_readers
        );
    }
    if !outcome.siblings.unverified.is_empty() {
        let _ = writeln!(
            text,
            "Of these trails here not all can be believed with the keys that were given: {}. If they are your brokers', and\n\
             the calls may be theirs, name them with --expect and give their keys with --public-key.",
            plain(&outcome.siblings.unverified.join(", "))
        );
    }
}

fn add_calls(text: &mut String, what: &str, calls: &[ListedCall]) {
    if calls.is_empty() {
        return;
    }
    let mut rows = vec![CALL_HEAD.map(str::to_owned).to_vec()];
    rows.extend(calls.iter().take(MOST_SHOWN).map(|call| {
        let cell = |text: &Option<String>| plain(text.as_deref().unwrap_or("-"));
        vec![
            record_time(call.event_time),
            plain(&call.event_name),
            plain(&call.request_id),
            cell(&call.key).rsplit(':').next().unwrap_or_default().to_owned(),
            cell(&call.source_ip_address),
            cell(&call.access_key_id),
            cell(&call.user_agent),
        ]
    }));
    let _ = writeln!(text, "\n{what}\n{}", Columns::table(&rows, usize::MAX).trim_end());
    add_rest(text, calls.len());
}

/// What decides nothing, and is good to know.
fn add_classes(text: &mut String, classes: &Classes) {
    if !classes.refused.is_empty() {
        let _ = writeln!(text, "\nRefused calls that the trail has no record of; nothing was done:");
        for (error, count) in &classes.refused {
            let _ = writeln!(text, "{count:>8}  {}", plain(error));
        }
    }
    if !classes.by_others.is_empty() {
        let _ = writeln!(text, "\nCalls of others under the trail's keys:");
    }
    for (who, operations) in &classes.by_others {
        for (operation, count) in operations {
            let _ = writeln!(text, "{count:>8}  {}  {}", plain(operation), plain(who));
        }
    }
    if !classes.refused.is_empty() || !classes.by_others.is_empty() {
        text.push('\n');
    }
}

fn add_differences(text: &mut String, outcome: &Reconciliation) {
    if outcome.differences.is_empty() {
        return;
    }
    let _ = writeln!(text, "\nThe two records of these calls differ:");
    for difference in outcome.differences.iter().take(MOST_SHOWN) {
        let value = |text: &Option<String>| plain(text.as_deref().unwrap_or("nothing"));
        let _ = writeln!(
            text,
            "{}  {}  {}  {}\n    trail  {}\n    AWS    {}",
            record_time(difference.event_time),
            plain(&difference.event_name),
            plain(&difference.request_id),
            difference.field,
            value(&difference.ours),
            value(&difference.aws),
        );
    }
    add_rest(text, outcome.differences.len());
}

/// What was taken away, and how long it was served.
fn add_takings(text: &mut String, takings: &[ListedTaking]) {
    if takings.is_empty() {
        return;
    }
    let mut rows = vec![TAKING_HEAD.map(str::to_owned).to_vec()];
    // What decides comes first.
    let mut shown: Vec<&ListedTaking> = takings.iter().collect();
    shown.sort_by_key(|taking| std::cmp::Reverse(taking.verdict));
    rows.extend(shown.iter().take(MOST_SHOWN).map(|taking| {
        let last = taking.last_use.as_ref();
        vec![
            record_time(taking.event_time),
            plain(&taking.event_name),
            plain(taking.key.as_deref().and_then(|key| key.rsplit(':').next()).unwrap_or("-")),
            last.map_or_else(|| "-".to_owned(), |last| record_time(last.event_time)),
            taking.served_for_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds} s")),
            match (taking.verdict, taking.why) {
                (Verdict::Held, _) => "held".to_owned(),
                (Verdict::Late, _) => format!("LATE: {} uses beyond the promise", taking.late_uses),
                (Verdict::CannotTell, why) => format!("CANNOT TELL: {}", why.unwrap_or_default()),
            },
        ]
    }));
    let _ = writeln!(
        text,
        "\nWhat was taken away, and the last use that the broker served after it (of grants, policies and roles: that rests on an answer\n\
         of KMS from before):\n{}",
        Columns::table(&rows, usize::MAX).trim_end()
    );
    add_rest(text, takings.len());
}

fn add_rest(text: &mut String, all: usize) {
    if all > MOST_SHOWN {
        let _ = writeln!(text, "… and {} more: --json has them all", all - MOST_SHOWN);
    }
}

const CALL_HEAD: [&str; 7] =
    ["TIME", "ACTION", "KMS REQUEST ID", "KEY", "FROM ADDRESS", "ACCESS KEY", "USER AGENT"];
const TAKING_HEAD: [&str; 6] = ["TIME", "EVENT", "KEY", "LAST USE", "AFTER", "PROMISE"];
/// More would hide the verdict from people.
const MOST_SHOWN: usize = 50;
