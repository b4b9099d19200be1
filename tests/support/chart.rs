//! The objects that deploy/chart makes of values, as helm renders them; and the program with what a container of theirs has.
#![allow(dead_code, reason = "every test file uses another part of this one")]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::manifests::{deploy, document, objects};
use crate::peers::{Peers, root};

pub(crate) const ROLE: &str = "arn:aws:iam::111122223333:role/orders-key-broker";
pub(crate) const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// What helm says to each request.
pub(crate) fn helm(requests: &[Value]) -> Vec<Result<Value, String>> {
    let peers = Peers::install(&["helm"]);
    let mut command = peers.command("helm/bin/python");
    command.arg(root().join("tests/peers/helm/chart.py")).arg(deploy().join("chart"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let lines: Vec<_> = requests.iter().map(Value::to_string).collect();
    child.stdin.take().expect("its input").write_all(lines.join("\n").as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    let answers = String::from_utf8(output.stdout).expect("UTF-8");
    let answers = answers.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let answers: Vec<_> = answers
        .map(|mut it| it["error"].as_str().map(str::to_owned).map_or_else(|| Ok(it["ok"].take()), Err))
        .collect();
    assert_eq!(answers.len(), requests.len());
    answers
}

/// The objects that the chart makes of each.
pub(crate) fn rendered(values: &[Value]) -> Vec<Vec<Value>> {
    let requests: Vec<_> = values.iter().map(|it| json!({ "do": "render", "values": it })).collect();
    helm(&requests).into_iter().map(|it| in_files(&it.expect("it renders"))).collect()
}

fn in_files(files: &Value) -> Vec<Value> {
    let files = files.as_object().expect("files").iter();
    // That one is for people.
    let manifests = files.filter(|(name, _)| !name.ends_with("/NOTES.txt"));
    manifests.flat_map(|(_, text)| objects(text.as_str().expect("text"))).collect()
}

pub(crate) fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|it| it["kind"] == kind).collect()
}

pub(crate) fn one<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let [it] = of_kind(objects, kind).try_into().unwrap_or_else(|them| panic!("{kind}: {them:#?}"));
    it
}

/// The values of deploy/kubernetes/base/config.yaml, with what is given in place of or beside them.
pub(crate) fn values(more: &Value) -> Value {
    let base = document("kubernetes/base/config.yaml", "ConfigMap");
    let mut values = json!({
        "role": ROLE,
        "serviceAccount": "orders",
        "config": {
            "name": "orders-key-broker", "region": "us-west-2", "bucket": "my-trail", "trail": "orders",
            "policy": base["data"]["policy.cedar"],
        },
    });
    merge(&mut values, more);
    values
}

pub(crate) fn merge(into: &mut Value, more: &Value) {
    match (into.as_object_mut(), more.as_object()) {
        (Some(into), Some(more)) => {
            more.iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        _ => *into = more.clone(),
    }
}

/// All that the chart has.
pub(crate) fn everything() -> Value {
    values(&json!({
        "image": { "digest": DIGEST },
        "injection": { "enabled": true },
        "podMonitor": { "enabled": true, "labels": { "release": "prometheus" } },
        "prometheusRule": { "enabled": true, "runbooks": "https://wiki.example.com/runbooks" },
        "tls": {
            "enabled": true, "secret": "orders-key-broker-tls",
            "clients": [{ "podSelector": { "matchLabels": { "app.kubernetes.io/name": "orders" } } }],
            "scrapers": [{ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "monitoring" } } }],
        },
        "auditor": {
            "enabled": true, "role": "arn:aws:iam::111122223333:role/orders-auditor",
            "cloudtrail": { "source": "s3://my-cloudtrail/AWSLogs/111122223333/CloudTrail/us-west-2" },
        },
        "watch": { "enabled": true, "role": "arn:aws:iam::111122223333:role/orders-watch" },
    }))
}

pub(crate) fn pod_of(object: &Value) -> &Value {
    let spec = &object["spec"];
    match object["kind"].as_str() {
        Some("CronJob") => &spec["jobTemplate"]["spec"]["template"]["spec"],
        Some("Pod") => spec,
        _ => &spec["template"]["spec"],
    }
}

/// The program with what a container of the chart would have, in a folder of the test's own, and with no AWS.
pub(crate) fn run(objects: &[Value], arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a folder");
    let data = &one(objects, "ConfigMap")["data"];
    for (file, text) in data.as_object().expect("files") {
        // There is no certificate here.
        let mut settings: toml::Table = match file.as_str() {
            "key-broker.toml" => toml::from_str(text.as_str().expect("text")).expect("TOML"),
            _ => toml::Table::new(),
        };
        let text = match settings.get_mut("listen") {
            None => text.as_str().expect("text").to_owned(),
            Some(listen) => {
                listen.as_table_mut().expect("a table").remove("tls");
                settings.to_string()
            }
        };
        fs::write(dir.path().join(file), text).expect("writes");
    }
    fs::write(dir.path().join("token"), "token").expect("writes");
    fs::write(dir.path().join("records.json"), r#"{"Records":[]}"#).expect("writes");
    let here = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let arguments = arguments.iter().map(|it| match *it {
        "/cloudtrail" => here(&dir.path().join("records.json")),
        it => it
            .replace("/etc/key-broker/", &format!("{}/", here(dir.path())))
            .replace("/var/lib/key-broker/", &format!("{}/", here(dir.path()))),
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_key-broker"));
    command.args(arguments).env("KEY_BROKER_POD_NAME", "orders-0").env("AWS_ROLE_ARN", ROLE);
    command
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", dir.path().join("token"))
        .env("AWS_EC2_METADATA_DISABLED", "true");
    // Nobody listens there.
    command.env("AWS_ENDPOINT_URL", "http://127.0.0.1:1").env_remove("AWS_ACCESS_KEY_ID");
    command.output().expect("it runs")
}
