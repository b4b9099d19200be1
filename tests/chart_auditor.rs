//! Proves: the chart's jobs of an auditor and of the watch are off unless asked for, and have accounts and roles of their own; the program
//! takes each job's arguments, and ends with the exit codes that jobs and alerts expect; AWS's files alone are compared; and what
//! deploy/kubernetes permits an auditor is reading, and the watch, beside that, asking about keys.

#[path = "support/chart.rs"]
mod chart;
#[path = "support/manifests.rs"]
mod manifests;
mod peers;
mod support;

use std::fs;

use chart::{everything, of_kind, one, pod_of, rendered, run, values};
use manifests::{list, named};
use serde_json::{Value, json};
use support::dev_folder::{Folder, text};

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

/// AWS's command keeps credentials in its home, as JSON: not among the files that are compared. It asks the STS of the region that it
/// reads.
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
