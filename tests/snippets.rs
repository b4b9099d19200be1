//! Proves: every fenced block of the documents is checked as its tag says. Each command of a shell block is read by bash; those of key-broker
//! are taken by its command line, and so are the ones in prose and in `--help`; other programs are named below, with the test that runs them
//! or what they would need. Configurations and policies are loaded, YAML and JSON parsed, Rust is compiled, and examples in other languages are
//! those that other tests run. A block of another kind, or with a program that is not named, fails. `tests/documented_commands.rs` runs what can be run.

#[path = "support/documents.rs"]
mod documents;
#[path = "support/pasted.rs"]
mod pasted;
mod peers;
#[path = "support/shown_rust.rs"]
mod shown_rust;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use documents::{Block, blocks, document, documents, has, spans};
use pasted::{Help, arguments, commands, has_the_version, missing_file, refusal, refusal_of_beginning};
use peers::{printed, root};
use serde_json::Value;
use support::process::binary;

#[test]
fn every_block_has_a_check() {
    let (help, run_by_tests, mut wrong) = (Help::read().commands(), examples_that_are_run(), Vec::new());
    let (mut tools, mut counted) = (BTreeSet::new(), BTreeMap::<&str, usize>::new());
    let all = all_blocks();
    assert!(all.len() > 80, "{}", all.len());
    for block in &all {
        *counted.entry(&block.tag).or_default() += 1;
        let verdict = match block.tag.as_str() {
            "sh" => shell(block, &help, &mut tools),
            "toml" => loads(&whole(&block.text), MINIMAL_POLICY),
            "cedar" => loads(MINIMAL, &block.text),
            "cedarschema" => schema(block),
            "yaml" => serde_saphyr::from_str::<Value>(&block.text)
                .map_err(|error| error.to_string())
                .and(is_held(block)),
            "json" => serde_json::from_str::<Value>(&block.text)
                .map_err(|error| error.to_string())
                .and(is_held(block)),
            "rust" => shown_rust::is_compiled(block),
            "python" | "js" | "go" | "java" if run_by_tests.contains(&block.text) => Ok(()),
            "python" | "js" | "go" | "java" => Err("no test runs this example".to_owned()),
            "sql" | "text" => is_held(block),
            _ => Err("there is no check for blocks of this kind".to_owned()),
        };
        wrong.extend(verdict.err().map(|why| format!("{}: ```{}: {why}", block.place(), block.tag)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let named: BTreeSet<_> = TOOLS.iter().map(|(tool, _)| (*tool).to_owned()).collect();
    assert_eq!(tools, named, "programs of shell blocks, and those that are named");
    let tests = TOOLS.iter().flat_map(|(_, why)| why.split([' ', ',', ':', ';']));
    for test in tests.filter(|word| word.starts_with("tests/")) {
        assert!(root().join(test).exists(), "{test}");
    }
    for (document, begins, ..) in HELD {
        let is_it = |block: &&Block| block.document == *document && block.text.starts_with(begins);
        assert_eq!(all.iter().filter(is_it).count(), 1, "{document}: {begins}");
    }
    assert!(counted["sh"] > 35 && counted["toml"] > 7, "{counted:?}");
}

/// Bash reads it; key-broker takes its own commands; other programs are named.
fn shell(block: &Block, subcommands: &BTreeSet<String>, tools: &mut BTreeSet<String>) -> Result<(), String> {
    let paths: Vec<_> = TOOLS.iter().map(|(tool, _)| *tool).filter(|tool| tool.contains('/')).collect();
    if !has_the_version(&block.text) {
        return Err("a release's file has another version".to_owned());
    }
    let commands = commands(&block.text, &[&paths[..], &[PROGRAM]].concat())?;
    for words in commands {
        let own = arguments(&words, subcommands);
        if let Some(why) = own.and_then(refusal) {
            return Err(format!("{words:?}: {why}"));
        }
        if let Some(file) = missing_file(&words, &block.document) {
            return Err(format!("{words:?}: there is no {file}"));
        }
        let is_own =
            own.is_some_and(|own| own.len() + 1 == words.len()) || words[0] == "cargo" && own.is_some();
        if !is_own {
            let name = words[0].clone();
            if !TOOLS.iter().any(|(tool, _)| *tool == name) {
                return Err(format!("{name} is not among the programs that are named here"));
            }
            tools.insert(name);
        }
    }
    Ok(())
}

/// `check` takes the configuration, and the policy beside it, as far as that can be said without the broker's host.
fn loads(config: &str, policy: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("key-broker.toml");
    fs::write(&file, config).expect("writes");
    fs::write(dir.path().join("policy.cedar"), policy).expect("writes");
    let output =
        Command::new(binary()).args(["check", "--offline", "--config"]).arg(&file).output().expect("it runs");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// A configuration that has this part.
fn whole(part: &str) -> String {
    let is_whole = ["kms", "policy", "audit"].iter().all(|name| {
        part.lines()
            .any(|line| line.starts_with(&format!("[{name}]")) || line.starts_with(&format!("{name}.")))
    });
    if is_whole {
        return part.to_owned();
    }
    let mut all: toml::Table = toml::from_str(MINIMAL).expect("TOML");
    match toml::from_str(part) {
        Ok(part) => merge(&mut all, part),
        // Whoever loads it says what is wrong.
        Err(_) => return part.to_owned(),
    }
    toml::to_string(&all).expect("TOML")
}

fn merge(all: &mut toml::Table, part: toml::Table) {
    for (name, value) in part {
        match (all.get_mut(&name), value) {
            (Some(toml::Value::Table(there)), toml::Value::Table(more)) => merge(there, more),
            (_, value) => drop(all.insert(name, value)),
        }
    }
}

/// The broker's unit test compares it with the one in use.
fn schema(block: &Block) -> Result<(), String> {
    let shown = cedar_policy::Schema::from_cedarschema_str(&block.text)
        .map(|_| ())
        .map_err(|error| error.to_string());
    let is_compared = has("broker/sidecar/src/policy/tests.rs", "fn the_documents_show_the_schema");
    if is_compared && block.document == "docs/policy.md" {
        shown
    } else {
        Err("no test compares it".to_owned())
    }
}

/// A test of another file reads the block, or one of this file does, or it is a picture.
fn is_held(block: &Block) -> Result<(), String> {
    let is_it = |(document, begins, ..): &&(&str, &str, &str, &str)| {
        block.document == *document && block.text.starts_with(begins)
    };
    let (.., by, reads) = HELD.iter().find(is_it).ok_or("no test is named that holds it")?;
    let is_right = *by == PICTURE || has(by, reads);
    if is_right { Ok(()) } else { Err(format!("{by} does not have {reads:?}")) }
}

/// The examples of which `tests/client_packages.rs` and `tests/readme.rs` say how they are run.
fn examples_that_are_run() -> BTreeSet<String> {
    let first = |text: &str, tag: &str| {
        let found = blocks("", text).expect("blocks").into_iter().find(|block| block.tag == tag);
        found.unwrap_or_else(|| panic!("no {tag}")).text
    };
    let packages = [("python", "python"), ("node", "js"), ("go", "go"), ("java", "java")];
    let mut run: BTreeSet<_> = packages
        .iter()
        .map(|(package, tag)| {
            assert!(has("tests/client_packages.rs", &format!("example({package:?}, {tag:?})")), "{package}");
            first(&document(&format!("client/{package}/README.md")), tag)
        })
        .collect();
    let page = document("docs/clients.md");
    let section =
        |title: &str| page.split_once(&format!("\n## {title}\n")).expect("the section").1.to_owned();
    for title in ["Data keys", "Values and key pairs"] {
        assert!(has("tests/client_packages.rs", &format!("({title:?}, ")), "{title}");
        run.insert(first(&section(title), "python"));
    }
    assert!(has("tests/readme.rs", "\\n## Without a package\\n"));
    run.extend(["python", "js"].map(|tag| first(&section("Without a package"), tag)));
    run
}

#[test]
fn commands_in_prose_and_in_help_are_ones() {
    let help = Help::read();
    let (subcommands, options) = (help.commands(), help.options());
    let (mut wrong, mut seen, mut other) = (Vec::new(), 0, BTreeSet::new());
    for (path, text) in documents() {
        for (line, span) in spans(&text) {
            if span.starts_with("--") {
                let name = span.split([' ', '=', ',']).next().unwrap_or_default().to_owned();
                if !options.contains(&name) {
                    other.insert((path.clone(), name));
                }
                continue;
            }
            let first = span.split(' ').next().unwrap_or_default();
            let is_short = subcommands.contains(first) && span.contains(' ');
            if !is_short && !["key-broker ", "cargo broker ", "cargo dev"].iter().any(|it| span.contains(it))
            {
                continue;
            }
            let typed = if is_short { format!("key-broker {span}") } else { span.clone() };
            match commands(&typed.replace('…', ""), &[]) {
                Err(why) => wrong.push(format!("{path}:{line}: `{span}`: {why}")),
                Ok(commands) => {
                    for own in commands.iter().filter_map(|words| arguments(words, &subcommands)) {
                        seen += 1;
                        let why = refusal_of_beginning(own);
                        wrong.extend(why.map(|why| format!("{path}:{line}: `{span}`: {why}")));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty() && seen > 100, "of {seen}:\n{}", wrong.join("\n"));
    let named = OTHER_OPTIONS.iter().map(|(document, name, _)| ((*document).to_owned(), (*name).to_owned()));
    assert_eq!(
        other,
        named.collect(),
        "options in prose that are not key-broker's, and those that are named"
    );

    let examples = help.examples();
    assert!(examples.len() > 20, "{examples:?}");
    for example in examples {
        // What is written to is on the reader's machine.
        let example = example.split(" > /").next().unwrap_or_default();
        let commands = commands(example, &[]).unwrap_or_else(|why| panic!("{example}: {why}"));
        for own in commands.iter().filter_map(|words| arguments(words, &subcommands)) {
            assert_eq!(refusal(own), None, "{example}");
        }
    }
}

/// The picture of the crates is what the command beside it prints.
#[test]
fn the_crates_depend_on_each_other_as_the_picture_shows() {
    let text = document("docs/architecture.md");
    assert!(text.contains("`cargo tree -p key-broker -e normal --format '{lib}' | grep key_broker`"));
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--offline", "-p", "key-broker", "-e", "normal", "--format", "{lib}"]);
    let printed = printed(tree.current_dir(root()));
    let printed: Vec<_> = printed.lines().filter(|line| line.contains("key_broker")).collect();
    let all = blocks("", &text).expect("blocks");
    let shown = all.iter().find(|block| block.text.starts_with("key_broker\n")).expect("the picture");
    assert_eq!(shown.text.lines().collect::<Vec<_>>(), printed);
}

/// What the picture of the layout and the lists of modules name is there.
#[test]
fn the_layout_is_the_one_that_is_shown() {
    let text = document("docs/architecture.md");
    let (mut missing, mut seen) = (Vec::new(), 0);
    let mut find = |folder: &str, words: &str, beside: &mut PathBuf| {
        for word in words.split_whitespace() {
            seen += 1;
            let word = word.trim_end_matches("/*");
            // Several in one line may be of the first one's folder.
            let places = [root().join(folder).join(word), beside.join(word)];
            match places.into_iter().find(|path| path.exists()) {
                Some(path) => path.parent().expect("a folder").clone_into(beside),
                None => missing.push(format!("{folder}: {word}")),
            }
        }
    };
    for block in
        blocks("", &text).expect("blocks").iter().filter(|block| !block.text.starts_with("key_broker\n"))
    {
        let folder = match block.text.lines().next().unwrap_or_default() {
            line if line.starts_with("build.rs") => ".",
            line if line.starts_with("record.rs") => "broker/trail/src",
            line if line.starts_with("format.rs") => "broker/envelope/src",
            line if line.starts_with("main.rs") => "broker/sidecar/src",
            line => panic!("of which crate: {line}"),
        };
        // Several paths, then what they are, after two spaces at least: the first word that is no path begins that.
        for line in block.text.lines() {
            let mut beside = PathBuf::new();
            let paths = line.split("  ").take_while(|part| part.is_empty() || is_path(part.trim()));
            paths.for_each(|part| find(folder, part, &mut beside));
        }
    }
    assert!(seen > 140 && missing.is_empty(), "of {seen}:\n{}", missing.join("\n"));
}

fn is_path(part: &str) -> bool {
    part.split(' ').all(|word| {
        Path::new(word).extension() == Some("rs".as_ref()) || word.ends_with('/') || word.ends_with("/*")
    })
}

/// The demonstration's own words, with what differs from run to run left out.
#[test]
fn the_demonstration_prints_what_is_shown() {
    let source = document("client/rust/src/bin/enclave-demo.rs");
    let page = blocks("", &document("deploy/enclave/README.md")).expect("blocks");
    let shown = page.iter().find(|block| block.text.starts_with("GenerateDataKey: ")).expect("the output");
    let mut words =
        shown.text.split(|c: char| matches!(c, '…' | '\n') || c.is_ascii_digit()).flat_map(|part| {
            part.split(" arn:aws:kms:")
                .map(str::trim)
                .flat_map(|part| part.split(", from KMS"))
                .collect::<Vec<_>>()
        });
    assert!(words.all(|part| source.contains(part)), "{}", shown.text);
    assert_eq!(shown.text.lines().count(), 4);
}

/// What the page tells to set by the downward API is what the manifests set.
#[test]
fn the_variables_of_a_pod_are_those_of_the_manifests() {
    let page = blocks("", &document("docs/telemetry.md")).expect("blocks");
    let shown = page.iter().find(|block| block.text.starts_with("env:")).expect("the variables");
    let shown: Value = serde_saphyr::from_str(&shown.text).expect("YAML");
    let manifest: Vec<Value> =
        serde_saphyr::from_multiple(&document("deploy/kubernetes/deployment/deployment.yaml")).expect("YAML");
    let broker = manifest.iter().find_map(|it| it.pointer("/spec/template/spec/initContainers/0/env"));
    let set = broker.and_then(Value::as_array).expect("the broker's variables");
    let shown = shown["env"].as_array().expect("a list");
    assert!(shown.len() == 3 && shown.iter().all(|it| set.contains(it)), "{shown:?} {set:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_in_rust_work() {
    shown_rust::test_with_the_emulator().await.expect("as it is shown");
    let document =
        shown_rust::attested_callers(1_800_000_000_000, vec![1; 294]).await.expect("as it is shown");
    assert!(document.len() > 1000);
    // Compiled: there is no enclave here.
    let _ = shown_rust::application_in_an_enclave;
}

/// Without these, a block that is wrong would go unnoticed.
#[test]
fn wrong_blocks_are_noticed() {
    let help = Help::read().commands();
    let sh = |text: &str| {
        let block = Block { document: "page.md".into(), line: 1, tag: "sh".into(), text: text.into() };
        shell(&block, &help, &mut BTreeSet::new())
    };
    for right in [
        "key-broker audit verify | jq . > file # --no-such-option",
        "X=1 key-broker check --as 'unix:uid/7' \\\n  --action Decrypt",
        "kubectl exec pod -c key-broker -- /key-broker health --unix /run/s",
        "cargo broker audit cat --records",
    ] {
        assert_eq!(sh(right), Ok(()), "{right}");
    }
    for wrong in [
        "key-broker audit verify --no-such-option",
        "key-broker audit find",
        "key-broker no-such-command",
        "key-broker check --messages many --as unknown",
        "X=$(key-broker audit no-such-command) true",
        "runuser -u key-broker -- key-broker check --no-such-option",
        "cargo broker audit cat --no-such-option",
        "no-such-program",
        "no/such/program",
        "/bin/true",
        "jq . > /tmp/file",
        "kubectl apply -k deploy/no-such-folder",
        "aws kms create-key --policy file://no-such-policy.json",
        "install -m 644 no-such.service /etc/systemd/system/",
        "apt-get install ./key-broker_9.9.9_amd64.deb",
        "key-broker audit 'verify",
        "if true",
    ] {
        assert!(sh(wrong).is_err(), "{wrong}");
    }
    let prose = |words: &[&str]| {
        refusal_of_beginning(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(prose(&["audit", "verify", "--newest-signature"]), None);
    assert!(
        prose(&["audit", "verify", "--no-such-option"]).is_some() && prose(&["audit", "no-such"]).is_some()
    );
    assert!(loads(&whole("[limits]\nno_such_key = 1\n"), MINIMAL_POLICY).is_err());
    assert!(loads(&whole("[limits\n"), MINIMAL_POLICY).is_err());
    assert!(loads(MINIMAL, "permit(principal, action == Action::\"NoSuchAction\", resource);").is_err());
    assert!(blocks("page.md", "```sh\nls\n").is_err() && blocks("page.md", "text\n\n    ls\n").is_err());
    assert_eq!(blocks("page.md", "- a\n  ```sh\n  ls\n  ```\n").expect("a block")[0].text, "  ls\n");
    assert_eq!(spans("a `b\nc` d\n```\n`e`\n```\n`f`"), [(1, "b c".to_owned()), (5, "f".to_owned())]);
}

fn all_blocks() -> Vec<Block> {
    let of = |(path, text): (String, String)| blocks(&path, &text).unwrap_or_else(|why| panic!("{why}"));
    documents().into_iter().flat_map(of).collect()
}

const PROGRAM: &str = "target/release/key-broker";

/// All that a configuration must have, and connections for every kind of principal.
const MINIMAL: &str = r#"
[listen]
unix = { path = "/run/key-broker/broker.sock", mode = "0600" }
[listen.tls]
address = "0.0.0.0:7890"
certificate_file = "/run/tls/tls.crt"
key_file = "/run/tls/tls.key"
trust_bundle_file = "/run/tls/ca.crt"
[kms]
region = "us-west-2"
[policy]
file = "policy.cedar"
[audit]
journal_dir = "/var/lib/key-broker/journal"
"#;
const MINIMAL_POLICY: &str = "permit(principal is Workload, action, resource);";

/// Programs of shell blocks other than key-broker: the test that runs them as they are shown, or what they need that is not here.
const TOOLS: &[(&str, &str)] = &[
    ("apt-get", "root, and a system to install on; tests/packaging.rs makes the package and looks into it"),
    (
        "aws",
        "AWS; tests/documented_commands.rs runs those for an emulator, tests/trail_verify.rs validate-logs",
    ),
    ("aws-encryption-cli", "tests/documented_commands.rs"),
    ("base64", "tests/packaging.rs"),
    ("cargo", "tests/readme.rs; the emulator: tests/documented_commands.rs"),
    ("crosscheck/crosscheck.py", "tests/moto.rs"),
    ("curl", "tests/documented_commands.rs"),
    ("cut", "tests/documented_commands.rs"),
    ("deploy/sign", "tests/packaging.rs"),
    ("deploy/release", "minutes, for a release build; tests/packaging.rs runs its parts"),
    ("docker", "Docker; tests/packaging.rs compares the image with its Dockerfile, and lints that"),
    ("gunzip", "tests/documented_commands.rs"),
    ("helm", "a cluster with nodes; tests/api_server.rs installs the chart in one without"),
    ("install", "root, and a system to install on; the files that it names are looked for here"),
    ("jq", "tests/documented_commands.rs"),
    (
        "kubectl",
        "a cluster with nodes; tests/api_server.rs runs those that name a folder of deploy/ in one without",
    ),
    ("moto_server", "tests/moto.rs"),
    ("nitro-cli", "an instance with Nitro enclaves; tests/enclave_guest.rs emulates two machines"),
    ("openssl", "tests/documented_commands.rs"),
    ("pip", "a registry; tests/peers/install installs the same for tests/moto.rs"),
    ("python3", "tests/documented_commands.rs"),
    (
        "runuser",
        "root, and the broker's user; the command that it runs is taken by key-broker's command line here",
    ),
    ("sed", "tests/metrics.rs"),
    ("sha256sum", "tests/documented_commands.rs"),
    ("skopeo", "a registry"),
    ("systemctl", "systemd as the first process; tests/packaging.rs has the units verified"),
    ("systemd-sysusers", "root; tests/packaging.rs runs it in a folder"),
    ("systemd-tmpfiles", "root; tests/packaging.rs runs it in a folder"),
    ("useradd", "root, and a system to install on"),
    ("usermod", "root, and a system to install on"),
    ("xxd", "tests/documented_commands.rs"),
];

/// Blocks that a test reads for itself: the document, how the block begins, the test's file, and what shows that it reads that.
const HELD: &[(&str, &str, &str, &str)] = &[
    ("README.md", "  pod, VM or parent instance\n", PICTURE, ""),
    ("README.md", "{ \"eventVersion\"", "tests/readme.rs", "the README shows other fields than a record has"),
    (
        "deploy/athena/README.md",
        "-- Who used data keys",
        "tests/documented_commands.rs",
        "deploy/athena/README.md",
    ),
    ("deploy/enclave/README.md", " parent instance ", PICTURE, ""),
    (
        "deploy/enclave/README.md",
        "GenerateDataKey: ",
        "tests/snippets.rs",
        "fn the_demonstration_prints_what_is_shown",
    ),
    ("docs/architecture.md", "build.rs", "tests/snippets.rs", "fn the_layout_is_the_one_that_is_shown"),
    ("docs/architecture.md", "key_broker\n", "tests/snippets.rs", "fn the_crates_depend_on_each_other"),
    ("docs/architecture.md", "record.rs", "tests/snippets.rs", "line.starts_with(\"record.rs\")"),
    ("docs/architecture.md", "format.rs", "tests/snippets.rs", "line.starts_with(\"format.rs\")"),
    ("docs/architecture.md", "main.rs", "tests/snippets.rs", "line.starts_with(\"main.rs\")"),
    ("docs/audit.md", "SET VARIABLE trail = 'trail/", "tests/duckdb.rs", "expect(\"three blocks\")"),
    ("docs/audit.md", "CREATE SECRET", "tests/duckdb.rs", "expect(\"three blocks\")"),
    ("docs/audit.md", "SET VARIABLE cloudtrail", "tests/duckdb.rs", "expect(\"three blocks\")"),
    ("docs/kubernetes.md", "# values.yaml", "tests/chart.rs", "```yaml\\n# values.yaml\\n"),
    ("docs/telemetry.md", "receivers:", "tests/export.rs", "```yaml\\nreceivers:"),
    (
        "docs/telemetry.md",
        "env:",
        "tests/snippets.rs",
        "fn the_variables_of_a_pod_are_those_of_the_manifests",
    ),
];
/// Nothing in it can be checked.
const PICTURE: &str = "a picture";

/// Options in prose that are another program's, and whose.
const OTHER_OPTIONS: &[(&str, &str, &str)] = &[
    ("CONTRIBUTING.md", "--no-fail-fast", "cargo test"),
    ("deploy/enclave/README.md", "--aws-access-key-id", "kmstool_enclave_cli"),
    ("deploy/enclave/README.md", "--proxy-port", "kmstool_enclave_cli"),
    (
        "tests/kms-emulator/README.md",
        "--attestation-root",
        "kms-emulator: tests/kms-emulator/tests/program.rs",
    ),
    ("tests/kms-emulator/README.md", "--recipient-form", "kms-emulator: tests/kms-emulator/tests/program.rs"),
];
