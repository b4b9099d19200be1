//! Proves, with the real program: whatever id of a call somebody has, `key-broker audit find` tells the whole story of it and of its data
//! key, from the journal of a broker that runs and from its delivered trail; it says who vouches for what it tells, believes nothing that
//! somebody put beside the trail, and ends with the codes of the table.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::process::Output;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use support::dev_folder::{Folder, run, stdout_json, stop, text};
use support::formats::{compress, sha256_hex};
use support::process::{Process, write_config};
use support::site::Site;

/// All records of its trail.
fn records(folder: &Folder) -> Vec<Value> {
    let shown = folder.audit("cat", &["--records"]);
    text(&shown.stdout).lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
}

/// The uses of the kept data key, in their order.
fn draws(records: &[Value]) -> Vec<&Value> {
    let is_draw =
        |record: &&Value| record["additionalEventData"]["dataKey"]["ciphertextBlobSHA256"].is_string();
    records.iter().filter(is_draw).collect()
}

fn id<'a>(record: &'a Value, name: &str) -> &'a str {
    record[name].as_str().unwrap_or_else(|| panic!("no {name}: {record}"))
}

/// The eventIDs of a list of the story.
fn events(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().expect("a list");
    list.iter().map(|entry| id(&entry["record"], "eventID").to_owned()).collect()
}

fn find(folder: &Folder, id: &str) -> Value {
    stdout_json(&folder.audit("find", &[id, "--json"]))
}

/// Every id that a caller, a span, AWS's record or our own may have leads to the same four calls and the same call to KMS.
#[test]
fn every_id_of_a_delivered_trail_leads_to_the_same_story() {
    let folder = Folder::copy();
    let records = records(&folder);
    let draws = draws(&records);
    assert_eq!(draws.len(), 4, "one call to KMS, and three uses of what is kept");
    let data_key = &draws[0]["additionalEventData"]["dataKey"];
    let (kms_request, kms_event) = (id(data_key, "kmsRequestID"), id(data_key, "kmsEventID"));
    let hash = id(data_key, "ciphertextBlobSHA256");
    let all: BTreeSet<String> = draws.iter().map(|draw| id(draw, "eventID").to_owned()).collect();
    for (wanted, about) in [
        (kms_request, draws[0]),
        (kms_event, draws[0]),
        (hash, draws[0]),
        (id(draws[0], "requestID"), draws[0]),
        (id(draws[2], "requestID"), draws[2]),
        (id(draws[3], "eventID"), draws[3]),
    ] {
        let story = find(&folder, wanted);
        assert_eq!(story["verdict"], "vouched", "{story:#}");
        assert_eq!((&story["calls"][0]["record"], &story["callsInAll"]), (about, &json!(1)), "{wanted}");
        let key = &story["dataKeys"][0];
        assert_eq!(
            (&key["ciphertextBlobSHA256"], &key["otherUsesInAll"]),
            (&json!(hash), &json!(3)),
            "{wanted}"
        );
        let others = events(&key["otherUses"]);
        assert!(!others.contains(id(about, "eventID")), "{wanted}");
        assert_eq!(&others | &events(&story["calls"]), all, "{wanted}");
        let kms = &key["kmsRecords"][0]["record"];
        assert_eq!((id(kms, "requestID"), id(kms, "eventID")), (kms_request, kms_event), "{wanted}");
        let signed = |entry: &Value| entry["vouchedForBy"] == "digest" && entry["logFile"].is_string();
        assert!(signed(&key["kmsRecords"][0]) && signed(&story["calls"][0]), "{story:#}");
    }
}

/// People read who asked, which policy allowed it, whether it was a hit, the call to KMS, the other uses, and the verdict as the last line.
#[test]
fn the_story_is_told_to_people_with_its_verdict_at_the_end() {
    let folder = Folder::copy();
    let records = records(&folder);
    let told = folder.audit("find", &[id(draws(&records)[1], "requestID")]);
    assert_eq!((told.status.code(), text(&told.stderr).as_str()), (Some(0), ""));
    let told = text(&told.stdout);
    for said in [
        "asked by",
        "unix:uid/",
        "tenant=acme",
        "policy0 allowed it",
        "memory, a hit",
        "not traced",
        "KMS call",
        "3 other uses",
    ] {
        assert!(told.contains(said), "{said}: {told}");
    }
    assert!(told.trim_end().lines().last().expect("lines").starts_with("vouched for: "), "{told}");
    // A refusal has a story, too, and no data key.
    let refused =
        records.iter().find(|record| record["errorCode"] == "NotFoundException").expect("one was refused");
    let refused = text(&folder.audit("find", &[id(refused, "requestID")]).stdout);
    assert!(refused.contains("NotFoundException") && !refused.contains("other uses"), "{refused}");
}

/// What a call left a moment ago is found in the journal, as the broker's own word; once it is delivered, a signed digest vouches for it.
#[test]
fn what_is_in_the_journal_is_found_and_told_apart() {
    let folder = Folder::copy();
    let dev = Process::dev(folder.path());
    let dir = folder.path().to_str().expect("a path");
    let call =
        |arguments: &[&str]| stdout_json(&folder.run(&[&["call"], arguments, &["--dir", dir]].concat()));
    let key = call(&["generate-data-key", "--key-id", "alias/dev", "--context", "case=journal"]);
    let ciphertext = id(&key, "ciphertextBlob");
    let decrypt = ["decrypt", "--ciphertext-blob", ciphertext, "--context", "case=journal"];
    call(&decrypt);
    let story = find(&folder, ciphertext);
    assert_eq!(story["callsInAll"], 1, "{story:#}");
    assert_eq!(story["dataKeys"][0]["otherUses"][0]["record"]["eventName"], "Decrypt", "{story:#}");
    assert_eq!(
        story["dataKeys"][0]["kmsRecords"][0]["record"]["requestID"],
        key["provenance"]["kmsRequestId"]
    );
    assert_eq!((&story["verdict"], &story["calls"][0]["vouchedForBy"]), (&json!("notYet"), &json!("broker")));
    let bytes = BASE64_STANDARD.decode(ciphertext).expect("base64");
    let file = folder.path().join("ciphertext.bin");
    fs::write(&file, &bytes).expect("writes");
    let by_file = find(&folder, &format!("fileb://{}", file.display()));
    assert_eq!(events(&by_file["calls"]), events(&story["calls"]));
    stop(dev);
    let later = find(&folder, &sha256_hex(&bytes));
    assert_eq!((&later["verdict"], events(&later["calls"])), (&json!("vouched"), events(&story["calls"])));
    assert_eq!(later["recordsInAll"], story["recordsInAll"], "nothing twice, and nothing lost on the way");
}

/// A broker without a trail has its records in its journal, and these are looked through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_without_a_trail_is_looked_through() {
    let site = Site::new().await;
    let config = write_config(site.dir.path(), &site.emulator.endpoint_url(), "");
    let broker = Process::serve(&config);
    let config = config.to_str().expect("a path");
    let socket = site.socket();
    let target = ["--unix", socket.to_str().expect("a path")];
    let called =
        stdout_json(&run(&[&["call", "generate-data-key", "--key-id", "alias/dev"], &target[..]].concat()));
    let wanted = id(&called["provenance"], "kmsRequestId");
    let found = stdout_json(&run(&["audit", "find", wanted, "--json", "--config", config]));
    assert_eq!((&found["verdict"], &found["callsInAll"]), (&json!("notYet"), &json!(1)), "{found:#}");
    let none = run(&["audit", "find", "00000000-0000-4000-8000-000000000000", "--config", config]);
    assert_eq!(none.status.code(), Some(1), "{}", text(&none.stderr));
    stop(broker);
}

/// Whoever can write into the store could tell another story: it is not told, and the verdict says that something was left out.
#[test]
fn what_somebody_put_beside_the_trail_is_not_told() {
    let folder = Folder::copy();
    let records = records(&folder);
    let draw = draws(&records)[0];
    let mut forged = draw.clone();
    forged["eventID"] = "5f1b8b0e-3b0a-4c57-9a51-222222222222".into();
    forged["userIdentity"]["principalId"] = "unix:uid/4242".into();
    let genuine = folder.log_files().remove(0);
    let name = genuine.file_name().expect("a name").to_str().expect("text");
    let (front, _) = name.rsplit_once('_').expect("letters");
    let planted = genuine.with_file_name(format!("{front}_{}.json.gz", "x".repeat(16)));
    fs::write(&planted, compress(format!("{{\"Records\":[{forged}]}}").as_bytes())).expect("writes");
    let told = folder.audit("find", &[id(draw, "requestID"), "--json"]);
    let (said, why) = (text(&told.stdout), text(&told.stderr));
    assert_eq!(told.status.code(), Some(2), "{said}{why}");
    assert!(!said.contains("uid/4242") && why.contains("not vouched for"), "{said}{why}");
    let story: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((&story["verdict"], &story["callsInAll"]), (&json!("cannotTell"), &json!(1)));
    fs::remove_file(&planted).expect("removes");

    // A log file that was changed after it was signed is left out as a whole.
    let mut bytes = fs::read(&genuine).expect("reads");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&genuine, bytes).expect("writes");
    let told = folder.audit("find", &[id(draw, "requestID")]);
    assert_eq!(told.status.code(), Some(2), "{}", text(&told.stdout));
    assert!(
        text(&told.stdout).contains("cannot tell: 1 log files and digests were left out"),
        "{}",
        text(&told.stdout)
    );
}

/// 1: everything was looked at, and there is nothing; 64: no id; a journal that cannot be read is no proof that there is nothing.
#[test]
fn its_end_is_one_of_the_table() {
    let folder = Folder::copy();
    let code = |output: &Output| (output.status.code(), text(&output.stdout) + &text(&output.stderr));
    let (none, said) = code(&folder.audit("find", &["00000000-0000-4000-8000-000000000000"]));
    assert_eq!(none, Some(1), "{said}");
    assert!(said.contains("not found: "), "{said}");
    for mistake in ["alias/dev", "1234", ""] {
        assert_eq!(code(&folder.audit("find", &[mistake])).0, Some(64), "{mistake:?}");
    }
    let records = records(&folder);
    let early = folder.audit("find", &[id(draws(&records)[0], "requestID"), "--until", "2020-01-01"]);
    assert_eq!(code(&early).0, Some(1));
    let journal =
        fs::read_dir(folder.path().join("journal")).expect("reads").map(|entry| entry.expect("one").path());
    let open =
        journal.into_iter().find(|path| path.extension().is_some_and(|end| end == "open")).expect("a file");
    fs::write(&open, "key-broker-journal 1 none\n").expect("writes");
    let (broken, said) = code(&folder.audit("find", &["00000000-0000-4000-8000-000000000000"]));
    assert_eq!(broken, Some(2), "{said}");
    assert!(said.contains("the journal is left out"), "{said}");
}
