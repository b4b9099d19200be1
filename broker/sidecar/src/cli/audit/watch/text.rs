//! The report as text.

use std::fmt::Write as _;

use key_broker_trail::record::record_time;

use super::super::output::{Columns, plain};
use super::report::{Report, Standing, Told, ToldKey, Untold, Verdict};

pub(super) fn of(report: &Report) -> String {
    let mut text = table(report);
    for alarm in &report.alarms {
        let _ = writeln!(text, "\nALARM: no broker has a record of this use: {}", use_of(alarm));
        let event = alarm.seen.cloudtrail_event_id.as_deref().unwrap_or("that KMS does not name");
        let _ = writeln!(
            text,
            "  look for event {} in AWS CloudTrail, of {}, and for brokers whose trails are not here;\n  \
             once somebody has: --acknowledge {}",
            plain(event),
            region_of(&alarm.key),
            plain(&alarm.seen.request_id)
        );
    }
    for Untold { told, reasons } in &report.untold {
        let _ = writeln!(text, "\nCANNOT TELL whose this use is: {}", use_of(told));
        for reason in reasons {
            let _ = writeln!(text, "  {}", plain(&reason.to_string()));
        }
    }
    let _ = writeln!(text, "\n{}", verdict(report));
    text
}

fn table(report: &Report) -> String {
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    let mut keys: Vec<(&String, &ToldKey)> = report.keys.iter().collect();
    keys.sort_by_key(|(name, key)| (key.standing, *name));
    rows.extend(keys.iter().take(MOST_SHOWN).map(|(name, key)| {
        let last = key.last_use.as_ref();
        vec![
            plain(name),
            last.map_or_else(|| "-".to_owned(), |seen| record_time(seen.at)),
            plain(last.map_or("-", |seen| &*seen.operation)),
            match &key.why {
                Some(why) => format!("CANNOT TELL: {}", plain(why)),
                None => words(key.standing).to_owned(),
            },
        ]
    }));
    let mut text = Columns::table(&rows, usize::MAX);
    if keys.len() > MOST_SHOWN {
        let _ = writeln!(text, "… and {} more: --json has them all", keys.len() - MOST_SHOWN);
    }
    text
}

fn verdict(report: &Report) -> String {
    let count = |standing| report.count(standing);
    match report.verdict {
        Verdict::Alarm => format!("ALARM: no broker has a record of {} uses of keys", report.alarms.len()),
        Verdict::CannotTell => format!(
            "cannot tell: {} uses, and {} keys that KMS says nothing about",
            report.untold.len(),
            count(Standing::NotTold)
        ),
        Verdict::Quiet => format!(
            "no alarm: the last uses of {} keys are the brokers' own or from before; {} wait for the trails, {} are hidden by dry runs",
            count(Standing::Explained) + count(Standing::Before) + count(Standing::Unused),
            count(Standing::Waiting),
            count(Standing::Blind)
        ),
    }
}

fn use_of(Told { key, seen }: &Told) -> String {
    format!(
        "{} under {} at {}, KMS requestID {}",
        plain(&seen.operation),
        plain(key),
        record_time(seen.at),
        plain(&seen.request_id)
    )
}

fn region_of(key: &str) -> String {
    plain(key.split(':').nth(3).filter(|region| !region.is_empty()).unwrap_or("the key's region"))
}

fn words(standing: Standing) -> &'static str {
    match standing {
        Standing::Alarm => "ALARM",
        Standing::CannotTell | Standing::NotTold => "CANNOT TELL",
        Standing::Waiting => "waits for the trails' next digests",
        Standing::Blind => "blind: a broker's dry run, which this KMS counts",
        Standing::Explained => "a broker's",
        Standing::Before => "from before the watch",
        Standing::Unused => "never used",
        Standing::Shared => "shared: not watched",
        Standing::OfAnotherAccount => "not watched: the key belongs to another account, run it there",
        Standing::Gone => "gone",
    }
}

const HEAD: [&str; 4] = ["KEY", "LAST USE", "OPERATION", "WHOSE"];
/// More would hide what matters from people.
const MOST_SHOWN: usize = 50;
