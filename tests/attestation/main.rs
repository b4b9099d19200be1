//! Proves: a call with a recipient gets what only its enclave can read, from KMS each time, with a record of
//! what was measured; and what policy or KMS refuses is recorded with it, too.

#[path = "../peers/mod.rs"]
mod peers;
#[path = "../support/mod.rs"]
mod support;

mod calls;
