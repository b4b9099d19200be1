//! Proves: whoever reads a trail, root too, leaves and changes nothing where its broker writes, whatever lies there; what a reader
//! asks of KMS is in the reader's own file before anything is shown, or is not asked; and `audit reconcile` takes those records for
//! what they are, and nothing else for them.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::geteuid;
use serde_json::{Value, json};
use support::dev_folder::{Folder, stdout_json, stop, text};
use support::process::Process;

/// Everything that reads.
const COMMANDS: [&[&str]; 7] = [
    &["verify"],
    &["cat"],
    &["cost"],
    &["find", "00000000-0000-4000-8000-000000000000"],
    &["public-key"],
    &["tail", "--no-follow"],
    &["reconcile", "--lag-minutes", "0"],
];

#[test]
fn nothing_of_the_brokers_is_changed_and_nothing_is_left_there() {
    let folder = Folder::copy();
    let outside = tempfile::tempdir().expect("a directory");
    let target = outside.path().join("target");
    fs::create_dir(&target).expect("makes");
    fs::set_permissions(&target, fs::Permissions::from_mode(0o751)).expect("changes");
    // Where an older broker looked for records of readers.
    symlink(&target, folder.path().join("journal/inbox")).expect("links");
    symlink(&target, folder.path().join("trail/key-broker-dev/inbox")).expect("links");
    let places = [folder.path().join("journal"), folder.path().join("trail"), outside.path().to_owned()];
    if geteuid().is_root() {
        // As it is in earnest: root reads what belongs to the broker's user.
        for path in places[..2].iter().flat_map(|place| listing(place).into_keys()) {
            lchown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
        }
    }
    let before: Vec<_> = places.iter().map(|place| listing(place)).collect();
    for command in COMMANDS {
        let output = read(&folder, command);
        assert!(output.status.code() != Some(101), "{command:?}: {}", text(&output.stderr));
        let after: Vec<_> = places.iter().map(|place| listing(place)).collect();
        assert_eq!(after, before, "{command:?}");
    }
    assert!(!folder.reader_records().is_empty(), "they did ask KMS");
}

#[test]
fn what_is_no_file_in_a_files_place_is_refused_at_once() {
    type Put = fn(&Path);
    let puts: [(&str, Put); 3] = [
        ("a pipe", |path| {
            mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("makes a pipe");
        }),
        ("a link", |path| symlink("/dev/zero", path).expect("links")),
        ("a folder", |path| fs::create_dir(path).expect("makes")),
    ];
    for (name, put) in puts {
        for place in ["journal", "trail.json", "notices.json", "log file", "digest"] {
            let folder = Folder::copy();
            let path = match place {
                "journal" => journal_file(&folder),
                "log file" => folder.log_files().remove(0),
                "digest" => folder.files("CloudTrail-Digest").remove(0),
                file => folder.path().join("journal").join(file),
            };
            if path.exists() {
                fs::remove_file(&path).expect("removes");
            }
            put(&path);
            let verified = in_time(&folder, &["verify"]);
            assert_ne!(verified.status.code(), Some(0), "{name} for {place}: {}", text(&verified.stdout));
            if place == "journal" {
                let tail = in_time(&folder, &["tail", "--no-follow"]);
                assert_eq!(tail.status.code(), Some(1), "{name}");
                assert!(text(&tail.stderr).contains("only a file may be"), "{}", text(&tail.stderr));
            }
        }
    }
}

#[test]
fn a_line_that_does_not_end_is_not_read_without_end() {
    let folder = Folder::copy();
    let file = fs::File::create(journal_file(&folder)).expect("opens");
    // Far more than any memory, and no byte of it on the disk.
    file.set_len(1 << 36).expect("a file with a hole");
    for command in [&["tail", "--no-follow"][..], &["verify"]] {
        let output = in_time(&folder, command);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {}", text(&output.stderr));
    }
}

/// Of an older version, which took such records into the trail.
#[test]
fn records_in_an_old_inbox_are_told_of_and_kept() {
    let folder = Folder::copy();
    folder.audit("public-key", &[]);
    let record = fs::read(folder.reader_records_file()).expect("recorded");
    let inbox = folder.path().join("journal/inbox");
    fs::create_dir(&inbox).expect("makes");
    let file = inbox.join("5f1b8b0e-3b0a-4c57-9a51-111111111111.record");
    fs::write(&file, &record).expect("writes");
    let dev = Process::dev(folder.path());
    dev.wait_for_log("records of readers that an older version left");
    stop(dev);
    assert_eq!(fs::read(&file).expect("kept"), record);
    let aws = folder.path().join("aws.json");
    let records: Vec<Value> = folder.kms_records().into_iter().map(of_aws).collect();
    fs::write(&aws, json!({ "Records": records }).to_string()).expect("writes");
    let (aws, file) = (aws.to_str().expect("a path"), file.to_str().expect("a path"));
    let told = ["--lag-minutes", "0", "--cloudtrail", aws, "--reader-records", file];
    let output = folder.audit("reconcile", &told);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

/// The keys of a `key-broker dev`, which reading its trail opens.
#[test]
fn a_link_for_the_keys_of_dev_makes_nothing_private_and_nothing_written() {
    let folder = Folder::copy();
    let outside = tempfile::tempdir().expect("a directory");
    let (target, state) = (outside.path().join("target"), folder.path().join("kms/state.json"));
    fs::copy(&state, &target).expect("copies");
    fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).expect("changes");
    fs::remove_file(&state).expect("removes");
    symlink(&target, &state).expect("links");
    let before = listing(outside.path());
    for command in COMMANDS.iter().filter(|command| command[0] != "tail") {
        let output = read(&folder, command);
        assert!(!output.status.success(), "{command:?}");
        assert_eq!(listing(outside.path()), before, "{command:?}");
    }
}

#[test]
fn where_nothing_can_be_recorded_kms_is_not_asked() {
    let folder = Folder::copy();
    let blocked = tempfile::tempdir().expect("a directory");
    let file = blocked.path().join("records");
    fs::create_dir(&file).expect("in the way");
    let link = blocked.path().join("link");
    symlink(blocked.path().join("target"), &link).expect("links");
    let store = folder.path().join("trail/records");
    let journal = folder.path().join("journal/records");
    for place in [&file, &link, &store, &journal] {
        let place = place.to_str().expect("a path");
        for command in ["cat", "verify", "cost", "public-key"] {
            let output = folder.audit(command, &["--record-to", place]);
            assert!(!output.status.success(), "{command} {place}");
            assert_eq!(text(&output.stdout), "", "{command} {place}");
            let said = text(&output.stderr);
            assert!(said.contains("cannot be recorded") && said.contains("--record-to FILE"), "{said}");
        }
    }
    assert!(!blocked.path().join("target").exists() && !store.exists() && !journal.exists());

    let nobody = |command: &str| {
        let mut run = support::dev_folder::command();
        run.args(["audit", command, "--dir", folder.path().to_str().expect("a path")]);
        run.output().expect("it runs")
    };
    let output = nobody("public-key");
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(64), ""));
    assert!(text(&output.stderr).contains("--record-to FILE"), "{}", text(&output.stderr));
    assert!(folder.reader_records().is_empty());
}

/// The reader of a pipe that nobody empties has been shown nothing past its first bytes.
#[test]
fn what_is_asked_is_recorded_before_anything_is_shown() {
    let folder = Folder::copy();
    let own = folder.path().join("own");
    let place = ["--record-to", own.to_str().expect("a path")];
    let dir = folder.path().to_str().expect("a path");
    let mut command = folder.command();
    command.args(["audit", "cat", "--dir", dir]).args(place).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut first = [0];
    std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut first).expect("shown");
    let recorded = fs::read_to_string(&own).expect("recorded");
    child.kill().expect("ends");
    child.wait().expect("ends");
    let records: Vec<Value> =
        recorded.lines().map(|line| serde_json::from_str(line).expect("a record")).collect();
    assert!(records.iter().all(|record| record["eventSource"] == "kms.amazonaws.com"));
    assert!(records.iter().any(|record| record["eventName"] == "Decrypt"), "{recorded}");
    assert_eq!(fs::metadata(&own).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(folder.reader_records().is_empty(), "only where it was told");
}

#[test]
fn reconcile_counts_what_readers_recorded_apart_and_explains_nothing_else_by_it() {
    let folder = Folder::copy();
    let ours = folder.kms_records();
    stdout_json(&folder.audit("public-key", &["--json"]));
    let mut reads = folder.reader_records();
    // One of each kind: reading makes more of them.
    reads.sort_by_key(|record| record["eventName"].to_string());
    reads.dedup_by_key(|record| record["eventName"].clone());
    let names: Vec<_> = reads.iter().map(|record| record["eventName"].clone()).collect();
    assert_eq!(names, ["Decrypt", "GetPublicKey"]);
    let told = write_lines(&folder, "told", &reads);
    let reconcile = |aws: &[Value], told: &[&str]| {
        let place = folder.path().join("aws");
        fs::create_dir_all(&place).expect("a folder");
        fs::write(place.join("log.json"), json!({ "Records": aws }).to_string()).expect("writes");
        let cloudtrail = ["--lag-minutes", "0", "--cloudtrail", place.to_str().expect("a path")];
        folder.audit("reconcile", &[&cloudtrail, told].concat())
    };
    let told = ["--reader-records", told.to_str().expect("a path")];
    // Within the time of the trail, which is all that is compared.
    let at = ours.last().expect("a record")["eventTime"].clone();
    let in_time = |mut record: Value| {
        record["eventTime"] = at.clone();
        of_aws(record)
    };
    let aws: Vec<Value> = ours.iter().chain(&reads).cloned().map(in_time).collect();

    let untold = reconcile(&aws, &[]);
    assert_eq!(untold.status.code(), Some(1));
    assert!(text(&untold.stdout).contains("--reader-records FILE"), "{}", text(&untold.stdout));
    let matched = reconcile(&aws, &told);
    assert_eq!(matched.status.code(), Some(0), "{}", text(&matched.stdout));
    assert!(text(&matched.stdout).contains("2  calls of readers"), "{}", text(&matched.stdout));
    let json = stdout_json(&reconcile(&aws, &[&told[..], &["--json"]].concat()));
    assert_eq!((&json["byReaders"], &json["matched"]), (&json!(2), &json!(ours.len())));

    // A thief who can write the file as well.
    let draw = ours.iter().find(|record| record["eventName"] == "GenerateDataKey" && workload(record));
    let mut stolen = draw.expect("a draw").clone();
    let mut hidden = Vec::new();
    for (n, name) in ["GenerateDataKey", "Decrypt", "GetPublicKey", "Sign"].iter().enumerate() {
        stolen["eventName"] = (*name).into();
        stolen["requestID"] = format!("5f1b8b0e-3b0a-4c57-9a51-00000000000{n}").into();
        stolen["eventID"] = format!("5f1b8b0e-3b0a-4c57-9a51-10000000000{n}").into();
        hidden.push(in_time(stolen.clone()));
    }
    // What AWS saw is what counts, not what the file says of it.
    let mut claimed = reads[0].clone();
    claimed["requestID"] = hidden[1]["requestID"].clone();
    let with = write_lines(&folder, "with", &[&reads[..], &hidden[..], &[claimed]].concat());
    let found = reconcile(
        &[&aws[..], &hidden[..]].concat(),
        &["--json", "--reader-records", with.to_str().expect("a path")],
    );
    assert_eq!(found.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&found.stdout).expect("JSON");
    assert_eq!((&json["byReaders"], json["missingFromTrail"].as_array().map(Vec::len)), (&json!(2), Some(4)));
}

/// Whoever can write into the bucket can put there what nobody can read: that turns no finding into "cannot tell".
#[test]
fn a_found_call_stays_a_finding_whatever_is_put_into_the_bucket() {
    let folder = Folder::copy();
    let ours = folder.kms_records();
    let draw = ours.iter().find(|record| record["eventName"] == "GenerateDataKey" && workload(record));
    let mut stolen = draw.expect("a draw").clone();
    stolen["requestID"] = "5f1b8b0e-3b0a-4c57-9a51-000000000000".into();
    stolen["eventID"] = "5f1b8b0e-3b0a-4c57-9a51-100000000000".into();
    stolen["eventTime"] = ours.last().expect("a record")["eventTime"].clone();
    let aws: Vec<Value> = ours.iter().cloned().chain([stolen]).map(of_aws).collect();
    let place = folder.path().join("aws");
    fs::create_dir_all(&place).expect("a folder");
    fs::write(place.join("log.json"), json!({ "Records": aws }).to_string()).expect("writes");
    let arguments = ["--json", "--lag-minutes", "0", "--cloudtrail", place.to_str().expect("a path")];
    let is_found = |what: &str| {
        let output = folder.audit("reconcile", &arguments);
        assert_eq!(output.status.code(), Some(1), "{what}: {}", text(&output.stderr));
        let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let missing = json["missingFromTrail"].to_string();
        assert!(missing.contains("5f1b8b0e-3b0a-4c57-9a51-000000000000"), "{what}: {missing}");
    };
    is_found("nothing");

    let digest = folder.files("CloudTrail-Digest").remove(0);
    let name = digest.file_name().expect("a name").to_str().expect("text");
    let mut parts: Vec<&str> = name.split('_').collect();
    parts[3] = "stranger";
    fs::copy(&digest, digest.with_file_name(parts.join("_"))).expect("copies");
    is_found("a digest of a trail that nobody knows");
    let withhold = |path: &Path| {
        let metadata = format!("{}.meta.json", path.display());
        fs::write(metadata, "no metadata").expect("writes");
    };
    let (front, _) = name.rsplit_once('_').expect("a time");
    let planted = digest.with_file_name(format!("{front}_20991231T235959Z.json.gz"));
    fs::write(&planted, "").expect("writes");
    withhold(&planted);
    is_found("a digest of this trail that the store does not give");
    let log_files = folder.log_files();
    assert_eq!(log_files.len(), 1);
    withhold(&log_files[0]);
    let output = folder.audit("reconcile", &arguments);
    assert_eq!(output.status.code(), Some(2), "where nothing of the trail can be read, nothing can be told");
}

const NOBODY: u32 = 65534;

/// As AWS has it: with an id of its own.
fn of_aws(mut record: Value) -> Value {
    record["eventID"] = format!("aws {}", record["eventID"].as_str().expect("an id")).into();
    record
}

/// Not one of the trail's own.
fn workload(record: &Value) -> bool {
    record["userIdentity"]["invokedBy"].is_null()
}

fn read(folder: &Folder, command: &[&str]) -> Output {
    let aws = folder.path().join("aws.json");
    fs::write(&aws, json!({ "Records": [] }).to_string()).expect("writes");
    let cloudtrail = ["--cloudtrail", aws.to_str().expect("a path")];
    let more = if command[0] == "reconcile" { &cloudtrail[..] } else { &[] };
    folder.audit(command[0], &[&command[1..], more].concat())
}

/// Everything below a folder, links not followed: whose it is, how it may be used, and when it was changed.
fn listing(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).expect("lists").map(|entry| entry.expect("an entry").path());
        for path in entries.chain([folder.clone()]) {
            let is = fs::symlink_metadata(&path).expect("there");
            if is.is_dir() && path != folder {
                folders.push(path.clone());
            }
            let (owner, times) =
                ((is.uid(), is.gid()), (is.mtime(), is.mtime_nsec(), is.ctime(), is.ctime_nsec()));
            let state = format!("{} {owner:?} {:o} {} {times:?}", is.ino(), is.mode(), is.size());
            found.insert(path, state);
        }
    }
    found
}

fn journal_file(folder: &Folder) -> PathBuf {
    let entries = fs::read_dir(folder.path().join("journal")).expect("lists");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.to_string_lossy().contains("/journal-"));
    files.pop().expect("a file of the journal")
}

fn write_lines(folder: &Folder, name: &str, records: &[Value]) -> PathBuf {
    let lines: Vec<_> = records.iter().map(Value::to_string).collect();
    let path = folder.path().join(name);
    fs::write(&path, lines.join("\n")).expect("writes");
    path
}

/// What a command says that may not wait for anybody.
fn in_time(folder: &Folder, command: &[&str]) -> Output {
    let dir = folder.path().to_str().expect("a path");
    let mut run = folder.command();
    run.arg("audit").arg(command[0]).args(["--dir", dir]).args(&command[1..]);
    let mut child: Child = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let began = now();
    while child.try_wait().expect("it is there").is_none() {
        if began.elapsed() > Duration::from_mins(1) {
            child.kill().expect("it is there");
            panic!("{command:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().expect("it has ended")
}

fn now() -> Instant {
    use key_broker_core::clock::{Clock as _, SystemClock};
    SystemClock.instant()
}
