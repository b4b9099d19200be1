//! Proves: whatever is wrong with a message or with what is to become one, the words tell it apart and say what to do.

use std::io;

use super::*;
use crate::SealError;

/// A header in its parts, each to be replaced.
struct Parts {
    format: Vec<u8>,
    context: Vec<u8>,
    keys: Vec<u8>,
    content: Vec<u8>,
}

impl Parts {
    fn new() -> Self {
        let keys = [&[0, 1, 0, 7][..], b"aws-kms", &[0, 1, b'k', 0, 1, b'b']].concat();
        let content = [&[2, 0, 0, 0x10, 0][..], &[0; 32 + 16]].concat();
        Self { format: vec![2, 4, 0x78], context: vec![0, 0], keys, content }
    }

    fn bytes(&self) -> Vec<u8> {
        [&self.format[..], &[7; 32], &self.context, &self.keys, &self.content].concat()
    }
}

fn with(change: impl FnOnce(&mut Parts)) -> Vec<u8> {
    let mut parts = Parts::new();
    change(&mut parts);
    parts.bytes()
}

/// A context section of so many pairs by its own word, and these.
pub(super) fn section(count: u16, pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = count.to_be_bytes().to_vec();
    for part in pairs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend_from_slice(&u16::try_from(part.len()).expect("short").to_be_bytes());
        bytes.extend_from_slice(part);
    }
    [&u16::try_from(bytes.len()).expect("short").to_be_bytes()[..], &bytes].concat()
}

fn keys(count: u16, blob: usize) -> Vec<u8> {
    let length = u16::try_from(blob).expect("short").to_be_bytes();
    let key = [&[0, 1, b'p', 0, 1, b'k'][..], &length, &vec![0; blob]].concat();
    [&count.to_be_bytes()[..], &key.repeat(count.into())].concat()
}

#[test]
fn every_refusal_of_a_header_says_what_it_is_and_what_to_do() {
    let cases = [
        ("as it should be", Parts::new().bytes()),
        ("empty", vec![]),
        ("format 1, 0x0378", vec![1, 0x80, 3, 0x78, 1, 2, 3]),
        ("format 1, 0x0014", vec![1, 0x80, 0, 0x14, 1, 2, 3]),
        ("format 1, another type", vec![1, 0x81, 0, 0x14]),
        ("format 3", vec![3, 4, 0x78]),
        ("a gzip file", vec![0x1f, 0x8b, 8]),
        ("base64", b"AgR4TfvRMU2d".to_vec()),
        ("signed", with(|parts| parts.format = vec![2, 5, 0x78])),
        ("an unknown suite", with(|parts| parts.format = vec![2, 0x67, 0])),
        ("no pairs", with(|parts| parts.context = section(0, &[]))),
        ("a name twice", with(|parts| parts.context = section(2, &[(b"a", b"1"), (b"a", b"2")]))),
        ("too few pairs", with(|parts| parts.context = section(2, &[(b"a", b"1")]))),
        ("too many pairs", with(|parts| parts.context = section(1, &[(b"a", b"1"), (b"b", b"2")]))),
        ("one byte", with(|parts| parts.context = vec![0, 1, 0])),
        ("no UTF-8", with(|parts| parts.context = section(1, &[(b"a", b"\xFF")]))),
        ("an empty name", with(|parts| parts.context = section(1, &[(b"", b"1")]))),
        ("a long context", with(|parts| parts.context = section(1, &[(b"a", &[b'v'; 9_000])]))),
        ("a public key", with(|parts| parts.context = section(1, &[(b"aws-crypto-public-key", b"A")]))),
        ("no encrypted data key", with(|parts| parts.keys = vec![0, 0])),
        ("too many encrypted data keys", with(|parts| parts.keys = keys(65, 1))),
        ("as many as may be", with(|parts| parts.keys = keys(64, 1))),
        ("long encrypted data keys", with(|parts| parts.keys = keys(64, 6_144))),
        ("no UTF-8 in the provider", with(|parts| parts.keys[4] = 0xFF)),
        ("no frames", with(|parts| parts.content[0] = 1)),
        ("an unknown content type", with(|parts| parts.content[0] = 3)),
        ("frame length 0", with(|parts| parts.content[3] = 0)),
        ("frame length 1 MiB", with(|parts| parts.content[1..5].copy_from_slice(&[0, 0x10, 0, 0]))),
        ("frame length 1 MiB + 1", with(|parts| parts.content[1..5].copy_from_slice(&[0, 0x10, 0, 1]))),
        ("no tag", with(|parts| parts.content.truncate(40))),
    ];
    let rows = cases.map(|(name, bytes)| {
        let read = Header::read(&mut &bytes[..]);
        format!("{name}: {}", read.map_or_else(|error| error.to_string(), |_| "read".into()))
    });
    insta::assert_snapshot!(rows.join("\n"));
}

#[test]
fn every_refusal_of_a_body_and_of_sealing_says_what_it_is_and_what_to_do() {
    let open_errors = [
        OpenError::CutOff(3),
        OpenError::DataKeyLength(16),
        OpenError::Commitment,
        OpenError::HeaderTag,
        OpenError::Sequence { expected: 2, found: 3 },
        OpenError::LastFrameLength { content: 5_000, frame: 4_096 },
        OpenError::FrameTag(3),
        OpenError::ContentLength { content: 5_000_000, limit: 1_048_576 },
        OpenError::PublicKey,
        OpenError::Signature,
        OpenError::TrailingBytes,
        OpenError::Refused,
    ];
    let mut rows = open_errors.map(|error| error.to_string()).to_vec();
    let long = CiphertextBlob::parse(vec![0; 6_144].into()).expect("short enough");
    let arn = KeyArn::parse(&format!("arn:aws:kms:us-west-2:111122223333:key/{}", "a".repeat(60_000)));
    let long = EncryptedDataKey::aws_kms(&arn.expect("an ARN"), &long);
    let none = context(&[]);
    for (key, context, encrypted) in [
        (16, &none, encrypted()),
        (32, &context(&[("aws-crypto-public-key", "A")]), encrypted()),
        (32, &context(&[("tenant", "")]), encrypted()),
        (32, &none, long),
    ] {
        let key = Plaintext::new(vec![1; key]);
        let refused = Sealer::new(io::sink(), &key, encrypted, context).err();
        rows.push(refused.expect("refused").to_string());
    }
    rows.push(SealError::Randomness(io::Error::other("the system call failed")).to_string());
    rows.push(SealError::Write(io::Error::other("the disk is full")).to_string());
    insta::assert_snapshot!(rows.join("\n"));
}

#[test]
fn a_key_of_another_provider_is_not_for_kms() {
    for (keys, why) in [(keys(1, 4), "another provider"), (Parts::new().keys, "not the ARN of a key")] {
        let header = Header::read(&mut &with(|parts| parts.keys = keys)[..]).expect(why);
        assert!(header.encrypted_data_keys()[0].for_kms().is_none(), "{why}");
    }
}
