//! The vocabulary of key-broker, in types that hold only valid values. Nothing here does I/O, except the locked memory of
//! [`secret`].

// What workloads ask for, of which key, and how it ends.
mod action;
mod ciphertext;
mod context;
mod invalid;
mod key;
mod length;
mod outcome;

// How far a data key may be reused.
mod reuse;

// Who calls, and what proves it.
mod peer;
mod principal;
mod spiffe;
mod transport;

// How much of it one of many may take.
mod fair_share;

// Key material in memory; time, passed in.
pub mod clock;
pub mod secret;

pub use self::{
    action::Action,
    ciphertext::CiphertextBlob,
    context::EncryptionContext,
    fair_share::FairShares,
    invalid::InvalidValue,
    key::{KeyArn, KeyId, partition_of},
    length::{DataKeyLength, RandomLength},
    outcome::Outcome,
    peer::{PeerDetails, PeerKind},
    principal::Principal,
    reuse::{Bounds, DeclaredUse, MAX_AGE_SECONDS, MAX_MESSAGES, Reuse},
    secret::Plaintext,
    spiffe::{SpiffeId, check_trust_domain},
    transport::Transport,
};
