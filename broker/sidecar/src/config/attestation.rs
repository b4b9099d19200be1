//! `[attestation]`: which attestation documents are accepted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;

use super::{Host, within};
use crate::attestation::Trust;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct AttestationSection {
    roots: Option<Vec<PathBuf>>,
    max_document_age_seconds: u64,
    clock_skew_seconds: u64,
    insecure_allow_debug: bool,
}

impl Default for AttestationSection {
    fn default() -> Self {
        let Trust { max_age, clock_skew, allow_debug, .. } = Trust::aws();
        Self {
            roots: None,
            max_document_age_seconds: max_age.as_secs(),
            clock_skew_seconds: clock_skew.as_secs(),
            insecure_allow_debug: allow_debug,
        }
    }
}

impl AttestationSection {
    pub(super) fn check(self, base: &Path, host: Host) -> Result<Trust, String> {
        let aws = Trust::aws();
        let roots = match self.roots {
            None => aws.roots,
            Some(files) if files.is_empty() => {
                return Err("attestation.roots: no file: leave it out to trust AWS's own root".into());
            }
            Some(_) if host == Host::Elsewhere => aws.roots,
            Some(files) => {
                let mut roots = Vec::new();
                for file in files {
                    roots.extend(certificates(&base.join(file))?);
                }
                roots
            }
        };
        // A leaf certificate lives for three hours.
        let age = within("attestation.max_document_age_seconds", self.max_document_age_seconds, 1, 10_800)?;
        let skew = within("attestation.clock_skew_seconds", self.clock_skew_seconds, 0, 300)?;
        Ok(Trust {
            roots,
            max_age: Duration::from_secs(age),
            clock_skew: Duration::from_secs(skew),
            allow_debug: self.insecure_allow_debug,
        })
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let mistake = |why: &str| format!("attestation.roots: {}: {why}", file.display());
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| mistake(&error.to_string()))?;
    if certificates.is_empty() { Err(mistake("it has no certificate in PEM")) } else { Ok(certificates) }
}
