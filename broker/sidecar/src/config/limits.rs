//! `[limits]`: limits in all and for one principal, and timeouts.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;

use super::{milliseconds, within};
use crate::limits::{Limits, ShareLimits};

/// `[limits]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct LimitsSection {
    calls_in_flight: u32,
    calls_in_flight_per_principal: Option<usize>,
    calls_per_second_per_principal: u32,
    connections: usize,
    connections_per_principal: Option<usize>,
    default_deadline_ms: u64,
    deadline_floor_ms: u64,
    drain_seconds: u64,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            // A call holds some 20 KB, its request apart: 1,024 of them stay under 32 MB.
            calls_in_flight: 1_024,
            // Its fair share, which is half of all for one alone.
            calls_in_flight_per_principal: None,
            // What a workload needs only its operator knows.
            calls_per_second_per_principal: 0,
            connections_per_principal: None,
            // A connection per local process and some; each costs a file descriptor and its HTTP/2 windows.
            connections: 512,
            // KMS answers in tens of milliseconds; ten seconds cover three attempts with their back-off.
            default_deadline_ms: 10_000,
            // Less than a commit to disk takes.
            deadline_floor_ms: 1,
            // Kubernetes kills 30 s after SIGTERM, systemd's unit as deploy/enclave has it, too.
            drain_seconds: 25,
        }
    }
}

impl LimitsSection {
    pub(super) fn check(&self) -> Result<Limits, String> {
        Ok(Limits {
            calls_in_flight: within("limits.calls_in_flight", self.calls_in_flight, 1, 100_000)?,
            connections: within("limits.connections", self.connections, 1, 100_000)?,
            share: self.share()?,
            default_deadline: milliseconds("limits.default_deadline_ms", self.default_deadline_ms)?,
            deadline_floor: Duration::from_millis(within(
                "limits.deadline_floor_ms",
                self.deadline_floor_ms,
                0,
                1_000,
            )?),
            drain: Duration::from_secs(within("limits.drain_seconds", self.drain_seconds, 0, 3_600)?),
        })
    }
}

impl LimitsSection {
    fn share(&self) -> Result<ShareLimits, String> {
        let (calls, connections) = (self.calls_in_flight as usize, self.connections);
        Ok(ShareLimits {
            connections: within(
                "limits.connections_per_principal",
                self.connections_per_principal.unwrap_or(connections),
                1,
                connections.max(1),
            )?,
            calls_in_flight: within(
                "limits.calls_in_flight_per_principal",
                self.calls_in_flight_per_principal.unwrap_or(calls),
                1,
                calls.max(1),
            )?,
            calls_per_second: NonZeroU32::new(within(
                "limits.calls_per_second_per_principal",
                self.calls_per_second_per_principal,
                0,
                1_000_000,
            )?),
        })
    }
}
