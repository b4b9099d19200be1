//! key-broker: the only process beside a workload that holds AWS KMS credentials. Modules are in the order in which a request passes
//! through them; see `docs/architecture.md`.
//!
//! The program is [`run`]. To run a broker inside another process, as the integration tests do, start a [`Broker`] from its [`Parts`].

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
// A pool of units that several take from.
mod fair_pool;
// A bounded memory that several share.
mod fair_memory;
// Slots that several share, and who waits for one.
mod fair_queue;
// A key that a call names, and what it stands for.
mod named_key;
// A call to KMS as a value: request and reply.
mod operation;
// Principal, action, key -> permit.
mod policy;
// Whether the broker is ready for callers.
mod readiness;
// Files that may be replaced, or half written.
mod watched;
// Reloads of policy and certificates.
mod reload;
// The methods that workloads call.
mod method;
// The RPCs.
mod service;
// The operator's RPCs.
mod admin;

// Values of encryption contexts that records do not show.
mod redaction;
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
mod cli;

/// Runs the sidecar as a program that records no call, to show what records cost.
#[cfg(feature = "bench-unrecorded")]
#[must_use]
pub fn run_unrecorded() -> std::process::ExitCode {
    audit::record_nothing();
    run()
}

// What `cargo bench --bench draw` measures.
#[cfg(feature = "bench")]
pub mod bench;

pub use self::{
    app::{Broker, Parts, StartError},
    attestation::Trust,
    cache::rules::{Match, RevocationCheck, Rule, Rules},
    cli::run,
    config::audit::Audit as AuditConfig,
    identity::Identities,
    kms::auditor::AuditorKms,
    kms::aws::{AwsKms, AwsSettings},
    kms::guard::GuardSettings,
    kms::guard::breaker::BreakerSettings,
    limits::{Limits, ShareLimits},
    policy::Policy,
    policy::bindings::{Binding, Bindings},
    telemetry::Telemetry,
    telemetry::metrics::Push,
    transport::opening::Listen,
    transport::tls::{Tls, TlsFiles},
    transport::unix::UnixAddress,
};
