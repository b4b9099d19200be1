//! Questions in SQL about a delivered trail, to deploy/duckdb's views.
#![allow(dead_code, unreachable_pub, reason = "every test file uses another part of this one")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::peers::{Peers, printed, root};
use super::support::tampered::{Copy, plain};
use super::support::timed::BUCKET;

/// A trail without what waits for its digest: nobody vouches for that yet, and SQL has it all the same.
pub fn vouched_for() -> Copy {
    let copy = plain().copy();
    let digests = (0..copy.digests().len()).flat_map(|place| copy.digest(place).log_files);
    let named: BTreeSet<String> = digests.map(|file| file.s3_object).collect();
    for key in copy.log_files().into_iter().filter(|key| !named.contains(key)) {
        fs::remove_file(copy.path(&key)).expect("removes");
    }
    copy
}

/// Where its bucket is.
pub fn bucket(copy: &Copy) -> PathBuf {
    copy.dir.path().join("store").join(BUCKET)
}

/// The rows of each query.
pub fn ask(copy: &Copy, queries: &[&str]) -> Vec<Value> {
    ask_with(copy, &[], queries)
}

/// The same, beside a file of AWS's own.
pub fn ask_beside(copy: &Copy, aws: &Path, queries: &[&str]) -> Vec<Value> {
    ask_with(copy, &[OsStr::new("--cloudtrail"), aws.as_os_str()], queries)
}

fn ask_with(copy: &Copy, more: &[&OsStr], queries: &[&str]) -> Vec<Value> {
    let peers = Peers::install(&["duckdb"]);
    let folder = bucket(copy).join("AWSLogs/111122223333/CloudTrail");
    let mut command = peers.command("duckdb/bin/python");
    command.arg(root().join("tests/judges/views-on-duckdb")).args(more);
    printed(command.arg(folder).args(queries))
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}
