//! Whether more digests are to be expected of a trail: the newest one says whether it is the last, and otherwise when the next is due.

use std::fmt;

use time::{Duration, OffsetDateTime};

use super::finding::{FindingKind, Findings, Place, TrailState};
use crate::digest::{Digest, OwnFields, Position};
use crate::record::record_time;

impl TrailState {
    /// The state according to the newest digest, which ends at `end`.
    pub(crate) fn of(newest: &Digest, end: OffsetDateTime, now: Option<OffsetDateTime>) -> Self {
        let own = newest.key_broker.as_ref();
        if own.is_some_and(|own| own.position == Some(Position::Closing)) {
            return Self::Closed;
        }
        let Some(now) = now else { return Self::Open };
        let interval: Duration = own.map_or(LONGEST_INTERVAL, OwnFields::digest_interval);
        if now > end + LONGEST_INTERVAL.max(interval * 2) + GRACE {
            Self::Abandoned
        } else if now > end + interval + GRACE {
            Self::Stale
        } else {
            Self::Open
        }
    }

    /// Adds the finding for this state.
    pub(super) fn tell(self, key: &str, end: OffsetDateTime, findings: &mut Findings) {
        let (place, end) = (Place::object(key), record_time(end));
        match self {
            Self::Open | Self::Closed => {}
            Self::Stale => {
                let words =
                    format!("the digest after this one is overdue: nothing after {end} is vouched for yet");
                findings.note(FindingKind::TrailStale, place, words);
            }
            Self::Abandoned => {
                let words = format!(
                    "the trail ends here, and its broker has not said so: it vouches for nothing after {end}; where its journal is still \
                     there, `key-broker audit deliver` delivers it"
                );
                findings.cannot_tell(FindingKind::TrailAbandoned, place, words);
            }
        }
    }
}

impl fmt::Display for TrailState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Stale => "stale",
            Self::Abandoned => "abandoned",
            Self::Closed => "closed",
        })
    }
}

impl OwnFields {
    fn digest_interval(&self) -> Duration {
        Duration::seconds(self.digest_interval_seconds.try_into().unwrap_or(i64::MAX)).min(LONGEST_INTERVAL)
    }
}

/// The longest interval of digests that can be configured.
const LONGEST_INTERVAL: Duration = Duration::hours(24);
/// For delays: an outage of the store, and attempts a minute apart.
const GRACE: Duration = Duration::hours(1);

#[cfg(test)]
mod tests {
    //! Only a closing digest closes a trail; otherwise the state depends on how long the next digest is overdue.

    use super::*;
    use crate::verify::forge::{Forge, START};

    #[tokio::test]
    async fn a_trail_is_open_stale_abandoned_or_closed() {
        use TrailState::{Abandoned, Closed, Open, Stale};
        let mut digest = Forge::sound().newest().await;
        let end = START + Duration::hours(3);
        let state =
            |digest: &Digest, hours: i64| TrailState::of(digest, end, Some(end + Duration::hours(hours)));
        assert_eq!(TrailState::of(&digest, end, None), TrailState::Open);
        let states = [0, 1, 3, 24, 26].map(|hours| state(&digest, hours));
        assert_eq!(states, [Open, Open, Stale, Stale, Abandoned]);
        digest.key_broker.as_mut().expect("ours").position = Some(Position::Closing);
        assert_eq!(state(&digest, 9_999), Closed);
    }
}
