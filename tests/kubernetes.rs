//! Proves: what deploy/kubernetes has keeps its promises in each form. The broker alone has the token, the journal and the configuration,
//! the application mounts the socket read-only; every container is as Pod Security's `restricted` wants it; the journal's bound is below
//! its volume; the drain fits into the grace period; the program itself takes each configuration and policy; and the injected container
//! is that of the manifests.

#[path = "support/manifests.rs"]
mod manifests;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use manifests::{BEYOND_THE_BOUND, BROKER, assert_restricted, bytes, list, named};
use serde_json::{Value, json};

const BROKER_USER: u64 = 17_890;

fn folder() -> PathBuf {
    manifests::deploy().join("kubernetes")
}

fn text(path: &str) -> String {
    manifests::text(&format!("kubernetes/{path}"))
}

fn documents(path: &str) -> Vec<Value> {
    manifests::documents(&format!("kubernetes/{path}"))
}

fn document(path: &str, kind: &str) -> Value {
    manifests::document(&format!("kubernetes/{path}"), kind)
}

/// A workload with the broker in it, and what its broker runs with.
struct Form {
    name: &'static str,
    workload: Value,
    config: toml::Table,
}

impl Form {
    /// The two forms that are applied as they are.
    fn all() -> [Self; 2] {
        let form = |name, kind, path| Self {
            name,
            workload: document(path, kind),
            config: toml::from_str(&settings("key-broker.toml")).expect("TOML"),
        };
        [
            form("Deployment", "Deployment", "deployment/deployment.yaml"),
            form("StatefulSet", "StatefulSet", "statefulset/statefulset.yaml"),
        ]
    }

    fn pod(&self) -> &Value {
        &self.workload["spec"]["template"]["spec"]
    }

    fn broker(&self) -> &Value {
        named(&self.pod()["initContainers"], BROKER)
    }

    fn containers(&self) -> impl Iterator<Item = &Value> {
        list(&self.pod()["initContainers"]).iter().chain(list(&self.pod()["containers"]))
    }

    /// The size of the journal's volume: its limit, or the claim's request.
    fn journal_volume(&self) -> u64 {
        match list(&self.workload["spec"]["volumeClaimTemplates"]) {
            [] => bytes(&named(&self.pod()["volumes"], "key-broker-journal")["emptyDir"]["sizeLimit"]),
            [claim, ..] => {
                assert_eq!(claim["metadata"]["name"], "key-broker-journal");
                bytes(&claim["spec"]["resources"]["requests"]["storage"])
            }
        }
    }

    fn number(&self, section: &str, key: &str) -> u64 {
        self.config[section][key].as_integer().and_then(|it| u64::try_from(it).ok()).expect("a number")
    }
}

fn path(value: &toml::Value) -> PathBuf {
    value.as_str().expect("a path").into()
}

/// A file of the `ConfigMap`.
fn settings(file: &str) -> String {
    document("base/config.yaml", "ConfigMap")["data"][file].as_str().expect("a file").to_owned()
}

fn mounts(container: &Value) -> BTreeSet<&str> {
    list(&container["volumeMounts"]).iter().filter_map(|mount| mount["name"].as_str()).collect()
}

/// Every YAML file is one, every object has a kind, and what a kustomization names is there.
#[test]
fn every_file_is_read() {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder()).expect("it is there") {
        let entry = entry.expect("it is read").path();
        let inside = fs::read_dir(&entry).into_iter().flatten().map(|file| file.expect("it is read").path());
        files.extend(inside.filter(|file| file.extension().is_some_and(|it| it == "yaml")));
    }
    assert!(files.len() >= 12, "{files:?}");
    for file in files {
        let name = file.strip_prefix(folder()).expect("below").to_str().expect("UTF-8").to_owned();
        for object in documents(&name) {
            assert!(object["apiVersion"].is_string() && object["kind"].is_string(), "{name}: {object:#}");
            for named in ["resources", "components"].iter().flat_map(|key| list(&object[*key])) {
                let path = file.with_file_name(named.as_str().expect("a path"));
                assert!(path.exists(), "{name} names {}", path.display());
            }
        }
    }
}

#[test]
fn the_broker_alone_has_token_journal_and_configuration() {
    for form in Form::all() {
        for container in form.containers() {
            let broker = container["name"] == BROKER;
            let all = ["key-broker-config", "key-broker-journal", "key-broker-socket", "key-broker-token"];
            let expected: &[&str] = if broker { &all } else { &["key-broker-socket"] };
            assert_eq!(mounts(container), expected.iter().copied().collect(), "{}: {container:#}", form.name);
            let socket = named(&container["volumeMounts"], "key-broker-socket");
            assert_eq!(socket["readOnly"] == true, !broker, "{}: {socket}", form.name);
            let aws = list(&container["env"])
                .iter()
                .any(|it| it["name"].as_str().is_some_and(|it| it.starts_with("AWS_")));
            assert_eq!(aws, broker, "{}", form.name);
        }
        let pod = form.pod();
        assert_eq!(pod["automountServiceAccountToken"], false);
        let socket = &named(&pod["volumes"], "key-broker-socket")["emptyDir"];
        assert_eq!(socket["medium"], "Memory");
        let token = &named(&pod["volumes"], "key-broker-token")["projected"]["sources"];
        assert_eq!(token[0]["serviceAccountToken"]["audience"], "sts.amazonaws.com");
    }
    let account = document("base/namespace.yaml", "ServiceAccount");
    assert_eq!(account["automountServiceAccountToken"], false);
    // AWS's webhook goes by it, and gives the credentials to every container.
    assert!(account["metadata"]["annotations"].is_null(), "{account:#}");
}

/// The namespace asks for `restricted`, and each container would pass, also where the pod said nothing.
#[test]
fn every_container_is_restricted() {
    let labels = &document("base/namespace.yaml", "Namespace")["metadata"]["labels"];
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");
    for form in Form::all() {
        let context = &form.pod()["securityContext"];
        assert_eq!(context["runAsNonRoot"], true);
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
        for key in ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"] {
            assert!(form.pod()[key].is_null(), "{}: {key}", form.name);
        }
        let mut users = BTreeSet::new();
        for container in form.containers() {
            assert_restricted(container);
            let user = &container["securityContext"]["runAsUser"];
            assert!(users.insert(user.as_u64().expect("a user")), "{}: two of one user", form.name);
        }
        assert_eq!(form.broker()["securityContext"]["runAsUser"], BROKER_USER);
    }
}

/// A native sidecar, started first; its probes ask for the process and gate the start, and none takes the pod out of service.
#[test]
fn the_broker_is_a_sidecar_that_never_makes_the_pod_unready() {
    for form in Form::all() {
        let broker = form.broker();
        assert_eq!(form.pod()["initContainers"][0]["name"], BROKER);
        assert_eq!(broker["restartPolicy"], "Always");
        assert!(broker["readinessProbe"].is_null());
        let health = json!(["/key-broker", "health", "--config", "/etc/key-broker/key-broker.toml"]);
        assert_eq!(broker["startupProbe"]["exec"]["command"], health);
        assert_eq!(broker["livenessProbe"]["httpGet"], json!({ "path": "/healthz", "port": "kb-telemetry" }));
        let port = broker["ports"][0]["containerPort"].as_u64().expect("a port");
        assert_eq!(form.config["telemetry"]["http"].as_str(), Some(format!("0.0.0.0:{port}").as_str()));
        assert!(broker["resources"]["requests"]["memory"].is_string());
        assert!(broker["resources"]["limits"]["memory"].is_string());
        // It would be a limit of the pod.
        assert!(broker["resources"]["limits"]["ephemeral-storage"].is_null());
        for (name, field) in [
            ("KEY_BROKER_POD_NAME", "metadata.name"),
            ("KEY_BROKER_POD_NAMESPACE", "metadata.namespace"),
            ("KEY_BROKER_NODE_NAME", "spec.nodeName"),
        ] {
            assert_eq!(named(&broker["env"], name)["valueFrom"]["fieldRef"]["fieldPath"], field);
        }
    }
}

/// The journal refuses before the kubelet evicts; the drain fits into the grace period, with as much again for the application.
#[test]
fn bounds_fit_into_each_other() {
    for form in Form::all() {
        let (held, volume) = (form.number("audit", "max_undelivered_bytes"), form.journal_volume());
        assert!(held + BEYOND_THE_BOUND <= volume / 5 * 4, "{}: {held} of {volume}", form.name);
        let grace = form.pod()["terminationGracePeriodSeconds"].as_u64().expect("seconds");
        assert!(grace >= 2 * (form.number("limits", "drain_seconds") + 5), "{}: {grace} s", form.name);
        assert!(form.number("audit", "delivery_interval_seconds") <= 30);
    }
    let [_, stateful] = Form::all();
    // Root makes a claim's folder, and the broker's own group may write to it.
    assert_eq!(stateful.pod()["securityContext"]["fsGroup"], BROKER_USER);
    let retention = &stateful.workload["spec"]["persistentVolumeClaimRetentionPolicy"];
    assert_eq!(*retention, json!({ "whenDeleted": "Retain", "whenScaled": "Retain" }));
}

/// What the configuration names lies where the volumes are: journal and socket on those that the broker may write to.
#[test]
fn paths_of_the_configuration_are_on_volumes() {
    for form in Form::all() {
        let socket = path(&form.config["listen"]["unix"]["path"]);
        let journal = path(&form.config["audit"]["journal_dir"]);
        for (place, volume) in [(socket.clone(), "key-broker-socket"), (journal, "key-broker-journal")] {
            let mount = named(&form.broker()["volumeMounts"], volume);
            assert!(place.starts_with(mount["mountPath"].as_str().expect("a path")), "{}", place.display());
            assert!(mount["readOnly"].is_null());
        }
        let address = &named(&form.pod()["containers"][0]["env"], "KEY_BROKER_ADDRESS")["value"];
        assert_eq!(*address, json!(format!("unix:{}", socket.display())));
        assert_eq!(form.config["policy"]["file"].as_str(), Some("policy.cedar"), "beside the configuration");
        assert_eq!(form.broker()["args"], json!(["serve", "--config", "/etc/key-broker/key-broker.toml"]));
    }
}

fn check(config: &str, policy: &str, arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("key-broker.toml"), config).expect("writes");
    fs::write(dir.path().join("policy.cedar"), policy).expect("writes");
    let mut command = Command::new(env!("CARGO_BIN_EXE_key-broker"));
    command.args(["check", "--offline", "--config"]).arg(dir.path().join("key-broker.toml")).args(arguments);
    command.env("KEY_BROKER_POD_NAME", "orders-0");
    command.output().expect("it runs")
}

/// The program takes each configuration, and each policy is about the application's user and nobody else.
#[test]
fn the_program_takes_each_configuration_and_policy() {
    let example = |file: &str| text(&format!("component-example/{file}"));
    let (plain, other) = (settings("key-broker.toml"), example("key-broker.toml"));
    for (config, policy) in [(plain, settings("policy.cedar")), (other, example("policy.cedar"))] {
        let output = check(&config, &policy, &[]);
        assert!(output.status.success(), "{output:?}");
        for (user, code) in [(1000, 2), (1001, 1)] {
            // What the alias means, only AWS knows: for the application, that decides; all others are denied whatever it means.
            let asked = ["--as", &format!("unix:uid/{user}"), "--action", "Decrypt", "--key", "alias/orders"];
            let asked = asked.map(|it| {
                if policy.contains("payments") { it.replace("orders", "payments") } else { it.to_owned() }
            });
            let output = check(&config, &policy, &asked.each_ref().map(String::as_str));
            assert_eq!(output.status.code(), Some(code), "{user}: {output:?}");
        }
    }
    for form in Form::all() {
        let user = &form.pod()["containers"][0]["securityContext"]["runAsUser"];
        assert!(settings("policy.cedar").contains(&format!("\"unix:uid/{user}\"")), "{}", form.name);
    }
}

/// IAM permits what the Cedar policy permits and no more, to the role of the manifests, for tokens of their `ServiceAccount`.
#[test]
fn iam_permits_what_the_policy_permits() {
    let iam = |file: &str| -> Value { serde_json::from_str(&text(&format!("iam/{file}"))).expect("JSON") };
    let policy = settings("policy.cedar");
    let permitted = policy.split("Action::\"").skip(1).filter_map(|rest| rest.split('"').next());
    // What the broker asks KMS for to encrypt and decrypt messages itself.
    let asked = permitted.map(|action| match action {
        "EncryptMessage" => "GenerateDataKey",
        "DecryptMessage" => "Decrypt",
        other => other,
    });
    // Aliases are asked for with it.
    let expected: BTreeSet<String> = asked.chain(["DescribeKey"]).map(|it| format!("kms:{it}")).collect();
    let actions = |statement: &Value| -> BTreeSet<String> {
        list(&statement["Action"]).iter().filter_map(|it| it.as_str().map(str::to_owned)).collect()
    };
    assert_eq!(actions(&iam("broker-policy.json")["Statement"][0]), expected);
    let [administrators, brokers] =
        list(&iam("key-policy.json")["Statement"]).to_vec().try_into().expect("two");
    assert_eq!(actions(&brokers), expected);
    for using in ["kms:GenerateDataKey", "kms:Decrypt", "kms:CreateGrant", "kms:*"] {
        assert!(!actions(&administrators).contains(using), "{using}");
    }
    for form in Form::all() {
        assert_eq!(named(&form.broker()["env"], "AWS_ROLE_ARN")["value"], brokers["Principal"]["AWS"]);
        assert_eq!(form.pod()["serviceAccountName"], "orders");
    }
    let conditions = &iam("trust-policy.json")["Statement"][0]["Condition"]["StringEquals"];
    let values: BTreeSet<_> =
        conditions.as_object().expect("pairs").values().filter_map(Value::as_str).collect();
    assert_eq!(values, BTreeSet::from(["sts.amazonaws.com", "system:serviceaccount:orders:orders"]));
}

/// The image runs as the manifests' user, from an empty file system, and the program is where the probes look for it.
#[test]
fn the_image_is_what_the_manifests_run() {
    let dockerfile = text("../image/Dockerfile");
    let image = dockerfile.split("FROM scratch").nth(1).expect("the last stage");
    for line in [format!("USER {BROKER_USER}:{BROKER_USER}"), "ENTRYPOINT [\"/key-broker\"]".to_owned()] {
        assert!(image.lines().any(|it| it == line), "no {line}: {image}");
    }
    assert!(text("../image/rootfs").contains("\"$out/rootfs/key-broker\""));
}

/// The container that a literal of CEL makes. Without the names of types, it is YAML.
fn injected() -> Value {
    let policy = document("injection/policy.yaml", "MutatingAdmissionPolicy");
    let patch = policy["spec"]["mutations"][0]["jsonPatch"]["expression"].as_str().expect("CEL").to_owned();
    let begin = patch.find("Object.spec.initContainers{").expect("the container");
    let end = patch.find("}]\n+ (has(object.spec.volumes)").expect("its end");
    let mut literal =
        patch[begin..end].replace("] + (variables.role == \"\" ? [] : [", ",").replace("]),", "],");
    while let Some(at) = literal.find("Object.") {
        let brace = at + literal[at..].find('{').expect("a literal");
        literal.replace_range(at..brace, "");
    }
    serde_saphyr::from_str(&literal).unwrap_or_else(|error| panic!("{error}: {literal}"))
}

/// Injected or added by the component, it is the Deployment's container; but its image and role are told, and its liveness is asked
/// without HTTP, which the application's configuration may leave out.
#[test]
fn what_is_injected_is_what_the_manifests_have() {
    let [form, stateful] = Form::all();
    let mut expected = form.broker().clone();
    let live = json!(["/key-broker", "health", "--live", "--config", "/etc/key-broker/key-broker.toml"]);
    let probe = expected["livenessProbe"].as_object_mut().expect("a probe");
    probe.remove("httpGet");
    probe.insert("exec".to_owned(), json!({ "command": live }));

    let component = document("component/sidecar.yaml", "Deployment")["spec"]["template"]["spec"].clone();
    let added = named(&component["initContainers"], BROKER);
    assert_eq!(parts(added), parts(&expected), "the component");
    assert_eq!(parts(&injected()), parts(&expected), "the policy");
    let renamed = serde_json::to_string(&form.pod()["volumes"]).expect("JSON").replace("orders-", "");
    assert_eq!(component["volumes"].to_string(), renamed);
    assert_eq!(component["terminationGracePeriodSeconds"], form.pod()["terminationGracePeriodSeconds"]);
    assert_eq!(component["automountServiceAccountToken"], false);

    // The StatefulSet's journal is on a claim, and asks for nothing of the node's disk.
    let mut with_claim = stateful.broker().clone();
    with_claim["resources"]["requests"]["ephemeral-storage"] = json!("512Mi");
    assert_eq!(with_claim, *form.broker());
}

/// The enclaves' broker is the same one, but for what vsock takes, and for what its configuration has not.
#[test]
fn the_enclaves_broker_is_that_of_the_manifests() {
    let [form, _] = Form::all();
    let daemons =
        manifests::document("enclave/kubernetes.yaml", "DaemonSet")["spec"]["template"]["spec"].clone();
    let mut broker = parts(named(&daemons["initContainers"], BROKER));
    let mut expected = parts(form.broker());
    let profile = json!({ "type": "Localhost", "localhostProfile": "key-broker.json" });
    assert_eq!(broker["securityContext"]["seccompProfile"], profile);
    let without = |container: &mut Value, key: &str| {
        container.as_object_mut().expect("a container").remove(key).expect("it is there");
    };
    without(&mut expected, "ports");
    for container in [&mut expected, &mut broker] {
        without(container, "livenessProbe");
    }
    let size = bytes(&named(&daemons["volumes"], "key-broker-journal")["emptyDir"]["sizeLimit"]);
    assert_eq!(bytes(&broker["resources"]["requests"]["ephemeral-storage"]), size);
    assert!((1 << 30) + BEYOND_THE_BOUND <= size / 5 * 4, "audit.max_undelivered_bytes is 1 GiB unless told");
    expected["resources"]["requests"]["ephemeral-storage"] =
        broker["resources"]["requests"]["ephemeral-storage"].clone();
    expected["securityContext"]["seccompProfile"] = profile;
    let env = broker["env"].as_array_mut().expect("variables");
    env.retain(|it| it["name"] != "AWS_ROLE_SESSION_NAME");
    assert_eq!(broker, expected);
    let enclave = &daemons["containers"][0];
    assert!(enclave["securityContext"]["privileged"].is_null());
    assert_eq!(enclave["securityContext"]["capabilities"], json!({ "drop": ["ALL"] }));
    assert_eq!(enclave["resources"]["limits"]["aws.ec2.nitro/nitro_enclaves"], "1");
    let config: toml::Table = toml::from_str(&manifests::text("enclave/key-broker.toml")).expect("TOML");
    let context_id = config["listen"]["vsock"]["cids"][0].to_string();
    assert!(
        enclave["args"][0].as_str().is_some_and(|it| it.contains(&format!("--enclave-cid {context_id}\n")))
    );
}

/// A container, without what each form has of its own.
fn parts(container: &Value) -> Value {
    let mut container = container.clone();
    container["image"] = Value::Null;
    let env = container["env"].as_array_mut().expect("variables");
    env.retain(|it| it["name"] != "AWS_ROLE_ARN");
    container
}

/// A pod that asks for the broker does not start without it, and the policy takes no parameters of a built-in kind.
#[test]
fn injection_fails_closed() {
    let policy = document("injection/policy.yaml", "MutatingAdmissionPolicy");
    assert_eq!(policy["spec"]["failurePolicy"], "Fail");
    assert!(policy["spec"]["paramKind"].is_null());
    let binding = document("injection/policy.yaml", "MutatingAdmissionPolicyBinding");
    assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"]);
    let selector = &policy["spec"]["matchConstraints"]["objectSelector"]["matchLabels"];
    let pod = document("injection/example.yaml", "Pod");
    assert_eq!(pod["metadata"]["labels"], *selector);
}
