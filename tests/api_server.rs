//! Proves: a real kube-apiserver, with etcd behind it, takes all of deploy/kubernetes under Pod Security's `restricted`, warns of nothing,
//! and enforces it; in it, the injection policy makes of each kind of pod what docs/kubernetes.md says; and the chart is installed, upgraded
//! and uninstalled.

#[path = "support/manifests.rs"]
mod manifests;
mod peers;

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use manifests::{BROKER, deploy, document, list};
use peers::{Peers, plain, printed, root};
use serde_json::{Value, json};

const SOCKET: &str = "key-broker-socket";

/// A process that ends with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Cluster {
    peers: Peers,
    dir: tempfile::TempDir,
    _daemons: [Daemon; 2],
}

impl Cluster {
    fn start() -> Self {
        let peers = Peers::install(&["api-server", "helm"]);
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        let [store, peer, api] = free_ports();
        let daemon = |program: &str, arguments: &[String]| {
            let log = fs::File::create(at(&format!("{program}.log"))).expect("a log");
            let mut command = peers.command(&format!("api-server/bin/{program}"));
            command.args(arguments).stdout(log.try_clone().expect("a handle")).stderr(log);
            Daemon(command.spawn().expect("it starts"))
        };
        let clients = format!("http://127.0.0.1:{store}");
        let etcd = daemon(
            "etcd",
            &[
                format!("--data-dir={}", at("etcd").display()),
                format!("--listen-client-urls={clients}"),
                format!("--advertise-client-urls={clients}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                // What is kept here ends with the test.
                "--unsafe-no-fsync".to_owned(),
            ],
        );
        let accounts = at("accounts.pem");
        printed(plain("openssl").args(["genrsa", "-out"]).arg(&accounts).arg("2048"));
        fs::write(at("tokens.csv"), "test-only,admin,admin,system:masters\n").expect("writes");
        let server = daemon(
            "kube-apiserver",
            &[
                format!("--etcd-servers={clients}"),
                "--bind-address=127.0.0.1".to_owned(),
                "--advertise-address=127.0.0.1".to_owned(),
                format!("--secure-port={api}"),
                format!("--cert-dir={}", at("certificates").display()),
                format!("--service-account-key-file={}", accounts.display()),
                format!("--service-account-signing-key-file={}", accounts.display()),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!("--token-auth-file={}", at("tokens.csv").display()),
                "--authorization-mode=RBAC".to_owned(),
                "--endpoint-reconciler-type=none".to_owned(),
            ],
        );
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{ "name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{api}"), "insecure-skip-tls-verify": true } }],
            "users": [{ "name": "test", "user": { "token": "test-only" } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        });
        fs::write(at("config"), config.to_string()).expect("writes");
        let cluster = Self { peers, dir, _daemons: [etcd, server] };
        cluster.wait_for("the API server", || {
            cluster.kubectl(&["get", "--raw", "/readyz"], "").status.success()
        });
        cluster
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn wait_for(&self, what: &str, ready: impl Fn() -> bool) {
        for _ in 0..1_200 {
            if ready() {
                return;
            }
            sleep(Duration::from_millis(100));
        }
        let log = fs::read_to_string(self.path("kube-apiserver.log")).unwrap_or_default();
        panic!("no {what} within two minutes: {log}");
    }

    fn kubectl(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.peers.command("helm/bin/kubectl");
        command.arg("--kubeconfig").arg(self.path("config")).args(arguments).current_dir(root());
        command.env("HOME", self.dir.path());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        // It may end before it has read.
        let _ = child.stdin.take().expect("its input").write_all(input.as_bytes());
        child.wait_with_output().expect("it ends")
    }

    /// What it printed; a warning is a failure, too.
    fn done(&self, arguments: &[&str], input: &str) -> String {
        let output = self.kubectl(&[&["--warnings-as-errors"], arguments].concat(), input);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !said.contains("Warning"), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// A namespace, with the account that a controller would have made.
    fn namespace(&self, file: &str) {
        let namespace = document(file, "Namespace");
        self.done(&["apply", "-f", "-"], &namespace.to_string());
        let name = namespace["metadata"]["name"].as_str().expect("a name");
        self.done(&["create", "serviceaccount", "default", "-n", name], "");
    }

    /// The pod as the server would keep it, or why it would not.
    fn admitted(&self, pod: &Value) -> Result<Value, String> {
        let output = self.kubectl(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &pod.to_string());
        if output.status.success() {
            Ok(serde_json::from_slice(&output.stdout).expect("JSON"))
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    fn helm(&self, request: &Value) -> Result<Value, String> {
        let mut command = self.peers.command("helm/bin/python");
        command.arg(root().join("tests/peers/helm/chart.py")).arg(deploy().join("chart"));
        command.arg(self.path("config")).env("HOME", self.dir.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let text = format!("{request}\n");
        child.stdin.take().expect("its input").write_all(text.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        let mut answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        answer["error"].as_str().map(str::to_owned).map_or_else(|| Ok(answer["ok"].take()), Err)
    }

    fn there(&self, what: &str, namespace: &str) -> Vec<String> {
        let names = self.done(&["get", what, "-n", namespace, "-o", "name"], "");
        names.lines().map(|it| it.split('/').next_back().expect("a name").to_owned()).collect()
    }
}

/// Free a moment ago. Another process may take one before it is used: then the test fails, and says so.
fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|it| it.local_addr().expect("an address").port())
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn a_real_api_server_takes_it_all() {
    let cluster = Cluster::start();
    cluster.namespace("kubernetes/base/namespace.yaml");
    cluster.namespace("kubernetes/injection/example.yaml");
    cluster.namespace("enclave/kubernetes.yaml");
    documented_commands_are_taken(&cluster);
    manifests_are_taken(&cluster);
    pods_are_injected(&cluster);
    the_chart_comes_and_goes(&cluster);
}

/// What docs/kubernetes.md has to be typed from the top of the repository, as it is written there; but nothing is kept.
fn documented_commands_are_taken(cluster: &Cluster) {
    let page = manifests::text("../docs/kubernetes.md");
    let typed = page.lines().filter_map(|line| line.strip_prefix("kubectl "));
    let typed: Vec<_> = typed.filter(|line| line.contains(" deploy/")).collect();
    assert_eq!(typed.len(), 4, "{typed:?}");
    for line in typed {
        let mut arguments: Vec<_> = line.split_whitespace().collect();
        if arguments[0] == "apply" {
            arguments.push("--dry-run=server");
        }
        assert!(!cluster.done(&arguments, "").is_empty(), "{line}");
    }
}

/// Every form, as its page says to apply it; and the pods that controllers would make of them, which is where `restricted` is enforced.
fn manifests_are_taken(cluster: &Cluster) {
    for folder in
        ["kubernetes/deployment", "kubernetes/statefulset", "kubernetes/component-example", "enclave"]
    {
        let folder = &format!("deploy/{folder}");
        let said = cluster.done(&["apply", "--dry-run=server", "-k", folder], "");
        assert!(said.lines().count() >= 2, "{said}");
        let made = cluster.done(&["apply", "--dry-run=server", "-o", "json", "-k", folder], "");
        let made: Value = serde_json::from_str(&made).expect("JSON");
        let workload =
            list(&made["items"]).iter().find(|it| it["spec"]["template"].is_object()).expect("a workload");
        let mut pod = workload["spec"]["template"].clone();
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["metadata"]["name"] = json!("it");
        pod["metadata"]["namespace"] = workload["metadata"]["namespace"].clone();
        pod["spec"]["serviceAccountName"] = json!("default");
        for claim in list(&workload["spec"]["volumeClaimTemplates"]) {
            let name = claim["metadata"]["name"].clone();
            let volume = json!({ "name": name, "persistentVolumeClaim": { "claimName": name } });
            pod["spec"]["volumes"].as_array_mut().expect("volumes").push(volume);
        }
        cluster.admitted(&pod).unwrap_or_else(|error| panic!("{folder}: {error}"));
        // The wall is there.
        pod["spec"]["hostPID"] = json!(true);
        let refused = cluster.admitted(&pod).expect_err("it sees the node's processes");
        let level = if folder == "deploy/enclave" { "baseline" } else { "restricted" };
        assert!(refused.contains(&format!("violates PodSecurity \"{level}")), "{refused}");
    }
}

fn container(name: &str) -> Value {
    json!({
        "name": name, "image": "registry.example.com/payments:1",
        "securityContext": { "runAsUser": 1000, "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
    })
}

/// A pod that asks, with what is given in place of or beside what it has.
fn pod(spec: &Value, annotations: &Value) -> Value {
    let mut pod = document("kubernetes/injection/example.yaml", "Pod");
    pod["metadata"]["annotations"] = annotations.clone();
    pod["spec"]["containers"] = json!([container("payments")]);
    for (key, value) in spec.as_object().expect("fields") {
        pod["spec"][key] = value.clone();
    }
    pod
}

fn names(items: &Value) -> Vec<&str> {
    list(items).iter().filter_map(|it| it["name"].as_str()).collect()
}

/// The pod after admission, once the policy is in force.
fn pods_are_injected(cluster: &Cluster) {
    cluster.done(&["apply", "-f", "deploy/kubernetes/injection/policy.yaml"], "");
    let plain = pod(&json!({}), &json!({}));
    let is_in =
        |pod: &Value| cluster.admitted(pod).is_ok_and(|it| it["spec"]["initContainers"][0]["name"] == BROKER);
    cluster.wait_for("injection", || is_in(&plain));

    let brokered = |spec: &Value, annotations: &Value| {
        let made =
            cluster.admitted(&pod(spec, annotations)).unwrap_or_else(|error| panic!("{spec}: {error}"));
        let broker = &made["spec"]["initContainers"][0];
        assert_eq!((&broker["name"], &broker["restartPolicy"]), (&json!(BROKER), &json!("Always")));
        made
    };
    let mounts = |made: &Value, container: usize| -> Vec<String> {
        names(&made["spec"]["containers"][container]["volumeMounts"]).into_iter().map(str::to_owned).collect()
    };
    let variable = |made: &Value, name: &str| -> Option<String> {
        let env = list(&made["spec"]["initContainers"][0]["env"]).iter();
        env.filter(|it| it["name"] == name).find_map(|it| it["value"].as_str().map(str::to_owned))
    };
    let two = json!({ "containers": [container("a"), container("b")] });

    // 1. One that has nothing of its own; its namespace says the role.
    let made = brokered(&json!({}), &json!({}));
    assert_eq!(mounts(&made, 0), [SOCKET]);
    assert_eq!(
        variable(&made, "AWS_ROLE_ARN").as_deref(),
        Some("arn:aws:iam::111122223333:role/payments-key-broker")
    );
    assert_eq!(made["spec"]["terminationGracePeriodSeconds"], 60);
    // 2. Several containers; 3. of which one is chosen.
    let made = brokered(&two, &json!({}));
    assert_eq!((mounts(&made, 0), mounts(&made, 1)), (vec![SOCKET.to_owned()], vec![SOCKET.to_owned()]));
    let made = brokered(&two, &json!({ "key-broker.dev/containers": "b" }));
    assert_eq!((mounts(&made, 0), mounts(&made, 1)), (vec![], vec![SOCKET.to_owned()]));
    // 4. Init containers of its own come after.
    let made = brokered(&json!({ "initContainers": [container("migrate")] }), &json!({}));
    assert_eq!(names(&made["spec"]["initContainers"]), [BROKER, "migrate"]);
    // 5. Volumes and a longer grace period of its own stay.
    let own = json!({ "volumes": [{ "name": "tmp", "emptyDir": {} }], "terminationGracePeriodSeconds": 300 });
    let made = brokered(&own, &json!({}));
    assert_eq!(
        (names(&made["spec"]["volumes"])[0], &made["spec"]["terminationGracePeriodSeconds"]),
        ("tmp", &json!(300))
    );
    // 6. Its own token for the API server is not the broker's; but one that the server mounts by itself is in every container.
    let token = json!({ "name": "api", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" });
    let mut with_token = container("payments");
    with_token["volumeMounts"] = json!([token]);
    let source = json!({ "serviceAccountToken": { "path": "token" } });
    let volume = json!({ "name": "api", "projected": { "sources": [source] } });
    let made = brokered(&json!({ "containers": [with_token], "volumes": [volume] }), &json!({}));
    assert_eq!(names(&made["spec"]["initContainers"][0]["volumeMounts"]).len(), 4, "{made:#}");
    let made = brokered(&json!({ "automountServiceAccountToken": true }), &json!({}));
    let given = names(&made["spec"]["initContainers"][0]["volumeMounts"]);
    assert!(
        given.iter().any(|it| it.starts_with("kube-api-access-")),
        "docs/kubernetes.md says so: {given:?}"
    );
    // 7. Settings of its own win.
    let settings = json!({ "key-broker.dev/config": "own", "key-broker.dev/role-arn": "arn:aws:iam::111122223333:role/own" });
    let made = brokered(&json!({}), &settings);
    assert_eq!(variable(&made, "AWS_ROLE_ARN").as_deref(), Some("arn:aws:iam::111122223333:role/own"));
    assert!(list(&made["spec"]["volumes"]).iter().any(|it| it["configMap"]["name"] == "own"));
    // 8. One that has a broker already, and 9. one that does not ask, stay as they are.
    let there = json!({ "initContainers": [container(BROKER)] });
    let made = cluster.admitted(&pod(&there, &json!({}))).expect("it is taken");
    assert_eq!((names(&made["spec"]["initContainers"]), mounts(&made, 0)), (vec![BROKER], vec![]));
    let mut silent = pod(&json!({}), &json!({}));
    silent["metadata"]["labels"] = json!({});
    let made = cluster.admitted(&silent).expect("it is taken");
    assert_eq!((&made["spec"]["initContainers"], mounts(&made, 0)), (&Value::Null, vec![]));
    cluster.done(&["delete", "-f", "deploy/kubernetes/injection/policy.yaml"], "");
}

/// All but the objects of the Prometheus operator, whose kinds this server does not know.
fn the_chart_comes_and_goes(cluster: &Cluster) {
    let mut values = json!({
        "role": "arn:aws:iam::111122223333:role/orders-key-broker",
        "config": { "region": "us-west-2", "bucket": "my-trail", "policy": "// nobody yet" },
        "injection": { "enabled": true },
        "tls": { "enabled": true, "secret": "tls", "clients": [{ "podSelector": {} }] },
        "auditor": {
            "enabled": true, "role": "arn:aws:iam::111122223333:role/orders-auditor",
            "cloudtrail": { "source": "s3://my-cloudtrail/AWSLogs/111122223333/CloudTrail/us-west-2" },
        },
    });
    let act = |what: &str, values: &Value| {
        cluster.helm(&json!({ "do": what, "values": values, "namespace": "orders" }))
    };
    act("install", &values).expect("it installs");
    for kind in [
        "configmap/key-broker",
        "deployment/kb-key-broker",
        "networkpolicy/kb-key-broker",
        "cronjob/kb-key-broker-audit-verify",
    ] {
        cluster.done(&["get", kind, "-n", "orders"], "");
    }
    let size = || {
        let map = cluster.done(&["get", "configmap/key-broker", "-n", "orders", "-o", "json"], "");
        let map: Value = serde_json::from_str(&map).expect("JSON");
        let settings: toml::Table =
            toml::from_str(map["data"]["key-broker.toml"].as_str().expect("text")).expect("TOML");
        settings["audit"]["max_undelivered_bytes"].as_integer()
    };
    assert_eq!(size(), Some(384 << 20));
    values["journal"] = json!({ "sizeMi": 1024 });
    act("upgrade", &values).expect("it upgrades");
    assert_eq!(size(), Some(768 << 20));
    values["journal"] = json!({ "sizeMi": 100 });
    let refused = act("upgrade", &values).expect_err("it would lose journals");
    assert!(refused.contains("minimum: got 100, want 320"), "{refused}");
    assert_eq!(size(), Some(768 << 20));
    act("uninstall", &json!({})).expect("it goes");
    for kind in ["configmap", "deployment", "networkpolicy", "cronjob", "mutatingadmissionpolicy"] {
        assert!(cluster.there(kind, "orders").iter().all(|it| !it.contains("key-broker")), "{kind}");
    }
    // Evidence stays.
    let mut claims = cluster.there("persistentvolumeclaim", "orders");
    claims.sort();
    assert_eq!(claims, ["kb-key-broker-audit-reconcile", "kb-key-broker-audit-verify"]);
}
