//! The words of key-broker, in types that hold only what can be so. Nothing here does I/O, but for the locked memory of
//! [`secret`].

// What workloads ask for, of which key, and how it ends.
mod action;
mod ciphertext;
mod context;
mod key;
mod length;
mod malformed;
mod outcome;

// How far a data key may be reused.
mod reuse;

// Who calls, and what proves it.
mod measurements;
mod peer;
mod principal;
mod spiffe;
mod transport;

// How much of it one of many may take.
mod fair_share;

// Key material in memory; memory given back; time, passed in.
pub mod clock;
pub mod heap;
pub mod secret;

pub use action::Action;
pub use ciphertext::{CiphertextBlob, GrantTokens};
pub use context::EncryptionContext;
pub use fair_share::{FairPool, FairShares, Share};
pub use key::{KeyArn, KeyId, NamedKey, RequestedKey, partition_of};
pub use length::{DataKeyLength, RandomLength};
pub use malformed::Malformed;
pub use measurements::{MAX_ENCLAVE_PCR, Measurements, PCR_BYTES, PlatformKind};
pub use outcome::Outcome;
pub use peer::{Peer, PeerDetails, PeerKind};
pub use principal::Principal;
pub use reuse::{Bounds, DeclaredUse, MAX_AGE_SECONDS, MAX_MESSAGES, Reuse, UNBOUNDED, UNUSED};
pub use secret::Plaintext;
pub use spiffe::{SpiffeId, check_trust_domain};
pub use transport::Transport;
