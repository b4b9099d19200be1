//! The resource: the service, its instance, and where it runs.

use std::fs;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, ResourceDetector, TelemetryResourceDetector};

use super::variable;
use crate::telemetry::vocabulary::{self, SCHEMA_URL, SCOPE};

/// What is known of this process, the SDK, and then what `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` say, which wins.
pub(super) fn resource(instance: String) -> Resource {
    let detectors: [Box<dyn ResourceDetector>; 3] = [
        Box::new(Broker { instance }),
        Box::new(TelemetryResourceDetector),
        Box::new(EnvResourceDetector::new()),
    ];
    let none: [KeyValue; 0] = [];
    let resource = Resource::builder_empty().with_schema_url(none, SCHEMA_URL).with_detectors(&detectors);
    match variable("OTEL_SERVICE_NAME").filter(|name| !name.trim().is_empty()) {
        Some(name) => resource.with_service_name(name).build(),
        None => resource.build(),
    }
}

/// A process of this program. Unknown facts are left out.
struct Broker {
    instance: String,
}

impl ResourceDetector for Broker {
    fn detect(&self) -> Resource {
        let host = rustix::system::uname().nodename().to_str().ok().map(str::to_owned);
        let own = [
            (vocabulary::SERVICE_NAME, Some(SCOPE.to_owned())),
            (vocabulary::SERVICE_VERSION, Some(env!("CARGO_PKG_VERSION").to_owned())),
            (vocabulary::SERVICE_INSTANCE_ID, Some(self.instance.clone())),
            (vocabulary::HOST_NAME, host),
            (vocabulary::CONTAINER_ID, container_id()),
            // By the same variables as the trail's own records.
            (vocabulary::POD_NAME, variable("KEY_BROKER_POD_NAME")),
            (vocabulary::NAMESPACE_NAME, variable("KEY_BROKER_POD_NAMESPACE")),
            (vocabulary::NODE_NAME, variable("KEY_BROKER_NODE_NAME")),
        ];
        let known = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let known = known.filter(|(_, value)| !value.is_empty());
        Resource::builder_empty()
            .with_attributes(known.map(|(name, value)| KeyValue::new(name, value)))
            .build()
    }
}

/// The id of this process's container, if the kernel shows it.
fn container_id() -> Option<String> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    of_cgroup(&read("/proc/self/cgroup")).or_else(|| of_mounts(&read("/proc/self/mountinfo")))
}

/// Of a cgroup that is seen from outside of the container: `…/docker/ID`, `…/cri-containerd-ID.scope`.
fn of_cgroup(cgroup: &str) -> Option<String> {
    let names = cgroup.lines().filter_map(|line| line.rsplit('/').next());
    names.filter_map(|name| id_in(name.trim_end_matches(".scope").rsplit(['-', ':']).next()?)).next_back()
}

/// Of what the runtime mounts into it, such as `…/containers/ID/hostname`: within a namespace of its own a cgroup has no name.
fn of_mounts(mounts: &str) -> Option<String> {
    let mut found = mounts.lines().filter(|line| line.contains("/hostname"));
    found.find_map(|line| id_in(line.split_once("/containers/")?.1.split('/').next()?))
}

fn id_in(text: &str) -> Option<String> {
    let is_id = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    //! A container's id is what its runtime calls it, and nothing else that looks like one.

    use super::*;

    #[test]
    fn a_container_is_known_by_what_its_runtime_writes() {
        let id = "7f3b".repeat(16);
        for cgroup in [
            format!("12:cpu:/docker/{id}\n"),
            format!("0::/kubepods.slice/kubepods-besteffort.slice/cri-containerd-{id}.scope\n"),
            format!("1:name=systemd:/kubepods/pod12/{id}\n0::/system.slice/containerd.service\n"),
            format!("0::/system.slice/containerd.service/kubepods-pod12.slice:cri-containerd:{id}"),
        ] {
            assert_eq!(of_cgroup(&cgroup).as_ref(), Some(&id), "{cgroup}");
        }
        let mounts =
            format!("1 2 8:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw - ext4 /dev/sda rw\n");
        assert_eq!(of_mounts(&mounts), Some(id));
    }

    #[test]
    fn where_nothing_tells_there_is_none() {
        let sandbox = "ab".repeat(32);
        for cgroup in ["", "0::/\n", "0::/user.slice/user-1000.slice/session-1.scope\n", "0::/init.scope"] {
            assert_eq!(of_cgroup(cgroup), None, "{cgroup}");
        }
        // Of the pod, not of the container.
        let mounts = format!(
            "1 2 8:1 /run/containerd/io.containerd.grpc.v1.cri/sandboxes/{sandbox}/hostname /etc/hostname rw\n"
        );
        assert_eq!(of_mounts(&mounts), None);
    }

    #[test]
    fn what_is_not_told_is_left_out() {
        let detected = Broker { instance: "orders-7k2m9q4t1d0z".into() }.detect();
        let names: Vec<&str> = detected.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.contains(&"service.instance.id") && names.contains(&"host.name"), "{names:?}");
        assert!(!names.contains(&"k8s.pod.name"), "{names:?}");
    }
}
