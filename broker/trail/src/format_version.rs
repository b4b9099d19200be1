//! The version of everything that a broker leaves behind: journal, notes, records, log files, digests. An additional field keeps the
//! version, and older programs ignore it. A changed meaning raises it, and older programs then say which version they cannot read.

use serde::Deserialize;

/// The part of every note and digest that is read first.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Versioned {
    /// The writer's version.
    pub(crate) version: u32,
}

/// The error for something that a newer program wrote.
#[must_use]
pub(crate) fn newer(version: u32) -> String {
    format!(
        "format version {version}, of a newer key-broker; this program reads up to version {FORMAT_VERSION}: use one that reads version {version}"
    )
}

/// The version that this program writes. It reads this one and the previous one.
pub(crate) const FORMAT_VERSION: u32 = if cfg!(feature = "next-format") { 2 } else { 1 };

#[cfg(test)]
mod tests;
