//! The audit trail of key-broker: records of what workloads asked and of what KMS answered, made durable, delivered, signed, read
//! back and verified. It knows no gRPC, no policy, no cache and no client of KMS: [`keys`] is what it needs of KMS.

// What a record is.
mod names;
mod notice;
pub mod record;

// Where records become durable.
pub mod journal;

// How they leave the host.
mod announcer;
pub mod delivery;
mod digest;
mod encryption_context;
mod ending;
mod inbox;
pub mod keys;
mod log_file;
mod remainder;
mod signature;
mod state;
mod stdout;
pub mod store;

// How they are read and judged.
pub mod reader;
pub mod verify;

// What `cargo bench --bench verify` verifies.
#[cfg(feature = "bench")]
pub mod bench;

pub use self::{
    digest::Digest,
    encryption_context::{TRAIL_ARN, path_context},
    ending::Ending,
    inbox::leave as leave_in_inbox,
    names::TrailNames,
    notice::Reloads,
    remainder::Remainder,
    signature::PublicKey,
    stdout::StdoutCopy,
    store::s3::S3Settings,
};
