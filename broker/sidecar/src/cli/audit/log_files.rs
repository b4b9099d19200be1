//! The log files of a trail in their order, and the records in them.

use std::collections::HashSet;

use key_broker_trail::{Digest, LogFileText, ReadFailure, TrailReader, records};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Failure;
use super::output::note;
use super::period::Period;
use super::progress::Progress;
use super::source::Source;

/// The keys of the log files that can have records of this time: those of the trail's digests, and after them those that no
/// digest names yet.
pub(super) async fn keys(reader: &TrailReader, period: &Period) -> Result<Vec<String>, Failure> {
    let digests = reader.digest_keys().await.map_err(|error| Failure::Unavailable(error.to_string()))?;
    let (mut keys, mut named) = (Vec::new(), HashSet::new());
    for digest in digests.own.iter().filter(|digest| period.since.is_none_or(|since| digest.end >= since)) {
        let Some(digest) = read_digest(reader, &digest.key).await? else { continue };
        for file in digest.log_files {
            if may_hold(&file.oldest_event_time, &file.newest_event_time, period) {
                keys.push(file.s3_object.clone());
            }
            named.insert(file.s3_object);
        }
    }
    let all = reader.log_file_keys().await.map_err(|error| Failure::Unavailable(error.to_string()))?;
    let since_minute =
        period.since.and_then(|since| since.replace_second(0).ok()?.replace_nanosecond(0).ok());
    let is_late = |key: &str| match (since_minute, reader.names().log_file_minute(key)) {
        (Some(since), Some(closed)) => closed >= since,
        _ => true,
    };
    let mut unnamed: Vec<String> =
        all.into_iter().filter(|key| !named.contains(key) && is_late(key)).collect();
    if unnamed.is_empty() || digests.others.is_empty() {
        keys.append(&mut unnamed);
        return Ok(keys);
    }
    for key in &digests.others {
        if let Some(digest) = read_digest(reader, key).await? {
            named.extend(digest.log_files.into_iter().map(|file| file.s3_object));
        }
    }
    unnamed.retain(|key| !named.contains(key));
    if !unnamed.is_empty() {
        note(format_args!(
            "{} log files are in no digest yet, and other trails deliver here, too: left out; `key-broker audit cat KEY` shows one",
            unnamed.len()
        ));
    }
    Ok(keys)
}

/// Reads one log file.
pub(super) async fn read(reader: &TrailReader, key: &str) -> Result<LogFileText, Failure> {
    match reader.log_file(key).await {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(Failure::Unavailable(format!(
            "{key}: not in the store: `key-broker audit verify` tells more"
        ))),
        Err(failure @ ReadFailure::Malformed(_)) => Err(Failure::Unavailable(format!(
            "{key}: {failure}: it was altered since it was delivered; `key-broker audit verify` tells more"
        ))),
        Err(failure) => Err(Failure::Unavailable(format!("{key}: {failure}"))),
    }
}

/// Gives every record of this time to `take`.
pub(super) async fn for_each_record(
    source: &Source,
    period: &Period,
    mut take: impl FnMut(&str) -> Result<(), String>,
) -> Result<(), Failure> {
    let keys = keys(&source.reader, period).await?;
    let mut progress = Progress::new();
    let all = keys.len();
    for (done, key) in keys.into_iter().enumerate() {
        progress.tell(|| format!("{done} of {all} log files"));
        let text = read(&source.reader, &key).await?;
        for record in records(&text.json) {
            let taken = record.map_err(|malformed| malformed.to_string()).and_then(&mut take);
            taken.map_err(|why| {
                Failure::Unavailable(format!("{key}: {why}: `key-broker audit verify` tells more"))
            })?;
        }
    }
    Ok(())
}

async fn read_digest(reader: &TrailReader, key: &str) -> Result<Option<Digest>, Failure> {
    match reader.digest(key).await {
        Ok(digest) => Ok(digest),
        Err(ReadFailure::Malformed(why)) => {
            note(format_args!("{key}: {why}: passed over; `key-broker audit verify` tells more"));
            Ok(None)
        }
        Err(failure) => Err(Failure::Unavailable(format!("{key}: {failure}"))),
    }
}

fn may_hold(oldest: &str, newest: &str, period: &Period) -> bool {
    let moment = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    let starts_before_end = match (moment(oldest), period.until) {
        (Some(oldest), Some(until)) => oldest < until,
        _ => true,
    };
    let ends_after_start = match (moment(newest), period.since) {
        (Some(newest), Some(since)) => newest >= since,
        _ => true,
    };
    starts_before_end && ends_after_start
}
