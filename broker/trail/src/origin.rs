//! Where a broker runs, as far as its surroundings tell: so that a trail is known to be of a pod, or of a host.

use serde::{Deserialize, Serialize};

/// A process of a broker. What nobody has told is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Origin {
    /// The host's name; in a pod, the pod's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The pod, by Kubernetes' downward API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The node that it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}
