//! What of a call's time is kept for telling its caller that KMS does not answer: who is told can wait, and ask again, while who has
//! only seen its own time run out knows neither why nor what to do.

use std::time::Duration;

use crate::error::{BrokerError, KmsError, KmsErrorKind};

/// How much of what a call has left is kept for its reply; none where that is too little to be told in.
#[must_use]
pub(crate) fn time_to_tell(remaining: Duration) -> Duration {
    if remaining < LEAST { Duration::ZERO } else { (remaining / 8).min(MOST) }
}

/// KMS has not answered in the time that there was.
#[must_use]
pub(crate) fn silence() -> BrokerError {
    BrokerError::Kms(KmsError {
        kind: KmsErrorKind::Unavailable,
        code: "KMSUnavailable".into(),
        message: Some("KMS did not answer in time".into()),
        request_id: None,
    })
}

/// A caller that gives less has given KMS no fair chance: its deadline is what decides.
const LEAST: Duration = Duration::from_millis(500);
/// A commit to a disk that is busy, and the way back.
const MOST: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    //! Something is kept of all but the shortest times, and never much.

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
