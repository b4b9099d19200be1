//! Proves: the command line says what it does, refuses a wrong configuration with 64 and one line, and `dev`, `call`,
//! `check` and `health` work together as the README tells.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use kms_emulator::{Emulator, EmulatorConfig, KeySpec};
use serde_json::Value;
use support::process::{Process, binary, write_config};

fn key_broker(arguments: &[&str]) -> Output {
    Command::new(binary())
        .args(arguments)
        .env("AWS_ACCESS_KEY_ID", "AKIATESTEXAMPLE00000")
        .env("AWS_SECRET_ACCESS_KEY", "test-only")
        .output()
        .expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn help_teaches() {
    for (name, arguments) in [
        ("help", &["--help"][..]),
        ("help_serve", &["serve", "--help"]),
        ("help_dev", &["dev", "--help"]),
        ("help_call", &["call", "--help"]),
        ("help_call_decrypt", &["call", "decrypt", "--help"]),
        ("help_check", &["check", "--help"]),
        ("help_health", &["health", "--help"]),
        ("help_admin_evict", &["admin", "evict", "--help"]),
    ] {
        let output = key_broker(arguments);
        assert!(output.status.success());
        insta::assert_snapshot!(name, text(&output.stdout));
    }
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(text(&key_broker(&["-V"]).stdout), format!("key-broker {version}\n"));
    let told = text(&key_broker(&["--version"]).stdout);
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines[0], format!("key-broker {version}"));
    assert!(lines[1].starts_with("commit: ") && lines[2].contains("dev"), "{told}");
}

/// The workspace has other programs, too: `cargo run` means the broker, and without being asked it builds no emulator.
#[test]
fn cargo_run_is_the_broker_and_the_safe_build() {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("it runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let members = array(&metadata["workspace_default_members"]);
    let packages = array(&metadata["packages"]);
    let programs: Vec<_> = packages
        .iter()
        .filter(|package| members.contains(&package["id"]))
        .flat_map(|package| array(&package["targets"]))
        .filter(|target| array(&target["kind"]).contains(&Value::from("bin")))
        .map(|target| target["name"].clone())
        .collect();
    assert_eq!(programs, ["key-broker"]);
    let broker = packages.iter().find(|package| package["name"] == "key-broker").expect("the package");
    assert_eq!(array(&broker["features"]["default"]), Vec::<Value>::new());
}

#[test]
fn a_wrong_configuration_is_64_and_one_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("key-broker.toml");
    let path = config.to_str().expect("a path");
    for text_of_file in [None, Some("[listen]\nunix = { path = \"s\", moed = \"0600\" }"), Some("not toml")] {
        if let Some(contents) = text_of_file {
            fs::write(&config, contents).expect("writes");
        }
        for command in ["serve", "check"] {
            let output = key_broker(&[command, "--config", path]);
            assert_eq!(output.status.code(), Some(64), "{command}");
            let error = text(&output.stderr);
            assert_eq!(error.lines().count(), 1, "{error}");
            assert!(error.starts_with("key-broker: ") && error.contains("key-broker.toml"), "{error}");
        }
    }
}

/// `tcp` meant mutual TLS in one place and plaintext in another: whoever still writes it is told what to
/// write.
#[test]
fn the_old_word_tcp_is_refused_with_what_to_write() {
    let address = "127.0.0.1:1";
    for arguments in [
        &["health", "--tcp", address][..],
        &["call", "generate-random", "--tcp", address],
        &["check", "--as", "unknown", "--transport", "tcp"],
    ] {
        let output = key_broker(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        let told = text(&output.stderr);
        assert!(told.contains("insecure") && told.contains("tls"), "{told}");
    }
    let incomplete = key_broker(&["health", "--tls", address]);
    assert!(text(&incomplete.stderr).contains("--ca <FILE>"), "{}", text(&incomplete.stderr));
}

/// Neither is a file that no client finds: nothing is made.
#[tokio::test]
async fn abstract_sockets_and_addresses_are_refused_with_what_to_write() {
    let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
    for (path, why) in [
        ("@broker", "abstract socket"),
        ("\\u0000broker", "abstract socket"),
        ("unix-abstract:broker", "abstract socket"),
        ("unix:broker.sock", "write the path alone"),
        ("unix:///run/broker.sock", "write the path alone"),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let config = write_config(dir.path(), &emulator.endpoint_url(), "");
        let good = fs::read_to_string(&config).expect("the configuration");
        let changed = good.replace("\"broker.sock\"", &format!("\"{path}\""));
        assert_ne!(good, changed);
        fs::write(&config, changed).expect("writes");
        let before = fs::read_dir(dir.path()).expect("a directory").count();
        let config = config.to_str().expect("a path");
        for command in ["check", "serve"] {
            let output = key_broker(&[command, "--config", config]);
            assert_eq!(output.status.code(), Some(64), "{command} {path}");
            let told = text(&output.stderr);
            assert!(told.contains("listen.unix.path") && told.contains(why), "{told}");
        }
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), before);
        let path = path.replace("\\u0000", "@");
        for arguments in [&["health", "--unix", &path][..], &["call", "generate-random", "--unix", &path]] {
            let output = key_broker(arguments);
            let told = text(&output.stderr);
            assert!(!output.status.success() && told.contains("is not a path"), "{told}");
        }
    }
}

#[tokio::test]
async fn a_machine_without_certificate_authorities_is_told_so() {
    let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
    let dir = tempfile::tempdir().expect("a directory");
    let config = write_config(dir.path(), &emulator.endpoint_url(), "");
    let mut command = Command::new(binary());
    command.args(["check", "--config"]).arg(&config).env_remove("SSL_CERT_DIR");
    let output = command.env("SSL_CERT_FILE", "/dev/null").output().expect("runs");
    assert_eq!(output.status.code(), Some(64));
    let told = text(&output.stderr);
    assert!(told.contains("SSL_CERT_FILE") && told.trim_end().lines().count() == 1, "{told}");
}

/// "Cannot tell" is a verdict, and 2 means nothing else.
#[test]
fn a_slip_in_arguments_is_64_in_every_command() {
    for arguments in [
        &["--typo"][..],
        &["serve", "--typo"],
        &["check", "--as"],
        &["call", "decrypt"],
        &["health", "--timeout-ms", "soon"],
        &["admin", "evict"],
        &["audit", "verify", "--typo"],
        &["audit", "reconcile"],
        &["audit", "cat", "--since", "yesterday"],
        &["completion", "tcsh"],
        &["nothing"],
        &[],
    ] {
        let output = key_broker(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn completion_and_man_pages_are_of_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&key_broker(&["completion", shell]).stdout);
        assert!(script.contains("reconcile") && script.contains("evict"), "{shell}");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let output = key_broker(&["man", dir.path().join("man1").to_str().expect("a path")]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for page in
        ["key-broker.1", "key-broker-serve.1", "key-broker-audit-verify.1", "key-broker-admin-evict.1"]
    {
        assert!(dir.path().join("man1").join(page).exists(), "{page}");
    }
}

/// What is in the way is named with the key of the configuration and the next step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_the_way_is_named() {
    let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let taken = taken.local_addr().expect("an address").to_string();
    let mut told = Vec::new();
    let good = "unix = { path = \"broker.sock\", mode = \"0600\" }";
    for (what, from, to) in [
        ("no folder", good, "unix = { path = \"nowhere/broker.sock\" }"),
        ("a file as folder", good, "unix = { path = \"policy.cedar/broker.sock\" }"),
        ("a file", good, "unix = { path = \"policy.cedar\" }"),
        ("a port in use", good, &format!("insecure_tcp = \"{taken}\"")),
        ("journal: a file", "\"journal\"", "\"policy.cedar\""),
        ("journal: nowhere", "\"journal\"", "\"/proc/key-broker/journal\""),
        ("no address of ours", "[kms]", "[telemetry]\nhttp = \"192.0.2.1:9464\"\n[kms]"),
        (
            "no key",
            "[audit]",
            "[audit]\nstore = { directory = \"t\" }\nsigning = { kms_key_id = \"alias/none\" }",
        ),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let config = write_config(dir.path(), &emulator.endpoint_url(), "");
        let before = fs::read_to_string(&config).expect("reads");
        let changed = before.replace(from, to);
        assert_ne!(before, changed, "{what}");
        fs::write(&config, changed).expect("writes");
        let path = config.to_str().expect("a path").to_owned();
        let output = tokio::task::block_in_place(|| key_broker(&["serve", "--config", &path]));
        let last = text(&output.stderr).lines().last().unwrap_or_default().to_owned();
        let line = last.replace(dir.path().to_str().expect("a path"), "DIR").replace(&taken, "ADDRESS");
        told.push(format!("{what}: {}: {line}", output.status.code().unwrap_or(-1)));
    }
    let user = format!("uid {}", rustix::process::geteuid().as_raw());
    insta::assert_snapshot!(told.join("\n").replace(&user, "uid UID"));
}

/// What people type wrong, and what answers instead of a broker.
#[test]
fn clients_say_what_is_wrong_and_where() {
    let dir = tempfile::tempdir().expect("a directory");
    let dev = Process::dev(dir.path());
    let folder = dir.path().to_str().expect("a path");
    let facts = json_file(&dir.path().join("dev.json"));
    let http =
        facts["kms_endpoint"].as_str().and_then(|url| url.strip_prefix("http://")).expect("an address");
    let random = &["call", "generate-random"][..];
    let mut told = Vec::new();
    for arguments in [
        &[
            "call",
            "generate-data-key",
            "--dir",
            folder,
            "--key-id",
            "alias/dev",
            "--context",
            "a=b",
            "--context",
            "a=c",
        ][..],
        &["call", "generate-data-key", "--dir", folder, "--key-id", "dev"],
        &[random, &["--insecure-tcp", "192.0.2.1:7890"]].concat(),
        &[random, &["--insecure-tcp", http]].concat(),
        &[random, &["--unix", "/nowhere/broker.sock"]].concat(),
        &[random, &["--vsock", "3"]].concat(),
        &["admin", "status", "--unix", "/nowhere/admin.sock"],
        &["admin", "evict", "--dir", folder, "--key-id", "no key"],
        &["dev", "--dir", folder],
    ] {
        let output = key_broker(arguments);
        let said = text(&output.stderr);
        let mut said =
            said.lines().filter(|line| line.starts_with("key-broker: ") || line.starts_with("error: "));
        let said = said.next_back().unwrap_or_default().replace(folder, "DIR").replace(http, "ADDRESS");
        told.push(format!("{}: {said}", output.status.code().unwrap_or(-1)));
    }
    let mut settings = insta::Settings::clone_current();
    settings.add_filter("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID");
    settings.add_filter("\\(.*\\)\n", "(CAUSE)\n");
    settings.bind(|| insta::assert_snapshot!(told.join("\n")));
    drop(dev);
}

#[test]
fn dev_call_and_health_work_together() {
    let dir = tempfile::tempdir().expect("a directory");
    let dev = Process::dev(dir.path());
    let folder = dir.path().to_str().expect("a path");
    let call = |arguments: &[&str]| key_broker(&[&["call"], arguments, &["--dir", folder]].concat());

    let facts = json_file(&dir.path().join("dev.json"));
    assert_eq!((&facts["region"], &facts["account"]), (&"us-west-2".into(), &"111122223333".into()));
    let key = stdout_json(&call(&["generate-data-key", "--key-id", "alias/dev", "--context", "tenant=acme"]));
    assert_eq!(key["keyId"], facts["keys"]["alias/dev"]);

    let blob = key["ciphertextBlob"].as_str().expect("base64");
    let decrypted = stdout_json(&call(&["decrypt", "--ciphertext-blob", blob, "--context", "tenant=acme"]));
    assert_eq!(decrypted["plaintext"], key["plaintext"]);
    let wrong = call(&["decrypt", "--ciphertext-blob", blob, "--context", "tenant=evil"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("[reason INVALID_CIPHERTEXT]"), "{}", text(&wrong.stderr));
    assert!(wrong.stdout.is_empty());

    stdout_json(&call(&[
        "generate-data-key-without-plaintext",
        "--key-id",
        "alias/dev",
        "--key-spec",
        "AES_128",
    ]));
    stdout_json(&call(&["generate-random", "--number-of-bytes", "8"]));
    assert_eq!(stdout_json(&call(&["describe-key", "--key-id", "alias/dev-signing"]))["keySpec"], "RSA_2048");
    assert_eq!(text(&key_broker(&["health", "--dir", folder]).stdout), "SERVING\n");
    let status = stdout_json(&key_broker(&["admin", "status", "--dir", folder]));
    assert_eq!((&status["journalHealthy"], &status["draining"]), (&true.into(), &false.into()));
    let entries = text(&key_broker(&["admin", "entries", "--dir", folder]).stdout);
    assert!(entries.lines().count() > 0 && entries.contains("\"keyArn\""), "{entries}");
    let evicted = stdout_json(&key_broker(&["admin", "evict", "--dir", folder, "--all"]));
    assert_eq!(evicted["evicted"], entries.lines().count());
    assert_eq!(text(&key_broker(&["admin", "entries", "--dir", folder]).stdout), "");
    let socket = dir.path().join("broker.sock");
    assert!(key_broker(&["health", "--unix", socket.to_str().expect("a path")]).status.success());
    let config = dir.path().join("key-broker.toml");
    assert!(key_broker(&["health", "--config", config.to_str().expect("a path")]).status.success());

    dev.signal(rustix::process::Signal::INT);
    assert!(dev.wait().success());
    let health = key_broker(&["health", "--dir", folder]);
    assert_eq!(health.status.code(), Some(1));
    assert!(text(&health.stderr).contains("is it running there?"), "{}", text(&health.stderr));
    // Six calls of the workload's, and three of the operator's; to ask for the status leaves no record.
    assert_eq!(support::dev::all_records(dir.path()).outcomes().values().sum::<usize>(), 9);

    // Keys stay from run to run, and a policy of one's own.
    let policy = dir.path().join("policy.cedar");
    let own = fs::read_to_string(&policy).expect("reads") + "// mine\n";
    fs::write(&policy, &own).expect("writes");
    let dev = Process::dev(dir.path());
    assert_eq!(fs::read_to_string(&policy).expect("reads"), own);
    let again = stdout_json(&call(&["decrypt", "--ciphertext-blob", blob, "--context", "tenant=acme"]));
    assert_eq!(again["plaintext"], key["plaintext"]);
    drop(dev);
}

#[test]
fn check_tells_what_is_wrong_and_changes_nothing() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let emulator = runtime.block_on(Emulator::start(EmulatorConfig::default())).expect("the emulator starts");
    emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
    let dir = tempfile::tempdir().expect("a directory");
    let config = write_config(dir.path(), &emulator.endpoint_url(), "");
    let path = config.to_str().expect("a path");
    let good = key_broker(&["check", "--config", path, "--key-id", "alias/dev"]);
    assert_eq!(
        text(&good.stdout).lines().filter(|line| line.starts_with("ok ")).count(),
        9,
        "{}",
        text(&good.stdout)
    );
    assert!(good.status.success());
    assert!(!dir.path().join("journal").exists(), "check changes nothing");

    let bad = key_broker(&["check", "--config", path, "--key-id", "alias/none", "--key-id", "alias/dev"]);
    assert_eq!(bad.status.code(), Some(1));
    let report = text(&bad.stdout);
    assert!(
        report.contains("FAILED     kms           GenerateDataKey under alias/none: NotFoundException"),
        "{report}"
    );
    assert_eq!(
        emulator.calls().iter().filter(|call| !call.dry_run && call.operation == "GenerateDataKey").count(),
        0
    );
    // A question about one key is not answered for others.
    let other = ["check", "--config", path, "--as", "unix:uid/1", "--key-id", "alias/dev"];
    let other = key_broker(&other);
    assert_eq!(other.status.code(), Some(64));
    assert!(text(&other.stderr).contains("with --as, write --key alias/dev"), "{}", text(&other.stderr));
}

#[test]
fn check_tells_whether_the_trail_could_be_delivered() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let emulator = runtime.block_on(Emulator::start(EmulatorConfig::default())).expect("the emulator starts");
    emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
    emulator.ensure_key("alias/signing", KeySpec::Rsa2048).expect("a key");
    let dir = tempfile::tempdir().expect("a directory");
    let report = |store: &str, signing: &str, own: &str| {
        let trail = format!(
            "store = {{ {store} }}\nsigning = {{ kms_key_id = \"{signing}\" }}\nkms_key_id = \"{own}\""
        );
        let config = write_config(dir.path(), &emulator.endpoint_url(), &trail);
        let output = key_broker(&["check", "--config", config.to_str().expect("a path")]);
        let lines = text(&output.stdout).replace(dir.path().to_str().expect("a path"), "DIR");
        let of_the_trail = |line: &&str| ["trail", "signing"].iter().any(|word| line[11..].starts_with(word));
        let lines: Vec<&str> = lines.lines().filter(of_the_trail).collect();
        format!("exit {}\n{}", output.status.code().unwrap_or(-1), lines.join("\n"))
    };
    let directory = "directory = \"trail\", bucket = \"logs\"";
    let reports = [
        report(directory, "alias/signing", "alias/dev"),
        report("s3_bucket = \"logs\"", "alias/dev", "alias/signing"),
        report("directory = \"policy.cedar\"", "alias/none", "alias/none"),
    ];
    assert!(!dir.path().join("trail").exists(), "check changes nothing");
    let mut settings = insta::Settings::clone_current();
    settings.add_filter("[0-9a-f]{32}", "FINGERPRINT");
    settings.add_filter("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID");
    settings.bind(|| insta::assert_snapshot!(reports.join("\n\n")));
    let really = |operation| emulator.calls().iter().any(|call| call.operation == operation && !call.dry_run);
    assert!(!really("GenerateDataKey") && !really("Sign"));
}

fn stdout_json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON on stdout")
}

fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("there")).expect("JSON")
}
