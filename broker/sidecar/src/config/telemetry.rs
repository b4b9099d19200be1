//! `[telemetry]`: the HTTP listener.

use std::net::SocketAddr;

use serde::Deserialize;

/// `[telemetry]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table: http")]
pub(super) struct TelemetrySection {
    http: Option<SocketAddr>,
}

impl TelemetrySection {
    pub(super) fn check(self) -> Result<Option<SocketAddr>, String> {
        match self.http {
            Some(address) if address.port() == 0 => {
                Err(format!("telemetry.http: {address} has no port: choose one, such as 9464"))
            }
            http => Ok(http),
        }
    }
}
