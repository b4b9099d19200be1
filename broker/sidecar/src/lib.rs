//! key-broker: the only process beside a workload that holds AWS KMS credentials. The modules in the order in which a
//! request meets them; `docs/architecture.md` tells why.

// All wiring, once.
pub mod app;
// The file -> values that cannot be wrong.
pub mod config;
// Sockets, connections, layers.
pub mod transport;

// Connection -> principal.
pub mod identity;
// Attestation document -> verified recipient.
pub mod attestation;
// Principal, action, key -> permit.
pub mod policy;
// Whether callers should come.
pub mod readiness;
// Policy and certificates, taken anew.
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

// Encrypted messages, as the AWS Encryption SDKs read and write them.
pub mod envelope;

// Who is at fault; the one table.
pub mod error;
// Log lines, metrics.
pub mod telemetry;

// The subcommands.
pub mod cli;
