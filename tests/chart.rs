//! Proves: the chart makes what deploy/kubernetes has (container, settings, injection) and the alerts of deploy/prometheus, whatever its
//! values; the journal's bound is below its volume; the program takes each configuration; objects pass the strict schemas; and values that
//! would lose a journal, open a port to all, or mean nothing are refused.

#[path = "support/chart.rs"]
mod chart;
#[path = "support/manifests.rs"]
mod manifests;
mod peers;

use std::fs;

use chart::{DIGEST, ROLE, everything, helm, merge, one, pod_of, rendered, run, values};
use manifests::{BEYOND_THE_BOUND, BROKER, assert_restricted, bytes, document, list, named, objects};
use peers::{Peers, printed, trivy};
use serde_json::{Value, json};

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
