//! key-broker: the only process beside a workload that holds AWS KMS credentials. The modules in the order in which a
//! request meets them; `docs/architecture.md` tells why.

pub mod app; // all wiring, once
pub mod config; // the file -> values that cannot be wrong
pub mod transport; // sockets, connections, layers

pub mod admin;
pub mod identity; // connection -> principal
pub mod policy; // principal, action, key -> permit
pub mod service; // the RPCs // the operator's RPCs

pub mod audit;
pub mod cache; // data keys with bounded reuse
pub mod kms; // the calls to AWS KMS, recorded // the trail: one record for every call

pub mod envelope; // encrypted messages, as the AWS Encryption SDKs read and write them

pub mod clock; // time, passed in
pub mod error; // who is at fault; the one table to gRPC codes
pub mod key; // keys, contexts, ciphertexts
pub mod secret; // key material in memory
pub mod telemetry; // log lines

pub mod cli; // the subcommands
