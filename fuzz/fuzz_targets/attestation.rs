//! Attestation documents against anything that calls itself one.
//!
//! Holds for every input: no panic, and nothing is taken that AWS's root does not vouch for.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use time::OffsetDateTime;

#[path = "../../broker/sidecar/src"]
mod broker {
    #[allow(dead_code, unused_imports, reason = "the broker uses more of it")]
    pub mod attestation;
}

use broker::attestation::{DocumentFlaw, Trust};

#[derive(Arbitrary, Debug)]
enum Input {
    /// Of any content.
    Bytes(Vec<u8>),
    /// A COSE_Sign1 with any payload.
    Payload(Vec<u8>),
    /// With a map of these members.
    Members { indefinite: bool, members: Vec<(Member, Vec<u8>)> },
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Member {
    ModuleId,
    Digest,
    Timestamp,
    Pcrs,
    NitroTpmPcrs,
    Certificate,
    Cabundle,
    PublicKey,
    UserData,
    Other(u8),
}

fuzz_target!(|input: Input| {
    let document = match input {
        Input::Bytes(bytes) => bytes,
        Input::Payload(payload) => cose(&payload),
        Input::Members { indefinite, members } => cose(&map(indefinite, &members)),
    };
    let refused = Trust::aws().verify(Bytes::from(document), OffsetDateTime::UNIX_EPOCH).expect_err("nobody signed it");
    assert!(refused.measurements.is_none());
    assert!(matches!(refused.flaw, DocumentFlaw::Malformed(_) | DocumentFlaw::Untrusted(_) | DocumentFlaw::CertificateExpired));
});

fn cose(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [b"\x84\x44\xa1\x01\x38\x22\xa0\x5a", &length[..], payload, &[0x58, 96], &[1; 96]].concat()
}

fn map(indefinite: bool, members: &[(Member, Vec<u8>)]) -> Vec<u8> {
    let count = u8::try_from(members.len()).unwrap_or(u8::MAX);
    let mut payload = if indefinite { vec![0xbf] } else { vec![0xb8, count] };
    for (member, value) in members {
        let name = match member {
            Member::ModuleId => "module_id".to_owned(),
            Member::Digest => "digest".to_owned(),
            Member::Timestamp => "timestamp".to_owned(),
            Member::Pcrs => "pcrs".to_owned(),
            Member::NitroTpmPcrs => "nitrotpm_pcrs".to_owned(),
            Member::Certificate => "certificate".to_owned(),
            Member::Cabundle => "cabundle".to_owned(),
            Member::PublicKey => "public_key".to_owned(),
            Member::UserData => "user_data".to_owned(),
            Member::Other(number) => number.to_string(),
        };
        payload.extend([0x78, u8::try_from(name.len()).expect("short")]);
        payload.extend(name.as_bytes());
        payload.extend(value);
    }
    if indefinite {
        payload.push(0xff);
    }
    payload
}
