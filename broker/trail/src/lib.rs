//! The audit trail of key-broker: records of workloads' calls and KMS's answers, which are made durable, delivered, signed, read
//! and verified here. The crate knows nothing of gRPC, policy, cache or the KMS client: what it needs from KMS is [`TrailKeys`].

// What a record is.
mod format_version;
mod names;
mod notice;
mod origin;
pub mod record;
mod trail_name;

// Where records become durable.
pub mod journal;

// How they leave the host.
mod announcer;
pub mod delivery;
mod digest;
mod encryption_context;
mod ending;
mod journal_trail;
mod keys;
mod log_file;
mod remainder;
mod signature;
mod state;
mod stdout;
mod store;

// How they are read and judged.
mod coverage;
mod reader;
mod regular_file;
pub mod verify;
mod vouched;

// What `cargo bench --bench verify` verifies.
#[cfg(feature = "bench")]
pub mod bench;

pub use self::{
    coverage::{Coverage, CoveredTrail, Vouching},
    encryption_context::{TRAIL_ARN, path_context},
    ending::Ending,
    journal_trail::JournalTrail,
    keys::{DataKey, Decrypter, KeysError, KeysErrorKind, KmsPublicKey, TrailKeys},
    names::TrailNames,
    notice::Reloads,
    reader::records::records,
    reader::{ReadFailure, TrailReader},
    regular_file::open_regular,
    remainder::Remainder,
    signature::PublicKey,
    stdout::StdoutCopy,
    store::s3::S3Settings,
    store::{Store, StoreError},
    vouched::{LogFiles, Unread, VouchedLogFile},
};
