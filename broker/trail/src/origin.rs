//! Where a broker runs, so that a trail shows its pod or host.

use serde::{Deserialize, Serialize};

/// A broker's process. Unknown facts are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Origin {
    /// The host's name; in a pod, the pod's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
    /// The pod, by Kubernetes' downward API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
}

impl Origin {
    /// The pod with its namespace or, where there is none, the host.
    #[must_use]
    pub(crate) fn place(&self) -> Option<String> {
        let pod = self.pod.as_ref().map(|pod| match &self.namespace {
            Some(namespace) => format!("{namespace}/{pod}"),
            None => pod.clone(),
        });
        pod.or_else(|| self.host.clone())
    }

    /// The origin of this process, from the documented variables and the host's name.
    #[must_use]
    pub(crate) fn of_this_process() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let host = rustix::system::uname().nodename().to_str().ok().map(str::to_owned);
        Self {
            host: host.filter(|host| !host.is_empty()),
            pod: variable("KEY_BROKER_POD_NAME"),
            namespace: variable("KEY_BROKER_POD_NAMESPACE"),
            node: variable("KEY_BROKER_NODE_NAME"),
        }
    }
}
