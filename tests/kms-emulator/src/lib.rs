//! An AWS KMS for tests and for `key-broker dev`: a real HTTP server on loopback that speaks KMS's JSON 1.1 and the
//! one call of STS that the broker makes, with real cryptography behind it.
//!
//! ```no_run
//! # async fn example() -> Result<(), kms_emulator::EmulatorError> {
//! use kms_emulator::{Emulator, EmulatorConfig, Fault, KeySpec};
//!
//! let kms = Emulator::start(EmulatorConfig::default()).await?;
//! let arn = kms.ensure_key("alias/orders", KeySpec::SymmetricDefault)?;
//! kms.inject(Fault::throttling().on("GenerateDataKey").times(3));
//! // … point an AWS SDK at kms.endpoint_url() …
//! assert_eq!(kms.call_count("GenerateDataKey"), 0);
//! kms.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! The modules in the order in which a request meets them:
//! - `emulator`: the library's face: configuration, start and stop, what tests ask and arrange
//! - `server`: connections; one request through all stages
//! - `wire`: what is asked of which service, and how answers look as HTTP
//! - `control`: the endpoints under `/_emulator/`
//! - `fault`: what is to go wrong, and when
//! - `calls`: the log of calls
//! - `parameters`: the members of a request, and AWS's limits on them
//! - `operations`: what each operation does
//! - `access`, `account`, `caller`, `policy`, `grant`: who calls, and whether the key lets them
//! - `recipient`: callers that show an attestation document: whether it is believed, and what it permits
//! - [`attestation`]: the documents, and an authority that makes them for tests
//! - `cms`: answers that only a recipient opens
//! - `sts`: `GetCallerIdentity`, `AssumeRole`
//! - `ciphertext`, `context`: the ciphertext blob and the encryption context bound to it
//! - `store`, `key`: keys and aliases, kept in one file
//! - `imports`: what imported key material is wrapped with
//! - `usage`: when each key was last used
//! - `error`: AWS's errors
//! - `clock`, `random`: where time and randomness come from

mod access;
mod account;
pub mod attestation;
mod caller;
mod calls;
mod ciphertext;
mod clock;
mod cms;
mod context;
mod control;
mod emulator;
mod error;
mod fault;
mod grant;
mod imports;
mod key;
mod operations;
mod parameters;
mod policy;
mod random;
mod recipient;
mod server;
mod store;
mod sts;
mod usage;
mod wire;

pub use calls::Call;
pub use cms::RecipientForm;
pub use emulator::{Emulator, EmulatorConfig, EmulatorError};
pub use fault::{Chance, Effect, Fault};
pub use key::KeySpec;
