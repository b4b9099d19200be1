//! Proves: the API server's own library makes of each kind of pod that asks for the broker what docs/kubernetes.md says, and leaves others
//! as they are; and every object of deploy/kubernetes, and every pod after the policy, passes the strict schemas of Kubernetes.

mod peers;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use peers::{Peers, printed, root};
use serde_json::{Value, json};

const POLICY: &str = "deploy/kubernetes/injection/policy.yaml";
const VOLUMES: [&str; 4] =
    ["key-broker-socket", "key-broker-journal", "key-broker-config", "key-broker-token"];

/// The pods after the policy, in a namespace with these annotations.
fn admitted(annotations: &Value, pods: &[Value]) -> Vec<Value> {
    let peers = Peers::install(&["injection"]);
    let namespace = json!({ "metadata": { "name": "payments", "annotations": annotations } });
    let requests: Vec<_> = pods.iter().map(|pod| json!({ "namespace": namespace, "pod": pod })).collect();
    let mut command = peers.command("injection/bin/injection");
    command.arg(root().join(POLICY)).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let text = Value::from(requests).to_string();
    child.stdin.take().expect("its input").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    let answers = String::from_utf8(output.stdout).expect("UTF-8");
    let answers = answers.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let made: Vec<_> = answers
        .map(|mut answer| {
            assert!(answer["error"].is_null(), "{answer:#}");
            answer["pod"].take()
        })
        .collect();
    assert_eq!(made.len(), pods.len());
    made
}

/// A pod that asks, with what is given in place of or beside what it has.
fn pod(spec: &Value, annotations: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "payments", "namespace": "payments",
            "labels": { "key-broker.dev/inject": "enabled" }, "annotations": annotations,
        },
        "spec": { "containers": [container("payments")] },
    });
    for (key, value) in spec.as_object().expect("fields") {
        pod["spec"][key] = value.clone();
    }
    pod
}

fn container(name: &str) -> Value {
    json!({ "name": name, "image": "registry.example.com/payments:1" })
}

fn names(items: &Value) -> Vec<&str> {
    items.as_array().map_or(&[][..], Vec::as_slice).iter().filter_map(|it| it["name"].as_str()).collect()
}

fn value<'a>(pod: &'a Value, variable: &str) -> Option<&'a str> {
    let env = pod["spec"]["initContainers"][0]["env"].as_array().expect("variables");
    env.iter().find(|it| it["name"] == variable)?["value"].as_str()
}

fn config(pod: &Value) -> Option<&str> {
    let volumes = pod["spec"]["volumes"].as_array().expect("volumes");
    volumes.iter().find(|it| it["name"] == "key-broker-config")?["configMap"]["name"].as_str()
}

/// The broker first and with its four volumes, the socket read-only in each container, and nothing else in them.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn a_pod_gets_the_broker_first_and_its_containers_the_socket() {
    let own = json!({
        "initContainers": [container("migrate")],
        "containers": [
            { "name": "a", "image": "a:1", "env": [{ "name": "OWN", "value": "1" }],
              "volumeMounts": [{ "name": "tmp", "mountPath": "/tmp" }] },
            container("b"),
        ],
        "volumes": [{ "name": "tmp", "emptyDir": {} }],
        "terminationGracePeriodSeconds": 300,
    });
    let made = admitted(&json!({}), &[pod(&json!({}), &json!({})), pod(&own, &json!({}))]);
    for pod in &made {
        let broker = &pod["spec"]["initContainers"][0];
        assert_eq!((&broker["name"], &broker["restartPolicy"]), (&json!("key-broker"), &json!("Always")));
        assert_eq!(names(&broker["volumeMounts"]), VOLUMES);
        for container in pod["spec"]["containers"].as_array().expect("containers") {
            let mounts = container["volumeMounts"].as_array().expect("mounts");
            let of_broker: Vec<_> = mounts
                .iter()
                .filter(|it| it["name"].as_str().is_some_and(|it| VOLUMES.contains(&it)))
                .collect();
            let socket = json!({ "name": VOLUMES[0], "mountPath": "/run/key-broker", "readOnly": true });
            assert_eq!(of_broker, [&socket], "{container:#}");
            assert!(names(&container["env"]).contains(&"KEY_BROKER_ADDRESS"));
        }
    }
    assert_eq!(made[0]["spec"]["terminationGracePeriodSeconds"], 60);
    assert_eq!(names(&made[0]["spec"]["volumes"]), VOLUMES);
    let spec = &made[1]["spec"];
    assert_eq!(spec["terminationGracePeriodSeconds"], 300, "longer is kept");
    assert_eq!(names(&spec["initContainers"]), ["key-broker", "migrate"]);
    assert_eq!(names(&spec["volumes"])[0], "tmp");
    assert!(names(&spec["containers"][0]["env"]).contains(&"OWN"));
    assert!(names(&spec["containers"][0]["volumeMounts"]).contains(&"tmp"));
}

/// A token for the API server that the pod has is not the broker's.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn the_pods_own_token_is_not_given_to_the_broker() {
    let path = "/var/run/secrets/kubernetes.io/serviceaccount";
    let own = json!({
        "containers": [{ "name": "a", "image": "a:1", "volumeMounts": [{ "name": "api", "mountPath": path }] }],
        "volumes": [{ "name": "api", "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } }],
    });
    let made = admitted(&json!({}), &[pod(&own, &json!({}))]);
    assert_eq!(names(&made[0]["spec"]["initContainers"][0]["volumeMounts"]), VOLUMES);
}

/// Settings are annotations of the pod, else of the namespace; without a role, the broker has no variables of AWS.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn annotations_of_the_pod_win_over_those_of_its_namespace() {
    let role = |name: &str| format!("arn:aws:iam::111122223333:role/{name}");
    let settings = |of: &str| json!({ "key-broker.dev/config": of, "key-broker.dev/role-arn": role(of) });
    let two = json!({ "containers": [container("a"), container("b")] });
    let chosen = json!({ "key-broker.dev/containers": "b" });
    let none = admitted(&json!({}), &[pod(&two, &json!({})), pod(&two, &chosen)]);
    assert_eq!(config(&none[0]), Some("key-broker"));
    assert_eq!(
        (value(&none[0], "AWS_ROLE_ARN"), value(&none[0], "AWS_WEB_IDENTITY_TOKEN_FILE")),
        (None, None)
    );
    assert_eq!(names(&none[1]["spec"]["containers"][0]["volumeMounts"]), [""; 0]);
    assert_eq!(names(&none[1]["spec"]["containers"][1]["volumeMounts"]), [VOLUMES[0]]);

    let pods = [pod(&json!({}), &json!({})), pod(&json!({}), &settings("own"))];
    let made = admitted(&settings("theirs"), &pods);
    for (pod, of) in made.iter().zip(["theirs", "own"]) {
        assert_eq!((config(pod), value(pod, "AWS_ROLE_ARN")), (Some(of), Some(role(of).as_str())));
        assert_eq!(value(pod, "AWS_WEB_IDENTITY_TOKEN_FILE"), Some("/var/run/secrets/key-broker/token"));
    }
}

/// A pod that has a broker already, from a manifest or from the component, stays as it is.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn a_pod_with_a_broker_stays_as_it_is() {
    let there = pod(&json!({ "initContainers": [container("key-broker")] }), &json!({}));
    let made = admitted(&json!({}), std::slice::from_ref(&there));
    assert_eq!(names(&made[0]["spec"]["initContainers"]), ["key-broker"]);
    assert_eq!(made[0]["spec"]["volumes"], Value::Null);
    assert_eq!(made[0]["spec"]["containers"][0]["volumeMounts"], Value::Null);
}

/// As many objects pass as `files` have, with nothing that the schemas of this version do not know.
fn assert_valid(version: &str, files: &[PathBuf], objects: usize) {
    let peers = Peers::install(&["kubernetes-schemas"]);
    let mut validate = peers.command("kubernetes-schemas/bin/kubernetes-validate");
    let said = printed(validate.args(["--strict", "--kubernetes-version", version]).args(files));
    assert_eq!(said.matches(" passed for resource ").count(), objects, "{version}: {said}");
}

fn file(path: &str) -> PathBuf {
    root().join("deploy/kubernetes").join(path)
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn every_object_passes_the_schemas() {
    let plain = [
        "base/namespace.yaml",
        "base/config.yaml",
        "deployment/deployment.yaml",
        "statefulset/statefulset.yaml",
        "injection/example.yaml",
    ];
    for version in ["1.30", "1.33", "1.36"] {
        assert_valid(version, &plain.map(file), 8);
    }
    assert_valid("1.36", &[file("injection/policy.yaml")], 2);
    let dir = tempfile::tempdir().expect("a folder");
    let pods = admitted(&json!({}), &[pod(&json!({}), &json!({}))]);
    assert_valid("1.36", &[written(dir.path(), &pods[0])], 1);
}

fn written(dir: &Path, object: &Value) -> PathBuf {
    let file = dir.join("object.yaml");
    fs::write(&file, object.to_string()).expect("writes");
    file
}
