//! Reserves part of a call's time for telling its caller that KMS does not answer. A caller that is told so can try again later; one whose
//! time has simply run out knows neither why nor what to do.

use std::time::Duration;

use crate::error::{BrokerError, KmsError, KmsErrorKind};

/// How much of a call's remaining time is reserved for its reply; zero if there is too little left.
#[must_use]
pub(crate) fn time_to_tell(remaining: Duration) -> Duration {
    if remaining < LEAST { Duration::ZERO } else { (remaining / 8).min(MOST) }
}

/// The error that KMS has not answered in time.
#[must_use]
pub(crate) fn silence() -> BrokerError {
    BrokerError::Kms(KmsError {
        kind: KmsErrorKind::Unavailable,
        code: "KMSUnavailable".into(),
        message: Some("KMS did not answer in time".into()),
        request_id: None,
    })
}

/// With less time KMS has no fair chance, so the caller's own deadline decides.
const LEAST: Duration = Duration::from_millis(500);
/// Enough for a commit to a busy disk, and for the reply's way back.
const MOST: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    //! Some time is reserved except from very short ones, and never much.

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn little_is_kept_and_never_nothing_of_a_second(milliseconds in 0..600_000_u64) {
            let remaining = Duration::from_millis(milliseconds);
            let kept = time_to_tell(remaining);
            prop_assert!(kept <= remaining / 8 && kept <= MOST);
            prop_assert!(remaining < LEAST || kept >= Duration::from_millis(50));
        }
    }
}
