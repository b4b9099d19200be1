//! What it takes to verify an attestation document, in microseconds of one processor.
//!
//! `cargo bench --bench attestation`

use std::hint::black_box;

use bytes::Bytes;
use key_broker::Trust;
use key_broker::bench::is_genuine;
use key_broker_client::enclave::RecipientKey;
use key_broker_core::clock::{Clock, SystemClock};
use kms_emulator::attestation::{Authority, DocumentClaims, verify};
use time::OffsetDateTime;

fn main() {
    let authority = Authority::generate();
    let trust = Trust { roots: vec![authority.root_der().into()], ..Trust::aws() };
    let key = RecipientKey::generate().expect("a key");
    let claims = DocumentClaims::enclave(MADE_AT).with_public_key(key.public_key_spki());
    let document = Bytes::from(authority.document(&claims));
    let now = OffsetDateTime::from_unix_timestamp_nanos(i128::from(MADE_AT) * 1_000_000).expect("a moment");
    let mut altered = document.to_vec();
    altered[document.len() - 1] ^= 1;
    let altered = Bytes::from(altered);
    let roots = [authority.root_der()];

    println!("a document of {} bytes, five signatures of P-384:", document.len());
    let report = |what: &str, work: &dyn Fn()| println!("  {what}: {:.0} us", microseconds(work));
    for _ in 0..REPEATS {
        report("verified", &|| {
            assert!(black_box(is_genuine(&trust, document.clone(), now)));
        });
        report("refused for its last byte", &|| {
            assert!(!black_box(is_genuine(&trust, altered.clone(), now)));
        });
        report("by the emulator's own reader", &|| {
            assert!(black_box(verify(&document, &roots, MADE_AT)).is_ok());
        });
    }
}

/// The mean of many.
fn microseconds(work: &dyn Fn()) -> f64 {
    let started = SystemClock.instant();
    (0..ROUNDS).for_each(|_| work());
    started.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS)
}

const MADE_AT: u64 = 1_795_651_200_000;
const ROUNDS: u32 = 1_000;
const REPEATS: usize = 3;
