//! One log file: is it what its digest says?

use super::checker::{Checker, Span};
use super::finding::{FindingKind, Place};
use super::ids;
use crate::digest::{ChainSpan, LogFile, sha256_hex};

/// Checks one log file where it may take its time.
pub(super) async fn off_the_loop(mut checker: Checker, entry: LogFile, text: Vec<u8>) -> Checker {
    let work = tokio::task::spawn_blocking(move || {
        check_log_file(&mut checker, &entry, &text);
        checker
    });
    resumed(work.await)
}

/// What work on another thread has made.
pub(super) fn resumed<T>(done: Result<T, tokio::task::JoinError>) -> T {
    // Nothing aborts the work: if it ended otherwise, it panicked, and so does this.
    done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

fn check_log_file(checker: &mut Checker, entry: &LogFile, json: &[u8]) {
    let place = || Place::object(&entry.s3_object);
    if sha256_hex(json) != entry.hash_value {
        let words = "its hash is not the one in its digest: it was changed after it was delivered";
        checker.findings.unsound(FindingKind::LogFileHash, place(), words);
    }
    let links = entry.journal_chain.as_ref().and_then(ChainSpan::links);
    let (before, stated_end) = links.unzip();
    let Span { times, has_malformed, end } = checker.log_file(&entry.s3_object, json, before);
    if end != stated_end && !has_malformed {
        let words = "its records are not those whose place in the journal's chain its digest says";
        checker.findings.unsound(FindingKind::LogFileChain, place(), words);
    }
    let stated = ids::seconds(&entry.oldest_event_time).zip(ids::seconds(&entry.newest_event_time));
    if times != stated && !has_malformed {
        let words = "the oldest or the newest of its records is of another time than its digest says";
        checker.findings.unsound(FindingKind::LogFileTimes, place(), words);
    }
}
