//! Proves: every command of the README is run here as it is written, or named in the README as one that needs more than a clone; the
//! record that it shows has exactly the fields that its first call leaves; `check` accepts its configuration and policy; and the examples
//! without a package, in docs/clients.md, work under that policy. `tests/client_packages.rs` runs the README's examples with packages.

#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use key_broker_client::{Decrypt, DecryptMessage, EncryptMessage, GenerateDataKey};
use peers::{Peers, plain, printed, root};
use rustix::process::Signal;
use serde_json::Value;
use support::dev::all_records;
use support::process::{Process, binary};
use support::{Setup, TestBroker};
use tempfile::TempDir;

/// A directory like a clone in which `cargo dev` runs, with the README's policy for this user and `alias/dev`.
fn clone_with_dev() -> (TempDir, Process) {
    let clone = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink(root().join("proto"), clone.path().join("proto")).expect("a link");
    let dir = clone.path().join(".key-broker-dev");
    fs::create_dir(&dir).expect("a directory");
    let dev = Process::dev(&dir);
    fs::write(dir.join("policy.new"), policy()).expect("writes");
    fs::rename(dir.join("policy.new"), dir.join("policy.cedar")).expect("renames");
    dev.signal(Signal::HUP);
    dev.wait_for_log("new policies are in force");
    (clone, dev)
}

/// The README's policy, with the key that `dev` has, and whoever runs this.
fn policy() -> String {
    let me = format!("unix:uid/{}", rustix::process::geteuid().as_raw());
    let policy = block("cedar").replace("unix:uid/1000", &me).replace("alias/app", "alias/dev");
    assert!(policy.contains(&me) && policy.contains("alias/dev"), "{policy}");
    policy
}

/// What the examples ask, by the client of this repository: no other program is needed for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_examples_ask_is_permitted_by_the_readmes_policy() {
    let broker = TestBroker::with(Setup { policy: policy(), ..Setup::default() }).await;
    let client = broker.client().await;
    let request = GenerateDataKey::aes_256("alias/dev").context("tenant", "acme");
    let key = client.generate_data_key(request).await.expect("permitted");
    let decrypt = || Decrypt::new(key.ciphertext_blob.clone()).context("tenant", "acme");
    let again =
        client.decrypt(decrypt().key_id(&key.key_id)).await.expect("permitted, by the reply's key_id");
    assert_eq!(again.plaintext.expose(), key.plaintext.expose());
    client.decrypt(decrypt().key_id("alias/dev")).await.expect("permitted, by the alias");
    let unnamed = client.decrypt(decrypt()).await.expect_err("it could be any key's");
    assert!(unnamed.message().contains("set key_id"), "{unnamed}");
    let message = client.encrypt_message(EncryptMessage::new("alias/dev", "hello").context("tenant", "acme"));
    let message = message.await.expect("permitted").message;
    client.decrypt_message(DecryptMessage::new(message).context("tenant", "acme")).await.expect("permitted");
    for language in ["python", "js"] {
        let example = without_a_package(language);
        let decrypt = example.split("Decrypt(").nth(1).expect("it decrypts");
        assert!(decrypt.lines().take(3).any(|line| line.contains("key_id")), "{example}");
    }
}

#[test]
fn commands_work_as_pasted_and_leave_the_record_that_is_shown() {
    let (clone, dev) = clone_with_dev();
    let [build, call, read, production, kubernetes] = &shell_blocks()[..] else {
        panic!("a block more or less: {:?}", shell_blocks());
    };
    // `clone_with_dev` runs what the alias `dev` stands for; whoever runs this test runs the other one.
    assert_eq!(commands(build), ["cargo dev", "cargo test --workspace --no-fail-fast"]);
    let aliases = fs::read_to_string(root().join(".cargo/config.toml")).expect("aliases");
    assert!(aliases.contains("\ndev = \"run -p key-broker --features dev -- dev\"\n"), "{aliases}");
    assert!(aliases.contains("\nbroker = \"run --quiet -p key-broker --features dev --\"\n"), "{aliases}");

    let said = paste(call, clone.path());
    for part in ["\"plaintext\": \"aGVsbG8=\"", "\"ciphertextBlob\""] {
        assert!(said.contains(part), "{part}: {said}");
    }
    dev.signal(Signal::INT);
    assert!(dev.wait().success());
    let said = paste(read, clone.path());
    assert!(said.contains("\"eventName\": \"EncryptMessage\"") && said.contains("SOUND"), "{said}");
    let records = all_records(&clone.path().join(".key-broker-dev"));
    let shown: Value = serde_json::from_str(&block("json")).expect("JSON");
    let mut left = records.activity[0].clone();
    // That this test has another policy than `dev`'s.
    let data = left["additionalEventData"].as_object_mut().expect("fields");
    assert!(data.remove("reloads").is_some() && data.remove("noticeID").is_some());
    assert_eq!(fields(&left, ""), fields(&shown, ""), "the README shows other fields than a record has");
    for field in ["eventName", "requestParameters", "awsRegion", "eventSource"] {
        assert_eq!(left[field], shown[field], "{field}");
    }
    let program = |record: &Value| {
        record["userAgent"].as_str().and_then(|agent| agent.split(' ').next()).map(str::to_owned)
    };
    assert_eq!(program(&left), program(&shown));
    for field in ["messagesLimit", "bytesLimit"] {
        let of = |record: &Value| record["additionalEventData"]["dataKey"][field].clone();
        assert_eq!(of(&left), of(&shown), "{field}");
    }
    assert_eq!(
        left["additionalEventData"]["message"]["length"],
        shown["additionalEventData"]["message"]["length"]
    );

    assert_eq!(commands(production)[0], "cargo build --release -p key-broker");
    let needy = production.lines().filter(|line| line.contains("# needs AWS: ")).count();
    assert_eq!((commands(production).len(), needy), (3, 2), "all others would have to be run here");
    assert!(readme().contains("needs a cluster"));
    let page = fs::read_to_string(root().join("docs/kubernetes.md")).expect("the page");
    for command in commands(kubernetes) {
        assert!(
            page.contains(&command),
            "docs/kubernetes.md, which tests/api_server.rs runs, has no {command}"
        );
    }
}

/// Runs lines in a shell of `clone`, where cargo runs the program that is built already.
fn paste(block: &str, clone: &Path) -> String {
    // Whoever has no jq sees the same without colours.
    let shell = "set -eo pipefail\ncargo() { shift; \"$KEY_BROKER\" \"$@\"; }\n\
                 command -v jq >/dev/null || jq() { [ \"$1\" != -r ] && cat || grep -o '\"message\": \"[^\"]*' | cut -d'\"' -f4; }\n";
    let mut command = Command::new("bash");
    command.arg("-c").arg(format!("{shell}{block}")).env("KEY_BROKER", binary()).current_dir(clone);
    let output = command.output().expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{block}\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// The path of each field of a record, and of its parts.
fn fields(value: &Value, path: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::from([path.to_owned()]);
    match value {
        Value::Object(members) => {
            found.extend(members.iter().flat_map(|(name, value)| fields(value, &format!("{path}.{name}"))));
        }
        Value::Array(items) => found.extend(items.iter().flat_map(|item| fields(item, path))),
        _ => {}
    }
    found
}

/// Commands without their comments.
fn commands(block: &str) -> Vec<String> {
    block.lines().map(|line| line.split(" #").next().unwrap_or_default().trim().to_owned()).collect()
}

fn shell_blocks() -> Vec<String> {
    let readme = readme();
    readme
        .split("```sh\n")
        .skip(1)
        .map(|rest| rest.split("```").next().expect("its end").to_owned())
        .collect()
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).expect("the README")
}

/// The README's first block in `language`.
fn block(language: &str) -> String {
    first_block(&readme(), language)
}

/// The example in `language` that loads the contract itself.
fn without_a_package(language: &str) -> String {
    let page = fs::read_to_string(root().join("docs/clients.md")).expect("the page");
    let (_, section) = page.split_once("\n## Without a package\n").expect("the section");
    first_block(section, language)
}

fn first_block(text: &str, language: &str) -> String {
    let (_, rest) = text.split_once(&format!("```{language}\n")).expect("the block");
    rest.split_once("```").expect("its end").0.to_owned()
}

fn run_example(command: &mut Command, file: &str, language: &str, clone: &Path, dev: Process) {
    fs::write(clone.join(file), without_a_package(language)).expect("pastes");
    let said = printed(command.arg(file).current_dir(clone));
    assert_eq!(said.trim(), "hello");
    dev.signal(Signal::INT);
    assert!(dev.wait().success());
    let records = all_records(&clone.join(".key-broker-dev"));
    let actions: Vec<_> = records.activity.iter().map(|record| record["eventName"].as_str()).collect();
    assert_eq!(actions, [Some("GenerateDataKey"), Some("Decrypt")]);
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn python_example() {
    let peers = Peers::install(&["python"]);
    let (clone, dev) = clone_with_dev();
    run_example(&mut peers.command("python/bin/python"), "example.py", "python", clone.path(), dev);
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn node_example() {
    let peers = Peers::install(&["node"]);
    let (clone, dev) = clone_with_dev();
    let mut node = plain("node");
    node.env("NODE_PATH", peers.path("node/node_modules"));
    run_example(&mut node, "example.js", "js", clone.path(), dev);
}

#[test]
fn configuration_and_policy() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("policy.cedar"), block("cedar")).expect("writes");
    let path = dir.path().join("key-broker.toml");
    fs::write(&path, block("toml")).expect("writes");
    printed(Command::new(binary()).args(["check", "--offline", "--config"]).arg(&path));
}
