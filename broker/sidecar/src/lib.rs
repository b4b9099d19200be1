//! key-broker: the only process beside a workload that holds AWS KMS credentials. The modules in the order in which a
//! request meets them; `docs/architecture.md` tells why.
//!
//! The program is [`cli`]. Who runs a broker inside another process, as the integration tests do, starts a [`Broker`] from its
//! [`Parts`].

// All wiring, once.
mod app;
// The file -> values that cannot be wrong.
mod config;
// Sockets, connections, layers.
mod transport;

// Bounds of a call, of a principal, of all.
mod limits;
// Who has a place on a socket, and who leaves for others.
mod places;
// Connection -> principal.
mod identity;
// Attestation document -> verified recipient.
mod attestation;
// A call to KMS as a value: request and reply.
mod operation;
// Principal, action, key -> permit.
mod policy;
// Whether the broker is ready for callers.
mod readiness;
// Reloads of policy and certificates.
mod reload;
// The RPCs.
mod service;
// The operator's RPCs.
mod admin;

// The trail: one record for every call.
mod audit;
// Data keys with bounded reuse.
mod cache;
// The calls to AWS KMS, recorded.
mod kms;

// Every error, in one table.
mod error;
// Log lines, metrics.
mod telemetry;

// The subcommands.
pub mod cli;

// What `cargo bench --bench draw` measures.
#[cfg(feature = "bench")]
pub mod bench;

// A broker, and what it is made of.
pub use app::{Broker, Parts, StartError};
pub use attestation::Trust;
pub use cache::rules::{Match, Rule, Rules};
pub use config::audit::Audit as AuditConfig;
pub use config::{Config, Listen};
pub use identity::Identities;
pub use kms::guard::{BreakerSettings, GuardSettings};
pub use limits::{Limits, ShareLimits};
pub use policy::Policy;
pub use policy::bindings::{Binding, Bindings};
pub use telemetry::Telemetry;
pub use telemetry::metrics::Push;
pub use transport::tls::{Tls, TlsFiles};
pub use transport::unix::UnixAddress;

// KMS, as a broker asks it, and an auditor.
pub use kms::auditor::AuditorKms;
pub use kms::aws::{AwsKms, AwsSettings, static_credentials};
