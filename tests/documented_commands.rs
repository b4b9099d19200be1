//! Proves: what the documents tell to type for a trail, for an operator, for a policy, for the emulator and for Athena does what they say, as it is
//! written, beside a running `key-broker dev` in place of AWS and of a host with key-broker on it: only names are replaced (files, sockets, keys, a
//! bucket, a day). `tests/snippets.rs` names all other commands, with the test that runs them or what they would need; `tests/readme.rs` has the README's.

#[path = "support/documents.rs"]
mod documents;
#[path = "support/pasted.rs"]
mod pasted;
mod peers;
#[path = "support/sql.rs"]
mod sql;
mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use documents::{blocks, document};
use peers::{Peers, http, kms, root};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha384};
use support::process::{Process, binary, kms_emulator};
use tempfile::TempDir;

/// A folder in which `key-broker dev` runs, and two calls were made and delivered.
struct Place {
    dir: TempDir,
    dev: Value,
    _process: Process,
}

impl Place {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let folder = dir.path().join(".key-broker-dev");
        fs::create_dir(&folder).expect("a directory");
        let process = Process::dev(&folder);
        let dev = fs::read_to_string(folder.join("dev.json")).expect("it is told");
        let place = Self { dir, dev: serde_json::from_str(&dev).expect("JSON"), _process: process };
        place.paste(
            "key-broker call encrypt-message --key-id alias/dev --context tenant=acme --plaintext aGVsbG8=\n\
             key-broker call generate-data-key --key-id alias/dev --context tenant=acme\n\
             key-broker flush --admin .key-broker-dev/admin.sock",
        );
        place
    }

    fn endpoint(&self) -> &str {
        self.dev["kms_endpoint"].as_str().expect("an address")
    }

    /// Another key, of this name.
    fn key(&self, alias: &str) {
        let made = kms(self.endpoint(), "CreateKey", &json!({}));
        let target = &made["KeyMetadata"]["KeyId"];
        kms(self.endpoint(), "CreateAlias", &json!({ "AliasName": alias, "TargetKeyId": target }));
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Pastes lines that have to succeed, each of them; what they print.
    fn paste(&self, lines: &str) -> String {
        let output = self.shell(lines);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{lines}\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    fn shell(&self, lines: &str) -> Output {
        let mut command = bash(lines);
        command
            .current_dir(self.dir.path())
            .env("XDG_STATE_HOME", self.file("state"))
            .env("HOME", self.dir.path());
        command.env("AWS_ENDPOINT_URL_KMS", self.endpoint()).env("AWS_ENDPOINT_URL_STS", self.endpoint());
        command.output().expect("a shell")
    }

    /// The objects of the trail's bucket whose name has this part and this end, the newest last.
    fn objects(&self, part: &str, end: &str) -> Vec<PathBuf> {
        let (mut found, mut folders) = (Vec::new(), vec![self.file(".key-broker-dev/trail/key-broker-dev")]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                let name = path.display().to_string();
                if path.is_dir() {
                    folders.push(path);
                } else if name.contains(part) && name.ends_with(end) {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }
}

/// A shell with key-broker, and with no credentials, addresses or proxies but those that it is given. `audit tail` goes on until Ctrl-C, which
/// comes after a second.
fn bash(lines: &str) -> Command {
    let mut command = Command::new("bash");
    command
        .args(["--noprofile", "--norc", "-c", &format!("{SHELL}{lines}")])
        .stdin(Stdio::null())
        .env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("KEY_BROKER", binary());
    command.env("AWS_ACCESS_KEY_ID", "AKIATESTEXAMPLE00000").env("AWS_SECRET_ACCESS_KEY", "test-only");
    command.env("AWS_DEFAULT_REGION", "us-west-2").env("AWS_EC2_METADATA_DISABLED", "true");
    command.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    command
}

const SHELL: &str = "set -eo pipefail
key-broker() {
  if [ \"$2\" = tail ]; then timeout -s INT 1 \"$KEY_BROKER\" \"$@\" || [ $? = 124 ]; else \"$KEY_BROKER\" \"$@\"; fi
}
";

/// The block of a document that begins so.
fn shown(path: &str, begins: &str) -> String {
    let mut all = blocks(path, &document(path)).expect("blocks");
    all.retain(|block| block.text.starts_with(begins));
    assert_eq!(all.len(), 1, "{path}: {begins}");
    all.remove(0).text
}

/// Replaces names: each of them has to be there.
fn with(text: &str, names: &[(&str, &str)]) -> String {
    names.iter().fold(text.to_owned(), |text, (name, other)| {
        assert!(text.contains(name), "{name} is not in:\n{text}");
        text.replace(name, other)
    })
}

/// The lines that begin so.
fn lines(text: &str, begins: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with(begins)).collect();
    assert!(!lines.is_empty(), "{begins}");
    lines.join("\n")
}

/// Programs that have to be on the machine, as a reader's machine would have them.
fn need(programs: &[&str]) {
    for program in programs {
        let there =
            Command::new("bash").args(["-c", &format!("command -v {program}")]).output().expect("a shell");
        assert!(there.status.success(), "install {program}: the documents use it");
    }
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn the_auditors_commands() {
    need(&["jq"]);
    let (place, page) = (Place::start(), "docs/audit.md");
    let said = place.paste(&shown(page, "key-broker audit verify"));
    assert_eq!(said.matches("\nSOUND: ").count(), 2, "{said}");

    let said = place.paste(&shown(page, "key-broker audit cat --records | jq -c"));
    assert!(said.contains("matched: "), "{said}");
    fs::create_dir(place.file("DIR")).expect("a directory");
    fs::copy(place.file("aws.jsonl"), place.file("DIR/aws.jsonl")).expect("copies");
    let said = place.paste(&shown(page, "key-broker audit reconcile --cloudtrail DIR"));
    assert!(said.contains("matched: "), "{said}");
    // "add a line with another requestID, or remove one"
    let reconcile = "key-broker audit reconcile --cloudtrail aws.jsonl --lag-minutes 0";
    for change in [
        "sed -i 1d aws.jsonl",
        "tail -n 1 aws.jsonl | jq -c '.requestID = \"x\" | .eventID = \"y\"' >> aws.jsonl",
    ] {
        place.paste(change);
        assert_eq!(place.shell(reconcile).status.code(), Some(1), "{change}");
    }

    for alias in ["alias/orders", "alias/common"] {
        place.key(alias);
    }
    let watch = shown(page, "key-broker audit watch");
    let said = place.paste(&with(&watch, &[("key-broker.toml", ".key-broker-dev/key-broker.toml")]));
    assert_eq!(said.matches("no alarm: ").count(), 2, "{said}");

    let call = place.paste("key-broker call generate-data-key --key-id alias/dev --context tenant=acme");
    let call: Value = serde_json::from_str(&call).expect("JSON");
    let id = call["ciphertextBlob"].as_str().expect("a data key's ciphertext");
    let said =
        place.paste(&with(&shown(page, "key-broker audit tail"), &[("find ID", &format!("find {id}"))]));
    for part in ["GenerateDataKey", "\"eventName\": \"EncryptMessage\"", "unix:uid/", "open", "At USD "] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn a_digest_is_verified_by_hand_and_a_log_file_decrypted() {
    need(&["gunzip", "jq", "openssl", "sha256sum", "xxd"]);
    let (place, page) = (Place::start(), "docs/audit.md");
    let digests = place.objects("CloudTrail-Digest", ".json.gz");
    let digest = digests.last().expect("a digest");
    for (end, name) in [("", "D"), (".meta.json", "D.meta.json")] {
        fs::copy(format!("{}{end}", digest.display()), place.file(name)).expect("copies");
    }
    place.paste("key-broker audit public-key > public.pem");
    let said = place.paste(&shown(page, "gunzip -c D"));
    let (verified, named) = said.split_once('\n').expect("two lines");
    assert_eq!(verified, "Verified OK");
    let (hash, object) = named.trim().split_once('\t').expect("a hash and a log file");
    // An altered one is not.
    place.paste("gunzip -c D | sed s/SHA-256/SHA-257/ | gzip > D2 && mv D2 D");
    assert!(!place.shell(&shown(page, "gunzip -c D")).status.success());

    let file = place.file(".key-broker-dev/trail/key-broker-dev").join(object);
    fs::copy(file, place.file("F.json.gz")).expect("copies");
    let peers = Peers::install(&["encryption-cli"]);
    let path = digest.display().to_string();
    let trail = path.split("_CloudTrail-Digest_us-west-2_").nth(1).and_then(|rest| rest.split('_').next());
    let variables = format!(
        "export PATH={}:$PATH TRAIL={} KEY_ARN={}\n",
        peers.path("encryption-cli/bin").display(),
        trail.expect("the trail's name"),
        place.dev["keys"]["alias/dev"].as_str().expect("an ARN"),
    );
    place.paste(&format!("{variables}{}", shown(page, "aws-encryption-cli --decrypt")));
    let said = place.paste("gunzip -c plain.json.gz | sha256sum | cut -d' ' -f1");
    assert_eq!(said.trim(), hash);
    let gaps = "jq -r '.logFiles[].journalChain | [.firstSequence, .lastSequence, .hashBefore, .hashAfter] | @tsv' digest.json";
    assert!(document(page).contains(&format!("`{gaps}`")));
    assert_eq!(place.paste(gaps).trim().split('\t').count(), 4);
}

#[test]
fn the_operators_commands() {
    let place = Place::start();
    let socket = ("/run/key-broker/admin.sock", ".key-broker-dev/admin.sock");
    let said = place.paste(&with(&shown("docs/configuration.md", "key-broker admin status"), &[socket]));
    for part in ["\"journalHealthy\": true", "\"owner\":\"unix:uid/", "\"evicted\": 2"] {
        assert!(said.contains(part), "{part}: {said}");
    }

    let config = ("/etc/key-broker/key-broker.toml", ".key-broker-dev/key-broker.toml");
    place.paste("key-broker audit public-key > signing.pem");
    let verify = with(
        &shown("docs/configuration.md", "key-broker audit verify --config"),
        &[
            config,
            ("/mnt/trail", ".key-broker-dev/trail"),
            ("my-trail", "key-broker-dev"),
            ("--trail key-broker ", "--trail dev "),
        ],
    );
    let said = place.paste(&verify);
    assert_eq!(said.matches("\nSOUND: ").count(), 2, "{said}");

    place.paste("key-broker call generate-random --number-of-bytes 32");
    let tail = shown("deploy/enclave/README.md", "key-broker audit tail");
    let said = place.paste(&with(&tail, &[config]));
    assert!(said.contains("GenerateRandom"), "{said}");
    let health = lines(&shown("deploy/enclave/README.md", "useradd"), "key-broker health");
    assert_eq!(place.paste(&with(&health, &[config])).trim(), "SERVING");

    let check = shown("docs/kubernetes.md", "sed -n");
    let files = root().join("deploy/kubernetes/base");
    let check = with(&check, &[("deploy/kubernetes/base", &files.display().to_string())]);
    assert!(place.paste(&check).contains("configuration"));
    // A mistake in either file is found before anything is applied.
    for mistake in ["sed -i s/principal/principle/ policy.cedar", "sed -i s/region/regoin/ key-broker.toml"] {
        let (typed, last) = check.trim_end().rsplit_once('\n').expect("lines");
        let output = place.shell(&format!("{typed}\n{mistake}\n{last}"));
        assert_eq!(output.status.code(), Some(64), "{mistake}: {output:?}");
    }

    let exec = "kubectl() { while [ \"$1\" != -- ]; do shift; done; [ \"$2\" = /key-broker ]; key-broker \"${@:3}\"; }\n";
    let call = with(
        &shown("docs/kubernetes.md", "kubectl -n orders exec"),
        &[("/run/key-broker/broker.sock", ".key-broker-dev/broker.sock"), ("alias/orders", "alias/dev")],
    );
    assert!(place.paste(&format!("{exec}{call}")).contains("\"ciphertextBlob\""));
}

/// With the page's own policy, and with a key for its alias that the page's commands make.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn a_policy_is_tried() {
    need(&["jq"]);
    let peers = Peers::install(&["validate-logs"]);
    let (place, page) = (Place::start(), "docs/policy.md");
    let aws = format!("export PATH={}:$PATH\n", peers.path("validate-logs/bin").display());
    place.paste(&format!("{aws}{}", shown(page, "EMULATOR=")));
    let aliases = kms(place.endpoint(), "ListAliases", &json!({})).to_string();
    assert!(aliases.contains("alias/app"), "{aliases}");

    let policy = shown(page, "@id(\"orders-own-key\")");
    fs::write(place.file("policy.cedar"), &policy).expect("writes");
    let more = "listen.vsock = { port = 7890, cids = [16] }\nlisten.tls = { address = \"127.0.0.1:0\", \
                certificate_file = \"a\", key_file = \"b\", trust_bundle_file = \"c\" }\n";
    let config = fs::read_to_string(place.file(".key-broker-dev/key-broker.toml")).expect("reads");
    let config = config
        .replace("[listen]\n", "")
        .replace("unix = ", "listen.unix = ")
        .replace("admin = ", "listen.admin = ");
    fs::write(place.file("F"), format!("{more}{config}")).expect("writes");

    let (_, measured) = policy.split_once("imageSha384 == \"").expect("a measurement");
    let measured = &measured[..96];
    let typed = shown(page, "key-broker check --config F");
    let typed: Vec<_> = typed.lines().collect();
    // Whether the first answer is yes, what it says, and by which policy.
    let wanted = [
        (0, "Denied     Decrypt                             arn:", "no policy permits it"),
        (1, "Denied     Decrypt                             alias/app = arn:", "no policy permits it"),
        (0, "Allowed    Decrypt                             arn:", "by enclave-of-this-image"),
        (0, "Allowed    GenerateDataKey                     alias/dev = arn:", "by dev-by-alias"),
    ];
    assert_eq!(typed.len(), wanted.len());
    for (line, (code, answer, why)) in typed.iter().zip(wanted) {
        let output = place.shell(&format!("PCR0={measured}\n{line}"));
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{line}\n{said}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(said.lines().any(|line| line.starts_with(answer) && line.contains(why)), "{line}\n{said}");
    }
}

/// The emulator's program, ended with the test.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn the_emulator_is_run_and_arranged() {
    need(&["curl"]);
    let (peers, page, dir) = (
        Peers::install(&["validate-logs"]),
        "tests/kms-emulator/README.md",
        tempfile::tempdir().expect("a directory"),
    );
    let typed = shown(page, "cargo run -p kms-emulator");
    let words = pasted::commands(&lines(&typed, "cargo run"), &[]).expect("a command").remove(0);
    let (cargo, arguments) = words.split_at(5);
    assert_eq!(cargo, ["cargo", "run", "-p", "kms-emulator", "--"]);
    let mut program = Command::new(kms_emulator());
    // Any port: another program may have the usual one.
    program.args(arguments).args(["--listen", "127.0.0.1:0"]).current_dir(&dir).stdout(Stdio::piped());
    let mut emulator = Emulator(program.spawn().expect("it starts"));
    let mut line = String::new();
    let stdout = emulator.0.stdout.take().expect("it is piped");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let endpoint =
        line.trim().strip_prefix("kms-emulator: listening on ").expect("where it listens").to_owned();

    let run = |lines: &str| {
        let lines = with(lines, &[("http://127.0.0.1:4566", &endpoint)]);
        let path = format!("export PATH={}:$PATH\n", peers.path("validate-logs/bin").display());
        let mut shell = bash(&format!("{path}{lines}"));
        shell.current_dir(&dir).env("PCR0", "01".repeat(48)).env("PCR8", "02".repeat(48));
        peers::printed(&mut shell)
    };
    let rest = typed.lines().skip(1).collect::<Vec<_>>().join("\n");
    assert!(run(&rest).contains("\"CiphertextBlob\""));

    run(&shown(page, "curl -X PUT"));
    let faults = http(&endpoint, "GET", "/_emulator/faults", "", &Value::Null);
    assert_eq!(faults.as_array().map(Vec::len), Some(2), "{faults}");
    let attestation = http(&endpoint, "GET", "/_emulator/attestation", "", &Value::Null);
    let conditions = attestation.as_object().and_then(|keys| keys.values().next()).and_then(Value::as_object);
    assert_eq!(conditions.map(serde_json::Map::len), Some(2), "{attestation}");
}

/// The measurement of a role: SHA-384 of 48 zeros and the role's ARN, as AWS documents PCR3.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn a_role_is_measured() {
    need(&["python3"]);
    let said = peers::printed(&mut bash(&shown("deploy/enclave/README.md", "python3 -c")));
    let role = "arn:aws:iam::111122223333:role/KeyBrokerParent";
    assert_eq!(said.trim(), hex::encode(Sha384::digest([&[0; 48][..], role.as_bytes()].concat())));
}

/// The questions of deploy/athena/README.md have answers in a trail: on DuckDB, of the views that are made from Athena's.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn the_questions_for_athena_have_answers() {
    let copy = sql::vouched_for();
    let known = sql::ask(
        &copy,
        &[
            "SELECT key_arn, day FROM key_broker_uses WHERE key_arn IS NOT NULL LIMIT 1",
            "SELECT ciphertext_sha256 FROM key_broker_uses WHERE ciphertext_sha256 IS NOT NULL LIMIT 1",
        ],
    );
    let text = |row: &Value, column: usize| row[0][column].as_str().expect("text").to_owned();
    let (key, day, hash) = (text(&known[0], 0), text(&known[0], 1), text(&known[1], 0));
    let names = [
        ("arn:aws:kms:…", &*key),
        ("2026/11/25", &*day),
        ("2026-11-25", &day.replace('/', "-")),
        ("'…'", &format!("'{hash}'")),
    ];
    let questions = with(&shown("deploy/athena/README.md", "-- Who used data keys"), &names);
    let questions: Vec<_> = questions
        .split(';')
        .map(|question| question.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join(" "))
        .filter(|question| !question.trim().is_empty())
        .map(|question| format!("SELECT count(*) FROM ({question})"))
        .collect();
    assert_eq!(questions.len(), 4);
    let aws = aws_alone(&copy, &day);
    let questions: Vec<_> = questions.iter().map(String::as_str).collect();
    for (question, rows) in questions.iter().zip(sql::ask_beside(&copy, &aws, &questions)) {
        assert!(rows[0][0].as_u64().is_some_and(|count| count > 0), "{question}: {rows}");
    }
}

/// AWS's file with a call at noon that is in no trail.
fn aws_alone(copy: &support::tampered::Copy, day: &str) -> PathBuf {
    let records = copy.log_files().into_iter().flat_map(|key| {
        let file: Value = serde_json::from_slice(&copy.log_file(&key)).expect("JSON");
        file["Records"].as_array().expect("records").clone()
    });
    let mut call =
        records.into_iter().find(|record| record["eventSource"] == "kms.amazonaws.com").expect("a call");
    call["requestID"] = "b0000000-0000-4000-8000-000000000001".into();
    call["eventID"] = "b0000000-0000-4000-8000-000000000002".into();
    call["eventTime"] = format!("{}T12:00:00Z", day.replace('/', "-")).into();
    let file = copy.dir.path().join("aws.json");
    fs::write(&file, json!({ "Records": [call] }).to_string()).expect("writes");
    file
}

/// A name that is not there, or a block that the document no longer has, is noticed.
#[test]
fn what_is_not_there_is_not_replaced() {
    assert_eq!(with("a b", &[("a", "c")]), "c b");
    assert!(std::panic::catch_unwind(|| with("a b", &[("x", "c")])).is_err());
    assert!(std::panic::catch_unwind(|| shown("docs/audit.md", "no such block")).is_err());
}
