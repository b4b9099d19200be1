//! key-broker: the only process beside a workload that holds AWS KMS credentials. The modules in the order in which a
//! request meets them; `docs/architecture.md` tells why.

// All wiring, once.
pub mod app;
// The file -> values that cannot be wrong.
pub mod config;
// Sockets, connections, layers.
pub mod transport;

// Bounds of a call, of a principal, of all.
pub mod limits;
// Connection -> principal.
pub mod identity;
// Attestation document -> verified recipient.
pub mod attestation;
// A call to KMS as a value: request and reply.
pub mod operation;
// Principal, action, key -> permit.
pub mod policy;
// Whether the broker is ready for callers.
pub mod readiness;
// Reloads of policy and certificates.
pub mod reload;
// The RPCs.
pub mod service;
// The operator's RPCs.
pub mod admin;

// The trail: one record for every call.
pub mod audit;
// Data keys with bounded reuse.
pub mod cache;
// The calls to AWS KMS, recorded.
pub mod kms;

// Every error, in one table.
pub mod error;
// Log lines, metrics.
pub mod telemetry;

// The subcommands.
pub mod cli;

// What `cargo bench --bench draw` measures.
#[cfg(feature = "bench")]
pub mod bench;
