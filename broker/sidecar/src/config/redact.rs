//! `[audit.redact]`: values that records do not show.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::redaction::{Digester, Redaction};

/// `[audit.redact]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RedactSection {
    encryption_context: Vec<String>,
    key_file: Option<PathBuf>,
    #[serde(default)]
    plain: bool,
}

impl RedactSection {
    pub(super) fn check(self, base: &Path) -> Result<Arc<Redaction>, String> {
        let mistake = |why: String| Err(format!("audit.redact.encryption_context: {why}"));
        let mut names = BTreeSet::new();
        for name in self.encryption_context {
            if name.is_empty() {
                return mistake("a name is empty".into());
            }
            if OF_THE_TRAIL.contains(&&*name) {
                return mistake(format!(
                    "{name:?} tells whose log file a data key is of: it is never redacted"
                ));
            }
            if !names.insert(name.clone()) {
                return mistake(format!("{name:?} is there twice"));
            }
        }
        if names.is_empty() {
            return mistake("no name: leave [audit.redact] out to redact nothing".into());
        }
        let digester = match (self.key_file, self.plain) {
            (Some(file), false) => {
                let file = base.join(file);
                Digester::with_key_in(&file)
                    .map_err(|error| format!("audit.redact.key_file: {}: {error}", file.display()))?
            }
            (None, true) => Digester::Plain,
            _ => {
                return Err("audit.redact: set key_file (a file with a key, as `openssl rand -hex 32` makes), or plain = true for \
                            SHA-256 without a key, which whoever guesses a value can check"
                    .into());
            }
        };
        Ok(Arc::new(Redaction::new(names, digester)))
    }
}

/// The pairs of the data keys of a trail's own objects.
const OF_THE_TRAIL: [&str; 2] = ["aws:cloudtrail:arn", "aws:s3:arn"];
