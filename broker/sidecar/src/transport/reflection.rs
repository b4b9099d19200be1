//! Reflection: the services of a socket and all their messages, including error details.

use key_broker_proto as proto;
use key_broker_proto::admin::v1::admin_server;
use key_broker_proto::v1::key_broker_server;
use tower::util::BoxCloneSyncService;

use super::connections::Listener;
use super::standard::{MAX_STANDARD_BYTES, StandardService};

/// Reflection on both kinds of sockets.
pub(crate) struct Reflection {
    workloads: Versions,
    admin: Versions,
}

/// As v1 and as v1alpha, which most packaged tools still use.
struct Versions {
    v1: StandardService,
    v1alpha: StandardService,
}

impl Reflection {
    /// Reflection of what this build serves.
    pub(crate) fn new() -> Self {
        Self {
            workloads: Versions::of(key_broker_server::SERVICE_NAME),
            admin: Versions::of(admin_server::SERVICE_NAME),
        }
    }

    /// The reflection service of this name on a socket, if it is one.
    pub(super) fn service(&self, on: Listener, name: &str) -> Option<&StandardService> {
        let versions = match on {
            Listener::Workloads(_) => &self.workloads,
            Listener::Admin => &self.admin,
        };
        match name {
            V1 => Some(&versions.v1),
            V1ALPHA => Some(&versions.v1alpha),
            _ => None,
        }
    }
}

impl Versions {
    /// Lists `service` and those that are on every socket.
    fn of(service: &str) -> Self {
        let builder = || {
            let builder = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                // Without the error details tools show bytes.
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET);
            [service, HEALTH, V1, V1ALPHA]
                .into_iter()
                .fold(builder, tonic_reflection::server::Builder::with_service_name)
        };
        let decodes = "the descriptors of this build decode";
        let v1 = builder().build_v1().expect(decodes).max_decoding_message_size(MAX_STANDARD_BYTES);
        let v1alpha = builder().build_v1alpha().expect(decodes).max_decoding_message_size(MAX_STANDARD_BYTES);
        Self { v1: BoxCloneSyncService::new(v1), v1alpha: BoxCloneSyncService::new(v1alpha) }
    }
}

const HEALTH: &str = "grpc.health.v1.Health";
const V1: &str = "grpc.reflection.v1.ServerReflection";
const V1ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";
