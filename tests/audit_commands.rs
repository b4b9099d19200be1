//! Proves: `key-broker audit` follows, prints, counts and joins the trail of a real broker, while it runs and after it has
//! stopped, and its exit codes and words are what people can rely on.

#[path = "support/audit_snapshot.rs"]
mod audit_snapshot;
mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use kms_emulator::{Emulator, EmulatorConfig};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::dev_folder::{Folder, run, stdout_json, stop, text};
use support::formats::compress;
use support::process::Process;

#[test]
fn help_teaches() {
    for (name, arguments) in [
        ("help", &["audit", "--help"][..]),
        ("help_find", &["audit", "find", "--help"]),
        ("help_tail", &["audit", "tail", "--help"]),
        ("help_cat", &["audit", "cat", "--help"]),
        ("help_verify", &["audit", "verify", "--help"]),
        ("help_verify_short", &["audit", "verify", "-h"]),
        ("help_reconcile", &["audit", "reconcile", "--help"]),
        ("help_watch", &["audit", "watch", "--help"]),
        ("help_cost", &["audit", "cost", "--help"]),
        ("help_public_key", &["audit", "public-key", "--help"]),
    ] {
        let output = run(arguments);
        assert!(output.status.success());
        insta::assert_snapshot!(name, text(&output.stdout));
    }
}

#[test]
fn tail_shows_the_newest_records_and_follows_the_broker_over_its_restart() {
    let folder = Folder::copy();
    let dev = Process::dev(folder.path());
    folder.call(&["generate-data-key", "--key-id", "alias/none"]);
    let newest = folder.audit("tail", &["--no-follow", "--lines", "2"]);
    assert!(newest.status.success());
    snapshot("tail", &text(&newest.stdout));
    let newest = folder.audit("tail", &["--no-follow", "-n", "1", "--json"]);
    let record: Value = serde_json::from_slice(&newest.stdout).expect("a record");
    assert_eq!(record["errorCode"], "NotFoundException");

    let tail = Tail::of(folder.follow(&["-f", "--json", "--all"]));
    let calls = Tail::of(folder.follow(&["-f", "--json"]));
    folder.call(&["generate-random"]);
    tail.until("GenerateRandom");
    assert_eq!(tail.next_name(), "GenerateRandom", "KMS's record and the workload's");
    folder.call(&["generate-data-key", "--key-id", "alias/dev"]);
    calls.until("GenerateRandom");
    assert_eq!(calls.next_name(), "GenerateDataKey", "without --all those of workloads alone");
    assert_eq!(calls.end_with(Signal::TERM), Some(0));
    stop(dev);
    let dev = Process::dev(folder.path());
    folder.call(&["describe-key", "--key-id", "alias/dev"]);
    tail.until("DescribeKey");
    assert_eq!(tail.end_with(Signal::INT), Some(0), "Ctrl-C is its end");
    stop(dev);
}

#[test]
fn tail_ends_well_when_nobody_reads_any_more() {
    let folder = Folder::copy();
    let dev = Process::dev(folder.path());
    let mut child = folder.follow(&[]);
    drop(child.stdout.take());
    folder.call(&["generate-random"]);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    stop(dev);
}

#[test]
fn cat_decrypts_and_its_decrypts_are_recorded_for_the_reader_alone() {
    let folder = Folder::copy();
    let whole = folder.audit("cat", &[]);
    assert_eq!((whole.status.code(), text(&whole.stderr).as_str()), (Some(0), ""));
    let document: Value = serde_json::from_slice(&whole.stdout).expect("one document");
    let records = document["Records"].as_array().expect("records");
    assert!(records.len() >= 10);
    let recorded = folder.reader_records();
    assert!(recorded.iter().all(|record| record["userIdentity"]["invokedBy"] == "key-broker"));
    let mut names: Vec<_> =
        recorded.iter().map(|record| record["eventName"].as_str().expect("a name")).collect();
    assert_eq!(names.remove(0), "GetPublicKey", "what digests are checked with");
    assert_eq!(names, vec!["Decrypt"; folder.log_files().len()], "one for each log file");

    let lines = folder.audit("cat", &["--records"]);
    let lines: Vec<Value> =
        text(&lines.stdout).lines().map(|line| serde_json::from_str(line).expect("a record")).collect();
    assert_eq!(&lines, records);
    let path = folder.log_files().remove(0);
    let one = folder.audit("cat", &[path.to_str().expect("a path")]);
    assert!(text(&one.stdout).starts_with("{\"Records\":[{\"eventVersion\":\"1.11\""));
    let today = folder.audit("cat", &["--records", "--since", "2020-01-01"]);
    assert_eq!(text(&today.stdout).lines().count(), records.len());
    let before = folder.audit("cat", &["--until", "2020-01-01"]);
    assert_eq!(text(&before.stdout), "{\"Records\":[]}\n");
}

#[test]
fn cat_shows_what_it_can_and_says_what_it_cannot() {
    let folder = Folder::copy();
    let file = folder.log_files().remove(0);
    let mut bytes = fs::read(&file).expect("a log file");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, bytes).expect("writes");
    let output = folder.audit("cat", &[]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("altered since it was delivered") && said.contains("left out"), "{said}");
    assert!(serde_json::from_slice::<Value>(&output.stdout).is_ok(), "the document is whole all the same");
    let none = folder.audit("cat", &["AWSLogs/none.json.gz"]);
    assert_eq!((none.status.code(), text(&none.stdout).as_str()), (Some(1), ""));
    assert!(text(&none.stderr).contains("not in the store"), "{}", text(&none.stderr));
}

/// Whoever has the broker's credentials can write into the store, and would hide there what else was done with them.
#[test]
fn what_somebody_put_beside_the_trail_is_not_believed() {
    let folder = Folder::copy();
    let whole = folder.audit("cat", &["--records"]);
    let of_kms =
        text(&whole.stdout).lines().find(|line| line.contains("kms.amazonaws.com")).expect("one").to_owned();
    let stolen = of_kms.replace("\"eventID\":\"", "\"eventID\":\"f");
    let genuine = folder.log_files().remove(0);
    let name = genuine.file_name().expect("a name").to_str().expect("text");
    let (front, _) = name.rsplit_once('_').expect("letters");
    let planted = genuine.with_file_name(format!("{front}_{}.json.gz", "x".repeat(16)));
    fs::write(&planted, compress(format!("{{\"Records\":[{stolen}]}}").as_bytes())).expect("writes");
    for (command, arguments) in [("cat", &["--records"][..]), ("cost", &["--json"])] {
        let output = folder.audit(command, arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command}: {said}");
        assert!(said.contains("not vouched for") && said.contains("xxxx"), "{command}: {said}");
        assert!(!text(&output.stdout).contains(&stolen));
    }
    let named = folder.audit("cat", &["--records", planted.to_str().expect("a path")]);
    assert_eq!((named.status.code(), text(&named.stdout)), (Some(0), format!("{stolen}\n")));
}

#[test]
fn swapped_times_are_a_mistake() {
    let folder = Folder::copy();
    for command in ["cat", "verify", "cost"] {
        let output = folder.audit(command, &["--since", "2026-11-22", "--until", "2026-11-20"]);
        assert_eq!(output.status.code(), Some(64), "{command}");
        assert!(text(&output.stderr).contains("are they swapped?"), "{command}: {}", text(&output.stderr));
    }
}

#[test]
fn a_trail_is_read_while_its_broker_runs_too() {
    let folder = Folder::copy();
    let dev = Process::dev(folder.path());
    let output = folder.audit("cat", &["--records"]);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    stop(dev);
    let later = folder.audit("cat", &["--records"]);
    let records = text(&later.stdout);
    assert!(
        !records.contains("\"eventName\":\"Decrypt\""),
        "what readers ask is in their own records: {records}"
    );
    assert!(!folder.reader_records().is_empty());
}

#[test]
fn verify_says_sound_while_the_broker_runs_and_after_it_has_stopped() {
    let folder = Folder::copy();
    let stopped = folder.audit("verify", &[]);
    assert_eq!((stopped.status.code(), text(&stopped.stderr).as_str()), (Some(0), ""));
    snapshot("verify_sound", &text(&stopped.stdout));
    let report = stdout_json(&folder.audit("verify", &["--json"]));
    assert_eq!((&report["verdict"], &report["findings"]), (&json!("sound"), &json!([])));
    let newest = report["newestSignature"].as_str().expect("a signature");
    assert_eq!(folder.audit("verify", &["--newest-signature", newest]).status.code(), Some(0));
    assert_eq!(folder.audit("verify", &["--since", "2020-01-01"]).status.code(), Some(0));

    let dev = Process::dev(folder.path());
    folder.call(&["generate-random"]);
    let running = folder.audit("verify", &[]);
    assert_eq!(running.status.code(), Some(0), "{}", text(&running.stdout));
    stop(dev);
    assert_eq!(folder.audit("verify", &["--newest-signature", newest]).status.code(), Some(0));
}

#[test]
fn verify_finds_what_was_done_to_a_trail() {
    let folder = Folder::copy();
    let newest = stdout_json(&folder.audit("verify", &["--json"]))["newestSignature"].clone();
    let file = folder.log_files().remove(0);
    let good = fs::read(&file).expect("a log file");
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    fs::write(&file, bad).expect("writes");
    let edited = folder.audit("verify", &[]);
    assert_eq!(edited.status.code(), Some(1));
    snapshot("verify_edited", &text(&edited.stdout));
    let json: Value = serde_json::from_slice(&folder.audit("verify", &["--json"]).stdout).expect("JSON");
    assert_eq!((&json["verdict"], &json["findings"][0]["severity"]), (&json!("unsound"), &json!("unsound")));

    fs::write(&file, good).expect("writes");
    assert_eq!(folder.audit("verify", &[]).status.code(), Some(0), "put back");
    let signature = "00".repeat(256);
    assert_eq!(folder.audit("verify", &["--newest-signature", &signature]).status.code(), Some(1));
    for digest in folder.files("CloudTrail-Digest") {
        fs::remove_file(digest).expect("removes");
    }
    let newest = newest.as_str().expect("a signature");
    let deleted = folder.audit("verify", &["--no-journal", "--newest-signature", newest]);
    assert_eq!(deleted.status.code(), Some(1), "{}", text(&deleted.stdout));
    assert_eq!(
        folder.audit("verify", &["--no-journal"]).status.code(),
        Some(2),
        "nothing vouches for anything"
    );
}

#[test]
fn verify_cannot_tell_without_the_keys() {
    let folder = Folder::copy();
    let pem = folder.path().join("signing.pem");
    fs::write(&pem, folder.audit("public-key", &[]).stdout).expect("writes");
    fs::write(folder.path().join("kms/state.json"), "").expect("writes");
    let unsigned = folder.audit("verify", &[]);
    assert_eq!(unsigned.status.code(), Some(2));
    assert!(text(&unsigned.stderr).contains("give --public-key FILE"), "{}", text(&unsigned.stderr));
    let locked = folder.audit("verify", &["--public-key", pem.to_str().expect("a path")]);
    assert_eq!(locked.status.code(), Some(2));
    snapshot("verify_locked", &text(&locked.stdout));
    fs::remove_dir_all(folder.path().join("trail")).expect("removes");
    let gone = folder.audit("verify", &["--public-key", pem.to_str().expect("a path"), "--no-journal"]);
    assert_eq!(gone.status.code(), Some(2), "{}", text(&gone.stdout));
}

#[test]
fn an_auditor_reads_a_copy_with_no_configuration() {
    let folder = Folder::copy();
    let pem = folder.path().join("signing.pem");
    fs::write(&pem, folder.audit("public-key", &[]).stdout).expect("writes");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let kms = EmulatorConfig {
        state_file: Some(folder.path().join("kms/state.json")),
        ..EmulatorConfig::default()
    };
    let kms = runtime.block_on(Emulator::start(kms)).expect("the emulator starts");
    let (store, url) = (folder.path().join("trail"), kms.endpoint_url());
    let copy = |command: &str, more: &[&str]| {
        let place =
            ["--store", store.to_str().expect("a path"), "--bucket", "key-broker-dev", "--trail", "dev"];
        let owner = ["--account", "111122223333", "--region", "us-west-2"];
        let endpoints = ["--kms-endpoint-url", &url, "--sts-endpoint-url", &url];
        folder.run(&[&["audit", command], &place[..], &owner, &endpoints, more].concat())
    };
    let verified = copy("verify", &["--public-key", pem.to_str().expect("a path")]);
    assert_eq!(verified.status.code(), Some(0), "{}{}", text(&verified.stdout), text(&verified.stderr));
    assert_eq!(copy("verify", &["--signing-key-id", "alias/dev-signing"]).status.code(), Some(0));
    let unsigned = copy("verify", &[]);
    assert_eq!(unsigned.status.code(), Some(64));
    assert!(text(&unsigned.stderr).contains("--signing-key-id"), "{}", text(&unsigned.stderr));
    let shown = copy("cat", &["--records", "--public-key", pem.to_str().expect("a path")]);
    assert_eq!((shown.status.code(), text(&shown.stderr).as_str()), (Some(0), ""));
    let unvouched = copy("cat", &["--records"]);
    assert_eq!(unvouched.status.code(), Some(64), "without a key, nobody vouches for anything");
    assert_eq!(text(&unvouched.stdout), "");
}

#[test]
fn cost_counts_what_was_made_and_saved() {
    let folder = Folder::copy();
    let people = folder.audit("cost", &[]);
    assert!(people.status.success(), "{}", text(&people.stderr));
    snapshot("cost", &in_one_order(&text(&people.stdout)));
    let json = stdout_json(&folder.audit("cost", &["--json", "--price-per-10000", "1"]));
    assert_eq!(
        (&json["total"]["workloads"], &json["total"]["saved"], &json["usdPer10000"]),
        (&json!(3), &json!(3), &json!(1.0))
    );
    let names: Vec<_> = json["rows"].as_array().expect("rows").iter().map(|row| &row["operation"]).collect();
    assert!(names.contains(&&json!("GenerateRandom")));
}

#[test]
fn cost_predicts_the_numbers_that_aws_documents() {
    let folder = Folder::copy();
    let predict = |more: &[&str]| {
        let arguments = [&["--json", "--delivery-interval-seconds", "300"], more].concat();
        stdout_json(&folder.audit("cost", &arguments))["predictedPerDay"]["dataKeys"].clone()
    };
    assert_eq!(predict(&[]), 288);
    assert_eq!(predict(&["--regions", "2"]), 576);
    assert_eq!(predict(&["--regions", "2", "--accounts", "3"]), 1_728);
}

#[test]
fn the_public_key_is_printed_and_is_the_same_from_a_file() {
    let folder = Folder::copy();
    let pem = folder.audit("public-key", &[]);
    assert!(text(&pem.stdout).starts_with("-----BEGIN RSA PUBLIC KEY-----\n"), "{}", text(&pem.stderr));
    let file = folder.path().join("signing.pem");
    fs::write(&file, &pem.stdout).expect("writes");
    let file = file.to_str().expect("a path");
    let json = stdout_json(&folder.audit("public-key", &["--json", "--public-key", file]));
    assert_eq!(json["publicKey"], text(&pem.stdout));
    assert_eq!(json["fingerprint"].as_str().map(str::len), Some(32));
}

#[test]
fn mistakes_name_the_next_step() {
    let empty = tempfile::tempdir().expect("a directory");
    let nowhere = empty.path().join("none");
    let nowhere = nowhere.to_str().expect("a path");
    let folder = Folder::copy();
    fs::remove_file(folder.path().join("kms/state.json")).expect("removes");
    fs::remove_dir_all(folder.path().join("journal")).expect("removes");
    let dir = folder.path().to_str().expect("a path");
    let copy = ["--bucket", "b", "--account", "111122223333", "--region", "us-west-2", "--trail", "dev"];
    let said: Vec<String> = [
        &["audit", "tail", "--dir", nowhere][..],
        &["audit", "tail", "--dir", dir],
        &["audit", "cat", "--config", nowhere],
        &["audit", "cat", "--dir", dir],
        &["audit", "public-key", "--dir", dir],
        &["audit", "reconcile", "--dir", dir, "--cloudtrail", dir],
        &[&["audit", "cost", "--store", nowhere], &copy[..]].concat(),
    ]
    .into_iter()
    .map(|arguments| {
        let output = folder.run(arguments);
        let said = text(&output.stderr).replace(nowhere, "NOWHERE").replace(dir, "DIR");
        format!("{}: {said}", output.status.code().unwrap_or(-1))
    })
    .collect();
    insta::assert_snapshot!(said.join(""));
}

/// A running `audit tail --json`.
struct Tail {
    child: Child,
    lines: Receiver<String>,
}

impl Tail {
    fn of(mut child: Child) -> Self {
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    fn next_name(&self) -> String {
        let line = self.lines.recv_timeout(Duration::from_secs(20)).expect("a record within its time");
        let record: Value = serde_json::from_str(&line).expect("a record");
        record["eventName"].as_str().expect("a name").to_owned()
    }

    fn until(&self, name: &str) {
        while self.next_name() != name {}
    }

    fn end_with(mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), signal).expect("it is there");
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        // Already gone is what a test wants.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A table with its rows in one order: the emulator's key ids are random.
fn in_one_order(table: &str) -> String {
    let mut lines: Vec<&str> = table.lines().collect();
    let is_row = |line: &&str| line.starts_with("20");
    let first = lines.iter().position(is_row).expect("a row");
    let last = lines.iter().rposition(is_row).expect("a row");
    // By operation, which is what comes last but for numbers.
    lines[first..=last].sort_by_key(|row| row.split_whitespace().skip(4).collect::<Vec<_>>());
    lines.join("\n")
}

fn snapshot(name: &str, said: &str) {
    audit_snapshot::settings().bind(|| insta::assert_snapshot!(name, said));
}
