//! What benches of calls share: the programs that are measured, the load, and the machine.
#![allow(dead_code, reason = "every bench uses another part of this")]

pub(crate) mod broker;
pub(crate) mod echo;
pub(crate) mod kms;
pub(crate) mod load;
pub(crate) mod machine;
pub(crate) mod process;
pub(crate) mod programs;

/// Whatever ends a measurement.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
