//! The audit trail of key-broker: records of what workloads asked and of what KMS answered, made durable, delivered, signed, read
//! back and verified. It knows no gRPC, no policy, no cache and no client of KMS: [`keys`] is what it needs of KMS.

// What a record is.
pub mod names;
pub mod notice;
pub mod record;

// Where records become durable.
pub mod journal;

// How they leave the host.
pub mod announcer;
pub mod delivery;
pub mod digest;
pub mod encryption_context;
pub mod ending;
pub mod inbox;
pub mod keys;
pub mod log_file;
pub mod remainder;
pub mod signature;
mod state;
pub mod stdout;
pub mod store;

// How they are read and judged.
pub mod cost;
pub mod reader;
pub mod reconcile;
pub mod verify;
