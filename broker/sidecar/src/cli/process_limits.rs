//! Checks the process's resource limits at start, so that a low limit does not show only under load.

use std::io;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::places::Places;
use crate::telemetry::http;
use crate::transport::{ADMIN_CONNECTIONS, HANDSHAKES};

/// Makes `config` fit the limits of the process, and says what does not: `limits.connections` is lowered where there are too few
/// file descriptors. An error if there are so few that hardly anybody could connect.
pub(super) fn fit(config: &mut Config) -> Result<(), String> {
    let largest = config.audit.journal.max_segment_bytes + SLACK_BYTES;
    if let Some(limit) = getrlimit(Resource::Fsize).current.filter(|limit| *limit < largest) {
        tracing::warn!(
            limit,
            needed = largest,
            "RLIMIT_FSIZE is lower than the size of a journal segment: calls are refused once a segment reaches it"
        );
    }
    let descriptors = Descriptors::of(config);
    let Some(limit) = raise(descriptors.needed(config.limits.connections)) else { return Ok(()) };
    if limit >= descriptors.needed(config.limits.connections) {
        return Ok(());
    }
    let connections = descriptors.connections(limit);
    let needed = descriptors.needed(config.limits.connections);
    if connections < LEAST_CONNECTIONS {
        return Err(format!(
            "RLIMIT_NOFILE is {limit}, and limits.connections = {} needs {needed}: raise the limit of open files",
            config.limits.connections
        ));
    }
    tracing::warn!(
        limit,
        needed,
        connections,
        "RLIMIT_NOFILE is lower than limits.connections needs: each socket accepts fewer connections"
    );
    config.limits.connections = connections;
    config.limits.share.connections = config.limits.share.connections.min(connections);
    Ok(())
}

/// A file that reaches `RLIMIT_FSIZE` is an error of its write, as a full disk is, and no end of the process. To be called within the
/// runtime.
pub(super) fn survive_file_size_limit() -> io::Result<()> {
    signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map(drop)
}

/// How many file descriptors a broker needs, beside those of workloads' connections.
struct Descriptors {
    sockets: usize,
    others: usize,
}

impl Descriptors {
    fn of(config: &Config) -> Self {
        let listen = &config.listen;
        let sockets = [
            listen.unix.is_some(),
            listen.tls.is_some(),
            listen.vsock.is_some(),
            listen.insecure_tcp.is_some(),
        ];
        let mut others = OWN + config.guard.max_in_flight as usize;
        for (is_there, places) in [
            (listen.tls.is_some(), HANDSHAKES),
            (listen.admin.is_some(), ADMIN_CONNECTIONS),
            (config.http.is_some(), http::CONNECTIONS),
        ] {
            if is_there {
                others += with_leaving(places);
            }
        }
        Self { sockets: sockets.into_iter().filter(|is_there| *is_there).count(), others }
    }

    fn needed(&self, connections: usize) -> u64 {
        (self.others + self.sockets * with_leaving(connections)) as u64
    }

    /// The number of connections for which this many descriptors are enough.
    fn connections(&self, limit: u64) -> usize {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let each = limit.saturating_sub(self.others) / self.sockets.max(1);
        // Five for four, and one.
        each.saturating_sub(1) / 5 * 4
    }
}

fn with_leaving(places: usize) -> usize {
    places + Places::<()>::leaving(places)
}

/// Raises the limit of open files to the hard one, and returns what it is then; none if it has no end. Where there is no hard limit, or
/// the system knows a lower one, to what is needed.
fn raise(needed: u64) -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current = current?;
    for wanted in [maximum.unwrap_or(needed), needed] {
        let raised = Rlimit { current: Some(wanted), maximum };
        if wanted > current && setrlimit(Resource::Nofile, raised).is_ok() {
            return Some(wanted);
        }
    }
    Some(current)
}

/// Journal, log, store, STS, collectors, the runtime's own.
const OWN: usize = 64;
/// Fewer are not worth serving.
const LEAST_CONNECTIONS: usize = 16;
/// The last record that goes into a file of the journal may go beyond its bound.
const SLACK_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    //! Whatever the limit, exactly as many connections are accepted as fit.

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_fits_fits(sockets in 1..5_usize, others in 0..1_000_usize, limit in 0..1_000_000_u64) {
            let descriptors = Descriptors { sockets, others };
            let connections = descriptors.connections(limit);
            prop_assert!(connections == 0 || descriptors.needed(connections) <= limit);
            prop_assert!(descriptors.needed(connections + 8) > limit);
        }
    }
}
