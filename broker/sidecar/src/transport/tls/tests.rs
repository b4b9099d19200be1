//! A certificate that expires soon is recognized, and reading unchanged files again changes nothing.

use std::fs;

use key_broker_core::clock::{Clock as _, SystemClock};
use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType};

use super::*;

#[test]
fn a_certificate_that_expires_soon_is_known() {
    let dir = tempfile::tempdir().expect("a directory");
    let now = SystemClock.now();
    // Valid since two hours ago, for one more hour.
    let files = certified(dir.path(), now - Duration::from_hours(2), now + Duration::from_hours(1));
    let tls = Tls::load(&files).expect("they fit together");
    let left = tls.expires_at() - now;
    assert!((3_598..=3_601).contains(&left.whole_seconds()), "{left}");
    let minutes = |n| tls.expires_at() - time::Duration::minutes(n);
    assert!(!tls.is_overdue(minutes(19)) && tls.is_overdue(minutes(17)));
    assert_eq!(tls.reload(SystemClock.instant()), Ok(Reloaded::Same));
}

/// A certificate of this validity, its key, and the authority that signed it.
fn certified(dir: &Path, from: OffsetDateTime, until: OffsetDateTime) -> TlsFiles {
    let key = || KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(authority, key()).expect("signs");
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![SanType::DnsName(Ia5String::try_from("broker.test").expect("ASCII"))];
    (leaf.not_before, leaf.not_after) = (from, until);
    let leaf_key = key();
    let leaf = leaf.signed_by(&leaf_key, &authority).expect("signs");
    let written = |name: &str, text: String| {
        let path = dir.join(name);
        fs::write(&path, text).expect("writes");
        path
    };
    TlsFiles {
        certificate: written("tls.crt", leaf.pem()),
        key: written("tls.key", leaf_key.serialize_pem()),
        trust_bundle: written("ca.crt", authority.pem()),
    }
}
