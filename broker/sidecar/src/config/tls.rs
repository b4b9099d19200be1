//! `[listen.tls]`: TCP with mutual TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::transport::tls::{Tls, TlsFiles};

/// `[listen.tls]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table: address, certificate_file, key_file, trust_bundle_file")]
pub(super) struct TlsSection {
    address: SocketAddr,
    certificate_file: PathBuf,
    key_file: PathBuf,
    trust_bundle_file: PathBuf,
}

impl TlsSection {
    pub(super) fn check(self, base: &Path) -> Result<(SocketAddr, Tls), String> {
        let files = TlsFiles {
            certificate: base.join(self.certificate_file),
            key: base.join(self.key_file),
            trust_bundle: base.join(self.trust_bundle_file),
        };
        let tls = Tls::load(&files).map_err(|error| format!("listen.tls: {error}"))?;
        Ok((self.address, tls))
    }
}
