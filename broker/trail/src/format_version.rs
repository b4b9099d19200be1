//! The version of everything that a broker leaves behind: journal, notes, records, log files, digests. An additional field keeps the
//! version, and older programs ignore it; a changed meaning raises it, and older programs say that they cannot tell, and which version could.

use serde::Deserialize;

/// What every note and digest begins to be read by.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Versioned {
    /// The writer's version.
    pub(crate) version: u32,
}

/// Why something cannot be read that a newer program wrote.
#[must_use]
pub(crate) fn newer(version: u32) -> String {
    format!(
        "format version {version}, of a newer key-broker; this program reads up to version {FORMAT_VERSION}: use one that reads version {version}"
    )
}

/// What this program writes. It reads this and the one before.
pub(crate) const FORMAT_VERSION: u32 = if cfg!(feature = "next-format") { 2 } else { 1 };

#[cfg(test)]
mod tests;
