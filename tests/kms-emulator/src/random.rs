//! Randomness, from AWS-LC's generator.

use uuid::{Builder, Uuid};
use zeroize::Zeroizing;

/// Bytes that nobody can guess.
pub(crate) fn array<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

/// As many bytes that nobody can guess, wiped when dropped.
pub(crate) fn secret(length: usize) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(vec![0; length]);
    fill(&mut bytes);
    bytes
}

/// A random UUID (version 4).
pub(crate) fn uuid() -> Uuid {
    Builder::from_random_bytes(array()).into_uuid()
}

fn fill(bytes: &mut [u8]) {
    aws_lc_rs::rand::fill(bytes).expect("AWS-LC aborts the process rather than lacking entropy");
}
