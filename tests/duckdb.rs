//! Proves: deploy/duckdb's files are what deploy/duckdb/generate makes of Athena's; and what docs/audit.md shows for DuckDB's command line works as
//! it is pasted, over a directory, over S3, and beside AWS's own records.

mod peers;
#[path = "support/sql.rs"]
mod sql;
mod support;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use peers::{Moto, Peers, printed, root};
use serde_json::{Value, json};
use sql::{ask, bucket, vouched_for};
use tempfile::TempDir;

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn duckdbs_files_are_made_of_athenas() {
    let peers = Peers::install(&["duckdb"]);
    let made = tempfile::tempdir().expect("a directory");
    let generate = root().join("deploy/duckdb/generate");
    printed(peers.command("duckdb/bin/python").arg(generate).arg(made.path()));
    for file in ["views.sql", "cloudtrail.sql"] {
        let made = fs::read_to_string(made.path().join(file)).expect("is made");
        let kept = fs::read_to_string(root().join("deploy/duckdb").join(file)).expect("is kept");
        assert_eq!(kept, made, "run deploy/duckdb/generate");
    }
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn a_directory_is_read_as_the_page_shows() {
    let copy = vouched_for();
    let clone = clone();
    fs::create_dir(clone.path().join("trail")).expect("makes");
    symlink(bucket(&copy), clone.path().join("trail/my-trail")).expect("links");
    let mut said = paste(&clone, &blocks()[0]);
    said.sort_unstable();
    let question = "SELECT principal, served_from, count(*) FROM key_broker_uses GROUP BY ALL ORDER BY ALL";
    assert_eq!(said, lines(&ask(&copy, &[question])[0]));
    assert!(said.len() > 1, "{said:?}");
}

/// In the words of DuckDB's plans.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn files_of_other_days_are_not_read() {
    let copy = vouched_for();
    let none = format!("Scanning Files: 0/{}", copy.log_files().len());
    for day in ["= '2026/03/02'", "BETWEEN '2026/02/01' AND '2026/02/28'"] {
        let plan = ask(&copy, &[&format!("EXPLAIN SELECT count(*) FROM key_broker_uses WHERE day {day}")]);
        assert!(plan[0].to_string().contains(&none), "{day}: {}", plan[0]);
    }
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn a_bucket_is_read_as_the_page_shows_beside_awss_own() {
    let copy = vouched_for();
    let clone = clone();
    let peers = Peers::install(&["moto"]);
    let moto = Moto::start(&peers, clone.path());
    let upload = |bucket: &str, from: &Path| {
        let mut command = peers.command("moto/bin/python");
        let script = root().join("tests/peers/moto/upload.py");
        printed(command.arg(script).arg(&moto.endpoint).arg(bucket).arg(from));
    };
    upload("logs", &bucket(&copy));
    // To AWS, another of the broker's credentials asked for a key, and nothing else is known yet.
    let key = copy.log_files().into_iter().next().expect("a log file");
    let log_file: Value = serde_json::from_slice(&copy.log_file(&key)).expect("JSON");
    let records = log_file["Records"].as_array().expect("records").iter();
    let mut thief =
        records.clone().find(|record| record["eventCategory"] == "Management").expect("one").clone();
    thief["requestID"] = "b0000000-0000-4000-8000-000000000001".into();
    let awss = clone.path().join("awss");
    let folder = awss.join("AWSLogs/111122223333/CloudTrail/us-west-2/2026/03/01");
    fs::create_dir_all(&folder).expect("makes");
    fs::write(folder.join("one.json"), json!({ "Records": [thief] }).to_string()).expect("writes");
    printed(peers::plain("gzip").arg(folder.join("one.json")));
    upload("aws-logs", &awss);

    let (_, address) = moto.endpoint.split_once("//").expect("an address");
    let secret = "CREATE SECRET (TYPE s3, PROVIDER credential_chain";
    let here = format!("{secret}, ENDPOINT '{address}', URL_STYLE 'path', USE_SSL false");
    let [_, s3, beside] = blocks();
    assert!(s3.contains(secret), "{s3}");
    let count = "SELECT count(*) FROM key_broker_trail;\n";
    let text = s3.replace(secret, &here).replace("s3://BUCKET/", "s3://logs/");
    let beside = beside.replace("s3://AWS-BUCKET/", "s3://aws-logs/");
    let said = paste(&clone, &format!("{text}{count}{beside}"));
    let wanted = ask(&copy, &[count]);
    // That the secret was made, the records, the one call.
    assert_eq!((said.len(), said[0].as_str()), (3, "true"), "{said:?}");
    assert_eq!(said[1], lines(&wanted[0])[0]);
    assert!(said[2].contains("b0000000-0000-4000-8000-000000000001"), "{said:?}");
}

/// What is shown, in order: over a directory, over S3, beside AWS's own.
fn blocks() -> [String; 3] {
    let page = fs::read_to_string(root().join("docs/audit.md")).expect("the page");
    let (_, section) = page.split_once("\n## DuckDB\n").expect("the section");
    let (section, _) = section.split_once("\n## ").expect("its end");
    let blocks =
        section.split("```sql\n").skip(1).map(|rest| rest.split_once("```").expect("its end").0.to_owned());
    // The day on which the trail of the tests is.
    let blocks =
        blocks.map(|block| block.replace("2026/11/25", "2026/03/01").replace("2026/11/", "2026/03/"));
    blocks.collect::<Vec<_>>().try_into().expect("three blocks")
}

/// A directory like a clone, with DuckDB's files.
fn clone() -> TempDir {
    let clone = tempfile::tempdir().expect("a directory");
    symlink(root().join("deploy"), clone.path().join("deploy")).expect("links");
    clone
}

/// What DuckDB's command line prints: a line for each row.
fn paste(clone: &TempDir, block: &str) -> Vec<String> {
    let peers = Peers::install(&["duckdb-cli"]);
    let mut duckdb = peers.command("duckdb-cli/bin/duckdb");
    duckdb
        .args(["-bail", "-csv", "-noheader"])
        .current_dir(clone.path())
        .env("HOME", peers.path("duckdb-cli/home"));
    duckdb.env("AWS_ACCESS_KEY_ID", "AKIATESTEXAMPLE00000").env("AWS_SECRET_ACCESS_KEY", "test-only");
    duckdb.env("AWS_REGION", "us-west-2").env("AWS_EC2_METADATA_DISABLED", "true");
    duckdb.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = duckdb.spawn().expect("starts");
    child.stdin.take().expect("piped").write_all(block.as_bytes()).expect("reads");
    let output = child.wait_with_output().expect("ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{block}\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said.lines().map(str::to_owned).collect()
}

/// The same of rows that were asked for otherwise.
fn lines(rows: &Value) -> Vec<String> {
    let texts = |row: &Value| -> Vec<String> {
        let values = row.as_array().expect("a row").iter();
        values.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect()
    };
    let rows = rows.as_array().expect("rows").iter();
    rows.map(|row| texts(row).join(",")).collect()
}
