//! Proves: the chart makes what deploy/kubernetes has (container, settings, injection) and the alerts of deploy/prometheus, whatever its
//! values; the journal's bound is below its volume; the program takes each configuration and each job's arguments, and ends with the
//! exit codes that jobs and alerts expect; objects pass the strict schemas; and values that would lose a journal, open a port to all, or
//! mean nothing are refused.

#[path = "support/manifests.rs"]
mod manifests;
mod peers;
mod support;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use manifests::{BEYOND_THE_BOUND, BROKER, assert_restricted, bytes, deploy, document, list, named, objects};
use peers::{Peers, printed, trivy};
use serde_json::{Value, json};
use support::dev_folder::{Folder, text};

const ROLE: &str = "arn:aws:iam::111122223333:role/orders-key-broker";
const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// What helm says to each request.
fn helm(requests: &[Value]) -> Vec<Result<Value, String>> {
    let peers = Peers::install(&["helm"]);
    let mut command = peers.command("helm/bin/python");
    command.arg(peers::root().join("tests/peers/helm/chart.py")).arg(deploy().join("chart"));
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
fn rendered(values: &[Value]) -> Vec<Vec<Value>> {
    let requests: Vec<_> = values.iter().map(|it| json!({ "do": "render", "values": it })).collect();
    helm(&requests).into_iter().map(|it| in_files(&it.expect("it renders"))).collect()
}

fn in_files(files: &Value) -> Vec<Value> {
    let files = files.as_object().expect("files").iter();
    // That one is for people.
    let manifests = files.filter(|(name, _)| !name.ends_with("/NOTES.txt"));
    manifests.flat_map(|(_, text)| objects(text.as_str().expect("text"))).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|it| it["kind"] == kind).collect()
}

fn one<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let [it] = of_kind(objects, kind).try_into().unwrap_or_else(|them| panic!("{kind}: {them:#?}"));
    it
}

/// The values of deploy/kubernetes/base/config.yaml, with what is given in place of or beside them.
fn values(more: &Value) -> Value {
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

fn merge(into: &mut Value, more: &Value) {
    match (into.as_object_mut(), more.as_object()) {
        (Some(into), Some(more)) => {
            more.iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        _ => *into = more.clone(),
    }
}

/// All that the chart has.
fn everything() -> Value {
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

fn pod_of(object: &Value) -> &Value {
    let spec = &object["spec"];
    match object["kind"].as_str() {
        Some("CronJob") => &spec["jobTemplate"]["spec"]["template"]["spec"],
        Some("Pod") => spec,
        _ => &spec["template"]["spec"],
    }
}

fn settings(objects: &[Value]) -> (toml::Table, String) {
    let data = &one(objects, "ConfigMap")["data"];
    let text = |file: &str| data[file].as_str().expect("a file");
    (toml::from_str(text("key-broker.toml")).expect("TOML"), text("policy.cedar").to_owned())
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn helm_finds_nothing_wrong_and_packs_it() {
    let all = everything();
    let [lint, plain, packed] =
        ["lint", "render", "render-packed"].map(|it| json!({ "do": it, "values": all }));
    let [lint, plain, packed] = helm(&[lint, plain, packed]).try_into().expect("three");
    let lint = lint.expect("messages");
    assert_eq!(lint["errors"], json!([]), "{lint:#}");
    // The files that the chart only links to are in its archive.
    assert_eq!(plain, packed);
    let chart = &manifests::documents("chart/Chart.yaml")[0];
    for key in ["category", "license", "images", "links", "prerelease"] {
        assert!(chart["annotations"][format!("artifacthub.io/{key}")].is_string(), "{key}");
    }
    assert!(
        chart["annotations"]["artifacthub.io/images"]
            .as_str()
            .is_some_and(|it| it.contains("image: registry"))
    );
}

/// The same container and volumes as in the Deployment of deploy/kubernetes, where the chart makes pods with a broker itself.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn the_broker_is_that_of_the_manifests() {
    let deployment = document("kubernetes/deployment/deployment.yaml", "Deployment");
    let expected = named(&pod_of(&deployment)["initContainers"], BROKER);
    let [plain, all, bigger] = rendered(&[
        values(&json!({})),
        everything(),
        values(&json!({ "journal": { "sizeMi": 1000 }, "role": "", "image": { "tag": "2" } })),
    ])
    .try_into()
    .expect("three");
    let test = pod_of(one(&plain, "Pod"));
    assert_eq!(*named(&test["initContainers"], BROKER), *expected);
    assert_eq!(test["volumes"], pod_of(&deployment)["volumes"]);
    assert_eq!(test["serviceAccountName"], pod_of(&deployment)["serviceAccountName"]);

    let mut tls = named(&pod_of(one(&all, "Deployment"))["containers"], BROKER).clone();
    assert_eq!(tls["image"], format!("registry.example.com/key-broker@{DIGEST}"));
    assert_eq!(
        tls["ports"].as_array_mut().expect("ports").pop(),
        Some(json!({ "name": "kb-tls", "containerPort": 7443 }))
    );
    let mount = tls["volumeMounts"].as_array_mut().expect("mounts").pop().expect("one");
    assert_eq!((&mount["name"], &mount["readOnly"]), (&json!("key-broker-tls"), &json!(true)));
    tls["image"] = expected["image"].clone();
    tls["restartPolicy"] = json!("Always");
    assert_eq!(tls, *expected);

    // Without a role, the SDK's other ways; a larger journal everywhere.
    let other = pod_of(one(&bigger, "Pod"));
    let broker = named(&other["initContainers"], BROKER);
    assert_eq!(broker["image"], "registry.example.com/key-broker:2");
    assert!(
        list(&broker["env"]).iter().all(|it| it["name"].as_str().is_some_and(|it| !it.starts_with("AWS_")))
    );
    assert_eq!(broker["resources"]["requests"]["ephemeral-storage"], "1000Mi");
    assert_eq!(named(&other["volumes"], "key-broker-journal")["emptyDir"]["sizeLimit"], "1000Mi");
}

/// Every pod of the chart's own would pass `restricted`, has no token for the API server, and only brokers and auditors one for STS.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn every_pod_is_restricted() {
    let [all] = rendered(&[everything()]).try_into().expect("one");
    let pods: Vec<_> = all
        .iter()
        .filter(|it| ["Deployment", "CronJob", "Pod"].contains(&it["kind"].as_str().unwrap_or("")))
        .collect();
    assert_eq!(pods.len(), 5);
    for object in pods {
        let pod = pod_of(object);
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        for container in list(&pod["initContainers"]).iter().chain(list(&pod["containers"])) {
            assert_restricted(container);
            let reads = list(&container["volumeMounts"]).iter().any(|it| it["name"] == "key-broker-token");
            assert_eq!(reads, container["name"] != "test", "{container:#}");
        }
    }
}

/// The settings are those of deploy/kubernetes, and what is told in TOML wins; the program takes them.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn the_settings_are_those_of_the_manifests() {
    let base = document("kubernetes/base/config.yaml", "ConfigMap");
    let told = "[limits]\ndrain_seconds = 20\n[cache]\n";
    let told = told.replace("[cache]\n", "[listen.admin]\npath = \"/run/key-broker/admin.sock\"\n");
    let [plain, own, tls] =
        rendered(&[values(&json!({})), values(&json!({ "config": { "settings": told } })), everything()])
            .try_into()
            .expect("three");
    let (expected, policy) = settings(&[base]);
    assert_eq!(settings(&plain), (expected.clone(), policy));

    let (mut changed, _) = settings(&own);
    assert_eq!(changed["limits"]["drain_seconds"].as_integer(), Some(20));
    changed.insert("limits".to_owned(), expected["limits"].clone());
    let listen = changed["listen"].as_table_mut().expect("a table");
    assert_eq!(
        listen.remove("admin").expect("it is there")["path"].as_str(),
        Some("/run/key-broker/admin.sock")
    );
    assert_eq!(changed, expected);

    let (mut with_tls, _) = settings(&tls);
    let tls = with_tls["listen"].as_table_mut().expect("a table").remove("tls").expect("it is there");
    assert_eq!(tls["address"].as_str(), Some("0.0.0.0:7443"));
    assert_eq!(with_tls, expected);
    for objects in [&plain, &own] {
        let output = run(objects, &["check", "--offline", "--config", "/etc/key-broker/key-broker.toml"]);
        assert!(output.status.success(), "{output:?}");
    }
}

/// Whatever the size: the broker refuses before the kubelet evicts.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn the_journals_bound_is_below_its_volume() {
    let sizes: Vec<u64> = (0..40).map(|it| 320 + it * it * it * 17).chain([1 << 20]).collect();
    let wanted: Vec<_> = sizes.iter().map(|size| values(&json!({ "journal": { "sizeMi": size } }))).collect();
    for (size, objects) in sizes.into_iter().zip(rendered(&wanted)) {
        let volume = bytes(
            &named(&pod_of(one(&objects, "Pod"))["volumes"], "key-broker-journal")["emptyDir"]["sizeLimit"],
        );
        assert_eq!(volume, size << 20);
        let held = settings(&objects).0["audit"]["max_undelivered_bytes"].as_integer().expect("a number");
        let held = u64::try_from(held).expect("a size");
        assert!(held + BEYOND_THE_BOUND <= volume / 5 * 4, "{held} of {volume}");
        assert!(held >= 100_000_000, "the program takes no less: {held}");
    }
}

/// The injection is that of deploy/kubernetes, with this image and size; the alerts are those of deploy/prometheus, with this address.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn injection_and_alerts_are_the_one_files() {
    let here = json!({ "prometheusRule": { "runbooks": "https://wiki.example.com/kb" }, "journal": { "sizeMi": 640 } });
    let mut values = everything();
    merge(&mut values, &here);
    let alone = json!({ "injection": { "enabled": true }, "config": { "enabled": false } });
    let [all, alone] = rendered(&[values, alone]).try_into().expect("two");
    assert_eq!(alone.len(), 2, "policy and binding: {alone:#?}");
    let policy = manifests::text("kubernetes/injection/policy.yaml");
    let (image, size) = ("registry.example.com/key-broker:0.1.0", "\"512Mi\"");
    assert_eq!((policy.matches(image).count(), policy.matches(size).count()), (1, 2));
    let policy = policy
        .replace(image, &format!("registry.example.com/key-broker@{DIGEST}"))
        .replace(size, "\"640Mi\"");
    for expected in objects(&policy) {
        assert_eq!(*one(&all, expected["kind"].as_str().expect("a kind")), expected);
    }
    let alerts = manifests::text("prometheus/alerts.yaml");
    let alerts = alerts.replace("https://runbooks.example.com/", "https://wiki.example.com/kb/");
    assert_eq!(one(&all, "PrometheusRule")["spec"], objects(&alerts)[0]);
    assert!(!one(&all, "PrometheusRule").to_string().contains("runbooks.example.com"));
    let monitor = one(&all, "PodMonitor");
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    assert_eq!(
        monitor["spec"]["selector"]["matchLabels"],
        one(&all, "Deployment")["spec"]["selector"]["matchLabels"]
    );
}

/// Over TCP, only those may connect, and read metrics, who are named.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn the_network_policy_opens_two_ports_to_those_who_are_named() {
    let mut quiet = everything();
    quiet["tls"]["scrapers"] = json!([]);
    let [all, quiet] = rendered(&[everything(), quiet]).try_into().expect("two");
    let spec = &one(&all, "NetworkPolicy")["spec"];
    assert_eq!(spec["podSelector"], one(&all, "Deployment")["spec"]["selector"]);
    assert_eq!(spec["podSelector"]["matchLabels"], one(&all, "Service")["spec"]["selector"]);
    assert_eq!(spec["policyTypes"], json!(["Ingress"]));
    let named = everything()["tls"].clone();
    assert_eq!(
        spec["ingress"],
        json!([
            { "ports": [{ "port": "kb-tls" }], "from": named["clients"] },
            { "ports": [{ "port": "kb-telemetry" }], "from": named["scrapers"] },
        ])
    );
    // No rule, and not one without `from`, which would mean everybody.
    assert_eq!(list(&one(&quiet, "NetworkPolicy")["spec"]["ingress"]).len(), 1);
}

/// The auditor is off unless asked for. Its jobs have an account and a role of their own; their arguments are the program's; what is a
/// verdict is not tried again, and the alerts are of these jobs.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn the_auditor_is_somebody_else_and_off() {
    let mut without = everything();
    without["auditor"]["cloudtrail"] = json!({});
    let [plain, all, without] =
        rendered(&[values(&json!({})), everything(), without]).try_into().expect("three");
    assert_eq!(of_kind(&plain, "CronJob"), [&Value::Null; 0]);
    assert_eq!(of_kind(&without, "CronJob").len(), 2, "verify and watch alone");
    let alerts = manifests::text("prometheus/alerts.yaml");
    let jobs = of_kind(&all, "CronJob");
    assert_eq!(jobs.len(), 3);
    for job in jobs {
        let pod = pod_of(job);
        let is_watch = pod["containers"][0]["name"] == "watch";
        let accounts = of_kind(&all, "ServiceAccount");
        let account =
            accounts.iter().find(|account| account["metadata"]["name"] == pod["serviceAccountName"]);
        let name = account.expect("its own")["metadata"]["name"].as_str().expect("a name");
        assert_eq!(name.ends_with("-audit-watch"), is_watch, "{name}: the watch has one of its own");
        assert_ne!(pod["serviceAccountName"], pod_of(one(&all, "Deployment"))["serviceAccountName"]);
        let container = &pod["containers"][0];
        let command = container["name"].as_str().expect("a name");
        let section = if is_watch { "watch" } else { "auditor" };
        assert_eq!(named(&container["env"], "AWS_ROLE_ARN")["value"], everything()[section]["role"]);
        let rule = &job["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"][0];
        let expected = json!({
            "action": "FailJob", "onExitCodes": { "containerName": command, "operator": "In", "values": [1, 64] },
        });
        assert_eq!(*rule, expected);
        let name = job["metadata"]["name"].as_str().expect("a name");
        assert!(name.len() <= 52, "{name}: a job's name has eleven more");
        assert!(name.ends_with(&format!("-key-broker-audit-{command}")));
        assert!(alerts.contains(&format!(".*key-broker.*-audit-{command}-.*")), "{command}");

        let arguments: Vec<_> =
            list(&container["args"]).iter().map(|it| it.as_str().expect("text")).collect();
        assert_eq!(arguments[..2], ["audit", command]);
        assert!(arguments.contains(if is_watch { &"--state" } else { &"--all-trails" }));
        // AWS's files are of yesterday and today.
        let since = arguments.windows(2).any(|it| it == ["--since", "yesterday"]);
        assert_eq!(since, command == "reconcile");
        let output = run(&all, &arguments);
        // It gets as far as asking for credentials.
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("sts:GetCallerIdentity"), "{output:?}");
    }
    let reading = ["s3:GetObject", "s3:ListBucket", "kms:GetPublicKey", "kms:Decrypt"];
    let asking = ["kms:GetKeyLastUsage", "kms:DescribeKey"];
    for (policy, more) in [("auditor", &asking[..0]), ("watch", &asking)] {
        let path = format!("kubernetes/iam/{policy}-policy.json");
        let policy: Value = serde_json::from_str(&manifests::text(&path)).expect("JSON");
        for statement in list(&policy["Statement"]) {
            let actions = match &statement["Action"] {
                Value::Array(actions) => actions.clone(),
                action => vec![action.clone()],
            };
            for action in actions {
                let action = action.as_str().expect("text");
                assert!(reading.contains(&action) || more.contains(&action), "{path}: {action}");
            }
        }
    }
}

/// AWS's command keeps credentials in its home, as JSON: not among the files that are compared. It asks the STS of the region that it reads.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn the_auditor_reads_nothing_but_awss_files() {
    let [all] = rendered(&[everything()]).try_into().expect("one");
    let pod = pod_of(job(&all, "reconcile"));
    let copier = &pod["initContainers"][0];
    assert_eq!(named(&copier["env"], "AWS_REGION")["value"], "us-west-2");
    let home = &named(&copier["env"], "HOME")["value"];
    let mounted = |container: &Value, path: &Value| -> Option<Value> {
        list(&container["volumeMounts"])
            .iter()
            .find(|it| it["mountPath"] == *path)
            .map(|it| it["name"].clone())
    };
    let volume = mounted(copier, home).expect("the root is read-only");
    assert_eq!(named(&pod["volumes"], volume.as_str().expect("a name"))["emptyDir"]["medium"], "Memory");
    let reader = &pod["containers"][0];
    assert!(list(&reader["volumeMounts"]).iter().all(|it| it["name"] != volume), "{reader:#}");
    assert_eq!(mounted(copier, &json!("/cloudtrail")), mounted(reader, &json!("/cloudtrail")));
    assert!(copier["args"][0].as_str().is_some_and(|it| it.contains("\"/cloudtrail/$day\"")), "{copier:#}");
}

/// The job's command lines as they are, beside the trail of a broker that has run and AWS's files of the same calls.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn the_auditors_command_lines_tell_by_their_exit_codes() {
    let [all] = rendered(&[everything()]).try_into().expect("one");
    let folder = Folder::copy();
    let place = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    fs::create_dir(place("claim")).expect("a folder");
    let audit = |command: &str| {
        let container = &pod_of(job(&all, command))["containers"][0];
        let mut arguments: Vec<_> =
            list(&container["args"]).iter().map(|it| it.as_str().expect("text").to_owned()).collect();
        let config = arguments.iter().position(|it| it == "--config").expect("the configuration");
        // The emulator and the folder of `key-broker dev` in place of AWS.
        arguments.splice(config..config + 2, ["--dir".to_owned(), place(".")]);
        let arguments: Vec<_> = arguments
            .iter()
            .map(|it| {
                it.replace("/var/lib/key-broker", &place("claim")).replace("/cloudtrail", &place("aws"))
            })
            .collect();
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let output = folder.run(&arguments);
        (output.status.code().expect("it ends"), format!("{}{}", text(&output.stdout), text(&output.stderr)))
    };
    for _ in 0..2 {
        let (code, said) = audit("verify");
        assert!(code == 0 && said.contains("SOUND: every trail"), "{said}");
    }
    fs::create_dir(place("aws")).expect("a folder");
    assert_eq!(audit("reconcile").0, 64, "nothing was there to be copied");
    let mut records = folder.kms_records();
    for record in &mut records {
        record["eventID"] = format!("aws {}", record["eventID"]).into();
    }
    let put = |name: &str, records: &[Value]| {
        fs::write(folder.path().join("aws").join(name), json!({ "Records": records }).to_string())
            .expect("writes");
    };
    put("a.json", &records);
    let (code, said) = audit("reconcile");
    assert!(code == 0 && said.contains("matched: "), "{said}");
    put("b.json.gz", &[]);
    fs::write(folder.path().join("aws/c.json.gz"), "half of it").expect("writes");
    assert_eq!(audit("reconcile").0, 2, "cannot tell: that is tried again");
    fs::remove_file(folder.path().join("aws/c.json.gz")).expect("it is there");
    put("a.json", &records[1..]);
    let (code, said) = audit("reconcile");
    // What was called less than fifteen minutes ago may be on its way.
    assert!(code == 0 && said.contains("too new"), "{said}");
    let context = |it: &&mut Value| it["requestParameters"]["encryptionContext"]["tenant"] == "acme";
    let call = records.iter_mut().find(context).expect("a workload's");
    call["requestParameters"]["encryptionContext"]["tenant"] = "evil".into();
    put("a.json", &records);
    let (code, said) = audit("reconcile");
    assert!(code == 1 && said.contains("NOT MATCHED"), "{said}");

    let removed = folder.log_files().pop().expect("a log file");
    fs::remove_file(&removed).expect("it is ours");
    let (code, said) = audit("verify");
    assert!(code == 1 && said.contains("LogFileMissing"), "{said}");
}

fn job<'a>(objects: &'a [Value], command: &str) -> &'a Value {
    let jobs = of_kind(objects, "CronJob").into_iter();
    let mut jobs = jobs.filter(|it| pod_of(it)["containers"][0]["name"] == command);
    jobs.next().unwrap_or_else(|| panic!("no {command}"))
}

/// The values that docs/kubernetes.md shows.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn the_documented_values_are_taken() {
    let page = manifests::text("../docs/kubernetes.md");
    let shown = page
        .split("```yaml\n# values.yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("values");
    let [shown] = objects(&shown.replace("sha256:…", DIGEST)).try_into().expect("one");
    let [objects] = rendered(&[shown]).try_into().expect("one");
    let (settings, policy) = settings(&objects);
    assert_eq!(settings["limits"]["drain_seconds"].as_integer(), Some(20));
    assert!(policy.contains("alias/orders"));
    let output = run(&objects, &["check", "--offline", "--config", "/etc/key-broker/key-broker.toml"]);
    assert!(output.status.success(), "{output:?}");
}

/// More variables are those of every broker, beside the ones that the manifests have.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn more_variables_are_every_brokers() {
    let more = json!({ "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_RESOURCE_ATTRIBUTES": "a=\"b\"" });
    let mut values = everything();
    merge(&mut values, &json!({ "env": more }));
    let [with, without] = rendered(&[values, everything()]).try_into().expect("two");
    let added: Vec<Value> = more
        .as_object()
        .expect("pairs")
        .iter()
        .map(|(name, value)| json!({ "name": name, "value": value }))
        .collect();
    let broker = |objects: &[Value]| pod_of(one(objects, "Deployment"))["containers"][0]["env"].clone();
    let mut expected = broker(&without);
    expected.as_array_mut().expect("a list").extend(added);
    assert_eq!(broker(&with), expected);
    let policy = |objects: &[Value]| {
        one(objects, "MutatingAdmissionPolicy")["spec"]["mutations"][0]["jsonPatch"]["expression"].clone()
    };
    let (with, without) = (policy(&with), policy(&without));
    let (with, without) = (with.as_str().expect("text"), without.as_str().expect("text"));
    let added = ",\n                Object.spec.initContainers.env{name: \"OTEL_EXPORTER_OTLP_ENDPOINT\", value: \"http://collector:4318\"},\n                \
                 Object.spec.initContainers.env{name: \"OTEL_RESOURCE_ATTRIBUTES\", value: \"a=\\\"b\\\"\"}";
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(squeezed(with).replace(&squeezed(added), ""), squeezed(without));
    assert_ne!(with, without);
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn values_that_do_harm_are_refused() {
    let peer = json!([{ "podSelector": {} }]);
    let cases = [
        (json!({ "config": { "bucket": "" } }), "config.bucket: the S3 bucket of the trail"),
        (json!({ "config": { "region": "" } }), "config.region"),
        (json!({ "config": { "policy": "" } }), "config.policy"),
        (json!({ "config": { "settings": "[limits" } }), "config.settings is no TOML"),
        (json!({ "config": { "settings": "audit.max_undelivered_bytes = 1" } }), "journal.sizeMi says it"),
        (json!({ "config": { "bucket": "My_Bucket" } }), "/config/bucket"),
        (json!({ "journal": { "sizeMi": 256 } }), "minimum: got 256, want 320"),
        (json!({ "journal": { "size": "1Gi" } }), "'size' not allowed"),
        (json!({ "image": { "digest": "latest" } }), "/image/digest"),
        (json!({ "role": "arn:aws:iam::111122223333:user/me" }), "/role"),
        (json!({ "tls": { "enabled": true, "secret": "a" } }), "tls.clients: who may connect"),
        (json!({ "tls": { "enabled": true, "clients": peer } }), "tls.secret"),
        (json!({ "tls": { "clients": [{}] } }), "/tls/clients/0"),
        (json!({ "tls": { "port": 9464 } }), "/tls/port"),
        (json!({ "auditor": { "enabled": true } }), "auditor.role: an IAM role of its own"),
        (json!({ "auditor": { "enabled": true, "role": ROLE } }), "auditor.role is the broker's"),
        (json!({ "watch": { "enabled": true } }), "watch.role: an IAM role of its own"),
        (json!({ "watch": { "enabled": true, "role": ROLE } }), "watch.role is the broker's"),
        (
            json!({ "prometheusRule": { "enabled": true } }),
            "prometheusRule.runbooks: the address of your copy",
        ),
        (json!({ "prometheusRule": { "runbooks": "docs/runbooks" } }), "/prometheusRule/runbooks"),
        (
            json!({ "auditor": { "cloudtrail": { "source": "s3://my-cloudtrail/AWSLogs/111122223333" } } }),
            "/auditor/cloudtrail/source",
        ),
        (json!({ "injection": { "enabld": true } }), "'enabld' not allowed"),
        (
            json!({ "env": { "AWS_SECRET_ACCESS_KEY": "wJalr" } }),
            "invalid propertyName 'AWS_SECRET_ACCESS_KEY'",
        ),
        (json!({ "env": { "KEY_BROKER_POD_NAME": "other" } }), "invalid propertyName 'KEY_BROKER_POD_NAME'"),
        (json!({ "env": { "OTEL_SDK_DISABLED": true } }), "/env/OTEL_SDK_DISABLED"),
    ];
    let requests: Vec<_> =
        cases.iter().map(|(more, _)| json!({ "do": "render", "values": values(more) })).collect();
    for ((more, expected), answer) in cases.iter().zip(helm(&requests)) {
        let said = answer.expect_err(&more.to_string());
        assert!(said.contains(expected), "{more}: {said}");
    }
}

/// The schemas of Kubernetes know every field; those of the Prometheus operator are not among them.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn every_object_passes_the_schemas() {
    let [mut all] = rendered(&[everything()]).try_into().expect("one");
    all.retain(|it| it["apiVersion"] != "monitoring.coreos.com/v1");
    assert_eq!(all.len(), 16, "{all:#?}");
    let of_older: Vec<_> =
        all.iter().filter(|it| it["apiVersion"] != "admissionregistration.k8s.io/v1").cloned().collect();
    for (version, objects) in [("1.30", &of_older), ("1.33", &of_older), ("1.36", &all)] {
        let dir = tempfile::tempdir().expect("a folder");
        let files = objects.iter().enumerate().map(|(number, it)| {
            let file = dir.path().join(format!("{number}.yaml"));
            fs::write(&file, it.to_string()).expect("writes");
            file
        });
        let peers = Peers::install(&["kubernetes-schemas"]);
        let mut validate = peers.command("kubernetes-schemas/bin/kubernetes-validate");
        let said = printed(validate.args(["--strict", "--kubernetes-version", version]).args(files));
        assert_eq!(said.matches(" passed for resource ").count(), objects.len(), "{version}: {said}");
    }
}

/// Nor does Trivy find anything that matters.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn trivy_finds_nothing() {
    let [all] = rendered(&[everything()]).try_into().expect("one");
    let dir = tempfile::tempdir().expect("a folder");
    let write = |number: usize, object: &Value| {
        fs::write(dir.path().join(format!("{number}.yaml")), object.to_string()).expect("writes");
    };
    all.iter().enumerate().for_each(|(number, it)| write(number, it));
    let clean = trivy(dir.path());
    assert!(clean.status.success(), "{clean:?}");
    // It looks.
    let mut bad = one(&all, "Deployment").clone();
    bad["spec"]["template"]["spec"]["containers"][0]["securityContext"] = json!({ "privileged": true });
    write(all.len(), &bad);
    assert_eq!(trivy(dir.path()).status.code(), Some(1));
}

/// The program with what a container of the chart would have, in a folder of the test's own, and with no AWS.
fn run(objects: &[Value], arguments: &[&str]) -> Output {
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
