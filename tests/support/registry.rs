//! The declared vocabulary of telemetry, `telemetry/registry`, as it is compared with what a run sends, with the code and with the
//! documentation.
#![allow(dead_code, unreachable_pub, reason = "every test file uses another part of this one")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

/// All groups of the registry.
pub struct Registry {
    /// Of this program, by name.
    pub attributes: BTreeMap<String, Attribute>,
    pub metrics: Vec<Metric>,
    pub spans: Vec<Span>,
    /// The attributes of the resource.
    pub resource: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Attribute {
    pub id: String,
    pub brief: String,
    #[serde(rename = "type")]
    pub kind: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    pub name: String,
    pub instrument: String,
    pub unit: String,
    pub brief: String,
    pub note: String,
    pub attributes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// With `METHOD` or `OPERATION` where one of several stands.
    pub name: String,
    pub kind: String,
    pub brief: String,
    pub note: String,
    pub attributes: Vec<String>,
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(rename = "type")]
    kind: String,
    brief: String,
    #[serde(default)]
    note: String,
    metric_name: Option<String>,
    instrument: Option<String>,
    unit: Option<String>,
    span_kind: Option<String>,
    #[serde(default)]
    attributes: Vec<Value>,
}

impl Registry {
    /// Reads it from the repository.
    pub fn read(root: &Path) -> Self {
        let groups = |file: &str| -> Vec<Group> {
            let text = fs::read_to_string(root.join("telemetry/registry").join(file)).expect("it is there");
            serde_saphyr::from_str::<Groups>(&text).expect("a file of the registry").groups
        };
        let declared = groups("attributes.yaml").into_iter().flat_map(|group| group.attributes);
        let declared = declared.map(|value| serde_json::from_value(value).expect("an attribute"));
        Self {
            attributes: declared.map(|attribute: Attribute| (attribute.id.clone(), attribute)).collect(),
            metrics: std::iter::once(call_duration())
                .chain(groups("metrics.yaml").into_iter().map(Metric::from))
                .collect(),
            spans: groups("spans.yaml").into_iter().map(Span::from).collect(),
            resource: groups("resource.yaml")
                .iter()
                .flat_map(|group| references(&group.attributes))
                .collect(),
        }
    }

    /// The span that is declared for one of this name; none if there is no such.
    pub fn span(&self, name: &str) -> Option<&Span> {
        self.spans.iter().find(|span| {
            let beginning = ["METHOD", "OPERATION"].iter().find_map(|word| span.name.strip_suffix(word));
            match beginning {
                Some(beginning) => name.strip_prefix(beginning).is_some_and(|rest| !rest.is_empty()),
                None => span.name == name,
            }
        })
    }

    /// Panics if an attribute is not declared, or has a value that its declaration has not.
    pub fn check(&self, name: &str, value: &Value) {
        if !name.starts_with("keybroker.") {
            assert!(CONVENTIONS.iter().any(|(known, _)| *known == name), "{name} is of no convention");
            return;
        }
        let attribute = self.attributes.get(name).unwrap_or_else(|| panic!("{name} is not declared"));
        if let Some(members) = attribute.members() {
            let value = value.as_str().unwrap_or_else(|| panic!("{name}: {value} is no text"));
            assert!(members.iter().any(|(member, _)| *member == value), "{name}: {value} is not declared");
        }
    }

    /// What an attribute tells.
    pub fn brief(&self, name: &str) -> String {
        let own = self.attributes.get(name).map(|attribute| {
            let values = attribute.members().map(|members| {
                let members = members.iter().map(|(value, brief)| format!("`{value}` ({brief})"));
                members.collect::<Vec<_>>().join(", ")
            });
            [Some(attribute.brief.clone()), values].into_iter().flatten().collect::<Vec<_>>().join(" ")
        });
        let known = || CONVENTIONS.iter().find(|(known, _)| *known == name).map(|(_, brief)| (*brief).into());
        own.or_else(known).unwrap_or_else(|| panic!("{name} is declared nowhere"))
    }
}

impl Attribute {
    /// The values that it may have, each with its meaning, if these are a closed set.
    pub fn members(&self) -> Option<Vec<(&str, &str)>> {
        let members = self.kind.get("members")?.as_array()?;
        Some(
            members
                .iter()
                .map(|of| (of["value"].as_str().expect("text"), of["brief"].as_str().expect("text")))
                .collect(),
        )
    }
}

impl Metric {
    /// By the standard translation: the unit is a suffix, and a counter ends in `_total`.
    pub fn prometheus_name(&self) -> String {
        let mut name = self.name.replace('.', "_");
        match &*self.unit {
            "s" => name += "_seconds",
            "By" => name += "_bytes",
            unit => assert!(unit.is_empty() || unit.starts_with('{'), "{unit}: how is it translated?"),
        }
        if self.instrument == "counter" { name + "_total" } else { name }
    }

    /// The labels that Prometheus has.
    pub fn labels(&self) -> BTreeSet<String> {
        self.attributes.iter().map(|name| name.replace('.', "_")).collect()
    }
}

impl From<Group> for Metric {
    fn from(group: Group) -> Self {
        assert_eq!(group.kind, "metric");
        Self {
            attributes: references(&group.attributes),
            name: group.metric_name.expect("a metric has a name"),
            instrument: group.instrument.expect("a metric is of an instrument"),
            unit: group.unit.expect("a metric has a unit"),
            brief: group.brief,
            note: group.note,
        }
    }
}

impl From<Group> for Span {
    fn from(group: Group) -> Self {
        assert_eq!(group.kind, "span");
        let named = group.note.strip_prefix("Span name: `").and_then(|rest| rest.split_once("`."));
        let (name, note) = named.expect("its note begins with its name");
        Self {
            name: name.to_owned(),
            kind: group.span_kind.expect("a span has a kind"),
            brief: group.brief,
            note: note.trim().to_owned(),
            attributes: references(&group.attributes),
        }
    }
}

fn references(attributes: &[Value]) -> Vec<String> {
    attributes.iter().map(|attribute| attribute["ref"].as_str().expect("a reference").to_owned()).collect()
}

/// `rpc.server.call.duration` of the semantic conventions, which the registry imports.
fn call_duration() -> Metric {
    Metric {
        name: "rpc.server.call.duration".into(),
        instrument: "histogram".into(),
        unit: "s".into(),
        brief: "Workloads' calls, from arrival to reply, the commit of their record included".into(),
        note: "A caller that went away is CANCELLED, or DEADLINE_EXCEEDED at its deadline.".into(),
        attributes: ["rpc.system.name", "rpc.method", "rpc.status_code", "error.type"]
            .map(str::to_owned)
            .to_vec(),
    }
}

/// Attributes of the semantic conventions, and what they are here.
const CONVENTIONS: [(&str, &str); 20] = [
    ("rpc.system.name", "`grpc` on calls; `aws-api` on calls to AWS"),
    (
        "rpc.method",
        "`keybroker.v1.KeyBroker/GenerateDataKey`; `KMS/GenerateDataKey`; `_OTHER` for a method that is not there",
    ),
    ("rpc.method_original", "What a caller called such a method, if that is a name"),
    ("rpc.status_code", "The name of the gRPC status code, `OK` among them"),
    (
        "error.type",
        "On a call: the status code, if it is a server's error (UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, \
         DATA_LOSS); a caller's mistake has none. On a KMS span: KMS's name of the error, or `timeout`. The span's status is then ERROR",
    ),
    (
        "aws.request_id",
        "The requestID of KMS's answer, success or error. A retried call has an event `attempt` for each answer, with its own",
    ),
    ("cloud.region", "The region of KMS"),
    ("server.address", "The host of KMS"),
    ("http.request.resend_count", "How often the SDK tried again"),
    ("service.name", "`key-broker`, or what `OTEL_SERVICE_NAME` says"),
    ("service.version", "The broker's version"),
    (
        "service.instance.id",
        "The name of the broker's trail, such as `orders-7k2m9q4t1d0z`, which `audit trails` lists; of a broker without a trail a random \
         UUID, another one at each start",
    ),
    ("host.name", "The host's name; in a pod, the pod's"),
    ("container.id", "The id of the container, where cgroups or mounts tell it"),
    ("k8s.pod.name", "What `KEY_BROKER_POD_NAME` says, as the downward API sets it"),
    ("k8s.namespace.name", "What `KEY_BROKER_POD_NAMESPACE` says"),
    ("k8s.node.name", "What `KEY_BROKER_NODE_NAME` says"),
    ("telemetry.sdk.name", "`opentelemetry`"),
    ("telemetry.sdk.language", "`rust`"),
    ("telemetry.sdk.version", "That of the SDK"),
];
