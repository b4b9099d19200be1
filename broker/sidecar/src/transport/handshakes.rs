//! Failed TLS handshakes: counted by cause, and logged from time to time with the peer.

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::{AlertDescription, CertificateError, Error as TlsError};

/// Why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The client sent no certificate.
    NoCertificate,
    /// No trusted authority has signed the certificate.
    UnknownAuthority,
    /// The certificate has expired, or is not valid yet.
    NotValidNow,
    /// The certificate is not acceptable for another reason.
    BadCertificate,
    /// The client rejected the broker's certificate.
    ByClient,
    /// No common version or cipher, or no TLS at all.
    NoTls,
    /// The handshake did not end in time.
    TooSlow,
    /// There were too many at the same time.
    TooMany,
    /// The client went away, as port probes do.
    Gone,
}

impl Refused {
    /// All of them, in the order of the enumeration.
    pub(crate) const ALL: [Self; 9] = [
        Self::NoCertificate,
        Self::UnknownAuthority,
        Self::NotValidNow,
        Self::BadCertificate,
        Self::ByClient,
        Self::NoTls,
        Self::TooSlow,
        Self::TooMany,
        Self::Gone,
    ];

    /// Its name in the metric's label.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UnknownAuthority => "unknown_authority",
            Self::NotValidNow => "not_valid_now",
            Self::BadCertificate => "bad_certificate",
            Self::ByClient => "by_client",
            Self::NoTls => "no_tls",
            Self::TooSlow => "too_slow",
            Self::TooMany => "too_many",
            Self::Gone => "gone",
        }
    }

    /// What the operator can do about it.
    const fn next_step(self) -> &'static str {
        match self {
            Self::NoCertificate => "the client has to show a certificate",
            Self::UnknownAuthority => {
                "its certificate has to chain to listen.tls.trust_bundle_file, intermediate ones included"
            }
            Self::NotValidNow => "renew its certificate, or look at the clocks",
            Self::BadCertificate => "look at its certificate",
            Self::ByClient => {
                "the client has to trust the broker's certificate, for the name by which it calls"
            }
            Self::NoTls => "the client has to speak TLS 1.3",
            Self::TooSlow | Self::TooMany | Self::Gone => "look at the client, and the network",
        }
    }

    /// Why a handshake failed.
    fn of(error: &io::Error) -> Self {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<TlsError>());
        match (cause, error.kind()) {
            (Some(cause), _) => Self::of_tls(cause),
            (None, ErrorKind::TimedOut) => Self::TooSlow,
            (None, ErrorKind::ResourceBusy | ErrorKind::QuotaExceeded) => Self::TooMany,
            (None, _) => Self::Gone,
        }
    }

    fn of_tls(error: &TlsError) -> Self {
        match error {
            TlsError::NoCertificatesPresented => Self::NoCertificate,
            // A certificate with a trusted authority's name, but signed by another key, counts as unknown.
            TlsError::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => Self::UnknownAuthority,
            TlsError::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => Self::NotValidNow,
            TlsError::InvalidCertificate(_) => Self::BadCertificate,
            TlsError::AlertReceived(
                AlertDescription::ProtocolVersion
                | AlertDescription::HandshakeFailure
                | AlertDescription::InsufficientSecurity
                | AlertDescription::NoApplicationProtocol,
            ) => Self::NoTls,
            TlsError::AlertReceived(_) => Self::ByClient,
            _ => Self::NoTls,
        }
    }
}

/// Counts of failed handshakes.
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    refused: [AtomicU64; Refused::ALL.len()],
    told: Mutex<Told>,
}

/// When the log last had one, and how many it has left out since.
#[derive(Debug, Default)]
struct Told {
    last: Option<Instant>,
    since: u64,
}

impl Handshakes {
    /// The number of handshakes that failed for this reason.
    #[must_use]
    pub(crate) fn refused(&self, why: Refused) -> u64 {
        self.refused[why as usize].load(Ordering::Relaxed)
    }

    /// Counts a failed handshake, and logs it unless another was logged lately. Mere port probes are never logged.
    pub(super) fn refuse(&self, peer: IpAddr, error: &io::Error, now: Instant) {
        let why = Refused::of(error);
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
        if why == Refused::Gone {
            tracing::debug!(%peer, %error, "a TLS handshake was not ended");
            return;
        }
        let Some(others) = self.may_tell(now) else { return };
        let (reason, next) = (why.name(), why.next_step());
        tracing::warn!(%peer, reason, %error, next, others, "TLS handshake failed");
    }

    /// The number of those left out of the log, if another may be logged now.
    fn may_tell(&self, now: Instant) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE) {
            told.since += 1;
            return None;
        }
        told.last = Some(now);
        Some(std::mem::take(&mut told.since))
    }
}

/// Keeps a client that connects again and again from filling the log.
const PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    //! Every failed handshake is counted once; of many in a short time one is logged, with the number of the others.

    use key_broker_core::clock::{Clock as _, SystemClock};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_in_their_order() {
        for (place, why) in Refused::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, place);
        }
    }

    proptest! {
        #[test]
        fn all_are_counted_and_few_are_told(pauses in prop::collection::vec(0..4_000_u64, 0..100)) {
            let (handshakes, mut now) = (Handshakes::default(), SystemClock.instant());
            let (mut told, mut last): (u64, Option<Instant>) = (0, None);
            for pause in &pauses {
                now += Duration::from_millis(*pause);
                if let Some(others) = handshakes.may_tell(now) {
                    prop_assert!(last.is_none_or(|last| now.duration_since(last) >= PAUSE));
                    (told, last) = (told + 1 + others, Some(now));
                }
            }
            let since = handshakes.told.lock().expect("no panic").since;
            prop_assert_eq!(told + since, pauses.len() as u64);
        }
    }
}
