//! The outcome as text.

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
        (outcome.by_readers, "calls of readers of this trail, according to their own records"),
        (outcome.siblings.expected, "calls that expected other trails have"),
        (outcome.named_by_digests, "calls for the trail's last digests and log files, which name them"),
        (outcome.by_services, "calls that S3 made to store this trail: only AWS has them, as it should be"),
        (outcome.too_new, "calls with one record are too new: the other may be in transit"),
        (outcome.outside, "calls of the trail are outside the time of AWS's files: not compared"),
        (
            outcome.outside_the_trail,
            "calls of the broker's identity are outside the trail's time: it is not known whose they are",
        ),
        (outcome.classes.own, "records are the trail's own, not AWS's: left out"),
        (outcome.classes.summaries, "insights and aggregated events: not single calls"),
        (outcome.classes.network_activity, "network activity events of calls that are already counted"),
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
        let _ = writeln!(text, "{count:>8}  calls that trail {} has, which was not expected", plain(trail));
    }
    add_classes(&mut text, &outcome.classes);
    add_calls(&mut text, "Only the trail has these calls, not AWS's files:", &outcome.missing_from_aws);
    add_calls(
        &mut text,
        "Only AWS has these calls of the broker's identity: somebody else used its credentials, or KMS's answer never\n\
         reached it (then an activity record of that time has the error):",
        &outcome.missing_from_trail,
    );
    add_unread(&mut text, outcome);
    if outcome.maybe_of_readers > 0 {
        let _ = writeln!(
            text,
            "{} of these could be from reading this trail. If an auditor made them, give the auditor's records of them with\n\
             --reader-records FILE: `key-broker audit` has them where --record-to told, else in\n\
             ~/.local/state/key-broker/reader-records.jsonl.",
            outcome.maybe_of_readers
        );
    }
    add_differences(&mut text, outcome);
    add_takings(&mut text, &outcome.takings.takings);
    let verdict = match outcome.verdict {
        Match::Matched => {
            "matched: every call that can be judged has both records, and they agree".to_owned()
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

/// What may be where the trail could not be read.
fn add_unread(text: &mut String, outcome: &Reconciliation) {
    add_calls(
        text,
        "Only AWS has these calls, of times of which a part of the trail could not be read: their records may be there:",
        &outcome.unread,
    );
    if outcome.left_out > 0 {
        let _ = writeln!(
            text,
            "\n{} of the trail's objects were left out, because nobody vouches for them, they were altered or they could not be read: a\n\
             call that seems to be missing from the trail may be in one. `key-broker audit verify` names them.",
            outcome.left_out
        );
    }
}

/// What decides nothing, and is good to know.
fn add_classes(text: &mut String, classes: &Classes) {
    if !classes.refused.is_empty() {
        let _ = writeln!(text, "\nRefused calls without a record in the trail; KMS did nothing:");
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
        "\nWhat was taken away, and the last use that the broker served afterwards (for grants, policies and roles: one that rests on an\n\
         earlier answer of KMS):\n{}",
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
