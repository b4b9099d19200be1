//! Pushes a run's results to a collector as metrics.

use opentelemetry::KeyValue;

use super::report::{Report, Standing};
use crate::telemetry::export::push_once;
use crate::telemetry::metrics::names::{
    KMS_OPERATION, Metric, WATCH_ALARM, WATCH_EVENT, WATCH_KEYS, WATCH_STANDING,
};

/// Pushes it if the environment configures a collector. Errors are text for the user.
pub(super) async fn ring(report: &Report) -> Result<(), String> {
    let counts: Vec<(&'static str, u64)> =
        STANDINGS.iter().map(|(standing, name)| (*name, report.count(*standing))).collect();
    let alarms: Vec<(i64, [KeyValue; 2])> = report
        .alarms
        .iter()
        .map(|alarm| {
            let event = alarm.seen.cloudtrail_event_id.clone().unwrap_or_default();
            let attributes = [
                KeyValue::new(KMS_OPERATION, alarm.seen.operation.clone()),
                KeyValue::new(WATCH_EVENT, event),
            ];
            (alarm.seen.at.unix_timestamp(), attributes)
        })
        .collect();
    let pushed = tokio::task::spawn_blocking(move || {
        push_once("key-broker-audit-watch", |meter| {
            let Metric { name, words, unit } = WATCH_KEYS;
            let keys = meter.u64_gauge(name).with_description(words).with_unit(unit).build();
            for (standing, count) in counts {
                keys.record(count, &[KeyValue::new(WATCH_STANDING, standing)]);
            }
            let Metric { name, words, unit } = WATCH_ALARM;
            let times = meter.i64_gauge(name).with_description(words).with_unit(unit).build();
            for (at, attributes) in alarms {
                times.record(at, &attributes);
            }
        })
    });
    pushed.await.unwrap_or_else(|_| Err("the work was cut off".to_owned()))
}

/// As the registry has them.
const STANDINGS: [(Standing, &str); 11] = [
    (Standing::Alarm, "alarm"),
    (Standing::CannotTell, "cannot_tell"),
    (Standing::NotTold, "not_told"),
    (Standing::Waiting, "waiting"),
    (Standing::Blind, "blind"),
    (Standing::Explained, "explained"),
    (Standing::Before, "before"),
    (Standing::Unused, "unused"),
    (Standing::Shared, "shared"),
    (Standing::OfAnotherAccount, "of_another_account"),
    (Standing::Gone, "gone"),
];
